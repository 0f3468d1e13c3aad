"""Fine-tuning: validated on unseen windows, kept only if better, resumed exactly."""

from __future__ import annotations

import csv
import json
import shutil
import time
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import torch
import zarr

import napari_focus_fusion as ff
from napari_focus_fusion import (
    Cancelled,
    FineTuneResult,
    FocusFusionError,
    Progress,
    as_stack,
    finetune,
)
from napari_focus_fusion.models.registry import (
    hash_of,
    hash_of_tensors,
    models_folder,
    new_model,
    our_models,
    save_weights,
    trainable_models,
)
from napari_focus_fusion.simulation.scenes import make_scene
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.training import finetune as module
from napari_focus_fusion.training.finetune import stopped_at
from napari_focus_fusion.training.patches import Patches, read_patches
from napari_focus_fusion.training.recipe import recipe_of
from small_models import random_sesf, same_result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_focus_fusion.models.base import FusionModel

#: As short as can be; the rate is high, so that it shows.
SHORT: dict[str, Any] = {
    "patch": 48,
    "steps": 3,
    "lr": 1e-2,
    "seed": 1,
    "axes": "ZYX",
}


@cache
def dark_stack() -> NDArray[Any]:
    """Four slices with so much noise that an untrained network is easily mended."""
    return make_scene(
        1_000_001,
        shape=(120, 180),
        slices=4,
        surface="relief",
        content="leaves",
        electrons=150.0,
    ).stack


def tune(**options: Any) -> FineTuneResult:
    """An untrained network, tuned for as short as can be."""
    given = SHORT | {"model": random_sesf(), "stacks": dark_stack()} | options
    return finetune(given.pop("model"), given.pop("stacks"), **given)


@pytest.fixture(scope="module", autouse=True)
def smaller_validation() -> Iterator[None]:
    """Two resynthesised stacks and one fused window are enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RESYNTHESISED", 2)
        patch.setattr(module, "FUSED", 1)
        yield


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> FineTuneResult:
    """What an uninterrupted tuning ends with, in a folder of its own.

    Beside it lies what the folder held before each step was over: what is left of a
    tuning that is killed there.
    """
    place = tmp_path_factory.mktemp("tuned")
    rows: list[dict[str, float]] = []

    def record(row: dict[str, float]) -> None:
        rows.append(row)
        shutil.copytree(place / "models", place / f"at {row['step']}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(place / "models"))
        result = tune(name="my-Pollen_2", on_step=record)
    assert rows == result.history
    return result


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user's models, which is not there yet."""
    path = tmp_path / "models"
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(path))
    return path


class Stopper:
    """Stops before a step; ``on_step`` counts the steps that are done."""

    def __init__(self, step: int) -> None:
        self.step, self.done = step, -1

    def on_step(self, row: dict[str, float]) -> None:
        self.done = int(row["step"])

    def __call__(self) -> bool:
        return self.done >= self.step - 1


def tune_until(step: int, **options: Any) -> FineTuneResult:
    stopper = Stopper(step)
    return tune(on_step=stopper.on_step, should_stop=stopper, **options)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What comes of it ---------------------------------------------------------------------


def test_a_better_model_is_found_by_its_name_everywhere(
    tuned: FineTuneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, rows = tuned, tuned.history
    assert result.better
    assert result.after["error"] < 0.9 * result.before["error"]
    assert {"loss", "Q_AB/F", "VIFF"} < result.before.keys() == result.after.keys()
    assert result.verdict.startswith("The tuned model is better than its parent")
    assert result.stopped == "finished"
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert result.best_step in (1, 2, 3)

    path = result.path
    assert path is not None
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(path.parent))
    assert files_in(path.parent) == [
        f"my-Pollen_2.{suffix}" for suffix in ("csv", "json", "safetensors")
    ]
    spec = ff.models()["my-Pollen_2"]
    assert (spec.base, spec.halo) == ("sesf", 5)
    assert spec.recipe == our_models()["sesf"].recipe
    assert ff.load_model("my-Pollen_2").kind == "slice-scorer"
    assert spec.title == "my-Pollen_2: SESF-Fuse, fine-tuned"
    assert spec.summary == "Tuned from sesf on stack, 3 steps."
    assert list(ff.models())[-1] == "my-Pollen_2"

    found = ff.fuse(dark_stack(), "my-Pollen_2", axes="ZYX")
    same_result(found, ff.fuse(dark_stack(), result.model, axes="ZYX"))
    assert found.provenance["model"] == "my-Pollen_2"
    assert found.provenance["weights_sha256"] == hash_of(path)
    assert ff.load_model(path).spec == spec

    card = json.loads(path.with_suffix(".json").read_text())
    assert card == {"model": "sesf", "sha256": hash_of(path), **result.card}
    assert card["parent"] == {"name": "sesf", "sha256": hash_of_tensors(random_sesf())}
    assert card["stacks"][0]["shape"] == [4, 120, 180]
    assert (card["steps"], card["seed"], card["better"]) == (3, 1, True)
    with path.with_suffix(".csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(row["step"]) for row in written] == [0, 1, 2, 3]
    assert float(written[2]["loss"]) == rows[2]["loss"]


def test_a_worse_model_is_neither_chosen_nor_kept(folder: Path) -> None:
    parent = ff.load_model("sesf")
    with pytest.warns(RuntimeWarning, match="NOT better than its parent"):
        result = tune(model=parent, name="worse", lr=0.5, steps=1)
    assert not result.better
    assert result.model is parent
    assert result.path is None
    assert files_in(folder) == []
    assert "worse" not in ff.models()


def test_the_parent_stays_as_it_is_and_statistics_are_kept(
    tuned: FineTuneResult,
) -> None:
    parent = random_sesf()
    result = tune(model=parent, seed=2, steps=2)
    assert hash_of_tensors(result.model) != hash_of_tensors(tuned.model)
    assert result.path is None
    assert hash_of_tensors(parent) == hash_of_tensors(random_sesf())
    before, after = parent.state_dict(), result.model.state_dict()
    for name, value in before.items():
        changed = not torch.equal(value, after[name])
        if name.startswith("encoder"):
            assert changed != ("running" in name or "tracked" in name), name
    assert not result.model.training
    assert not any(p.requires_grad for p in result.model.parameters())
    assert result.model.spec is not None
    assert result.model.spec.name == "sesf-tuned"
    provenance = ff.fuse(dark_stack(), result.model, axes="ZYX").provenance
    assert provenance["weights_sha256"] == hash_of_tensors(result.model)


def test_a_tuned_model_can_be_tuned_again_on_many_stacks(
    tuned: FineTuneResult, folder: Path
) -> None:
    """On colour and on time points, without repeating their axes."""
    data = dark_stack()
    stacks = [np.stack([data] * 3, -1), as_stack(np.stack([data] * 2), axes="TZYX")]
    # A parent that was tuned badly, so that another tuning is sure to mend it.
    path = models_folder() / "my-first.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    network = new_model(our_models()["sesf"])
    network.load_state_dict(random_sesf().state_dict())
    save_weights(network, path, {}, {"parent": "sesf"})
    again = tune(model=path, stacks=stacks, name="second", axes=None)
    assert again.better
    assert [stack["axes"] for stack in again.card["stacks"]] == ["ZYXS", "TZYX"]
    assert again.card["parent"] == {
        "name": "my-first",
        "sha256": ff.load_model(path).weights_hash,
    }
    spec = ff.models()["second"]
    assert again.model.spec is not None
    assert again.model.spec.title == spec.title
    assert spec.title == "second: SESF-Fuse, fine-tuned from my-first"
    assert spec.base == "sesf"


def test_the_same_pixels_are_read_wherever_they_are(tmp_path: Path) -> None:
    data = dark_stack()
    tifffile.imwrite(tmp_path / "s.ome.tif", data, metadata={"axes": "ZYX"}, ome=True)
    pages = [tmp_path / f"{z}.tif" for z in range(len(data))]
    for path, plane in zip(pages, data, strict=True):
        tifffile.imwrite(path, plane)
    stored = zarr.create_array(tmp_path / "s.zarr", data=data, chunks=(1, 64, 64))
    lazy = da.from_array(data, chunks=(2, 50, 60))
    digests = set()
    for source in (data, lazy, stored, tmp_path / "s.ome.tif", [pages]):
        stacks = module._open(source, "ZYX")
        digests.add(read_patches(stacks, patch=48, holdout=0.2, seed=1).digest())
    assert len(digests) == 1


# Stopping and going on ----------------------------------------------------------------


def test_stopped_and_taken_up_again_it_ends_with_the_same_bits(
    tuned: FineTuneResult, folder: Path
) -> None:
    """Twice: before there was anything to gain, and with something in hand."""
    for step in (1, 3):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The tuned model is NOT better")
            stopped = tune_until(step, name="mine")
        assert stopped.stopped == "asked"
        assert stopped.history[-1]["step"] == step - 1
        assert stopped.before.keys() == stopped.after.keys() == {"error", "loss"}
        assert stopped.better == (step > 1)
        assert (folder / "mine.checkpoint").exists()
        assert stopped_at(folder / "mine.checkpoint") == (step, 3)
    # What there is so far can be used, and is not lost when going on.
    assert stopped.path is not None
    assert ff.load_model("mine").weights_hash == hash_of(stopped.path)
    assert ff.models()["mine"].summary.endswith("on stack, 2 steps.")
    found = tune(name="mine")
    assert found.stopped == "finished"
    assert hash_of_tensors(found.model) == hash_of_tensors(tuned.model)
    assert (found.before, found.after) == (tuned.before, tuned.after)
    assert "mine.checkpoint" not in files_in(folder)
    assert ff.models()["mine"].summary.endswith("3 steps.")


def left_by_a_kill(tuned: FineTuneResult, step: int, folder: Path) -> None:
    """Put what the folder held at a step where a tuning called *mine* expects it."""
    assert tuned.path is not None
    left = tuned.path.parents[1] / f"at {step}"
    assert files_in(left) == (["my-Pollen_2.checkpoint"] if step else [])
    folder.mkdir()
    for path in left.iterdir():
        shutil.copy(path, (folder / "mine").with_suffix(path.suffix))


def test_killed_and_taken_up_again_it_ends_with_the_same_bits(
    tuned: FineTuneResult, folder: Path
) -> None:
    left_by_a_kill(tuned, 2, folder)
    rows: list[dict[str, float]] = []
    found = tune(name="mine", on_step=rows.append)
    assert rows[0]["step"] == 2
    assert hash_of_tensors(found.model) == hash_of_tensors(tuned.model)


def test_a_checkpoint_of_another_run_is_refused(
    tuned: FineTuneResult, folder: Path
) -> None:
    left_by_a_kill(tuned, 1, folder)
    before = (folder / "mine.checkpoint").read_bytes()
    for changed, words in (
        ({"steps": 4}, "steps"),
        ({"model": random_sesf(9)}, "model"),
        ({"regions": [[Rectangle(0, 110, 0, 180)]]}, "stacks"),
    ):
        with pytest.raises(FocusFusionError, match=rf"other settings \({words}"):
            tune(on_step=never, **{"name": "mine"} | changed)
        assert (folder / "mine.checkpoint").read_bytes() == before


def test_a_damaged_checkpoint_is_named(folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.checkpoint").write_bytes(b"PK nothing")
    with pytest.raises(FocusFusionError, match=r"mine\.checkpoint is no readable"):
        tune(name="mine")


def test_stopped_before_it_began_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it reads, and when it has read."""
    over: list[bool] = []

    def read(*stacks: Any, **options: Any) -> Patches:
        patches = read_patches(*stacks, **options)
        over.append(True)
        return patches

    monkeypatch.setattr(module, "read_patches", read)
    for stop in (lambda: True, lambda: bool(over)):
        assert not over
        with pytest.raises(Cancelled):
            tune(name="mine", on_step=never, should_stop=stop)
    assert over
    assert files_in(folder) == []


# Callbacks ----------------------------------------------------------------------------


def test_validations_and_progress(tuned: FineTuneResult) -> None:
    """Callbacks get the model as it is, and do not change it."""
    validations: list[tuple[float, NDArray[Any]]] = []
    reports: list[Progress] = []

    def decision_map(model: FusionModel) -> NDArray[Any]:
        corner = dark_stack()[:, :64, :80]
        return np.asarray(ff.fuse(corner, model, axes="ZYX", smoothness=0).decision)

    found = tune(
        on_validation=lambda model: validations.append(
            (reports[-1].done, decision_map(model))
        ),
        progress=reports.append,
    )
    assert hash_of_tensors(found.model) == hash_of_tensors(tuned.model)
    assert found.best_step == 3
    assert len(validations) == 4
    np.testing.assert_array_equal(validations[0][1], decision_map(random_sesf()))
    np.testing.assert_array_equal(validations[-1][1], decision_map(found.model))
    assert (validations[0][1] != validations[-1][1]).any()
    assert list(dict.fromkeys(p.stage for p in reports)) == [
        "Reading the stacks",
        "Training",
        "Comparing it with its parent",
    ]
    done = [p.done for p in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1].total
    assert validations[0][0] == 0 < validations[-1][0]


def test_minutes_become_steps(
    tuned: FineTuneResult, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timing changes nothing; a resumed tuning has as many steps as before."""
    monkeypatch.setattr(module, "FEWEST", 3)
    found = tune(steps=300, minutes=1e-3)
    assert found.card["steps"] == 3
    assert hash_of_tensors(found.model) == hash_of_tensors(tuned.model)
    left_by_a_kill(tuned, 3, folder)
    found = tune(name="mine", minutes=1e3)
    assert found.card["steps"] == 3
    assert hash_of_tensors(found.model) == hash_of_tensors(tuned.model)


def test_as_many_steps_as_fit_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which a step takes two seconds and a validation five."""
    now = [0.0]

    def losses(network: torch.nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        now[0] += 2
        return {"loss": network(torch.ones(1, 1)).square().sum()}

    def error(network: torch.nn.Module) -> float:
        now[0] += 5
        return 0.0

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    network: Any = torch.nn.Linear(1, 1)
    cpu = torch.device("cpu")
    for seconds, steps in ((20, module.FEWEST), (235, 100), (2035, 1000)):
        found = module._steps_in(seconds, network, losses, int, error, cpu)
        assert found == steps


# What is refused before any work ------------------------------------------------------


def never(row: dict[str, float]) -> None:
    raise AssertionError("work was begun")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, r"steps=0 must be at least 1"),
        ({"minutes": 0.0}, r"minutes=0\.0 must be above 0"),
        ({"regions": []}, r"1 stacks and regions for 0"),
        ({"regions": [[Rectangle(0, 60, 0, 60)]]}, r"no part is left to hold back"),
        ({"lr": 0.0}, r"lr=0\.0 must be above 0"),
        ({"lr": float("nan")}, r"lr=nan"),
        ({"patch": 16}, r"patch=16 must be at least 48"),
        ({"holdout": 0.0}, r"holdout=0\.0.*above 0"),
        ({"holdout": 0.9}, r"holdout=0\.9.*at most 0\.5"),
        ({"seed": -1}, r"seed=-1"),
        ({"device": "cuda:99"}, r"CUDA|graphics card"),
        ({"device": "abacus"}, r"no device called 'abacus'"),
        ({"model": "sml"}, r"Sum-modified-Laplacian cannot be fine-tuned.*sesf"),
        ({"model": "sefs"}, r"no model 'sefs'"),
        ({"stacks": []}, r"the list is empty"),
        ({"stacks": dark_stack()[:1]}, r"has one slice"),
        (
            {"stacks": list(dark_stack())[:3], "axes": None},
            r"one slice.*list of its own",
        ),
        ({"stacks": dark_stack()[:, :40]}, r"40 x 180 pixels, fewer than a patch"),
        ({"stacks": dark_stack()[:, :90, :90]}, r"no part is left to hold back"),
        ({"stacks": np.full((3, 200, 200), 5, np.uint8)}, r"no slice is sharper"),
        ({"stacks": np.full((3, 200, 200), np.nan)}, r"NaN"),
        ({"name": "sesf"}, r"a model called 'sesf' already"),
        ({"name": "SML"}, r"a model called 'SML' already"),
        ({"name": "../escape"}, r"cannot be called '\.\./escape'"),
        ({"name": ""}, r"cannot be called ''"),
        ({"name": "nul"}, r"cannot be called 'nul'"),
        ({"name": "a", "out": "b.safetensors"}, r"a name or a file, not both"),
        ({"out": "weights.pt"}, r"must end in \.safetensors"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    options: dict[str, Any], words: str, folder: Path
) -> None:
    with pytest.raises(FocusFusionError, match=words):
        tune(on_step=never, **options)
    assert not folder.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".json", ".csv"])
def test_nothing_is_overwritten(
    suffix: str, tuned: FineTuneResult, folder: Path
) -> None:
    folder.mkdir()
    assert tuned.path is not None
    path = (folder / "mine.safetensors").with_suffix(suffix)
    shutil.copy(tuned.path.with_suffix(suffix), path)
    before = path.read_bytes()
    for target in ({"name": "mine"}, {"out": folder / "mine.safetensors"}):
        with pytest.raises(FocusFusionError, match=r"mine.* already"):
            tune(on_step=never, **target)
        assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["cut short", "of another model"])
def test_weights_that_do_not_fit_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "parent.safetensors"
    model = random_sesf()
    if kind == "of another model":
        model.spec = ff.models()["sml"]
    save_weights(model, path, {})
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:5000])
    words = {"cut short": "no readable safetensors", "of another model": "not fit"}
    with pytest.raises(FocusFusionError, match=words[kind]):
        tune(model=path, on_step=never)


def test_an_error_leaves_the_device_and_no_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(row: dict[str, float]) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(FocusFusionError, match="the disk is full"):
        tune(name="mine", on_step=fail)
    assert "mine" not in ff.models()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
def test_on_cuda_nothing_is_left_on_the_device() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    first, again = tune(device="cuda"), tune(device="cuda")
    assert hash_of_tensors(first.model) == hash_of_tensors(again.model)
    assert torch.cuda.memory_reserved() == before

    def fail(row: dict[str, float]) -> None:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        tune(device="cuda", on_step=fail)
    assert torch.cuda.memory_reserved() == before


# Self-supervised losses ---------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name, spec in trainable_models().items() if spec.self_supervised]
)
def test_every_self_supervised_loss_trains_its_network_on_slices_alone(
    name: str,
) -> None:
    """Deterministically; on two slices and on many, on patches of any size."""
    for count, side, repeats in ((2, 48, 2), (6, 50, 1)):
        slices = torch.from_numpy(dark_stack()[:, :side, :side] / 65535).float()
        slices = torch.cat([slices, slices.flip(0)])[None, :count]
        gradients = []
        for _ in range(repeats):
            torch.manual_seed(3)
            network = new_model(our_models()[name]).requires_grad_(True)
            generator = torch.Generator().manual_seed(7)
            recipe = recipe_of(our_models()[name])
            losses = recipe.self_supervised_loss(network, slices, generator)
            losses["loss"].backward()
            grads = [p.grad for p in network.parameters() if p.grad is not None]
            gradients.append(torch.cat([g.flatten() for g in grads]))
            torch.manual_seed(99)
        assert torch.equal(gradients[0], gradients[-1])
        assert torch.isfinite(gradients[0]).all()
        assert gradients[0].abs().sum() > 0
