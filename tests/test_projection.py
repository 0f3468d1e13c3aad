"""Slabs around a surface, against what NumPy computes pixel by pixel."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr

import napari_focus_fusion as ff
from small_results import SIZES, result_for

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (9, 40, 56)
RNG = np.random.default_rng(5)
SLICES = RNG.integers(0, 60_000, SHAPE).astype(np.uint16)
SURFACE = RNG.uniform(-0.4, 8.4, SHAPE[1:])
FLOATS = SLICES.astype(np.float32)


def expected_pixel(curve: np.ndarray, place: float, k: int, method: str) -> float:
    """Project one pixel slice by slice; NaN where less than half a slice is there."""
    start = place - (k - 1) / 2
    if method == "max":
        first = int(np.floor(start + 0.5))
        inside = [z for z in range(first, first + k) if 0 <= z < len(curve)]
        values = [curve[z] for z in inside if np.isfinite(curve[z])]
        return max(values, default=np.nan)
    weights = np.zeros(len(curve))
    for i in range(k):
        below = int(np.floor(start + i))
        share = start + i - below
        for z, weight in ((below, 1 - share), (below + 1, share)):
            if 0 <= z < len(curve) and np.isfinite(curve[z]):
                weights[z] += weight
    if weights.sum() < 0.5:
        return np.nan
    return float((np.nan_to_num(curve) * weights).sum() / weights.sum())


def expected(stack: np.ndarray, surface: np.ndarray, k: int, method: str) -> np.ndarray:
    found = np.empty(surface.shape)
    for y, x in np.ndindex(*surface.shape):
        found[y, x] = expected_pixel(stack[:, y, x], surface[y, x], k, method)
    return found


@pytest.mark.parametrize("method", ["mean", "max"])
@pytest.mark.parametrize(("k", "offset"), [(1, 0), (2, 0.25), (3, -3), (5, 2)])
def test_a_slab_is_what_it_says(method: Any, k: int, offset: float) -> None:
    absent = FLOATS.copy()
    absent[2:5, 10:20, 10:30] = np.nan
    found = ff.project(absent, SURFACE, slices=k, offset=offset, method=method)
    wanted = expected(absent, SURFACE + offset, k, method)
    np.testing.assert_allclose(found.image, wanted, rtol=1e-6)
    assert found.image.dtype == np.float32
    if np.isnan(wanted).any():
        assert any("NaN" in note for note in found.notes)


@pytest.mark.parametrize("method", ["mean", "max"])
def test_integers_are_rounded_and_missing_ones_are_0(method: Any) -> None:
    found = ff.project(SLICES, SURFACE, slices=2, offset=2, method=method)
    wanted = expected(FLOATS.astype(float), SURFACE + 2, 2, method)
    missing = np.isnan(wanted)
    assert 0 < missing.mean() < 0.5
    assert found.image.dtype == np.uint16
    np.testing.assert_array_equal(found.image, np.rint(np.nan_to_num(wanted)))
    share = f"{100 * missing.mean():.1f} % of the pixels are 0"
    assert any(note.startswith(share) for note in found.notes)
    assert any("fewer than 2 slices" in note for note in found.notes)


def test_whole_numbers_are_slices_and_others_heights() -> None:
    stack = ff.as_stack(SLICES, scale={"Z": 0.5}, units="um")
    decision = np.rint(SURFACE).clip(0, 8).astype(np.uint16)
    chosen = np.take_along_axis(SLICES, decision[None].astype(int), 0)[0]
    for surface in (decision, (decision * 0.5).astype(np.float32), decision[None]):
        np.testing.assert_array_equal(ff.project(stack, surface).image, chosen)
    shifted = ff.project(stack, decision, offset="1.5 um")
    np.testing.assert_array_equal(
        shifted.image, ff.project(stack, decision, offset=3).image
    )
    np.testing.assert_array_equal(
        shifted.image, ff.project(stack, decision, offset="1500nm").image
    )
    masked = np.ma.masked_array(decision, SURFACE < 4)
    image = ff.project(FLOATS, masked).image
    np.testing.assert_array_equal(np.isnan(image), SURFACE < 4)


@pytest.mark.parametrize("axes", ["ZYX", "TCZYX", "ZYXS", "TZCYX", "CZYX"])
def test_every_kind_of_stack_by_region(axes: str, tmp_path: Path) -> None:
    """The same from memory, and region by region out of a Zarr into a Zarr."""
    shape = [{**SIZES, "Y": 700, "X": 40}[axis] for axis in axes]
    dtype = np.uint8 if "S" in axes else np.uint16
    pixels = np.random.default_rng(1).integers(1, 255, shape).astype(dtype)
    stack = ff.as_stack(pixels, axes=axes, name="cells")
    places = np.random.default_rng(2).uniform(0, 4, stack.map_shape)
    whole = ff.project(stack, places, slices=3)
    assert whole.image.shape == stack.fused_shape
    t = 1 if "T" in axes else 0
    planes = stack.read(t, slice(0, 5), slice(100, 110), slice(0, 40))
    surface = places.reshape(-1, 700, 40)[t, 100:110]
    image = whole.image[t] if "T" in axes else whole.image
    if "S" in axes:
        image = np.moveaxis(image, -1, 0)
    image = image.reshape(-1, 700, 40)[:, 100:110]
    for plane, found in zip(planes, image, strict=True):
        wanted = expected(plane.astype(float), surface, 3, "mean")
        assert np.abs(found - wanted).max() <= 0.5 + 1e-6

    source = zarr.open_array(
        tmp_path / "stack.zarr", mode="w", shape=shape, dtype=dtype, chunks=shape
    )
    source[...] = pixels
    lazy = ff.as_stack(source, axes=axes, name="cells")
    out = tmp_path / "out.ome.zarr"
    written = ff.project(lazy, places, slices=3, out=out, memory="16MB")
    np.testing.assert_array_equal(np.asarray(written.image[...]), whole.image)
    again = ff.as_stack(out)
    assert again.n_slices == 1 and again.n_channels == stack.n_channels
    with pytest.raises(ff.FocusFusionError, match="exists already"):
        ff.project(lazy, places, out=out)


def test_the_result_of_a_fusion_and_its_files(tmp_path: Path) -> None:
    result = result_for("CZYX", channel_names=["actin", "dapi", "gfp"])
    pixels = np.random.default_rng(0).integers(0, 999, (3, 5, 30, 35)).astype("uint16")
    stack = ff.as_stack(
        pixels,
        axes="CZYX",
        scale=dict(result.stack.scale),
        units=dict(result.stack.units),
        channel_names=["actin", "dapi", "gfp"],
        name="cells",
    )
    found = ff.project(stack, result, channel="dapi")
    labels = result.decision[None].astype(int)
    chosen = np.take_along_axis(pixels[1], labels, 0)
    np.testing.assert_array_equal(found.image, chosen)
    assert found.stack.channel_names == ("dapi",)
    np.testing.assert_array_equal(ff.project(stack, result, channel=1).image, chosen)
    for name in ("fused.ome.tif", "fused.ome.zarr"):
        result.save(tmp_path / name)
        again = ff.project(stack, tmp_path / name, channel="dapi")
        np.testing.assert_array_equal(again.image, chosen)
        with pytest.raises(ff.FocusFusionError, match="never overwritten"):
            ff.project(stack, tmp_path / name).save(tmp_path / name, overwrite=True)
    for name in ("fused_depth.ome.tif", "fused_decision.ome.tif"):
        again = ff.project(stack, tmp_path / name, channel="dapi")
        np.testing.assert_array_equal(again.image, chosen)

    saved = found.save(tmp_path / "slab.ome.tif")
    np.testing.assert_array_equal(tifffile.imread(saved[0]), chosen[0])
    assert ff.as_stack(saved[0]).pixel_size("X") == stack.pixel_size("X")
    with tifffile.TiffFile(saved[0]) as file:
        assert "surface" in file.ome_metadata and "napari-focus-fusion" in (
            file.ome_metadata
        )
    found.save(tmp_path / "slab.ome.zarr")
    read = zarr.open_group(tmp_path / "slab.ome.zarr", mode="r")
    np.testing.assert_array_equal(read["0"][...], chosen)
    ours = dict(read.attrs)["napari_focus_fusion"]["provenance"]
    assert ours["projection"] == found.provenance["projection"]
    assert json.dumps(ours)


def test_what_does_not_belong_together_is_named() -> None:
    stack = ff.as_stack(SLICES)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"surface": SURFACE[:, :-1]}, "map of the same pixels"),
        ({"surface": np.full(SHAPE[1:], 9)}, "names slices 9 to 9"),
        ({"surface": SURFACE, "channel": 1}, "no channel 1"),
        ({"surface": SURFACE, "channel": "gfp"}, "no channel 'gfp'"),
        ({"surface": SURFACE, "offset": "2 um"}, "along Z is not known"),
        ({"surface": SURFACE, "offset": "far"}, "no offset"),
        ({"surface": SURFACE, "offset": 40}, "outside of 'stack' everywhere"),
        ({"surface": SURFACE, "method": "median"}, "use 'mean' or 'max'"),
        ({"surface": SURFACE, "slices": 0}, "at least 1"),
        ({"surface": SURFACE, "out": "a.tif"}, r"must end in \.ome\.zarr"),
        ({"surface": result_for("ZYX")}, "cannot decide for"),
        ({"surface": "nowhere.tif"}, "nowhere"),
    ]
    for given, words in cases:
        with pytest.raises(ff.FocusFusionError, match=words):
            ff.project(stack, **given)


def test_cancelled_and_failed_runs_leave_nothing(tmp_path: Path) -> None:
    seen: list[ff.Progress] = []
    with pytest.raises(ff.Cancelled):
        ff.project(
            *(SLICES, SURFACE),
            out=tmp_path / "out.ome.zarr",
            progress=seen.append,
            should_stop=lambda: True,
        )
    with pytest.raises(ff.FocusFusionError, match="everywhere"):
        ff.project(SLICES, SURFACE, offset=99, out=tmp_path / "out.ome.zarr")
    assert not list(tmp_path.iterdir())
    ff.project(SLICES, SURFACE, progress=seen.append)
    assert seen[-1].done == seen[-1].total


def test_memory_does_not_grow_with_the_slices() -> None:
    """The stack is read slice by slice, and only where the slab passes."""
    places = np.full((256, 256), 12.0)
    peaks = []
    for count in (16, 64):
        stack = ff.as_stack(np.broadcast_to(np.uint16(1), (count, 256, 256)))
        tracemalloc.start()
        ff.project(stack, places, slices=3, memory="16MB")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 256 * 256 * 2 * 4, "slices are held together"


def test_the_layers_lie_on_the_source() -> None:
    stack = ff.as_stack(FLOATS, scale={"Z": 2, "Y": 0.5, "X": 0.5}, units="um")
    surface = SURFACE.copy() * 2
    surface[0] = np.nan
    ((pixels, attributes, kind),) = ff.project(stack, surface).layers()
    assert kind == "image" and attributes["name"] == "stack projection"
    assert tuple(attributes["scale"]) == (0.5, 0.5)
    assert np.isfinite(attributes["contrast_limits"]).all()
    assert np.isnan(pixels[0]).all()


def test_the_best_slice() -> None:
    result = result_for("TZYX")
    decision = np.zeros((2, 30, 35), np.uint16)
    confidence = np.zeros((2, 30, 35), np.float32)
    decision[0, :20], decision[0, 20:] = 4, 2
    confidence[0, 20:] = 0.5  # the larger part is background
    decision[1] = 3
    best = replace(result, decision=decision, confidence=confidence).best_slice
    np.testing.assert_array_equal(best, [2, 3])
    one = result_for("ZYX")
    one = replace(one, decision=decision[0], confidence=confidence[0])
    assert one.best_slice == 2 and isinstance(one.best_slice, int)
