"""The surface of a region, found in a pass of the plain focus measure.

Everything lies on one grid of cells, fixed in the plane, so that the result does not
depend on where a region ends; a sixteenth of the slices' pixels is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.engine.reading import DOUBTFUL, flagged_slabs
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.models.surface import (
    CELL,
    NETWORK_HALO,
    SURFACE_HALO,
    VOTE_RADIUS,
    cell_means,
    coarse_features,
    detail_above_noise,
    vote,
)
from napari_focus_fusion.tiling import Rectangle, TilePlan, shifted

if TYPE_CHECKING:
    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.prepare import Prepared

#: Cells x slices that the network looks at together: some 300 bytes each. Fewer would
#: mostly be halo.
CELLS_AT_ONCE, SMALLEST_SIDE = 1 << 19, 48
#: Agreement along Z that white noise can have.
NOISE_AGREES = 0.55
#: How much neighbours count beside what the network learnt of that. Over all families
#: of scenes it neither gains nor loses; in brightfield it gains .4 dB, and in real
#: stacks islands of slices far from the surface go.
LEAST_TRUST = 0.7
#: Slices whose weight is a smaller share of the highest are not near the surface.
NEAR = 0.02


@dataclass(frozen=True, slots=True)
class SurfaceShares:
    """How probable it is that the surface of a region passes through each slice.

    Attributes
    ----------
    weights
        (N, h, w) in cells: the probability as a share of the highest along Z, to the
        power of the strength; one cell more than the region touches on each side.
    near
        (N, h, w) bool, where a slice is near the surface.
    certainty
        (h, w) in cells, the highest probability, times that of there being any detail.
    region
        In the plane's pixels.
    """

    weights: Tensor
    near: Tensor
    certainty: Tensor
    region: Rectangle

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
        top = self.region.y0 % CELL + CELL
        left = self.region.x0 % CELL + CELL
        return fine[top : top + self.region.height, left : left + self.region.width]

    def passes(self, first: int, count: int, y: slice, x: slice) -> bool:
        """Whether any of some slices is near in a window of the region's pixels."""
        rows, columns = (
            slice(
                max((offset % CELL + window.start) // CELL, 0),
                max(-(-(offset % CELL + window.stop) // CELL) + 2, 0),
            )
            for offset, window in ((self.region.y0, y), (self.region.x0, x))
        )
        return bool(self.near[first : first + count, rows, columns].any())


def find_surface(
    point: Prepared, region: Rectangle, monitor: Monitor
) -> SurfaceShares | None:
    """Look for the surface in a region.

    Parameters
    ----------
    point
        The time point.
    region
        In the plane's pixels.
    monitor
        Asked whether to stop.

    Returns
    -------
    SurfaceShares or None
        None where the plan has no network for it.
    """
    network = point.plan.surface
    if network is None:
        return None
    cells = Rectangle(
        region.y0 // CELL - 1,
        -(-region.y1 // CELL) + 1,
        region.x0 // CELL - 1,
        -(-region.x1 // CELL) + 1,
    )
    focus, intensity = _scan(point, cells.grown(SURFACE_HALO), monitor)
    count, wide = len(focus), cells.grown(VOTE_RADIUS)
    plane = (wide.height, wide.width)
    logits = torch.empty(count, *plane, device=point.plan.device)
    presence, detail, trust = (
        torch.empty(plane, device=point.plan.device) for _ in range(3)
    )
    side = max(int((CELLS_AT_ONCE / count) ** 0.5) - 2 * NETWORK_HALO, SMALLEST_SIDE)
    tiles = TilePlan(*plane, (side, side), NETWORK_HALO)
    for tile in tiles:
        y, x = shifted(tiles.window_of(tile), NETWORK_HALO)
        features = coarse_features(focus[None, :, y, x], intensity[None, :, y, x])
        found = network(features)
        inside = shifted(tile.inside, -NETWORK_HALO)
        logits[:, tile.y, tile.x] = found.along_z[0, :, *inside]
        trust[tile.slices] = found.trust[0, *inside]
        presence[tile.slices] = found.presence[0, *inside].sigmoid()
        detail[tile.slices] = detail_above_noise(features)[0, *inside]
        monitor.check_cancelled()
    del focus, intensity
    core = (slice(VOTE_RADIUS, -VOTE_RADIUS),) * 2
    shares = vote(logits[None], trust[core][None] + LEAST_TRUST)[0].softmax(0)
    del logits
    # Noise that may hide detail is background, unless the surroundings know.
    present = presence[core] * detail[core].maximum(_agreement(shares))
    highest = shares.amax(0)
    weights = (shares / highest) ** point.plan.settings.surface
    return SurfaceShares(weights, weights >= NEAR, highest * present, region)


def _agreement(shares: Tensor) -> Tensor:
    """How far neighbours and Z agree on a depth, (h, w) from 0 to 1.

    By the largest share (N, h, w) of three slices next to each other, between what all
    slices alike would have and all of it; white noise reaches half of that.
    """
    count = len(shares)
    if count <= 3:
        return torch.zeros_like(shares[0])
    together = shares[:-2] + shares[1:-1] + shares[2:]
    above = (together.amax(0) - 3 / count) / (1 - 3 / count)
    return ((above - NOISE_AGREES) / (1 - NOISE_AGREES) * 2).clamp(0, 1)


def _scan(point: Prepared, cells: Rectangle, monitor: Monitor) -> tuple[Tensor, Tensor]:
    """Focus measure and intensity of all slices, (N, h, w) in cells each."""
    plan, plain = point.plan, SumModifiedLaplacian()
    area = Rectangle(*(CELL * n for n in (cells.y0, cells.y1, cells.x0, cells.x1)))
    shape = (plan.stack.n_slices, cells.height, cells.width)
    focus, intensity = (torch.empty(shape, device=plan.device) for _ in "12")
    for z, planes, flags in flagged_slabs(
        point.reference, area.grown(1), plan.slab, plan.device
    ):
        for i, plane in enumerate(planes):
            score = plain.score(plane[None, None])[0, 1:-1, 1:-1]
            if flags is None:
                focus[z + i] = cell_means(score[None])[0]
            else:
                focus[z + i] = _means_of_seen(score, flags[i, 1:-1, 1:-1])
            intensity[z + i] = cell_means(plane[None, 1:-1, 1:-1])[0]
        monitor.check_cancelled()
    unseen = focus.isnan()
    if unseen.any():
        # A slice that has no pixels there is neither sharp nor blurred.
        focus = torch.where(unseen, focus.nanmean(0).nan_to_num(), focus)
    return focus, intensity


def _means_of_seen(score: Tensor, flags: Tensor) -> Tensor:
    """(h, w) in cells: means of the scores that count, NaN where none does."""
    counts = (flags < DOUBTFUL).to(score.dtype)
    return cell_means((score * counts)[None])[0] / cell_means(counts[None])[0]
