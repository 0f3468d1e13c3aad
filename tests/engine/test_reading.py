"""Windows of the reference plane, the sample, and prefetching."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_focus_fusion import FocusFusionError
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.engine.reading import (
    READ_HALO,
    SAMPLE_GRID,
    SAMPLE_PIXELS,
    SAMPLE_SIDE,
    SMALLEST_SIDE,
    Reference,
    limited,
    prefetch,
    read_components,
    sample,
    sample_places,
)
from napari_focus_fusion.opening import as_stack
from small_models import Watched

if TYPE_CHECKING:
    from napari_focus_fusion.stack import FocusStack

GREY = (1.0,)


def random_stack(shape: tuple[int, ...], axes: str = "ZYX") -> FocusStack:
    pixels = np.random.default_rng(0).integers(0, 60000, shape, dtype=np.uint16)
    return as_stack(pixels, axes=axes)


def all_of(stack: FocusStack) -> np.ndarray:
    return stack.read(0, slice(0, stack.n_slices), slice(None), slice(None))


def test_planes_are_weighted_and_normalised() -> None:
    stack = random_stack((4, 3, 20, 30), "CZYX")
    weights = (0.5, 0.0, 0.2, 0.3)
    reference = Reference(stack, 0, weights, black=100.0, white=50_100.0)
    mixed = np.tensordot(weights, all_of(stack).astype(float), 1)
    window = (slice(0, 20), slice(0, 30))
    found, seen = reference.observed(slice(0, 3), *window)
    assert seen is None
    np.testing.assert_allclose(found, (mixed - 100) / 50_000, atol=1e-6)
    np.testing.assert_array_equal(reference.mixed(all_of(stack)), found)
    planes = reference.planes(slice(0, 3), *window)
    np.testing.assert_array_equal(planes, limited(found, *window))


@pytest.mark.parametrize("shape", [(20, 30), (5, 7), (1, 9)])
def test_outside_the_image_is_its_mirror_image(shape: tuple[int, int]) -> None:
    stack = random_stack((1, *shape))
    halo = 23
    whole = np.pad(all_of(stack)[0, 0], halo, mode="symmetric")
    high, wide = shape
    for y0, y1, x0, x1 in ((0, high, 0, wide), (high // 2, high, 0, wide // 2 + 1)):
        rows = slice(y0 - halo, y1 + halo)
        columns = slice(x0 - halo, x1 + halo)
        read, _ = read_components(stack, 0, [0], slice(0, 1), rows, columns)
        window = read[0, 0]
        expected = whole[y0 : y1 + 2 * halo, x0 : x1 + 2 * halo]
        np.testing.assert_array_equal(window, expected)


def test_channels_without_weight_are_not_read() -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (3, 2, 20, 30), dtype=np.uint8)
    watched = Watched(pixels)
    reference = Reference(as_stack(watched, axes="CZYX"), 0, (0.0, 1.0, 0.0))
    planes = reference.planes(slice(1, 2), slice(3, 9), slice(-4, 12))
    expected = limited(pixels[1, 1:2].astype(np.float32), slice(3, 9), slice(0, 12))
    np.testing.assert_array_equal(planes[:, :, 4:], expected)
    read = np.zeros(pixels.shape)
    read[1, 1, 3 - READ_HALO : 9 + READ_HALO, : 12 + READ_HALO] = 1
    np.testing.assert_array_equal(watched.read, read)


def test_infinity_is_reported_where_it_is() -> None:
    pixels = np.zeros((3, 40, 50), np.float32)
    pixels[2, 31, 17] = np.inf
    stack = as_stack(pixels, axes="ZYX", name="pollen")
    with pytest.raises(FocusFusionError, match=r"'pollen'.*slice 2, row 31, column 17"):
        read_components(stack, 0, [0], slice(1, 3), slice(30, 60), slice(-5, 30))


def samples(stack: FocusStack) -> list[np.ndarray]:
    return [planes for planes, _ in sample(Reference(stack, 0, GREY))]


def test_the_sample_of_a_small_plane_is_the_plane() -> None:
    stack = random_stack((3, 100, 90))
    planes = all_of(stack)[0].astype(np.float32)
    planes = limited(planes, slice(0, 100), slice(0, 90))
    np.testing.assert_array_equal(np.concatenate(samples(stack)), planes)


def test_the_sample_of_a_large_plane_is_spread_over_it() -> None:
    y, x = np.mgrid[:1000, :700]
    rows = np.concatenate(samples(as_stack(y[None].astype(np.uint16), axes="ZYX")))
    columns = np.concatenate(samples(as_stack(x[None].astype(np.uint16), axes="ZYX")))
    assert rows.shape == (9, SAMPLE_SIDE, SAMPLE_SIDE)
    for values, length in ((rows, 1000), (columns, 700)):
        # Three windows side by side, as far from each other as from the borders.
        starts = np.unique(values.min((1, 2)))
        gaps = np.diff([-SAMPLE_SIDE, *starts, length])
        gaps = gaps - SAMPLE_SIDE
        inner = gaps[1:-1]
        assert len(starts) == 3
        assert np.abs(inner - inner[0]).max() <= 1
        assert np.abs(gaps[[0, -1]] * 2 - inner[0]).max() <= 2


def test_the_sample_does_not_grow_with_the_number_of_slices() -> None:
    class Endless:
        """Any number of slices, without the memory."""

        shape, dtype, ndim = (300, 700, 700), np.dtype(np.uint8), 3

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            sizes = zip(key, self.shape, strict=True)
            return np.zeros([len(range(*k.indices(n))) for k, n in sizes], np.uint8)

    stack = as_stack(Endless(), axes="ZYX")
    total = sum(planes.size for planes, _ in sample(Reference(stack, 0, GREY)))
    assert total <= max(SAMPLE_PIXELS, 300 * (SAMPLE_GRID * SMALLEST_SIDE) ** 2)


def test_the_sample_of_a_tiny_plane_leaves_something_to_unpadded_networks() -> None:
    (planes,) = samples(random_stack((1, 2, 5)))
    assert min(planes.shape[1:]) >= 16


@pytest.mark.parametrize("length", [1, 22, 23, 24, 64, 65])
def test_the_sample_begins_inside_the_plane_or_before_it_where_it_is_tiny(
    length: int,
) -> None:
    """Where it begins tells whether it lies inside the plane."""
    for y, _ in sample_places(random_stack((1, length, 30))):
        inside = y.start >= 0
        assert inside == (length >= SMALLEST_SIDE)
        assert not inside or y.stop <= length


def test_black_and_white_leave_out_the_rarest_values() -> None:
    values = np.linspace(0, 1000, 100_001).astype(np.float32)
    np.random.default_rng(0).shuffle(values)
    black, white = black_and_white(np.split(values[:100_000].reshape(10, -1), 10))
    assert black == pytest.approx(5, rel=1e-2)
    assert white == pytest.approx(998, rel=1e-4)


def test_black_and_white_of_an_image_that_is_nearly_all_black() -> None:
    plane = np.full((1, 100, 100), 7, np.float32)
    plane[0, 3, 4] = 90
    assert black_and_white([plane]) == (7, 90)


def test_black_and_white_of_a_constant_stack_can_be_divided_by() -> None:
    for level in (0, 3e-30, 1e6):
        black, white = black_and_white([np.full((1, 9, 9), level, np.float32)] * 2)
        assert white > black


def test_prefetching_keeps_the_order_and_its_distance() -> None:
    """Never more than one task beyond the one that is waited for."""
    begun: list[int] = []
    taken = 0

    def task(number: int) -> int:
        begun.append(number)
        assert number <= taken + 1
        return number

    for number in prefetch(lambda i=i: task(i) for i in range(20)):
        assert number == taken
        taken += 1
    assert taken == 20
    assert begun == list(range(20))


def test_prefetching_happens_in_another_thread() -> None:
    names = list(prefetch([lambda: threading.current_thread().name]))
    assert names[0].startswith("focus-fusion-reader")


def test_what_goes_wrong_while_prefetching_is_raised_in_its_turn() -> None:
    def task(number: int) -> int:
        if number == 3:
            raise OSError("the cable came loose")
        return number

    results = prefetch(lambda i=i: task(i) for i in range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="cable"):
        next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("focus-fusion")]
