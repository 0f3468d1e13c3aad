"""Fields, and how their values are stored from one session to the next."""

from __future__ import annotations

import json

import pytest

from napari_focus_fusion.plugin.common.combo_boxes import ValueComboBox
from napari_focus_fusion.plugin.common.fields import (
    CheckField,
    FloatField,
    IntField,
    ToggleField,
)
from napari_focus_fusion.plugin.common.settings import recall_fields, remember_fields


def whole():
    field = IntField()
    field.setRange(-5, 50)
    return field


def decimal():
    field = FloatField()
    field.setRange(0, 10)
    return field


#: By name: how to make a field, two values it can hold, and some that it cannot.
FIELDS = {
    "check": (CheckField, (True, False), (1, None, "yes")),
    "toggle": (ToggleField, (True, False), (0, None, "no")),
    "int": (whole, (7, -5), (51, 1.5, True, "7", None)),
    "float": (decimal, (2.25, 10), (10.5, -1, False, "2", None, float("nan"))),
    "choice": (
        lambda: ValueComboBox("", [("A", "a"), ("B", 2)]),
        (2, "a"),
        ("b", None, [2]),
    ),
}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_field_has_a_value_and_says_when_it_changes(qtbot, kind):
    make, (first, second), bad = FIELDS[kind]
    field = make()
    qtbot.addWidget(field)
    heard = []
    field.changed.connect(lambda *_: heard.append(field.value))
    for value in (first, first, second):
        field.value = value
    assert heard == [first, second] and field.value == second
    for value in bad:
        with pytest.raises((ValueError, TypeError)):
            field.value = value
    assert heard == [first, second] and field.value == second


def test_fields_are_remembered_and_recalled(qtbot, remembered):
    def form():
        fields = {name: make() for name, (make, _, _) in FIELDS.items()}
        for field in fields.values():
            qtbot.addWidget(field)
        return fields

    before, after = form(), form()
    for name, (_, (first, _), _) in FIELDS.items():
        before[name].value = first
    remember_fields("some", before)
    expected = {name: first for name, (_, (first, _), _) in FIELDS.items()}
    assert json.loads(remembered.read_text()) == {"some": expected}
    recall_fields("some", after)
    assert {name: field.value for name, field in after.items()} == expected

    # Invalid values are ignored, and fields without a stored value stay.
    damaged = {name: bad[0] for name, (_, _, bad) in FIELDS.items() if name != "int"}
    remembered.write_text(json.dumps({"some": damaged}))
    recall_fields("some", after)
    assert {name: field.value for name, field in after.items()} == expected
