"""What killed runs, other runs and failing disks leave: nothing is lost or mixed up."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import killed_runs
import numpy as np
import pytest
import zarr

from forks import run_forked
from napari_focus_fusion import Cancelled, FocusFusionError, as_stack, fuse
from napari_focus_fusion.engine import plan, store
from small_models import relief, same_result

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CHUNK", 64)
    monkeypatch.setattr(store, "CHUNK", 64)
    # Regions of one chunk each.
    monkeypatch.setattr(plan, "BYTES_A_PIXEL", (16 << 20) // 64**2 - 100)


def fused(pixels: Any, out: Path | None, **options: Any) -> Any:
    labels = np.indices((100, 120))[1] % 64 // 32
    options = {"decision": labels, "out": out, "memory": 16 << 20, **options}
    return fuse(pixels, "sml", axes="ZYX", **options)


def after(regions: int, out: Path) -> dict[str, Any]:
    """Options that cancel a run when it has fused so many regions."""
    notes = out.with_name(f"{out.name}.partial") / "finished_chunks"
    return {"should_stop": lambda: len(list(notes.glob("fused-*"))) >= regions}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forks of one process")
@pytest.mark.parametrize(("before", "how_many"), [("nothing", 5), ("before", 4)])
def test_the_same_call_goes_on_from_any_instant(
    before: str, how_many: int, tmp_path: Path
) -> None:
    """Also onto an older result: at each instant the old or the new one is there."""
    done = run_forked(killed_runs.main, tmp_path, before == "before", how_many)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("damage", ["deleted", "cut short", "one bit", "metadata"])
def test_a_damaged_piece_of_a_partial_result_is_made_again(
    damage: str, tmp_path: Path
) -> None:
    pixels, out = relief(100, 120, 5).stack, tmp_path / "a.ome.zarr"
    expected = fused(pixels, tmp_path / "whole.ome.zarr")
    with pytest.raises(Cancelled):
        fused(pixels, out, **after(2, out))
    partial = tmp_path / "a.ome.zarr.partial"
    files = [p for p in partial.rglob("*") if p.is_file() and "finished" not in str(p)]
    chunks = [p for p in files if p.parts[-4:-2].count("c") or p.parts[-3] == "c"]
    raw = [p for p in chunks if "raw" in p.parts]
    assert len(raw) == 12 and len(chunks) == 20
    damaged = [p for p in files if p.name == "zarr.json"]
    if damage != "metadata":
        damaged = [raw[0], next(p for p in chunks if "raw" not in p.parts)]
    for path in damaged:
        content = path.read_bytes()
        if damage == "deleted":
            path.unlink()
        elif damage == "one bit":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        else:
            path.write_bytes(content[: len(content) // 2])
    same_result(fused(pixels, out), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "a.ome.zarr",
        "whole.ome.zarr",
    ]


@pytest.mark.usefixtures("many_chunks")
@pytest.mark.parametrize("kind", ["memory", "masked", "dask", "zarr", "mapped"])
def test_one_other_pixel_is_another_run(kind: str, tmp_path: Path) -> None:
    """Wherever it is, and also where the file keeps its size."""
    import dask.array as da

    pixels, out = relief(100, 120, 5).stack.copy(), tmp_path / "a.ome.zarr"
    place = (3, 7, 93)  # far from the diagonal

    def source() -> Any:
        if kind == "masked":
            return np.ma.masked_equal(pixels, pixels[place])
        if kind == "dask":
            return da.from_array(pixels, chunks=(1, 50, 50))
        if kind == "zarr":
            return zarr.open_array(tmp_path / "in.zarr", mode="r")
        if kind == "mapped":
            return np.load(tmp_path / "in.npy", mmap_mode="r")
        return pixels

    np.save(tmp_path / "in.npy", pixels)
    stored = zarr.create_array(
        tmp_path / "in.zarr", data=pixels, chunks=(1, 50, 60), compressors=None
    )
    with pytest.raises(Cancelled):
        fused(source(), out, **after(1, out))
    with pytest.raises(Cancelled):  # the same
        fused(source(), out, should_stop=lambda: True)
    pixels[place] = stored[place] = pixels[place] ^ 1
    np.save(tmp_path / "in.npy", pixels)
    with pytest.raises(FocusFusionError, match="unfinished result of another run"):
        fused(source(), out)


def test_two_runs_do_not_write_one_result(tmp_path: Path) -> None:
    out, pixels = tmp_path / "a.ome.zarr", relief(100, 120, 5).stack
    refused: list[str] = []

    def meanwhile() -> bool:
        if not refused:
            with pytest.raises(FocusFusionError) as caught:
                fused(pixels, out)
            refused.append(str(caught.value))
        return False

    fused(pixels, out, should_stop=meanwhile)
    assert "Another run is writing" in refused[0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "a.ome.zarr.partial"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(FocusFusionError, match="Delete it, or choose another name"):
        fused(relief(100, 120, 5).stack, tmp_path / "a.ome.zarr")
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("many_chunks")
def test_what_a_resumed_run_found_before_stands_in_its_notes(tmp_path: Path) -> None:
    pixels = np.ma.array(relief(100, 120, 5).stack)
    pixels[1, 20:30, 20:30] = np.ma.masked  # in the first region
    expected = fuse(as_stack(pixels, axes="ZYX"), "sml").provenance["notes"]
    assert "100 pixels" in " ".join(expected)
    out = tmp_path / "a.ome.zarr"
    options: dict[str, Any] = {"out": out, "memory": 16 << 20}
    with pytest.raises(Cancelled):
        fuse(pixels, "sml", axes="ZYX", **options, **after(1, out))
    result = fuse(pixels, "sml", axes="ZYX", **options)
    assert set(expected) <= set(result.provenance["notes"])
