"""A retouched image equals fusing by the edited map."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

from napari_focus_fusion import Cancelled, FocusFusionError, as_stack, fuse
from napari_focus_fusion.composite import COMPOSITE_HALO
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.retouch import (
    as_decision,
    bounds,
    intensities,
    load_decision,
    recompose,
    save_decision,
    take_slice,
)
from napari_focus_fusion.tiling import Rectangle
from small_models import relief

GREY = relief(70, 90, 5).stack


def disc(y: int, x: int, radius: int, shape=GREY.shape[1:]) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def stacks():
    """Pixels and their axes: grey of all kinds, channels, time, colour."""
    grey = GREY
    eight = (grey >> 8).astype(np.uint8)
    colour = np.stack([eight, 255 - eight, eight // 2], -1)
    yield "uint16", grey, "ZYX"
    yield "uint8", eight, "ZYX"
    yield "float32", (grey / 3000).astype(np.float32), "ZYX"
    yield "float64", grey / 7.0, "ZYX"
    yield "channels", np.stack([grey, grey[:, ::-1]]), "CZYX"
    yield "channels inside", np.stack([grey, grey[:, ::-1]], 1), "ZCYX"
    yield "colour", colour, "ZYXS"
    yield "slices last", np.moveaxis(grey, 0, -1), "YXZ"
    yield "channels and slices last", np.stack([grey, grey[:, ::-1]]).T, "XYZC"
    yield "time", np.stack([grey, grey[::-1]]), "TZYX"
    yield "time and channels", np.stack([[grey, grey], [grey[::-1], grey]]), "TCZYX"


@pytest.mark.parametrize(
    ("pixels", "axes"), [pytest.param(p, a, id=name) for name, p, a in stacks()]
)
@pytest.mark.parametrize("blend", ["feather", "select"])
def test_it_equals_fusing_by_the_edited_map(pixels, axes, blend):
    stack = as_stack(pixels, axes=axes)
    decision = fuse(stack, "sml", device="cpu").decision
    fused = fuse(stack, decision=decision, blend=blend, device="cpu").fused
    first = fused.copy()
    t = stack.n_times - 1
    # In the middle, at a border, in a corner, everything, and on top of that.
    for y, x, radius, z in (
        (33, 40, 9, 0),
        (2, 88, 6, 4),
        (69, 0, 20, 1),
        (40, 40, 200, 2),
        (30, 60, 25, 3),
    ):
        area = take_slice(decision, disc(y, x, radius), z, t=t)
        assert area is not None
        recompose(stack, decision, fused, area, t=t, blend=blend)
        if z in (1, 3):
            # To the bit, all over the image: no pixel farther away depends on it.
            expected = fuse(stack, decision=decision, blend=blend, device="cpu").fused
            np.testing.assert_array_equal(fused, expected)
    assert (fused != first).any()


class Watched(LazyArray):
    """A stack that notes how much of it is read."""

    def __init__(self, pixels):
        super().__init__(pixels.shape, pixels.dtype, None)
        self.pixels, self.read = pixels, 0

    def _region(self, spans):
        region = self.pixels[spans]
        self.read += region.size
        return region


def test_only_the_surroundings_of_the_area_are_read():
    watched = Watched(np.tile(GREY, (1, 6, 6)))
    stack = as_stack(watched, axes="ZYX")
    decision = np.zeros(stack.map_shape, np.uint16)
    fused = np.zeros(stack.fused_shape, stack.dtype)
    area = take_slice(decision, disc(200, 300, 5, decision.shape), 3)
    assert area == Rectangle(195, 206, 295, 306)
    written = recompose(stack, decision, fused, area)
    side = 11 + 2 * (3 + COMPOSITE_HALO)
    # Twice: for the noise, and for the pixels.
    assert watched.read == 2 * stack.n_slices * side**2
    outside = np.ones(fused.shape, bool)
    outside[written.slices] = False
    assert not fused[outside].any() and fused[written.slices].all()


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_stacks_and_results(kind, tmp_path):
    stack = as_stack(GREY, axes="ZYX")
    result = fuse(stack, "sml", device="cpu")
    decision = result.decision.copy()
    area = take_slice(decision, disc(30, 30, 12), 4)
    expected = result.fused.copy()
    recompose(stack, decision, expected, area)
    if kind == "dask":
        lazy, fused = da.from_array(GREY, chunks=(1, 32, 32)), result.fused.copy()
    else:
        lazy = zarr.create_array(tmp_path / "s.zarr", data=GREY, chunks=(1, 32, 32))
        fused = zarr.create_array(
            tmp_path / "f.zarr", data=result.fused, chunks=(32, 32)
        )
    recompose(as_stack(lazy, axes="ZYX"), decision, fused, area)
    np.testing.assert_array_equal(fused[...], expected)


def test_many_blocks_and_stopping():
    wide = np.tile(GREY[:2], (1, 1, 12))
    stack = as_stack(wide, axes="ZYX")
    decision = np.zeros(stack.map_shape, np.uint16)
    fused = fuse(stack, decision=decision, device="cpu").fused
    area = take_slice(decision, np.ones(decision.shape, bool), 1)
    with pytest.raises(Cancelled):
        recompose(stack, decision, fused.copy(), area, should_stop=lambda: True)
    recompose(stack, decision, fused, area)
    expected = fuse(stack, decision=decision, device="cpu").fused
    np.testing.assert_array_equal(fused, expected)


def test_the_intensities_are_computed_once():
    watched = Watched((GREY / 300).astype(np.float32))
    stack = as_stack(watched, axes="ZYX")
    known = intensities(stack)
    decision = fuse(stack, "sml", device="cpu").decision
    area = take_slice(decision, disc(30, 30, 4), 0)
    one, two = (np.zeros(stack.fused_shape, np.float32) for _ in range(2))
    watched.read = 0
    recompose(stack, decision, one, area, black_and_white=known)
    quick, watched.read = watched.read, 0
    recompose(stack, decision, two, area)
    assert quick < watched.read
    np.testing.assert_array_equal(one, two)


def test_by_the_reference_channel():
    stack = as_stack(np.stack([GREY, GREY[:, ::-1]]), axes="CZYX")
    decision = fuse(stack, "sml", reference=1, device="cpu").decision
    fused = fuse(stack, decision=decision, reference=1, device="cpu").fused
    area = take_slice(decision, disc(30, 30, 12), 4)
    recompose(stack, decision, fused, area, reference=1)
    expected = fuse(stack, decision=decision, reference=1, device="cpu").fused
    np.testing.assert_array_equal(fused, expected)


def test_taking_what_is_there_already_changes_nothing():
    decision = np.full((3, 8, 9), 2, np.uint16)
    assert take_slice(decision, np.ones((8, 9), bool), 2, t=1) is None
    assert take_slice(decision, np.zeros((8, 9), bool), 1, t=1) is None
    mask = np.zeros((8, 9), bool)
    mask[3:5, 7] = True
    assert take_slice(decision, mask, 0, t=1) == Rectangle(3, 5, 7, 8)
    assert (decision[1][mask] == 0).all() and (decision[[0, 2]] == 2).all()
    with pytest.raises(FocusFusionError, match=r"\(9, 8\) pixels"):
        take_slice(decision, mask.T, 1)
    assert bounds(mask) == Rectangle(3, 5, 7, 8)


def test_maps_from_elsewhere():
    stack = as_stack(GREY, axes="ZYX")
    own = np.arange(70 * 90).reshape(70, 90) % 5
    for given in (own, own.astype(np.float32), own[None, None], own + 1):
        found = as_decision(given, stack)
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, own)
    # A map that says 1 to 4 may mean either; it says which.
    clipped = own.clip(1, 4)
    np.testing.assert_array_equal(as_decision(clipped, stack), clipped)
    np.testing.assert_array_equal(as_decision(clipped, stack, first=1), clipped - 1)
    movie = as_stack(np.stack([GREY, GREY]), axes="TZYX")
    np.testing.assert_array_equal(as_decision(own, movie), [own, own])
    np.testing.assert_array_equal(as_decision(own[None] + 1, movie), [own, own])


@pytest.mark.parametrize(
    ("wrong", "first", "text"),
    [
        (np.zeros((90, 70), int), None, "70 x 90 pixels"),
        (np.full((70, 90), 0.5), None, "no indices of slices"),
        (np.full((70, 90), np.nan), None, "no indices of slices"),
        (np.full((70, 90), True), None, "no indices of slices"),
        (np.full((70, 90), 6), None, "names slices 6 to 6"),
        (np.full((70, 90), 5), 0, "slices 0 to 4, counted from 0"),
        (np.full((70, 90), -1), None, "names slices -1 to -1"),
        (np.zeros((70, 90), int), 1, "slices 1 to 5, counted from 1"),
    ],
)
def test_what_is_no_decision_map(wrong, first, text):
    with pytest.raises(FocusFusionError, match=text):
        as_decision(wrong, as_stack(GREY, axes="ZYX"), first=first)


def test_files(tmp_path):
    pixels = np.stack([GREY, GREY[::-1]])
    stack = as_stack(
        pixels,
        axes="TZYX",
        scale={"Y": 0.25, "X": 0.25},
        units={"Y": "micrometer", "X": "micrometer"},
    )
    decision = fuse(stack, "sml", device="cpu").decision
    path = save_decision(tmp_path / "map.ome.tif", decision, stack)
    np.testing.assert_array_equal(load_decision(path, stack), decision)
    with tifffile.TiffFile(path) as file:
        assert 'PhysicalSizeX="0.25"' in file.ome_metadata
    with pytest.raises(FocusFusionError, match="exists already"):
        save_decision(path, decision, stack)
    save_decision(path, decision * 0, stack, overwrite=True)
    assert not load_decision(path, stack).any()
    with pytest.raises(FocusFusionError, match=r"saved as \.ome\.tif"):
        save_decision(tmp_path / "map.png", decision, stack)


def test_the_map_of_a_saved_fusion_can_be_loaded(tmp_path):
    stack = as_stack(GREY, axes="ZYX")
    result = fuse(stack, "sml", device="cpu")
    _, path, *_ = result.save(tmp_path / "fused.ome.tif")
    np.testing.assert_array_equal(load_decision(path, stack), result.decision)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"blend": "average"}, "use 'feather',"),
        ({"t": 1}, "t=1 must lie between 0 and 0"),
        ({"reference": 0.5}, "is no channel"),
        ({"area": Rectangle(90, 99, 0, 9)}, "lies outside"),
        ({"area": (0, 9, 0, 9)}, "is no Rectangle"),
        ({"decision": np.zeros((20, 64), np.uint16)}, "must be a map of the same"),
        ({"decision": np.zeros((40, 64))}, "an array of whole numbers"),
        ({"decision": np.full((40, 64), 3)}, r"names slices 3 to 3.*slices 0 to 2"),
        ({"decision": np.full((40, 64), -1)}, r"names slices -1 to -1"),
        ({"fused": np.zeros((40, 63), np.uint8)}, r"uint8 of shape \(40, 64\)"),
        ({"fused": np.zeros((40, 64), np.float32)}, r"uint8 of shape \(40, 64\)"),
        ({"black_and_white": (1, 0)}, "two numbers, the lower first"),
    ],
)
def test_what_does_not_belong_to_the_stack_changes_nothing(
    changed: dict[str, Any], words: str
) -> None:
    stack = as_stack(np.full((3, 40, 64), 7, np.uint8))
    arguments: dict[str, Any] = {
        "decision": np.zeros((40, 64), np.uint16),
        "fused": np.zeros((40, 64), np.uint8),
        "area": Rectangle(0, 9, 0, 9),
    } | changed
    with pytest.raises(FocusFusionError, match=words):
        recompose(stack, **arguments)
    assert not arguments["fused"].any()


def test_only_slices_that_there_can_be_are_taken() -> None:
    decision, mask = np.zeros((4, 5), np.uint16), np.ones((4, 5), bool)
    for z in (-1, 1.5, "1", 1 << 16, True):
        with pytest.raises(FocusFusionError, match="z="):
            take_slice(decision, mask, z)  # type: ignore[arg-type]
    for wrong in (decision[None, None], decision.astype(float), [[0]]):
        with pytest.raises(FocusFusionError, match="decision"):
            take_slice(wrong, mask, 1)  # type: ignore[arg-type]
    assert not decision.any()


def test_only_a_map_of_the_stack_is_saved(tmp_path) -> None:
    stack = as_stack(np.zeros((3, 40, 64), np.uint8))
    for wrong in (np.zeros((4, 5)), np.full((40, 64), 3), np.full((40, 64), 0.5)):
        with pytest.raises(FocusFusionError, match="decision map"):
            save_decision(tmp_path / "map.tif", wrong, stack)
    assert not list(tmp_path.iterdir())
