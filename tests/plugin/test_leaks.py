"""The check for leaked widgets, which every test here goes through, finds them."""

from __future__ import annotations

from leaks import holders, qt_objects
from napari_focus_fusion.plugin.common.combo_boxes import ValueComboBox


def test_a_referenced_widget_is_found(qtbot):
    owner = {"somebody": ValueComboBox("")}
    (found,) = qt_objects()
    assert found is owner["somebody"]
    assert "somebody" in holders(found)
    owner.clear()
    del found
    assert qt_objects() == []


def test_an_open_window_is_found(qtbot):
    from qtpy.QtWidgets import QWidget

    window = QWidget()
    window.show()
    assert qt_objects() == [window]
    window.close()
    assert qt_objects() == []
