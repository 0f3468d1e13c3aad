"""Lines are drawn where their numbers are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_focus_fusion.benchmark.chart import Axis, line_chart

SIZE = (400, 300)
LEFT, TOP = 70, 30


def dots(chart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the second line, which is red, inside the plot."""
    red = (chart == (0xD6, 0x27, 0x28)).all(-1)[:, : LEFT + SIZE[0] + 5]
    return np.nonzero(red)


def test_points_of_logarithmic_axes_lie_at_equal_ratios() -> None:
    lines = {"one": [(1.0, 1.0), (100.0, 100.0)], "two": [(10.0, 10.0)]}
    chart = line_chart(lines, Axis("x"), Axis("y"), size=SIZE)
    rows, columns = dots(chart)
    assert abs(rows.mean() - (TOP + SIZE[1] / 2)) < 1.5
    assert abs(columns.mean() - (LEFT + SIZE[0] / 2)) < 1.5


def test_a_linear_axis_goes_from_a_round_number_to_a_round_number() -> None:
    lines = {"one": [(1.0, 30.0), (10.0, 34.0)], "two": [(1.0, 33.0)]}
    linear = Axis("PSNR, dB", logarithmic=False)
    rows, columns = dots(line_chart(lines, Axis("x"), linear, size=SIZE))
    assert abs(rows.mean() - (TOP + SIZE[1] / 4)) < 1.5
    assert abs(columns.mean() - LEFT) < 2


def test_one_number_makes_a_chart_and_none_does_not() -> None:
    chart = line_chart({"one": [], "two": [(3.0, 7.0)]}, Axis("x"), Axis("y"))
    assert len(dots(chart)[0])
    with pytest.raises(ValueError, match="needs a point"):
        line_chart({"one": []}, Axis("x"), Axis("y"))
