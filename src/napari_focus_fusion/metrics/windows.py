"""Gaussian windows slid over a plane, and the local moments under them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import correlate1d

if TYPE_CHECKING:
    from napari_focus_fusion.metrics.images import Plane

# Below this share of the mean square a variance is rounding noise: the window is flat.
# One pixel that differs by one grey level in a corner of an 11 x 11 window makes 1e-11.
_FLAT = 1e-12


def gaussian(size: int, sigma: float) -> Plane:
    """Return `size` samples of a centred Gaussian that sum to 1."""
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return weights / weights.sum()


def smooth_same(plane: Plane, weights: Plane) -> Plane:
    """Slide separable `weights` over `plane`, zero outside; same size."""
    rows = correlate1d(plane, weights, axis=0, mode="constant")
    return correlate1d(rows, weights, axis=1, mode="constant")


def smooth_valid(plane: Plane, weights: Plane) -> Plane:
    """Slide separable `weights` over `plane` where they fit; smaller by size - 1."""
    border = len(weights) // 2
    rows = correlate1d(plane, weights, axis=0, mode="constant")[border:-border]
    return correlate1d(rows, weights, axis=1, mode="constant")[:, border:-border]


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
