"""The fields that only fine-tuning has."""

from __future__ import annotations

import pytest
from qtpy.QtTest import QTest

from napari_focus_fusion.models.registry import models, models_folder
from napari_focus_fusion.plugin.finetune.fields import LengthFields, NameField


@pytest.fixture
def name(qtbot, tmp_path, monkeypatch):
    """The field of a name, with an empty folder of models."""
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(tmp_path))
    field = NameField()
    qtbot.addWidget(field)
    field.set_known(models())
    return field


def test_a_name_is_suggested_until_one_is_typed(name):
    name.suggest("pollen [day 3]-sesf")
    assert name.value == "pollen-day-3-sesf"
    name.suggest("sesf")
    assert name.value == "sesf-2"
    name.value = "mine"
    name.suggest("pollen")
    assert name.value == "mine"
    # One that is taken by now makes place.
    name.let_go_if_taken()
    name.suggest("pollen")
    assert name.value == "mine"
    name.set_known({**models(), "Mine": models()["sesf"]})
    name.let_go_if_taken()
    name.suggest("mine")
    assert name.value == "mine-2"
    name.setEnabled(False)  # as while a run is on
    name.suggest("pollen")
    assert name.value == "mine-2"
    with pytest.raises(TypeError, match="3 is no text"):
        name.value = 3


def test_what_is_wrong_with_a_name_is_said_while_it_is_typed(name):
    QTest.keyClicks(name, "SESF")
    assert name.hint == ("There is a model called 'SESF' already. Choose another name.")
    QTest.keyClicks(name, "-2")
    assert name.hint == ""
    QTest.keyClicks(name, " ")
    assert name.hint.startswith("A model cannot be called 'SESF-2 '.")
    steps = []
    name.stopped_run_named.connect(steps.append)
    (models_folder() / "damaged.checkpoint").write_text("")
    name.clear()
    QTest.keyClicks(name, "damaged")
    assert "A run of this name was stopped at step 0 of 0." in name.hint
    assert steps == []


def test_how_long_it_takes_is_remembered(qtbot, remembered):
    length = LengthFields()
    for field in (length.number, length.unit, length.estimate):
        qtbot.addWidget(field)
    assert length.value == {"steps": 300}
    length.show_kind("sesf cpu")
    assert "measured in the first run" in length.estimate.text()
    length.note_speed(0.6)
    assert length.estimate.text() == "About 3 min, as measured here."
    length.unit.value = "minutes"
    assert length.value == {"minutes": 5}
    assert length.estimate.text() == "About 500 steps, as measured here."
    length.remember()
    again = LengthFields()
    for field in (again.number, again.unit, again.estimate):
        qtbot.addWidget(field)
    again.set_steps(100)
    again.show_kind("sesf cpu")
    assert again.value == {"steps": 100}
    assert again.estimate.text() == "About 60 s, as measured here."
    again.show_kind("residual cpu")
    assert "measured in the first run" in again.estimate.text()
