"""The tutorial, followed click by click in a real window."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QPushButton

from napari_focus_fusion.plugin.fuse.widget import FuseWidget

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def entries(menu, path=()):
    """All entries of a menu and its submenus, by their path of titles."""
    found = {}
    for action in menu.actions():
        # napari appends the plugin's name to each entry.
        name = action.text().replace("&", "").removesuffix(" (Focus Fusion)")
        here = (*path, name)
        below = action.menu()
        if below is not None:
            below.aboutToShow.emit()
            found.update(entries(below, here))
        else:
            found[here] = action
    return found


def choose(viewer, *path):
    """Choose an entry of the menu bar by its path of titles."""
    found = entries(viewer.window._qt_window.menuBar())
    assert path in found, sorted(one for one in found if one[:2] == path[:2])
    found[path].trigger()


def by_text(widget, kind, text):
    """The one visible button or box with a text."""
    (found,) = [
        one
        for one in widget.findChildren(kind)
        if one.isVisible() and one.text().replace("&", "").startswith(text)
    ]
    return found


def press(qtbot, widget, text):
    button = by_text(widget, QPushButton, text)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def tick(qtbot, widget, text):
    by_text(widget, QCheckBox, text).click()


def pick(widget, text):
    """Choose an entry of whichever list that is shown has it."""
    (found,) = [
        one
        for one in widget.findChildren(QComboBox)
        if one.findText(text) >= 0 and one.isVisible()
    ]
    found.setCurrentIndex(found.findText(text))


def test_the_first_five_minutes(make_napari_viewer, qtbot):
    if not TUTORIAL.exists():
        pytest.skip("not running from a source checkout")
    text = TUTORIAL.read_text(encoding="utf-8")
    viewer = make_napari_viewer(show=True)

    # 1. Open a stack
    sample = "Fluorescence focus stack (2 channels, 16 bit)"
    assert sample in text
    choose(viewer, "File", "Open Sample", "Focus Fusion", sample)
    assert [layer.name for layer in viewer.layers] == ["Nuclei", "Microtubules"]
    tubules = viewer.layers["Microtubules"]

    # 2. Open the widget
    menus = entries(viewer.window._qt_window.menuBar())
    for way in (("Project",), ("Filter", "Focus Fusion")):
        assert ("Layers", *way, "Fuse focus stack") in menus
    choose(viewer, "Plugins", "Focus Fusion", "Fuse focus stack")
    (widget,) = viewer.window._qt_window.findChildren(FuseWidget)
    assert widget.layer.value is tubules
    assert widget.holds.text() == "16 slices, 512 × 512 px, uint16"
    assert widget.holds.text() in text and "0.5 µm apart" in widget.z_axis.currentText()
    qtbot.waitUntil(widget.run_button.isEnabled, timeout=60_000)

    # 3. Look before you run
    pick(widget, "Most stacks (Sum-modified-Laplacian)")
    with qtbot.waitSignal(widget.preview.shown, timeout=60_000):
        press(qtbot, widget, "Preview")
    with qtbot.waitSignal(widget.preview.shown, timeout=60_000):
        widget.surface.setValue(0)
    assert "Preview" in viewer.layers
    press(qtbot, widget, "Preview")
    assert "Preview" not in viewer.layers

    # 4. Run
    tick(qtbot, widget, "Depth map")
    tick(qtbot, widget, "3-D surface")
    with qtbot.waitSignal(widget.ended, timeout=120_000):
        press(qtbot, widget, "Run")
    promised = re.findall(r"^- \*\*(Microtubules \w+)\*\*", text, re.MULTILINE)
    assert len(promised) == 4
    made = [viewer.layers[f"{name} [sml]"] for name in promised]
    assert [layer.visible for layer in made] == [True, False, False, False]
    fused, decision, depth, surface = made
    assert fused.colormap.name == tubules.colormap.name
    assert str(depth.units[0]) == "micrometer"
    assert np.ptp(depth.data) <= 15 * 0.5 + 1e-4 and decision.data.max() <= 15
    for layer in (fused, decision, depth):
        np.testing.assert_allclose(layer.extent.world, tubules.extent.world[:, 1:])

    # In focus everywhere: finer than any of the slices.
    def detail(plane):
        return np.abs(np.diff(plane.astype(float))).mean()

    assert detail(fused.data) > max(detail(plane) for plane in tubules.data)

    # 5. Turn the surface
    for layer in viewer.layers:
        layer.visible = layer is surface
    viewer.window._qt_viewer.viewerButtons.ndisplayButton.click()
    assert viewer.dims.ndisplay == 3
    screenshot = viewer.screenshot(canvas_only=True, flash=False)
    assert screenshot[..., :3].max() > 100  # the surface is visible

    # 6. The other channel
    viewer.window._qt_viewer.viewerButtons.ndisplayButton.click()
    viewer.layers.selection.active = viewer.layers["Nuclei"]
    assert widget.layer.value is viewer.layers["Nuclei"]
    pick(widget, "Layer Microtubules")
    with qtbot.waitSignal(widget.ended, timeout=120_000):
        press(qtbot, widget, "Run")
    same = viewer.layers["Nuclei decision [sml]"].data
    np.testing.assert_array_equal(same, decision.data)

    # 7. Keep the result
    widget.more.click()
    pick(widget, "OME-Zarr on disk")
    assert widget.destination.value == "zarr"
    saved = ("File", "Save Selected Layers...")
    assert saved in entries(viewer.window._qt_window.menuBar())
