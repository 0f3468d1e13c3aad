from __future__ import annotations

import subprocess
import sys
from collections import Counter

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_focus_fusion import FocusFusionError, fuse
from napari_focus_fusion.plugin.adapters.layers import (
    OUTPUTS,
    fuse_layer,
    guess_axes,
    stack_from_layer,
)

HEIGHT, WIDTH = 90, 120
MICROMETRES = ("micrometer",) * 3


def image(shape, labels=None, **attributes):
    return Image(np.zeros(shape, np.uint8), axis_labels=labels, **attributes)


@pytest.mark.parametrize(
    ("shape", "labels", "axes"),
    [
        ((40, 50), None, "YX"),
        ((12, 40, 50), None, "ZYX"),
        ((12, 40, 50), ("z", "y", "x"), "ZYX"),
        ((40, 50, 12), ("y", "x", "z"), "YXZ"),
        # A stack whose file calls its slices time points is still to be fused.
        ((12, 40, 50), ("t", "y", "x"), "ZYX"),
        ((2, 12, 40, 50), None, "CZYX"),
        ((30, 12, 40, 50), None, "TZYX"),
        ((12, 2, 40, 50), None, "ZCYX"),
        ((3, 2, 40, 50), None, "CZYX"),
        ((12, 30, 40, 50), ("z", "t", "y", "x"), "ZTYX"),
        ((30, 12, 40, 50), ("position", "slice", "row", "column"), "TZYX"),
        ((12, 30, 40, 50), ("z", "position", "y", "x"), "ZTYX"),
        ((9, 2, 12, 40, 50), None, "TCZYX"),
        ((2, 9, 12, 40, 50), None, "CTZYX"),
        ((9, 12, 2, 40, 50), None, "TZCYX"),
        ((9, 2, 12, 40, 50), ("c", "t", "z", "y", "x"), "CTZYX"),
    ],
)
def test_axes_are_guessed(shape, labels, axes):
    assert guess_axes(image(shape, labels)) == axes


def test_the_other_axes_follow_from_a_given_z():
    layer = image((2, 12, 40, 50))
    assert guess_axes(layer, 0) == "ZTYX"
    assert guess_axes(layer, 1) == "CZYX"
    assert guess_axes(layer, 3) == "CYXZ"
    assert guess_axes(image((12, 40, 50), ("z", "y", "x")), 2) == "YXZ"


def test_samples_of_colour_are_no_axis():
    assert guess_axes(Image(np.zeros((7, 40, 50, 3), np.uint8), rgb=True)) == "ZYX"


def test_six_axes_are_too_many():
    with pytest.raises(FocusFusionError, match="6 axes"):
        guess_axes(image((2, 2, 2, 4, 40, 50)))


def test_a_layer_is_taken_down_as_it_is_now(slices):
    layer = Image(
        slices.copy(),
        name="bugs",
        scale=(2, 0.5, 0.25),
        units=MICROMETRES,
        axis_labels=("z", "y", "x"),
        translate=(1, 2, 3),
        colormap="magenta",
        gamma=0.7,
        blending="additive",
        contrast_limits=(10, 5000),
    )
    stack = stack_from_layer(layer)
    layer.name = "other"
    layer.scale = (1, 1, 1)
    layer.translate = (0, 0, 0)
    layer.contrast_limits = (0, 1)
    layer.data = np.zeros((3, 4, 5))
    assert (stack.name, stack.axes, stack.source) == ("bugs", "ZYX", "layer 'bugs'")
    assert dict(stack.scale) == {"Z": 2, "Y": 0.5, "X": 0.25}
    assert dict(stack.units) == dict.fromkeys("ZYX", "micrometer")
    assert stack.data.shape == (5, HEIGHT, WIDTH)
    (_, fused, _), *_ = fuse(stack, model="sml").layers()
    assert fused["name"] == "bugs fused [sml]"
    assert fused["translate"] == (2, 3)
    assert fused["contrast_limits"] == (10, 5000)
    assert fused["colormap"].name == "magenta"
    assert (fused["gamma"], fused["blending"]) == (0.7, "additive")


PLACES = {
    "plain": {},
    "scaled": {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7)},
    "mirrored": {"scale": (2, 0.5, -0.25)},
    "turned": {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7), "rotate": 30},
    "sheared": {"scale": (2, 0.5, 0.25), "shear": (0, 0, 0.4), "translate": (0, 9, 9)},
    "affine": {
        "scale": (2, 0.5, 0.25),
        "affine": [[1, 0, 0, 4], [0, 0.9, -0.3, 8], [0, 0.2, 1.1, -6], [0, 0, 0, 1]],
    },
    # z leans over y: the result cannot do without a z axis
    "tilted": {
        "scale": (2, 0.5, 0.25),
        "translate": (5, -3, 7),
        "rotate": [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]],
    },
}


# napari says of the tilted layer itself that it shows it without the tilt.
@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning")
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_results_lie_on_their_source(slices, place):
    """The result shows the same as the source at the same world coordinates."""
    source = Image(slices, **place)
    fused, decision, confidence, depth = (
        Layer.create(*data)
        for data in fuse_layer(source, model="sml", blend="select", outputs=OUTPUTS)
    )
    middle = (slices.shape[0] - 1) / 2
    for y, x in ((0, 0), (0, WIDTH - 1), (HEIGHT - 1, 0), (HEIGHT - 1, WIDTH - 1)):
        for layer in (fused, decision, confidence, depth):
            # A result that keeps z is one plane as thick as the stack.
            ours = (y, x) if layer.ndim == 2 else (0, y, x)
            there = np.array(source.data_to_world((middle, y, x)))[-layer.ndim :]
            np.testing.assert_allclose(layer.data_to_world(ours), there, atol=1e-9)
    pixels, index = (np.squeeze(layer.data) for layer in (fused, decision))
    np.testing.assert_array_equal(
        pixels, np.take_along_axis(slices, index[None].astype(int), 0)[0]
    )


@pytest.mark.parametrize("name", [name for name in PLACES if name != "tilted"])
def test_extents_in_the_plane_are_the_sources(slices, name):
    source = Image(slices, **PLACES[name])
    for data in fuse_layer(source, model="sml"):
        layer = Layer.create(*data)
        assert layer.ndim == 2
        np.testing.assert_allclose(
            layer.extent.world, source.extent.world[:, 1:], atol=1e-9
        )


def test_time_points_stay_on_their_axis(slices):
    movie = np.stack([slices, slices[::-1], slices])
    source = Image(
        movie,
        axis_labels=("t", "z", "y", "x"),
        scale=(30, 2, 0.5, 0.5),
        units=("second", *MICROMETRES),
    )
    results = [Layer.create(*data) for data in fuse_layer(source, model="sml")]
    for layer in results:
        assert layer.axis_labels == ("t", "z", "y", "x")
        assert layer.data.shape[:2] == (3, 1)
        assert layer.units == source.units
        for axis in (0, 2, 3):
            np.testing.assert_allclose(
                layer.extent.world[:, axis], source.extent.world[:, axis]
            )
    fused, decision = results[:2]
    np.testing.assert_array_equal(fused.data[0], fused.data[1])
    np.testing.assert_array_equal(decision.data[0], 4 - decision.data[1])
    # The viewer's own axes do not change: it could still show the source beside them.
    viewer = ViewerModel()
    viewer.add_layer(source)
    viewer.add_layer(fused)
    assert viewer.dims.ndim == 4 and viewer.dims.nsteps[1] == 5


def test_channels_become_layers_of_one_decision(slices):
    both = np.stack([slices // 2, slices])
    source = Image(both, axis_labels=("c", "z", "y", "x"), name="cells")
    first, second, decision, *_ = fuse_layer(source, model="sml", blend="select")
    assert "cells" in first[1]["name"] and first[1]["name"] != second[1]["name"]
    np.testing.assert_array_equal(first[0], second[0] // 2)
    assert decision[0].shape == (HEIGHT, WIDTH)


def test_colour_stays_colour(slices):
    grey = (slices // 256).astype(np.uint8)
    source = Image(np.stack([grey, grey // 2, grey], -1), rgb=True)
    fused, decision, *_ = fuse_layer(source, model="sml", blend="select")
    layer = Layer.create(*fused)
    assert layer.rgb and layer.data.shape == (HEIGHT, WIDTH, 3)
    assert layer.data.dtype == np.uint8
    np.testing.assert_array_equal(layer.data[..., 1], layer.data[..., 0] // 2)
    assert decision[0].shape == (HEIGHT, WIDTH)


def kinds(slices, tmp_path):
    stored = zarr.create_array(
        tmp_path / "stack.zarr", shape=slices.shape, chunks=(1, 64, 64), dtype="u2"
    )
    stored[:] = slices
    lazy = da.from_array(slices, chunks=(1, 50, 50))
    yield "zarr", Image(stored, contrast_limits=(0, 9))
    yield "dask", Image(lazy, contrast_limits=(0, 9))
    yield "multiscale", Image([slices, slices[:, ::2, ::2]], multiscale=True)
    yield "lazy multiscale", Image([lazy, lazy[:, ::2, ::2]], contrast_limits=(0, 9))
    yield (
        "last axis",
        Image(np.moveaxis(slices, 0, -1), axis_labels=("y", "x", "z"), rgb=False),
    )


def test_every_kind_of_data_gives_the_same(slices, tmp_path):
    expected = [data for data, *_ in fuse_layer(Image(slices), model="sml")]
    for kind, layer in kinds(slices, tmp_path):
        found = fuse_layer(layer, model="sml")
        for there, (here, *_) in zip(expected, found, strict=True):
            # Exact but for the rounding of confidence between tilings.
            close = 1e-5 if there.dtype.kind == "f" else 0
            np.testing.assert_allclose(
                np.squeeze(here), there, rtol=0, atol=close, err_msg=kind
            )


def test_taking_a_lazy_layer_down_reads_nothing(slices):
    reads = []

    def block(block_id):
        reads.append(block_id)
        return slices[block_id[0]][None]

    lazy = da.map_blocks(
        lambda block_info: block(block_info[None]["chunk-location"]),
        chunks=((1,) * 5, (HEIGHT,), (WIDTH,)),
        dtype=slices.dtype,
        meta=np.empty((0, 0, 0), slices.dtype),
    )
    layer = Image(lazy, contrast_limits=(0, 9), visible=False)
    reads.clear()
    stack = stack_from_layer(layer)
    assert not reads
    fuse(stack, model="sml", blend="select", surface=0)
    # Once for the focus measure, once for the fused pixels where a slice is chosen, and
    # for the first and the last row, which say whether slices fill the plane.
    assert set(Counter(reads).values()) <= {3, 4} and len(set(reads)) == 5


def test_the_focus_is_measured_in_another_layer(slices):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 5000, slices.shape, dtype=np.uint16)
    dull = Image(noise, name="dull", scale=(2, 0.5, 0.5), colormap="green")
    sharp = Image(slices, name="sharp", scale=(2, 0.5, 0.5))
    options = {"model": "sml", "blend": "select"}
    _, expected, *_ = fuse_layer(sharp, **options)
    fused, decision, *_ = fuse_layer(dull, reference_layer=sharp, **options)
    np.testing.assert_array_equal(decision[0], expected[0])
    np.testing.assert_array_equal(
        fused[0], np.take_along_axis(noise, decision[0][None].astype(int), 0)[0]
    )
    assert fused[1]["name"] == "dull fused [sml]"
    assert fused[1]["colormap"].name == "green"
    run = fused[1]["metadata"]["napari_focus_fusion"]
    assert run["parameters"]["reference"] == "sharp"
    assert run["source_axes"] == "ZYX" and run["source_shape"] == list(slices.shape)


def test_a_reference_layer_of_another_size_is_refused(slices):
    with pytest.raises(FocusFusionError, match="'small' cannot decide for 'large'"):
        fuse_layer(
            Image(slices, name="large"),
            reference_layer=Image(slices[:, :50], name="small"),
            model="sml",
        )


def test_outputs_are_those_asked_for(slices):
    layer = Image(slices, name="mine")
    layers = fuse_layer(layer, model="sml", outputs=("depth", "decision"))
    names = [attributes["name"] for _, attributes, _ in layers]
    assert names == ["mine decision [sml]", "mine depth [sml]"]
    # One layer of a run must be visible.
    assert [attributes["visible"] for _, attributes, _ in layers] == [True, False]
    with pytest.raises(FocusFusionError, match="no output sharpness"):
        fuse_layer(layer, model="sml", outputs=("sharpness",))


def test_results_carry_where_they_came_from(slices):
    for data in fuse_layer(Image(slices, name="mine"), model="sml", blend="select"):
        run = data[1]["metadata"]["napari_focus_fusion"]
        assert run["model"] == "sml"
        assert run["source"] == "layer 'mine'"
        assert run["parameters"]["blend"] == "select"


def test_layers_are_fused_without_napari_or_qt():
    code = (
        "import sys, napari_focus_fusion.plugin.adapters.layers\n"
        "sys.exit(any(m in sys.modules for m in ('napari', 'qtpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
