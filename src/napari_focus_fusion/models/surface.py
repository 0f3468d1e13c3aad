"""The surface: where along Z a stack is in focus, found in a coarse focus volume.

Scores of single pixels are noise where there is little detail. Slices are samples along
Z, though, and neighbouring pixels mostly lie at neighbouring depths: a small network
that looks along Z and across the plane finds the surface that both agree on. Its input
is the plain focus measure (Nayar and Nakagawa, IEEE TPAMI 16(8), 1994) at three scales,
the coarser ones seeing through noise, and the intensity, averaged over cells of 4 x 4
pixels. It works on blocks of 2 x 2 cells, so that it costs little, and tells their
cells apart; scores at full resolution are then weighted by what it found.

Reversing the slices reverses the result exactly: slices before and after a slice enter
by their sum and by their absolute difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.filters import (
    box_mean,
    precise_sum,
    softmax,
    softplus,
    without_border,
)
from napari_focus_fusion.models.base import FusionModel, Kind
from napari_focus_fusion.models.sml import SumModifiedLaplacian

if TYPE_CHECKING:
    from collections.abc import Callable

#: Side of a cell of the coarse grid in pixels, and of a block in cells.
CELL, BLOCK = 4, 2
#: The focus measure is computed of planes averaged over so many pixels a side.
SCALES = (1, 2, 4)
#: Pixels around a cell that its focus measure depends on.
FOCUS_HALO = CELL
#: Radius in cells of the windows over which cells average the focus measure.
CELL_RADIUS = 1
#: Radii in blocks of the windows over which blocks average it, by scale.
BLOCK_RADII = {1: (1, 4, 10), 2: (2, 6), 4: (2, 6)}
#: The largest of them.
WINDOW_RADIUS = 10
#: Of each layer the spacing of the convolution across the plane, in blocks, and that of
#: the neighbours along Z, in slices.
DILATIONS, Z_SPACINGS = (1, 2, 4, 2, 1), (1, 2, 4, 2, 1)
#: Blocks around a block that the network looks at.
NETWORK_HALO = WINDOW_RADIUS + sum(DILATIONS)
#: Radius in cells of the surroundings that vote, and what is added to their shares.
VOTE_RADIUS, VOTE_FLOOR = 12, 1e-3
#: The same of wider surroundings: what a thick cell gathers to a point is sharp, but
#: slices away from everything around it.
WIDE_RADIUS, WIDE_FLOOR = 24, 0.02
#: How much neighbours count beside what the network says, and how much more the wider
#: surroundings do, at most as much as the cell itself.
LEAST_TRUST, WIDE_TRUST = 1.6, 3.0
#: Cells around a cell whose focus measure its result depends on, votes included.
SURFACE_HALO = BLOCK * NETWORK_HALO + WIDE_RADIUS
#: Features of a block of a slice, and channels of the network.
INPUTS = 2 * BLOCK**2 * (len(SCALES) + 1) + 2 * sum(map(len, BLOCK_RADII.values()))
WIDTH = 24
TINY = 1e-12
#: Changes along Z of a smaller share of the measure are mostly rounding.
SMALLEST_CHANGE = 3e-3
#: By scale and radius of the window, the logarithm of the ratio of the largest to the
#: smallest mean along Z that white noise did not exceed in 64 slices of 512 x 512
#: pixels.
CHANGE_BY_NOISE = {
    **{(1, 1): 0.28, (1, 4): 0.09},
    **{(2, 2): 0.33, (2, 6): 0.125},
    **{(4, 2): 0.64, (4, 6): 0.28},
}
#: Share of that below which there is no detail: less than 1 % of the windows of 9
#: slices of white noise exceed .7.
NOISE = 0.6
#: Radius in blocks of the windows over which it is averaged.
DETAIL_RADIUS = 2


def focus_of(planes: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The plain focus measure at each scale and the intensity, averaged over cells.

    Parameters
    ----------
    planes
        (n, h, w) float32, slices, with :data:`FOCUS_HALO` pixels more on each side.
    counts
        Of the same shape, bool, which pixels count. None: all do.

    Returns
    -------
    focus
        (n, scales, h / 4, w / 4), at least 0; NaN where no pixel of a cell counts.
    intensity
        (n, h / 4, w / 4).
    """
    plain, focus = SumModifiedLaplacian(), []
    missing = None if counts is None else (~counts[:, None]).to(planes.dtype)
    for scale in SCALES:
        if scale > 1:
            planes = halved(planes)
            missing = None if missing is None else F.max_pool2d(missing, 2)
        score = without_border(plain.score(planes[:, None]), FOCUS_HALO // scale)
        if missing is None:
            focus.append(cell_means(score, scale))
            continue
        # What is computed of a pixel that does not count does not count either.
        around = F.max_pool2d(missing, 3, stride=1, padding=1)
        share = 1 - without_border(around[:, 0], FOCUS_HALO // scale)
        focus.append(cell_means(score * share, scale) / cell_means(share, scale))
    return torch.stack(focus, 1), without_border(planes, FOCUS_HALO // scale)


def cell_means(planes: Tensor, side: int = 1) -> Tensor:
    """Means over cells of planes (..., h, w) of which a pixel has `side` of ours."""
    while side < CELL:
        planes, side = halved(planes), 2 * side
    return planes


def halved(planes: Tensor) -> Tensor:
    """(..., h, w) -> (..., h / 2, w / 2): means; faster than a pooling layer."""
    rows = planes[..., 0::2, :] + planes[..., 1::2, :]
    return (rows[..., 0::2] + rows[..., 1::2]) / 4


def coarse_features(focus: Tensor, intensity: Tensor) -> Tensor:
    """What the network looks at.

    Parameters
    ----------
    focus
        (B, N, scales, h, w) in cells, as :func:`focus_of` has it; rows and columns are
        those of whole blocks.
    intensity
        (B, N, h, w), the mean intensity, normalised.

    Returns
    -------
    Tensor
        (B, N, INPUTS, h / 2, w / 2) in blocks, less :data:`WINDOW_RADIUS` on each side.
    """
    border = BLOCK * WINDOW_RADIUS
    batch, count, _, height, width = focus.shape
    wide = 2 * WINDOW_RADIUS
    features = focus.new_empty(
        batch, count, INPUTS, height // BLOCK - wide, width // BLOCK - wide
    )
    # One after the other in its place: together they need as much memory again.
    of_cells = features[:, :, -(BLOCK**2) * (2 * len(SCALES) + 2) :]
    of_cells = of_cells.unflatten(2, (-1, BLOCK**2))
    filled = 0
    for i, scale in enumerate(SCALES):
        near = without_border(focus[:, :, i], border - CELL_RADIUS)
        for k, part in enumerate(_along_z(box_mean(near, CELL_RADIUS))):
            of_cells[:, :, 2 * i + k] = _split(part)
        blocks = halved(focus[:, :, i])
        for radius in BLOCK_RADII[scale]:
            mean = box_mean(blocks, radius)
            inner = WINDOW_RADIUS - radius
            for part in _along_z(without_border(mean, inner) if inner else mean):
                features[:, :, filled] = part
                filled += 1
    seen = without_border(intensity, border)
    change = (seen - precise_sum(seen, 1) / count) * 4
    of_cells[:, :, -2] = _split(seen.clamp(-0.5, 1.5))
    of_cells[:, :, -1] = _split(change.clamp(-2, 2))
    return features


def _split(cells: Tensor) -> Tensor:
    """(B, N, h, w) -> (B, N, 4, h / 2, w / 2): the cells of each block."""
    return F.pixel_unshuffle(cells[:, :, None], BLOCK)


def _along_z(mean: Tensor) -> tuple[Tensor, Tensor]:
    """Where a measure (B, N, h, w) lies in its range along Z, and how far from 0."""
    highest = mean.amax(1, keepdim=True)
    lowest = mean.amin(1, keepdim=True)
    change = highest - lowest + SMALLEST_CHANGE * highest + TINY
    ratio = mean.clamp_min(TINY) / lowest.clamp_min(TINY)
    return (mean - lowest) / change, ratio.log().clamp(0, 4) / 2


class Found(NamedTuple):
    """What the network says of a stack.

    Attributes
    ----------
    along_z
        (B, N, h, w) in cells, logits of the slices: their softmax along Z is how
        probable it is that the surface passes through a cell of each slice.
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
        (B, 2 h, 2 w) in cells, from 0 to 1, less as many blocks on each side as of the
        network.
    """
    windows = [(scale, radius) for scale in SCALES for radius in BLOCK_RADII[scale]]
    above = [
        2 * features[:, :, 2 * windows.index(window) + 1].amax(1) / most
        for window, most in CHANGE_BY_NOISE.items()
    ]
    detail = ((torch.stack(above).amax(0) - NOISE) / (1 - NOISE)).clamp(0, 1)
    # At least the average around it, so that gaps of windows and blocks do not show.
    around = sum(DILATIONS) - 1
    smooth = box_mean(without_border(detail, around - DETAIL_RADIUS), DETAIL_RADIUS)
    filled = smooth.maximum(without_border(detail, around))
    cells = F.interpolate(filled[:, None], scale_factor=BLOCK, mode="bilinear")
    return without_border(cells[:, 0], BLOCK)


def beside_neighbours(layer: nn.Conv2d, x: Tensor, spacing: int = 1) -> Tensor:
    """A 1 x 1 convolution of a slice, its neighbours' sum and their distance.

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
        (B, N, outputs, h, w).
    """
    return torch.stack([_beside(layer, x, z, spacing) for z in range(x.shape[1])], 1)


def _beside(layer: nn.Conv2d, x: Tensor, z: int, spacing: int) -> Tensor:
    """Of :func:`beside_neighbours` one slice, (B, outputs, h, w)."""
    assert layer.bias is not None
    weight, bias = layer.weight[..., 0, 0], layer.bias[:, None]
    last = x.shape[1] - 1
    before, after = x[:, max(z - spacing, 0)], x[:, min(z + spacing, last)]
    together = torch.cat([x[:, z], before + after, (before - after).abs()], 1)
    # In a processor's cache; a matrix product is faster than conv2d.
    found = torch.matmul(weight, together.flatten(2)) + bias
    return found.unflatten(-1, x.shape[-2:])


def _in_turn(count: int, part: Callable[[range], Tensor]) -> Tensor:
    """Parts (B, n, ...) of slices, all of them (B, count, ...).

    Without gradients two or three at a time: all together need as much memory again.
    PyTorch convolves single ones, where they are small, in another way.
    """
    starts = range(0, max(count - 1, 1), 2)
    if torch.is_grad_enabled():
        starts = range(1)
    whole: Tensor | None = None
    for start in starts:
        stop = count if start == starts[-1] else start + 2
        found = part(range(start, stop))
        if found.shape[1] == count:
            return found
        if whole is None:
            whole = found.new_empty(len(found), count, *found.shape[2:])
        whole[:, start:stop] = found
    assert whole is not None
    return whole


class Surface(FusionModel):
    """How probable it is that the surface passes through a cell of a slice.

    It scores no pixels by itself: what it finds weighs the scores of other models.
    """

    kind: ClassVar[Kind] = "surface"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(INPUTS, WIDTH, 1)
        self.along = nn.ModuleList(nn.Conv2d(3 * WIDTH, WIDTH, 1) for _ in DILATIONS)
        self.across = nn.ModuleList(
            nn.Conv2d(WIDTH, WIDTH, 3, dilation=spacing) for spacing in DILATIONS
        )
        self.last = nn.Conv2d(3 * WIDTH, BLOCK**2, 1)
        self.presence, self.trust = (
            nn.Sequential(
                nn.Conv2d(2 * WIDTH, WIDTH, 1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(WIDTH, BLOCK**2, 1),
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
            In cells, less ``sum(DILATIONS)`` blocks on each side.
        """
        return self.decide(self.embed(features), whole=whole)

    def embed(self, features: Tensor) -> Tensor:
        """What the first layer makes of features: (B, N, WIDTH, h, w)."""
        found = F.leaky_relu_(self.first(features.flatten(0, 1)), 0.1)
        return found.unflatten(0, features.shape[:2])

    def decide(self, x: Tensor, *, whole: bool = False) -> Found:
        """What :meth:`forward` gives, of what :meth:`embed` gives."""
        for along, across, spacing, z_spacing in zip(
            self.along, self.across, DILATIONS, Z_SPACINGS, strict=True
        ):
            assert isinstance(along, nn.Conv2d)
            x = _residual(x, along, across, spacing, z_spacing, whole=whole)
        logits = beside_neighbours(self.last, x)
        mean = precise_sum(x, 1)[:, 0] / x.shape[1]
        pooled = torch.cat([x.amax(1), mean], 1)
        trust = softplus(self.trust(pooled))
        cells = [logits, self.presence(pooled), trust]
        return Found(*(F.pixel_shuffle(x, BLOCK).squeeze(-3) for x in cells))


def _residual(
    x: Tensor,
    along: nn.Conv2d,
    across: nn.Module,
    spacing: int,
    z_spacing: int,
    *,
    whole: bool,
) -> Tensor:
    """A layer along Z and one across the plane, added to (B, N, WIDTH, h, w)."""
    inner = x if whole else x[..., spacing:-spacing, spacing:-spacing]

    def changed(slices: range) -> Tensor:
        y = torch.stack([_beside(along, x, z, z_spacing) for z in slices], 1)
        y = F.leaky_relu_(y, 0.1).flatten(0, 1)
        if whole:
            y = F.pad(y, [spacing] * 4, mode="replicate")
        y = F.leaky_relu_(across(y), 0.1).unflatten(0, (len(x), -1))
        return inner[:, slices.start : slices.stop] + y

    return _in_turn(x.shape[1], changed)


def trusts(trust: Tensor, least: float = LEAST_TRUST) -> tuple[Tensor, Tensor]:
    """How much neighbours count, and wider surroundings, for what the network says."""
    near = trust + least
    return near, (WIDE_TRUST * near).clamp_max(1)


def vote(logits: Tensor, trust: Tensor, wide_trust: Tensor | None = None) -> Tensor:
    """Logits along Z with the votes of neighbours.

    How much those count is decided cell by cell, since at a step or where layers
    overlap neighbours belong to other depths.

    Parameters
    ----------
    logits
        (B, N, h, w), of :class:`Found`.
    trust
        (B, h, w) less the border: how much neighbours within :data:`VOTE_RADIUS` count.
    wide_trust
        Of the same shape: how much those within :data:`WIDE_RADIUS` do. None: they are
        not asked.

    Returns
    -------
    Tensor
        (B, N, h, w) less the wider radius of those asked, in cells, on each side.
    """
    border = VOTE_RADIUS if wide_trust is None else WIDE_RADIUS
    shares = softmax(logits, 1)

    # Slice by slice, since sums over windows need as much memory again.
    def voted(slices: range) -> Tensor:
        return torch.stack([_voted(z) for z in slices], 1)

    def _voted(z: int) -> Tensor:
        own = without_border(logits[:, z], border)
        around = shares[:, z]
        if wide_trust is not None:
            wide = box_mean(around, WIDE_RADIUS) + WIDE_FLOOR
            own = own + wide_trust * wide.log()
            around = without_border(around, WIDE_RADIUS - VOTE_RADIUS)
        return own + trust * (box_mean(around, VOTE_RADIUS) + VOTE_FLOOR).log()

    return _in_turn(logits.shape[1], voted)
