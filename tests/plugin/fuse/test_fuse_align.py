"""Aligning and levelling in the fuse widget."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_focus_fusion.metadata import METADATA_KEY

ROOM = 12


def drifting(count=3, side=96):
    """Slices that move by 2.5 rows each, sharp at different columns."""
    rng = np.random.default_rng(0)
    scene = (
        100 + 40 * gaussian_filter(rng.normal(size=(side + 2 * ROOM, side)), 1.5) / 0.19
    )
    slices = []
    for z in range(count):
        top = ROOM + 3 * (z - 1)
        blurred = gaussian_filter(scene, 2)
        near = abs(np.arange(side) - side * (z + 0.5) / count) < side / count / 2
        slices.append(np.where(near, scene, blurred)[top : top + side])
    return np.clip(slices, 0, 255).astype(np.uint8)


def test_what_is_chosen_is_done_and_recorded(window, qtbot):
    viewer, widget = window
    viewer.add_image(drifting(), name="drifting")
    widget.model.value = "sml"
    for value in ("similarity", "translation"):
        widget.align.value = value
    widget.brightness.value = "level"
    assert widget.options["align"] == "translation"
    with qtbot.waitSignal(widget.ended, timeout=120_000):
        widget.run_button.click()
    record = viewer.layers[-2].metadata[METADATA_KEY]
    assert record["parameters"]["align"] == "translation"
    shifts = np.array(record["registration"]["transforms"])[0, :, :, 2]
    assert np.allclose(shifts, [[3, 0], [0, 0], [-3, 0]], atol=0.2)
    assert len(record["brightness"]["gains"][0]) == 3


def test_the_preview_follows(window, qtbot):
    viewer, widget = window
    viewer.add_image(drifting(), name="drifting")
    widget.model.value = "sml"
    with qtbot.waitSignal(widget.preview.shown, timeout=120_000):
        widget.preview_button.click()
    with qtbot.waitSignal(widget.preview.shown, timeout=120_000):
        widget.align.value = "translation"
    record = widget.preview.layer.metadata[METADATA_KEY]
    assert record["parameters"]["align"] == "translation"
    assert record["registration"]["kind"] == "translation"
    widget.preview.stop()
