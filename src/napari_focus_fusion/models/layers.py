"""Blocks that more than one model uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def box_sum(image: Tensor, radius: int) -> Tensor:
    """Sum over a square window, wherever the window lies inside the image.

    Every output is the same tree of additions wherever it lies, so that tiles give
    the same bits as the whole (a running sum would not); the cost grows with the
    logarithm of the window.

    Parameters
    ----------
    image
        (..., h, w).
    radius
        Half the window: the window has ``2 * radius + 1`` pixels a side.

    Returns
    -------
    Tensor
        (..., h - 2 * radius, w - 2 * radius).
    """
    return line_sum(line_sum(image, 2 * radius + 1, -1), 2 * radius + 1, -2)


def box_mean(image: Tensor, radius: int) -> Tensor:
    """Mean over the square window of :func:`box_sum`; of the same shape."""
    return box_sum(image, radius) / (2 * radius + 1) ** 2


def line_sum(image: Tensor, length: int, axis: int, step: int = 1) -> Tensor:
    """Sum of ``length`` pixels that lie ``step`` apart along one axis, by doubling.

    Shorter along that axis by ``(length - 1) * step``.
    """
    kept = image.shape[axis] - (length - 1) * step
    # After k doublings `power` holds sums of 2**k pixels; the bits of the length say
    # which of them make up the window.
    power, total, covered, size = image, None, 0, 1
    while True:
        if length & size:
            part = power.narrow(axis, covered * step, kept)
            total = part if total is None else total + part
            covered += size
        if 2 * size > length:
            assert total is not None
            return total
        shorter = power.shape[axis] - size * step
        power = power.narrow(axis, 0, shorter) + power.narrow(
            axis, size * step, shorter
        )
        size *= 2


class SqueezeExcitation(nn.Module):
    """Channel attention: a gate for each channel from the channel's mean.

    Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018, eq. 2-4. The mean
    is taken over the slices and pixels that are *given as statistics*, not over the
    tile at hand, so that the gates are the same for every tile of a stack.

    Parameters
    ----------
    channels
        Channels to gate.
    reduction
        How many times narrower the hidden layer is.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def gates(self, means: Tensor) -> Tensor:
        """Gates in (0, 1), shape (channels,), from channel means (channels,)."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(means))))
