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

from napari_focus_fusion.filters import box_mean, box_sum

if TYPE_CHECKING:
    from torch import Tensor

Blend = Literal["feather", "select"]

#: Guided filter of the labels: radius, and the regularisation in units of the
#: normalised range squared (He, Sun and Tang, IEEE TPAMI 35(6), 2013). SESF-Fuse takes
#: a radius of 4; where labels change every few pixels, as in a steep stack of many
#: slices, that mixes slices that are not sharp (2 dB lost on scenes of 24 slices).
GUIDE_RADIUS = 1
GUIDE_EPSILON = 1e-4
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
#: Pixels that a fused pixel depends on, beyond itself.
COMPOSITE_HALO = max(2 * GUIDE_RADIUS, SIMILARITY_RADIUS, NOISE_RADIUS + 1)


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
    across = plane[:, 2:] + plane[:, :-2]
    across -= plane[:, 1:-1]
    across -= plane[:, 1:-1]
    both = across[2:] + across[:-2]
    both -= across[1:-1]
    both -= across[1:-1]
    return box_mean(both.square_(), NOISE_RADIUS) / NOISE_GAIN


def least_noise_bias(slices: int) -> float:
    """Expected least of N measurements of one variance, as a share of it.

    The least over the slices is where the image is most out of focus; being the
    least, it is biased below the true variance (Blom's approximation of normal order
    statistics, and Wilson and Hilferty's of the chi-squared distribution by the cube of
    a normal).
    """
    if slices < 2:
        return 1.0
    rank = NormalDist().inv_cdf((slices - 0.375) / (slices + 0.25))
    return max((1 - NOISE_VARIANCE_SD**2 / 9 - rank * NOISE_VARIANCE_SD / 3) ** 3, 0.3)


def similarity(plane: Tensor, selected: Tensor, noise: Tensor) -> Tensor:
    """Similarity of a slice to the selected image, in [0, 1].

    Parameters
    ----------
    plane, selected
        (h, w), normalised, with ``SIMILARITY_RADIUS`` pixels of halo.
    noise
        Variance of the noise of one slice, (h, w) less the halo.

    Returns
    -------
    Tensor
        1 where the mean squared difference is what noise alone makes of two equal
        images, twice its variance; 0 where it is clearly more.
    """
    difference = box_sum((plane - selected).square_(), SIMILARITY_RADIUS)
    unit = (2 * SIMILARITY_RADIUS + 1) ** 2 * 2 * noise
    ratio = difference / unit.clamp_min(1e-20)
    return ratio.sub_(DIFFERENT).div_(SIMILAR - DIFFERENT).clamp_(0, 1)
