"""The steps of a run, as data: each reads a region, computes it and writes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.decision import Maps
from napari_focus_fusion.device import is_out_of_memory, return_freed_memory
from napari_focus_fusion.engine.costs import cost_of_fusing, cost_of_scoring
from napari_focus_fusion.engine.fallback import on_cpu
from napari_focus_fusion.engine.finishing import finish_region
from napari_focus_fusion.engine.reconstruction import reconstruct_region
from napari_focus_fusion.engine.scoring import score_region
from napari_focus_fusion.engine.store import (
    CHUNK,
    MemoryStore,
    get_raw,
    put_finished,
    put_raw,
)
from napari_focus_fusion.engine.superresolving import (
    super_resolve_region,
    super_resolving_halo,
)
from napari_focus_fusion.tiling import Tile

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.engine.store import Store

#: Work of a run that one thread does in about half a second.
SMALL_WORK = 7e6
#: Side of a region in pixels that is not halved where memory ends.
SMALLEST_HALF = 64


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to every region before the next step begins.

    Attributes
    ----------
    key
        What a partial result notes of finished regions.
    title
        What the user reads.
    cost
        Work of one pixel of one slice.
    run
        Does it; counts pixels x slices in the monitor.
    """

    key: str
    title: str
    cost: float
    run: Callable[[Prepared, Store, Tile, Monitor], None]


def steps_of(plan: RunPlan) -> tuple[Step, Step]:
    """The steps that fuse a time point, in order."""
    return (
        Step(
            "scored",
            "Finding what is sharp",
            cost_of_scoring(plan),
            partial(run_or_halve, score_step),
        ),
        Step(
            "fused",
            "Fusing",
            cost_of_fusing(plan),
            partial(run_or_halve, finish_step),
        ),
    )


def work_of(plan: RunPlan) -> float:
    """What a run costs, in pixels x slices x what the steps do with each."""
    stack = plan.stack
    voxels = stack.n_times * stack.n_slices * stack.height * stack.width
    return voxels * sum(step.cost for step in steps_of(plan))


def threads_of(plan: RunPlan) -> int:
    """How many threads compute a run on the CPU: one where it is small.

    Threads that share little work wait for each other most of the time, and tens of
    times as long where other programs use the cores. It depends on nothing else, as the
    last digit of the confidence depends on the number of threads.
    """
    if plan.upscale is None and work_of(plan) < SMALL_WORK:
        return 1
    return torch.get_num_threads()


def run_or_halve(
    step: Callable[[Prepared, Store, Tile, Monitor], None],
    point: Prepared,
    store: Store,
    region: Tile,
    monitor: Monitor,
) -> None:
    """Do a step; where memory ends, on the CPU, and there on halves of the region.

    Networks that run out of memory take smaller tiles before: see
    :mod:`~napari_focus_fusion.engine.fallback`.
    """
    device, counted = point.plan.device, (monitor.absent, monitor.beyond)
    halves: list[Tile] = []
    try:
        step(point, store, region, monitor)
        return_freed_memory()
        return
    except (RuntimeError, MemoryError) as error:
        halves = [] if device.type != "cpu" else _halves_of(region, store)
        if not is_out_of_memory(error) or (device.type == "cpu" and not halves):
            raise
    # Outside of the handler, whose traceback keeps what was allocated.
    monitor.absent, monitor.beyond = counted
    return_freed_memory()
    size = f"a region of {region.height} x {region.width} pixels"
    if halves:
        monitor.warn(
            f"There was not enough memory for {size}, which was fused in parts. Close "
            "other programs, or give less with memory=."
        )
        for half in halves:
            run_or_halve(step, point, store, half, monitor)
        return
    if device.type == "cuda":
        torch.cuda.empty_cache()
    monitor.warn(
        f"{device} had no memory for {size}; the CPU took over, which is slower. Close "
        "what else uses the graphics card, or give less with memory=."
    )
    run_or_halve(step, on_cpu(point), store, region, monitor)


def _halves_of(region: Tile, store: Store) -> list[Tile]:
    """A region in two, of whole chunks where it is written to; none if it is small."""
    side = SMALLEST_HALF if isinstance(store, MemoryStore) else CHUNK
    y0, y1, x0, x1 = region.y0, region.y1, region.x0, region.x1
    if max(region.height, region.width) <= side:
        return []
    if region.height >= region.width:
        y = y0 + -(-region.height // (2 * side)) * side
        return [Tile(y0, y, x0, x1), Tile(y, y1, x0, x1)]
    x = x0 + -(-region.width // (2 * side)) * side
    return [Tile(y0, y1, x0, x), Tile(y0, y1, x, x1)]


def score_step(point: Prepared, store: Store, region: Tile, monitor: Monitor) -> None:
    """Raw maps of a region from the scores of all slices, and reconstructions."""
    plan, t, before = point.plan, point.t, monitor.found
    if plan.decision is not None:
        labels = plan.decision[t, region.y, region.x]
        sure = np.ones(labels.shape, np.float32)
        maps = Maps(labels, sure, labels.astype(np.float32))
    elif plan.model is not None and plan.model.kind == "reconstructor":
        maps, reconstructions = reconstruct_region(point, region, monitor)
        with store.access():
            for stored, values in zip(
                store.reconstructions, reconstructions, strict=True
            ):
                stored[t, region.y, region.x] = values
    else:
        maps = score_region(point, region, monitor)
    with store.access():
        put_raw(store.raw, t, region, maps)
        store.mark_done("scored", t, region, monitor.found_since(before))


def finish_step(point: Prepared, store: Store, region: Tile, monitor: Monitor) -> None:
    """Verified maps and fused pixels of a region; all raw maps around it are there."""
    plan, t, before = point.plan, point.t, monitor.found
    stack, upscale = plan.stack, plan.upscale
    if upscale is None:
        halo = plan.finishing_halo
    else:
        halo = super_resolving_halo(upscale)
    area = region.grown(halo).inside_plane(stack.height, stack.width)
    with store.access():
        raw = get_raw(store.raw, t, area)
        reconstructions = [
            np.asarray(whole[t, region.y, region.x]) for whole in store.reconstructions
        ]
    consistency = beyond = None
    if upscale is None:
        fused, maps, beyond = finish_region(
            point, region, raw, area, monitor, reconstructions
        )
    else:
        fused, maps, consistency = super_resolve_region(
            point, region, raw, area, monitor
        )
    with store.access():
        put_finished(store.outputs, stack, t, region, fused, maps, consistency, beyond)
        store.mark_done("fused", t, region, monitor.found_since(before))
