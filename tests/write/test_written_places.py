"""Inputs are never written to, whatever object or path names them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

from napari_focus_fusion import FocusFusionError, as_stack, fuse
from napari_focus_fusion.write.places import places_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PIXELS = np.random.default_rng(0).integers(0, 4000, (4, 40, 48)).astype("u2")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, byte by byte."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def image(path: Path) -> zarr.Group:
    """An OME-Zarr of one level."""
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=PIXELS, chunks=(1, 40, 48))
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    levels = [{"path": "0", "coordinateTransformations": [scale]}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": levels}],
    }
    return group


def opened_lazily(path: Path) -> da.Array:
    """Like a reader that makes one delayed task of each slice."""

    def one(z: int) -> Any:
        return zarr.open_array(path / "0", mode="r")[z]

    slices = [dask.delayed(one)(z) for z in range(4)]
    return da.stack([da.from_delayed(s, (40, 48), "u2") for s in slices])


ZARRS: dict[str, Any] = {
    "path": lambda path: path,
    "text": str,
    "address": lambda path: f"file://{path}",
    "group": lambda path: zarr.open_group(path, mode="r"),
    "array": lambda path: zarr.open_group(path, mode="r")["0"],
    "array by address": lambda path: zarr.open(f"file://{path}/0", mode="r"),
    "dask": lambda path: da.from_zarr(path / "0"),
    "dask, reckoned": lambda path: da.from_zarr(path / "0").rechunk((4, 20, 48)) + 1,
    "dask, delayed": opened_lazily,
    "turned": lambda path: as_stack(zarr.open(path / "0", mode="r"), axes="YXZ"),
    "slices": lambda path: [da.from_zarr(path / "0")[z] for z in range(4)],
}


@pytest.mark.parametrize("how", ZARRS)
def test_a_zarr_is_never_replaced_nor_written_into(how: str, tmp_path: Path) -> None:
    path = tmp_path / "raw, of Anna.ome.zarr"
    image(path)
    before = contents(tmp_path)
    os.symlink(path, tmp_path / "link.ome.zarr")
    source = ZARRS[how](path)
    axes = None if isinstance(source, str | Path | zarr.Group) else "ZYX"
    stack = as_stack(source, axes=None if how == "turned" else axes)
    for target in (path, tmp_path / "link.ome.zarr", path / "fused.ome.zarr"):
        with pytest.raises(FocusFusionError, match=r"the stack itself|lies inside"):
            fuse(stack, "sml", out=target, overwrite=True)
    result = fuse(stack, "sml")
    for target in (path, path / "0" / "fused.ome.tif"):
        with pytest.raises(FocusFusionError, match=r"the stack itself|lies inside"):
            result.save(target, overwrite=True)
    os.unlink(tmp_path / "link.ome.zarr")
    assert contents(tmp_path) == before
    fuse(stack, "sml", out=tmp_path / "fused.ome.zarr")
    shutil.rmtree(tmp_path / "fused.ome.zarr")
    assert contents(tmp_path) == before


def mapped(path: Path) -> np.ndarray:
    return tifffile.memmap(path, mode="r")


STORES: list[Any] = []


@pytest.fixture(autouse=True)
def closed_stores() -> Iterator[None]:
    yield
    while STORES:
        STORES.pop().close()


def zarr_view(path: Path) -> zarr.Array:
    STORES.append(tifffile.imread(path, aszarr=True))
    return zarr.open(STORES[-1], mode="r")


FILES: dict[str, Any] = {
    "path": lambda path: path,
    "pattern": lambda path: str(path.parent / "*.tif"),
    "memmap": mapped,
    "view of a memmap": lambda path: np.asarray(mapped(path))[:, 4:].view(np.uint16),
    "dask over a memmap": lambda path: da.map_blocks(
        lambda whole: np.asarray(whole), mapped(path), dtype="u2", chunks=(4, 40, 48)
    ),
    "zarr view": zarr_view,
    "dask over a zarr view": lambda path: da.from_zarr(zarr_view(path)),
    "delayed": lambda path: da.from_delayed(
        dask.delayed(tifffile.imread)(str(path)), (4, 40, 48), "u2"
    ),
}


@pytest.mark.parametrize("how", FILES)
def test_a_file_is_never_replaced(how: str, tmp_path: Path) -> None:
    path = tmp_path / "raw, of Anna.ome.tif"
    tifffile.imwrite(path, PIXELS, photometric="minisblack")
    before = contents(tmp_path)
    stack = as_stack(FILES[how](path), axes="ZYX")
    result = fuse(stack, "sml")
    with pytest.raises(FocusFusionError, match="the stack itself"):
        result.save(path, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("folder", ["Miller", "Miller, Anna"])
def test_a_slice_is_never_replaced_whatever_its_name(
    folder: str, tmp_path: Path
) -> None:
    slices = tmp_path / folder
    slices.mkdir()
    for z, plane in enumerate(PIXELS):
        tifffile.imwrite(slices / f"field 2, z{z}.tif", plane)
    before = contents(tmp_path)
    result = fuse(slices, "sml")
    for z in range(4):
        with pytest.raises(FocusFusionError, match="the stack itself"):
            result.save(slices / f"field 2, z{z}.tif", overwrite=True)
    assert contents(tmp_path) == before
    result.save(slices / "fused.ome.tif")


def test_a_reference_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "brightfield.tif"
    tifffile.imwrite(path, PIXELS, photometric="minisblack")
    result = fuse(PIXELS, "sml", axes="ZYX", reference=as_stack(mapped(path)))
    with pytest.raises(FocusFusionError, match="the stack itself"):
        result.save(path, overwrite=True)
    image(tmp_path / "brightfield.ome.zarr")
    out = tmp_path / "brightfield.ome.zarr"
    other = as_stack(out)
    with pytest.raises(FocusFusionError, match="the stack itself"):
        fuse(PIXELS, "sml", axes="ZYX", reference=other, out=out, overwrite=True)


def test_only_existing_places_are_found_and_nothing_is_read(tmp_path: Path) -> None:
    image(tmp_path / "a.ome.zarr")
    array = da.from_zarr(tmp_path / "a.ome.zarr" / "0")
    shutil.rmtree(tmp_path / "a.ome.zarr" / "0" / "c")
    assert places_of(array) == {str(tmp_path / "a.ome.zarr" / "0")}
    assert places_of(PIXELS, str(tmp_path / "b.tif"), "memory://a", None) == frozenset()
