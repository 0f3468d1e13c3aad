"""SRN, the super-resolution network: an image made finer.

Section III-B of H. Li, M. Yuan, J. Li, Y. Liu, G. Lu, Y. Xu, Z. Yu, D. Zhang, "Focus
Affinity Perception and Super-Resolution Embedding for Multifocus Image Fusion", IEEE
Transactions on Neural Networks and Learning Systems, 2024
(10.1109/TNNLS.2024.3367782), and the decoders D1 and D2 (III-C). Equation numbers are
the paper's; ``affinity_sr.py`` joins the network with the one that finds what is in
focus.

Where the paper's text and what its authors released contradict each other, this follows
the release: features of three channels, dense blocks without a skip of their own, and
attention on the sum of shallow and deep features (eq. 11 reads otherwise).

What differs from both, in every configuration:

- One network for all slices; its trunk is shared by x2, x3 and x4.
- The kernels of the deconvolutions are centred on the source's pixel, so that nothing
  moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.models.layers import (
    SLOPE,
    conv,
    convolutions,
    interpolate,
    laplacian,
)

#: Channels of the features, and of the images that they are made of.
FEATURES = 3


@dataclass(frozen=True)
class SRNConfig:
    """Sizes of the network, and which parts of it there are.

    Attributes
    ----------
    width, growth, dense, blocks
        Channels; channels that each dense convolution adds, their number, and the
        number of blocks.
    embed
        Hidden channels of the shallow-deep attention (eq. 10).
    lift
        Convolutions before the deconvolution.
    fine
        Channels on the finer grid.
    scales
        Factors with a head of their own.
    skip
        Whether the interpolated slice is added to the features.
    rectify
        Whether the fused image ends at black (D2's ReLU).
    shallow_deep, gradient
        The parts of the paper's table IV: the attention of eq. 10; the gradient branch.
    """

    width: int = 16
    growth: int = 16
    dense: int = 2
    blocks: int = 4
    embed: tuple[int, ...] = (8,)
    lift: int = 1
    fine: tuple[int, ...] = (8,)
    scales: tuple[int, ...] = (2, 3, 4)
    skip: bool = True
    rectify: bool = False
    shallow_deep: bool = True
    gradient: bool = True

    @property
    def upscale_halo(self) -> int:
        """Radius of the receptive field of SRN and D2, in pixels of the slice."""
        # With the gradient branch: its map, its convolution, its first block.
        stem = 4 + self.dense if self.gradient else 2
        trunk = stem + self.blocks * self.dense + 1 + self.lift
        if self.shallow_deep:
            trunk += len(self.embed) + 1
        return trunk + max(_head_halo(self, scale) for scale in self.scales)


#: Kernel, stride and padding of the deconvolutions of each factor. All kernels are
#: centred on the source's pixel.
DECONVOLUTIONS = {2: ((4, 2, 1),), 3: ((3, 3, 0),), 4: ((4, 2, 1), (4, 2, 1))}


def _head_halo(config: SRNConfig, scale: int) -> int:
    """Pixels around a pixel, on the source's grid, that its finer ones depend on."""
    fine = len(config.fine) + config.gradient
    low, high = -fine, scale - 1 + fine
    for kernel, stride, padding in DECONVOLUTIONS[scale]:
        low = -((kernel - 1 - padding - low) // stride)
        high = (high + padding) // stride
    return max(-low, high)


class SRN(nn.Module):
    """Makes an image finer: figure 4."""

    def __init__(self, config: SRNConfig) -> None:
        super().__init__()
        width, self.config = config.width, config
        self.image = conv(FEATURES, width, 3)
        self.edges = conv(1, width, 3) if config.gradient else None
        both = width * (2 if config.gradient else 1)
        self.shallow = conv(both, width, 3)
        self.gradient = conv(width, width, 3) if config.gradient else None
        count = config.blocks if config.gradient else 0
        self.gradient_blocks = nn.ModuleList(
            DenseBlock(width, config) for _ in range(count)
        )
        self.blocks = nn.ModuleList(
            DenseBlock(both, config) for _ in range(config.blocks)
        )
        self.gather = nn.Sequential(
            conv(config.blocks * width + both, width, 1), conv(width, width, 3)
        )
        self.attention = (
            convolutions((2 * width, *config.embed, 1), 3)
            if config.shallow_deep
            else None
        )
        lift = [conv(width, width, 3) for _ in range(config.lift)]
        self.lift = nn.Sequential(
            *(m for layer in lift for m in (layer, nn.LeakyReLU(SLOPE)))
        )
        self.heads = nn.ModuleDict({str(s): Head(config, s) for s in config.scales})

    def head(self, scale: int) -> Head:
        """What follows the trunk for one factor."""
        head = self.heads[str(scale)]
        assert isinstance(head, Head)
        return head

    def forward(self, image: Tensor, scale: int) -> Tensor:
        """F_SRN with the gradient embedded, eq. 12.

        Parameters
        ----------
        image
            (B, 3, h, w).
        scale
            One of those with a head.

        Returns
        -------
        Tensor
            (B, 3, scale * h, scale * w).
        """
        x = self.image(image)
        edges = None
        if self.edges is None or self.gradient is None:
            shallow = self.shallow(x)
            x, outputs = shallow, []
            for block in self.blocks:
                x = block(x)
                outputs.append(x)
        else:
            edges = laplacian(image)
            shallow = self.shallow(torch.cat([x, self.edges(edges)], 1))
            x, g, outputs = shallow, self.gradient(shallow), []
            pairs = zip(self.gradient_blocks, self.blocks, strict=True)
            for of_gradient, block in pairs:
                g = of_gradient(g)
                x = block(torch.cat([g, x], 1))
                outputs.append(x)
            x = torch.cat([g, x], 1)
        deep = self.gather(torch.cat([*outputs, x], 1))
        if self.attention is None:
            mixed = deep
        else:
            weight = torch.sigmoid(self.attention(torch.cat([shallow, deep], 1)))
            mixed = (deep + shallow) * (1 + weight)  # eq. 10 and 11
        found: Tensor = self.head(scale)(self.lift(mixed), edges)
        return found + interpolate(image, scale) if self.config.skip else found


class DenseBlock(nn.Module):
    """Convolutions of the outputs of all before them, brought together by a 1x1."""

    def __init__(self, inputs: int, config: SRNConfig) -> None:
        super().__init__()
        growth, last = config.growth, inputs + config.dense * config.growth
        self.dense = nn.ModuleList(
            conv(inputs + i * growth, growth, 3) for i in range(config.dense)
        )
        self.gather = conv(last, config.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h, w)."""
        for convolution in self.dense:
            x = torch.cat([x, F.relu(convolution(x))], 1)
        return self.gather(x)


class Head(nn.Module):
    """From the source's grid to a finer one, and the decoders there."""

    def __init__(self, config: SRNConfig, scale: int) -> None:
        super().__init__()
        self.scale, widths = scale, (config.width, config.fine[0], config.fine[0])
        layers: list[nn.Module] = []
        for (m, n), sizes in zip(pairwise(widths), DECONVOLUTIONS[scale], strict=False):
            layers += [nn.ConvTranspose2d(m, n, *sizes), nn.LeakyReLU(SLOPE)]
        self.deconvolve = nn.Sequential(*layers)
        self.fine = convolutions((*config.fine, FEATURES), 3)
        self.embed = conv(FEATURES + 1, FEATURES, 3) if config.gradient else None
        self.d1 = conv(FEATURES, FEATURES, 3)
        self.d2 = conv(FEATURES, FEATURES, 1)
        if config.skip:
            # An untrained network then interpolates, in every scale.
            last = self.embed if self.embed is not None else self.fine[-1]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)
            _make_identity(self.d1)
            _make_identity(self.d2)

    def forward(self, x: Tensor, edges: Tensor | None) -> Tensor:
        """(B, width, h, w) and edges (B, 1, h, w) -> (B, 3, scale * h, scale * w)."""
        y = self.fine(self.deconvolve(x))
        if self.embed is None or edges is None:
            return y
        return self.embed(torch.cat([y, interpolate(edges, self.scale)], 1))


def _make_identity(layer: nn.Conv2d) -> None:
    nn.init.dirac_(layer.weight)
