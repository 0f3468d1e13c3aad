"""A real dask cluster of processes gives what this process gives.

Also when workers are killed, or the client is closed, in the middle of a run. One
cluster serves all tests: it takes longer to start than they take.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
import zarr

from forks import METHOD, preload
from napari_focus_fusion.engine import executors
from napari_focus_fusion.engine.executors import check_sendable
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.models.registry import models
from napari_focus_fusion.models.sesf import SESF
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_focus_fusion import FusionResult, Progress

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    settings = {
        "distributed.worker.multiprocessing-method": METHOD,
        "distributed.worker.profile.enabled": False,
    }
    with dask.config.set(settings):
        distributed.utils.get_mp_context()  # says what is imported before forks
        preload()
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster:
            # Closed in a `with` of its own, a client leaves dask's scheduler set.
            client = distributed.Client(cluster)
            try:
                yield client
            finally:
                client.close()


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of more than one chunk of the result along both axes."""
    scene = make_scene(3, shape=(180, 180), slices=3, electrons=4000)
    tiled = np.tile(scene.stack, (1, 3, 3))[:, :520, :530]
    path = tmp_path_factory.mktemp("cluster") / "stack.zarr"
    zarr.create_array(path, data=tiled, chunks=(1, 128, 128))
    return path


@pytest.fixture(scope="module")
def by_sml(on_disk: Path) -> FusionResult:
    """What this process makes of it."""
    return fuse(on_disk, "sml", axes="ZYX", device="cpu")


@pytest.mark.parametrize("name", ["sml", "sesf"])
def test_the_same_pixels_as_here(
    name: str, client: Any, on_disk: Path, by_sml: FusionResult, tmp_path: Path
) -> None:
    model: Any = name
    here, options = by_sml, dict[str, Any]()
    if name == "sesf":  # its context travels, and so do weights from no file
        model = SESF()
        model.spec = models()["sesf"]
        options = {"surface": 0}
        here = fuse(on_disk, model, axes="ZYX", device="cpu", **options)
    there = fuse(
        on_disk,
        model,
        axes="ZYX",
        device="cpu",
        client=client,
        out=tmp_path / "fused.ome.zarr",
        **options,
    )
    assert np.mean(np.asarray(there.decision) == here.decision) > 0.9999
    same = np.asarray(there.decision) == here.decision
    difference = np.abs(np.asarray(there.fused).astype(int) - here.fused.astype(int))
    assert difference[same].max() <= 1
    assert "dask cluster" in there.provenance["device"]


@pytest.mark.skipif("mscnn" not in models(), reason="it has no weights")
def test_workers_find_what_no_slice_shows(
    client: Any, on_disk: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fused.ome.zarr"
    there = fuse(on_disk, "mscnn", axes="ZYX", client=client, out=out, memory="64MB")
    slices = zarr.open_array(on_disk, mode="r")[:].astype(float)
    fused = np.asarray(there.fused).astype(float)
    expected = fused - fused.clip(slices.min(0), slices.max(0))
    np.testing.assert_array_equal(there.beyond, expected)
    # In every region, some of which are narrow.
    assert np.all([expected[:512].any(), expected[512:].any(), expected[:, 512:].any()])


def test_stopping_keeps_what_is_done(
    client: Any, on_disk: Path, by_sml: FusionResult, tmp_path: Path
) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    out = tmp_path / "fused.ome.zarr"
    with pytest.raises(Cancelled):
        fuse(on_disk, "sml", axes="ZYX", client=client, out=out, should_stop=stop)
    assert not out.exists()
    assert Path(f"{out}.partial").exists()
    again = fuse(on_disk, "sml", axes="ZYX", client=client, out=out)
    np.testing.assert_array_equal(again.fused, by_sml.fused)


def test_an_error_on_a_worker_keeps_its_message(client: Any, tmp_path: Path) -> None:
    broken = np.ones((3, 40, 40), np.float32)
    broken[1, 7, 9] = np.inf
    with pytest.raises(FocusFusionError, match="slice 1, row 7, column 9"):
        fuse(broken, "sml", client=client, out=tmp_path / "fused.ome.zarr")


def test_a_cluster_needs_a_place_to_write(client: Any, on_disk: Path) -> None:
    with pytest.raises(FocusFusionError, match="out="):
        fuse(on_disk, "sml", axes="ZYX", client=client)


def test_large_stacks_in_memory_are_not_sent() -> None:
    with pytest.raises(FocusFusionError, match="every worker"):
        check_sendable(as_stack(np.zeros((40, 1000, 1000), np.uint16)))


def once(action: Callable[[], Any]) -> Callable[[Progress], None]:
    """Do something when the first region is being scored."""
    done = []

    def report(progress: Progress) -> None:
        if progress.stage == "Finding what is sharp" and not done:
            done.append(progress)
            action()

    return report


def test_a_closed_client_is_said_in_words_and_another_goes_on(
    client: Any, on_disk: Path, by_sml: FusionResult, tmp_path: Path
) -> None:
    mine = distributed.Client(client.scheduler.address, set_as_default=False)
    options: dict[str, Any] = {"axes": "ZYX", "out": tmp_path / "fused.ome.zarr"}
    with pytest.raises(FocusFusionError, match="its client was closed"):
        fuse(on_disk, "sml", client=mine, progress=once(mine.close), **options)
    there = fuse(on_disk, "sml", client=client, **options)
    np.testing.assert_array_equal(there.fused, by_sml.fused)


@pytest.mark.parametrize("how_many", [1, 2])
def test_what_killed_workers_were_computing_is_done_again(
    how_many: int,
    client: Any,
    on_disk: Path,
    by_sml: FusionResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of them take with them what all jobs need; nannies start others."""
    # On a busy machine a new worker takes more than a minute to start.
    monkeypatch.setattr(executors, "PATIENCE", 600)

    def kill() -> None:
        for process in list(client.run(os.getpid).values())[:how_many]:
            os.kill(process, signal.SIGKILL)

    there = fuse(
        on_disk,
        "sml",
        axes="ZYX",
        client=client,
        out=tmp_path / "fused.ome.zarr",
        progress=once(kill),
    )
    np.testing.assert_array_equal(there.fused, by_sml.fused)
    np.testing.assert_array_equal(there.decision, by_sml.decision)


# The stand-in does not wait for its processes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_of_a_queue_give_what_this_process_gives(
    on_disk: Path, by_sml: FusionResult, tmp_path: Path
) -> None:
    """The recipe for SLURM, by the job queue's stand-in, whose jobs are processes."""
    queue = pytest.importorskip("dask_jobqueue.local")
    with queue.LocalCluster(
        cores=1, processes=1, memory="1GB", log_directory=str(tmp_path / "logs")
    ) as cluster:
        cluster.scale(jobs=2)
        client = distributed.Client(cluster, set_as_default=False)
        try:
            client.wait_for_workers(2, timeout=120)
            result = fuse(
                on_disk,
                "sml",
                axes="ZYX",
                device="cpu",
                client=client,
                out=tmp_path / "out.ome.zarr",
            )
        finally:
            client.close()
    np.testing.assert_array_equal(result.decision, by_sml.decision)
    np.testing.assert_array_equal(result.fused, by_sml.fused)
