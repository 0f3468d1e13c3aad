"""Scoring a region: the best slice at each pixel, whatever the kind of the model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_focus_fusion.decision import (
    RunningDecision,
    aggregate,
    aggregate_halo,
)
from napari_focus_fusion.engine.back_off import within_memory
from napari_focus_fusion.engine.work import SWEEP, Work, around, shifted, slabs
from napari_focus_fusion.models.base import (
    PairMasker,
    SetMasker,
    SliceScorer,
    as_batch,
)
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_focus_fusion.decision import Maps

#: Pixels x slices that a set masker looks at together: some 24 bytes each.
SET_PIXELS = 1 << 23
#: A smaller tile would be all halo.
SMALLEST_SET = 64


def score_region(work: Work, region: Tile) -> Maps:
    """Raw maps of a region's core: scores of all slices, best one at each pixel.

    Parameters
    ----------
    work
        The run.
    region
        Its core in the plane's pixels.

    Returns
    -------
    Maps
        Of the core's shape, not verified.
    """
    running = RunningDecision((region.height, region.width), work.device)
    rim = aggregate_halo(work.model.window)
    blocks = list(TilePlan(region.height, region.width, (SWEEP, SWEEP)))
    is_set = isinstance(work.model, SetMasker)
    for z, scores in (_score_sets if is_set else _score_planes)(work, region, rim):
        for i, score in enumerate(scores):
            for block in blocks:
                summed = work.aggregate(score[around(block, rim, rim)])
                running.update(z + i, summed, block.y, block.x)
    return running.maps()


def _score_planes(work: Work, region: Tile, rim: int) -> Iterator[tuple[int, Tensor]]:
    """Slab by slab: first slice, and scores (n, h, w) of the region and its rim."""
    high, wide = region.height + 2 * rim, region.width + 2 * rim
    if isinstance(work.model, SliceScorer):
        score = partial(work.model.score, context=work.context)
        rivals = None
    else:
        assert isinstance(work.model, PairMasker)
        score = partial(_against, work.model, context=work.context)
        rivals = _rivals(work, region, rim + work.halo)
    plan = TilePlan(high, wide, (work.tile, work.tile), work.halo)
    scores = torch.empty(work.slab, high, wide, device=work.device)
    # The rim is work too, but none that the run has planned.
    share = region.height * region.width / (high * wide)
    for z, planes in slabs(work, work.reference, region, rim + work.halo):
        for tile in plan:
            y, x = shifted(plan.window_of(tile), work.halo)
            batch = planes[:, y, x]
            if rivals is not None:
                batch = torch.stack([batch, rivals.against(z, len(batch), y, x)], 1)
            found = within_memory(work, score, batch)
            scores[: len(batch), tile.y, tile.x] = found[:, *tile.inside]
            work.done(len(batch) * tile.height * tile.width * share)
        yield z, scores[: len(planes)]


def _score_sets(work: Work, region: Tile, rim: int) -> Iterator[tuple[int, Tensor]]:
    """All slices of a region at once: each slice and its weights (1, h, w)."""
    assert isinstance(work.model, SetMasker)
    masks = partial(_masks, work.model, context=work.context)
    count = work.reference.stack.n_slices
    high, wide = region.height + 2 * rim, region.width + 2 * rim
    reach = 2 * work.halo
    planes = torch.empty(count, high + reach, wide + reach, device=work.device)
    for z, read in slabs(work, work.reference, region, rim + work.halo):
        planes[z : z + len(read)] = read
        work.done(0)
    weights = torch.empty(count, high, wide, device=work.device)
    side = side_of_sets(work.tile, work.halo, count)
    plan = TilePlan(high, wide, (side, side), work.halo)
    share = region.height * region.width / (high * wide)
    for tile in plan:
        y, x = shifted(plan.window_of(tile), work.halo)
        found = within_memory(work, masks, planes[None, :, y, x])[0]
        weights[:, tile.y, tile.x] = found[:, *tile.inside]
        work.done(count * tile.height * tile.width * share)
    del planes
    for z in range(count):
        work.done(0)
        yield z, weights[z : z + 1]


def side_of_sets(most: int, halo: int, slices: int) -> int:
    """Side of a tile whose slices a :class:`SetMasker` can all see at once."""
    return min(most, max(math.isqrt(SET_PIXELS // slices) - 2 * halo, SMALLEST_SET))


@dataclass(frozen=True, slots=True)
class _Rivals:
    """At each pixel the best slice and the second best, by the plain focus measure."""

    index: Tensor
    best: Tensor
    second: Tensor

    def against(self, z: int, count: int, y: slice, x: slice) -> Tensor:
        """(count, h, w): for slices from ``z`` on, the best of the others."""
        index, best, second = (a[y, x] for a in (self.index, self.best, self.second))
        return torch.stack(
            [torch.where(index == z + i, second, best) for i in range(count)]
        )


def _rivals(work: Work, region: Tile, rim: int) -> _Rivals:
    """One pass of the plain focus measure over a region and its rim."""
    plain = SumModifiedLaplacian()
    reach = rim + 1 + aggregate_halo(plain.window)
    rest = aggregate_halo(plain.window)
    shape = (region.height + 2 * rim, region.width + 2 * rim)
    top, runner_up = (torch.full(shape, -1.0, device=work.device) for _ in "12")
    best, second = (torch.zeros(shape, device=work.device) for _ in "12")
    index = torch.zeros(shape, dtype=torch.int16, device=work.device)
    for z, planes in slabs(work, work.reference, region, reach):
        work.done(0)
        for i, plane in enumerate(planes):
            score = plain.score(plane[None, None])[0, 1:-1, 1:-1]
            score = aggregate(score, plain.window, work.smoothness)
            shown = plane[1 + rest : -1 - rest, 1 + rest : -1 - rest]
            first, close = score > top, score > runner_up
            second = torch.where(first, best, torch.where(close, shown, second))
            runner_up = torch.where(first, top, torch.where(close, score, runner_up))
            best = torch.where(first, shown, best)
            top = torch.where(first, score, top)
            index.masked_fill_(first, z + i)
    return _Rivals(index, best, second)


def _against(model: PairMasker, batch: Tensor, context: Any) -> Tensor:
    """(n, 2, h, w): slices and their rivals -> (n, h, w)."""
    a, b = as_batch(batch[:, 0, 0]), as_batch(batch[:, 0, 1])
    return model.mask(a, b, context)


def _masks(model: SetMasker, batch: Tensor, context: Any) -> Tensor:
    """(1, 1, N, h, w) -> (1, N, h, w)."""
    return model.masks(as_batch(batch[0, 0]), context)[None]
