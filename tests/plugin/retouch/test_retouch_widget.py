"""Painting on decision maps, in real napari windows."""

from __future__ import annotations

from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Layer
from napari.utils.interactions import mouse_press_callbacks
from napari.utils.notifications import notification_manager
from scipy.ndimage import gaussian_filter

from napari_focus_fusion import Registration, as_stack, fuse
from napari_focus_fusion.plugin.adapters.layers import fuse_layer
from napari_focus_fusion.plugin.adapters.maps import (
    decision_of,
    drawn_area,
    fuse_by_map,
    fused_of,
    maps_of,
    retouch_layers,
)
from napari_focus_fusion.retouch import save_decision

PLUGIN, WIDGET = "napari-focus-fusion", "Retouch focus fusion"
PLACE = {
    "scale": (2, 0.5, 0.25),
    "units": ("micrometer",) * 3,
    "axis_labels": ("z", "y", "x"),
    "translate": (5, -3, 7),
}


@pytest.fixture
def window(make_napari_viewer):
    """A viewer and the widget docked in it."""
    notification_manager.records.clear()
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    return viewer, widget


def fused_stack(viewer, pixels, axes=None, **attributes):
    """Add a stack, and the layers that fusing it gives; the stack's layer."""
    layer = viewer.add_image(pixels, name="mine", **attributes)
    for data in fuse_layer(layer, axes=axes, model="sml", device="cpu"):
        viewer.add_layer(Layer.create(*data))
    return layer


def flat_layers(viewer, slices):
    return tuple(
        viewer.add_image(plane, name=f"z{i}", scale=(0.5, 0.25))
        for i, plane in enumerate(slices)
    )


def results_of(layers):
    data = fuse_layer(layers, model="sml", device="cpu")
    return [Layer.create(*one) for one in data]


def begin(widget, qtbot):
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        assert widget.start() is not None
    assert widget.session is not None
    settle(widget, qtbot)
    return widget.labels


def settle(widget, qtbot):
    qtbot.waitUntil(lambda: widget.caught_up, timeout=60_000)


def expected(widget, pixels, axes):
    """What fusing by the map as it is painted gives."""
    decision = widget.decision()
    return fuse(as_stack(pixels, axes=axes), decision=decision, device="cpu").fused


def without_fused(viewer):
    """So that the widget fuses itself, and all of it can be compared to the bit."""
    for layer in [one for one in viewer.layers if " fused" in one.name]:
        viewer.layers.remove(layer)


def last_notification():
    return notification_manager.records[-1].message


def test_the_fused_image_follows_the_brush(window, slices, qtbot):
    viewer, widget = window
    stack = fused_stack(viewer, slices, **PLACE)
    without_fused(viewer)
    assert widget.layer.value is stack
    assert widget.map.currentText() == "mine decision [sml]"
    labels = begin(widget, qtbot)
    assert viewer.layers.selection.active is labels and labels.mode == "paint"
    np.testing.assert_allclose(labels.extent.world, stack.extent.world[:, 1:])
    map_before = viewer.layers["mine decision [sml]"].data
    np.testing.assert_array_equal(labels.data, map_before + 1)
    (fused,) = widget.session.fused
    untouched = fused.data.copy()

    labels.brush_size = 15
    labels.paint((40, 50), 1)
    settle(widget, qtbot)
    assert (fused.data != untouched).any()
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))
    painted = fused.data.copy()
    # The layer that the map came from stays as it was.
    assert (labels.data != map_before + 1).any()

    widget.undo_button.click()
    settle(widget, qtbot)
    np.testing.assert_array_equal(fused.data, untouched)
    widget.redo_button.click()
    settle(widget, qtbot)
    np.testing.assert_array_equal(fused.data, painted)
    # The eraser brings back the map, not a hole.
    labels.paint((40, 50), 0)
    settle(widget, qtbot)
    np.testing.assert_array_equal(labels.data, map_before + 1)
    np.testing.assert_array_equal(fused.data, untouched)
    assert not notification_manager.records


def test_slices_that_were_aligned_are_aligned_while_painting(window, qtbot):
    viewer, widget = window
    scene = gaussian_filter(np.random.default_rng(0).normal(size=(110, 96)), 1.5)
    scene = (100 + 200 * scene).clip(0, 255).astype(np.uint8)
    pixels = np.stack([scene[4 + z * 3 :][:90] for z in range(3)])
    layer = viewer.add_image(pixels, name="mine")
    for data in fuse_layer(layer, model="sml", align="translation"):
        viewer.add_layer(Layer.create(*data))
    without_fused(viewer)
    labels = begin(widget, qtbot)
    labels.brush_size = 15
    labels.paint((45, 50), 3)
    settle(widget, qtbot)
    record = widget.session.result.provenance["registration"]
    how = {"decision": widget.decision(), "align": Registration.of_record(record)}
    whole = fuse(as_stack(pixels), **how)
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, whole.fused)
    assert whole.registration.matrices[0, 2, 0, 2] == pytest.approx(-3, abs=0.2)
    # Another channel is aligned alike.
    other = viewer.add_image(255 - pixels, name="other")
    widget.target.value = other
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        assert widget.apply() is not None
    applied = viewer.layers[-1].data[5:-5, 5:-5].astype(int)
    assert np.abs(applied - (255 - whole.fused[5:-5, 5:-5].astype(int))).max() <= 2
    # The map was made of as many slices as the layer had.
    layer.data = pixels[:2]
    widget.map.value = labels
    assert widget.start() is None
    assert "aligned or levelled" in last_notification()


def test_several_strokes_while_it_follows(window, slices, qtbot):
    viewer, widget = window
    fused_stack(viewer, slices)
    without_fused(viewer)
    labels = begin(widget, qtbot)
    labels.brush_size = 9
    for step in range(12):
        labels.paint((10 + 5 * step, 8 + 9 * step), 1 + step % 5)
        qtbot.wait(3)
    labels.fill((80, 10), 5)
    settle(widget, qtbot)
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))


def test_labels_without_a_slice_are_not_kept(window, slices, qtbot):
    viewer, widget = window
    fused_stack(viewer, slices)
    labels = begin(widget, qtbot)
    before = labels.data.copy()
    labels.paint((40, 50), 77)
    settle(widget, qtbot)
    np.testing.assert_array_equal(labels.data, before)
    assert "labels go from 1 to 5" in widget.status.text()


class Counted:
    """Counts the pixels that a dask array gives out."""

    def __init__(self, pixels):
        self.pixels, self.read = pixels, 0

    def array(self):
        def read(block_info):
            (z, y, x) = block_info[None]["array-location"]
            block = self.pixels[slice(*z), slice(*y), slice(*x)]
            self.read += block.size
            return block

        n, height, width = self.pixels.shape
        return da.map_blocks(
            read,
            chunks=((1,) * n, (45,) * (height // 45), (40,) * (width // 40)),
            dtype=self.pixels.dtype,
            meta=np.empty((0, 0, 0), self.pixels.dtype),
        )


def test_of_lazy_stacks_only_what_is_painted_is_read(window, slices, qtbot):
    viewer, widget = window
    counted = Counted(slices)
    shown = {"contrast_limits": (0, 65535), "visible": False}
    fused_stack(viewer, counted.array(), **shown)
    before = viewer.layers["mine fused [sml]"].data.copy()
    counted.read = 0
    labels = begin(widget, qtbot)
    assert counted.read == 0  # the fused image is there already
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, before)
    labels.brush_size = 5
    labels.paint((20, 20), 1 + labels.data[20, 20] % 5)
    settle(widget, qtbot)
    # One chunk of six, of five slices, for the noise and again for the pixels.
    assert 0 < counted.read <= 2 * 5 * 45 * 40
    near = (slice(13, 28), slice(13, 28))
    assert (fused.data != before).any()
    np.testing.assert_array_equal(
        fused.data[near], expected(widget, slices, "ZYX")[near]
    )
    # Results are of their own: the layer it began with is as it was.
    np.testing.assert_array_equal(viewer.layers["mine fused [sml]"].data, before)


def test_axes_that_only_the_results_know(window, slices, qtbot):
    viewer, widget = window
    channels = np.stack([slices, slices // 2, slices], axis=1)
    fused_stack(viewer, channels, axes="ZCYX")  # or 5 channels of 3 slices?
    viewer.add_labels(np.zeros((90, 120), np.uint8), name="cells")
    without_fused(viewer)
    assert widget.map.currentText() == "mine decision [sml]"
    labels = begin(widget, qtbot)
    place = (*(0,) * (labels.ndim - 2), 40, 50)
    labels.paint(place, 1 + labels.data[place] % 5)
    settle(widget, qtbot)
    wanted = expected(widget, channels, "ZCYX")
    for fused, channel in zip(widget.session.fused, wanted, strict=True):
        np.testing.assert_array_equal(np.squeeze(fused.data), channel)


@pytest.mark.parametrize("labels", [("y", "x", "z"), ("x", "y", "z"), ()])
def test_slices_that_come_last(window, slices, qtbot, labels):
    """As in arrays of MATLAB; without labels the user says so in the field for Z."""
    viewer, widget = window
    axes = "".join(labels).upper() or "YXZ"
    pixels = np.moveaxis(slices, 0, -1)
    pixels = pixels.swapaxes(0, 1) if axes == "XYZ" else pixels
    place = {"axis_labels": labels} if labels else {}
    scale = (0.5, 0.25, 2)
    stack = fused_stack(viewer, pixels, axes=axes, scale=scale, **place)
    without_fused(viewer)
    assert widget.map.currentText() == "mine decision [sml]"
    painted = begin(widget, qtbot)
    before = widget.decision()
    np.testing.assert_array_equal(before, fuse(pixels, "sml", axes=axes).decision)
    np.testing.assert_allclose(painted.extent.world[:, :2], stack.extent.world[:, :2])
    mask = np.zeros(slices.shape[1:], bool)
    mask[20:60, 30:70] = True
    widget.take_area(mask, 4)
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.decision(), np.where(mask, 4, before))
    (fused,) = widget.session.fused

    def seen():
        plane = fused.data[..., 0]
        return plane.T if axes == "XYZ" else plane

    np.testing.assert_array_equal(seen(), expected(widget, pixels, axes))
    # Shown as y and x, with a slider for z: the brush, and an area that is drawn.
    viewer.dims.order = [axes.index(axis) for axis in "ZYX"]
    viewer.dims.set_current_step(2, 3)
    assert "slice 3 of 0 to 4" in widget.on_screen.text()
    painted.brush_size = 9
    painted.paint([{"Z": 0, "Y": 70, "X": 90}[axis] for axis in axes], 1)
    settle(widget, qtbot)
    assert (widget.decision()[69:72, 89:92] == 0).all()
    widget.draw_button.click()
    corners = np.array([[10, 20], [10, 59], [39, 59], [39, 20]])
    corners = corners[:, ::-1] if axes == "XYZ" else corners
    drawn = np.column_stack([corners, np.zeros(4)])
    viewer.layers["Area"].add_polygons(drawn)
    widget.take_button.click()
    settle(widget, qtbot)
    assert (widget.decision()[11:39, 21:59] == 3).all()
    np.testing.assert_array_equal(seen(), expected(widget, pixels, axes))


def test_zarr_and_multiscale(window, slices, tmp_path, qtbot):
    viewer, widget = window
    stored = zarr.create_array(tmp_path / "s.zarr", data=slices, chunks=(1, 45, 60))
    lazy = da.from_zarr(stored)
    fused_stack(viewer, [lazy, lazy[:, ::2, ::2]], contrast_limits=(0, 65535))
    without_fused(viewer)
    labels = begin(widget, qtbot)
    labels.paint((40, 50), 2)
    settle(widget, qtbot)
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))


def test_channels_and_colours(window, slices, qtbot):
    viewer, widget = window
    channels = np.stack([slices, slices[:, ::-1]])
    fused_stack(viewer, channels, axes="CZYX", axis_labels=("c", "z", "y", "x"))
    labels = begin(widget, qtbot)
    assert len(widget.session.fused) == 2
    widget.take_area(np.ones((90, 120), bool), 1)
    settle(widget, qtbot)
    wanted = expected(widget, channels, "CZYX")
    for channel, layer in enumerate(widget.session.fused):
        np.testing.assert_array_equal(np.squeeze(layer.data), wanted[channel])
    assert (labels.data == 2).all()

    viewer.layers.clear()
    assert widget.session is None
    colours = np.stack([slices >> 8] * 3, -1).astype(np.uint8)
    fused_stack(viewer, colours, rgb=True)
    without_fused(viewer)
    labels = begin(widget, qtbot)
    labels.paint((40, 50), 2)
    settle(widget, qtbot)
    (fused,) = widget.session.fused
    assert fused.rgb
    np.testing.assert_array_equal(fused.data, expected(widget, colours, "ZYXS"))


def test_time_points(window, slices, qtbot):
    viewer, widget = window
    movie = np.stack([slices, slices[::-1], slices])
    fused_stack(viewer, movie, axes="TZYX", axis_labels=("t", "z", "y", "x"))
    without_fused(viewer)
    viewer.dims.set_current_step(0, 1)
    labels = begin(widget, qtbot)
    assert labels.data.shape == (3, 1, 90, 120)
    before = widget.decision()
    viewer.dims.set_current_step(1, 4)
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30:70] = True
    widget.take_area(mask)
    settle(widget, qtbot)
    after = widget.decision()
    assert (after[1][mask] == 4).all()
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    (fused,) = widget.session.fused
    wanted = expected(widget, movie, "TZYX")
    np.testing.assert_array_equal(fused.data[:, 0], wanted)
    # What is undone elsewhere is followed when it comes on screen.
    viewer.dims.set_current_step(0, 2)
    settle(widget, qtbot)
    labels.undo()
    viewer.dims.set_current_step(0, 1)
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.decision(), before)
    np.testing.assert_array_equal(fused.data[:, 0], expected(widget, movie, "TZYX"))

    # One time point's map for all of them.
    assert not widget.one_time.isHidden()
    widget.one_time.setChecked(True)
    names = {layer.name for layer in viewer.layers}
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.apply_button.click()
    (new,) = (layer for layer in viewer.layers if layer.name not in names)
    wanted = fuse(as_stack(movie, axes="TZYX"), decision=before[1], device="cpu").fused
    np.testing.assert_array_equal(new.data[:, 0], wanted)


def test_areas_from_the_slice_on_screen(window, slices, qtbot):
    viewer, widget = window
    fused_stack(viewer, slices, **PLACE)
    labels = begin(widget, qtbot)
    widget.brush_follows.setChecked(True)
    viewer.dims.set_current_step(0, 3)
    assert labels.selected_label == 4
    assert widget.on_screen.text() == "On screen: slice 3 of 0 to 4, label 4."
    before = labels.data.copy()

    widget.draw_button.click()
    shapes = viewer.layers["Area"]
    assert widget.area.value is shapes
    widget.take_button.click()
    assert "Nothing is drawn in 'Area'" in last_notification()
    shapes.add_rectangles(np.array([[10, 20], [10, 59], [39, 59], [39, 20]]))
    shapes.selected_data = set()
    widget.take_button.click()
    settle(widget, qtbot)
    inside = np.zeros(before.shape, bool)
    inside[11:39, 21:59] = True
    assert (labels.data[inside] == 4).all()
    outside = np.ones(before.shape, bool)
    outside[10:40, 20:60] = False
    np.testing.assert_array_equal(labels.data[outside], before[outside])
    labels.undo()
    np.testing.assert_array_equal(labels.data, before)

    # One label's pixels around a click.
    settle(widget, qtbot)
    widget.area.value = None
    widget.take_button.click()
    assert "Click on the area" in last_notification()
    click(viewer, labels, (50, 70))
    viewer.dims.set_current_step(0, before[50, 70] % 5)
    widget.take_button.click()
    settle(widget, qtbot)
    changed = labels.data != before
    assert changed[50, 70] and (before[changed] == before[50, 70]).all()

    widget.show_slice.setChecked(True)
    seen = [layer.name for layer in viewer.layers if layer.visible]
    assert seen == ["mine", "mine decision, to paint on", "Area"]
    widget.show_slice.setChecked(False)
    assert widget.session.fused[0].visible
    viewer.dims.order = (1, 0, 2)
    widget.take_button.click()
    assert "z axis has no slider" in last_notification()
    viewer.dims.order = (0, 1, 2)


def click(viewer, labels, pixel):
    """Press the mouse over a pixel of a layer that is not painted on just now."""
    labels.mode = "pan_zoom"

    event = SimpleNamespace(
        type="mouse_press",
        button=1,
        position=labels.data_to_world(pixel),
        dims_displayed=viewer.dims.displayed,
    )
    mouse_press_callbacks(labels, event)


def test_save_load_and_fuse_another_stack(window, slices, tmp_path, qtbot):
    viewer, widget = window
    fused_stack(viewer, slices)
    other = viewer.add_image(slices[:, ::-1].astype(np.float32), name="other channel")
    viewer.add_image(slices[:, :50], name="too small")
    widget.layer.value = viewer.layers["mine"]
    widget.map.value = viewer.layers["mine decision [sml]"]
    labels = begin(widget, qtbot)
    names = [widget.target.itemText(i) for i in range(widget.target.count())]
    assert names == ["mine", "other channel"]
    labels.brush_size = 30
    labels.paint((40, 50), 5)
    settle(widget, qtbot)
    decision = widget.decision()
    path = widget.save_map(tmp_path / "map.ome.tif")

    widget.target.value = other
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.apply_button.click()
    wanted = fuse(as_stack(other.data, axes="ZYX"), decision=decision, device="cpu")
    found = viewer.layers["other channel fused [given decision map]"].data
    np.testing.assert_array_equal(found, wanted.fused)

    labels.paint((10, 10), 1)
    labels.paint((80, 100), 2)
    settle(widget, qtbot)
    edited = labels.data.copy()
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.load_map(path)
    settle(widget, qtbot)
    np.testing.assert_array_equal(widget.decision(), decision)
    np.testing.assert_array_equal(labels.data, decision + 1)
    widget.undo()
    np.testing.assert_array_equal(labels.data, edited)

    # Without any map among the layers.
    viewer.layers.clear()
    viewer.add_image(slices, name="mine")
    assert not widget.start_button.isEnabled()
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.load_map(path)
    np.testing.assert_array_equal(widget.decision(), decision)


def test_maps_from_elsewhere(window, slices, qtbot):
    viewer, widget = window
    viewer.add_image(slices, name="mine")
    rng = np.random.default_rng(0)
    own = rng.integers(0, 5, slices.shape[1:]).astype(np.int32)
    viewer.add_image(own, name="an image")
    viewer.add_labels(own + 1, name="labels from 1")
    viewer.add_image(own.T, name="another size")
    viewer.add_image(own / 7, name="no map")
    listed = [widget.map.itemText(i) for i in range(widget.map.count())]
    assert listed == ["labels from 1", "an image"]
    for name in listed:
        widget.map.value = viewer.layers[name]
        begin(widget, qtbot)
        np.testing.assert_array_equal(widget.decision(), own)
    widget.map.value = viewer.layers["labels from 1"]
    widget.first.value = 0
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.start()
    assert "names slices 1 to 5" in last_notification()


def gated(window, gate, slices):
    viewer, _ = window
    decision = fuse(slices, "sml", axes="ZYX", device="cpu").decision
    viewer.add_labels(decision.astype(np.int32) + 1, name="map")
    viewer.add_image(gate[0], name="slow", **gate[1])
    return viewer


def test_cancel(window, gate, slices, qtbot):
    viewer, (_, widget) = gated(window, gate, slices), window
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.start_button.click()
        qtbot.waitUntil(gate[2].is_set, timeout=60_000)
        assert widget.cancel_button.isEnabled()
        widget.cancel_button.click()
        gate[3].set()
    assert widget.session is None and len(viewer.layers) == 2
    assert widget.status.text() == "Cancelled; no layer was added."
    begin(widget, qtbot)


def test_the_window_lives_while_slow_slices_are_read(window, gate, slices, qtbot):
    _, widget = window
    gated(window, gate, slices)
    gate[3].set()
    labels = begin(widget, qtbot)
    gate[3].clear()
    gate[2].clear()
    labels.paint((40, 50), 1 + labels.data[40, 50] % 5)
    qtbot.waitUntil(gate[2].is_set, timeout=60_000)
    # Reading hangs; painting goes on.
    labels.paint((20, 20), 1 + labels.data[20, 20] % 5)
    assert not widget.caught_up
    gate[3].set()
    settle(widget, qtbot)
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))


@pytest.mark.parametrize("what", ["labels", "fused", "dock", "viewer"])
def test_whatever_goes_while_it_follows(window, gate, slices, qtbot, what):
    viewer, (_, widget) = gated(window, gate, slices), window
    gate[3].set()
    labels = begin(widget, qtbot)
    gate[3].clear()
    gate[2].clear()
    labels.paint((40, 50), 1 + labels.data[40, 50] % 5)
    qtbot.waitUntil(gate[2].is_set, timeout=60_000)
    session = widget.session
    if what == "dock":
        viewer.window.remove_dock_widget(widget)
    elif what == "viewer":
        viewer.close()
    else:
        viewer.layers.remove(labels if what == "labels" else session.fused[0])
        assert "was removed" in widget.status.text()
        assert widget.session is None and not widget.take_button.isEnabled()
    gate[3].set()
    qtbot.waitUntil(lambda: session._worker is None, timeout=60_000)
    assert not notification_manager.records


def test_all_layers_go_at_once(window, slices, qtbot):
    viewer, widget = window
    fused_stack(viewer, slices)
    begin(widget, qtbot)
    # Shown or hidden layers make napari draw a box behind the brush from then on, and
    # drawn first when all layers are gone it can end this very process.
    viewer.layers[0].visible = False
    canvas, circle = viewer.window._qt_viewer.canvas, "_brush_circle"
    (drawn,) = canvas._viewer_overlay_to_visual[viewer.canvas.overlays[circle]]
    assert drawn.box.parent is None
    viewer.layers.clear()
    assert widget.session is None
    screen = viewer.screenshot(canvas_only=True, flash=False)
    assert (screen == screen[0, 0]).all()
    assert not notification_manager.records


def test_renamed_and_removed_sources(window, slices, qtbot):
    viewer, widget = window
    stack = fused_stack(viewer, slices)
    without_fused(viewer)
    labels = begin(widget, qtbot)
    stack.name = "renamed"
    viewer.layers.remove(stack)
    labels.paint((40, 50), 2)
    settle(widget, qtbot)
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))
    widget.take_button.click()
    assert widget.area.value is None and "Click on" in last_notification()
    click(viewer, labels, (10, 10))
    widget.take_button.click()
    assert "The stack is no longer there" in last_notification()


def test_flat_layers_are_a_stack(window, slices, qtbot):
    viewer, widget = window
    layers = flat_layers(viewer, slices)
    assert widget.layer.value is None and "select the two-dim" in widget.advice.text()
    for layer in results_of(layers):
        viewer.add_layer(layer)
    # What the map was made of is found; its slices are no maps.
    assert widget.layer.value == layers
    assert widget.layer.currentText() == "5 layers: z0 to z4"
    assert [one.name for one in widget.map.values] == ["z0 to z4 decision [sml]"]
    without_fused(viewer)
    labels = begin(widget, qtbot)
    np.testing.assert_allclose(labels.extent.world, layers[0].extent.world)
    labels.brush_size = 15
    labels.paint((40, 50), 1)
    settle(widget, qtbot)
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))

    # The slice on screen is the topmost one; selecting another one shows it.
    text = "On screen: slice 4 of 0 to 4, layer 'z4', label 5."
    assert widget.on_screen.text() == text
    widget.brush_follows.setChecked(True)
    assert labels.selected_label == 5
    viewer.layers.selection.active = layers[1]
    assert [layer.visible for layer in layers] == [i == 1 for i in range(5)]
    viewer.layers.selection.active = labels
    assert labels.selected_label == 2
    mask = np.zeros((90, 120), bool)
    mask[20:60, 30:70] = True
    widget.take_area(mask)
    settle(widget, qtbot)
    assert (widget.decision()[mask] == 1).all()
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))

    # Also by the eyes, and the order, of the layer list.
    layers[1].visible = False
    assert "No slice is visible" in widget.on_screen.text()
    click(viewer, labels, (10, 10))
    widget.area.value = None
    widget.take_button.click()
    assert "No slice is visible" in last_notification()
    layers[3].visible = layers[0].visible = True
    assert labels.selected_label == 4
    viewer.layers.move(0, 4)  # the first one over the fourth
    assert labels.selected_label == 1
    widget.show_slice.setChecked(True)
    assert not fused.visible
    assert [layer.visible for layer in layers] == [i == 0 for i in range(5)]


def test_flat_layers_that_are_selected(window, slices, qtbot, tmp_path):
    viewer, widget = window
    layers = flat_layers(viewer, slices)
    others = tuple(
        viewer.add_image(plane[::-1], name=f"other {i}")
        for i, plane in enumerate(slices)
    )
    viewer.layers.selection = set(layers)
    assert widget.layer.value == layers
    decision = fuse(slices, "sml", axes="ZYX", device="cpu").decision
    path = save_decision(
        tmp_path / "map.ome.tif", decision, as_stack(slices, axes="ZYX")
    )
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.load_map(path)
    np.testing.assert_array_equal(widget.decision(), decision)
    # Another channel of flat layers by this map.
    viewer.layers.selection = set(others)
    widget.target.value = others
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.apply_button.click()
    found = viewer.layers["other 0 to other 4 fused [given decision map]"].data
    wanted = fuse(slices[:, ::-1], decision=decision, axes="ZYX", device="cpu").fused
    np.testing.assert_array_equal(found, wanted)


def test_the_slices_are_in_the_order_of_the_fusion(window, slices, qtbot):
    viewer, widget = window
    layers = flat_layers(viewer, slices)[::-1]
    for layer in results_of(layers):
        viewer.add_layer(layer)
    assert widget.layer.value == layers
    labels = begin(widget, qtbot)
    viewer.layers.selection.active = viewer.layers["z4"]
    assert "slice 0 of 0 to 4, layer 'z4'" in widget.on_screen.text()
    labels.data_setitem((np.array([40]), np.array([50])), 1)
    settle(widget, qtbot)
    assert widget.decision()[40, 50] == 0


def test_flat_layers_renamed_and_removed(window, slices, qtbot):
    viewer, widget = window
    layers = flat_layers(viewer, slices)
    results = results_of(layers)
    layers[2].name = "another name"
    for layer in results:
        viewer.add_layer(layer)
    assert widget.layer.value is None and widget.start() is None
    assert "was made of the layers 'z0', 'z1', 'z2'" in last_notification()
    assert "select all of them in the layer list" in widget.advice.text()
    viewer.layers.selection = set(layers)
    assert widget.layer.value == layers and widget.advice.isHidden()
    layers[2].name = "z2"
    viewer.layers.selection.active = results[0]
    labels = begin(widget, qtbot)

    # Those that were found stay known by whatever name.
    layers[0].name = "yet another"
    assert widget.layer.value == layers
    assert widget.layer.currentText() == "5 layers: yet another to z4"
    viewer.layers.remove(layers[4])
    assert widget.layer.value is None and "'z0', 'z1'" in widget.advice.text()
    # What has begun goes on.
    labels.paint((40, 50), 5)
    widget.take_area(np.ones((90, 120), bool))
    settle(widget, qtbot)
    assert (widget.decision() == 3).all()
    (fused,) = widget.session.fused
    np.testing.assert_array_equal(fused.data, expected(widget, slices, "ZYX"))
    for layer in layers[:4]:
        viewer.layers.remove(layer)
    assert widget.on_screen.text() == "The stack is no longer there. Open it again."


def test_pixels_that_are_no_numbers(window, slices, qtbot):
    viewer, widget = window
    bad = slices.astype(np.float32)
    fused_stack(viewer, bad, contrast_limits=(0, 65535))
    labels = begin(widget, qtbot)
    bad[2, 40, 50] = np.inf
    labels.paint((40, 50), 1 + labels.data[40, 50] % 5)
    settle(widget, qtbot)
    assert "slice 2, row 40, column 50" in last_notification()


def test_nothing_to_begin_with(window, slices):
    viewer, widget = window
    assert not widget.start_button.isEnabled() and widget.start() is None
    assert "Open a focus stack" in last_notification()
    viewer.add_image(slices)
    assert "Fuse the stack first" in widget.advice.text()
    assert widget.start() is None and widget.apply() is None


def test_without_a_window(slices, tmp_path):
    """The same as calls that take layers."""
    stack_layer = Layer.create(slices, {"name": "mine", **PLACE}, "image")
    layers = [
        Layer.create(*data)
        for data in fuse_layer(stack_layer, model="sml", device="cpu")
    ]
    fused, decision = layers[0], layers[1]
    stack = as_stack(slices, axes="ZYX")
    assert fused_of(layers, decision) is fused
    assert maps_of([stack_layer, *layers], stack) == [decision]
    result, data = retouch_layers(stack_layer, decision, fused_layer=fused)
    shown, labels = (Layer.create(*one) for one in data)
    assert shown.data is result.fused and shown.data is not fused.data
    np.testing.assert_array_equal(decision_of(labels, stack), decision.data)
    np.testing.assert_allclose(labels.extent.world, fused.extent.world)
    labels.data[:] = 3
    ((pixels, attributes, kind),) = fuse_by_map(stack_layer, labels, blend="select")
    np.testing.assert_array_equal(pixels, slices[2])
    assert kind == "image" and attributes["name"].startswith("mine fused")
    path = save_decision(tmp_path / "m.ome.tif", decision_of(labels, stack), stack)
    assert path.exists()


def test_flat_layers_without_a_window(slices):
    flat = [Layer.create(one, {"name": f"z{i}"}) for i, one in enumerate(slices)]
    fused, decision, *_ = results_of(flat)
    result, data = retouch_layers(flat, decision, fused_layer=fused)
    labels = Layer.create(*data[-1])
    np.testing.assert_array_equal(labels.data, decision.data + 1)
    np.testing.assert_array_equal(result.fused, fused.data)
    labels.data[:] = 3
    ((pixels, attributes, _),) = fuse_by_map(flat, labels, blend="select")
    np.testing.assert_array_equal(pixels, slices[2])
    assert attributes["name"].startswith("z0 to z4 fused")


def test_a_map_of_one_time_point_alone(slices):
    movie = Layer.create(np.stack([slices, slices]), {"name": "movie"}, "image")
    options = {"axes": "TZYX", "time": 1, "model": "sml", "device": "cpu"}
    one = [Layer.create(*data) for data in fuse_layer(movie, **options)]
    result, _ = retouch_layers(movie, one[1], fused_layer=one[0], axes="TZYX")
    assert result.fused.shape == (2, 90, 120)
    for t in range(2):
        np.testing.assert_array_equal(result.decision[t], np.squeeze(one[1].data))


def test_shapes_elsewhere_in_the_world(slices):
    place = {"scale": (0.5, 0.25), "translate": (-3, 7)}
    labels = Layer.create(np.ones((90, 120), int), place, "labels")
    ellipse = np.array([[2, 9], [2, 19], [12, 19], [12, 9]])  # in the world
    other = {"scale": (2, 2), "translate": (1, 1), "shape_type": "ellipse"}
    shapes = Layer.create([(ellipse - 1) / 2], other, "shapes")
    y, x = np.mgrid[:90, :120]
    inside = ((y * 0.5 - 3 - 7) / 5) ** 2 + ((x * 0.25 + 7 - 14) / 5) ** 2
    found = drawn_area(shapes, labels)
    assert found[inside < 0.8].all() and not found[inside > 1.2].any()
