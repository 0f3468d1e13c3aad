from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import yaozarrs
import zarr
from napari import layers as napari_layers

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.write.ome_zarr import create_output, finish_output, open_output
from small_results import PROVENANCE, corners, pixels_of, result_for

ALL = slice(None)


def test_an_ome_zarr_opens_in_napari(tmp_path) -> None:
    from napari_ome_zarr import napari_get_reader

    result = result_for("CZYX", 2, sizes={"Y": 600}, channel_names=["a", "b", "c"])
    (path,) = result.save(tmp_path / "r.ome.zarr")
    (data, attributes, _), (labels, more, kind) = napari_get_reader(str(path))(path)
    assert attributes["name"] == ["cells: a", "cells: b", "cells: c"]
    assert [level.shape for level in data] == [(3, 1200, 70), (3, 600, 35)]
    np.testing.assert_array_equal(data[0], result.fused)
    assert kind == "labels"
    assert more["units"] == ("micrometer", "micrometer")
    np.testing.assert_array_equal(labels[0], result.decision)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
def test_pyramids_are_means_and_decisions_are_picked(dtype: str, tmp_path) -> None:
    sizes = {"Y": 2050, "X": 1025}
    result = result_for("ZYX", sizes=sizes, dtype=dtype)
    (path,) = result.save(tmp_path / "r.ome.zarr")
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs["ome"]["multiscales"][0]["datasets"]
    wide = np.pad(result.fused, ((0, 0), (0, 1)), mode="edge").astype(float)
    mean = wide.reshape(1025, 2, 513, 2).mean((1, 3))
    if np.dtype(dtype).kind != "f":
        mean = np.rint(mean)
    np.testing.assert_allclose(group["1"][:], mean, rtol=1e-6)
    assert [group[d["path"]].shape for d in attributes] == [
        (2050, 1025),
        (1025, 513),
        (513, 257),
    ]
    coarse = attributes[2]["coordinateTransformations"]
    np.testing.assert_allclose(coarse[0]["scale"], [0.4, 0.8])
    np.testing.assert_allclose(coarse[1]["translation"], [0.15, 0.3])
    picked = group["labels/decision/1"][:]
    np.testing.assert_array_equal(picked, result.decision[::2, ::2])


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "ZYXS", "TCZYX", "CTZYX"])
def test_an_output_filled_by_region_is_a_result(axes: str, tmp_path) -> None:
    result = result_for(axes, 2, sizes={"Y": 520, "X": 515}, channel_names=None)
    stack = result.stack
    partial, final = tmp_path / "r.partial", tmp_path / "r.ome.zarr"
    create_output(partial, stack, scale=2)
    for name, array in open_output(partial, stack).items():  # as a resumed run does
        whole = getattr(result, name)
        row = (stack.fused_axes if name == "fused" else stack.map_axes).index("Y")
        for start in range(0, whole.shape[row], 512):
            key = (ALL,) * row + (slice(start, start + 512),)
            if array.shape[0] != whole.shape[row] and row:  # a time point by number
                for i in range(whole.shape[0]):
                    array[(i, *key[1:])] = whole[(i, *key[1:])]
            else:
                array[key] = whole[key]
    assert not final.exists()
    assert finish_output(partial, final, PROVENANCE) == final
    assert not partial.exists()
    stored = replace(result, **open_output(final, stack))
    yaozarrs.validate_zarr_store(final)
    for (data, attributes, _), (want, plain, _) in zip(
        stored.layers(), result.layers(), strict=True
    ):
        layer = napari_layers.Image(data, **attributes)
        full = data[0] if attributes["multiscale"] else data
        np.testing.assert_array_equal(np.asarray(full), np.asarray(want))
        np.testing.assert_allclose(
            corners(layer), corners(napari_layers.Image(want, **plain))
        )
    again = stored.save(tmp_path / "copy.ome.tif")
    np.testing.assert_array_equal(
        pixels_of(as_stack(again[0])), pixels_of(as_stack(final))
    )


def test_channels_of_colour_do_not_fit_ome_zarr(tmp_path) -> None:
    result = result_for("CZYXS")
    with pytest.raises(FocusFusionError, match="Save as OME-TIFF"):
        result.save(tmp_path / "r.ome.zarr")
    assert os.listdir(tmp_path) == []
    read = as_stack(result.save(tmp_path / "r.tif")[0])
    np.testing.assert_array_equal(read.data[:], result.fused)
