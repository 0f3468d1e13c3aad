"""The command train."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli import main
from napari_focus_fusion.models.registry import trainable_models
from napari_focus_fusion.training import train
from napari_focus_fusion.training.recipe import recipe_of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_train_says_what_is_missing(tmp_path: Path, capsys: Any) -> None:
    assert main(["train", "nonsense"]) == 2
    assert "'nonsense' cannot be trained; there is: mscnn" in capsys.readouterr().err
    out = tmp_path / "sesf.safetensors"
    command = ["train", "sesf", "-o", str(out)]
    assert main([*command, "--pictures", str(tmp_path / "absent")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert not out.exists()
    out.write_bytes(b"precious")
    assert main(command) == 1
    assert out.read_bytes() == b"precious"


def test_all_models_go_on_where_the_time_was_over(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A few small scenes, and no scores of whole benchmarks.
    small = {"scenes": 3, "slices": 3, "side": 64, "crop": 48, "measure": None}
    monkeypatch.setattr(
        train,
        "recipe_of",
        lambda spec: replace(recipe_of(spec), **small, scores=lambda *networks: {}),
    )
    monkeypatch.setattr(train, "VALIDATION_SEEDS", range(900_000, 900_002))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    command = ["train", "all", "-o", str(tmp_path), "--steps", "2", "--device", "cpu"]
    for name in trainable_models():
        if name != "sesf":
            (tmp_path / f"{name}.safetensors").write_bytes(b"trained before")
    assert main([*command, "--minutes", "1e-6"]) == 0
    assert "sesf was stopped after 1e-06 min" in capsys.readouterr().out
    weights = tmp_path / "sesf.safetensors"
    assert not weights.exists()
    assert main([*command, "--minutes", "60"]) == 0
    assert "Trained sesf" in capsys.readouterr().out and weights.exists()
    card = json.loads((tmp_path / "sesf.json").read_text(encoding="utf-8"))
    assert 0 < card["waited_for_data"] < 1
    assert (tmp_path / "residual.safetensors").read_bytes() == b"trained before"
    # One that cannot go on does not keep the others from it.
    (tmp_path / "sesf.safetensors").unlink()
    (tmp_path / "residual.safetensors").unlink()
    (tmp_path / "residual.checkpoint").write_bytes(b"damaged")
    assert main(command) == 1
    said = capsys.readouterr()
    assert "error: residual: " in said.err and "Trained sesf" in said.out
    (tmp_path / "residual.safetensors").write_bytes(b"trained before")
    # All are there: nothing is left to do.
    assert main(command) == 0 and not capsys.readouterr().out
    assert main([*command, "--minutes", "0"]) == 2
