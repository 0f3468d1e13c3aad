"""Gaussian windows slid over a plane, and the local moments under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

if TYPE_CHECKING:
    from napari_focus_fusion.metrics.images import Plane

# Below this share of the mean square a variance is rounding noise: the window is flat.
# One pixel that differs by one grey level in a corner of an 11 x 11 window makes 1e-11.
_FLAT = 1e-12
_TILE = 26  # pixels; measured to be the best for windows of 7 to 11


def gaussian(size: int, sigma: float) -> Plane:
    """Return `size` samples of a centred Gaussian that sum to 1."""
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()


def smooth_same(plane: Plane, weights: Plane) -> Plane:
    """Slide separable `weights` over `plane`, zero outside; same size."""
    return _slide(plane, weights, len(weights) // 2)


def smooth_valid(plane: Plane, weights: Plane) -> Plane:
    """Slide separable `weights` over `plane` where they fit; smaller by size - 1."""
    return _slide(plane, weights, 0)


def _slide(plane: Plane, weights: Plane, border: int) -> Plane:
    """Slide separable `weights` over `plane` with a border of zeros.

    Tile by tile, each multiplied from both sides by the band matrix of the weights:
    three times as fast as sliding along rows and columns, and so small a product that
    it is not spread over threads, of which the measures keep their own.
    """
    size = len(weights)
    height, width = (n + 2 * border - size + 1 for n in plane.shape)
    rows, columns = -(-height // _TILE), -(-width // _TILE)
    padded = np.zeros((rows * _TILE + size - 1, columns * _TILE + size - 1))
    inside = tuple(slice(border, border + n) for n in plane.shape)
    padded[inside] = plane
    down, along = padded.strides
    tiles = as_strided(
        padded,
        (rows, columns, _TILE + size - 1, _TILE + size - 1),
        (_TILE * down, _TILE * along, down, along),
        writeable=False,
    )
    band = np.zeros((_TILE, _TILE + size - 1))
    for row in range(_TILE):
        band[row, row : row + size] = weights
    smoothed = band @ tiles @ band.T
    joined = smoothed.swapaxes(1, 2).reshape(rows * _TILE, columns * _TILE)
    return joined[:height, :width]


def moments(plane: Plane, weights: Plane) -> tuple[Plane, Plane]:
    """Return local mean and variance of `plane`, the variance exactly 0 where flat."""
    mean = smooth_valid(plane, weights)
    square = smooth_valid(plane * plane, weights)
    variance = square - mean * mean
    variance[variance <= _FLAT * square] = 0
    return mean, variance


def similarity(
    x: Plane,
    y: Plane,
    x_moments: tuple[Plane, Plane],
    y_moments: tuple[Plane, Plane],
    weights: Plane,
    c1: float,
    c2: float,
) -> Plane:
    """Return the map of structural similarity of x and y (SSIM, Wang et al. 2004)."""
    (mean_x, variance_x), (mean_y, variance_y) = x_moments, y_moments
    product = mean_x * mean_y
    covariance = smooth_valid(x * y, weights)
    covariance -= product
    covariance[(variance_x == 0) | (variance_y == 0)] = 0
    luminance = (2 * product + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return luminance * ((2 * covariance + c2) / (variance_x + variance_y + c2))
