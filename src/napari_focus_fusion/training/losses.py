"""Losses that more than one training loss uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.filters import box_mean

#: Radius over which training adds scores up: one window, between those of the decision,
#: whose smallest is finer and whose others are wider.
WINDOW = 5


def ssim(a: Tensor, b: Tensor, *, window: int = 5, data_range: float = 1.0) -> Tensor:
    """Structural similarity, Wang et al., IEEE TIP 13(4), 2004, eq. 13.

    Parameters
    ----------
    a, b
        (B, 1, h, w).
    window
        Side of the square window of equal weights.
    data_range
        The range L of the intensities in ``C1 = (.01 L)^2``, ``C2 = (.03 L)^2``.

    Returns
    -------
    Tensor
        The mean over all windows that lie inside, a scalar in [-1, 1].
    """

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, 1)

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_a, mean_b = mean(a), mean(b)
    var_a = mean(a * a) - mean_a * mean_a
    var_b = mean(b * b) - mean_b * mean_b
    covariance = mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    bottom = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return (top / bottom).mean()


def slice_ranking(
    scores: Tensor, depth: Tensor, *, radius: int, sharpness: Tensor | float = 1.0
) -> Tensor:
    """Cross-entropy between window-summed scores and the true slice.

    Pixels whose window does not lie inside are left out.

    The scores of a pixel, to the power of ``sharpness`` and divided by their sum over
    the slices, are taken as the probability of each slice. The truth lies between two
    slices and is shared by them.

    Parameters
    ----------
    scores
        (B, N, h, w), at least 0.
    depth
        (B, h, w), the true depth in slices; NaN where nothing should be learnt.
    radius
        Of the window over which scores are added up.
    sharpness
        A power that leaves the best slice the best.

    Returns
    -------
    Tensor
        Scalar, natural logarithm.
    """
    summed = box_mean(scores, radius).clamp_min(1e-12)
    inner = slice(radius, -radius or None)
    depth = depth[:, inner, inner]
    log_probability = F.log_softmax(sharpness * summed.log(), 1)
    known = torch.isfinite(depth)
    last = scores.shape[1] - 1
    inside = torch.where(known, depth, torch.zeros_like(depth)).clamp(0, last)
    below = inside.floor().clamp(max=max(last - 1, 0)).long()
    share = inside - below
    above = (below + 1).clamp(max=last)
    picked = (1 - share) * log_probability.gather(1, below[:, None])[:, 0]
    picked = picked + share * log_probability.gather(1, above[:, None])[:, 0]
    return -(picked * known).sum() / known.sum().clamp_min(1)
