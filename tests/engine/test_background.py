"""What is at no depth, and stacks that are not in focus: maps, pixels and notes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_focus_fusion import FocusFusionError, fuse

HIGH, WIDE, SLICES = 160, 320, 9


def stack_focused_in(focus: float, seed: int = 0) -> np.ndarray:
    """Texture on the left that is sharp in a slice, nothing on the right; noise."""
    rng = np.random.default_rng(seed)
    detail = ndimage.gaussian_filter(rng.standard_normal((HIGH, WIDE)), 0.8)
    detail[:, WIDE // 2 :] = 0
    slices = [
        ndimage.gaussian_filter(detail, 0.9 * abs(z - focus) + 0.01)
        for z in range(SLICES)
    ]
    noise = rng.normal(0, 300, (SLICES, HIGH, WIDE))
    return (20_000 + 9000 * np.stack(slices) + noise).astype(np.uint16)


def test_background_has_no_confidence_and_the_depth_of_its_surroundings() -> None:
    result = fuse(stack_focused_in(4), "sml", device="cpu")
    left, right = result.confidence[:, :130], result.confidence[:, 220:]
    assert np.median(left) > 0.8
    assert np.median(right) < 0.2
    beside = result.depth[:, WIDE // 2 + 10 : WIDE // 2 + 40]
    assert np.median(np.abs(beside - 4)) < 1


def test_background_can_be_the_mean_of_all_slices() -> None:
    stack = stack_focused_in(4)
    mean = stack[:, :, 240:].mean(0)
    nearest, averaged = (
        fuse(stack, "sml", background=background, device="cpu").fused
        for background in ("nearest", "mean")
    )
    np.testing.assert_array_equal(nearest[:, :100], averaged[:, :100])
    off = np.abs(averaged[:, 240:] - mean)
    assert np.median(off) < 15
    assert np.median(np.abs(nearest[:, 240:] - mean)) > np.median(off)


def test_a_mean_is_not_observed_in_one_slice() -> None:
    with pytest.raises(FocusFusionError, match="Use blend='feather'"):
        fuse(stack_focused_in(4), "sml", background="mean", blend="select")
    with pytest.raises(FocusFusionError, match="background"):
        fuse(stack_focused_in(4), "sml", background="black")


@pytest.mark.parametrize(("focus", "end"), [(0, "first"), (8, "last")])
def test_a_specimen_that_may_go_on_beyond_the_stack_is_told(
    focus: float, end: str
) -> None:
    notes = fuse(stack_focused_in(focus), "sml", device="cpu").notes
    assert any(f"The {end} slice is the sharpest" in note for note in notes), notes


def test_a_stack_with_its_focus_inside_has_no_note() -> None:
    assert not fuse(stack_focused_in(4), "sml", device="cpu").notes


def test_a_stack_that_is_nowhere_in_focus_is_told() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(1000, 30, (SLICES, HIGH, WIDE)).astype(np.uint16)
    notes = fuse(noise, "sml", device="cpu").notes
    assert any("Nothing is clearly in focus" in note for note in notes), notes
