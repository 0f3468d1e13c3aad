"""Exported models: their source and formats, and whole packages where the extra is."""

from __future__ import annotations

import json
import sys
import types
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import plan_run
from napari_focus_fusion.engine.prepare import prepare
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.export.documentation import documentation
from napari_focus_fusion.export.examples import context_of_scenes, context_of_stack
from napari_focus_fusion.export.formats import as_tuple, trace
from napari_focus_fusion.export.networks import (
    Decoder,
    Encoder,
    Exported,
    SliceScores,
    StackWeights,
    tensors_in,
)
from napari_focus_fusion.export.package import example_inputs
from napari_focus_fusion.export.part import FACTORY, Part
from napari_focus_fusion.export.source import network_source
from napari_focus_fusion.models.registry import save_weights, weights_folder
from small_models import random_sesf, relief

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS = [
    ("sesf", SliceScores),
    ("residual", SliceScores),
    ("dual-path", StackWeights),
    ("mscnn", Encoder),
    ("mscnn", Decoder),
]
EXTRA = "the extra bioimageio is not installed"


def fixed_network(name: str, kind: type[Exported]) -> Exported:
    """A network with random statistics."""
    network = kind(ff.load_model(name))
    generator = torch.Generator().manual_seed(0)
    for buffer in network.buffers(recurse=False):
        buffer.copy_(torch.rand(buffer.shape, generator=generator) / 10)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize(("name", "kind"), NETWORKS)
def test_source_alone_makes_the_network(
    name: str, kind: type[Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = fixed_network(name, kind)
    spec = network.network.spec
    source = network_source(spec.target, f"{kind.__module__}:{kind.__name__}", FACTORY)
    assert "import napari" not in source and "from napari" not in source
    module = types.ModuleType("travelled")
    monkeypatch.setitem(sys.modules, "travelled", module)
    exec(compile(source, "network.py", "exec"), module.__dict__)
    alone = getattr(module, FACTORY)()
    assert type(alone).__module__ == type(alone.network).__module__ == "travelled"
    alone.load_state_dict(network.state_dict())
    _, inputs = example_inputs(network, 48, 56)
    with torch.no_grad():
        found = as_tuple(alone.eval()(*inputs.values()))
        expected = as_tuple(network(*inputs.values()))
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value, right, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kind"), NETWORKS)
def test_torchscript_takes_images_and_stacks_of_any_size(
    name: str, kind: type[Exported]
) -> None:
    network = fixed_network(name, kind)
    _, inputs = example_inputs(network, 48, 56)
    traced = trace(network, tuple(inputs.values()))
    for more, height, width in ((1, 64, 51), (0, 40, 72)):
        _, inputs = example_inputs(network, height, width, more)
        with torch.no_grad():
            expected = as_tuple(network(*inputs.values()))
            found = as_tuple(traced(*inputs.values()))
        for value, right in zip(found, expected, strict=True):
            torch.testing.assert_close(value, right, rtol=1e-4, atol=1e-5)


def test_pooled_and_decoded_features_are_what_fusing_makes() -> None:
    model = ff.load_model("mscnn")
    encoder, decoder = Encoder(model), Decoder(model)
    slices = torch.rand(4, 1, 40, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        largest, added = encoder(slices)
        count = torch.tensor([[4.0]])
        fused = decoder(largest.amax(0, True), added.sum(0, True), count)
        expected, _ = model(slices[:, 0][None])
    torch.testing.assert_close(fused[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_the_run_or_of_scenes() -> None:
    model = ff.load_model("sesf")
    stack = ff.as_stack(relief(64, 72, 3).stack, axes="ZYX")
    plan = plan_run(stack, model, FusionSettings(device="cpu", surface=0.0))
    with torch.no_grad():
        expected = tensors_in(prepare(plan, 0, Monitor()).context)
    found = tensors_in(context_of_stack(model, stack))
    assert len(found) == len(expected) == 9
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value, right)
    again, anew = (tensors_in(context_of_scenes(model)) for _ in "12")
    assert any((a - b).abs().max() > 1e-4 for a, b in zip(found, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again, anew, strict=True))


def test_the_documentation_tells_use_training_and_validation() -> None:
    model = ff.load_model("sesf")
    card = json.loads((weights_folder() / "sesf.json").read_text(encoding="utf-8"))
    network = SliceScores(model)
    part = Part(network, "sesf", 5, 32, {}, {}, {}, "twelve scenes of all kinds")
    text = documentation(part, card)
    for words in (
        *("SESF-Fuse", "https://doi.org/10.1007/s00521-020-05358-9", "7 x 7 pixels"),
        *("fixed to those of twelve scenes", "## Validation", card["command"]),
        str(card["scores"]["trained"]["psnr"]),
    ):
        assert words in " ".join(text.split()), words
    assert "Nothing is recorded" in documentation(part, {})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sml", "has no weights"),
        ("affinity-sr", "compares two slices at a time"),
        ("nothing", "There is no model 'nothing'"),
    ],
)
def test_what_cannot_be_exported_says_why(
    name: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ff.FocusFusionError, match=words):
        ff.export_model(name, tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


def test_wrong_places(tmp_path: Path) -> None:
    with pytest.raises(ff.FocusFusionError, match=r"must end in \.zip"):
        ff.export_model("sesf", tmp_path / "model.pt")
    with pytest.raises(ff.FocusFusionError, match="does not exist"):
        ff.export_model("sesf", tmp_path / "nowhere" / "model.zip")
    (tmp_path / "model-decoder.zip").write_text("mine")
    with pytest.raises(ff.FocusFusionError, match=r"model-decoder\.zip' exists"):
        ff.export_model("mscnn", tmp_path / "model.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["model-decoder.zip"]


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bioimageio.spec", None)
    with pytest.raises(ff.FocusFusionError, match=r"fusion\[bioimageio\]"):
        ff.export_model("sesf", tmp_path / "model.zip")
    assert not list(tmp_path.iterdir())


def test_options_of_export_alone_are_refused(capsys: Any) -> None:
    assert main(["models", "--author", "Jane Doe"]) == 2
    assert "--author is for --export" in capsys.readouterr().err


# With the extra -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tester() -> Any:
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=EXTRA)
    return pytest.importorskip("bioimageio.core", reason=EXTRA).test_model


def checked(tester: Any, path: Path) -> Any:
    """The description, once bioimage.io's own tester has passed it."""
    from bioimageio.spec import load_model_description

    summary = tester(path)
    failed = [d.name for d in summary.details if d.status != "passed"]
    assert summary.status == "passed", failed
    tested = {d.loc[1] for d in summary.details if d.loc[:1] == ("weights",)}
    assert tested == {"pytorch_state_dict", "torchscript", "onnx"}
    return load_model_description(path)


def run_by_onnx(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    with zipfile.ZipFile(path) as package:
        session = onnxruntime.InferenceSession(package.read("weights.onnx"))
    return list(session.run(None, inputs))


@pytest.mark.filterwarnings("ignore")  # those of bioimageio and ONNX Runtime
def test_a_fine_tuned_scorer_travels(tester: Any, tmp_path: Path, capsys: Any) -> None:
    weights, path = tmp_path / "pollen.safetensors", tmp_path / "pollen.zip"
    tuned = {"parent": "sesf", "summary": "Tuned on pollen."}
    save_weights(random_sesf(1), weights, {"stacks": [{"name": "grains"}]}, tuned)
    arguments = ["--out", str(path), "--author", "Jane Doe", "--json"]
    assert main(["models", "--export", str(weights), *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": [str(path)]}
    described = checked(tester, path)
    assert described.name == "napari-focus-fusion pollen"
    assert [author.name for author in described.authors] == ["Jane Doe"]
    assert described.cite[0].doi == "10.1007/s00521-020-05358-9"
    assert described.license == "BSD-3-Clause"
    assert {axis.halo for axis in described.outputs[0].axes[2:]} == {5}
    again = ff.load_model(path)
    assert again.spec is not None and again.spec.base == "sesf"
    assert again.weights_hash == ff.load_model(weights).weights_hash
    # ONNX Runtime, of slices of a size of its own, as the model here.
    network = SliceScores(again)
    with zipfile.ZipFile(path) as package:
        state = torch.load(package.open("weights.pt"), weights_only=True)
        assert "grains" in package.read("README.md").decode()
    network.load_state_dict(state)
    slices = np.random.default_rng(0).random((2, 1, 61, 47), np.float32)
    (found,) = run_by_onnx(path, {"slices": slices})
    with torch.no_grad():
        expected = network(torch.from_numpy(slices)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())
    with pytest.raises(ff.FocusFusionError, match="exists already"):
        ff.export_model(weights, path)


@pytest.mark.filterwarnings("ignore")
def test_mscnn_travels_as_two(tester: Any, tmp_path: Path) -> None:
    paths = ff.export_model("mscnn", tmp_path / "mscnn.zip")
    assert [path.name for path in paths] == ["mscnn-encoder.zip", "mscnn-decoder.zip"]
    halos = [checked(tester, path).outputs[0].axes[-1].halo for path in paths]
    assert sum(halos) == ff.models()["mscnn"].halo
    slices = np.random.default_rng(0).random((5, 1, 50, 60), np.float32)
    largest, added = run_by_onnx(paths[0], {"slices": slices})
    pooled = {"largest": largest.max(0, keepdims=True)}
    pooled |= {"added": added.sum(0, keepdims=True)}
    pooled |= {"count": np.full((1, 1), 5, np.float32)}
    (fused,) = run_by_onnx(paths[1], pooled)
    with torch.no_grad():
        expected, _ = ff.load_model("mscnn")(torch.from_numpy(slices[:, 0])[None])  # type: ignore[operator]
    np.testing.assert_allclose(fused[:, 0], expected.numpy(), atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_dual_path_travels_as_a_model_of_stacks(tester: Any, tmp_path: Path) -> None:
    (path,) = ff.export_model("dual-path", tmp_path / "dual-path.zip")
    described = checked(tester, path)
    assert [axis.id for axis in described.inputs[0].axes] == ["batch", "z", "y", "x"]
    stack = np.random.default_rng(0).random((1, 6, 50, 60), np.float32)
    (found,) = run_by_onnx(path, {"stack": stack})
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-4)
    model = ff.load_model("dual-path")
    with torch.no_grad():
        expected = model.masks(torch.from_numpy(stack[0])[:, None])  # type: ignore[operator]
    np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-3)
