"""Stacks of numbers with more digits, or a larger range, than float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_focus_fusion import FocusFusionError, fuse
from napari_focus_fusion.simulation.scenes import make_scene

SCENE = make_scene(3, shape=(96, 112), slices=5)
PIXELS = np.asarray(SCENE.stack, np.float64)
#: How a stack is changed, and back.
CHANGES: dict[str, tuple[Any, Any]] = {
    "beyond float32": (lambda a: a * 1e40, lambda a: a / 1e40),
    "below float32": (lambda a: a * 1e-45, lambda a: a / 1e-45),
    "offset": (lambda a: a + 1e11, lambda a: a - 1e11),
    "int32": (lambda a: (a + 2e9).astype("i4"), lambda a: a - 2e9),
    "uint32": (lambda a: (a + 4e9).astype("u4"), lambda a: a - 4e9),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("model", ["sml", "sesf", "mscnn"])
def test_offset_and_scale_change_nothing(model: str, change: str) -> None:
    there, back = CHANGES[change]
    expected = fuse(PIXELS, model, axes="ZYX", device="cpu")
    found = fuse(there(PIXELS), model, axes="ZYX", device="cpu")
    assert (found.decision == expected.decision).mean() > 0.999
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=2e-3)
    fused = back(found.fused.astype(np.float64))
    same = found.decision == expected.decision
    np.testing.assert_allclose(fused[same], expected.fused[same], atol=0.6)


def test_a_super_resolved_image_keeps_its_offset() -> None:
    expected = fuse(PIXELS, "affinity-sr", axes="ZYX", scale=2, device="cpu")
    found = fuse(PIXELS + 1e11, "affinity-sr", axes="ZYX", scale=2, device="cpu")
    np.testing.assert_allclose(found.fused - 1e11, expected.fused, atol=0.6)
    np.testing.assert_allclose(found.consistency, expected.consistency, atol=1e-4)


@pytest.mark.parametrize(
    "pixels",
    [
        (PIXELS / PIXELS.max() * 2 - 1) * 1.7e308,
        ((PIXELS / PIXELS.max() * 2 - 1) * 3e38).astype(np.float32),
        (PIXELS / PIXELS.max() * 1e-40).astype(np.float32),
    ],
    ids=["float64", "float32", "tiny float32"],
)
def test_a_range_that_cannot_be_computed_with_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(FocusFusionError, match="Scale them first"):
        fuse(pixels, "sml", axes="ZYX", device="cpu")


@pytest.mark.parametrize("value", [0.0, 1e-30, 7.0, 1e20, 1e200])
def test_a_stack_without_contrast_stays_as_it_is(value: float) -> None:
    result = fuse(np.full((3, 40, 48), value), "sml", axes="ZYX", device="cpu")
    np.testing.assert_array_equal(result.fused, value)
    assert not result.confidence.any()
