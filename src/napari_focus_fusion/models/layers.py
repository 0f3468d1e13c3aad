"""Blocks that more than one model uses."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Slope of the leaky ReLUs.
SLOPE = 0.2


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


def conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that keeps the size; zeros lie around the image."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def convolutions(
    widths: Sequence[int], size: int, slope: float | None = SLOPE
) -> nn.Sequential:
    """Convolutions with leaky ReLUs in between, or with nothing."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        if layers and slope is not None:
            layers.append(nn.LeakyReLU(slope))
        layers.append(conv(inputs, outputs, size))
    return nn.Sequential(*layers)


def laplacian(image: Tensor) -> Tensor:
    """The gradient map: (B, c, h, w) -> (B, 1, h, w).

    Eight times each pixel less its neighbours, the mean over the channels.
    """
    kernel = image.new_full((1, 1, 3, 3), -1.0)
    kernel[0, 0, 1, 1] = 8
    return F.conv2d(image.mean(1, keepdim=True), kernel, padding=1)


def interpolate(image: Tensor, scale: int) -> Tensor:
    """Cubic interpolation (Keys 1981), pixels taken as areas.

    Every pixel of the source becomes ``scale**2`` finer ones by the same arithmetic
    wherever it lies, which interpolation by coordinates does not promise.

    Parameters
    ----------
    image
        (B, c, h, w).
    scale
        At least 2.

    Returns
    -------
    Tensor
        (B, c, scale * h, scale * w).
    """
    count, channels = image.shape[:2]
    around = F.pad(image.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")
    finer = F.conv2d(around, _cubic_kernels(scale).to(image))
    return F.pixel_shuffle(finer, scale).unflatten(0, (count, channels))[:, :, 0]


@cache
@torch.inference_mode(False)  # kept for whatever comes, training too
def _cubic_kernels(scale: int) -> Tensor:
    """(scale^2, 1, 5, 5): the kernel of each finer pixel of a pixel."""
    finer = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    x = (finer[:, None] - torch.arange(-2, 3)).abs()
    close = 1.5 * x**3 - 2.5 * x**2 + 1
    wide = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    line = torch.where(x < 1, close, torch.where(x < 2, wide, torch.zeros_like(x)))
    return torch.einsum("iy,jx->ijyx", line, line).reshape(-1, 1, 5, 5)
