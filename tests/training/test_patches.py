"""Windows of stacks: apart, read once, where there is detail; the same by seed."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_focus_fusion import Cancelled, FocusFusionError, FocusStack, as_stack
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.engine.reading import Reference, limited, sample
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.training import patches as module
from napari_focus_fusion.training.patches import (
    Patches,
    Place,
    Window,
    read_patches,
    slices_around_sharpest,
)
from small_models import Watched, relief

OPTIONS: dict[str, Any] = {"patch": 48, "holdout": 0.25, "seed": 3}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Slices of noise, each with more contrast than the one before."""
    pixels = np.random.default_rng(seed).normal(size=shape)
    contrast = np.linspace(0.2, 1, shape[-3])[:, None, None]
    return (1000 + 100 * contrast * pixels).astype(np.uint16)


class Endless:
    """An array far larger than memory whose pixels are made when they are read."""

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        self.shape, self.chunks, self.dtype = shape, chunks, np.dtype(np.uint16)
        self.ndim = len(shape)
        self.most = self.pixels = self.chunks_read = 0

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        spans = [range(n)[part] for n, part in zip(self.shape, key, strict=True)]
        size = tuple(len(span) for span in spans)
        self.most = max(self.most, int(np.prod(size)))
        self.pixels += int(np.prod(size))
        self.chunks_read += int(
            np.prod(
                [
                    span[-1] // c - span[0] // c + 1
                    for span, c in zip(spans, self.chunks, strict=True)
                ]
            )
        )
        z, y, x = np.ix_(*(np.array(span) for span in spans))
        # A pattern that is sharpest in the slice 7.
        return ((10 - np.minimum(abs(z - 7), 9)) * ((y * 7 + x * 13) % 17)).astype("u2")


def overlap(a: Place, b: Place, spacing: int) -> bool:
    """Whether windows of the same stack lie nearer to each other than ``spacing``."""
    near = abs(a.y - b.y) < spacing and abs(a.x - b.x) < spacing
    return a.stack == b.stack and near


@settings(max_examples=60)
@given(
    sizes=st.lists(
        st.tuples(*[st.integers(64, 400)] * 2, st.integers(1, 30)),
        min_size=1,
        max_size=3,
    ),
    patch=st.integers(48, 64),
    holdout=st.floats(0.01, 0.5),
    seed=st.integers(0, 1000),
)
def test_what_is_held_back_lies_apart(
    sizes: list[tuple[int, int, int]], patch: int, holdout: float, seed: int
) -> None:
    """At all time points, by a quarter of a patch; and both parts have windows."""
    stacks = [
        FocusStack(np.broadcast_to(np.uint8(0), (t, 3, h, w)), "TZYX")
        for h, w, t in sizes
    ]
    rng = np.random.default_rng(seed)
    try:
        training, validation, side = module._choose_places(
            stacks, module._inside(stacks, None), patch, holdout, rng
        )
    except FocusFusionError as error:
        assert "no part is left" in str(error)
        assert len(stacks) == 1
        assert max(sizes[0][:2]) < 2 * patch + round(patch / 4)
        return
    assert training
    assert validation
    assert side >= patch
    gap = round(patch / 4)
    for a in training:
        assert not any(overlap(a, b, side + gap) for b in validation)
        assert 0 <= a.y <= stacks[a.stack].height - side
        assert 0 <= a.x <= stacks[a.stack].width - side
    everything = [*training, *validation]
    assert len(set(everything)) == len(everything) <= module.WINDOWS + len(stacks)
    for number, stack in enumerate(stacks):
        times = [p.t for p in everything if p.stack == number]
        assert len(set(times)) >= min(stack.n_times, len(times), module.TIMES)


def test_windows_are_the_pixels_that_the_engine_would_see() -> None:
    scene = noise(2, 2, 5, 160, 200)
    stack = as_stack(scene, axes="TCZYX")
    found = read_patches([stack], reference=1, **OPTIONS)
    for window in (*found.training, *found.validation):
        place = window.place
        channel = scene[place.t, 1].astype(np.float32)
        raw = Reference(stack, place.t, (0.0, 1.0))
        black, white = black_and_white([planes for planes, _ in sample(raw)])
        side = window.planes.shape[-1]
        y, x = slice(place.y, place.y + side), slice(place.x, place.x + side)
        expected = (limited(channel, y, x) - black) / (white - black)
        np.testing.assert_allclose(window.planes, expected, atol=1e-5)
        assert int(window.energy.argmax()) == 4
    assert {window.place.t for window in found.training} == {0, 1}


def test_each_pixel_is_read_once_beside_the_sample() -> None:
    source = Watched(noise(7, 200, 230))
    stack = as_stack(source, axes="ZYX")
    list(sample(Reference(stack, 0, (1.0,))))
    of_sample = source.read.copy()
    source.read[:] = 0
    read_patches([stack], **OPTIONS)
    # Around each window a few pixels more, and the edges of the plane.
    extra = source.read - of_sample
    assert np.median(extra[extra > 0]) == 1 and extra.max() <= 4


def test_of_a_huge_stack_a_few_chunks_are_read_and_little_is_held() -> None:
    source = Endless((30, 20_000, 20_000), (1, 512, 512))
    found = read_patches([as_stack(source, axes="ZYX")], **OPTIONS | {"patch": 64})
    nbytes = sum(w.planes.nbytes for w in (*found.training, *found.validation))
    assert nbytes <= module.WINDOW_BYTES
    assert source.most * 2 <= module.SLAB_BYTES
    assert len(found.training) > 8
    # The sample has 9 windows; others lie in 16 chunks and may reach into the next.
    assert source.chunks_read <= 30 * (9 * 4 + 16 * 4)


def test_chunks_along_z_are_read_once() -> None:
    source = Endless((64, 300, 300), (32, 300, 300))
    stack = as_stack(source, axes="ZYX")
    list(sample(Reference(stack, 0, (1.0,))))
    of_sample = source.chunks_read
    source.chunks_read = 0
    read_patches([stack], **OPTIONS)
    assert source.chunks_read == of_sample + 2


@given(
    rectangles=st.lists(
        st.tuples(*[st.integers(-50, 500)] * 2, *[st.integers(1, 300)] * 2),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=40)
def test_windows_lie_in_the_regions_and_apart(
    rectangles: list[tuple[int, int, int, int]],
) -> None:
    """However the regions overlap or stick out."""
    stack = FocusStack(np.broadcast_to(np.uint8(0), (3, 400, 450)), "ZYX")
    regions = [Rectangle(y, y + h, x, x + w) for y, x, h, w in rectangles]
    try:
        (inside,) = module._inside([stack], [regions])
    except FocusFusionError as error:
        assert "No region lies on" in str(error)
        assert all(
            r.y1 <= 0 or r.x1 <= 0 or r.y0 >= 400 or r.x0 >= 450 for r in regions
        )
        return
    corners = module._corners(inside, 48, 12)
    fitting = [r for r in inside if r.height >= 48 and r.width >= 48]
    assert bool(corners) == bool(fitting)
    for number, (y, x) in enumerate(corners):
        assert any(
            r.y0 <= y and r.x0 <= x and y + 48 <= r.y1 and x + 48 <= r.x1
            for r in fitting
        )
        for b, a in corners[:number]:
            assert abs(y - b) >= 60 or abs(x - a) >= 60


def test_regions_are_each_stack_s_own() -> None:
    stacks = [as_stack(noise(3, 200, 300, seed=n), axes="ZYX") for n in (1, 2)]
    regions = [[Rectangle(0, 200, 150, 300)], None]
    found = read_patches(stacks, regions=regions, **OPTIONS)
    places = [w.place for w in (*found.training, *found.validation)]
    assert min(p.x for p in places if p.stack == 0) >= 150
    assert min(p.x for p in places if p.stack == 1) == 0
    with pytest.raises(FocusFusionError, match=r"2 stacks and regions for 1"):
        read_patches(stacks, regions=[None], **OPTIONS)
    with pytest.raises(FocusFusionError, match=r"No region lies on .* 200 x 300"):
        read_patches(stacks, regions=[None, [Rectangle(300, 400, 0, 90)]], **OPTIONS)
    small = [Rectangle(0, 60, 0, 60)]
    with pytest.raises(FocusFusionError, match=r"no part is left to hold back"):
        read_patches(stacks, regions=[small, [Rectangle(0, 9, 0, 9)]], **OPTIONS)


def test_windows_without_detail_are_left_out() -> None:
    scene = noise(4, 300, 600)
    scene[:, :, 250:] = 1000
    found = read_patches([as_stack(scene, axes="ZYX")], **OPTIONS | {"holdout": 0.5})
    for window in (*found.training, *found.validation):
        assert window.place.x < 250


def test_the_same_seed_draws_the_same() -> None:
    scene = da.from_array(relief().stack, chunks=(1, 64, 64))
    first, again, other = (
        read_patches([as_stack(data, axes="ZYX")], **OPTIONS | {"seed": seed})
        for data, seed in ((relief().stack, 1), (scene, 1), (relief().stack, 2))
    )
    assert first.digest() == again.digest() != other.digest()
    draws = [p.draw(5, stacks=2, slices=3).slices for p in (first, again)]
    assert draws[0].shape == (2, 3, 48, 48)
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], first.draw(6, stacks=2, slices=3).slices)


def labelled(slices: int, sharpest: int) -> Window:
    """A window whose pixels encode their slice and place."""
    z, y, x = torch.meshgrid(
        *(torch.arange(n) for n in (slices, 72, 72)), indexing="ij"
    )
    energy = -(torch.arange(slices) - sharpest).abs().float()
    return Window(Place(0, 0, 0, 0), (z * 10_000 + y * 100 + x).float(), energy)


def test_a_patch_is_a_window_s_and_has_its_sharpest_slice() -> None:
    window = labelled(11, 6)
    patches = Patches((window,), (), 48, 0)
    seen: set[tuple[bool, ...]] = set()
    for step in range(40):
        patch = patches.draw(step, stacks=1, slices=4).slices[0]
        z = (patch // 10_000).long()
        assert (z == z[:, :1, :1]).all()
        order = z[:, 0, 0].tolist()
        assert 6 in order
        assert len(set(np.diff(order))) == 1
        place = (patch % 10_000).long()
        # Neighbours stay neighbours, whichever way the patch was turned.
        steps = {int(place[0, 0, 1] - place[0, 0, 0])}
        steps |= {int(place[0, 1, 0] - place[0, 0, 0])}
        assert {abs(s) for s in steps} == {1, 100}
        seen.add((order[0] < order[1], abs(order[1] - order[0]) > 1, min(steps) < 0))
    assert len(seen) > 5


@given(
    length=st.integers(1, 60),
    count=st.integers(1, 12),
    sharpest=st.integers(0, 59),
    seed=st.integers(0, 100),
)
def test_some_slices_are_evenly_spaced_round_the_sharpest(
    length: int, count: int, sharpest: int, seed: int
) -> None:
    sharpest %= length
    window = Window(
        Place(0, 0, 0, 0),
        torch.zeros(length, 1, 1),
        torch.eye(length)[sharpest],
    )
    found = slices_around_sharpest(window, count, torch.Generator().manual_seed(seed))
    assert len(found) == min(count, length)
    assert sharpest in found
    assert all(0 <= z < length for z in found)
    assert len(set(np.diff(found))) <= 1
    assert found == sorted(set(found))


def test_stacks_of_two_slices_and_of_many_go_together() -> None:
    stacks = [as_stack(noise(n, 150, 150, seed=n), axes="ZYX") for n in (2, 9)]
    found = read_patches(stacks, **OPTIONS)
    assert {w.place.stack for w in (*found.training, *found.validation)} == {0, 1}
    depths = {found.draw(step, stacks=2, slices=6).slices.shape[1] for step in range(9)}
    assert depths == {2, 6}


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (noise(3, 40, 300), r"40 x 300 pixels, fewer than a patch of 48 x 48"),
        (noise(3, 60, 60), r"no part is left to hold back.*12 pixels apart"),
        (np.full((3, 200, 200), 7, np.uint8), r"no slice is sharper than another"),
        (np.stack([noise(1, 200, 200)[0]] * 3), r"no slice is sharper than another"),
        (np.full((3, 200, 200), np.nan), r"everywhere pixels are absent"),
    ],
)
def test_what_does_not_fit_is_said(scene: np.ndarray, words: str) -> None:
    with pytest.raises(FocusFusionError, match=words):
        read_patches([as_stack(scene, axes="ZYX")], **OPTIONS)


def test_reading_can_be_stopped() -> None:
    stack = as_stack(noise(3, 200, 200), axes="ZYX")
    with pytest.raises(Cancelled):
        read_patches([stack], should_stop=lambda: True, **OPTIONS)
