"""SESF-Fuse: an unsupervised encoder whose deep features measure focus.

B. Ma, Y. Zhu, X. Yin, X. Ban, H. Huang, M. Mukeshimana, "SESF-Fuse: an unsupervised
deep model for multi-focus image fusion", Neural Computing and Applications, 2020
(arXiv:1908.01703). An auto-encoder learns to reconstruct an image; the gradient of its
features, the *deep spatial frequency*, then serves as focus measure.

What differs from the paper: the channel attention takes its means from a sample of the
whole stack (``context``) and not from the image at hand. All slices then share one set
of gates, which makes their scores comparable and independent of the tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.models.base import SliceScorer
from napari_focus_fusion.models.layers import SqueezeExcitation

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Channels of each of the four encoder blocks.
WIDTH = 16


class Folded(NamedTuple):
    """The encoder for one stack: gates and normalisations folded into convolutions."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    squared_gains: Tensor


class Block(nn.Module):
    """3x3 convolution, ReLU, batch normalisation: in this order, as the authors do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.normalise = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        return self.normalise(F.relu(self.convolution(x)))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Gain and offset, (outputs,) each, of the normalisation in evaluation."""
        bn = self.normalise
        assert bn.running_var is not None and bn.running_mean is not None
        gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        return gain, bn.bias - bn.running_mean * gain


class SESF(SliceScorer):
    """The network of the paper's figure 2, and its focus measure (section 3.2)."""

    window: ClassVar[int] = 3
    bytes_a_tile_pixel: ClassVar[float] = 850
    needs_sample: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(Block(max(1, WIDTH * i), WIDTH) for i in range(4))
        self.attention = nn.ModuleList(SqueezeExcitation(WIDTH) for _ in range(4))
        self.decoder = nn.Sequential(
            Block(4 * WIDTH, 64), Block(64, 32), Block(32, 16), Block(16, 1)
        )

    def features(self, x: Tensor, stacks: int = 1) -> list[Tensor]:
        """Densely connected features; the slices of one stack share its gates.

        Parameters
        ----------
        x
            (stacks * N, 1, h, w): the slices of the first stack, of the second, ...
        stacks
            How many stacks there are in the batch.

        Returns
        -------
        list of Tensor
            Four blocks' features, each (stacks * N, 16, h, w).
        """
        dense: list[Tensor] = []
        for block, attention in self._pairs():
            y = block(torch.cat(dense, 1) if dense else x)
            means = y.reshape(stacks, -1, *y.shape[1:]).mean((1, 3, 4))
            gates = attention.gates(means).repeat_interleave(len(y) // stacks, 0)
            dense.append(y * gates[:, :, None, None])
        return dense

    def _pairs(self) -> list[tuple[Block, SqueezeExcitation]]:
        """Each encoder block with its attention."""
        return list(zip(self.encoder, self.attention, strict=True))  # type: ignore[arg-type]

    def forward(self, x: Tensor, stacks: int = 1) -> tuple[Tensor, Tensor]:
        """The auto-encoder and the focus measure of the same features.

        Parameters
        ----------
        x, stacks
            As :meth:`features` takes them.

        Returns
        -------
        reconstruction : Tensor
            (stacks * N, 1, h, w), the output of the auto-encoder.
        score : Tensor
            (stacks * N, h, w), the squared deep spatial frequency.
        """
        dense = self.features(x, stacks)
        ones = [x.new_ones(WIDTH)] * len(dense)
        return self.decoder(torch.cat(dense, 1)), spatial_frequency(dense, ones)

    def context(self, sample: Sequence[Tensor]) -> Folded:
        """Gates from the sample, folded into the encoder with the normalisation.

        In evaluation a block is ``gate * (gain * relu(conv(x)) + offset)``: an affine
        map of each channel, which the next convolution can take in, and which the
        feature gradient needs only the gain of. Scoring is then four convolutions.
        """
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        gains = offsets = torch.empty(0, device=sample[0].device)
        for block, attention in self._pairs():
            weight, bias = block.convolution.weight, block.convolution.bias
            assert bias is not None
            if len(gains):
                bias = bias + (weight * offsets[None, :, None, None]).sum((1, 2, 3))
                weight = weight * gains[None, :, None, None]
            weights.append(weight.contiguous(memory_format=torch.channels_last))
            biases.append(bias)
            # Each slice anew for each block, and nothing kept in between: memory does
            # not grow with the slices, nor become fragmented.
            means = bias.new_empty(len(sample), WIDTH)
            for mean, x in zip(means, sample, strict=True):
                mean.copy_(_maps(x, weights, biases)[-1].mean((0, 2, 3)))
            gain, offset = block.affine()
            # Sorted, so that the order of the slices does not change the sum.
            mean = means.sort(0).values.mean(0)
            gate = attention.gates(gain * mean + offset)
            gains = torch.cat([gains, gate * gain])
            offsets = torch.cat([offsets, gate * offset])
        return Folded(tuple(weights), tuple(biases), gains.square())

    def score(self, slices: Tensor, context: Folded) -> Tensor:  # type: ignore[override]
        """Squared deep spatial frequency (the root of eq. 5 is monotone)."""
        dense: list[Tensor] = []
        for weight, bias in zip(context.weights, context.biases, strict=True):
            inputs = torch.cat(dense, 1) if dense else slices
            if inputs.shape[1] == 1:
                inputs, weight = _padded(inputs), _padded(weight)
            dense.append(F.conv2d(inputs, weight, bias, padding=1).relu_())
        return spatial_frequency(dense, context.squared_gains.split(WIDTH))


def _maps(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
    """The first blocks' maps (B, 16, h, w) of (B, 1, h, w), without padding."""
    dense: list[Tensor] = []
    for weight, bias in zip(weights, biases, strict=True):
        inputs = torch.cat(dense, 1) if dense else x
        inner = [earlier[:, :, 1:-1, 1:-1] for earlier in dense]
        dense = [*inner, F.relu(F.conv2d(inputs, weight, bias))]
    return dense


def _padded(one_channel: Tensor) -> Tensor:
    """One channel and three of zeros: convolved four times as fast on CPUs."""
    count, _, height, width = one_channel.shape
    padded = one_channel.new_zeros(count, height, width, 4)
    padded[..., 0] = one_channel[:, 0]
    return padded.permute(0, 3, 1, 2)


def spatial_frequency(
    maps: Sequence[Tensor], squared_gains: Sequence[Tensor]
) -> Tensor:
    """Energy of the feature gradient, eq. 3-5 of the paper before the window sum.

    Parameters
    ----------
    maps
        Feature maps (N, c, h, w).
    squared_gains
        For each of them the squared gain of its channels, (c,).

    Returns
    -------
    Tensor
        (N, h, w); differences to the left and upper neighbour, zero in the first row
        and column.
    """
    energy = maps[0].new_zeros(maps[0].shape[0], *maps[0].shape[2:])
    for features, gains in zip(maps, squared_gains, strict=True):
        pixels = features.permute(0, 2, 3, 1)
        centre = pixels[:, 1:, 1:]
        across = centre - pixels[:, 1:, :-1]
        down = centre - pixels[:, :-1, 1:]
        energy[:, 1:, 1:] += (across * across).addcmul(down, down) @ gains
    return energy
