"""Time and memory are measured in processes of their own, once."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.benchmark.speed import Cost, measure_speed, stack_of
from napari_focus_fusion.benchmark.speed_page import write_speed_page

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_measured_is_kept_and_written(tmp_path: Path) -> None:
    costs, missing = measure_speed(["default"], tmp_path / "work", quick=True)
    assert not missing and not any(cost.error for cost in costs)
    assert [cost.sweep for cost in costs] == ["slices"] * 2 + ["area"] * 2 + [
        "tile"
    ] * 2
    for cost in costs:
        assert cost.cpu_seconds > 0 and cost.seconds > 0
        assert cost.peak_mb > 60  # Python, NumPy and PyTorch
    # Measured once: the same numbers again, although time is never the same.
    again, _ = measure_speed(["default"], tmp_path / "work", quick=True)
    assert again == costs
    written = write_speed_page(costs, {}, tmp_path, "the command")
    page = written[0].read_text(encoding="utf-8")
    assert "the command" in page and f"| {costs[1].seconds:.2f} |" in page
    with open(written[1], encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["seconds"]) for row in rows] == [cost.seconds for cost in costs]
    assert all(path.exists() and path.name in page for path in written[2:])


def test_what_failed_or_was_left_out_is_said(tmp_path: Path) -> None:
    costs = [
        Cost("slices", "one", 2, 512, None, 1.0, 2.0, 300.0),
        Cost("slices", "one", 4, 512, None, error="would take more than 60 s"),
    ]
    page = write_speed_page(costs, {"Other": "pip install other"}, tmp_path, "c")[0]
    text = page.read_text(encoding="utf-8")
    assert "- one, 4 x 512 x 512: would take more than 60 s" in text
    assert "- Other: pip install other" in text and "| one | 1.00 | – |" in text


def test_a_large_plane_is_the_small_one_mirrored() -> None:
    small, large = stack_of(2, 512), stack_of(2, 700)
    np.testing.assert_array_equal(large[:, :512, :512], small)
    np.testing.assert_array_equal(large[:, 512:, :512], small[:, :323:-1])
