"""Finding and loading models: ours, those of other packages, and files of weights."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from skimage.io import imsave

from napari_focus_fusion import FocusFusionError, finetune, fuse, load_model
from napari_focus_fusion.models.base import FusionModel
from napari_focus_fusion.models.registry import (
    OURS,
    hash_of,
    hash_of_tensors,
    models,
    new_model,
    save_weights,
    trainable_models,
    weights_folder,
)
from napari_focus_fusion.simulation.scenes import SceneSpec
from napari_focus_fusion.training import finetune as finetuning
from napari_focus_fusion.training import scores
from napari_focus_fusion.training import train as training
from napari_focus_fusion.training.recipe import recipe_of
from napari_focus_fusion.training.train import train
from small_models import energy_pairs, random_sesf, relief, same_result

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = '''
from dataclasses import replace
from pathlib import Path
from napari_focus_fusion.models.registry import ModelSpec
from napari_focus_fusion.models.base import SliceScorer

class Brightness(SliceScorer):
    """The brightest slice wins."""
    window = 1
    def score(self, slices, context=None):
        return slices[:, 0]

spec = ModelSpec(
    name="brightness", title="Brightness", summary="The brightest slice.",
    target="tiny_models:Brightness", halo=0,
)
gone = ModelSpec(
    name="gone", title="Gone", summary="Its code is not there.",
    target="tiny_models.gone:Gone", halo=0,
)
again = ModelSpec(
    name="sml", title="Mine", summary="A name that is taken.",
    target="tiny_models:Brightness", halo=0,
)
nothing = "no spec"
learned = ModelSpec(
    name="learned", title="Learned", summary="One convolution, learnt.",
    target="tiny_models.network:Learned", halo=1, self_supervised=True,
    weights=str(Path(__file__).parents[1] / "learned.safetensors"),
    recipe="tiny_models.training:RECIPE",
)
no_recipe = replace(learned, name="no-recipe", recipe="tiny_models:learned")
gone_recipe = replace(learned, name="gone-recipe", recipe="tiny_models.training:GONE")
'''

NETWORK = '''
from torch import nn
from napari_focus_fusion.models.base import SliceScorer

class Learned(SliceScorer):
    """Energy of one convolution."""
    window = 3
    needs_sample = True
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3, padding=1, bias=False)
    def score(self, slices, context=None):
        return self.convolution(slices).square().sum(1)
'''

TRAINING = """
import torch
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import slice_ranking
from napari_focus_fusion.training.recipe import Recipe
from napari_focus_fusion.training.resynthesis import resynthesised_batch

def training_loss(network, batch):
    score = network.score(batch.noisy.flatten(0, 1)[:, None])
    score = score.unflatten(0, batch.noisy.shape[:2])
    return {"loss": slice_ranking(score, batch.depth, radius=3)}

def self_supervised_loss(network, slices, generator):
    return training_loss(network, resynthesised_batch(slices, generator))

def validate(network, batches):
    losses = [float(training_loss(network, b)["loss"]) for b in batches]
    return sum(losses) / len(losses)

RECIPE = Recipe(
    training_loss,
    self_supervised_loss,
    validate,
    Schedule(4, 0.02, warm_up=0, validate_every=2),
    scenes=2, slices=3, side=64, stacks=1, crop=48,
)
"""


def install(folder: Path, entries: dict[str, str]) -> None:
    """Make a package that registers models, as pip would leave it."""
    (folder / "tiny_models").mkdir()
    for name, code in (
        ("__init__", PACKAGE),
        ("network", NETWORK),
        ("training", TRAINING),
    ):
        (folder / "tiny_models" / f"{name}.py").write_text(code)
    about = folder / "tiny_models-1.0.dist-info"
    about.mkdir()
    metadata = "Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\n"
    (about / "METADATA").write_text(metadata)
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (about / "entry_points.txt").write_text(
        "\n".join(["[napari_focus_fusion.models]", *lines, ""])
    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("tiny_models")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_our_models_can_be_made_and_say_what_they_are() -> None:
    kinds = {
        "SliceScorer": "slice-scorer",
        "PairMasker": "pair-masker",
        "SetMasker": "set-masker",
        "Reconstructor": "reconstructor",
    }
    for spec in OURS:
        model = new_model(spec)
        assert isinstance(model, FusionModel)
        parents = {parent.__name__ for parent in type(model).__mro__}
        assert model.kind in {kinds[name] for name in parents & kinds.keys()}
        assert spec.doi
        assert spec.summary.endswith(".")
        assert not model.training


def names_of_ours() -> list[str]:
    """Those whose weights are shipped."""
    return [
        spec.name
        for spec in OURS
        if not spec.weights or (weights_folder() / spec.weights).is_file()
    ]


def test_models_are_listed_once_their_weights_are_there() -> None:
    assert list(models())[: len(names_of_ours())] == names_of_ours()
    assert {"sml", "sesf", "residual", "residual-zero"} <= set(models())
    for name in names_of_ours():
        assert load_model(name).spec == models()[name]


def test_other_packages_add_models(site: Path) -> None:
    install(site, {"brightness": "tiny_models:spec"})
    ours = names_of_ours()
    assert list(models())[: len(ours)] == ours
    assert models()["brightness"].title == "Brightness"
    levels = np.array([100, 0, 150, 50], np.uint8)
    stack = np.broadcast_to(levels[:, None, None], (4, 30, 40))
    result = fuse(stack, "brightness", surface=0)  # flat slices have no surface
    assert (result.decision == 2).all()
    assert result.provenance["model"] == "brightness"


@pytest.fixture
def scored_on_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few small scenes are enough here, and one small pair for all of Lytro."""
    lytro = tmp_path / "data" / "lytro"
    lytro.mkdir(parents=True)
    for plane, letter in zip(relief(60, 80, 2).stack >> 8, "AB", strict=True):
        colours = np.stack([plane.astype(np.uint8)] * 3, -1)
        imsave(lytro / f"lytro-01-{letter}.jpg", colours)
    monkeypatch.setenv("FOCUS_FUSION_DATA", str(lytro.parent))
    options = {"shape": (64, 64), "slices": 3}
    small = [SceneSpec("small", 1_000_000, tuple(options.items()))]
    monkeypatch.setattr(scores, "benchmark_scenes", lambda: small)
    monkeypatch.setattr(training, "VALIDATION_SEEDS", range(900_000, 900_004))
    monkeypatch.setattr(finetuning, "RESYNTHESISED", 2)
    monkeypatch.setattr(finetuning, "FUSED", 1)


def test_models_of_other_packages_are_trained_and_tuned_as_ours_are(
    site: Path, scored_on_less: None
) -> None:
    install(site, {"learned": "tiny_models:learned"})
    assert list(trainable_models())[-1] == "learned"
    assert "tiny_models.training" not in sys.modules
    out = site / "learned.safetensors"
    rows: list[dict[str, float]] = []
    card = train("learned", out, steps=6, seed=3, on_step=rows.append)
    assert card["command"] == "napari-focus-fusion train learned --steps 6 --seed 3"
    assert card["validation"]["trained"] < card["validation"]["untrained"]
    assert [row["step"] for row in rows] == list(range(7))
    for scores_of in (card["scores"], card["lytro"]):
        assert {"sml", "untrained", "trained"} == scores_of.keys()
    parent = load_model("learned")
    assert parent.weights_hash == card["sha256"] == hash_of(out)

    stack = relief(100, 150, 4).stack
    folder = site / "tuned"
    tuned = finetune(
        "learned",
        stack,
        name="mine",
        folder=folder,
        axes="ZYX",
        steps=6,
        patch=48,
        lr=0.02,
    )
    assert tuned.better
    assert tuned.path == folder / "mine.safetensors"
    assert "mine" not in models()
    assert models(folder)["mine"].title == "mine: Learned, fine-tuned"
    mine = load_model("mine", folder)
    assert hash_of_tensors(mine) == hash_of_tensors(tuned.model)
    assert hash_of_tensors(mine) != hash_of_tensors(parent)
    same_result(fuse(stack, mine), fuse(stack, tuned.model))
    # What was tuned can be tuned again, by the recipe of the same package.
    assert recipe_of(models(folder)["mine"]) is recipe_of(models()["learned"])


def test_only_what_has_a_recipe_can_be_trained(site: Path) -> None:
    install(site, {"brightness": "tiny_models:spec", "a": "tiny_models:no_recipe"})
    ours = "mscnn, sesf, dual-path, dual-path-brightfield, affinity-sr, residual"
    words = f"'brightness' cannot be trained; there is: {ours}, surface, no-recipe."
    with pytest.raises(FocusFusionError, match=words):
        train("brightness", site / "a.safetensors")
    with pytest.raises(FocusFusionError, match=f"does not learn.*can: {ours}, no-"):
        finetune("brightness", np.zeros((2, 60, 60)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_recipe", "'no-recipe', 'tiny_models:learned', is no Recipe"),
        ("gone_recipe", r"'gone-recipe' cannot be loaded.*GONE.*Update or reinstall"),
    ],
)
def test_a_recipe_that_is_none_says_so(name: str, words: str, site: Path) -> None:
    install(site, {"learned": f"tiny_models:{name}"})
    with pytest.raises(FocusFusionError, match=words):
        train(name.replace("_recipe", "-recipe"), site / "a.safetensors")
    assert not (site / "a.safetensors").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("tiny_models.missing:spec", r"'broken'.*cannot be used.*tiny_models\.missing"),
        ("tiny_models:missing", r"'broken'.*cannot be used.*missing"),
        ("tiny_models:nothing", r"'broken'.*no ModelSpec"),
        ("tiny_models:again", r"two models called 'sml'"),
    ],
)
def test_a_broken_entry_is_left_out_with_a_warning(
    value: str, words: str, site: Path
) -> None:
    install(site, {"broken": value, "brightness": "tiny_models:spec"})
    with pytest.warns(RuntimeWarning, match=words):
        found = models()
    assert set(found) == {*names_of_ours(), "brightness"}
    assert found["sml"] == OURS[0]


def test_a_model_whose_code_is_gone_says_so(site: Path) -> None:
    install(site, {"gone": "tiny_models:gone"})
    with pytest.raises(
        FocusFusionError, match=r"'gone'.*'tiny_models\.gone:Gone'.*Update"
    ):
        load_model("gone")


def test_weights_survive_being_saved_and_loaded(tmp_path: Path) -> None:
    model, path = random_sesf(5), tmp_path / "mine.safetensors"
    digest = save_weights(model, path, {"steps": 3})
    loaded = load_model(path)
    assert loaded.weights_hash == digest == hash_of(path)
    assert loaded.spec == models()["sesf"]
    assert not loaded.training
    assert hash_of_tensors(loaded) == hash_of_tensors(model)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card == {"model": "sesf", "sha256": digest, "steps": 3}
    stack = relief(40, 50, 3).stack
    same_result(fuse(stack, path), fuse(stack, model))
    assert fuse(stack, str(path)).provenance["weights_sha256"] == digest


def test_saving_over_weights_in_use_replaces_them_whole(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(random_sesf(1), path, {})
    mapped = load_file(path)
    before = {name: tensor.clone() for name, tensor in mapped.items()}
    save_weights(random_sesf(2), path, {})
    assert all(torch.equal(mapped[name], before[name]) for name in before)
    assert hash_of_tensors(load_model(path)) == hash_of_tensors(random_sesf(2))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "mine.json",
        "mine.safetensors",
    ]


def damaged(kind: str, folder: Path) -> Path:
    path = folder / "mine.safetensors"
    save_weights(random_sesf(), path, {})
    data = path.read_bytes()
    # Copies: what is loaded is still mapped to the file.
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    name = "encoder.1.convolution.weight"
    if kind == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "another format":
        torch.save(tensors, path)
    elif kind == "another model":
        save_file(tensors, path, metadata={"model": "deepest"})
    elif kind == "no model":
        save_file(tensors, path)
    elif kind == "a tensor less":
        del tensors[name]
        save_file(tensors, path, metadata={"model": "sesf"})
    elif kind == "another shape":
        tensors[name] = tensors[name][:-1].clone()
        save_file(tensors, path, metadata={"model": "sesf"})
    elif kind == "for sml":
        save_file(tensors, path, metadata={"model": "sml"})
    elif kind == "gone":
        path.unlink()
    elif kind == "a folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut short", "no readable safetensors.*incompletely"),
        ("empty", "no readable safetensors"),
        ("another format", "no readable safetensors"),
        ("another model", "'deepest', which is not installed.*sml, mscnn"),
        ("no model", "which is not installed"),
        ("a tensor less", "does not fit SESF-Fuse"),
        ("another shape", "does not fit SESF-Fuse"),
        ("for sml", "does not fit Sum-modified-Laplacian"),
        ("gone", "no file of weights"),
        ("a folder", "no file of weights"),
    ],
)
def test_damaged_weights_are_named(kind: str, words: str, tmp_path: Path) -> None:
    path = damaged(kind, tmp_path)
    with pytest.raises(FocusFusionError, match=words) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_name_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(FocusFusionError, match=r"no model 'sefs'.*sml, mscnn"):
        load_model("sefs")


def test_a_loaded_model_is_taken_as_it_is() -> None:
    model = energy_pairs()
    assert load_model(model) is model
    model.spec = None
    with pytest.raises(FocusFusionError, match=r"no spec.*ModelSpec"):
        load_model(model)


def test_weights_without_a_file_have_a_hash_of_their_values() -> None:
    first, again, other = random_sesf(1), random_sesf(1), random_sesf(2)
    assert hash_of_tensors(first) == hash_of_tensors(again) != hash_of_tensors(other)
    with torch.no_grad():
        again.encoder[2].normalise.running_mean[3] += 1e-6
    assert hash_of_tensors(first) != hash_of_tensors(again)
    assert hash_of_tensors(load_model("sml")) == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    model = load_model("sesf")
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] = value
    with pytest.raises(FocusFusionError, match=r"SESF-Fuse.*holds NaN or infinite"):
        load_model(model)
    path = tmp_path / "broken.safetensors"
    save_weights(model, path, {})
    with pytest.raises(FocusFusionError, match=r"broken.*holds NaN or infinite"):
        load_model(path)
    with pytest.raises(FocusFusionError, match="holds NaN or infinite"):
        fuse(np.zeros((2, 40, 40), np.uint8), model)
