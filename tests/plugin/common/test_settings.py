"""Stored settings of the widgets, and napari's preferences."""

from __future__ import annotations

import os

import numpy as np
import pytest
from napari.components import ViewerModel
from npe2 import PluginManager

from napari_focus_fusion.models import fine_tuned
from napari_focus_fusion.models.fine_tuned import FOLDER_VARIABLE
from napari_focus_fusion.models.registry import load_model, save_weights
from napari_focus_fusion.plugin.adapters.layers import fuse_layer
from napari_focus_fusion.plugin.adapters.preferences import models_folder, preferences
from napari_focus_fusion.plugin.common import settings
from napari_focus_fusion.plugin.common.combo_boxes import refresh_model_lists
from napari_focus_fusion.plugin.common.settings import recall, remember
from napari_focus_fusion.plugin.fuse.form import FuseForm


@pytest.fixture
def preferred(monkeypatch):
    """The preferences, put back at the end."""
    PluginManager.instance().discover()
    kept = preferences()
    if kept is None:
        pytest.skip("this napari has no preferences of plugins")
    before = kept.model_dump()
    yield kept
    for name, value in before.items():
        setattr(kept, name, value)


def test_what_is_remembered_is_recalled(remembered):
    assert recall("fuse") == {}
    remember("fuse", {"model": "sml", "smoothness": 1.5})
    remember("other", {"model": "sesf"})
    remember("fuse", {"model": "sesf"})
    assert recall("fuse") == {"model": "sesf"}
    assert recall("other") == {"model": "sesf"}
    assert [path.name for path in remembered.parent.iterdir()] == [remembered.name]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fuse": 3}', '{"fuse": null}'])
def test_a_damaged_file_is_no_obstacle(remembered, text):
    remembered.parent.mkdir()
    remembered.write_text(text)
    assert recall("fuse") == {}
    remember("fuse", {"model": "sml"})
    assert recall("fuse") == {"model": "sml"}


def test_a_folder_that_cannot_be_written_is_no_obstacle(remembered):
    remembered.parent.write_text("a file where the folder should be")
    remember("fuse", {"model": "sml"})
    assert recall("fuse") == {}


def test_the_file_lies_beside_naparis_own_settings(monkeypatch):
    monkeypatch.undo()
    folder = os.path.dirname(os.environ["NAPARI_CONFIG"])
    assert str(settings.settings_file()) == os.path.join(folder, settings.FILE)


def test_the_folder_of_models_is_a_preference(preferred, monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE)
    usual = fine_tuned.models_folder()
    preferred.models_folder = str(tmp_path)
    assert models_folder() == tmp_path
    # Jobs get it as an argument; functions without napari use the usual folder.
    assert FOLDER_VARIABLE not in os.environ and fine_tuned.models_folder() == usual
    preferred.models_folder = ""
    assert models_folder() == usual


def test_the_environment_goes_before_the_preferences(preferred, monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "named"))
    preferred.models_folder = str(tmp_path / "preferred")
    assert models_folder() == tmp_path / "named"


def test_a_model_of_the_preferred_folder_is_listed_and_used(
    preferred, monkeypatch, tmp_path, qtbot, slices
):
    """By the lists of the widgets, and by what scripts call."""
    monkeypatch.delenv(FOLDER_VARIABLE)
    save_weights(
        load_model("sesf"), tmp_path / "mine.safetensors", {}, {"parent": "sesf"}
    )
    viewer = ViewerModel()
    layer = viewer.add_image(slices[:, :40, :40])
    form = FuseForm(viewer)
    qtbot.addWidget(form)
    assert "mine" not in form.model.values
    preferred.models_folder = str(tmp_path)
    refresh_model_lists()
    form.model.value = "mine"
    job = form.job()
    preferred.models_folder = ""  # what was taken down stays
    by_widget = job(lambda progress: None, lambda: False)
    preferred.models_folder = str(tmp_path)
    by_script = fuse_layer(layer, **job.options, outputs=job.outputs)
    for (data, about, _), (expected, other, _) in zip(
        by_widget, by_script, strict=True
    ):
        np.testing.assert_array_equal(data, expected)
        assert about["metadata"] == other["metadata"]
        assert about["metadata"]["napari_focus_fusion"]["model"] == "mine"
