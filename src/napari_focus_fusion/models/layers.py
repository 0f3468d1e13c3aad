"""Blocks that more than one model uses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
