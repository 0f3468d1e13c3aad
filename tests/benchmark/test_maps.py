"""Measures of depth maps, confidence and patchwork, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_focus_fusion.benchmark.data import Truth
from napari_focus_fusion.benchmark.maps import (
    calibration_error,
    map_values,
    patchwork,
    pooled,
    reliability,
)

FULL = np.ones((4, 5), bool)


def truth(edges=None, textured=FULL):
    depth = np.full((4, 5), 3.0, np.float32)
    edges = np.zeros((4, 5), bool) if edges is None else edges
    return Truth(np.zeros((4, 5)), depth, edges, textured)


def test_errors_at_steps_and_away_from_them():
    edges = np.zeros((4, 5), bool)
    edges[:, 0] = True
    depth = np.full((4, 5), 3.5)
    depth[:, 0] = 6
    values = map_values(depth, np.ones((4, 5)), truth(edges))
    assert values["depth error"] == pytest.approx((0.5 * 16 + 3 * 4) / 20)
    assert values["depth >1"] == pytest.approx(4 / 20)
    assert values["depth error at steps"] == 3
    assert values["depth >1 at steps"] == 1
    assert values["depth error away from steps"] == 0.5
    assert values["depth >1 away from steps"] == 0
    assert values["coverage"] == pytest.approx(16 / 20)
    assert "sure of nothing" not in values  # there is texture everywhere


def test_only_what_is_right_and_sure_is_covered():
    depth = np.full((4, 5), 3.0)
    sure = np.full((4, 5), 0.6)
    sure[0] = 0.4
    depth[1] = 9
    assert map_values(depth, sure, truth())["coverage"] == pytest.approx(0.5)


def test_where_there_is_no_texture_only_confidence_counts():
    textured = FULL.copy()
    textured[2:] = False
    depth = np.where(textured, 3.0, 99.0)
    sure = np.zeros((4, 5))
    sure[3] = 1
    values = map_values(depth, sure, truth(textured=textured))
    assert values["depth error"] == 0 and values["depth >1"] == 0
    assert values["sure of nothing"] == pytest.approx(0.5)
    assert values["coverage"] == 0


def test_a_depth_that_is_missing_is_off_and_not_covered():
    depth = np.full((4, 5), 3.25)
    depth[0] = np.nan
    values = map_values(depth, np.ones((4, 5)), truth())
    assert values["depth error"] == 0.25
    assert values["depth >1"] == pytest.approx(0.25)
    assert values["coverage"] == pytest.approx(0.75)


def test_confidence_that_is_right_as_often_as_it_says_is_calibrated():
    depth = np.full((4, 5), 3.0)
    depth[0] = 8  # a quarter is off by more than one
    honest, vain = np.full((4, 5), 0.75), np.full((4, 5), 0.97)
    count, right, sure = bins = reliability(depth, honest, truth())
    assert count[7] == 20 and right[7] == 15 and sure[7] == pytest.approx(15)
    assert count.sum() == 20
    assert calibration_error(bins) == pytest.approx(0)
    wrong = reliability(depth, vain, truth())
    assert calibration_error(wrong) == pytest.approx(0.97 - 0.75)


def test_opposite_errors_in_two_bins_do_not_cancel():
    depth = np.full((4, 5), 3.0)
    depth[:2] = 8
    sure = np.full((4, 5), 0.2)
    sure[:2] = 1.0  # where it is wrong
    assert calibration_error(reliability(depth, sure, truth())) == pytest.approx(0.9)


def test_small_stacks_count_as_much_as_large_ones():
    small = reliability(np.full((4, 5), 3.0), np.zeros((4, 5)), truth())
    assert np.allclose(pooled([small, small * 100]), small / 20 * 2)
    # one of two is right, the other never: whatever their sizes
    never = reliability(np.full((4, 5), 9.0), np.zeros((4, 5)), truth())
    assert calibration_error(pooled([small * 7, never])) == pytest.approx(0.5)


def test_patchwork_counts_specks_and_pieces():
    plane = np.full((100, 100), 5, np.uint16)
    assert patchwork(plane) == {"off the median": 0.0, "pieces": 100.0}
    plane[10:12, 10:12] = 9
    plane[50, 50] = plane[51, 51] = 0  # touch at a corner only
    plane[80, 80] = 6  # one slice off is no patchwork
    found = patchwork(plane)
    assert found["off the median"] == pytest.approx(6 / 10_000)
    assert found["pieces"] == pytest.approx(5 * 100)


def test_a_tilted_plane_is_no_patchwork():
    plane = np.repeat(np.arange(300)[:, None] // 30, 120, axis=1)
    found = patchwork(plane)
    assert found["off the median"] == 0
    assert found["pieces"] == pytest.approx(10 / plane.size * 1e6)


def test_more_slices_than_grey_levels():
    plane = np.repeat(np.arange(600)[:, None], 60, axis=1)
    found = patchwork(plane)
    assert found["pieces"] == pytest.approx(600 / plane.size * 1e6)
    # along a slope of a slice a pixel the median is right in its middle
    assert found["off the median"] < 0.9
