"""The command finetune, and what the other commands then know."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tifffile

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main
from napari_focus_fusion.models.registry import save_weights
from napari_focus_fusion.simulation.scenes import make_scene
from napari_focus_fusion.training import finetune as module
from small_models import random_sesf

SHORT = ["--steps", "2", "--patch", "48", "--lr", "0.01", "--seed", "1"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "models"
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(path))
    monkeypatch.setattr(module, "RESYNTHESISED", 2)
    monkeypatch.setattr(module, "FUSED", 1)
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    """An untrained parent, and a stack that has so much noise that tuning helps."""
    parent, stack = tmp_path / "parent.safetensors", tmp_path / "pollen.ome.tif"
    save_weights(random_sesf(), parent, {})
    scene = make_scene(
        1_000_001,
        shape=(120, 180),
        slices=4,
        surface="relief",
        content="leaves",
        electrons=150.0,
    )
    tifffile.imwrite(stack, scene.stack, metadata={"axes": "ZYX"}, ome=True)
    return [str(parent), str(stack)]


def test_a_tuned_model_is_listed_and_fuses(
    inputs: list[str], folder: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["finetune", *inputs, "--name", "pollen", *SHORT]) == 0
    said = capsys.readouterr()
    assert "The tuned model is better than its parent" in said.out
    assert "Use it with --model pollen" in said.out
    assert [line.split()[0] for line in said.out.splitlines()[:4]] == [
        "error",
        "loss",
        "Q_AB/F",
        "VIFF",
    ]
    assert "pollen: step 2, validation" in said.err

    assert main(["models"]) == 0
    titles = dict(
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.splitlines()
        if not line.startswith(" ")
    )
    assert titles["pollen"] == "pollen: SESF-Fuse, fine-tuned"
    out = tmp_path / "fused.ome.tif"
    assert main(["fuse", inputs[1], "--model", "pollen", "-o", str(out), "--json"]) == 0
    provenance = json.loads(capsys.readouterr().out)["results"][0]["provenance"]
    card = json.loads((folder / "pollen.json").read_text())
    assert provenance["model"] == "pollen"
    assert provenance["weights_sha256"] == card["sha256"]

    assert main(["finetune", *inputs, "--name", "pollen", *SHORT]) == 1
    assert "a model called 'pollen' already" in capsys.readouterr().err


def test_one_that_is_not_better_is_not_kept(
    inputs: list[str], folder: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "worse.safetensors"
    options = ["-o", str(out), *SHORT, "--steps", "1", "--lr", "0.5", "--json"]
    assert main(["finetune", "sesf", inputs[1], *options]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["better"] is False
    assert report["path"] is None
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sml", "STACK", "--name", "a"], 1, "cannot be fine-tuned"),
        (["sesf", "nowhere.tif", "--name", "a"], 1, "nowhere.tif: no such file"),
        (["sesf", "STACK"], 2, "one of the arguments --name -o/--out is required"),
        (["sesf", "STACK", "--name", "a", "-o", "b"], 2, "not allowed with"),
        (["sesf", "STACK", "--name", "a", "--steps", "0"], 1, "steps=0"),
        (["sesf", "STACK", "--name", "a", "--patch", "500"], 1, "smaller patch"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], code: int, words: str, inputs: list[str], capsys: Any
) -> None:
    arguments = [inputs[1] if word == "STACK" else word for word in arguments]
    try:
        found = main(["finetune", *arguments])
    except SystemExit as stopped:
        found = int(stopped.code or 0)
    assert found == code
    assert words in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_interrupted_it_goes_on_where_it_was(
    inputs: list[str], folder: Path, capsys: Any
) -> None:
    command = ["finetune", *inputs, "--name", "pollen", *SHORT, "--steps", "40"]
    package = str(Path(ff.__file__).parents[1])
    running = subprocess.Popen(
        [sys.executable, "-m", "napari_focus_fusion", *command],
        env=os.environ | {"PYTHONPATH": package},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if "step 7, validation" in line:
            break
    running.send_signal(signal.SIGINT)
    printed, errors = running.communicate()
    assert running.returncode == 130
    assert "the same command goes on where it was" in errors
    assert "better than its parent" in printed
    assert (folder / "pollen.checkpoint").exists()
    # With a stop before the next validation it has not begun anew.
    rows: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        _until_first_step(inputs, rows)
    assert rows[0] >= 7


def _until_first_step(inputs: list[str], rows: list[float]) -> None:
    def stop(row: dict[str, float]) -> None:
        rows.append(row["step"])
        raise KeyboardInterrupt

    ff.finetune(
        inputs[0],
        [inputs[1]],
        name="pollen",
        steps=40,
        patch=48,
        lr=0.01,
        seed=1,
        on_step=stop,
    )
