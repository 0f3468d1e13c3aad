"""Stacks of more digits or range than float32, and networks of fewer digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_focus_fusion import FocusFusionError, fuse
from napari_focus_fusion.metrics.truth import psnr
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


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("sesf", {}),
        ("sesf", {"surface": 0}),
        ("residual", {}),
        ("dual-path", {}),
        ("mscnn", {}),
        ("affinity-sr", {}),
        ("affinity-sr", {"scale": 2, "decision": "sml"}),
    ],
)
def test_networks_decide_alike_in_half_precision(
    model: str, options: dict[str, Any]
) -> None:
    scene = make_scene(3, shape=(192, 192), slices=4)
    stack = np.asarray(scene.stack)
    full = fuse(stack, model, axes="ZYX", device="cpu", **options)
    half = fuse(stack, model, axes="ZYX", device="cpu", precision="bfloat16", **options)
    assert half.fused.dtype == full.fused.dtype
    assert half.confidence.dtype == np.float32
    assert (half.decision == full.decision).mean() > 0.995
    assert (half.fused != full.fused).any()
    if options.get("scale", 1) == 1:
        near, best = (
            psnr(one.fused.astype(np.float64), scene.truth) for one in (half, full)
        )
        assert near == pytest.approx(best, abs=0.02)
    assert half.provenance["parameters"]["precision"] == "bfloat16"


def test_half_precision_changes_nothing_without_a_network() -> None:
    full, half = (
        fuse(PIXELS, "sml", axes="ZYX", device="cpu", precision=precision)
        for precision in ("float32", "bfloat16")
    )
    np.testing.assert_array_equal(half.fused, full.fused)
    np.testing.assert_array_equal(half.confidence, full.confidence)


def test_a_device_without_half_precision_is_told(monkeypatch: Any) -> None:
    for can, told in ((True, False), (False, True)):
        monkeypatch.setattr(
            torch.cpu,
            "get_capabilities",
            lambda can=can: {"avx2": True, "avx512_bf16": can},
            raising=False,
        )
        found = fuse(
            PIXELS[:, :48, :48],
            "sesf",
            axes="ZYX",
            device="cpu",
            precision="bfloat16",
        )
        assert any("bfloat16" in note for note in found.notes) is told
