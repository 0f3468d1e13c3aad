"""The same steps on the workers of a dask cluster, which write into the Zarr."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_focus_fusion.device import choose_device, deterministic
from napari_focus_fusion.engine.back_off import moved_to
from napari_focus_fusion.engine.store import OpenStore
from napari_focus_fusion.errors import Cancelled, FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_focus_fusion.engine.store import Store
    from napari_focus_fusion.engine.work import Work
    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.tiling import Tile

    Step = Callable[[Work, Store, Tile], None]

#: Stacks in memory are sent to every worker; larger ones are refused.
MOST_SENT = 64 << 20
#: Working memory of a job, unless told otherwise.
JOB_BYTES = 512 << 20
#: Jobs for each thread of the cluster, so that none waits long for the last.
JOBS_A_THREAD = 4
#: Seconds between two looks at the jobs.
INTERVAL = 0.05


def check_sendable(stack: FocusStack) -> None:
    """Raise if the pixels live in this process's memory and are too many to send."""
    if isinstance(stack.data, np.ndarray) and stack.data.nbytes > MOST_SENT:
        raise FocusFusionError(
            f"{stack.name!r} is in memory ({stack.data.nbytes / 1e6:.0f} MB) and "
            "would have to be sent to every worker of the cluster. Give its path, a "
            "Zarr or a dask array instead."
        )


def threads_of(client: Any) -> int:
    """Threads of all workers of a cluster, at least 1."""
    return max(sum(client.nthreads().values()), 1)


def run_on_cluster(
    client: Any,
    step: Step,
    work: Work,
    device: str,
    partial: Path,
    regions: list[Tile],
    on_done: Callable[[Tile], None],
) -> None:
    """Run a step of all regions on the workers, and wait for them.

    Parameters
    ----------
    client
        ``dask.distributed.Client``.
    step
        :func:`score_step` or :func:`finish_step`.
    work
        The run; its callbacks stay here.
    device
        What each worker computes on; ``"auto"``: each its best.
    partial
        Where results are written, on a file system that all workers share.
    regions
        To be done, in any order.
    on_done
        Called in this thread for each finished region.

    Raises
    ------
    Cancelled
        If the run was asked to stop; jobs under way end on their workers.
    """
    sent = replace(work, device=torch.device("cpu"), tick=_nobody, should_stop=_never)
    shared = client.scatter(sent, broadcast=True, hash=False)
    waiting = {
        client.submit(
            _run_job, step, shared, device, partial, region, pure=False
        ): region
        for region in regions
    }
    try:
        while waiting:
            for future in [future for future in waiting if future.done()]:
                region = waiting.pop(future)
                for note in future.result():
                    if note not in work.notes:
                        work.notes.append(note)
                on_done(region)
            if work.should_stop():
                raise Cancelled
            time.sleep(INTERVAL)
    finally:
        client.cancel(list(waiting))


def _run_job(
    step: Step, work: Work, device: str, partial: Path, region: Tile
) -> list[str]:
    """One region, on a worker; the notes of it."""
    where = choose_device(device)
    work.model.to(where)
    upscale = work.upscale
    if upscale is not None:
        upscale.resolver.to(where)
        upscale = replace(upscale, context=moved_to(upscale.context, where))
    here = replace(
        work,
        device=where,
        context=moved_to(work.context, where),
        upscale=upscale,
        notes=[],
    )
    with torch.inference_mode(), deterministic(where):
        step(here, OpenStore(partial, work.reference.stack), region)
    return here.notes


def _nobody(count: float) -> None:
    """Progress of a single job is not reported."""


def _never() -> bool:
    return False
