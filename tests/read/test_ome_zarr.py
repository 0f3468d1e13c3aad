from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import zarr
from yaozarrs import v04, v05
from yaozarrs.write.v05 import write_image

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack

ALL = slice(None)
PIXELS = np.random.default_rng(0).integers(0, 2**16, (2, 5, 40, 50), np.uint16)


def multiscales(version: str, axes: list, transforms: list, **more: object) -> dict:
    datasets = [
        {"path": "full", "coordinateTransformations": transforms},
        {"path": "half", "coordinateTransformations": transforms},
    ]
    return {"version": version, "axes": axes, "datasets": datasets, **more}


def write_04(path, axes: list, transforms: list, **more: object) -> zarr.Group:
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("full", data=PIXELS, chunks=(1, 1, 16, 16))
    group.create_array("half", data=PIXELS[..., ::2, ::2])
    group.attrs["multiscales"] = [multiscales("0.4", axes, transforms, **more)]
    return group


CZYX = [
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]
SCALE = {"type": "scale", "scale": [1, 2, 0.5, 0.25]}


def test_version_04(tmp_path) -> None:
    path = tmp_path / "cells.zarr"
    shift = {"type": "translation", "translation": [0, 10, 20, 30]}
    twice = {"type": "scale", "scale": [1, 1, 2, 2]}
    group = write_04(path, CZYX, [SCALE, shift], coordinateTransformations=[twice])
    blue = {"start": 5, "end": 900, "min": 0, "max": 65535}
    green = {"start": 0, "end": 70, "min": 0, "max": 65535}
    group.attrs["omero"] = {
        "channels": [
            {"label": "DAPI", "color": "0000FF", "window": blue},
            {"label": "GFP", "color": "00FF00", "window": green},
        ]
    }
    assert v04.Image.model_validate(group.attrs.asdict())
    stack = pickle.loads(pickle.dumps(as_stack(path)))
    assert (stack.axes, stack.name, stack.source) == ("CZYX", "cells", str(path))
    assert [stack.pixel_size(axis) for axis in "ZYX"] == [2, 1, 0.5]
    assert [stack.unit(axis) for axis in "ZYX"] == ["micrometer"] * 3
    assert stack.channel_names == ("DAPI", "GFP")
    assert stack.display["colormap"] == ["#0000FF", "#00FF00"]
    assert stack.display["contrast_limits"] == [(5, 900), (0, 70)]
    assert stack.display["translate"] == (0, 10, 40, 60)
    assert stack.chunk_yx == (16, 16)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL), PIXELS)


def test_version_05_and_groups_and_arrays(tmp_path) -> None:
    image = v05.Image(
        multiscales=[
            v05.Multiscale(
                name="beetle",
                axes=[
                    v05.TimeAxis(name="t", unit="second"),
                    *(v05.SpaceAxis(name=a, unit="nanometer") for a in "zyx"),
                ],
                datasets=[
                    v05.Dataset(
                        path="0",
                        coordinateTransformations=[
                            v05.ScaleTransformation(scale=[3, 300, 65, 65])
                        ],
                    )
                ],
            )
        ]
    )
    path = tmp_path / "b.ome.zarr"
    write_image(path, image, PIXELS)
    for source in (path, zarr.open_group(path, mode="r")):
        stack = as_stack(source)
        assert (stack.axes, stack.name) == ("TZYX", "beetle")
        assert dict(stack.scale) == {"T": 3, "Z": 300, "Y": 65, "X": 65}
        assert (stack.unit("T"), stack.unit("Z")) == ("second", "nanometer")
        np.testing.assert_array_equal(stack.read(1, ALL, ALL, ALL)[0], PIXELS[1])
    assert as_stack(path / "0").axes == "TZYX"  # the array knows its dimensions' names


def test_given_axes_take_over_scale_by_place(tmp_path) -> None:
    write_04(tmp_path / "a.zarr", CZYX, [SCALE])
    stack = as_stack(tmp_path / "a.zarr", axes="TZYX")
    assert stack.axes == "TZYX"
    assert dict(stack.scale) == {"T": 1, "Z": 2, "Y": 0.5, "X": 0.25}


def test_unknown_axes_are_asked_for(tmp_path) -> None:
    axes = [{"name": "phase"}, *CZYX[1:]]
    write_04(tmp_path / "a.zarr", axes, [SCALE])
    with pytest.raises(FocusFusionError, match=r"phase.*axes="):
        as_stack(tmp_path / "a.zarr")
    assert as_stack(tmp_path / "a.zarr", axes="TZYX").n_times == 2


def test_collections(tmp_path) -> None:
    path = tmp_path / "raw.zarr"
    group = zarr.create_group(path, zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    with pytest.raises(FocusFusionError, match="without an image"):
        as_stack(path)
    write_04(path / "0", CZYX, [SCALE])
    assert as_stack(path).axes == "CZYX"
    twice = {"type": "scale", "scale": [1, 7, 1, 1]}
    write_04(path / "1", CZYX, [twice])
    with pytest.raises(FocusFusionError, match=r"2 images \(0, 1\)"):
        as_stack(path)
    assert as_stack(path, series=1).pixel_size("Z") == 7
    with pytest.raises(FocusFusionError, match="no image 2"):
        as_stack(path, series=2)
    group.attrs["plate"] = {}
    with pytest.raises(FocusFusionError, match=r"plate.*field"):
        as_stack(path)


def test_a_group_of_plain_arrays(tmp_path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("raw", data=PIXELS[0])
    with pytest.raises(FocusFusionError, match="arrays raw"):
        as_stack(tmp_path / "a.zarr")
    assert as_stack(tmp_path / "a.zarr" / "raw").n_slices == 5


def test_a_damaged_zarr(tmp_path) -> None:
    path = tmp_path / "a.zarr"
    write_04(path, CZYX, [SCALE])
    (path / "full" / ".zarray").unlink()
    with pytest.raises(FocusFusionError, match=r"full.*copied completely"):
        as_stack(path)
    (path / ".zattrs").write_text(json.dumps({"multiscales": [{}]}))
    with pytest.raises(FocusFusionError, match="copied completely"):
        as_stack(path)
    (path / ".zgroup").write_text("no JSON")
    with pytest.raises(FocusFusionError, match=r"a\.zarr.*copied completely"):
        as_stack(path)
