"""Crops of a stack keep their world coordinates and pixels."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image, Layer

from napari_focus_fusion import FocusFusionError, FocusStack, fuse
from napari_focus_fusion.plugin.adapters.crop import crop_stack
from napari_focus_fusion.plugin.adapters.layers import (
    fuse_layer,
    stack_from_layer,
    stack_from_layers,
)

SPANS = {"Y": slice(10, 80, 3), "X": slice(7, 100, 2)}
PLACES = {
    "plain": {},
    "scaled": {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7)},
    "turned": {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7), "rotate": 30},
    "sheared": {"scale": (2, 0.5, 0.25), "shear": (0, 0, 0.4)},
    "affine": {
        "affine": [[1, 0, 0, 4], [0, 0.9, -0.3, 8], [0, 0.2, 1.1, -6], [0, 0, 0, 1]]
    },
}


def kinds(slices, tmp_path):
    stored = zarr.create_array(
        tmp_path / "stack.zarr", shape=slices.shape, chunks=(1, 32, 64), dtype="u2"
    )
    stored[:] = slices
    yield slices
    yield da.from_array(slices, chunks=(1, 32, 64))
    yield stored


def test_pixels_are_those_of_the_place(slices, tmp_path):
    expected = slices[1:5, 10:80:3, 7:100:2]
    for data in kinds(slices, tmp_path):
        stack = FocusStack(data, "ZYX")
        part = crop_stack(stack, {**SPANS, "Z": slice(1, 5)})
        assert part.data.shape == expected.shape
        np.testing.assert_array_equal(np.asarray(part.data), expected)
        # Read by region, as a fusion does.
        np.testing.assert_array_equal(
            part.read(0, [2, 0], slice(3, 9), slice(5, 40))[0],
            expected[[2, 0], 3:9, 5:40],
        )


def test_a_crop_of_a_crop(slices, tmp_path):
    for data in kinds(slices, tmp_path):
        once = crop_stack(FocusStack(data, "ZYX"), SPANS)
        twice = crop_stack(once, {"Y": slice(2, 20, 2), "X": slice(1, 30)})
        np.testing.assert_array_equal(
            np.asarray(twice.data), slices[:, 10:80:3, 7:100:2][:, 2:20:2, 1:30]
        )


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_results_of_a_crop_lie_on_the_source(slices, place):
    source = Image(slices, **place)
    result = fuse(crop_stack(stack_from_layer(source), SPANS), model="sml")
    fused = Layer.create(*result.layers()[0])
    for row, column in ((0, 0), (5, 3), (23, 46)):
        y, x = 10 + 3 * row, 7 + 2 * column
        there = source.data_to_world((2, y, x))[1:]
        np.testing.assert_allclose(fused.data_to_world((row, column)), there)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_levels_cover_the_same_place(slices, place):
    source = Image([slices, slices[:, ::2, ::2]], multiscale=True, **place)
    stack = stack_from_layer(source, level=1)
    assert stack.data.shape == (5, 45, 60)
    fused = Layer.create(*fuse(stack, model="sml").layers()[0])
    # The centre of a pyramid's pixel that covers two lies between them.
    there = source.data_to_world((2, 10.5, 20.5))[1:]
    np.testing.assert_allclose(fused.data_to_world((5, 10)), there)
    assert stack.pixel_size("X") == 2 * float(source.scale[2])


def test_one_time_point(slices):
    movie = np.stack([slices, slices[::-1], slices])
    attributes = {
        "axis_labels": ("t", "z", "y", "x"),
        "scale": (30, 2, 0.5, 0.5),
        "translate": (100, 0, 0, 0),
        "units": ("second", *("micrometer",) * 3),
    }
    source = Image(movie, **attributes)
    every = fuse_layer(source, model="sml", outputs=("decision",))[0]
    one = fuse_layer(source, model="sml", outputs=("decision",), time=1)[0]
    np.testing.assert_array_equal(one[0][0], every[0][1])
    layer = Layer.create(*one)
    np.testing.assert_allclose(
        layer.data_to_world((0, 0, 5, 6)), source.data_to_world((1, 2, 5, 6))
    )
    with pytest.raises(FocusFusionError, match="no time point 3"):
        fuse_layer(source, model="sml", time=3)


def test_flat_layers_are_slices(slices):
    layers = [
        Image(plane, name=f"focus {i}", scale=(0.5, 0.25), translate=(3, 4))
        for i, plane in enumerate(slices)
    ]
    stack = stack_from_layers(layers)
    assert (stack.name, stack.axes) == ("focus 0 to focus 4", "ZYX")
    outputs = ("fused", "decision", "surface")
    fused, decision, surface = (
        Layer.create(*data) for data in fuse_layer(layers, model="sml", outputs=outputs)
    )
    expected = fuse(slices, model="sml")
    np.testing.assert_array_equal(fused.data, expected.fused)
    np.testing.assert_array_equal(decision.data, expected.decision)
    for layer in (fused, decision):
        np.testing.assert_allclose(layer.extent.world, layers[0].extent.world)
    assert surface.axis_labels[0] == "z"
    np.testing.assert_allclose(surface.extent.world[:, 1:], layers[0].extent.world)


def test_flat_layers_must_agree(slices):
    good, small = Image(slices[0], name="good"), Image(slices[1, :50], name="small")
    with pytest.raises(FocusFusionError, match="'small' does not fit"):
        fuse_layer([good, small], model="sml")
    with pytest.raises(FocusFusionError, match="'whole' is no single slice"):
        fuse_layer([good, Image(slices, name="whole")], model="sml")


def test_flat_colour_layers(slices):
    grey = (slices // 256).astype(np.uint8)
    colour = np.stack([grey, grey // 2, grey], -1)
    layers = [Image(plane, rgb=True) for plane in colour]
    fused, *_ = fuse_layer(layers, model="sml")
    np.testing.assert_array_equal(fused[0], fuse(colour, "sml", axes="ZYXS").fused)
    assert fused[1]["rgb"]
