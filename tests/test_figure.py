from __future__ import annotations

import numpy as np
import pytest

import napari_focus_fusion as ff
from napari_focus_fusion.figure import side_by_side

DARKEST, BRIGHTEST = (68, 1, 84), (253, 231, 37)  # viridis at 0 and 1


def halves(axes: str) -> np.ndarray:
    """Two slices, sharp on the left and on the right: uint8 from 0 to 255."""
    rng = np.random.default_rng(0)
    texture = rng.choice(np.array([0, 255], np.uint8), (80, 120))
    grey = np.full_like(texture, 128)
    left = np.arange(120) < 60
    slices = np.stack([np.where(left, texture, grey), np.where(left, grey, texture)])
    return {
        "ZYX": slices,
        "ZYXS": np.stack([slices, slices // 2, slices // 4], axis=-1),
        "CZYX": np.stack([slices, slices]),
        "TZYX": np.stack([slices, slices[::-1]]),
    }[axes]


@pytest.mark.parametrize("axes", ["ZYX", "ZYXS", "CZYX", "TZYX"])
def test_panels_show_the_slices_the_fused_image_and_the_decision(axes: str) -> None:
    data = halves(axes)
    result = ff.fuse(data, "sml", axes=axes, device="cpu", blend="select")
    sheet = side_by_side(result)

    # The window of grey levels reaches from 0 to 255, so panels show true levels.
    first = data[0, 0] if axes in ("CZYX", "TZYX") else data[0]
    first = first if axes == "ZYXS" else np.repeat(first[..., np.newaxis], 3, axis=-1)
    high, wide = first.shape[:2]
    tops = np.flatnonzero((sheet[:, 12 + 10] != 255).any(axis=-1))
    top = tops[tops > 12 + high + 30][0]
    np.testing.assert_array_equal(sheet[12 : 12 + high, 12 : 12 + wide], first)

    decision = sheet[top : top + high, 24 + wide : 24 + 2 * wide]
    assert tuple(decision[40, 10]) == DARKEST
    assert tuple(decision[40, 110]) == BRIGHTEST


def test_large_stacks_are_reduced() -> None:
    data = np.random.default_rng(0).integers(0, 255, (2, 600, 300), np.uint8)
    sheet = side_by_side(ff.fuse(data, "sml", device="cpu"), panel=100)
    assert sheet.shape[0] < 320
    assert sheet.shape[1] < 240
