from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr

from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.stack import FocusStack
from small_results import pixels_of, result_for

CASES = [
    ("ZYX", 1, {}),
    ("ZYX", 2, {}),
    ("ZYXS", 2, {}),
    ("TZYXS", 1, {}),
    ("TCZYX", 1, {"dtype": "float32", "channel_names": ["a", "b", "c"]}),
    ("ZCYX", 3, {}),
    ("CTZYX", 1, {}),
    ("YXZ", 1, {"dtype": "float64"}),
    ("ZYX", 1, {"dtype": "int16", "sizes": {"Y": 1030, "X": 1101}}),
]


@pytest.mark.parametrize(("axes", "scale", "fields"), CASES)
@pytest.mark.parametrize("kind", ["r.ome.tif", "r.tiff", "r.ome.zarr"])
def test_saved_results_read_back_the_same(axes, scale, fields, kind, tmp_path) -> None:
    result = result_for(axes, scale, **dict(fields))
    stack = result.stack
    paths = result.save(tmp_path / kind)

    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)
    if kind.endswith("zarr"):
        yaozarrs.validate_zarr_store(paths[0])
        inside = ["", "labels/decision", "confidence", "depth", "consistency"]
        paths = [paths[0] / place for place in inside[: 4 + (scale > 1)]]
    outputs = ("fused", "decision", "confidence", "depth", "consistency")
    outputs = outputs[: 4 + (scale > 1)]
    for output, path in zip(outputs, paths, strict=True):
        read = as_stack(path)
        original = getattr(result, output)
        wanted_axes = stack.fused_axes if output == "fused" else stack.map_axes
        want = FocusStack(original, wanted_axes)
        np.testing.assert_array_equal(pixels_of(read), pixels_of(want))
        assert read.dtype == want.dtype
        assert set(read.axes) == set(wanted_axes)
        factor = scale if output == "fused" else 1
        assert read.pixel_size("Y") == pytest.approx(0.1 / factor)
        assert read.pixel_size("X") == pytest.approx(0.2 / factor)
        assert read.unit("X") == "micrometer"
        if "T" in axes:
            assert (read.pixel_size("T"), read.unit("T")) == (60, "second")
    assert as_stack(paths[0]).channel_names == stack.channel_names


@pytest.mark.parametrize("axes", ["ZYX", "ZYXS", "TCZYX", "CTZYX", "YXZ", "YXZC"])
@pytest.mark.parametrize("kind", ["r.ome.tif", "r.ome.zarr"])
def test_what_lies_beyond_the_slices_is_saved_beside(axes, kind, tmp_path) -> None:
    names = ("a", "b", "c") if "C" in axes else ()
    result = result_for(axes, reconstructed=True, channel_names=names)
    stack, paths = result.stack, result.save(tmp_path / kind)
    where = tmp_path / "r_beyond.ome.tif"
    if kind.endswith("zarr"):
        yaozarrs.validate_zarr_store(paths[0])
        where = paths[0] / "beyond"
        assert "S" not in zarr.open_group(where).attrs[METADATA_KEY]["axes"]
    else:
        assert paths[-1] == where and sorted(tmp_path.iterdir()) == sorted(paths)
        named = stack.channel_names or ("beyond",)
        assert as_stack(where).channel_names == named
    read = as_stack(where)
    assert result.beyond.min() < 0 < result.beyond.max()
    want = FocusStack(result.beyond, stack.channel_axes)
    np.testing.assert_array_equal(pixels_of(read), pixels_of(want))
    assert read.dtype == np.float32
    assert (read.pixel_size("Y"), read.unit("X")) == (0.1, "micrometer")


def test_provenance_travels_in_files(tmp_path) -> None:
    result = result_for("ZYX")
    first, *_ = result.save(tmp_path / "r.ome.tif")
    with tifffile.TiffFile(first) as tiff:
        image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    description = json.loads(image["Description"])
    assert description == {
        "output": "fused",
        "model": "sesf",
        "version": 0 if description["version"] == 0 else "0",
        "where": "0.5",
    }
    (path,) = result.save(tmp_path / "r.ome.zarr")
    ours = zarr.open_group(path).attrs["napari_focus_fusion"]
    assert ours["provenance"] == {"model": "sesf", "version": "0", "where": "0.5"}


def test_half_floats_become_floats_in_tiff_and_stay_in_zarr(tmp_path) -> None:
    result = result_for("ZYX", dtype="float16")
    for name, dtype in (("r.tif", "float32"), ("r.zarr", "float16")):
        stack = as_stack(result.save(tmp_path / name)[0])
        assert stack.dtype == dtype
        np.testing.assert_array_equal(pixels_of(stack)[0, 0], result.fused)


@pytest.mark.parametrize("name", ["r.ome.tif", "r.ome.zarr"])
def test_large_results_are_saved_by_region(name: str, tmp_path) -> None:
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("address space is measured on Linux only")
    code = f"""
import resource
import numpy as np
import zarr
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.opening import as_stack
def empty(dtype, shape=(6000, 6000)):
    return zarr.create_array({{}}, shape=shape, chunks=(512, 512), dtype=dtype)
small = as_stack(np.zeros((2, 40, 40), np.uint16))
maps = [np.zeros((40, 40), t) for t in ("u2", "f4", "f4")]
FusionResult(small.data[0], *maps, small, {{}}).save({str(tmp_path / ("w" + name))!r})
stack = as_stack(zarr.create_array({{}}, shape=(2, 6000, 6000), dtype="u2"))
result = FusionResult(empty("u2"), empty("u2"), empty("f4"), empty("f4"), stack, {{}})
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, used + 100 * 2**20))
result.save({str(tmp_path / name)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True)
