"""From a decision map and the slices to fused pixels.

``select`` takes every pixel from its slice. ``feather`` starts from that and does two
things more, each only where it cannot blur: it softens seams between labels along the
edges of the image (a guided filter, as in SESF-Fuse), and it averages in the slices
that show the same as the selected one up to the noise, so that a stack's fused image
has less noise than any of its slices.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from napari_focus_fusion.filters import box_mean, box_sum, line_sum, without_border

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_focus_fusion.tiling import Rectangle

Blend = Literal["feather", "bands", "select"]
Background = Literal["nearest", "mean"]

#: Guided filter of the labels: radius, and the regularisation in units of the
#: normalised range squared (He, Sun and Tang, IEEE TPAMI 35(6), 2013). SESF-Fuse takes
#: a radius of 4; where labels change every few pixels, as in a steep stack of many
#: slices, that mixes slices that are not sharp (2 dB lost on scenes of 24 slices).
GUIDE_RADIUS = 1
GUIDE_EPSILON = 1e-4
#: Half the window beyond which brightness is a band of its own.
BAND_RADIUS = 16
#: Confidence above which a pixel is none of the background, and below which it is.
BACKGROUND = 0.2, 0.05
#: Two slices are compared over a window of this radius ...
SIMILARITY_RADIUS = 3
#: ... and count as the same up to this multiple of the difference that noise alone
#: makes, and as different from this multiple on.
SIMILAR, DIFFERENT = 1.2, 1.9
#: Window over which the noise is measured.
NOISE_RADIUS = 7
#: Standard deviation of the noise's variance, measured over that window, as a share of
#: it: ``sqrt(2 * 1.878**2) / 15``, where 1.878 is the sum of the squared
#: autocorrelation of second differences over the 15 pixels of a row.
NOISE_VARIANCE_SD = 0.177
#: Second differences along both axes: zero where the image is smooth, and a gain of
#: 36 in variance for white noise (Immerkaer, CVIU 64(2), 1996).
NOISE_GAIN = 36.0
#: While slices stream by, the noise is measured on a grid of cells that is fixed in the
#: plane: side of a cell in pixels, and the cells along a side of a window.
NOISE_CELL, NOISE_CELLS = 4, 4
#: As NOISE_VARIANCE_SD, over such a window: ``sqrt(2 * 1.878**2) / 16``.
CELL_VARIANCE_SD = 0.166
#: Each slice is measured, and its difference from the one before it: together their
#: least is as low as that of so many independent measurements a slice (simulated).
MEASUREMENTS_A_SLICE = 1.6
#: A window with fewer pixels than these is no measurement.
LEAST_SEEN = (NOISE_CELL * NOISE_CELLS) ** 2 // 4
#: Rows that are measured together, so that what is computed stays in the cache.
NOISE_ROWS = 64
#: Pixels around a region that its noise is measured in.
NOISE_HALO = NOISE_CELL - 1 + NOISE_CELL * NOISE_CELLS // 2 + 1
#: Pixels that a fused pixel depends on, beyond itself.
COMPOSITE_HALO = max(2 * GUIDE_RADIUS, SIMILARITY_RADIUS, NOISE_HALO)
#: The same of its coarse band, by a window applied twice.
BANDS_HALO = 2 * BAND_RADIUS
#: Radius of the window in which colours follow brightness; how much of its noise counts
#: as change that all colours share; and the steepest slope.
COLOUR_RADIUS, COLOUR_NOISE, STEEPEST = 8, 4.0, 3.0
#: Added to variances that are divided by.
TINY = 1e-8


def composing_halo(blend: Blend) -> int:
    """Pixels around a region whose decision its pixels depend on."""
    return BANDS_HALO if blend == "bands" else COMPOSITE_HALO


def background_weight(confidence: np.ndarray) -> np.ndarray:
    """How far pixels are background, of their confidence (h, w): 0 to 1."""
    sure, none = BACKGROUND
    return np.clip((sure - confidence) / np.float32(sure - none), 0, 1)


def label_weights(index: Tensor, z: int, guide: Tensor) -> Tensor:
    """Weight of slice ``z``: its label, softened along the edges of the guide.

    The guided filter is linear and keeps constants, so the weights of all slices add
    up to one wherever none was clipped.

    Parameters
    ----------
    index
        (h, w), the decision map.
    z
        Slice.
    guide
        (h, w), the selected image, normalised.

    Returns
    -------
    Tensor
        float32 in [0, 1], smaller by ``2 * GUIDE_RADIUS`` on each side.
    """
    mask = (index == z).to(guide.dtype)
    r = GUIDE_RADIUS
    mean_guide, mean_mask = box_mean(guide, r), box_mean(mask, r)
    variance = box_mean(guide * guide, r) - mean_guide * mean_guide
    covariance = box_mean(guide * mask, r) - mean_guide * mean_mask
    slope = covariance / (variance.clamp_min(0) + GUIDE_EPSILON)
    offset = mean_mask - slope * mean_guide
    inner = slice(2 * r, -2 * r)
    return (box_mean(slope, r) * guide[inner, inner] + box_mean(offset, r)).clamp(0, 1)


def noise_energy(plane: Tensor) -> Tensor:
    """Local variance of the noise, from second differences.

    Parameters
    ----------
    plane
        (h, w).

    Returns
    -------
    Tensor
        Smaller by ``NOISE_RADIUS + 1`` on each side.
    """
    energy = second_differences(plane).square_()
    return box_mean(energy, NOISE_RADIUS) / NOISE_GAIN


def second_differences(plane: Tensor) -> Tensor:
    """(h, w) -> (h - 2, w - 2): second differences along both axes."""
    across = plane[:, 2:] + plane[:, :-2]
    across -= plane[:, 1:-1]
    across -= plane[:, 1:-1]
    both = across[2:] + across[:-2]
    both -= across[1:-1]
    both -= across[1:-1]
    return both


class RunningNoise:
    """Variance of the noise of one slice, at each pixel, while slices stream by.

    At each place the least of what the slices give, each alone and each less the one
    before it. The first is where the image is most out of focus. The second does not
    see what is the same in both: a stuck pixel, a label that is burnt in, the edge of
    dust on the camera, which are no noise. Places without any difference, as where a
    slice is saturated, tell nothing.

    Parameters
    ----------
    region
        In the plane's pixels.
    device
        Where planes come from.
    """

    def __init__(self, region: Rectangle, device: torch.device) -> None:
        self.region, self.count = region, 0
        around = NOISE_CELLS // 2
        self.first = [n // NOISE_CELL - around for n in (region.y0, region.x0)]
        stop = [-(-n // NOISE_CELL) + around for n in (region.y1, region.x1)]
        rows, columns = (b - a for a, b in zip(self.first, stop, strict=True))
        self.cells = (rows, columns)
        windows = (rows - NOISE_CELLS + 1, columns - NOISE_CELLS + 1)
        self.least = torch.full(windows, torch.inf, device=device)
        self.before = torch.empty(
            NOISE_CELL * rows, NOISE_CELL * columns, device=device
        )
        self.energy = torch.empty(2, rows, columns, device=device)
        self.seen_before: Tensor | None = None

    def update(self, plane: Tensor, halo: int, present: Tensor | None = None) -> None:
        """Take in a slice.

        Parameters
        ----------
        plane
            (h, w), with ``halo`` pixels, at least NOISE_HALO, around the region.
        present
            (h, w) bool, as large, False where the plane has no pixel; None: everywhere.
        """
        starts = (self.region.y0, self.region.x0)
        top, left = (
            halo + NOISE_CELL * first - start - 1
            for first, start in zip(self.first, starts, strict=True)
        )
        height, width = self.before.shape
        columns = slice(left, left + width + 2)
        seen = None
        if present is not None:
            missing = (~present[top : top + height + 2, columns]).to(plane.dtype)
            seen = box_sum(missing, 1) == 0
        for first in range(0, height, NOISE_ROWS):
            rows = slice(first, min(first + NOISE_ROWS, height))
            cells = slice(rows.start // NOISE_CELL, rows.stop // NOISE_CELL)
            window = slice(top + rows.start, top + rows.stop + 2)
            found, before = (
                second_differences(plane[window, columns]),
                self.before[rows],
            )
            change = found - before
            before.copy_(found)
            for energy, values, mask in (
                (self.energy[0], found, seen),
                (self.energy[1], change, _both(seen, self.seen_before)),
            ):
                squares = values.square_()
                if mask is not None:
                    squares *= mask[rows]
                energy[cells] = _cell_sums(squares)
        self._take_least(self.energy[0], seen, NOISE_GAIN)
        if self.count:
            both = _both(seen, self.seen_before)
            self._take_least(self.energy[1], both, 2 * NOISE_GAIN)
        self.seen_before = seen
        self.count += 1

    def _take_least(self, energy: Tensor, seen: Tensor | None, gain: float) -> None:
        """Take in the sums over cells of squares whose mean is ``gain`` variances."""
        total = _window_sums(energy)
        if seen is None:
            variance = total / (gain * (NOISE_CELL * NOISE_CELLS) ** 2)
        else:
            number = _window_sums(_cell_sums(seen.to(energy.dtype)))
            variance = total / (gain * number)
            variance.masked_fill_(number < LEAST_SEEN, torch.inf)
        variance.masked_fill_(total == 0, torch.inf)
        torch.minimum(self.least, variance, out=self.least)

    def variance(self) -> Tensor:
        """(h, w) of the region; 0 where nothing tells."""
        measurements = max(MEASUREMENTS_A_SLICE * self.count - 0.8, 1)
        least = self.least / least_noise_bias(measurements, CELL_VARIANCE_SD)
        least.masked_fill_(least.isinf(), 0)
        # Windows are centred on the corners of cells.
        fine = _interpolated(_interpolated(least).T).T
        top, left = self.region.y0 % NOISE_CELL, self.region.x0 % NOISE_CELL
        return fine[top : top + self.region.height, left : left + self.region.width]


def _interpolated(corners: Tensor) -> Tensor:
    """(n + 1, w) at the corners of cells -> (4 n, w) at the centres of their pixels.

    With the same bits wherever a region begins, which a layer does not promise.
    """
    start, step = corners[:-1], corners[1:] - corners[:-1]
    parts = [start + step * ((i + 0.5) / NOISE_CELL) for i in range(NOISE_CELL)]
    return torch.stack(parts, 1).flatten(0, 1)


def _both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where both masks are true; None is true everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _cell_sums(values: Tensor) -> Tensor:
    """(h, w) -> (h / 4, w / 4): sums over cells; faster than a pooling layer."""
    rows = values[0::4] + values[1::4]
    rows += values[2::4]
    rows += values[3::4]
    cells = rows[:, 0::4] + rows[:, 1::4]
    cells += rows[:, 2::4]
    cells += rows[:, 3::4]
    return cells


def _window_sums(cells: Tensor) -> Tensor:
    """Sums over windows of NOISE_CELLS x NOISE_CELLS cells."""
    return line_sum(line_sum(cells, NOISE_CELLS, -1), NOISE_CELLS, -2)


def least_noise_bias(slices: float, sd: float = NOISE_VARIANCE_SD) -> float:
    """Expected least of N measurements of one variance, as a share of it.

    ``sd`` is the standard deviation of a measurement, as a share of the variance.

    The least over the slices is where the image is most out of focus; being the
    least, it is biased below the true variance (Blom's approximation of normal order
    statistics, and Wilson and Hilferty's of the chi-squared distribution by the cube of
    a normal).
    """
    if slices < 2:
        return 1.0
    rank = NormalDist().inv_cdf((slices - 0.375) / (slices + 0.25))
    return max((1 - sd**2 / 9 - rank * sd / 3) ** 3, 0.3)


def similarity(
    plane: Tensor, selected: Tensor, noise: Tensor, seen: Tensor | None = None
) -> Tensor:
    """Similarity of a slice to the selected image, in [0, 1].

    Parameters
    ----------
    plane, selected
        (h, w), normalised, with ``SIMILARITY_RADIUS`` pixels of halo.
    noise
        Variance of the noise of one slice, (h, w) less the halo.
    seen
        (h, w) bool, where both have a pixel; None: everywhere.

    Returns
    -------
    Tensor
        1 where the mean squared difference is what noise alone makes of two equal
        images, twice its variance; 0 where it is clearly more.
    """
    squares = (plane - selected).square_()
    if seen is None:
        difference = box_sum(squares, SIMILARITY_RADIUS)
        unit = (2 * SIMILARITY_RADIUS + 1) ** 2 * 2 * noise
    else:
        difference = box_sum(squares * seen, SIMILARITY_RADIUS)
        unit = box_sum(seen.to(noise.dtype), SIMILARITY_RADIUS) * 2 * noise
    ratio = difference / unit.clamp_min(1e-20)
    return ratio.sub_(DIFFERENT).div_(SIMILAR - DIFFERENT).clamp_(0, 1)


def colour_slopes(colours: Tensor, weights: Sequence[float], noise: Tensor) -> Tensor:
    """How much each colour changes around a pixel where the brightness does by one.

    The slope of the line that colour against brightness follows in a window; 1 for all
    colours where there is nothing but noise. Changed by these, brightness changes by
    one.

    Parameters
    ----------
    colours
        (C, h, w) float32, of a range of about 1, with :data:`COMPOSITE_HALO` pixels
        more on each side than the noise.
    weights
        Share of each colour in the brightness.
    noise
        (h, w), variance of the noise of the brightness.

    Returns
    -------
    Tensor
        (C, h, w), without the halo.
    """
    colours = without_border(colours, COMPOSITE_HALO - COLOUR_RADIUS)
    share = colours.new_tensor(list(weights))[:, None, None]
    brightness = (share * colours).sum(0, keepdim=True)
    mean = box_mean(brightness, COLOUR_RADIUS)
    variance = (box_mean(brightness.square(), COLOUR_RADIUS) - mean.square())[0]
    both = box_mean(colours * brightness, COLOUR_RADIUS)
    both -= box_mean(colours, COLOUR_RADIUS) * mean
    steady = COLOUR_NOISE * noise + TINY
    slopes = ((both + steady) / (variance.clamp_min(0) + steady)).clamp(0, STEEPEST)
    return slopes / (share * slopes).sum(0, keepdim=True).clamp_min(1 / STEEPEST)
