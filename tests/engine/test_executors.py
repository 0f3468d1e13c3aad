"""A real dask cluster of processes gives what this process gives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_focus_fusion.engine.executors import check_sendable
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.models.registry import models
from napari_focus_fusion.models.sesf import SESF
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Iterator

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of more than one chunk of the result along both axes."""
    scene = make_scene(3, shape=(256, 256), slices=4, electrons=4000)
    tiled = np.tile(scene.stack, (1, 3, 3))[:, :600, :700]
    path = tmp_path_factory.mktemp("cluster") / "stack.zarr"
    stored = zarr.create_array(
        path, shape=tiled.shape, chunks=(1, 128, 128), dtype=tiled.dtype
    )
    stored[:] = tiled
    return path


@pytest.mark.parametrize("name", ["sml", "sesf"])
def test_the_same_pixels_as_here(
    name: str, client: Any, on_disk: Path, tmp_path: Path
) -> None:
    model: Any = name
    if name == "sesf":  # its context travels, and so do weights from no file
        model = SESF()
        model.spec = models()["sesf"]
    here = fuse(on_disk, model, axes="ZYX", device="cpu")
    there = fuse(
        on_disk,
        model,
        axes="ZYX",
        device="cpu",
        client=client,
        out=tmp_path / "fused.ome.zarr",
    )
    assert np.mean(np.asarray(there.decision) == here.decision) > 0.9999
    same = np.asarray(there.decision) == here.decision
    difference = np.abs(np.asarray(there.fused).astype(int) - here.fused.astype(int))
    assert difference[same].max() <= 1
    assert "dask cluster" in there.provenance["device"]


def test_stopping_keeps_what_is_done(
    client: Any, on_disk: Path, tmp_path: Path
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
    here = fuse(on_disk, "sml", axes="ZYX")
    np.testing.assert_array_equal(again.fused, here.fused)


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
