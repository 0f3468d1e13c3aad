"""The two steps of a run, for one region: they read it, compute it and write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.decision import Maps
from napari_focus_fusion.engine.finishing import FINISH_HALO, finish_region
from napari_focus_fusion.engine.reconstruction import reconstruct_region
from napari_focus_fusion.engine.scoring import score_region
from napari_focus_fusion.engine.store import get_raw, put_finished, put_raw
from napari_focus_fusion.engine.superresolving import finer_rim, super_resolve_region
from napari_focus_fusion.models.base import Reconstructor
from napari_focus_fusion.tiling import Tile

if TYPE_CHECKING:
    from napari_focus_fusion.engine.store import Store
    from napari_focus_fusion.engine.work import Work


def score_step(work: Work, store: Store, region: Tile) -> None:
    """Raw maps of a region, from the scores of all slices, and pictures of it."""
    t = work.reference.t
    if work.given is not None:
        labels = work.given[t, region.y, region.x]
        sure = np.ones(labels.shape, np.float32)
        maps = Maps(labels, sure, labels.astype(np.float32))
    elif isinstance(work.model, Reconstructor):
        maps, pictures = reconstruct_region(work, region)
        for whole, picture in zip(store.pictures, pictures, strict=True):
            whole[t, region.y, region.x] = picture
    else:
        maps = score_region(work, region)
    put_raw(store.raw, t, region, maps)
    store.mark_done("scored", t, region)


def finish_step(work: Work, store: Store, region: Tile) -> None:
    """Verified maps and fused pixels of a region; all raw maps around it are there."""
    stack, t = work.reference.stack, work.reference.t
    halo = FINISH_HALO if work.upscale is None else finer_rim(work.upscale)
    rim = Tile(
        max(region.y0 - halo, 0),
        min(region.y1 + halo, stack.height),
        max(region.x0 - halo, 0),
        min(region.x1 + halo, stack.width),
    )
    raw = get_raw(store.raw, t, rim)
    consistency = None
    if work.upscale is None:
        pictures = [np.asarray(p[t, region.y, region.x]) for p in store.pictures]
        fused, maps = finish_region(work, region, raw, rim, pictures)
    else:
        fused, maps, consistency = super_resolve_region(work, region, raw, rim)
    put_finished(store.outputs, stack, t, region, fused, maps, consistency)
    store.mark_done("fused", t, region)
