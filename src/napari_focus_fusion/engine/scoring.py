"""Scoring a region: the best slice at each pixel, whatever the kind of the model.

A region is a part of the plane whose running state fits into the working memory (often
the whole plane). Slices stream through it one after the other, so that each stored
chunk is read once and memory does not grow with their number; inside it, models work on
tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_focus_fusion.decision import (
    ABSENT_SCORE,
    DOUBTFUL_SCORE,
    RunningDecision,
    aggregate,
    aggregate_halo,
)
from napari_focus_fusion.engine.costs import share_of_surface
from napari_focus_fusion.engine.fallback import NetworkCall, run_with_fallback
from napari_focus_fusion.engine.memory import set_side
from napari_focus_fusion.engine.reading import (
    ABSENT,
    DOUBTFUL,
    flagged_slabs,
)
from napari_focus_fusion.engine.surface import SurfaceShares, find_surface
from napari_focus_fusion.models.base import (
    PairMasker,
    SetMasker,
    SliceScorer,
    as_batch,
)
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.tiling import TilePlan, shifted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_focus_fusion.decision import Maps
    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.tiling import Rectangle, Tile

#: Side of the blocks in which planes are processed: a few fit into a core's cache.
BLOCK_SIDE = 512


def blocks_of(region: Rectangle, device: torch.device) -> list[Tile]:
    """Blocks of a region, in which it is processed.

    Larger ones on a graphics card, where each costs the launch of dozens of kernels.
    """
    side = BLOCK_SIDE if device.type == "cpu" else 2 * BLOCK_SIDE
    return list(TilePlan(region.height, region.width, (side, side)))


def score_region(point: Prepared, region: Rectangle, monitor: Monitor) -> Maps:
    """Raw maps of a region: scores of all slices, the best one at each pixel.

    Parameters
    ----------
    point
        The time point, of a model that is no Reconstructor.
    region
        In the plane's pixels.
    monitor
        Counts pixels x slices.

    Returns
    -------
    Maps
        (h, w) each, not verified.
    """
    plan = point.plan
    assert plan.model is not None
    running = RunningDecision((region.height, region.width), plan.device)
    halo = aggregate_halo(plan.model.window, plan.smoothness)
    surface = find_surface(point, region, monitor)
    score = _score_sets if plan.model.kind == "set-masker" else _score_slabs
    for part in _parts_of(plan, region, halo):
        here = part.moved(region.y0, region.x0)
        shares = None if surface is None else surface.of_part(here)
        blocks = blocks_of(part, plan.device)
        for z, scores in score(point, here, halo, shares, monitor):
            for i, one in enumerate(scores):
                weight = None if shares is None else shares.of_slice(z + i)
                for block in blocks:
                    summed = aggregate(
                        one[block.window(halo, offset=halo)],
                        plan.model.window,
                        plan.smoothness,
                    )
                    near = None if weight is None else weight[block.slices]
                    into = block.moved(part.y0, part.x0)
                    running.update(z + i, summed, into.y, into.x, near)
    if surface is not None:
        running.certainty = surface.at_pixels(surface.certainty)
    monitor.count_absent(running.absent, plan.stack.n_slices)
    return running.maps()


def _parts_of(plan: RunPlan, region: Rectangle, halo: int) -> list[Tile]:
    """The parts of a region that are scored by themselves, in the region's pixels.

    The whole of it, but for a model that looks at all slices at once.
    """
    assert plan.model is not None
    side = max(region.height, region.width)
    if plan.model.kind == "set-masker":
        around, count = halo + plan.halo, plan.stack.n_slices
        side = min(side, set_side(plan.model, plan.memory, around, count))
    return list(TilePlan(region.height, region.width, (side, side)))


def apply_flags(scores: Tensor, flags: Tensor | None) -> Tensor:
    """Scores, in place, without those of pixels that are absent or see one that is."""
    if flags is not None:
        scores.masked_fill_(flags == DOUBTFUL, DOUBTFUL_SCORE)
        scores.masked_fill_(flags == ABSENT, ABSENT_SCORE)
    return scores


def _score_slabs(
    point: Prepared,
    region: Rectangle,
    halo: int,
    surface: SurfaceShares | None,
    monitor: Monitor,
) -> Iterator[tuple[int, Tensor]]:
    """Slab by slab: first slice, and scores (n, h, w) of the region and its halo.

    Tiles that no pixel near the surface depends on have scores of 0.
    """
    plan, model = point.plan, point.plan.model
    assert isinstance(model, SliceScorer | PairMasker)
    wide = region.grown(halo)
    rivals = None
    if model.kind == "pair-masker":
        rivals = _find_rivals(point, wide.grown(plan.halo), monitor)
    call = NetworkCall(
        _score if rivals is None else _mask_pairs, model, point.context, plan.halo
    )
    tiles = TilePlan(wide.height, wide.width, (plan.tile, plan.tile), plan.halo)
    scores = torch.empty(plan.slab, wide.height, wide.width, device=plan.device)
    # Progress counts the region only, not its halo.
    share = (1 - share_of_surface(plan)) * region.area / wide.area
    area = wide.grown(plan.halo)
    for z, planes, flags in flagged_slabs(
        point.reference, area, plan.slab, plan.device
    ):
        for tile in tiles:
            y, x = shifted(tiles.window_of(tile), plan.halo)
            batch = planes[:, y, x]
            # The pixels of the region whose windows reach into the tile.
            seen = tile.window(halo, offset=-halo)
            if surface is not None and not surface.passes(z, len(batch), *seen):
                scores[: len(batch), tile.y, tile.x] = 0
                monitor.advance(len(batch) * tile.area * share)
                continue
            if rivals is not None:
                batch = torch.stack([batch, rivals.against(z, len(batch), y, x)], 1)
            found = run_with_fallback(call, batch, monitor)
            scores[: len(batch), tile.y, tile.x] = found[:, *tile.inside]
            monitor.advance(len(batch) * tile.area * share)
        yield z, apply_flags(scores[: len(planes)], _core(flags, plan.halo))


def _core(flags: Tensor | None, halo: int) -> Tensor | None:
    """Flags without the pixels around them that only models look at."""
    if flags is None or halo == 0:
        return flags
    return flags[:, halo:-halo, halo:-halo]


def _score_sets(
    point: Prepared,
    region: Rectangle,
    halo: int,
    surface: SurfaceShares | None,
    monitor: Monitor,
) -> Iterator[tuple[int, Tensor]]:
    """All slices of a part of a region at once: each and its weights (1, h, w).

    All of them, also those far from the surface: what a slice weighs depends on all.
    """
    plan, model = point.plan, point.plan.model
    assert isinstance(model, SetMasker)
    call = NetworkCall(_weigh_set, model, point.context, plan.halo)
    count, wide = plan.stack.n_slices, region.grown(halo)
    area = wide.grown(plan.halo)
    planes = torch.empty(count, area.height, area.width, device=plan.device)
    flagged: dict[int, Tensor] = {}
    for z, read, flags in flagged_slabs(point.reference, area, plan.slab, plan.device):
        planes[z : z + len(read)] = read
        core = _core(flags, plan.halo)
        if core is not None:
            flagged |= {z + i: one for i, one in enumerate(core) if one.any()}
        monitor.check_cancelled()
    side = min(plan.tile, max(wide.height, wide.width))
    tiles = TilePlan(wide.height, wide.width, (side, side), plan.halo)
    share = (1 - share_of_surface(plan)) * region.area / wide.area
    weights: Tensor | None = None
    for tile in tiles:
        y, x = shifted(tiles.window_of(tile), plan.halo)
        found = run_with_fallback(call, planes[None, :, y, x], monitor)[0]
        if weights is None:
            weights = planes.new_empty(count, wide.height, wide.width)
        weights[:, tile.y, tile.x] = found[:, *tile.inside]
        monitor.advance(count * tile.area * share)
    assert weights is not None
    del planes, found
    for z in range(count):
        monitor.check_cancelled()
        flags = flagged[z][None] if z in flagged else None
        yield z, apply_flags(weights[z : z + 1], flags)


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


def _find_rivals(point: Prepared, area: Rectangle, monitor: Monitor) -> _Rivals:
    """One pass of the plain focus measure over an area."""
    plan, plain = point.plan, SumModifiedLaplacian()
    halo = aggregate_halo(plain.window)
    shape = (area.height, area.width)
    top, runner_up = (torch.full(shape, -1.0, device=plan.device) for _ in "12")
    best, second = (torch.zeros(shape, device=plan.device) for _ in "12")
    index = torch.zeros(shape, dtype=torch.int16, device=plan.device)
    seen = area.grown(halo + 1)
    for z, planes, flags in flagged_slabs(
        point.reference, seen, plan.slab, plan.device
    ):
        monitor.check_cancelled()
        core = _core(flags, 1)
        for i, plane in enumerate(planes):
            score = plain.score(plane[None, None])[0, 1:-1, 1:-1]
            apply_flags(score, None if core is None else core[i])
            score = aggregate(score, plain.window, plan.settings.smoothness)
            shown = plane[1 + halo : -1 - halo, 1 + halo : -1 - halo]
            first, close = score > top, score > runner_up
            second = torch.where(first, best, torch.where(close, shown, second))
            runner_up = torch.where(first, top, torch.where(close, score, runner_up))
            best = torch.where(first, shown, best)
            top = torch.where(first, score, top)
            index.masked_fill_(first, z + i)
    return _Rivals(index, best, second)


def _score(model: SliceScorer, batch: Tensor, context: Any) -> Tensor:
    """(n, 1, h, w) -> (n, h, w)."""
    return model.score(batch, context)


def _mask_pairs(model: PairMasker, batch: Tensor, context: Any) -> Tensor:
    """(n, 1, 2, h, w), slices and their rivals -> (n, h, w)."""
    a, b = as_batch(batch[:, 0, 0]), as_batch(batch[:, 0, 1])
    return model.mask(a, b, context)


def _weigh_set(model: SetMasker, batch: Tensor, context: Any) -> Tensor:
    """(1, 1, N, h, w) -> (1, N, h, w)."""
    return model.masks(as_batch(batch[0, 0]), context)[None]
