"""Where maps and pixels are kept, and what is left when a run does not finish."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_focus_fusion import FocusFusionError, as_stack
from napari_focus_fusion.decision import Maps
from napari_focus_fusion.engine import store as module
from napari_focus_fusion.engine.store import (
    MemoryStore,
    ZarrStore,
    get_raw,
    put_finished,
    put_raw,
)
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from pathlib import Path

    from napari_focus_fusion.stack import FocusStack

HIGH, WIDE = 100, 130
RUN = {"model": "sml", "stack": "abc"}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 32)


def stack_of(axes: str = "ZYX", **options: Any) -> FocusStack:
    sizes = {"T": 2, "C": 3, "Z": 4, "Y": HIGH, "X": WIDE, "S": 3}
    shape = [sizes[axis] for axis in axes]
    pixels = np.random.default_rng(0).integers(0, 60000, shape, dtype=np.uint16)
    return as_stack(pixels, axes=axes, **options)


def random_maps(seed: int, shape: tuple[int, int] = (HIGH, WIDE)) -> Maps:
    rng = np.random.default_rng(seed)
    return Maps(
        rng.integers(0, 4, shape).astype(np.uint16),
        rng.random(shape, np.float32),
        rng.random(shape, np.float32),
    )


def crop_maps(maps: Maps, tile: Tile) -> Maps:
    return Maps(*(a[tile.y, tile.x] for a in maps))


@pytest.mark.parametrize("kind", ["memory", "zarr"])
@pytest.mark.parametrize("axes", ["ZYX", "ZYXS", "CZYX", "TZCYX", "TZYXS"])
def test_regions_come_together_in_the_axes_of_the_stack(
    kind: str, axes: str, tmp_path: Path
) -> None:
    stack = stack_of(axes, scale={"Z": 2.5, "Y": 0.1, "X": 0.1})
    store: MemoryStore | ZarrStore = MemoryStore(stack)
    if kind == "zarr":
        store = ZarrStore(tmp_path / "a.ome.zarr", stack, RUN, overwrite=False)
    for t in range(stack.n_times):
        maps = random_maps(t)
        # The first slice as it is, which any layout must return.
        pixels = stack.read(t, slice(0, 1), slice(None), slice(None))[:, 0]
        for region in TilePlan(HIGH, WIDE, (64, 96), align=(32, 32)):
            cropped = crop_maps(maps, region)
            put_raw(store.raw, t, region, cropped)
            block = pixels[:, region.y, region.x]
            put_finished(store.outputs, stack, t, region, block, cropped)
        around = Tile(20, 77, 31, 99)
        for mine, other in zip(
            get_raw(store.raw, t, around), crop_maps(maps, around), strict=True
        ):
            np.testing.assert_array_equal(mine, other)
    outputs = store.outputs
    if isinstance(store, ZarrStore):
        outputs = store.finish({"model": "sml"})
    first = np.take(np.asarray(stack.data), 0, stack.axes.index("Z"))
    np.testing.assert_array_equal(np.asarray(outputs["fused"][...]), first)
    for t in range(stack.n_times):
        maps, key = random_maps(t), (t,) if "T" in axes else ()
        found = {name: np.asarray(outputs[name][...])[key] for name in outputs}
        np.testing.assert_array_equal(found["decision"], maps.labels)
        np.testing.assert_array_equal(found["confidence"], maps.confidence)
        np.testing.assert_allclose(found["depth"], maps.depth * 2.5, rtol=1e-6)


def test_an_unfinished_result_lies_under_another_name(tmp_path: Path) -> None:
    store = ZarrStore(tmp_path / "a.ome.zarr", stack_of(), RUN, overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr.partial"]
    store.finish({})
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]
    left = {p.name for p in (tmp_path / "a.ome.zarr").iterdir()}
    assert not left & {"raw", "run.json", "finished_chunks"}


def test_finished_chunks_are_known_however_the_plane_is_cut_next_time(
    tmp_path: Path,
) -> None:
    path, stack = tmp_path / "a.ome.zarr", stack_of()
    store = ZarrStore(path, stack, RUN, overwrite=False)
    store.mark_done("scored", 0, Tile(0, 64, 0, WIDE))
    store.close()
    again = ZarrStore(path, stack, RUN, overwrite=False)
    assert again.is_done("scored", 0, Tile(0, 32, 0, 64))
    assert again.is_done("scored", 0, Tile(32, 64, 96, WIDE))
    assert not again.is_done("scored", 0, Tile(32, 96, 0, WIDE))
    assert not again.is_done("fused", 0, Tile(0, 32, 0, 64))
    assert not again.is_done("scored", 1, Tile(0, 32, 0, 64))


def test_what_an_earlier_run_wrote_is_still_there(tmp_path: Path) -> None:
    path, stack, maps = tmp_path / "a.ome.zarr", stack_of(), random_maps(0)
    region = Tile(0, 32, 0, WIDE)
    store = ZarrStore(path, stack, RUN, overwrite=False)
    put_raw(store.raw, 0, region, crop_maps(maps, region))
    store.close()
    again = ZarrStore(path, stack, RUN, overwrite=False)
    for mine, other in zip(
        get_raw(again.raw, 0, region), crop_maps(maps, region), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("damage", ["other run", "no run", "half a run"])
def test_what_another_run_left_is_refused_and_kept(damage: str, tmp_path: Path) -> None:
    path, stack = tmp_path / "a.ome.zarr", stack_of()
    store = ZarrStore(path, stack, RUN, overwrite=False)
    store.close()
    run = store.partial / "run.json"
    if damage == "no run":
        run.unlink()
    if damage == "half a run":
        run.write_text(run.read_text()[:12])
    other = RUN | {"stack": "another"} if damage == "other run" else RUN
    with pytest.raises(FocusFusionError, match=r"a\.ome\.zarr\.partial.*Delete it"):
        ZarrStore(path, stack, other, overwrite=False)
    assert store.notes.is_dir()


def test_an_existing_result_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    path, stack = tmp_path / "a.ome.zarr", stack_of()
    ZarrStore(path, stack, RUN, overwrite=False).finish({"number": 1})
    with pytest.raises(FocusFusionError, match="exists already"):
        ZarrStore(path, stack, RUN, overwrite=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]
    ZarrStore(path, stack, RUN, overwrite=True).finish({"number": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    assert attributes["napari_focus_fusion"]["provenance"] == {"number": 2}


def test_the_stack_itself_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    ZarrStore(path, stack_of("TZYX"), RUN, overwrite=False).finish({})
    source = as_stack(path, axes="ZYX")
    with pytest.raises(FocusFusionError, match="never overwritten"):
        ZarrStore(path, source, RUN, overwrite=True)
    assert path.is_dir()


@pytest.mark.parametrize("name", ["a.tif", "a", "a.zarr.tif", "zarr"])
def test_only_an_ome_zarr_can_be_written_by_region(name: str, tmp_path: Path) -> None:
    with pytest.raises(FocusFusionError, match=r"does not end in \.ome\.zarr"):
        ZarrStore(tmp_path / name, stack_of(), RUN, overwrite=False)
    assert not list(tmp_path.iterdir())
