"""The surface: where along Z a stack is in focus, found in a coarse focus volume.

Scores of single pixels are noise where there is little detail. Slices are samples along
Z, though, and neighbouring pixels mostly lie at neighbouring depths: a small network
that looks along Z and across the plane finds the surface that both agree on. Its input
is the plain focus measure (Nayar and Nakagawa, IEEE TPAMI 16(8), 1994) and the
intensity, both averaged over cells of 4 x 4 pixels, so that it costs little; scores at
full resolution are then weighted by what it found.

Reversing the slices reverses the result exactly: slices before and after a slice enter
by their sum and by their absolute difference.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.filters import box_mean
from napari_focus_fusion.models.base import FusionModel, Kind

#: Side of a cell of the coarse grid, in pixels.
CELL = 4
#: Radii of the windows over which the focus measure is averaged, in cells.
WINDOWS = (1, 2, 8, 20)
#: Of each block the spacing of the convolution across the plane, in cells, and that of
#: the neighbours along Z, in slices.
DILATIONS, Z_SPACINGS = (1, 2, 4, 8, 1), (1, 2, 4, 2, 1)
#: Radius in cells of the surroundings that vote, and what is added to their shares.
VOTE_RADIUS, VOTE_FLOOR = 12, 1e-3
#: Cells around a cell that the network looks at, and that its result depends on.
NETWORK_HALO = max(WINDOWS) + sum(DILATIONS)
SURFACE_HALO = NETWORK_HALO + VOTE_RADIUS
#: Features of a cell of a slice, and channels of the network.
INPUTS, WIDTH = 2 * len(WINDOWS) + 2, 16
TINY = 1e-12
#: By window, the logarithm of the ratio of the largest to the smallest mean along Z
#: that white noise did not exceed in 64 slices of 512 x 512 pixels.
CHANGE_BY_NOISE = {1: 0.35, 2: 0.1}
#: Share of that below which there is no detail: less than 1 % of the windows of 9
#: slices of white noise exceed .7.
NOISE = 0.6


def coarse_features(focus: Tensor, intensity: Tensor) -> Tensor:
    """What the network looks at.

    Parameters
    ----------
    focus
        (B, N, h, w) in cells, the mean of the focus measure; at least 0.
    intensity
        (B, N, h, w), the mean intensity, normalised.

    Returns
    -------
    Tensor
        (B, N, INPUTS, h, w) less ``max(WINDOWS)`` cells on each side.
    """
    features = []
    most = max(WINDOWS)
    for radius in WINDOWS:
        mean = box_mean(focus, radius)
        inner = most - radius
        if inner:
            mean = mean[..., inner:-inner, inner:-inner]
        highest = mean.amax(1, keepdim=True).clamp_min(TINY)
        lowest = mean.amin(1, keepdim=True).clamp_min(TINY)
        contrast = (mean / lowest).clamp_min(TINY).log().clamp(0, 4) / 2
        features += [mean / highest, contrast]
    seen = intensity[..., most:-most, most:-most]
    change = (seen - seen.mean(1, keepdim=True)) * 4
    return torch.stack([*features, seen.clamp(-0.5, 1.5), change.clamp(-2, 2)], 2)


class Found(NamedTuple):
    """What the network says of a stack.

    Attributes
    ----------
    along_z
        (B, N, h, w), logits of the slices: their softmax along Z is how probable it is
        that the surface passes through a cell of each slice.
    presence
        (B, h, w), logit of whether any slice shows detail there. Background has none.
    trust
        (B, h, w), at least 0, how much the votes of neighbours count: see :func:`vote`.
    """

    along_z: Tensor
    presence: Tensor
    trust: Tensor


def detail_above_noise(features: Tensor) -> Tensor:
    """Whether the focus measure changes along Z by more than noise alone makes it.

    Parameters
    ----------
    features
        Of :func:`coarse_features`, (B, N, INPUTS, h, w).

    Returns
    -------
    Tensor
        (B, h, w) from 0 to 1, less as many cells on each side as of the network.
    """
    inner = sum(DILATIONS)
    change = features[:, :, 1 : 2 * len(WINDOWS) : 2].amax(1)
    change = 2 * change[..., inner:-inner, inner:-inner]
    above = [change[:, i] / most for i, most in CHANGE_BY_NOISE.items()]
    return ((torch.stack(above).amax(0) - NOISE) / (1 - NOISE)).clamp(0, 1)


def beside_neighbours(layer: nn.Conv2d, x: Tensor, spacing: int = 1) -> Tensor:
    """A 1 x 1 convolution of a slice, its neighbours' sum and their distance.

    Of the sum it is computed before adding, which saves two copies of the features.

    Parameters
    ----------
    layer
        Of 3 C inputs: the slice, the sum, the absolute difference.
    x
        (B, N, C, h, w).
    spacing
        Slices between a slice and its neighbours; beyond the ends the end itself.

    Returns
    -------
    Tensor
        (B * N, outputs, h, w).
    """
    slices, width = x.shape[1:3]
    z = torch.arange(slices, device=x.device)
    before, after = (z - spacing).clamp_min(0), (z + spacing).clamp_max(slices - 1)
    own, added, apart = layer.weight.split(width, 1)
    distance = (x.index_select(1, before) - x.index_select(1, after)).abs()
    y = F.conv2d(x.flatten(0, 1), added).unflatten(0, x.shape[:2])
    total = (y.index_select(1, before) + y.index_select(1, after)).flatten(0, 1)
    total = total + F.conv2d(x.flatten(0, 1), own, layer.bias)
    return total + F.conv2d(distance.flatten(0, 1), apart)


class Surface(FusionModel):
    """How probable it is that the surface passes through a cell of a slice.

    It scores no pixels by itself: what it finds weighs the scores of other models.
    """

    kind: ClassVar[Kind] = "surface"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3 * INPUTS, WIDTH, 1)
        self.along = nn.ModuleList(nn.Conv2d(3 * WIDTH, WIDTH, 1) for _ in DILATIONS)
        self.across = nn.ModuleList(
            nn.Conv2d(WIDTH, WIDTH, 3, dilation=spacing) for spacing in DILATIONS
        )
        self.last = nn.Conv2d(3 * WIDTH, 1, 1)
        self.presence, self.trust = (
            nn.Sequential(
                nn.Conv2d(2 * WIDTH, WIDTH, 1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(WIDTH, 1, 1),
            )
            for _ in range(2)
        )

    def forward(self, features: Tensor, *, whole: bool = False) -> Found:
        """Logits along Z, and of there being anything.

        Parameters
        ----------
        features
            Of :func:`coarse_features`, (B, N, INPUTS, h, w).
        whole
            Whether they are all there is: their border is repeated as often as needed,
            and the result is as large as they are.

        Returns
        -------
        Found
            Its planes less ``sum(DILATIONS)`` cells on each side.
        """
        shape = features.shape[:2]
        x = beside_neighbours(self.first, features).unflatten(0, shape)
        for along, across, spacing, z_spacing in zip(
            self.along, self.across, DILATIONS, Z_SPACINGS, strict=True
        ):
            assert isinstance(along, nn.Conv2d)
            y = F.leaky_relu(beside_neighbours(along, x, z_spacing), 0.1)
            if whole:
                y = F.pad(y, [spacing] * 4, mode="replicate")
            else:
                x = x[..., spacing:-spacing, spacing:-spacing]
            x = x + F.leaky_relu(across(y), 0.1).unflatten(0, shape)
        logits = beside_neighbours(self.last, x).unflatten(0, shape)[:, :, 0]
        # Sums in double precision do not depend on the order of the slices.
        mean = x.mean(1, dtype=torch.float64).to(x.dtype)
        pooled = torch.cat([x.amax(1), mean], 1)
        trust = F.softplus(self.trust(pooled)[:, 0])
        return Found(logits, self.presence(pooled)[:, 0], trust)


def vote(logits: Tensor, trust: Tensor) -> Tensor:
    """Logits along Z with the votes of neighbours.

    How much those count is decided cell by cell, since at a step or where layers
    overlap neighbours belong to other depths.

    Parameters
    ----------
    logits
        (B, N, h, w), of :class:`Found`.
    trust
        (B, h, w) less :data:`VOTE_RADIUS` cells on each side.

    Returns
    -------
    Tensor
        (B, N, h, w) less :data:`VOTE_RADIUS` cells on each side.
    """
    r = VOTE_RADIUS
    shares = logits.softmax(1)
    inner = logits[..., r:-r, r:-r]
    # Slice by slice, since sums over windows need as much memory again.
    voted = [
        inner[:, z] + trust * (box_mean(shares[:, z], r) + VOTE_FLOOR).log()
        for z in range(logits.shape[1])
    ]
    return torch.stack(voted, 1)


def cell_means(planes: Tensor) -> Tensor:
    """(..., h, w) -> (..., h / 4, w / 4): means over cells."""
    return F.avg_pool2d(planes, CELL)
