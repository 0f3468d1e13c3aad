"""Reports on layers, in real napari windows."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint
from qtpy.QtGui import QHelpEvent

from napari_focus_fusion import as_stack, fuse
from napari_focus_fusion.plugin.adapters.layers import fuse_layer
from napari_focus_fusion.plugin.adapters.quality import report_layers
from napari_focus_fusion.report import report

PLUGIN, WIDGET = "napari-focus-fusion", "Focus fusion quality"


@pytest.fixture
def window(make_napari_viewer):
    """A viewer and the widget docked in it."""
    notification_manager.records.clear()
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    return viewer, widget


def fused_stack(viewer, pixels, name="mine", **attributes):
    layer = viewer.add_image(pixels, name=name, **attributes)
    for data in fuse_layer(layer, model="sml", device="cpu"):
        viewer.add_layer(Layer.create(*data))
    return layer


def run(widget, qtbot):
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.run_button.click()


@pytest.mark.parametrize("axes", ["YXZ", "XYZ"])
def test_a_stack_whose_slices_come_last(window, slices, qtbot, axes):
    viewer, widget = window
    labels = tuple(axes.lower())
    pixels = slices.transpose(["ZYX".index(axis) for axis in axes])
    stack = fused_stack(viewer, pixels, axis_labels=labels)
    widget.fused.value = viewer.layers["mine fused [sml]"]
    assert widget.layer.value is stack
    run(widget, qtbot)
    expected = report(slices, fuse(slices, "sml", axes="ZYX", device="cpu"))
    found = widget.report
    assert found.measures == expected.measures
    assert found.clear_share == expected.clear_share
    assert found.low_confidence == expected.low_confidence


def rows_of(table):
    return {
        (top.text(0), top.child(i).text(0)): top.child(i).text(1)
        for top in (table.topLevelItem(n) for n in range(table.topLevelItemCount()))
        for i in range(top.childCount())
    }


def test_the_report_of_a_fusion(window, slices, tmp_path, qtbot, monkeypatch):
    viewer, widget = window
    assert not widget.run_button.isEnabled()
    assert "fuse it first" in widget.advice.text() and not widget.advice.isHidden()
    fused_stack(viewer, np.flip(slices, 1), name="another")
    stack = fused_stack(viewer, slices)
    fused = viewer.layers["mine fused [sml]"]
    widget.fused.value = fused
    assert widget.advice.isHidden()
    # What belongs to the fused image is found by where it came from.
    assert widget.layer.value is stack
    assert widget.decision.value is viewer.layers["mine decision [sml]"]
    assert not widget.csv_button.isEnabled()
    run(widget, qtbot)
    expected = report(stack.data, fuse(slices, "sml", axes="ZYX", device="cpu"))
    found = widget.report
    assert found.measures == expected.measures
    assert found.clear_share == expected.clear_share
    assert found.low_confidence == expected.low_confidence
    assert found.verdict == expected.verdict
    assert widget.verdict.text() == "\n\n".join(found.verdict)
    table = rows_of(widget.table)
    assert float(table["Measures", "Q_G"]) == pytest.approx(
        found.measures["Q_G"][0], abs=1e-4
    )
    assert table["Provenance", "model"] == "sml"

    for name, button in (("r.csv", widget.csv_button), ("r.png", widget.png_button)):
        path = tmp_path / name
        monkeypatch.setattr(
            "napari_focus_fusion.plugin.report.widget.QFileDialog.getSaveFileName",
            lambda *args, path=path: (str(path.with_suffix("")), ""),
        )
        button.click()
        assert path.stat().st_size > 1000 and str(path) in widget.status.text()
    assert not notification_manager.records


def test_the_chart(window, slices, qtbot, monkeypatch):
    viewer, widget = window
    fused_stack(viewer, slices)
    run(widget, qtbot)
    darkness = []
    for theme in ("dark", "light"):
        viewer.theme = theme
        qtbot.wait(50)
        image = widget.chart.grab().toImage()
        darkness.append(image.pixelColor(image.width() - 2, 2).lightness())
    assert darkness[0] < 100 < darkness[1]
    # Tooltip of a bar.
    said = []
    monkeypatch.setattr(
        "napari_focus_fusion.plugin.report.chart.QToolTip.showText",
        lambda place, text, widget: said.append(text),
    )
    for x in (widget.chart.width() // 2, 0):
        place = QPoint(x, 40)
        widget.chart.event(QHelpEvent(QHelpEvent.Type.ToolTip, place, place))
    share = widget.report.share[2]
    assert said[0].startswith(f"Slice 2: {share:.1%} of all pixels") and said[1] == ""


def test_channels_and_time(window, slices, qtbot):
    viewer, widget = window
    channels = np.stack([slices, slices[::-1, ::-1] // 2])
    movie = np.stack([channels[:, ::-1], channels])
    labels = ("t", "c", "z", "y", "x")
    viewer.add_image(movie, name="movie", axis_labels=labels)
    for data in fuse_layer(viewer.layers[0], model="sml", device="cpu"):
        viewer.add_layer(Layer.create(*data))
    viewer.dims.set_current_step(0, 1)
    expected = fuse(as_stack(movie, axes="TCZYX"), "sml", device="cpu")
    wanted = report(movie_stack(movie), expected, t=1, measures=("Q_G",))
    for channel in range(2):
        widget.fused.value = viewer.layers[f"movie channel {channel} fused [sml]"]
        assert widget.layer.value is viewer.layers["movie"]
        run(widget, qtbot)
        assert "time point 1 of 0 to 1" in widget.status.text()
        found = widget.report.measures["Q_G"]
        assert found == (wanted.measures["Q_G"][channel],)
        assert widget.report.share == wanted.share


def movie_stack(movie):
    return as_stack(movie, axes="TCZYX")


def test_images_made_elsewhere(window, slices, qtbot):
    viewer, widget = window
    viewer.add_image(slices, name="mine")
    viewer.add_image(slices.max(0), name="maximum projection")
    viewer.add_image(slices.max(0)[:50], name="cut")
    widget.fused.value = viewer.layers["maximum projection"]
    widget.decision.value = None
    run(widget, qtbot)
    expected = report(slices, {"fused": slices.max(0)})
    assert widget.report.measures == expected.measures
    assert widget.chart.isHidden() and not widget.report.share
    widget.fused.value = viewer.layers["cut"]
    widget.run_button.click()
    message = notification_manager.records[-1].message
    assert "'cut' is not of the size of 'mine'" in message


def test_retouched_images(window, slices, qtbot):
    viewer, widget = window
    fused_stack(viewer, slices)
    _, retouch = viewer.window.add_plugin_dock_widget(PLUGIN, "Retouch focus fusion")
    with qtbot.waitSignal(retouch.ended, timeout=60_000):
        retouch.start()
    retouch.take_area(np.ones((90, 120), bool), 2)
    qtbot.waitUntil(lambda: retouch.caught_up, timeout=60_000)
    widget.fused.value = retouch.session.fused[0]
    assert widget.decision.value is retouch.labels
    run(widget, qtbot)
    assert widget.report.share == (0, 0, 1, 0, 0)


def test_flat_layers(window, slices, qtbot):
    viewer, widget = window
    layers = tuple(
        viewer.add_image(plane, name=f"z{i}") for i, plane in enumerate(slices)
    )
    for data in fuse_layer(layers, model="sml", device="cpu"):
        viewer.add_layer(Layer.create(*data))
    another = viewer.add_image(np.flip(slices, 1), name="as large")
    widget.fused.value = viewer.layers["z0 to z4 fused [sml]"]
    # What it was made of is found.
    assert widget.layer.value == layers
    decision = viewer.layers["z0 to z4 decision [sml]"]
    assert widget.decision.value is decision
    assert widget.decision.values == [decision, None]
    run(widget, qtbot)
    expected = report(slices, fuse(slices, "sml", axes="ZYX", device="cpu"))
    assert widget.report.measures == expected.measures
    assert widget.report.share == expected.share
    # When one is gone it is said, until others are selected.
    viewer.layers.remove(layers[4])
    assert widget.layer.value is another
    assert "was made of the layers 'z0', 'z1'" in widget.advice.text()
    assert not widget.advice.isHidden()
    viewer.layers.selection = set(layers[:4])
    assert widget.layer.value == layers[:4] and widget.advice.isHidden()
    # Images made elsewhere are compared with the selected layers.
    viewer.layers.remove(another)
    widget.fused.value = viewer.add_image(slices[:4].max(0), name="maximum")
    assert widget.layer.value == layers[:4]
    widget.decision.value = None
    run(widget, qtbot)
    expected = report(slices[:4], {"fused": slices[:4].max(0)})
    assert widget.report.measures == expected.measures
    assert not notification_manager.records


@pytest.mark.parametrize("what", ["cancel", "layers", "dock", "viewer"])
def test_whatever_ends_it(window, gate, slices, qtbot, what):
    viewer, widget = window
    data, shown, reached, opened = gate
    viewer.add_image(data, name="slow", **shown)
    viewer.add_image(slices.max(0), name="fused")
    worker = widget.run()
    qtbot.waitUntil(reached.is_set, timeout=60_000)
    if what == "cancel":
        widget.cancel_button.click()
    elif what == "layers":
        viewer.layers.clear()
    elif what == "dock":
        viewer.window.remove_dock_widget(widget)
    else:
        viewer.close()
    opened.set()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=60_000)
    if what == "cancel":
        qtbot.waitUntil(widget.run_button.isEnabled, timeout=60_000)
        assert widget.status.text() == "Cancelled." and widget.report is None
    if what == "layers":
        qtbot.waitUntil(lambda: widget.report is not None, timeout=60_000)
    assert not notification_manager.records


@pytest.mark.parametrize("flat", [False, True])
def test_without_a_window(slices, flat):
    stack = Layer.create(slices, {"name": "mine"}, "image")
    if flat:
        stack = [Layer.create(one, {"name": f"{i}"}) for i, one in enumerate(slices)]
    data = fuse_layer(stack, model="sml", device="cpu")
    fused, decision, confidence, _ = (Layer.create(*one) for one in data)
    found = report_layers(stack, fused, decision, confidence, measures=("Q_G",))
    expected = fuse(slices, "sml", axes="ZYX", device="cpu")
    expected = report(slices, expected, measures=("Q_G",))
    assert found.measures == expected.measures
    assert found.verdict == expected.verdict
