"""The command that checks a device, run on the CPU: what it finds, and what it says."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_focus_fusion import fuse
from napari_focus_fusion.benchmark import cuda
from napari_focus_fusion.benchmark.device_checks import (
    SAME_DECISION,
    agreement,
    equality,
    near_losses,
)
from napari_focus_fusion.benchmark.device_report import (
    Report,
    Row,
    Section,
    run_row,
)
from napari_focus_fusion.models.registry import models, trainable_models
from tests.sloping_scene import scene

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, dict[str, Any]]:
    """The command on the CPU: exit status, folder and report."""
    folder = tmp_path_factory.mktemp("checks") / "out"
    words = ["--device", "cpu", "--quick", "--minutes", "60", "-o", str(folder)]
    status = cuda.main(words)
    report = json.loads((folder / "device-checks.json").read_text(encoding="utf-8"))
    return status, folder, report


def rows_of(report: dict[str, Any], title: str) -> dict[str, dict[str, Any]]:
    section = next(one for one in report["sections"] if one["title"] == title)
    return {row["what"]: row for row in section["rows"]}


def test_every_check_of_a_cpu_passes(run):
    status, _, report = run
    rows = [row for section in report["sections"] for row in section["rows"]]
    assert [row["what"] for row in rows if row["error"]] == []
    assert [row["what"] for row in rows if row["passed"] is False] == []
    assert status == 0
    assert report["passed"] is True
    compared = rows_of(report, "Every model, against the CPU")
    for name in models():
        assert compared[f"{name}: as on the CPU"]["passed"] is True
        assert compared[f"{name}: two runs are equal"]["passed"] is True
    assert compared["affinity-sr, 2 times finer: as on the CPU"]["passed"] is True
    trained = rows_of(report, "Training")
    for name in trainable_models():
        losses = trained[f"{name}: a step of training"]["figures"]["losses"]
        assert np.isfinite(losses).all()


def test_what_needs_a_card_is_skipped_in_words(run):
    _, _, report = run
    skipped = [
        (row["what"], row["skipped"])
        for section in report["sections"]
        for row in section["rows"]
        if row["skipped"]
    ]
    assert skipped == [
        (
            "a filled card",
            "only a graphics card can be filled without harm to other programs",
        ),
        ("a device lost before a run", "only a graphics card can be lost"),
        ("a device lost during a run", "only a graphics card can be lost"),
        ("3 x 3 convolution, tf32", "only graphics cards have tf32"),
    ]


def test_speed_is_measured_and_where(run):
    _, folder, report = run
    for row in rows_of(report, "Throughput").values():
        figures = row["figures"]
        assert figures["10^6 pixels x slices a second"] > 0
        assert 0 < figures["share of the float32 rate"] < 1
    assert report["torch"] == torch.__version__
    assert report["device"].startswith("cpu")
    assert report["command"].startswith("python -m napari_focus_fusion.benchmark.cuda")
    page = (folder / "device-checks.md").read_text(encoding="utf-8")
    for section in report["sections"]:
        for row in section["rows"]:
            assert f"| {row['what']} |" in page


def test_a_report_is_not_replaced_unasked(run, capsys):
    _, folder, _ = run
    before = (folder / "device-checks.json").read_bytes()
    assert cuda.main(["--device", "cpu", "--quick", "-o", str(folder)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "device-checks.json").read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_an_absent_card_is_named_in_words(tmp_path, capsys):
    assert cuda.main(["-o", str(tmp_path / "out")]) == 1
    assert "No CUDA graphics card can be used here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_time_everything_is_skipped_and_nothing_passes(tmp_path):
    words = ["--device", "cpu", "--quick", "--minutes", "1e-6", "-o", str(tmp_path)]
    assert cuda.main(words) == 1
    report = json.loads((tmp_path / "device-checks.json").read_text(encoding="utf-8"))
    rows = [row for section in report["sections"] for row in section["rows"]]
    assert all("--minutes" in row["skipped"] for row in rows)
    assert report["passed"] is False


def test_a_wrong_result_fails():
    stack = scene(0)[0][:3, :60, :60]
    right = fuse(stack, "sml", device="cpu")
    assert agreement(right, right, SAME_DECISION).passed is True
    wrong = fuse(stack, "sml", device="cpu")
    wrong.decision[:6, :6] += 1
    assert agreement(wrong, right, SAME_DECISION).passed is False
    assert equality(wrong, right).passed is False
    darker = fuse(stack, "sml", device="cpu")
    darker.fused[...] = (darker.fused * 0.99).astype(darker.fused.dtype)
    assert agreement(darker, right, SAME_DECISION).passed is False
    assert equality(darker, right).figures == {"differ": "fused"}


@pytest.mark.parametrize(
    ("found", "passes"),
    [([1.0, 0.51], True), ([1.0, 0.6], False), ([1.0, np.nan], False), ([1.0], False)],
)
def test_losses_are_held_against_those_of_the_cpu(found, passes):
    assert near_losses(found, [1.0, 0.5]).passed is passes


def test_an_error_is_written_down_and_the_rest_goes_on(tmp_path):
    later = time.monotonic() + 60
    broken = run_row("broken", lambda: {"what": np.zeros(3)[7]}, later)
    fine = run_row("fine", lambda: Row("", True), later)
    report = Report({"device": "any"}, (Section("Both", (broken, fine), 1.0),))
    report.write(tmp_path, "checks")
    found = json.loads((tmp_path / "checks.json").read_text(encoding="utf-8"))
    assert found["passed"] is False
    first, second = found["sections"][0]["rows"]
    assert "IndexError: index 7 is out of bounds" in first["error"][-1]
    assert second["passed"] is True
    page = (tmp_path / "checks.md").read_text(encoding="utf-8")
    assert "| broken | ERROR | IndexError: index 7" in page
    assert "| fine | pass |" in page
