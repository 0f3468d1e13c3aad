"""Finding the devices there are."""

from __future__ import annotations

import sys

import pytest
from napari.utils.notifications import NotificationSeverity, notification_manager

from napari_focus_fusion.device import available_devices
from napari_focus_fusion.plugin.adapters.preferences import preferences
from napari_focus_fusion.plugin.common.combo_boxes import ValueComboBox
from napari_focus_fusion.plugin.common.devices import load_devices, offer_devices


@pytest.fixture(autouse=True)
def nothing_left_by_other_tests():
    """Neither notifications nor a device that was chosen in a widget."""
    notification_manager.records.clear()
    kept = preferences()
    if kept is not None:
        kept.device = "auto"


def test_devices_are_found_and_offered(qtbot):
    found = []
    load_devices(found.append, "napari_focus_fusion.training.finetune")
    qtbot.waitUntil(lambda: bool(found), timeout=60_000)
    assert "napari_focus_fusion.training.finetune" in sys.modules
    field = ValueComboBox("", [("Automatic", "auto")])
    qtbot.addWidget(field)
    offer_devices(field, found[0])
    assert field.values == ["auto", *available_devices()] and field.value == "auto"
    assert field.currentText().startswith("Automatic: ")
    assert not notification_manager.records


def test_what_cannot_be_loaded_is_said(qtbot):
    found = []
    load_devices(found.append, "no_such_module_anywhere")
    qtbot.waitUntil(lambda: bool(notification_manager.records), timeout=60_000)
    (note,) = notification_manager.records
    assert note.severity == NotificationSeverity.ERROR
    assert note.message == (
        "Focus Fusion cannot load PyTorch (No module named 'no_such_module_anywhere'). "
        "Install it again."
    )
    assert found == []
