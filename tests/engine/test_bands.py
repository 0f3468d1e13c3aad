"""Blending in bands: no seams where slices are not equally bright."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_focus_fusion import FocusFusionError, as_stack, fuse
from napari_focus_fusion.retouch import recompose, take_slice
from napari_focus_fusion.tiling import Rectangle
from sloping_scene import DEPTH, scene

GAINS = np.array([1, 1.15, 0.95, 1.1, 0.9, 1.1, 1])
BANDS = DEPTH.astype(np.uint16)


def flickering() -> np.ndarray:
    slices, _ = scene(20)
    return (slices * GAINS[:, None, None]).astype(np.uint16)


def fused(stack: np.ndarray, blend: str, **options: object) -> np.ndarray:
    result = fuse(stack, axes="ZYX", decision=BANDS, blend=blend, **options)
    return np.asarray(result.fused, float)


def largest_step(image: np.ndarray, truth: np.ndarray) -> float:
    """How much the brightness of columns changes within 4 pixels, as a share of it."""
    columns = ndimage.median_filter(image / truth, 3).mean(0)
    return float(np.abs(columns[4:] - columns[:-4]).max())


def test_seams_go_and_detail_stays() -> None:
    _, truth = scene(20)
    feather, bands = (fused(flickering(), blend) for blend in ("feather", "bands"))
    assert largest_step(feather, truth) > 0.15
    assert largest_step(bands, truth) < 0.06
    detail = [image - ndimage.gaussian_filter(image, 2) for image in (feather, bands)]
    assert np.corrcoef(detail[0].ravel(), detail[1].ravel())[0, 1] > 0.99
    assert 0.97 < detail[1].std() / detail[0].std() < 1.03


def test_slices_of_one_brightness_stay_as_they_are() -> None:
    slices, truth = scene(20)
    feather, bands = (fused(slices, blend) for blend in ("feather", "bands"))
    assert np.abs(bands - feather).mean() < 0.005 * truth.mean()
    even = np.full((3, 48, 64), 1000, np.uint16)
    decision = np.tile(np.repeat([0, 1], 32), (48, 1))
    result = fuse(even, axes="ZYX", decision=decision, blend="bands")
    assert (result.fused == 1000).all()


def test_regions_do_not_show(tmp_path) -> None:
    stack = np.tile(flickering(), (1, 4, 4))
    decision = np.tile(BANDS, (4, 4))
    options = {"axes": "ZYX", "decision": decision, "blend": "bands"}
    whole = fuse(stack, **options).fused.astype(int)
    parts = fuse(stack, memory="16MB", out=tmp_path / "a.zarr", **options).fused
    assert np.abs(whole - np.asarray(parts, int)).max() <= 1


def test_pixels_that_are_absent_do_not_count() -> None:
    stack = flickering().astype(np.float32)
    stack[2, :40, 70:] = np.nan
    known = fused(flickering().astype(np.float32), "bands")
    some = fused(stack, "bands")
    assert np.isfinite(some).all()
    assert np.abs(some / known - 1)[:, :60].max() < 0.1


def test_retouching_gives_what_a_fusion_by_the_new_map_gives() -> None:
    stack = as_stack(flickering(), axes="ZYX")
    result = fuse(stack, decision=BANDS, blend="bands")
    mask = np.zeros(BANDS.shape, bool)
    mask[50:70, 60:90] = True
    area = take_slice(result.decision, mask, 6)
    written = recompose(stack, result.decision, result.fused, area, blend="bands")
    assert written == Rectangle(18, 102, 28, 122)
    anew = fuse(stack, decision=result.decision, blend="bands").fused
    assert np.abs(anew.astype(int) - result.fused.astype(int)).max() <= 1


def test_it_goes_without_super_resolution() -> None:
    with pytest.raises(FocusFusionError, match="without super-resolution"):
        fuse(flickering(), "affinity-sr", axes="ZYX", blend="bands", scale=2)
