"""The widget, in real napari windows."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import dask.array as da
import numpy as np
import pytest
import torch
from napari.utils.notifications import (
    ErrorNotification,
    NotificationSeverity,
    notification_manager,
)
from superqt.utils import WorkerBase

from napari_focus_fusion.models import registry
from napari_focus_fusion.models.base import SliceScorer
from napari_focus_fusion.models.registry import ModelSpec

PLUGIN, WIDGET = "napari-focus-fusion", "Fuse focus stack"
PLACE = {
    "scale": (2, 0.5, 0.25),
    "units": ("micrometer",) * 3,
    "axis_labels": ("z", "y", "x"),
    "translate": (5, -3, 7),
    "rotate": 20,
}


class Exhausted(SliceScorer):
    """A model that finds no memory, however small the tile."""

    def score(self, slices, context=None):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Broken(SliceScorer):
    """A model with a bug."""

    def score(self, slices, context=None):
        raise KeyError("gate3.weight")


@pytest.fixture
def failing(window, monkeypatch):
    """Two more models to choose, which fail."""
    extra = tuple(
        ModelSpec(name, name, name, f"{__name__}:{kind}", halo=1)
        for name, kind in (("exhausted", "Exhausted"), ("broken", "Broken"))
    )
    monkeypatch.setattr(registry, "OURS", (*registry.OURS, *extra))
    window[1].model.refresh()


def run(widget, qtbot):
    """Press Run and wait for the end."""
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.run_button.click()


def started(window, gate, qtbot):
    """Fuse a gated layer up to where it reads its first pixel."""
    viewer, widget = window
    data, shown, reached, _ = gate
    viewer.add_image(data, name="gated", **shown)
    widget.run_button.click()
    qtbot.waitUntil(reached.is_set, timeout=60_000)
    assert not widget.run_button.isEnabled() and widget.cancel_button.isEnabled()
    return widget._worker


def all_quiet():
    return not WorkerBase._worker_set


def cut(sample):
    """A sample, a quarter of it in each direction of the plane."""
    for data, attributes, kind in sample:
        yield data[::2, :128, :160], attributes, kind


def test_press_run_on_a_colour_sample(window, brightfield, qtbot):
    viewer, widget = window
    (data, attributes, _), *_ = cut(brightfield)
    pollen = viewer.add_image(data, **attributes)
    assert widget.layer.value is pollen
    assert widget.z_axis.currentText() == "z: 6 slices, 2 µm apart"
    assert widget.holds.text() == "6 slices, 160 × 128 px, RGB"
    run(widget, qtbot)
    names = [layer.name for layer in viewer.layers]
    assert names == ["Pollen", "Pollen fused [sml]", "Pollen decision [sml]"]
    fused, decision = viewer.layers[1:]
    assert viewer.layers.selection.active is fused
    assert fused.rgb and fused.data.shape == (128, 160, 3)
    assert fused.visible and pollen.visible and not decision.visible
    assert tuple(map(str, fused.units)) == ("micrometer",) * 2
    # The viewer keeps its unit: the layers agree about theirs.
    assert {str(unit) for unit in viewer.dims.units} == {"micrometer"}
    for layer in (fused, decision):
        np.testing.assert_allclose(layer.extent.world, pollen.extent.world[:, 1:])
    assert widget.status.text().startswith("Done in ")
    assert widget.run_button.isEnabled() and not widget.cancel_button.isEnabled()


def test_channels_that_are_layers(window, fluorescence, qtbot):
    viewer, widget = window
    nuclei, tubules = (
        viewer.add_image(data, **attributes)
        for data, attributes, _ in cut(fluorescence)
    )
    assert widget.layer.value is tubules  # the one selected in the viewer
    run(widget, qtbot)
    fused = viewer.layers["Microtubules fused [sml]"]
    assert fused.colormap.name == tubules.colormap.name
    assert tuple(fused.contrast_limits) == tuple(tubules.contrast_limits)
    # Both would add up on the screen.
    assert fused.blending == "additive" and fused.visible and not tubules.visible
    expected = viewer.layers["Microtubules decision [sml]"].data

    viewer.layers.selection.active = nuclei
    assert widget.layer.value is nuclei
    widget.reference.value = tubules
    run(widget, qtbot)
    np.testing.assert_array_equal(viewer.layers["Nuclei decision [sml]"].data, expected)
    assert viewer.layers["Nuclei fused [sml]"].colormap.name == nuclei.colormap.name


def test_images_of_one_stack_do_not_add_up(window, slices, qtbot):
    viewer, widget = window
    other = viewer.add_image(slices[::-1], name="other", blending="additive")
    cells = viewer.add_image(slices, name="cells", blending="additive")
    widget.outputs["decision"].setChecked(False)
    run(widget, qtbot)
    widget.model.value = "residual-zero"
    run(widget, qtbot)
    shown = [layer.name for layer in viewer.layers if layer.visible]
    assert shown == ["other", "cells fused [residual-zero]"]
    viewer.layers.selection.active = other
    run(widget, qtbot)
    shown = [layer.name for layer in viewer.layers if layer.visible]
    assert shown == ["cells fused [residual-zero]", "other fused [residual-zero]"]
    # Channels are added up on the screen: without the slices below them.
    assert not cells.visible
    channels = viewer.add_image(np.stack([slices] * 2), name="two")
    assert channels.blending == "translucent_no_depth" and widget.axes == "CZYX"
    run(widget, qtbot)
    assert viewer.layers["two channel 0 fused [residual-zero]"].blending == "additive"
    assert not channels.visible


def test_results_are_no_stacks_and_get_names_of_their_own(window, slices, qtbot):
    viewer, widget = window
    viewer.add_image(np.stack([slices, slices]), name="movie")
    widget.other_axes.value = "T"
    for _ in range(2):
        run(widget, qtbot)
    names = [layer.name for layer in viewer.layers]
    assert len(set(names)) == 5
    assert [widget.layer.itemText(i) for i in range(widget.layer.count())] == ["movie"]
    assert viewer.layers["movie fused [sml]"].data.shape == (2, 1, 90, 120)


def test_what_is_chosen_is_what_runs(window, slices, qtbot):
    viewer, widget = window
    channels = np.stack([slices, slices // 2, slices], axis=1)
    viewer.add_image(channels, name="cells", axis_labels=("z", "b", "y", "x"))
    assert widget.axes == "ZCYX"
    assert not widget.other_axes.isHidden() and not widget.reference.isHidden()
    widget.z_axis.value = 1
    assert widget.axes == "CZYX"
    widget.other_axes.value = "T"
    assert widget.axes == "TZYX" and widget.reference.isHidden()
    widget.z_axis.value = 0
    assert widget.axes == "ZCYX"
    widget.reference.value = 1
    widget.blend.value = "select"
    widget.device.value = "cpu"
    for name, box in widget.outputs.items():
        box.setChecked(name in ("depth", "confidence"))
    run(widget, qtbot)
    confidence, depth = viewer.layers[1:]
    assert confidence.name == "cells confidence [sml]" and confidence.visible
    assert depth.name == "cells depth [sml]"
    parameters = depth.metadata["napari_focus_fusion"]["parameters"]
    assert parameters["reference"] == 1 and parameters["blend"] == "select"


def test_nothing_to_run(window, slices):
    viewer, widget = window
    assert not widget.run_button.isEnabled()
    assert "Open a focus stack" in widget.holds.text()
    viewer.add_image(slices[0])
    viewer.add_labels(slices.astype(int))
    assert not widget.run_button.isEnabled()
    stack = viewer.add_image(slices, name="mine")
    assert widget.run_button.isEnabled()
    stack.name = "renamed"
    assert widget.layer.currentText() == "renamed"
    for box in widget.outputs.values():
        box.setChecked(False)
    assert not widget.run_button.isEnabled()
    assert widget.run() is None and "No output is ticked" in last_notification()
    viewer.layers.remove(stack)
    assert widget.layer.value is None and widget.run() is None
    assert "no focus stack" in last_notification()


def test_layers_that_are_edited_after_they_were_chosen(window, slices, qtbot):
    viewer, widget = window
    movie = viewer.add_image(
        np.stack([slices, slices]), name="movie", scale=(1, 2, 1, 1), units="um"
    )
    widget.other_axes.value = "T"
    assert widget.z_axis.currentText() == "axis 1: 5 slices, 2 µm apart"
    movie.scale = (1, 0.5, 1, 1)
    assert widget.z_axis.currentText() == "axis 1: 5 slices, 0.5 µm apart"
    movie.units = "nm"
    assert widget.z_axis.currentText() == "axis 1: 5 slices, 0.5 nm apart"
    assert widget.outputs["depth"].text() == "Depth map (nm)"
    movie.data = movie.data[..., :60]
    assert widget.holds.text() == "5 slices, 60 × 90 px, 2 time points, uint16"
    assert widget.axes == "TZYX"  # as it was said
    movie.axis_labels = ("z", "c", "y", "x")
    assert widget.axes == "ZCYX"
    viewer.layers.remove(movie)
    movie.scale = (1, 1, 1, 1)
    assert widget.layer.value is None


def test_one_slice(window, slices):
    viewer, widget = window
    viewer.add_image(slices[:1], name="alone")
    assert widget.holds.text() == "1 slice, 120 × 90 px, uint16; nothing to fuse"
    assert widget.z_axis.currentText() == "axis 0: 1 slice"


def test_turned_layers(window, slices, qtbot):
    viewer, widget = window
    source = viewer.add_image(slices, name="turned", **PLACE)
    run(widget, qtbot)
    for layer in viewer.layers[1:]:
        np.testing.assert_allclose(layer.extent.world, source.extent.world[:, 1:])


@pytest.mark.parametrize("kind", ["dask", "multiscale"])
def test_lazy_layers(window, slices, qtbot, kind):
    viewer, widget = window
    lazy = da.from_array(slices, chunks=(1, 50, 50))
    data = [lazy, lazy[:, ::2, ::2]] if kind == "multiscale" else lazy
    viewer.add_image(data, name=kind, contrast_limits=(0, 65535))
    run(widget, qtbot)
    fused = viewer.layers[f"{kind} fused [sml]"]
    assert fused.data.shape == slices.shape[1:]
    np.testing.assert_allclose(
        fused.extent.world, viewer.layers[kind].extent.world[:, 1:]
    )


def test_cancel(window, gate, slices, qtbot):
    viewer, widget = window
    worker = started(window, gate, qtbot)
    with qtbot.waitSignals([worker.aborted, widget.ended], timeout=60_000):
        widget.cancel_button.click()
        assert not widget.cancel_button.isEnabled()
        gate[-1].set()
    assert len(viewer.layers) == 1
    assert widget.status.text() == "Cancelled; no layer was added."
    assert widget.run_button.isEnabled() and not widget.cancel_button.isEnabled()
    assert not notification_manager.records
    run(widget, qtbot)
    assert "gated fused [sml]" in viewer.layers


def test_the_source_may_go_while_it_is_fused(window, gate, slices, qtbot):
    viewer, widget = window
    started(window, gate, qtbot)
    viewer.layers["gated"].name = "renamed"
    viewer.layers.clear()
    assert widget.layer.value is None
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        gate[-1].set()
    names = [layer.name for layer in viewer.layers]
    assert names == ["gated fused [sml]", "gated decision [sml]"]
    assert not widget.run_button.isEnabled()
    viewer.add_image(slices)
    assert widget.run_button.isEnabled()


def test_closing_the_dock_ends_the_run(window, gate, qtbot):
    viewer, widget = window
    worker = started(window, gate, qtbot)
    viewer.window.remove_dock_widget(widget)
    assert worker.abort_requested
    gate[-1].set()
    qtbot.waitUntil(all_quiet, timeout=60_000)
    assert len(viewer.layers) == 1
    # It can be opened again.
    _, again = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    assert again is not widget
    qtbot.waitUntil(again.run_button.isEnabled, timeout=60_000)


def test_closing_napari_ends_the_run(window, gate, qtbot):
    viewer, _ = window
    worker = started(window, gate, qtbot)
    viewer.close()
    assert worker.abort_requested
    gate[-1].set()
    qtbot.waitUntil(all_quiet, timeout=60_000)
    assert not worker.is_running


def last_notification():
    note = notification_manager.records[-1]
    assert not isinstance(note, ErrorNotification)  # those show a traceback
    assert note.severity == NotificationSeverity.ERROR
    return note.message


def still_works(window, slices, qtbot):
    viewer, widget = window
    widget.model.value = "sml"
    viewer.add_image(slices, name="good")
    run(widget, qtbot)
    assert "good fused [sml]" in viewer.layers


def test_pixels_that_are_no_numbers(window, slices, qtbot, caplog):
    viewer, widget = window
    bad = slices.astype(np.float32)
    bad[2, 30, 40] = np.inf
    viewer.add_image(bad, name="bad", contrast_limits=(0, 65535))
    run(widget, qtbot)
    message = last_notification()
    assert "'bad'" in message and "slice 2, row 30, column 40" in message
    assert widget.status.text() == message
    assert len(viewer.layers) == 1 and not caplog.records
    still_works(window, slices, qtbot)


def test_absent_pixels_are_noted(window, slices, qtbot):
    viewer, widget = window
    holed = slices.astype(np.float32)
    holed[2, 30, 40] = np.nan
    viewer.add_image(holed, name="holed", contrast_limits=(0, 65535))
    run(widget, qtbot)
    notes = [note for note in notification_manager.records if "absent" in note.message]
    assert [note.severity for note in notes] == [NotificationSeverity.WARNING]
    assert notes[0].message.startswith("1 pixels (0.0%) are absent in some slices")
    assert np.isfinite(viewer.layers["holed fused [sml]"].data).all()


def test_pixels_that_cannot_be_fused(window, slices, qtbot):
    viewer, widget = window
    viewer.add_image(slices > 99, name="mask")
    widget.run_button.click()
    assert "'mask' holds pixels of type bool" in last_notification()
    still_works(window, slices, qtbot)


def test_no_memory(window, failing, slices, qtbot):
    viewer, widget = window
    viewer.add_image(slices, name="huge")
    widget.model.value = "exhausted"
    run(widget, qtbot)
    message = last_notification()
    assert "not enough memory" in message and "'huge'" in message
    assert "Traceback" not in message and len(viewer.layers) == 1
    still_works(window, slices, qtbot)


def test_a_bug(window, failing, slices, qtbot, caplog):
    viewer, widget = window
    viewer.add_image(slices, name="mine")
    widget.model.value = "broken"
    run(widget, qtbot)
    assert "gate3.weight" in last_notification()
    (record,) = caplog.records
    assert record.exc_info[0] is KeyError
    still_works(window, slices, qtbot)


def test_pixels_are_let_go_of(window, slices, qtbot):
    viewer, widget = window
    data = slices.copy()
    reference = weakref.ref(data)
    viewer.add_image(data, name="large")
    run(widget, qtbot)
    del data
    viewer.layers.remove("large")
    gc.collect()
    assert reference() is None


def test_napari_quits_in_the_middle_of_a_run():
    """In a process of its own, which prints nothing and exits with code 0."""
    script = """
import napari, numpy as np
from qtpy.QtCore import QTimer

viewer = napari.Viewer()
_, widget = viewer.window.add_plugin_dock_widget("napari-focus-fusion")
viewer.add_image(np.random.default_rng(0).integers(0, 255, (12, 1200, 1200), np.uint8))

def go():
    if not widget.run_button.isEnabled():
        return QTimer.singleShot(50, go)
    widget.model.value = "sml"
    worker = widget.run()
    worker.progressed.connect(lambda progress: viewer.window._qt_window.close())
    worker.returned.connect(lambda result: print("it was too late"))

go()
napari.run()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


def test_napari_quits_while_torch_is_loaded():
    script = """
import napari

viewer = napari.Viewer()
viewer.window.add_plugin_dock_widget("napari-focus-fusion")
viewer.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout and "Traceback" not in done.stderr


def test_values_are_chosen_by_value(window):
    _, widget = window
    with pytest.raises(ValueError, match="'nonsense' cannot be chosen"):
        widget.model.value = "nonsense"
