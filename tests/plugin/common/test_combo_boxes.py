"""Combo boxes of values and of models."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from napari_focus_fusion.models.registry import (
    load_model,
    models,
    models_folder,
    save_weights,
)
from napari_focus_fusion.models.spec import ModelSpec
from napari_focus_fusion.plugin.common.combo_boxes import (
    ModelComboBox,
    ValueComboBox,
    model_page,
    refresh_model_lists,
)

DOCS = Path(__file__).parents[3] / "docs"


def test_the_value_stays_when_the_entries_change(qtbot):
    combo_box = ValueComboBox("", [("one", 1), ("two", 2)])
    qtbot.addWidget(combo_box)
    changes = []
    combo_box.changed.connect(lambda: changes.append(combo_box.value))
    combo_box.value = 2
    combo_box.set_choices([("zwei", 2), ("drei", 3)])
    assert combo_box.value == 2 and combo_box.currentText() == "zwei" and changes == [2]
    combo_box.set_choices([("drei", 3)])
    assert combo_box.value == 3 and changes == [2, 3]
    combo_box.set_choices([])
    assert combo_box.value is None and changes == [2, 3, None]
    with pytest.raises(ValueError, match="1 cannot be chosen"):
        combo_box.value = 1


def test_a_new_model_appears_in_every_list(qtbot):
    every, learning = ModelComboBox(""), ModelComboBox("", lambda s: s.self_supervised)
    for widget in (every, learning):
        qtbot.addWidget(widget)
    assert every.values == list(models()) and every.value == "sml"
    assert "sml" not in learning.values and learning.spec.name == "mscnn"
    assert every.currentText() == "Most stacks (Sum-modified-Laplacian)"
    every.value = "residual"
    path = models_folder() / "my-cells.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_weights(load_model("sesf"), path, {}, {"parent": "sesf"})
        refresh_model_lists()
        for widget in (every, learning):
            assert "my-cells" in widget.values
        assert every.value == "residual"  # what was chosen stays chosen
        every.value = "my-cells"
        assert model_page(every.spec) == model_page(models()["sesf"])
    finally:
        for file in models_folder().glob("my-cells.*"):
            file.unlink()
    # Opening a list refreshes it.
    learning.showPopup()
    learning.hidePopup()
    assert "my-cells" not in learning.values and "my-cells" in every.values
    refresh_model_lists()
    assert every.value in models()


def test_a_deleted_list_is_not_refreshed(qtbot):
    """Nor kept alive by the signal."""
    gone, stays = ModelComboBox(""), ModelComboBox("")
    qtbot.addWidget(stays)
    refreshed, reference = [], weakref.ref(gone)
    stays.refreshed.connect(lambda: refreshed.append(True))
    with qtbot.waitSignal(gone.destroyed):
        gone.deleteLater()
    del gone
    gc.collect()
    assert reference() is None
    refresh_model_lists()
    assert refreshed == [True]


def test_every_model_has_a_page():
    """The link is of a page that is there."""
    if not DOCS.is_dir():
        pytest.skip("not running from a source checkout")
    for spec in models().values():
        page = model_page(spec)
        assert page.startswith("https://")
        name = page.rpartition("/")[2].partition(".")[0]
        assert (DOCS / "models" / f"{name}.md").is_file(), page


def test_models_of_other_packages_lead_to_their_paper():
    spec = ModelSpec("theirs", "Theirs", "", "theirs:Model", 1)
    assert model_page(spec) == ""
    spec = ModelSpec("theirs", "", "", "theirs:M", 1, doi="10.1/x")
    assert model_page(spec) == "https://doi.org/10.1/x"
