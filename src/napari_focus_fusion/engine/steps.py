"""The two steps of a run, for one region: they read it, compute it and write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_focus_fusion.engine.regions import (
    FINISH_HALO,
    Work,
    finish_region,
    score_region,
)
from napari_focus_fusion.engine.store import get_raw, put_finished, put_raw
from napari_focus_fusion.tiling import Tile

if TYPE_CHECKING:
    from napari_focus_fusion.engine.store import Store


def score_step(work: Work, store: Store, region: Tile) -> None:
    """Raw maps of a region, from the scores of all slices."""
    t = work.reference.t
    put_raw(store.raw, t, region, score_region(work, region))
    store.mark_done("scored", t, region)


def finish_step(work: Work, store: Store, region: Tile) -> None:
    """Verified maps and fused pixels of a region; all raw maps around it are there."""
    stack, t = work.reference.stack, work.reference.t
    rim = Tile(
        max(region.y0 - FINISH_HALO, 0),
        min(region.y1 + FINISH_HALO, stack.height),
        max(region.x0 - FINISH_HALO, 0),
        min(region.x1 + FINISH_HALO, stack.width),
    )
    fused, maps = finish_region(work, region, get_raw(store.raw, t, rim), rim)
    put_finished(store.outputs, stack, t, region, fused, maps)
    store.mark_done("fused", t, region)
