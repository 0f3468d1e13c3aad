"""Scoring a region: the best slice at each pixel, whatever the kind of the model.

A region is a part of the plane whose running state fits into the working memory (often
the whole plane). Slices stream through it one after the other, so that each stored
chunk is read once and memory does not grow with their number; inside it, models work on
tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_focus_fusion.decision import (
    ABSENT_SCORE,
    DOUBTFUL_SCORE,
    RunningDecision,
    aggregate,
    aggregate_halo,
    weighted,
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
from napari_focus_fusion.tiling import (
    Rectangle,
    Tile,
    TilePlan,
    even_split,
    rectangles_of,
    shifted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_focus_fusion.decision import Maps
    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.engine.prepare import Prepared

#: Side of the blocks in which planes are processed: a few fit into a core's cache.
BLOCK_SIDE = 256
#: Least side of the parts of a tile that are scored only where the surface passes, and
#: parts along a side of a large tile.
PART_SIDE, PARTS = 64, 4
#: A tile is scored in parts if that is less than this share of scoring it at once.
WORTH_PARTS = 0.85


def blocks_of(region: Rectangle, device: torch.device) -> list[Tile]:
    """Blocks of a region, in which it is processed.

    Larger ones on a graphics card, where each costs the launch of dozens of kernels.
    """
    side = BLOCK_SIDE if device.type == "cpu" else 4 * BLOCK_SIDE
    return list(TilePlan(region.height, region.width, (side, side)))


def blocks_near(
    surface: SurfaceShares | None, region: Rectangle, device: torch.device
) -> list[tuple[Tile, SurfaceShares | None]]:
    """Blocks of a region, and the surface in each of them."""
    blocks = blocks_of(region, device)
    if surface is None:
        return [(block, None) for block in blocks]
    return [(block, surface.of_part(block.moved(*region.corner))) for block in blocks]


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
    # What a slice is compared with is looked for around the region as well.
    reach = halo + plan.halo if plan.model.kind == "pair-masker" else 0
    surface = find_surface(point, region.grown(reach), monitor, region.area)
    score = _score_sets if plan.model.kind == "set-masker" else _score_slabs
    for part in _parts_of(plan, region, halo):
        here = part.moved(region.y0, region.x0)
        shares = None if surface is None else surface.of_part(here)
        blocks = blocks_near(shares, here, plan.device)
        for first, scores, complete in score(point, here, halo, surface, monitor):
            for z, one in enumerate(scores, first):
                for block, near in blocks:
                    if complete and near is not None and not near.matters(z):
                        continue
                    summed = aggregate(
                        one[block.window(halo, offset=halo)],
                        plan.model.window,
                        plan.smoothness,
                        complete=complete,
                    )
                    weight = None if near is None else near.of_slice(z)
                    into = block.moved(*part.corner)
                    running.update(z, summed, into.y, into.x, weight, complete=complete)
    running.count = plan.stack.n_slices
    if surface is not None:
        surface = surface.of_part(region)
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
) -> Iterator[tuple[int, Tensor, bool]]:
    """Slab by slab: first slice, scores (n, h, w) of the region and its halo.

    And whether all pixels count. Where no pixel near the surface depends on it, the
    score is 0.
    """
    plan, model = point.plan, point.plan.model
    assert isinstance(model, SliceScorer | PairMasker)
    wide = region.grown(halo)
    rivals = None
    if model.kind == "pair-masker":
        rivals = _find_rivals(point, wide.grown(plan.halo), surface, monitor)
    near = None if surface is None else surface.of_part(region)
    call = NetworkCall(
        _score if rivals is None else _mask_pairs,
        model,
        point.context,
        plan.halo,
        plan.settings.precision,
    )
    tiles = TilePlan(wide.height, wide.width, (plan.tile, plan.tile), plan.halo)
    scores = torch.empty(plan.slab, wide.height, wide.width, device=plan.device)
    # Progress counts the region only, not its halo.
    share = (1 - share_of_surface(plan)) * region.area / wide.area
    area = wide.grown(plan.halo)
    for z, planes, flags in flagged_slabs(
        point.reference, area, plan.slab, plan.device
    ):
        count = len(planes)
        for tile in tiles:
            scores[:count, tile.y, tile.x] = 0
            for part, window in parts_near(near, tiles, tile, z, count, halo):
                y, x = shifted(window, plan.halo)
                batch = planes[:, y, x]
                if rivals is not None:
                    batch = torch.stack([batch, rivals.against(z, count, y, x)], 1)
                found = run_with_fallback(call, batch, monitor)
                scores[:count, part.y, part.x] = found[:, *part.inside]
            monitor.advance(count * tile.area * share)
        apply_flags(scores[:count], _core(flags, plan.halo))
        yield z, scores[:count], flags is None


def parts_near(
    surface: SurfaceShares | None,
    tiles: TilePlan,
    tile: Tile,
    z: int,
    count: int,
    reach: int = 0,
) -> list[tuple[Tile, tuple[slice, slice]]]:
    """The parts of a tile that are near the surface, and the windows to compute.

    The tile itself where parts, each with its halo, would not cost less.

    Parameters
    ----------
    surface
        Of a region; None: all is near.
    tiles, tile
        Of the region and ``reach`` pixels around it.
    z, count
        The first of the slices that are computed together, and how many they are.
    reach
        Pixels around a pixel that its sum over windows of scores depends on.
    """
    whole = [(tile, tiles.window_of(tile))]
    if surface is None:
        return whole
    rows, columns = (
        even_split(length, max(PART_SIDE, length // PARTS))
        for length in (tile.height, tile.width)
    )
    near = np.array(
        [
            [
                surface.passes(z, count, *part.window(reach, offset=-reach))
                for part in (
                    Rectangle(*row, *column).moved(*tile.corner) for column in columns
                )
            ]
            for row in rows
        ]
    )
    halo = tiles.halo
    parts = []
    for y0, y1, x0, x1 in rectangles_of(near):
        y, x = (rows[y0][0], rows[y1 - 1][1]), (columns[x0][0], columns[x1 - 1][1])
        part = Rectangle(*y, *x).moved(*tile.corner)
        inside = Tile(part.y0, part.y1, part.x0, part.x1, halo, halo)
        parts.append((inside, part.grown(halo).slices))
    cost = sum(part.grown(halo).area for part, _ in parts)
    return parts if cost < WORTH_PARTS * tile.grown(halo).area else whole


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
) -> Iterator[tuple[int, Tensor, bool]]:
    """All slices of a part of a region at once: each, its weights (1, h, w).

    And whether all pixels count. All slices, also those far from the surface: what a
    slice weighs depends on all.
    """
    plan, model = point.plan, point.plan.model
    assert isinstance(model, SetMasker)
    call = NetworkCall(
        _weigh_set, model, point.context, plan.halo, plan.settings.precision
    )
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
        yield z, apply_flags(weights[z : z + 1], flags), flags is None


@dataclass(frozen=True, slots=True)
class _Rivals:
    """At each pixel the best slice and the second best, by the plain focus measure.

    Near the surface, where there is one: elsewhere refraction and noise win.
    """

    index: Tensor
    best: Tensor
    second: Tensor

    def against(self, z: int, count: int, y: slice, x: slice) -> Tensor:
        """(count, h, w): for slices from ``z`` on, the best of the others."""
        index, best, second = (a[y, x] for a in (self.index, self.best, self.second))
        return torch.stack(
            [torch.where(index == z + i, second, best) for i in range(count)]
        )


def _find_rivals(
    point: Prepared, area: Rectangle, surface: SurfaceShares | None, monitor: Monitor
) -> _Rivals:
    """One pass of the plain focus measure over an area."""
    plan, plain = point.plan, SumModifiedLaplacian()
    halo = aggregate_halo(plain.window)
    shape = (area.height, area.width)
    top, runner_up = (torch.full(shape, -1.0, device=plan.device) for _ in "12")
    best, second = (torch.zeros(shape, device=plan.device) for _ in "12")
    index = torch.zeros(shape, dtype=torch.int16, device=plan.device)
    near = None if surface is None else surface.of_part(area)
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
            if near is not None:
                score = weighted(score, near.of_slice(z + i))
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
