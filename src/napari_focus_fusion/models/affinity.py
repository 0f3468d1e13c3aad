"""FAPN, the focus affinity perception network: which of two images is in focus.

Section III-A of H. Li, M. Yuan, J. Li, Y. Liu, G. Lu, Y. Xu, Z. Yu, D. Zhang, "Focus
Affinity Perception and Super-Resolution Embedding for Multifocus Image Fusion", IEEE
Transactions on Neural Networks and Learning Systems, 2024
(10.1109/TNNLS.2024.3367782). Equation numbers are the paper's; ``affinity_sr.py`` joins
the network with super-resolution.

Where the paper's text and what its authors released contradict each other, this follows
the release: one convolution after the affinity's product instead of two, features of
three channels, and a focus head of one 3x3 convolution and four 1x1.

What differs from both, in every configuration:

- SAM multiplies whole rows with each other (eq. 4), which depends on the width of the
  image. Here a row is a window around the pixel, compared with the rows just above
  and below, and the products are means.
- CAM pools a whole image (eq. 6). Here it pools a sample of all slices, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.filters import line_sum
from napari_focus_fusion.models.layers import SLOPE, conv, convolutions

#: Channels of the features.
FEATURES = 3


@dataclass(frozen=True)
class FAPNConfig:
    """Sizes of the network, and which parts of it there are.

    Attributes
    ----------
    focus_inputs
        Channels of its input slices: 3, or 1 for grey alone.
    path
        Hidden channels of the 3x3 and of the 5x5 path (eq. 1).
    branch
        Hidden channels of a branch of SAM.
    half_width, rows
        Half the width of SAM's windows, and the rows above and below in them.
    near, far
        Channels of the 3x3 and the 5x5 convolutions of eq. 8.
    refine
        Steps of refinement (eq. 9); 0 for none, the rest of the network as it is.
    head
        Channels on the way from the refined features to the two masks.
    affinity, attention
        The parts of the paper's table II: AEM; what attends, in which order
        (``"spatial"``, ``"channel"``).
    """

    focus_inputs: int = 1
    path: tuple[int, ...] = (12, 12)
    branch: tuple[int, ...] = (6,)
    half_width: int = 8
    rows: int = 4
    near: tuple[int, ...] = (12, 12)
    far: tuple[int, ...] = (8, 12)
    refine: int = 10
    head: tuple[int, ...] = (8,)
    affinity: bool = True
    attention: tuple[str, ...] = ("spatial", "channel")

    @property
    def focus_halo(self) -> int:
        """Radius of FAPN's receptive field, in pixels."""
        enhanced = 2 * (len(self.path) + 1) + 2 * self.affinity
        if "spatial" in self.attention:
            enhanced += len(self.branch) + 1 + max(self.half_width, self.rows) + 2
        return (
            enhanced + max(2 * len(self.far), len(self.near)) + max(self.refine, 1) + 1
        )


class Gates(NamedTuple):
    """What CAM multiplies the 3x3 and the 5x5 features with, (features,) each."""

    near: Tensor
    far: Tensor


class FAPN(nn.Module):
    """Finds which of two images is in focus: figures 2 and 3."""

    def __init__(self, config: FAPNConfig) -> None:
        super().__init__()
        c, self.config = FEATURES, config
        # III-A1: the same for both images.
        widths = (config.focus_inputs, *config.path, c)
        self.paths = nn.ModuleList(convolutions(widths, size) for size in (3, 5))
        self.affinity = (
            nn.Sequential(conv(c, 16, 3), nn.ReLU(), conv(16, c, 3), nn.ReLU())
            if config.affinity
            else None
        )
        self.weigh = conv(c, c, 1) if config.affinity else None
        count = 2 if "spatial" in config.attention else 0
        self.spatial = nn.ModuleList(SpatialAttention(config) for _ in range(count))
        count = 2 if "channel" in config.attention else 0
        self.channel = nn.ModuleList(ChannelAttention() for _ in range(count))
        # III-A2.
        self.near = convolutions((4 * c, *config.near), 3, slope=None)
        self.far = convolutions((4 * c, *config.far), 5)
        both = config.near[-1] + config.far[-1]
        # Without refinement one convolution brings the two together.
        self.refine = nn.ModuleList(
            conv(both, config.near[-1], 3) for _ in range(max(config.refine, 1))
        )
        # One for all steps, as released.
        self.normalise = nn.BatchNorm2d(config.near[-1]) if config.refine else None
        self.head = nn.Sequential(
            conv(config.near[-1], config.head[0], 3),
            *(conv(m, n, 1) for m, n in pairwise((*config.head, 2))),
        )
        # Signals keep their size here. In SRN, whose dense blocks would make them grow,
        # the weights stay as small as PyTorch makes them.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, SLOPE)

    def forward(self, a: Tensor, b: Tensor, gates: Gates | None = None) -> Tensor:
        """The masks M_1 and M_2, each on its own in (0, 1).

        Parameters
        ----------
        a, b
            (B, 1, h, w), or (B, 3, h, w) if there are three inputs.
        gates
            CAM's; None to take them from each pair, as in training.

        Returns
        -------
        Tensor
            (B, 2, h, w).
        """
        near, far = self.enhance(torch.cat([a, b]), gates)
        pair = torch.cat([*near.chunk(2), *far.chunk(2)], 1)  # eq. 7
        x, y = self.near(pair), torch.sigmoid(self.far(pair))  # eq. 8
        if self.normalise is None:
            x = self.refine[0](torch.cat([x, y], 1))
        else:
            for convolution in self.refine:  # eq. 9
                step = F.relu(convolution(torch.cat([x, y], 1)))
                x = x + self.normalise(torch.sigmoid(step))
        return torch.sigmoid(self.head(x))

    def enhance(
        self, images: Tensor, gates: Gates | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features under the small and the large receptive field, eq. 1 to 6.

        Parameters
        ----------
        images
            (2 B, 1 or 3, h, w): all first images, then all second ones.
        gates
            As :meth:`forward` takes them.

        Returns
        -------
        near, far : Tensor
            (2 B, features, h, w) each.
        """
        near, far, weight = self._affine(images)
        for name in self.config.attention:
            if name == "spatial":
                near, far = self._attend(near, far)
                continue
            if gates is None:
                means = torch.stack([_means_of_pairs(near), _means_of_pairs(far)])
                gates = self.gates(means)
            near = near + near * weight * gates.near[..., None, None]  # eq. 6
            far = far + far * weight * gates.far[..., None, None]
        return near, far

    def means(self, images: Tensor) -> Tensor:
        """What CAM pools: (2, features) of images (B, 1 or 3, h, w).

        Without a border, as wide as the image allows, whose receptive field lies partly
        outside.
        """
        near, far, _ = self._affine(images)
        if self.config.attention[0] == "spatial":
            near, far = self._attend(near, far)
        border = min(8, min(images.shape[-2:]) // 4)
        inner = (..., slice(border, -border or None), slice(border, -border or None))
        return torch.stack([maps[inner].mean((0, 2, 3)) for maps in (near, far)])

    def gates(self, means: Tensor) -> Gates:
        """CAM's gates (B, features) from means (2, B, features)."""
        near, far = (cam(x) for cam, x in zip(self.channel, means, strict=True))
        return Gates(near, far)

    def _affine(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Eq. 1 to 3, and the affinity map."""
        x = images.expand(-1, self.config.focus_inputs, -1, -1)
        near, far = (path(x) for path in self.paths)
        if self.affinity is None or self.weigh is None:
            return near, far, 1.0
        weight = torch.sigmoid(self.weigh(self.affinity(near * far)))
        return near + near * weight, far + far * weight, weight

    def _attend(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 4 and 5."""
        first, second = self.spatial
        return near + near * first(near), far + far * second(far)


def _means_of_pairs(maps: Tensor) -> Tensor:
    """(2 B, c, h, w) -> (2 B, c), the mean over both images of a pair."""
    return maps.mean((2, 3)).unflatten(0, (2, -1)).mean(0).repeat(2, 1)


class SpatialAttention(nn.Module):
    """SAM: attention from how rows of two maps resemble each other."""

    def __init__(self, config: FAPNConfig) -> None:
        super().__init__()
        self.half_width, self.rows = config.half_width, config.rows
        widths = (FEATURES, *config.branch, 1)
        self.first, self.second = (convolutions(widths, 3) for _ in "12")
        self.merge = nn.Sequential(
            conv(2, 16, 3), nn.ReLU(), conv(16, FEATURES, 3), nn.ReLU()
        )
        self.weigh = conv(FEATURES, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, h, w) -> (B, 1, h, w) in (0, 1)."""
        products = row_products(
            self.first(x), self.second(x), self.half_width, self.rows
        )
        return torch.sigmoid(self.weigh(self.merge(products)))


def row_products(first: Tensor, second: Tensor, half_width: int, rows: int) -> Tensor:
    """Eq. 4 within windows around each pixel.

    The paper multiplies whole images: ``S = F2 F1^T`` is how much row i of the
    second resembles row j of the first, and ``S F1``, ``S F2`` mix the rows by that.
    Here the rows are ``2 * half_width + 1`` pixels long, j runs over the
    ``2 * rows + 1`` rows around i, and both sums are means.

    Parameters
    ----------
    first, second
        (B, 1, h, w).
    half_width, rows
        Half the window's width and height.

    Returns
    -------
    Tensor
        (B, 2, h, w).
    """
    height, length = first.shape[-2], 2 * half_width + 1
    shifts = range(2 * rows + 1)

    def shifted(maps: Tensor) -> Tensor:
        around = F.pad(maps[:, 0], (0, 0, rows, rows))
        return torch.stack([around[:, i : i + height] for i in shifts], 1)

    of_first, of_second = shifted(first), shifted(second)
    product = F.pad(second * of_first, (half_width, half_width))
    similarity = line_sum(product, length, -1) / (length * len(shifts))
    mixed = [(similarity * maps).sum(1) for maps in (of_first, of_second)]
    return torch.stack(mixed, 1)


class ChannelAttention(nn.Module):
    """CAM: a gate for each channel from the means of all."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Linear(FEATURES, FEATURES, bias=False)
        self.excite = nn.Linear(FEATURES, FEATURES, bias=False)

    def forward(self, means: Tensor) -> Tensor:
        """(B, features) -> (B, features) in (0, 1)."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(means))))
