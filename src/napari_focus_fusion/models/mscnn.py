"""MSCNN: multi-scale features of every slice, fused, and an image reconstructed.

H. T. Mustafa, J. Yang, M. Zareapoor, "Multi-scale convolutional neural network for
multi-focus image fusion", Image and Vision Computing 85, 26-35, 2019. One encoder with
shared weights takes each slice at several scales, a learned fusion joins the
features, and multi-scale convolutions reconstruct the all-in-focus image; there is no
decision map on the way. The unsupervised loss is in ``training/objectives/mscnn.py``.

That is the paper's, according to its abstract; layers and widths were not available,
so they are ours. Ours are besides:

- Any number of slices: features are fused by their elementwise maximum and by means
  weighted with the detail of each slice, both symmetric in the slices.
- The reconstruction is a residual onto such a weighted mean of the slices.
- Nothing is biased and the first kernels add up to zero: a stack with ``a * I + b``
  instead of ``I`` gives ``a * F + b``, so that brightness cannot shift and noise of any
  strength is met as it was learnt (Mohan et al., "Robust and interpretable blind image
  denoising via bias-free convolutional neural networks", ICLR 2020).
- A decision map: the slices with most detail.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.filters import box_mean
from napari_focus_fusion.models.base import Encoded, Reconstructor

#: Channels of each scale: of the first convolutions (3x3, 5x5, 7x7) and of the later.
FIRST_WIDTH = 8
WIDTH = 16
#: Channels of the three scales together.
TOGETHER = 3 * WIDTH
#: Measures of detail, each with a weighted mean of the slices.
DETAILS = 4
#: Features of which the maximum, and of which the weighted mean over slices is taken.
MAXIMA = 32
MEANS = 16
#: Radius over which the first measure of detail, the one of :meth:`MSCNN.vote`, is
#: averaged.
VOTE_RADIUS = 4
#: Added to weights, so that slices without any detail weigh alike.
TINY = 1e-20
#: Share of its vote that a pixel gives to every slice: depth is refined between the
#: best slice and its neighbours, which need not be the best at any pixel.
VOTE_FLOOR = 0.02


class MultiScale(nn.Module):
    """3x3 convolutions side by side, with dilations of 1, 2 and 3, and a leaky ReLU.

    Their receptive fields are those of 3x3, 5x5 and 7x7.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Conv2d(inputs, width, 3, padding=d, dilation=d, bias=False)
            for d in (1, 2, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, 3 * width, h, w)."""
        return F.leaky_relu_(joined([scale(x) for scale in self.scales]), 0.1)


class FirstScales(nn.Module):
    """3x3, 5x5 and 7x7 kernels with a sum of zero, and a leaky ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Conv2d(1, width, side, bias=False) for side in (3, 5, 7)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, h, w) -> (B, 3 * width, h, w)."""
        kernels = [differences(scale.weight) for scale in self.scales]  # type: ignore[arg-type]
        # One convolution for all: small kernels in a frame of zeros.
        frames = [
            F.pad(kernel, [(7 - kernel.shape[-1]) // 2] * 4) for kernel in kernels
        ]
        # Mirrored, since a border of black would be an edge like no other.
        y = F.conv2d(F.pad(x.contiguous(), [3] * 4, mode="reflect"), torch.cat(frames))
        return F.leaky_relu(y.contiguous(memory_format=torch.channels_last), 0.1)


class MSCNN(Reconstructor):
    """The network; radii: encoder 9 and :data:`VOTE_RADIUS`, decoder 12."""

    window: ClassVar[int] = 5
    bytes_a_tile_pixel: ClassVar[float] = 1760
    needs_sample: ClassVar[bool] = True
    channels: ClassVar[tuple[int, int]] = (DETAILS + MAXIMA, 3 * DETAILS + MEANS)
    voting: ClassVar[int | None] = 1
    decoder_halo: ClassVar[int] = 12

    def __init__(self) -> None:
        super().__init__()
        self.first = FirstScales(FIRST_WIDTH)
        self.second = MultiScale(3 * FIRST_WIDTH, WIDTH)
        self.third = MultiScale(TOGETHER, WIDTH)
        self.features = nn.Conv2d(TOGETHER, DETAILS + MAXIMA + MEANS, 1, bias=False)
        self.local = nn.Conv2d(DETAILS, WIDTH, 5, bias=False)
        fused = MAXIMA + MEANS + 2 * DETAILS + WIDTH
        self.fuse = nn.Conv2d(fused, TOGETHER, 1, bias=False)
        # What each doubling of the number of slices adds to the weights of the fusion:
        # the maximum of noise grows with it.
        self.per_doubling = nn.Parameter(torch.zeros_like(self.fuse.weight))
        self.reconstruction = nn.ModuleList(
            MultiScale(TOGETHER, WIDTH) for _ in range(3)
        )
        self.residual = nn.Conv2d(TOGETHER, 1, 3, padding=1, bias=False)
        # The untrained network gives the weighted mean of the slices.
        nn.init.zeros_(self.residual.weight)

    def encode(self, slices: Tensor, context: Any = None) -> Encoded:
        """See :meth:`Reconstructor.encode`.

        ``largest``: measures of detail d and features. ``added``: for each measure the
        weight d^4, the weighted slice and d itself; features weighted by the first.
        """
        x = self.second(self.first(slices))
        x = x + self.third(x)
        detail, features, mean = self.features(x).split([DETAILS, MAXIMA, MEANS], 1)
        detail = detail.abs()
        voting_detail = box_mean(F.pad(detail[:, :1], [VOTE_RADIUS] * 4), VOTE_RADIUS)
        largest = joined([voting_detail, detail[:, 1:], features])
        detail = largest[:, :DETAILS]
        weight = detail.square().square() + TINY
        added = [weight, weight * slices, detail, weight[:, :1] * mean]
        return Encoded(largest, joined(added))

    def reconstruct(
        self, largest: Tensor, added: Tensor, count: int | Tensor, context: Any = None
    ) -> Tensor:
        """See :meth:`Reconstructor.reconstruct`."""
        detail, features = largest.split([DETAILS, MAXIMA], 1)
        weight, weighted, details, mean = added.split(
            [DETAILS, DETAILS, DETAILS, MEANS], 1
        )
        means = weighted / weight
        mirrored = F.pad(means, [2] * 4, mode="reflect")
        local = F.conv2d(mirrored, differences(self.local.weight))
        fused = [features, mean / weight[:, :1], detail, details / count, local]
        features = joined(fused)
        if isinstance(count, Tensor):
            more = F.conv2d(features, self.per_doubling) * (count / 4).log2()
            x = F.conv2d(features, self.fuse.weight) + more
        else:
            kernel = self.fuse.weight + self.per_doubling * math.log2(count / 4)
            x = F.conv2d(features, kernel)
        x = F.leaky_relu(x, 0.1)
        for block in self.reconstruction:
            x = x + block(x)
        return (means[:, :1] + self.residual(x))[:, 0]

    def vote(self, winner: Tensor, largest: Tensor, z: int) -> Tensor:
        """See :meth:`Reconstructor.vote`: by the averaged measure of detail."""
        share = VOTE_FLOOR + (1 - VOTE_FLOOR) * (winner[0] == z)
        return largest[0] * share

    def forward(self, stacks: Tensor) -> tuple[Tensor, Encoded]:
        """Whole stacks at once, for training.

        Parameters
        ----------
        stacks
            (stacks, N, h, w) float32, normalised.

        Returns
        -------
        reconstructions : Tensor
            (stacks, h, w).
        encoded : Encoded
            Of each slice, (stacks, N, C, h, w) and (stacks, N, D, h, w).
        """
        shape = stacks.shape
        encoded = self.encode(stacks.reshape(-1, 1, *shape[2:]))
        largest, added = (y.reshape(*shape[:2], *y.shape[1:]) for y in encoded)
        reconstructions = self.reconstruct(largest.amax(1), added.sum(1), shape[1])
        return reconstructions, Encoded(largest, added)


def joined(maps: list[Tensor]) -> Tensor:
    """Maps (B, C, h, w) side by side, channels last: twice as fast as torch.cat is."""
    return torch.cat([x.permute(0, 2, 3, 1) for x in maps], 3).permute(0, 3, 1, 2)


def differences(kernels: Tensor) -> Tensor:
    """Kernels (outputs, inputs, h, w) less their means: a constant gives zero."""
    return kernels - kernels.mean((1, 2, 3), keepdim=True)
