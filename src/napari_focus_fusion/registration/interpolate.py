"""Planes seen through an affine transform, by quintic splines in two passes.

First along columns, then along rows: six pixels each instead of 36 together. For
transforms that hardly turn or shear a plane, as those of a registration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

#: Rows that are computed together, in a processor's cache.
ROWS = 16
#: Coefficients of the six weights of a quintic B-spline, by power of the fraction.
_WEIGHTS = (
    np.array(
        [
            [1, -5, 10, -10, 5, -1],
            [26, -50, 20, 20, -20, 5],
            [66, 0, -60, 0, 30, -10],
            [26, 50, 20, -20, -20, 10],
            [1, 5, 10, 10, 5, -5],
            [0, 0, 0, 0, 0, 1],
        ]
    )
    / 120
)


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
    coefficients = _coefficients(planes, 1)
    between = np.empty((n, size[0], width))
    for top in range(0, size[0], ROWS):
        some = slice(top, top + ROWS)
        at = slope[0] * rows[some] + slope[2] + (slope[1] * columns if b else 0)
        taps = _taps(at, height)
        for plane, result in zip(coefficients, between, strict=True):
            if b:
                result[some] = _gathered(plane, taps, columns, width)
            else:
                result[some] = sum(w * plane[i[:, 0]] for i, w in taps)
    coefficients = _coefficients(between, 2)
    found = np.empty((n, *size))
    columns = np.arange(size[1])
    for top in range(0, size[0], ROWS):
        some = slice(top, top + ROWS)
        own = np.arange(len(rows[some]))[:, None] * width
        at = d * columns + offset[1] + (c * rows[some] if c else 0)
        taps = _taps(at, width)
        for plane, result in zip(coefficients, found, strict=True):
            if c:
                result[some] = _gathered(plane[some], taps, own, 1)
            else:
                result[some] = sum(w * plane[some][:, i] for i, w in taps)
    return found


def _coefficients(planes: NDArray, axis: int) -> Array:
    """Coefficients of splines along an axis."""
    if planes.shape[axis] == 1:
        return planes.astype(np.float64)
    return np.asarray(
        ndimage.spline_filter1d(planes, 5, axis, output=np.float64, mode="mirror")
    )


def _taps(at: Array, length: int) -> list[tuple[NDArray[np.intp], Array]]:
    """Index and weight of the six pixels around positions, mirrored at the border."""
    floor = np.floor(at)
    t = at - floor
    first = floor.astype(np.intp) - 2
    outside = first.min() < 0 or first.max() + 5 >= length
    period = max(2 * length - 2, 1)
    taps = []
    for k, row in enumerate(_WEIGHTS):
        weight = row[5] * t
        for factor in row[4:0:-1]:
            if factor:
                weight += factor
            weight *= t
        weight += row[0]
        index = first + k if k else first
        if outside:
            index = np.abs(index) % period
            index = np.minimum(index, period - index) % length
        taps.append((index, weight))
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
