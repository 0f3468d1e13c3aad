"""Height maps: planes are kept, outliers are not, and gaps are said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

import napari_focus_fusion as ff
from napari_focus_fusion.height import smooth_surface
from napari_focus_fusion.metrics import psnr
from napari_focus_fusion.simulation.tissue import make_tissue
from small_results import result_for

if TYPE_CHECKING:
    from pathlib import Path

Y, X = np.mgrid[:70, :90].astype(float)
PLANE = 0.05 * Y - 0.03 * X + 6


def test_a_plane_is_kept_up_to_the_border_and_in_gaps() -> None:
    weights = np.ones(PLANE.shape)
    weights[20:30, 30:42] = 0
    weights[:, 80:] = 0
    places = np.where(weights > 0, PLANE, 1e6)
    height, deviation = smooth_surface(places, weights, 5.0)
    near = X < 85
    assert np.abs(height - PLANE)[near].max() < 1e-6
    assert deviation[near].max() < 1e-3
    weights[:, 60:] = 0
    height, _ = smooth_surface(places, weights, 5.0)
    assert np.isnan(height[:, 75:]).all()


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_a_second_structure_does_not_pull(share: float) -> None:
    """A part of the pixels sees what lies 8 slices below."""
    rng = np.random.default_rng(3)
    outside = rng.random(PLANE.shape) < share
    places = PLANE + rng.normal(0, 0.3, PLANE.shape) + 8 * outside
    weights = rng.uniform(0.3, 1, PLANE.shape)
    height, _ = smooth_surface(places, weights, 6.0)
    error = np.sqrt(np.mean((height - PLANE) ** 2))
    assert error < 0.3
    assert error < 0.2 * share * 8 + 0.05, "no better than a mean"


def test_uncertainty_says_how_the_depths_scatter() -> None:
    rng = np.random.default_rng(4)
    noise = np.where(X < 45, 0.2, 0.8)
    places = PLANE + rng.normal(0, 1, PLANE.shape) * noise
    _, deviation = smooth_surface(places, np.ones(PLANE.shape), 5.0)
    inner = (slice(12, 58), slice(12, 30)), (slice(12, 58), slice(60, 78))
    low, high = (float(np.median(deviation[area])) for area in inner)
    assert 0.17 < low < 0.23 and 0.68 < high < 0.92
    assert deviation[35, 89] > 1.2 * high, "the border is extrapolated"


def test_units_files_and_confidence(tmp_path: Path) -> None:
    stack = ff.as_stack(
        np.zeros((2, 9, 70, 90), np.uint8),
        axes="TZYX",
        scale={"Z": 500, "Y": 0.1, "X": 0.1},
        units={"Z": "nm", "Y": "um", "X": "um"},
    )
    depth = np.stack([PLANE, PLANE + 1]).astype(np.float32) * 500
    confidence = np.ones(depth.shape, np.float32)
    confidence[1, :, 40:] = 0.1  # below what counts
    found = ff.height_map(depth, stack=stack, confidence=confidence, smoothing=4)
    assert found.unit == "micrometer"
    np.testing.assert_allclose(found.height[0], PLANE * 0.5, atol=1e-4)
    assert np.isnan(found.height[1, :, 60:]).all()
    assert found.valid[1, :, :40].all()
    (note,) = found.notes
    assert note.endswith("no confident pixel is in reach.")
    files = found.save(tmp_path / "height.ome.tif")
    assert [path.name for path in files] == [
        "height.ome.tif",
        "height_uncertainty.ome.tif",
    ]
    np.testing.assert_array_equal(tifffile.imread(files[0]), found.height)
    np.testing.assert_array_equal(tifffile.imread(files[1]), found.uncertainty)
    with tifffile.TiffFile(files[0]) as file:
        assert "height (micrometer)" in file.ome_metadata
    with pytest.raises(ff.FocusFusionError, match="exists already"):
        found.save(files[0])
    with pytest.raises(ff.FocusFusionError, match=r"saved as \.ome\.tif"):
        found.save(tmp_path / "height.png")


def test_slices_where_the_size_is_not_known() -> None:
    stack = ff.as_stack(np.zeros((9, 70, 90), np.uint8))
    found = ff.height_map(PLANE, stack=stack, smoothing=4)
    assert found.unit == "slice" and "is not known" in found.notes[0]
    np.testing.assert_allclose(found.height, PLANE, atol=1e-4)
    with pytest.raises(ff.FocusFusionError, match="stack="):
        ff.height_map(PLANE)
    with pytest.raises(ff.FocusFusionError, match="smoothing=0"):
        ff.height_map(PLANE, stack=stack, smoothing=0)
    nowhere = ff.height_map(np.full(PLANE.shape, np.nan), stack=stack)
    assert not nowhere.valid.any() and "100.0 %" in nowhere.notes[-1]
    assert "no slice" in repr(nowhere)


def test_of_a_result() -> None:
    result = result_for("ZYX")
    found = ff.height_map(result, smoothing=3)
    assert found.unit == "micrometer" and found.valid.all()
    assert found.provenance["surface"]["model"] == "sesf"


@pytest.mark.parametrize("sheet", ["tilt", "dome", "wave"])
def test_sheets_in_noise_over_a_second_layer_of_cells(sheet: str) -> None:
    scene = make_tissue(
        7,
        sheet=sheet,
        below=0.5,
        shape=(128, 128),
        slices=14,
        section=4.0,
        haze=0.3,
        electrons=1000.0,
    )
    stack = ff.as_stack(scene.stack, axes="ZYX", scale=scene.scale, units=scene.units)
    result = ff.fuse(stack, "sml", device="cpu")
    found = ff.height_map(result)
    error = np.abs(found.height / stack.pixel_size("Z") - scene.depth)
    assert found.valid.all()
    assert np.mean(error <= 1) > 0.99
    assert np.sqrt(np.mean(error**2)) <= 0.6
    brightest = scene.stack.argmax(0)
    assert np.mean(np.abs(brightest - scene.depth) <= 1) < 0.8
    slab = ff.project(stack, result, slices=3).image
    ours, highest = (
        psnr(image.astype(np.float32), scene.truth, data_range=65535)
        for image in (slab, scene.stack.max(0))
    )
    assert ours > highest + 2
