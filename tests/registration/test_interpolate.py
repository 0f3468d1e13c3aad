"""Planes seen through a transform: as scipy sees them, whatever the window."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr
from scipy import ndimage

from napari_focus_fusion import Registration, as_stack
from napari_focus_fusion.registration.aligned import AlignedSlices
from napari_focus_fusion.registration.interpolate import seen_through

SIDES = 90, 110
OFFSET = np.array([2.3, -4.6])


def planes() -> np.ndarray:
    noise = np.random.default_rng(0).random((2, *SIDES))
    return ndimage.gaussian_filter(noise, (0, 0.8, 0.8))


def waves(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Detail up to four fifths of what pixels resolve, known everywhere."""
    rng = np.random.default_rng(3)
    lengths, angles = 1 / rng.uniform(0.05, 0.4, 40), rng.uniform(0, np.pi, 40)
    phases = rng.uniform(0, 2 * np.pi, 40)
    return sum(
        np.sin(2 * np.pi * (np.cos(a) * y + np.sin(a) * x) / length + phase)
        for length, a, phase in zip(lengths, angles, phases, strict=True)
    )


@pytest.mark.parametrize(
    ("matrix", "error"),
    [
        (np.eye(2), 0.003),
        (np.diag([1.02, 0.97]), 0.003),
        (np.array([[1.01, 0.003], [-0.003, 1.01]]), 0.003),
        (np.array([[1.0, -0.02], [0.02, 1.0]]), 0.006),
    ],
)
def test_fine_detail_is_kept_better_than_by_splines(
    matrix: np.ndarray, error: float
) -> None:
    y, x = np.mgrid[: SIDES[0], : SIDES[1]].astype(float)
    plane = waves(y, x)
    known = waves(
        *(m[0] * y + m[1] * x + o for m, o in zip(matrix, OFFSET, strict=True))
    )
    found = seen_through(plane[None], matrix, OFFSET, SIDES)[0]
    spline = ndimage.affine_transform(plane, matrix, OFFSET, order=5, mode="mirror")
    inner = (slice(16, -16), slice(16, -16))
    off, other = (
        np.sqrt(np.mean((one - known)[inner] ** 2)) for one in (found, spline)
    )
    assert off < error * plane.std()
    assert off < 0.7 * other


def test_a_shift_by_whole_pixels_changes_nothing() -> None:
    found = seen_through(planes(), np.eye(2), np.array([3.0, -2.0]), SIDES)
    np.testing.assert_allclose(
        found[:, :-3, 2:], planes()[:, 3:, :-2], rtol=0, atol=1e-12
    )


def test_a_rotation_there_and_back_leaves_smooth_planes_as_they_were() -> None:
    angle = np.deg2rad(1)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    smooth = ndimage.gaussian_filter(planes(), (0, 1.5, 1.5))
    there = seen_through(smooth, turn, OFFSET, SIDES)
    back = seen_through(there, turn.T, -turn.T @ OFFSET, SIDES)
    inner = (slice(None), slice(12, -12), slice(12, -12))
    assert np.abs(back - smooth)[inner].max() < 1e-3 * smooth.std()


def registration() -> Registration:
    c, s = 1.01 * np.cos(0.01), 1.01 * np.sin(0.01)
    moved = ((c, -s, 1.3), (s, c, -2.4))
    same = ((1, 0, 0), (0, 1, 0))
    return Registration("similarity", 0, SIDES, ((same, moved, same),))


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_windows_and_kept_slices_are_those_of_the_whole(kind: str, tmp_path) -> None:
    slices = (60_000 * np.random.default_rng(1).random((3, *SIDES))).astype(np.uint16)
    source: object = slices
    if kind == "dask":
        source = da.from_array(slices, chunks=(1, 32, 50))
    elif kind == "zarr":
        store = zarr.create_array(
            str(tmp_path / "a.zarr"),
            shape=slices.shape,
            dtype=slices.dtype,
            chunks=(1, 32, 50),
        )
        store[:] = slices
        source = store
    stack = registration().apply(as_stack(source, axes="ZYX"))
    whole = stack.data[...]
    known = registration().apply(as_stack(slices, axes="ZYX")).data[...]
    np.testing.assert_array_equal(whole.filled(0), known.filled(0))
    assert isinstance(stack.data, AlignedSlices)
    kept = replace(stack, data=stack.data.keeping())
    for y, x in (
        (slice(0, 20), slice(60, 110)),
        (slice(33, 90), slice(0, 41)),
        (slice(10, 70), slice(20, 100)),
    ):
        for one in (stack, kept):
            window = one.data[:, y, x]
            mask = np.ma.getmaskarray(window)
            np.testing.assert_array_equal(mask, np.ma.getmaskarray(whole)[:, y, x])
            off = np.abs(np.ma.filled(window, 0).astype(int) - known[:, y, x].filled(0))
            assert off.max() <= 1 and (off == 0).mean() > 0.9999
