"""Sources: the metadata of a file, before a stack is made of it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read import files_in, read_path

PIXELS = np.random.default_rng(0).integers(0, 2**16, (5, 40, 50), np.uint16)


def test_the_metadata_of_a_tiff(tmp_path) -> None:
    path = str(tmp_path / "cells.ome.tif")
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "nm"}
    tifffile.imwrite(path, PIXELS, metadata=metadata)
    source = read_path(path)
    assert (source.axes, source.name, source.path) == ("ZYX", "cells", path)
    assert (source.scale, source.units) == ({"Z": 2}, {"Z": "nanometer"})
    assert source.valid is None
    np.testing.assert_array_equal(source.data[1:3, 5:9, 2:4], PIXELS[1:3, 5:9, 2:4])


def test_axes_that_no_metadata_name_are_left_open(tmp_path) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=PIXELS)
    source = read_path(str(tmp_path / "a.zarr"))
    assert (source.axes, source.name) == (None, "a")
    np.testing.assert_array_equal(source.data[2], PIXELS[2])


def test_an_image_file_is_one_slice(tmp_path) -> None:
    path = str(tmp_path / "p.png")
    Image.fromarray(PIXELS[0]).save(path)
    source = read_path(path)
    assert (source.axes, source.name, source.scale) == ("YX", "p", {})
    np.testing.assert_array_equal(source.data[...], PIXELS[0])


def test_what_a_path_stands_for(tmp_path) -> None:
    for i in (10, 9, 1):
        Image.fromarray(PIXELS[0]).save(tmp_path / f"z{i}.png")
    slices = [str(tmp_path / f"z{i}.png") for i in (1, 9, 10)]
    assert files_in(str(tmp_path)) == files_in(f"{tmp_path}/z*") == slices
    assert files_in(slices[0]) == []
    assert files_in("https://example.org/cells.ome.zarr") == []
    zarr.create_group(tmp_path / "a.zarr")
    assert files_in(str(tmp_path / "a.zarr")) == []
    with pytest.raises(FocusFusionError, match="no file or folder"):
        files_in(str(tmp_path / "gone"))


def test_readers_do_not_import_stack() -> None:
    code = """
import sys
import napari_focus_fusion.read.ome_zarr
import napari_focus_fusion.read.image_files
import napari_focus_fusion.read.tiff
above = ("stack", "opening", "write", "result")
print([name for name in above if f"napari_focus_fusion.{name}" in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
