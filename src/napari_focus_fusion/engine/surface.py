"""The surface of a region, found in a pass of the plain focus measure.

Everything lies on one grid of cells, fixed in the plane, so that the result does not
depend on where a region ends. Outside the plane cells are mirrored, not computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.device import return_freed_memory
from napari_focus_fusion.engine.costs import share_of_surface
from napari_focus_fusion.engine.memory import surface_side
from napari_focus_fusion.engine.preference import OTHERS, preferred
from napari_focus_fusion.engine.reading import DOUBTFUL, flagged_slabs
from napari_focus_fusion.filters import box_mean, sigmoid, softmax, without_border
from napari_focus_fusion.models.surface import (
    BLOCK,
    CELL,
    FOCUS_HALO,
    NETWORK_HALO,
    SCALES,
    TINY,
    WIDE_RADIUS,
    Found,
    coarse_features,
    detail_above_noise,
    focus_of,
    trusts,
    vote,
)
from napari_focus_fusion.tiling import Rectangle, TilePlan, even_split

if TYPE_CHECKING:
    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.models.surface import Surface

#: Rows of cells whose focus measure is computed together, in a processor's cache.
BAND = 32
#: Agreement along Z that white noise hardly ever has, votes included: .88 was seen.
NOISE_AGREES = 0.85
#: Radius in cells over which it is averaged whether there is any detail.
SMOOTHING = 2
#: Slices whose weight is a smaller share of the highest are not near the surface.
NEAR = 0.02


@dataclass(frozen=True, slots=True)
class SurfaceShares:
    """How probable it is that the surface of a region passes through each slice.

    Attributes
    ----------
    weights
        (N, h, w) in cells: the probability as a share of the highest along Z, to the
        power of the strength.
    near
        (N, h, w) bool, where a slice is near the surface; on the host, which asks for
        it block by block.
    certainty
        (h, w) in cells, the highest probability, times that of there being any detail.
    region
        In the plane's pixels.
    cells
        Those of the region and at least one more on each side.
    """

    weights: Tensor
    near: Tensor
    certainty: Tensor
    region: Rectangle
    cells: Rectangle

    def of_slice(self, z: int) -> Tensor:
        """Weight of a slice (h, w) at each pixel of the region; 0 where not near."""
        fine = self.at_pixels(self.weights[z])
        return fine.masked_fill_(fine < NEAR, 0)

    def at_pixels(self, cells: Tensor) -> Tensor:
        """(h, w) of the region in pixels, interpolated between the cells' centres."""
        fine = F.interpolate(
            cells[None, None],
            scale_factor=CELL,
            mode="bilinear",
            align_corners=False,
        )[0, 0]
        return fine[
            self.region.moved(-CELL * self.cells.y0, -CELL * self.cells.x0).slices
        ]

    def of_part(self, part: Rectangle) -> SurfaceShares:
        """The same of a part of the region."""
        cells = _cells_of(part).grown(BLOCK)
        y, x = cells.moved(-self.cells.y0, -self.cells.x0).slices
        return SurfaceShares(
            self.weights[..., y, x],
            self.near[..., y, x],
            self.certainty[y, x],
            part,
            cells,
        )

    def matters(self, z: int) -> bool:
        """Whether the scores of a slice can change a decision between slices so far.

        They cannot where neither it nor the slice before it is near.
        """
        return z < 2 or bool(self.near[z - 1 : z + 1].any())

    def passes(self, first: int, count: int, y: slice, x: slice) -> bool:
        """Whether any of some slices is near in a window of the region's pixels."""
        rows, columns = (
            slice(
                max((first_pixel + window.start) // CELL - first_cell - 1, 0),
                max(-(-(first_pixel + window.stop) // CELL) - first_cell + 1, 0),
            )
            for first_pixel, first_cell, window in (
                (self.region.y0, self.cells.y0, y),
                (self.region.x0, self.cells.x0, x),
            )
        )
        return bool(self.near[first : first + count, rows, columns].any())


def find_surface(
    point: Prepared, region: Rectangle, monitor: Monitor, area: int | None = None
) -> SurfaceShares | None:
    """Look for the surface in a region.

    Parameters
    ----------
    point
        The time point.
    region
        In the plane's pixels.
    monitor
        Counts pixels x slices.
    area
        Pixels that are counted; None: those of the region.

    Returns
    -------
    SurfaceShares or None
        None where the plan has no network for it.
    """
    network = point.plan.surface
    if network is None:
        return None
    stack = point.plan.stack
    plane = Rectangle(0, -(-stack.height // CELL), 0, -(-stack.width // CELL))
    blocks = _cells_of(Rectangle(0, stack.height, 0, stack.width))
    cells = _cells_of(region).grown(BLOCK)
    wide = cells.grown(WIDE_RADIUS)
    inside = wide.inside_plane(blocks.y1, blocks.x1)
    work = stack.n_slices * share_of_surface(point.plan) * (area or region.area)
    found, detail, near = _look(point, network, inside, plane, monitor, work)
    return_freed_memory()
    logits = _cut(found.along_z, inside, wide, plane)
    trust, detail = (
        _cut(each, inside, cells, plane) for each in (found.trust, detail[0])
    )
    presence = _cut(found.presence[0], inside, cells.grown(2 * SMOOTHING), plane)
    # At least the average around it, so that gaps of the network's blocks do not show.
    presence = sigmoid(presence)
    smooth = box_mean(box_mean(presence, SMOOTHING), SMOOTHING)
    presence = smooth.maximum(without_border(presence, 2 * SMOOTHING))
    del found
    shares = softmax(vote(logits, *trusts(trust))[0], 0)
    del logits
    # Noise that may hide detail is background, unless the surroundings know.
    present = presence * detail.maximum(_agreement(shares))
    highest = shares.amax(0)
    weights = shares / highest
    if point.plan.settings.surface != 1:
        # A power has other last bits at the end of an array.
        weights = (weights.clamp_min(TINY).log() * point.plan.settings.surface).exp()
    if near is not None:
        weights = (OTHERS * weights).maximum(_cut(near, inside, cells, plane))
    certainty = highest * present
    return SurfaceShares(weights, (weights >= NEAR).cpu(), certainty, region, cells)


def _cells_of(pixels: Rectangle) -> Rectangle:
    """The cells of whole blocks that hold a rectangle of pixels."""
    side = BLOCK * CELL
    return Rectangle(
        pixels.y0 // side * BLOCK,
        -(-pixels.y1 // side) * BLOCK,
        pixels.x0 // side * BLOCK,
        -(-pixels.x1 // side) * BLOCK,
    )


def _look(
    point: Prepared,
    network: Surface,
    inside: Rectangle,
    plane: Rectangle,
    monitor: Monitor,
    work: float,
) -> tuple[Found, Tensor, Tensor | None]:
    """What the network finds in cells inside the plane, and where there is detail.

    And how near slices are to the depth that is preferred; None where none is.
    ``work`` is what that counts, in pixels x slices.
    """
    halo = BLOCK * NETWORK_HALO
    scanned = inside.grown(halo).inside_plane(plane.y1, plane.x1)
    focus, intensity = _scan(point, scanned, monitor, work / 2)
    count, device = len(focus), point.plan.device
    shape = (inside.height, inside.width)
    found = Found(
        torch.empty(1, count, *shape, device=device),
        *(torch.empty(1, *shape, device=device) for _ in range(2)),
    )
    detail = torch.empty(1, *shape, device=device)
    prefer = point.plan.settings.prefer
    near = None if prefer == "sharpest" else torch.empty_like(found.along_z[0])
    side = surface_side(point.plan.memory, count)
    for tile in TilePlan(*shape, (BLOCK * side, BLOCK * side), align=(BLOCK, BLOCK)):
        window = tile.moved(inside.y0, inside.x0).grown(halo)
        seen = [_cut(each[None], scanned, window, plane) for each in (focus, intensity)]
        if near is not None:
            near[:, tile.y, tile.x] = preferred(seen[0][0], prefer, halo)
        features = coarse_features(*seen)
        del seen
        detail[..., tile.y, tile.x] = detail_above_noise(features)
        embedded = network.embed(features)
        del features
        for whole, part in zip(found, network.decide(embedded), strict=True):
            whole[..., tile.y, tile.x] = part
        del embedded, part
        monitor.advance(work / 2 * tile.area / inside.area)
    return found, detail, near


def _cut(
    volume: Tensor, held: Rectangle, wanted: Rectangle, plane: Rectangle
) -> Tensor:
    """Of a volume (..., h, w) of the cells held those wanted, mirrored at the plane."""
    for axis, first, last, length, offset in (
        (-2, wanted.y0, wanted.y1, plane.height, held.y0),
        (-1, wanted.x0, wanted.x1, plane.width, held.x0),
    ):
        if first >= 0 and last <= length:
            volume = volume.narrow(axis, first - offset, last - first)
            continue
        index = torch.arange(first, last, device=volume.device) % (2 * length)
        index = torch.minimum(index, 2 * length - 1 - index)
        volume = volume.index_select(axis, index - offset)
    return volume


def _agreement(shares: Tensor) -> Tensor:
    """How far neighbours and Z agree on a depth, (h, w) from 0 to 1.

    By the largest share (N, h, w) of three slices next to each other, between what all
    slices alike would have and all of it, above what white noise reaches of that.
    """
    count = len(shares)
    if count <= 3:
        return torch.zeros_like(shares[0])
    together = shares[:-2] + shares[1:-1] + shares[2:]
    above = (together.amax(0) - 3 / count) / (1 - 3 / count)
    return ((above - NOISE_AGREES) / (1 - NOISE_AGREES) * 2).clamp(0, 1)


def _scan(
    point: Prepared, cells: Rectangle, monitor: Monitor, work: float
) -> tuple[Tensor, Tensor]:
    """Focus measure (N, scales, h, w) and intensity (N, h, w) of all slices.

    ``work`` is what they count together.
    """
    plan = point.plan
    area = Rectangle(*(CELL * n for n in (cells.y0, cells.y1, cells.x0, cells.x1)))
    shape = (plan.stack.n_slices, cells.height, cells.width)
    intensity = torch.empty(shape, device=plan.device)
    focus = intensity.new_empty(shape[0], len(SCALES), *shape[1:])
    for z, planes, flags in flagged_slabs(
        point.reference, area.grown(FOCUS_HALO), plan.slab, plan.device
    ):
        counts = None if flags is None else flags < DOUBTFUL
        found = slice(z, z + len(planes))
        for top, end in even_split(cells.height, BAND):
            rows = slice(CELL * top, CELL * end + 2 * FOCUS_HALO)
            seen = None if counts is None else counts[:, rows]
            focus[found, :, top:end], intensity[found, top:end] = focus_of(
                planes[:, rows], seen
            )
        monitor.advance(work * len(planes) / len(focus))
    unseen = focus.isnan()
    if unseen.any():
        # A slice that has no pixels there is neither sharp nor blurred.
        focus = torch.where(unseen, focus.nanmean(0).nan_to_num(), focus)
    return focus, intensity
