"""Pixel sizes by the file of a layer, where napari's reader has lost them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Layer, Points, Shapes
from napari.plugins import _initialize_plugins

from napari_focus_fusion import FocusFusionError, as_stack
from napari_focus_fusion.plugin.adapters.layers import (
    doubt_about_axes,
    fuse_layer,
    fuse_to_layers,
    layers_from_files,
    stack_from_layer,
    stack_from_layers,
)

OME = {"axes": "ZYX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3, "PhysicalSizeZ": 1.5}
SIZES = {"Z": 1.5, "Y": 0.3, "X": 0.2}


@pytest.fixture
def viewer() -> ViewerModel:
    _initialize_plugins()
    return ViewerModel()


@pytest.fixture
def path(slices, tmp_path):
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, slices, metadata=OME)
    return path


def dropped(viewer, path) -> Image:
    (layer,) = viewer.open(path, plugin="napari")
    return layer


def test_a_tiff_dropped_on_napari_has_the_sizes_of_its_file(viewer, path, tmp_path):
    layer = dropped(viewer, path)
    assert set(layer.scale) == {1}  # this is what is lost
    stack = stack_from_layer(layer)
    assert dict(stack.scale) == SIZES
    assert set(stack.units.values()) == {"micrometer"}
    assert "'cells.ome.tif' were taken: Z 1.5 micrometer" in stack.notes[0]
    results = [Layer.create(*data) for data in fuse_to_layers(stack, model="sml")]
    for result in results:  # they still lie on the layer, in its world
        np.testing.assert_allclose(result.extent.world, layer.extent.world[:, 1:])
        assert result.units == layer.units[1:]
    depth = next(one for one in results if "depth" in one.name)
    assert 1.5 < depth.data.max() <= 4 * 1.5
    surface = fuse_to_layers(stack, ["surface"], model="sml")[0]
    assert surface[1]["units"] == ("pixel",) * 3


def test_sizes_of_the_layer_are_kept(viewer, path):
    layer = dropped(viewer, path)
    layer.scale = (3, 1, 1)
    assert stack_from_layer(layer).scale["Z"] == 3
    assert not stack_from_layer(layer).notes


def test_a_layer_that_is_not_its_file_any_more_has_no_sizes(viewer, path, slices):
    layer = dropped(viewer, path)
    layer.data = layer.data[1:]
    assert stack_from_layer(layer).scale["Z"] == 1
    layer.data = slices
    path.unlink()
    assert stack_from_layer(layer).scale["Z"] == 1


def test_sizes_follow_the_axes_that_are_chosen(viewer, tmp_path, slices):
    """A file that calls its slices time points, and RGB."""
    path = tmp_path / "movie.ome.tif"
    metadata = {"axes": "TYX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3}
    tifffile.imwrite(path, slices, metadata=metadata)
    stack = stack_from_layer(dropped(viewer, path), axes="ZYX")
    assert dict(stack.scale) == {"Z": 1, "Y": 0.3, "X": 0.2}
    path = tmp_path / "colour.ome.tif"
    colour = np.stack([slices >> 8] * 3, -1).astype(np.uint8)
    sizes = {**OME, "axes": "ZYXS"}
    tifffile.imwrite(path, colour, metadata=sizes, photometric="rgb")
    stack = stack_from_layer(dropped(viewer, path))
    assert (stack.axes, dict(stack.scale)) == ("ZYXS", SIZES)


def test_slices_that_are_layers_have_sizes_too(viewer, tmp_path, slices):
    layers = []
    for z, plane in enumerate(slices):
        path = tmp_path / f"z{z}.ome.tif"
        sizes = {"axes": "YX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3}
        tifffile.imwrite(path, plane, metadata=sizes)
        layers.append(dropped(viewer, path))
    stack = stack_from_layers(layers)
    assert (stack.pixel_size("Y"), stack.unit("Y")) == (0.3, "micrometer")
    fused = Layer.create(*fuse_to_layers(stack, model="sml")[0])
    np.testing.assert_allclose(fused.extent.world, layers[0].extent.world)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ({"scale": (0.5, 0.5)}, "pixels of 0.5 x 0.5, the other of 1 x 1"),
        ({"translate": (0, 3)}, "up to 3 pixels away"),
        ({"rotate": 5}, "pixels away"),
    ],
)
def test_layers_at_different_places_are_no_stack(slices, place, words):
    layers = [Image(slices[0], name="a"), Image(slices[1], name="b", **place)]
    with pytest.raises(FocusFusionError, match=f"'b' and 'a' do not lie.*{words}"):
        fuse_layer(layers, model="sml")
    same = {"scale": (0.5, 0.5), "translate": (7, 8)}
    assert stack_from_layers([Image(one, **same) for one in slices]).n_slices == 5


def test_other_layers_are_refused_in_words(slices):
    from napari.layers import Labels

    for layer in (Labels(slices), Points(np.zeros((3, 3))), Shapes(ndim=3)):
        kind = type(layer).__name__
        with pytest.raises(FocusFusionError, match=f"is a {kind} layer"):
            fuse_layer(layer)
    layers = [Image(slices[0]), Labels(slices[1])]
    with pytest.raises(FocusFusionError, match="is a Labels layer"):
        fuse_layer(layers)


@pytest.mark.parametrize(
    ("shape", "labels", "words"),
    [
        ((60, 70, 12), None, '12 slices of 60 x 70 ("YXZ")'),
        ((64, 64, 24), None, "24 slices of 64 x 64"),
        ((6, 4, 40, 50), None, '6 channels and 4 slices ("CZYX")'),
        ((3, 2, 40, 50), None, "2 slices"),
        ((60, 70, 12), ("y", "x", "z"), ""),
        ((6, 4, 40, 50), ("c", "z", "y", "x"), ""),
        ((6, 4, 40, 50), ("a", "z", "y", "x"), ""),
        ((12, 40, 50), None, ""),
        ((12, 2, 40, 50), None, ""),
        ((2, 5, 40, 50), None, ""),
        ((100, 40, 50), None, ""),
    ],
)
def test_an_order_that_cannot_be_known_is_asked_for(shape, labels, words):
    layer = Image(np.zeros(shape, np.uint8), name="blobs", axis_labels=labels)
    assert words in doubt_about_axes(layer) and bool(words) == bool(
        doubt_about_axes(layer)
    )
    if words:
        with pytest.raises(FocusFusionError, match=r"'blobs'.*axes="):
            stack_from_layer(layer)
        axes = "ZYX" if len(shape) == 3 else "CZYX"
        assert stack_from_layer(layer, axes=axes).axes == axes


def test_an_array_whose_slices_may_come_last_is_asked_about():
    for shape in ((64, 64, 24), (300, 200, 60)):
        with pytest.raises(FocusFusionError, match='"ZYX" or "YXZ"'):
            as_stack(np.zeros(shape, np.uint8))
    assert as_stack(np.zeros((100, 64, 80), np.uint8)).n_slices == 100


def test_a_file_of_several_stacks_gives_a_layer_each(slices, tmp_path):
    path = tmp_path / "day.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, data in (("left", slices), ("right", slices[::-1])):
            metadata = {**OME, "Name": name}
            writer.write(data, metadata=metadata, photometric="minisblack")
    left, right = (Layer.create(*data) for data in layers_from_files([path]))
    assert (left.name, right.name) == ("day_left", "day_right")
    np.testing.assert_array_equal(np.asarray(right.data), slices[::-1])
    assert right.scale[0] == 1.5 and str(right.units[0]) == "micrometer"
