"""A layer whose axes cannot be known, in a real napari window."""

from __future__ import annotations

import numpy as np


def test_the_axis_of_the_slices_is_asked_for(window, slices, qtbot):
    viewer, widget = window
    last = np.ascontiguousarray(np.moveaxis(slices, 0, -1))
    layer = viewer.add_image(last, name="slices last")
    qtbot.waitUntil(lambda: widget._device_list is not None, timeout=60_000)
    assert widget.layer.value is layer
    assert widget.z_axis.value is None
    assert "choose it" in widget.holds.text()
    assert not widget.run_button.isEnabled()
    assert not widget.preview_button.isEnabled()
    layer.scale = (1, 1, 2)  # an edit of the layer does not choose
    assert widget.z_axis.value is None
    widget.z_axis.value = 2
    assert widget.axes == "YXZ"
    assert widget.holds.text().startswith("5 slices, 120 × 90 px")
    assert widget.run_button.isEnabled()
    widget.model.value = "sml"
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.run_button.click()
    decision = next(one for one in viewer.layers if "decision" in one.name)
    viewer.add_image(slices, name="slices first")
    assert widget.axes == "ZYX" and widget.z_axis.value == 0
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.run_button.click()
    other = [one for one in viewer.layers if "decision" in one.name][-1]
    np.testing.assert_array_equal(np.squeeze(decision.data), np.squeeze(other.data))


def test_labels_that_say_which_axis_is_which_are_enough(window, slices):
    viewer, widget = window
    last = np.ascontiguousarray(np.moveaxis(slices, 0, -1))
    layer = viewer.add_image(last)
    assert widget.z_axis.value is None
    layer.axis_labels = ("y", "x", "z")
    assert widget.axes == "YXZ"
