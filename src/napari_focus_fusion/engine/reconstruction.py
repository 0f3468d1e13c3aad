"""Reconstructing a region: features of its slices are pooled, voted and decoded.

The pooled features of a region are all that is kept of its slices: the elementwise
largest with the slice each came from, and the sums.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from napari_focus_fusion.decision import (
    ABSENT_SCORE,
    Maps,
    RunningDecision,
    aggregate,
    aggregate_halo,
)
from napari_focus_fusion.engine.costs import share_of_surface
from napari_focus_fusion.engine.fallback import NetworkCall, run_with_fallback
from napari_focus_fusion.engine.reading import ABSENT, DOUBTFUL, flagged_slabs
from napari_focus_fusion.engine.scoring import blocks_near, parts_near
from napari_focus_fusion.engine.surface import SurfaceShares, find_surface
from napari_focus_fusion.models.base import Reconstructor
from napari_focus_fusion.tiling import TilePlan, shifted

if TYPE_CHECKING:
    import numpy as np

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.tiling import Rectangle, Tile

#: What features of an absent pixel count beside those of one that is there.
UNSEEN = 1e-6


class Pooled(NamedTuple):
    """Features of all slices of a region and a halo around it.

    Attributes
    ----------
    features
        (1, C + D, h, w): the largest, then the sums.
    winner
        (1, voters, h, w) int16, the slice that each of the first of the largest came
        from; -1 where slices tie.
    slices
        (h, w), how many slices were pooled at each pixel: those near the surface.
    halo
        In pixels.
    absent
        (h, w), in how many slices a pixel is absent; None: nothing is.
    """

    features: Tensor
    winner: Tensor
    slices: Tensor
    halo: int
    absent: Tensor | None = None


def reconstruct_region(
    point: Prepared, region: Rectangle, monitor: Monitor
) -> tuple[Maps, np.ndarray]:
    """Raw maps of a region, and the reconstruction of each channel.

    Parameters
    ----------
    point
        The time point, of a :class:`Reconstructor`.
    region
        In the plane's pixels.
    monitor
        Counts pixels x slices.

    Returns
    -------
    maps : Maps
        (h, w) each, not verified.
    reconstructions : ndarray
        (channels, h, w) float32, normalised as ``point.channels`` are; no channels
        where pixels are only taken from slices.
    """
    plan, model = point.plan, point.plan.model
    assert isinstance(model, Reconstructor)
    channels = point.channels if plan.reconstructs else ()
    found = torch.empty(len(channels), region.height, region.width, device=plan.device)
    are_reference = [channel == point.reference for channel in channels]
    share = (1 - share_of_surface(plan)) / (1 + are_reference.count(False))
    halo = max(aggregate_halo(model.window, plan.smoothness), model.decoder_halo)
    surface = find_surface(point, region.grown(halo), monitor, region.area)
    pooled = _pool(point, point.reference, region, halo, surface, share, monitor)
    maps = _decide(point, region, pooled, surface, monitor)
    for reconstruction, is_reference in zip(found, are_reference, strict=True):
        if is_reference:
            reconstruction.copy_(_decode(point, region, pooled, monitor))
    del pooled
    for reconstruction, channel, is_reference in zip(
        found, channels, are_reference, strict=True
    ):
        if not is_reference:
            pooled = _pool(point, channel, region, halo, surface, share, monitor)
            reconstruction.copy_(_decode(point, region, pooled, monitor))
    return maps, found.cpu().numpy()


def _pool(
    point: Prepared,
    reference: Reference,
    region: Rectangle,
    halo: int,
    surface: SurfaceShares | None,
    share: float,
    monitor: Monitor,
) -> Pooled:
    """Features of the slices near the surface, slab by slab and tile by tile."""
    plan, model = point.plan, point.plan.model
    assert isinstance(model, Reconstructor)
    (largest, added), voters = model.channels, model.voters
    wide = region.grown(halo)
    shape = (1, largest + added, wide.height, wide.width)
    features = torch.empty(
        shape, device=plan.device, memory_format=torch.channels_last
    ).zero_()
    best = features[:, :largest].fill_(-torch.inf)
    total = features[:, largest:]
    winner = torch.zeros(
        (1, model.voters, wide.height, wide.width),
        dtype=torch.int16,
        device=plan.device,
    )
    encoder_halo = plan.halo - model.decoder_halo
    tiles = TilePlan(wide.height, wide.width, (plan.tile, plan.tile), encoder_halo)
    encode = NetworkCall(
        _encoded, model, point.context, encoder_halo, plan.settings.precision
    )
    # Progress counts the region only, not its halo.
    share *= region.area / wide.area
    area = wide.grown(encoder_halo)
    seen = _Seen(wide, plan.device)
    for z, planes, flags in flagged_slabs(reference, area, plan.slab, plan.device):
        near = [
            None if surface is None else surface.of_slice(z + i) > 0
            for i in range(len(planes))
        ]
        for tile in tiles:
            parts = parts_near(surface, tiles, tile, z, len(planes))
            if parts and flags is not None:  # also counts where pixels are absent
                parts = parts_near(None, tiles, tile, z, len(planes))
            for part, window in parts:
                y, x = shifted(window, encoder_halo)
                found = run_with_fallback(encode, planes[:, y, x], monitor)
                here = (..., part.y, part.x)
                for i, one in enumerate(found[..., *part.inside]):
                    core = None if flags is None else flags[i, y, x][part.inside]
                    close = near[i]
                    close = None if close is None else close[part.slices]
                    worth, replaces = seen.update(part, core, close)
                    new, before = one[None, :largest], best[here]
                    voting, leading = new[:, :voters], before[:, :voters]
                    better, equal = voting > leading, voting == leading
                    if replaces is None:
                        torch.maximum(before, new, out=before)
                        total[here] += one[None, largest:]
                    else:
                        counts = worth == 1
                        better = torch.where(counts, better | replaces, replaces)
                        equal &= counts & ~replaces
                        # What counts is the larger, and what comes first replaces.
                        kept = torch.maximum(before, new)
                        torch.where(counts, kept, before, out=before)
                        if seen.absent is not None:
                            torch.where(replaces, new, before, out=before)
                        total[here].addcmul_(one[None, largest:], worth)
                    winner[here].masked_fill_(better, z + i)
                    winner[here].masked_fill_(equal, -1)
            monitor.advance(len(planes) * tile.area * share)
    if surface is not None:
        # Where all slices near the surface have no pixel.
        nothing = seen.number == 0
        if nothing.any():
            best.masked_fill_(nothing, 0)
            total.masked_fill_(nothing, 0)
        return Pooled(features, winner, seen.number, halo, seen.absent)
    if seen.absent is not None:
        total *= plan.stack.n_slices / seen.number
    return Pooled(features, winner, seen.number, halo, seen.absent)


class _Seen:
    """How much of the slices counts at each pixel of a region while they are pooled.

    What is absent, or sees what is, counts only where nothing else does, so that the
    features are finite everywhere.
    """

    def __init__(self, region: Rectangle, device: torch.device) -> None:
        self.number = torch.zeros(region.height, region.width, device=device)
        self.absent: Tensor | None = None
        self.one = torch.ones((), device=device)

    def update(
        self, tile: Tile, flags: Tensor | None, near: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Take in a slice: what it counts, and where it replaces what was there.

        ``near`` is where the surface is; elsewhere a slice does not count. The second
        is None where nothing is flagged and all is near; the largest of features are
        then what they are.
        """
        number = self.number[tile.slices]
        if flags is None and self.absent is None and near is None:
            number += 1
            return self.one, None
        if self.absent is None and flags is not None:
            self.absent = torch.zeros_like(self.number, dtype=torch.int16)
        known = number >= 1
        if flags is None:
            counts = torch.ones_like(known)
        else:
            counts = flags < DOUBTFUL
            assert self.absent is not None
            self.absent[tile.slices] += flags == ABSENT
        worth = torch.where(counts, 1.0, UNSEEN)
        replaces = torch.where(counts, ~known, number == 0)
        if near is not None:
            worth = worth * near
            replaces &= near
        number += worth
        return worth, replaces


def _decide(
    point: Prepared,
    region: Rectangle,
    pooled: Pooled,
    surface: SurfaceShares | None,
    monitor: Monitor,
) -> Maps:
    """The decision map, from the slices that the largest features came from."""
    plan, model = point.plan, point.plan.model
    assert isinstance(model, Reconstructor)
    voters = model.voters
    running = RunningDecision((region.height, region.width), plan.device)
    halo = aggregate_halo(model.window, plan.smoothness)
    inside = (slice(pooled.halo, -pooled.halo),) * 2
    blocks = blocks_near(surface, region, plan.device)
    count, absent = plan.stack.n_slices, pooled.absent
    if absent is not None:
        absent = absent[inside]
        monitor.count_absent(absent, count)
    for z in range(count):
        for block, near in blocks:
            if absent is None and near is not None and not near.matters(z):
                continue
            window = (0, slice(None), *block.window(halo, offset=pooled.halo))
            winner, best = pooled.winner[window], pooled.features[:, :voters][window]
            vote = model.vote(winner, best, z)
            vote = aggregate(vote, model.window, plan.smoothness)
            if absent is not None:
                vote.masked_fill_(absent[block.slices] == count, ABSENT_SCORE)
            weight = None if near is None else near.of_slice(z)
            running.update(z, vote, block.y, block.x, weight)
            monitor.check_cancelled()
    running.count = count
    if surface is not None:
        running.certainty = surface.at_pixels(surface.certainty)[inside]
    return running.maps()


def _decode(
    point: Prepared, region: Rectangle, pooled: Pooled, monitor: Monitor
) -> Tensor:
    """(h, w), the reconstruction of a region."""
    plan, model = point.plan, point.plan.model
    assert isinstance(model, Reconstructor)
    reconstruction = torch.empty(region.height, region.width, device=plan.device)
    halo = model.decoder_halo
    count = None if plan.surface is not None else plan.stack.n_slices
    # In full precision also where features are not: its pixels are what is shown.
    decode = NetworkCall(partial(_decoded, count=count), model, point.context, halo)
    tiles = TilePlan(region.height, region.width, (plan.tile, plan.tile), halo)
    for tile in tiles:
        y, x = shifted(tiles.window_of(tile), pooled.halo)
        batch = pooled.features[..., y, x]
        if count is None:
            batch = torch.cat([batch, pooled.slices[None, None, y, x]], 1)
        found = run_with_fallback(decode, batch, monitor)
        reconstruction[tile.slices] = found[0][tile.inside]
        monitor.check_cancelled()
    return reconstruction


def _encoded(model: Reconstructor, batch: Tensor, context: Any) -> Tensor:
    """(n, 1, h, w) -> (n, C + D, h, w)."""
    return torch.cat(
        model.encode(batch.contiguous(memory_format=torch.channels_last), context), 1
    )


def _decoded(
    model: Reconstructor, batch: Tensor, context: Any, count: int | None
) -> Tensor:
    """(1, 1, C + D, h, w) -> (1, h, w); without a count it follows the features."""
    pooled = batch[:, 0].contiguous(memory_format=torch.channels_last)
    largest, added = model.channels
    together, each = pooled[:, : largest + added], pooled[:, largest + added :]
    return model.reconstruct(
        together[:, :largest],
        together[:, largest:],
        each if count is None else count,
        context,
    )
