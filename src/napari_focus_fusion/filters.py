"""Sums and functions of pixels, equal to the bit however a plane is tiled.

PyTorch computes the last few elements of an array in another way than the others, for
some functions with another last bit; which they are depends on the tile. Its exp and
log do not, so functions are made of these here, and sums over slices have twice the
precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def precise_sum(x: Tensor, axis: int) -> Tensor:
    """Sum along an axis, which stays, in double precision where the device has it."""
    precise = torch.float32 if x.device.type == "mps" else torch.float64
    return x.sum(axis, keepdim=True, dtype=precise).to(x.dtype)


def softmax(x: Tensor, axis: int) -> Tensor:
    """Exponentials along an axis as shares of their sum."""
    powers = (x - x.amax(axis, keepdim=True)).exp()
    return powers / precise_sum(powers, axis)


def sigmoid(x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return 1 / (1 + (-x).exp())


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, without overflow."""
    return x.clamp_min(0) + (1 + (-x.abs()).exp()).log()


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
    # After k doublings `power` holds sums of 2**k pixels; the bits of the length
    # select those that make up the window.
    power, total, covered, size = image, None, 0, 1
    while True:
        if length & size:
            addend = power.narrow(axis, covered * step, kept)
            total = addend if total is None else total + addend
            covered += size
        if 2 * size > length:
            assert total is not None
            return total
        shorter = power.shape[axis] - size * step
        power = power.narrow(axis, 0, shorter) + power.narrow(
            axis, size * step, shorter
        )
        size *= 2


def without_border(image: Tensor, width: int) -> Tensor:
    """An image (..., h, w) without `width` pixels, at least 1, along each edge."""
    return image[..., width:-width, width:-width]
