"""Workers that are killed, and clients that are closed, in the middle of a run."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_focus_fusion import FocusFusionError, Progress, fuse
from napari_focus_fusion.engine import executors
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

distributed = pytest.importorskip("distributed")


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=50,
    ) as local:
        # Closed in a `with` of its own, a client leaves dask's scheduler set for good.
        client = distributed.Client(local)
        try:
            yield client
        finally:
            client.close()


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of four chunks of the result."""
    scene = make_scene(3, shape=(256, 256), slices=4)
    tiled = np.tile(scene.stack, (1, 3, 3))[:, :600, :700]
    path = tmp_path_factory.mktemp("lost") / "stack.zarr"
    zarr.create_array(path, data=tiled, chunks=(1, 128, 128))
    return path


def once(action: Callable[[], Any]) -> Callable[[Progress], None]:
    """Do something when the first region is being scored."""
    done = []

    def report(progress: Progress) -> None:
        if progress.stage == "Finding what is sharp" and not done:
            done.append(progress)
            action()

    return report


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_killed_worker_was_computing_is_done_again(
    workers: int, on_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone worker takes with it what all jobs need; its nanny starts another."""
    # On a busy machine a new worker takes more than a minute to start.
    monkeypatch.setattr(executors, "PATIENCE", 600)
    with cluster(workers) as client:

        def kill() -> None:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        there = fuse(
            on_disk,
            "sml",
            axes="ZYX",
            client=client,
            out=tmp_path / "fused.ome.zarr",
            progress=once(kill),
        )
    here = fuse(on_disk, "sml", axes="ZYX", device="cpu")
    np.testing.assert_array_equal(there.fused, here.fused)
    np.testing.assert_array_equal(there.decision, here.decision)


def test_a_closed_client_is_said_in_words_and_another_goes_on(
    on_disk: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fused.ome.zarr"
    with cluster(1) as client:
        another = distributed.Client(client.scheduler.address, set_as_default=False)
        options: dict[str, Any] = {"axes": "ZYX", "out": out}
        close = once(client.close)
        with pytest.raises(FocusFusionError, match="its client was closed"):
            fuse(on_disk, "sml", client=client, progress=close, **options)
        there = fuse(on_disk, "sml", client=another, **options)
        another.close()
    here = fuse(on_disk, "sml", axes="ZYX", device="cpu")
    np.testing.assert_array_equal(there.fused, here.fused)
