"""Executors of a step over its regions: this process, or workers of a dask cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_focus_fusion.device import choose_device, deterministic
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.store import OpenStore
from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_focus_fusion.engine.monitor import Found
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.engine.steps import Step
    from napari_focus_fusion.engine.store import Store
    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.tiling import Tile

#: Stacks in memory are sent to every worker; larger ones are refused.
MAX_SENT_BYTES = 64 << 20
#: Jobs for each thread of the cluster, so that none waits long for the last.
JOBS_A_THREAD = 4
#: Seconds between two polls of the jobs.
INTERVAL = 0.05
#: How often jobs are sent anew whose data were lost with their workers; those of a
#: worker that others can replace are done again by these without our help.
ROUNDS = 3
#: Seconds after which a cluster without workers is given up.
PATIENCE = 60


class Executor(Protocol):
    """Runs a step over regions."""

    def __call__(
        self,
        step: Step,
        point: Prepared,
        store: Store,
        regions: Sequence[Tile],
        monitor: Monitor,
    ) -> Iterator[Tile]:
        """Run a step over regions, in any order.

        Parameters
        ----------
        step
            What is done.
        point
            The time point.
        store
            Where results are read and written.
        regions
            Those to be done.
        monitor
            The run's.

        Yields
        ------
        Tile
            Each region when it is done, in the thread that asks.

        Raises
        ------
        Cancelled
            If the run was asked to stop.
        """


def run_locally(
    step: Step,
    point: Prepared,
    store: Store,
    regions: Sequence[Tile],
    monitor: Monitor,
) -> Iterator[Tile]:
    """Run a step in this thread, region by region; see :class:`Executor`."""
    for region in regions:
        step.run(point, store, region, monitor)
        yield region


def run_on_dask(
    step: Step,
    point: Prepared,
    store: Store,
    regions: Sequence[Tile],
    monitor: Monitor,
    *,
    client: Any,
) -> Iterator[Tile]:
    """Run a step on the workers of a ``dask.distributed.Client``.

    They write into the partial result, on a file system that all of them share; jobs
    under way when the run is stopped end on their workers. What a lost worker was
    computing is done again. See :class:`Executor`.

    Raises
    ------
    FocusFusionError
        If the cluster has no workers any more, or its client was closed.
    """
    assert isinstance(store, OpenStore)
    sent = point.to(torch.device("cpu")).without_sample()
    left = list(regions)
    for _ in range(ROUNDS):
        lost: list[Tile] = []
        yield from _run_round(step, sent, store, left, lost, monitor, client)
        left = lost
        if not left:
            return
    raise _lost_cluster(store, f"{ROUNDS} times all that a job needs was lost")


def _run_round(
    step: Step,
    sent: Prepared,
    store: OpenStore,
    regions: Sequence[Tile],
    lost: list[Tile],
    monitor: Monitor,
    client: Any,
) -> Iterator[Tile]:
    """Send what jobs need, and each region's job; add to `lost` what did not return."""
    _check_open(client, store)
    try:
        shared = client.scatter(sent, broadcast=True, hash=False, timeout=PATIENCE)
        waiting = {
            client.submit(
                _run_job, step, shared, store.partial, region, pure=False
            ): region
            for region in regions
        }
    except (TimeoutError, RuntimeError) as error:
        raise _lost_cluster(store, f"no worker answers ({error})") from error
    except (OSError, KeyError):
        # A worker that was lost just now: its connection is closed, or the scheduler
        # forgot it while it was choosing where to send.
        lost += regions
        time.sleep(1)
        return
    heard = time.monotonic()
    try:
        while waiting:
            _check_open(client, store)
            for future in [future for future in waiting if future.done()]:
                region = waiting.pop(future)
                if future.status in ("cancelled", "lost"):
                    lost.append(region)
                    continue
                monitor.recall(_outcome_of(future, store))
                yield region
            monitor.check_cancelled()
            if time.monotonic() - heard > PATIENCE:
                if not client.nthreads():
                    raise _lost_cluster(store, "it has no workers any more")
                heard = time.monotonic()
            time.sleep(INTERVAL)
    finally:
        if client.status == "running":
            client.cancel(list(waiting))


def _check_open(client: Any, store: OpenStore) -> None:
    if client.status in ("closed", "closing"):
        raise _lost_cluster(store, "its client was closed, or its scheduler ended")


def _outcome_of(future: Any, store: OpenStore) -> Found:
    """What a finished job returned; raises what it raised."""
    from distributed import KilledWorker

    try:
        outcome: Found = future.result()
    except KilledWorker as error:
        raise _lost_cluster(
            store, "one job after the other ended its worker, probably for memory"
        ) from error
    return outcome


def _lost_cluster(store: OpenStore, why: str) -> FocusFusionError:
    return FocusFusionError(
        f"The cluster does not compute any more: {why}. What is finished is kept in "
        f"{str(store.partial)!r}: the same call with a client of a running cluster, or "
        "with less memory= for each job, goes on from there."
    )


def _run_job(step: Step, point: Prepared, partial: Path, region: Tile) -> Found:
    """One region, on a worker."""
    device = choose_device(point.plan.settings.device)
    monitor = Monitor()
    with torch.inference_mode(), deterministic(device):
        store = OpenStore(partial, point.plan.stack)
        step.run(point.to(device), store, region, monitor)
    return monitor.found


def check_sendable(stack: FocusStack) -> None:
    """Raise if the pixels are in this process's memory and too many to send."""
    if isinstance(stack.data, np.ndarray) and stack.data.nbytes > MAX_SENT_BYTES:
        raise FocusFusionError(
            f"{stack.name!r} is in memory ({stack.data.nbytes / 1e6:.0f} MB) and "
            "would have to be sent to every worker of the cluster. Give its path, a "
            "Zarr or a dask array instead."
        )


def jobs_of(client: Any) -> int:
    """How many jobs keep all threads of a cluster busy, at least one."""
    return JOBS_A_THREAD * max(sum(client.nthreads().values()), 1)
