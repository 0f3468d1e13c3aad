"""What CONTRIBUTING.md says is so: its map, its commands, and its model."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import napari_focus_fusion as ff
from napari_focus_fusion.models.registry import load_model, new_model
from napari_focus_fusion.simulation.scenes import make_scene
from napari_focus_fusion.training.data import make_pool
from napari_focus_fusion.training.fit import Schedule, fit
from napari_focus_fusion.training.recipe import recipe_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_focus_fusion"
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
#: A block of code that begins with the name of its file: the name, and all of it.
BLOCK = re.compile(r"```\w+\n(# (\S+\.\w+)\n.*?)```", re.DOTALL)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The guide's package, as pip would install it; its files by name."""
    files = {name: code for code, name in BLOCK.findall(GUIDE)}
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(code, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    about = tmp_path / f"{project['name'].replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n"
    )
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {at}" for name, at in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (about / "entry_points.txt").write_text("\n".join(groups))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield files
    for name in [name for name in sys.modules if name.startswith("local_variance")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def test_the_model_of_the_guide_fuses(
    files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(files["try_it.py"], "try_it.py", "exec"), {})
    summary, error = capsys.readouterr().out.splitlines()
    assert summary == ff.models()["local-variance"].summary
    assert float(error.split()[0]) < 1
    scene = make_scene(7, shape=(150, 170), slices=4)
    ours = ff.fuse(scene.stack, "local-variance", axes=scene.axes, tile=128)
    whole = ff.fuse(scene.stack, "local-variance", axes=scene.axes)
    assert np.mean(ours.decision == whole.decision) > 0.9999, "halo is too small"


def test_the_recipe_of_the_guide_teaches(files: dict[str, str]) -> None:
    recipe = recipe_of(ff.models()["learnt-contrast"])
    pool = make_pool(range(4), recipe.slices, 64, modalities=("grey",))
    batches = [pool.draw(step, stacks=2, crop=64, seed=9) for step in (100, 101)]
    torch.manual_seed(0)
    network = new_model(ff.models()["learnt-contrast"]).requires_grad_(True)
    fitted = fit(
        network,
        recipe.training_loss,
        lambda step: pool.draw(step, stacks=2, crop=64, seed=0),
        lambda model: recipe.validate(model, batches),
        Schedule(steps=30, learning_rate=5e-3, warm_up=0, validate_every=30),
    )
    assert fitted.best_step == 30
    slices = batches[0].noisy
    loss = recipe.self_supervised_loss(
        network, slices, torch.Generator().manual_seed(0)
    )["loss"]
    loss.backward()
    assert network.filters.weight.grad.abs().sum() > 0
    assert load_model(network).spec.self_supervised


def test_the_map_names_every_module() -> None:
    table = GUIDE.split("## A map of the modules")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w/.]+)` \|", table, re.MULTILINE)
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert set(rows) == there - {"__init__.py", "__main__.py"}
    assert len(rows) == len(set(rows))
    named = re.findall(r"`([a-z]+/)`", table)
    folders = {f"{path.name}/" for path in PACKAGE.rglob("*") if path.is_dir()}
    assert set(named) <= folders | {"tests/", "studies/", "docs/"}


def test_commands_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)\b", GUIDE)) - {"sure"} <= targets
    for path in re.findall(r"(?:tests|docs)/[\w/]+\.(?:py|md)", GUIDE):
        assert (ROOT / path).is_file(), path
