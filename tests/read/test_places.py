"""Where files lie: odd names, patterns, addresses, zipped Zarr."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tifffile
import zarr

import napari_focus_fusion as ff
from napari_focus_fusion.jobs import find_jobs
from napari_focus_fusion.opening import as_stack

ALL = slice(None)
PIXELS = np.random.default_rng(0).integers(0, 2**16, (5, 32, 48), np.uint16)
ODD = ("data [1]", "a, b", "Größe µm", "x{y}z", "100%", "it's", "#1 & 2; (copy)")


def write_zarr(path, **options) -> None:
    group = zarr.create_group(path, **options)
    group.create_array("0", data=PIXELS, chunks=(1, 16, 16))
    scale = [{"type": "scale", "scale": [2, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    axes = [{"name": name} for name in "zyx"]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
    }


@pytest.mark.parametrize("name", ODD)
def test_odd_names_of_folders_and_files(tmp_path, name) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for z, plane in enumerate(PIXELS):
        tifffile.imwrite(folder / f"{name} z{z}.tif", plane, metadata=None)
    stack_file = tmp_path / f"{name}.ome.tif"
    tifffile.imwrite(stack_file, PIXELS, metadata={"axes": "ZYX"})
    write_zarr(tmp_path / f"{name}.ome.zarr")
    for source in (
        *(folder, folder / "*.tif", f"{folder}/{name} z*.tif"),
        *(stack_file, stack_file.as_uri(), tmp_path / f"{name}.ome.zarr"),
        tmp_path / f"{name}.ome.t*",
    ):
        stack = as_stack(source)
        np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS)
        (job,), failures = find_jobs([str(source)])
        assert not failures
        assert as_stack(job.source).n_slices == 5


def test_brackets_still_choose_characters(tmp_path) -> None:
    folder = tmp_path / "run [2]"
    folder.mkdir()
    for z, plane in enumerate(PIXELS):
        tifffile.imwrite(folder / f"z{z}.tif", plane, metadata=None)
    stack = as_stack(folder / "z[1-3].tif")
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS[1:4])


def test_the_command_line_with_quoted_patterns(tmp_path) -> None:
    folder = tmp_path / "größe [1], b"
    folder.mkdir()
    for number in (1, 2):
        path = folder / f"Zelle [{number}], µ.ome.tif"
        tifffile.imwrite(path, PIXELS, metadata={"axes": "ZYX"})
    program = [sys.executable, "-m", "napari_focus_fusion", "fuse"]
    arguments = [str(folder / "*.ome.tif"), "-o", str(folder / "out"), "--model", "sml"]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    fused = folder / "out" / "Zelle [2], µ_fused.ome.tif"
    expected = ff.fuse(PIXELS, "sml", axes="ZYX").fused
    np.testing.assert_array_equal(tifffile.imread(fused), expected)


@pytest.mark.parametrize("suffix", [".ozx", ".ome.zarr.zip"])
def test_zipped_zarr(tmp_path, suffix) -> None:
    path = tmp_path / f"cells{suffix}"
    write_zarr(tmp_path / "plain" / "cells.zarr")
    inside = tmp_path / "plain" / "cells.zarr"
    with zipfile.ZipFile(path, "w") as file:
        for part in sorted(inside.rglob("*")):
            file.write(part, part.relative_to(inside))
    stack = as_stack(path)
    assert (stack.name, stack.axes, stack.pixel_size("Z")) == ("cells", "ZYX", 2)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS)
    (job,), _ = find_jobs([str(tmp_path)])
    assert job.name == "cells"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ff.FocusFusionError, match="cells"):
        as_stack(path).read(0, ALL, ALL, ALL)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address(tmp_path):
    """Of a web server with the files of the folder."""
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_zarr_on_the_web(address, tmp_path, capsys) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    write_zarr(tmp_path / "cells.ome.zarr", zarr_format=3)
    there = f"{address}/cells.ome.zarr"
    stack = as_stack(there)
    assert (stack.name, stack.source, stack.pixel_size("Z")) == ("cells", there, 2)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS)
    (job,), failures = find_jobs([there])
    assert job.source == there and not failures
    from napari_focus_fusion.cli import main

    out = tmp_path / "fused.tif"
    assert main(["fuse", there, "-o", str(out), "--model", "sml"]) == 0
    expected = ff.fuse(PIXELS, "sml", axes="ZYX").fused
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    with pytest.raises(ff.FocusFusionError, match=r"gone\.zarr.*address"):
        as_stack(f"{address}/gone.zarr")


def test_an_address_without_its_package_says_what_to_install(monkeypatch) -> None:
    for module in ("fsspec", "s3fs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ff.FocusFusionError, match="pip install"):
        as_stack("s3://bucket/cells.ome.zarr")
