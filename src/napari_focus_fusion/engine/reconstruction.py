"""Reconstructing a region: features pooled slice by slice, decided by, made a picture.

The pooled features of a region are all that is kept of its slices: the elementwise
largest with the slice each came from, and the sums.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from napari_focus_fusion.decision import Maps, RunningDecision, aggregate_halo
from napari_focus_fusion.engine.back_off import within_memory
from napari_focus_fusion.engine.work import SWEEP, Work, around, shifted, slabs
from napari_focus_fusion.models.base import Reconstructor
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    import numpy as np

    from napari_focus_fusion.engine.reading import Reference


class Pooled(NamedTuple):
    """Features of all slices of a region and ``rim`` pixels around it.

    Attributes
    ----------
    features
        (1, C + D, h, w): the largest, then the sums.
    winner
        (1, C, h, w) int16, the slice that each of the largest came from; -1 where
        slices tie.
    rim
        In pixels.
    """

    features: Tensor
    winner: Tensor
    rim: int


def bytes_a_pixel(model: Reconstructor) -> int:
    """Memory of the pooled features of one pixel."""
    largest, added = model.channels
    return largest * (4 + 2) + added * 4


def reconstruct_region(work: Work, region: Tile) -> tuple[Maps, np.ndarray]:
    """Raw maps of a region's core, and the pictures of it.

    Parameters
    ----------
    work
        The run, of a :class:`Reconstructor`.
    region
        Its core in the plane's pixels.

    Returns
    -------
    maps : Maps
        Of the core's shape, not verified.
    pictures : ndarray
        (pictures, h, w) float32, normalised as ``work.pictures`` are.
    """
    model = work.model
    assert isinstance(model, Reconstructor)
    core = (region.height, region.width)
    found = torch.empty(len(work.pictures), *core, device=work.device)
    others = [p for p in work.pictures if p.weights != work.reference.weights]
    share = 1 / (1 + len(others))
    rim = max(aggregate_halo(model.window), model.decoder_halo)
    pooled = _pool(work, work.reference, region, rim, share)
    maps = _decide(work, region, pooled)
    for picture, reference in zip(found, work.pictures, strict=True):
        if reference.weights == work.reference.weights:
            picture.copy_(_decode(work, region, pooled))
    del pooled
    for picture, reference in zip(found, work.pictures, strict=True):
        if reference.weights != work.reference.weights:
            pooled = _pool(work, reference, region, model.decoder_halo, share)
            picture.copy_(_decode(work, region, pooled))
    return maps, found.cpu().numpy()


def _pool(
    work: Work, reference: Reference, region: Tile, rim: int, share: float
) -> Pooled:
    """Features of all slices, slab by slab and tile by tile."""
    model = work.model
    assert isinstance(model, Reconstructor)
    largest, added = model.channels
    high, wide = region.height + 2 * rim, region.width + 2 * rim
    shape = (1, largest + added, high, wide)
    features = torch.empty(
        shape, device=work.device, memory_format=torch.channels_last
    ).zero_()
    best = features[:, :largest].fill_(-torch.inf)
    total = features[:, largest:]
    winner = torch.zeros(
        (1, largest, high, wide), dtype=torch.int16, device=work.device
    ).contiguous(memory_format=torch.channels_last)
    halo = work.halo - model.decoder_halo
    plan = TilePlan(high, wide, (work.tile, work.tile), halo)
    encode = partial(_encoded, model, context=work.context)
    # The rim is work too, but none that the run has planned.
    share *= region.height * region.width / (high * wide)
    for z, planes in slabs(work, reference, region, rim + halo):
        for tile in plan:
            y, x = shifted(plan.window_of(tile), halo)
            found = within_memory(work, encode, planes[:, y, x])[..., *tile.inside]
            here = (..., tile.y, tile.x)
            for i, one in enumerate(found):
                new = one[None, :largest]
                winner[here].masked_fill_(new > best[here], z + i)
                winner[here].masked_fill_(new == best[here], -1)
                torch.maximum(best[here], new, out=best[here])
                total[here] += one[None, largest:]
            work.done(len(planes) * tile.height * tile.width * share)
    return Pooled(features, winner, rim)


def _decide(work: Work, region: Tile, pooled: Pooled) -> Maps:
    """The decision map, from the features that won."""
    model = work.model
    assert isinstance(model, Reconstructor)
    largest = model.channels[0]
    running = RunningDecision((region.height, region.width), work.device)
    reach = aggregate_halo(model.window)
    for block in TilePlan(region.height, region.width, (SWEEP, SWEEP)):
        window = (0, slice(None), *around(block, pooled.rim, reach))
        winner, best = pooled.winner[window], pooled.features[:, :largest][window]
        for z in range(work.reference.stack.n_slices):
            vote = work.aggregate(model.vote(winner, best, z))
            running.update(z, vote, block.y, block.x)
            work.done(0)
    return running.maps()


def _decode(work: Work, region: Tile, pooled: Pooled) -> Tensor:
    """(h, w), the picture of a region."""
    model = work.model
    assert isinstance(model, Reconstructor)
    picture = torch.empty(region.height, region.width, device=work.device)
    decode = partial(
        _decoded, model, work.reference.stack.n_slices, context=work.context
    )
    halo = model.decoder_halo
    plan = TilePlan(region.height, region.width, (work.tile, work.tile), halo)
    for tile in plan:
        y, x = shifted(plan.window_of(tile), pooled.rim)
        found = within_memory(work, decode, pooled.features[..., y, x])
        picture[tile.y, tile.x] = found[0][tile.inside]
        work.done(0)
    return picture


def _encoded(model: Reconstructor, batch: Tensor, context: Any) -> Tensor:
    """(n, 1, h, w) -> (n, C + D, h, w)."""
    return torch.cat(
        model.encode(batch.contiguous(memory_format=torch.channels_last), context), 1
    )


def _decoded(model: Reconstructor, count: int, batch: Tensor, context: Any) -> Tensor:
    """(1, 1, C + D, h, w) -> (1, h, w)."""
    pooled = batch[:, 0].contiguous(memory_format=torch.channels_last)
    largest = model.channels[0]
    return model.reconstruct(pooled[:, :largest], pooled[:, largest:], count, context)
