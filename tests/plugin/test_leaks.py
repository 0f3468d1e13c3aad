"""The check that every test here goes through finds what is still there."""

from __future__ import annotations

from leaks import holders, qt_objects
from napari_focus_fusion.plugin.common.choice import Choice


def test_a_widget_that_is_held_is_found(qtbot):
    held = {"somebody": Choice("")}
    (found,) = qt_objects()
    assert found is held["somebody"]
    assert "somebody" in holders(found)
    held.clear()
    del found
    assert qt_objects() == []


def test_an_open_window_is_found(qtbot):
    from qtpy.QtWidgets import QWidget

    window = QWidget()
    window.show()
    assert qt_objects() == [window]
    window.close()
    assert qt_objects() == []
