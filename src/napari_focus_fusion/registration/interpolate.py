"""Planes seen through an affine transform, by a windowed sinc in two passes.

First along columns, then along rows: sixteen pixels each instead of 256 together. For
transforms that hardly turn or shear a plane, as those of a registration. Detail up to
four fifths of what pixels resolve is kept, where splines of few pixels blur it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: Pixels along an axis that count; the same on both sides.
TAPS = 16
#: Shape of Kaiser's window: more rings less, and blurs more.
BETA = 8
#: Steps in which weights are known between two pixels.
FRACTIONS = 1 << 14
#: Rows that are computed together, in a processor's cache.
ROWS = 16


def _weights() -> Array:
    """(TAPS, FRACTIONS + 1): the weight of each pixel by a position's fraction."""
    pixels = np.arange(TAPS)[:, None] - (TAPS // 2 - 1)
    off = np.arange(FRACTIONS + 1) / FRACTIONS - pixels
    window = np.i0(BETA * np.sqrt((1 - (off / (TAPS // 2)) ** 2).clip(0)))
    weights = np.sinc(off) * window
    return np.asarray(weights / weights.sum(0))


_WEIGHTS = _weights()


def seen_through(
    planes: NDArray, matrix: Array, offset: Array, size: tuple[int, int]
) -> Array:
    """Planes at the positions to which a transform leads.

    Parameters
    ----------
    planes
        (n, h, w), mirrored beyond their border.
    matrix, offset
        (2, 2) and (2,): from (row, column) of the result to those of the planes.
    size
        Rows and columns of the result.

    Returns
    -------
    ndarray
        (n, rows, columns) float64.
    """
    (a, b), (c, d) = matrix
    n, height, width = planes.shape
    # The column of the result that shows a column of the planes in a row, and from it
    # the row of the planes.
    rows, columns = np.arange(size[0])[:, None], np.arange(width)
    slope = np.array([a - b * c / d, b / d, offset[0] - b * offset[1] / d])
    between = np.empty((n, size[0], width))
    for top in range(0, size[0], ROWS):
        some = slice(top, top + ROWS)
        at = slope[0] * rows[some] + slope[2] + (slope[1] * columns if b else 0)
        taps = _taps(at, height)
        for plane, result in zip(planes, between, strict=True):
            if b:
                result[some] = _gathered(plane, taps, columns, width)
            else:
                result[some] = sum(w * plane[i[:, 0]] for i, w in taps)
    found = np.empty((n, *size))
    columns = np.arange(size[1])
    for top in range(0, size[0], ROWS):
        some = slice(top, top + ROWS)
        own = np.arange(len(rows[some]))[:, None] * width
        at = d * columns + offset[1] + (c * rows[some] if c else 0)
        taps = _taps(at, width)
        for plane, result in zip(between, found, strict=True):
            if c:
                result[some] = _gathered(plane[some], taps, own, 1)
            else:
                result[some] = sum(w * plane[some][:, i] for i, w in taps)
    return found


def _taps(at: Array, length: int) -> list[tuple[NDArray[np.intp], Array]]:
    """Index and weight of the pixels around positions, mirrored at the border."""
    floor = np.floor(at)
    fraction = np.rint((at - floor) * FRACTIONS).astype(np.intp)
    first = floor.astype(np.intp) - (TAPS // 2 - 1)
    outside = first.min() < 0 or first.max() + TAPS > length
    period = max(2 * length - 2, 1)
    taps = []
    for k, weights in enumerate(_WEIGHTS):
        index = first + k
        if outside:
            index = np.abs(index) % period
            index = np.minimum(index, period - index) % length
        taps.append((index, weights.take(fraction)))
    return taps


def _gathered(
    plane: Array,
    taps: list[tuple[NDArray[np.intp], Array]],
    place: NDArray[np.intp],
    stride: int,
) -> Array:
    """Weighted sum of the pixels at `stride` x index + `place` of a plane."""
    flat = np.ascontiguousarray(plane).reshape(-1)
    result, one = (np.empty(taps[0][0].shape) for _ in "12")
    for k, (index, weight) in enumerate(taps):
        at = index * stride if stride > 1 else index
        values = result if k == 0 else one
        flat.take(at + place, out=values, mode="clip")
        values *= weight
        if k:
            result += one
    return result
