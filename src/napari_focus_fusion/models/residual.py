"""Residual features: what an image has beyond its own low-resolution copy.

Z. Wang, X. Li, H. Duan, X. Zhang, "A self-supervised residual feature learning model
for multifocus image fusion", IEEE Transactions on Image Processing 31, 2022, 4527-4542.

The paper's idea: what super-resolution has to restore, the residual between an image
and its down- and up-sampled copy, is what defocus takes away too; in both, the gradient
of the residual measures how sharp the image is (the *residual gradient prior*). So a
network that learns super-resolution, which needs nothing but images, extracts the
features that identify the focused slice.

Only the paper's abstract was at hand. Its are the pretext task, the residual features,
the prior, an activity measured on the features, and a refinement at boundaries. Ours
are the layers (those of plain residual super-resolution networks), the activity as it
stands here, and the refinement, which is the one that all models share (``decision``).

:class:`ResidualZero` is the prior alone, without a network.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.models.base import SliceScorer
from napari_focus_fusion.models.sesf import spatial_frequency

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Channels of the residual features, and residual blocks.
WIDTH, DEPTH = 32, 3
#: Pixels around a feature that it depends on.
RADIUS = 2 * DEPTH + 2
#: Added to the variance of a feature that it is divided by.
TINY = 1e-8

#: How many times smaller the low-resolution copy of :class:`ResidualZero` is.
FACTOR = 4


class Block(nn.Module):
    """Two 3x3 convolutions beside an identity, without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(WIDTH, WIDTH, 3)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 32, h, w) -> (B, 32, h - 4, w - 4)."""
        y = self.second(F.relu(self.first(x), inplace=True))
        return y.add_(x[..., 2:-2, 2:-2])


class Residual(SliceScorer):
    """The network that learns super-resolution, and the activity of its features.

    Convolutions do not pad: a border of zeros would be the strongest edge of all, in
    training as in the statistics of the stack.
    """

    window: ClassVar[int] = 3
    bytes_a_tile_pixel: ClassVar[float] = 640
    needs_sample: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, WIDTH, 3)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.tail = nn.Conv2d(WIDTH, WIDTH, 3)
        self.residual = nn.Conv2d(WIDTH, 1, 3)
        # A third faster on CPUs.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> Tensor:
        """Residual features of images (B, 1, h, w).

        Returns
        -------
        Tensor
            (B, 32, h - 16, w - 16): without :data:`RADIUS` pixels on each side.
        """
        return self.tail(self.blocks(F.relu(self.head(x), inplace=True)))

    def restored(self, x: Tensor) -> Tensor:
        """What images (B, 1, h, w) lack to be sharp, (B, 1, h - 18, w - 18)."""
        return self.residual(self.features(x))

    def forward(self, x: Tensor, stacks: int = 1) -> Tensor:
        """The activity as it is trained: scales from the batch at hand.

        Parameters
        ----------
        x
            (stacks * N, 1, h, w): the slices of the first stack, of the second, ...
        stacks
            How many stacks there are in the batch.

        Returns
        -------
        Tensor
            (stacks * N, h - 18, w - 18).
        """
        scores = [
            spatial_frequency([maps], [1 / (maps.var((0, 2, 3)) + TINY)])
            for maps in self.features(x).float().chunk(stacks)
        ]
        return torch.cat(scores)[:, 1:-1, 1:-1]

    def context(self, sample: Sequence[Tensor]) -> Tensor:
        """One over the variance of each feature over the whole stack, (32,)."""
        moments = []
        for windows in sample:
            maps = self.features(windows)
            rows = (maps.mean((0, 2, 3)), maps.square().mean((0, 2, 3)))
            moments.append(torch.stack(rows))
        # Sorted, so that the order of the slices does not change the sum.
        mean, square = torch.stack(moments).sort(0).values.mean(0)
        return 1 / ((square - mean.square()).clamp_min(0) + TINY)

    def score(self, slices: Tensor, context: Tensor) -> Tensor:  # type: ignore[override]
        """Squared gradient of the features, each in units of its standard deviation."""
        inner = spatial_frequency([self.features(slices)], [context])
        return F.pad(inner, [RADIUS] * 4)


class ResidualZero(SliceScorer):
    """The residual gradient prior without a network: ``|grad(x - up(down(x)))|^2``.

    ``down`` is the mean over 4 x 4 pixels, ``up`` cubic interpolation (Keys, a = -0.5).
    On a grid of every fourth pixel the residual would depend on where the grid begins,
    and so on where a tile begins. Here it is the mean over all 16 places of the grid,
    which is a convolution (:func:`low_pass`), the same everywhere.
    """

    window: ClassVar[int] = 3
    bytes_a_tile_pixel: ClassVar[float] = 32

    def score(self, slices: Tensor, context: Any = None) -> Tensor:
        """See :meth:`SliceScorer.score`; zero where the kernel extends outside."""
        taps = low_pass(FACTOR)
        halo = len(taps) - 1
        copy = _symmetric(_symmetric(slices[:, 0], taps, -1), taps, -2)
        residual = slices[:, 0, halo:-halo, halo:-halo] - copy
        centre = residual[:, 1:, 1:]
        across = centre - residual[:, 1:, :-1]
        down = centre - residual[:, :-1, 1:]
        energy = across.square_().add_(down.square_())
        return F.pad(energy, (halo + 1, halo, halo + 1, halo))


@cache
def low_pass(factor: int) -> tuple[float, ...]:
    """Down- and up-sampling, averaged over the places of the grid: one convolution.

    Each phase of the grid gives ``sum_g up(x - g) * mean(g)`` over its own points g;
    over all phases g is every pixel, and the mean over them is the box filtered by the
    cubic kernel, divided by ``factor`` (along one axis).

    Parameters
    ----------
    factor
        How many times smaller the copy is, even.

    Returns
    -------
    tuple of float
        The symmetric kernel from its middle outwards; its sum over both halves is 1.
    """
    # Where the means lie: between two pixels.
    place = torch.arange(-2 * factor, 2 * factor, dtype=torch.float64) + 0.5
    away = (place / factor).abs()
    near = 1.5 * away**3 - 2.5 * away**2 + 1
    far = -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    up = torch.where(away <= 1, near, far)
    box = torch.full((factor,), 1 / factor**2, dtype=torch.float64)
    kernel = F.conv1d(up[None, None], box[None, None], padding=factor - 1)[0, 0]
    return tuple(kernel[len(kernel) // 2 :].tolist())


def _symmetric(image: Tensor, taps: tuple[float, ...], axis: int) -> Tensor:
    """Convolution along an axis where the kernel lies inside; additions alone.

    Four times as fast on CPUs as a convolution of one channel.
    """
    halo = len(taps) - 1
    kept = image.shape[axis] - 2 * halo
    total = image.narrow(axis, halo, kept) * taps[0]
    for i, tap in enumerate(taps[1:], 1):
        before = image.narrow(axis, halo - i, kept)
        total.add_(before + image.narrow(axis, halo + i, kept), alpha=tap)
    return total
