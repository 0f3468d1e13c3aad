"""Absent pixels: NaN, masked, or beyond where a slice ends."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest

from napari_focus_fusion import as_stack, fuse
from napari_focus_fusion.engine.empty import without_empty_bands
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.engine.reading import (
    ABSENT,
    DOUBTFUL,
    Reference,
    filled_from_slices,
    sample,
)
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.training.patches import read_patches
from sloping_scene import DEPTH, HEIGHT, SLICES, WIDTH, scene

HOLE = np.zeros((HEIGHT, WIDTH), bool)
HOLE[50:80, 55:95] = True
MIDDLE = SLICES // 2
ALL_MODELS = ["sml", "sesf", "residual-zero", "dual-path", "mscnn"]


def masked(slices: np.ndarray, place: np.ndarray, which: Any) -> np.ma.MaskedArray:
    """Slices with something misleading under the mask."""
    mask = np.zeros(slices.shape, bool)
    mask[which] = place
    values = slices.copy()
    values[mask] = np.random.default_rng(0).integers(0, 60000, mask.sum())
    return np.ma.array(values, mask=mask)


@pytest.mark.parametrize("surface", [0, 1])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_absent_pixels_win_nothing_and_change_nothing_around(
    name: str, surface: float
) -> None:
    slices, truth = scene(0)
    whole = fuse(slices, name, surface=surface)
    found = fuse(masked(slices, HOLE, MIDDLE), name, surface=surface)
    assert not (found.decision[HOLE] == MIDDLE).any()
    assert (abs(found.decision.astype(int) - DEPTH) <= 1).all()
    errors = [
        np.sqrt(((r.fused.astype(float) - truth)[~HOLE] ** 2).mean())
        for r in (whole, found)
    ]
    assert errors[1] < 1.1 * errors[0] + 2
    assert any("1200 pixels" in note for note in found.notes)


@pytest.mark.parametrize("blend", ["feather", "select"])
@pytest.mark.parametrize("kind", ["nan", "masked", "dask", "list"])
def test_every_way_to_say_absent_is_the_same(kind: str, blend: Any) -> None:
    slices, _ = scene(60)
    mask = masked(slices, HOLE, slice(2, 4)).astype(np.float32)
    stacks: dict[str, Any] = {
        "nan": mask.filled(np.nan),
        "masked": mask,
        "dask": da.from_array(mask, chunks=(1, 64, 64)),
        "list": list(mask),
    }
    expected = fuse(stacks["nan"], "sml", blend=blend, axes="ZYX")
    found = fuse(stacks[kind], "sml", blend=blend, axes="ZYX")
    np.testing.assert_array_equal(found.decision, expected.decision)
    np.testing.assert_array_equal(found.fused, expected.fused)


@pytest.mark.parametrize("blend", ["feather", "select"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16"])
def test_where_no_slice_has_a_pixel_there_is_none(dtype: str, blend: Any) -> None:
    slices, _ = scene(0)
    gone = HOLE.copy()
    gone[:9] = True
    found = fuse(masked(slices, gone, slice(None)).astype(dtype), "sml", blend=blend)
    if dtype == "uint16":
        assert not found.fused[gone].any()
    else:
        np.testing.assert_array_equal(np.isnan(found.fused), gone)
    assert not found.confidence[gone].any()
    assert np.isfinite(found.depth).all()
    (note,) = found.notes
    assert f"{gone.sum()} pixels" in note and "in every slice" in note


def test_a_decision_map_that_names_an_absent_pixel_gets_the_nearest_slice() -> None:
    slices, _ = scene(0)
    stack = masked(slices, HOLE, slice(2, 5))
    given = np.full((HEIGHT, WIDTH), 3)
    found = fuse(stack, decision=given, blend="select")
    taken = found.decision[HOLE]
    assert set(taken) == {1}  # 5 is as near, and the first is taken
    np.testing.assert_array_equal(found.fused[HOLE], slices[1][HOLE])
    assert (found.decision[~HOLE] == 3).all()


def test_a_channel_that_is_absent_comes_from_the_nearest_slice_that_has_it() -> None:
    slices, _ = scene(0)
    stack = np.stack([slices, slices[:, ::-1]]).astype(np.float32)
    stack[1, :3, HOLE] = np.nan
    found = fuse(stack, "sml", axes="CZYX", reference=0, blend="select")
    alone = fuse(stack[0], "sml", axes="ZYX", blend="select")
    np.testing.assert_array_equal(found.decision, alone.decision)
    np.testing.assert_array_equal(found.fused[0], alone.fused)
    nearest = np.maximum(found.decision, 3)[HOLE]
    expected = stack[1][nearest, *np.nonzero(HOLE)]
    np.testing.assert_array_equal(found.fused[1][HOLE], expected)


def test_reversing_reverses_also_where_pixels_are_absent() -> None:
    slices, _ = scene(60)
    stack = masked(slices, HOLE, slice(1, 4))
    one, other = fuse(stack, "sml"), fuse(stack[::-1], "sml")
    np.testing.assert_array_equal(SLICES - 1 - other.decision.astype(int), one.decision)
    np.testing.assert_array_equal(other.fused, one.fused)


@pytest.mark.parametrize("name", ["sml", "sesf", "mscnn"])
def test_tiles_stay_invisible_at_holes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_focus_fusion.engine import plan
    from napari_focus_fusion.tiling import TilePlan

    slices, _ = scene(60)
    stack = masked(slices, HOLE, slice(1, 4))
    whole = fuse(stack, name)
    monkeypatch.setattr(
        plan, "plan_regions", lambda *_, **__: TilePlan(HEIGHT, WIDTH, (51, 60))
    )
    pieces = fuse(stack, name, tile=48)
    agree = pieces.decision == whole.decision
    assert agree.mean() > 0.9995
    error = abs(pieces.fused.astype(int) - whole.fused)[agree]
    assert error.max() <= 1
    assert pieces.notes == whole.notes


def half_empty(dtype: str = "uint16") -> tuple[np.ndarray, np.ndarray]:
    """Slices that end inside the plane, as a stage moves them; where they are empty."""
    slices, _ = scene(60)
    empty = np.zeros(slices.shape, bool)
    empty[::2, :60] = True
    empty[5, :, 120:] = True
    slices[empty] = 0
    return slices.astype(dtype), empty


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_half_empty_slices_are_absent_where_they_are_empty(dtype: str) -> None:
    slices, empty = half_empty(dtype)
    found = fuse(slices, "sml")
    expected = fuse(np.ma.array(slices, mask=empty), "sml")
    np.testing.assert_array_equal(found.decision, expected.decision)
    np.testing.assert_array_equal(found.fused, expected.fused)
    assert not np.take_along_axis(empty, found.decision[None].astype(int), 0).any()
    assert "empty band" in found.notes[0]


def test_time_points_and_channels_have_bands_of_their_own() -> None:
    slices, empty = half_empty()
    full, _ = scene(60)
    stack = as_stack(np.stack([[full, full], [slices, slices]]), axes="TCZYX")
    banded = without_empty_bands(stack)
    whole = (slice(None),) * 3
    assert banded.read_present(0, *whole)[1] is None
    present = banded.read_present(1, *whole)[1]
    assert present is not None
    np.testing.assert_array_equal(~present, np.stack([empty, empty]))
    part = banded.read_present(1, slice(2, 3), slice(50, 70), slice(100, 130), 1)[1]
    assert part is not None
    np.testing.assert_array_equal(~part[0, 0], empty[2, 50:70, 100:130])


@pytest.mark.parametrize("kind", ["common border", "dark", "blank slice"])
def test_what_is_dark_is_not_empty(kind: str) -> None:
    slices, _ = scene(60)
    if kind == "common border":
        slices[:, :20] = 0
    elif kind == "dark":  # few bright spots on a background of zeros
        spots = np.random.default_rng(0).random(slices.shape) < 0.002
        slices = np.where(spots, slices, 0)
    else:
        slices[3] = 0
    stack = without_empty_bands(as_stack(slices, axes="ZYX"))
    assert stack.read_present(0, *(slice(None),) * 3)[1] is None


def test_infinity_is_an_error_and_says_what_to_do() -> None:
    stack = scene(0)[0].astype(np.float32)
    stack[2, 50, 67] = np.inf
    with pytest.raises(FocusFusionError, match=r"slice 2, row 50, column 67.*NaN"):
        fuse(stack, "sml", axes="ZYX")


def test_flags_say_what_is_absent_and_what_sees_it() -> None:
    pixels = np.random.default_rng(0).random((1, 60, 60)).astype(np.float32)
    pixels[0, 30, 2] = np.nan
    reference = Reference(as_stack(pixels, axes="ZYX"), 0, (1.0,))
    window = (slice(0, 1), slice(20, 40), slice(-6, 20))
    planes = reference.read(*window)
    assert planes.flags is not None
    flags = planes.flags[0]
    assert flags[10, 8] == ABSENT == flags[10, 3]  # and in the mirror image
    assert (flags[8:13, 6:11] > 0).all()
    assert (flags == DOUBTFUL).sum() == 5 * 10 - 2
    assert np.isfinite(planes.values).all()
    assert reference.read(slice(0, 1), slice(33, 60), slice(0, 60)).flags is None


def test_absent_pixels_are_not_in_the_sample() -> None:
    slices, _ = scene(0)
    stack = masked(slices, HOLE, slice(2, 5)).astype(np.float32)
    found = sample(Reference(as_stack(stack), 0, (1.0,)))
    windows, present = zip(*found, strict=True)
    values = np.sort(stack.compressed())
    expected = np.quantile(values, (0.005, 0.998))
    np.testing.assert_allclose(black_and_white(windows, present), expected, rtol=1e-4)
    filled = filled_from_slices(windows, present)
    np.testing.assert_array_equal(filled[2][0][HOLE], slices[1][HOLE])
    np.testing.assert_array_equal(filled[4][0][HOLE], slices[5][HOLE])


def test_absent_pixels_teach_nothing() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(500, 50, (4, 400, 400)).astype(np.float32)
    pixels[1:] *= 0.5  # the first slice is the sharpest
    stack = np.ma.array(pixels, mask=np.zeros(pixels.shape, bool))
    stack[2, :200] = np.ma.masked
    options: dict[str, Any] = {"patch": 48, "holdout": 0.2, "seed": 0}
    found = read_patches([as_stack(stack)], **options)
    places = [w.place for w in (*found.training, *found.validation)]
    assert places and min(place.y for place in places) >= 198
    stack[2] = np.ma.masked
    with pytest.raises(FocusFusionError, match="absent"):
        read_patches([as_stack(stack)], **options)
