"""A row of the page on registration, measured and written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.benchmark.registration import measure, write_page

if TYPE_CHECKING:
    from pathlib import Path


def test_a_drifting_scene_is_measured_and_written(tmp_path: Path) -> None:
    told: list[str] = []
    (row,) = measure(told.append, ["texture"], ["breathing"])
    assert len(told) == 1 and told[0].startswith("texture, breathing: ")
    assert np.median(row.before) > 1 and np.median(row.after) < 0.1
    assert row.unaligned + 5 < row.aligned < row.undisturbed
    write_page([row], tmp_path / "registration.md", "a command")
    (line,) = [
        line
        for line in (tmp_path / "registration.md").read_text("utf-8").splitlines()
        if line.startswith("| breathing |")
    ]
    assert f" {row.aligned:.2f} |" in line and "| 0 of 6 |" in line
