"""The widget *Fine-tune focus model*, in real napari windows."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import tifffile
from napari._app_model import get_app_model
from napari.layers import Layer
from napari.utils.notifications import (
    ErrorNotification,
    NotificationSeverity,
    notification_manager,
)
from qtpy.QtTest import QTest
from superqt.utils import WorkerBase

import napari_focus_fusion as ff
from napari_focus_fusion import FocusFusionError
from napari_focus_fusion.models.fine_tuned import FOLDER_VARIABLE
from napari_focus_fusion.models.registry import save_weights
from napari_focus_fusion.plugin.adapters import finetuning
from napari_focus_fusion.plugin.adapters.finetuning import (
    compare_layers,
    finetune_job,
    finetune_layers,
)
from napari_focus_fusion.plugin.adapters.preferences import preferences
from napari_focus_fusion.plugin.common.combo_boxes import ModelComboBox
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.training import finetune as core
from small_models import random_sesf, relief

PLUGIN, WIDGET = "napari-focus-fusion", "Fine-tune focus model"
PLACE = {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7), "rotate": 20}
#: A learning rate at which three steps improve the parent.
RATE = 1e-2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of models with *rough*, which a short training improves."""
    path = tmp_path / "models"
    path.mkdir()
    monkeypatch.setenv(FOLDER_VARIABLE, str(path))
    about = {"parent": "sesf", "summary": "Not trained."}
    save_weights(random_sesf(), path / "rough.safetensors", {}, about)
    monkeypatch.setattr(core, "RESYNTHESISED", 2)
    monkeypatch.setattr(core, "FUSED", 1)
    monkeypatch.setattr(core, "VALIDATIONS", 2)
    monkeypatch.setattr(finetuning, "FIELD", 48)
    return path


@pytest.fixture
def stack():
    """Four noisy slices, (4, 120, 180)."""
    return relief(120, 180, 4).stack


@pytest.fixture
def window(folder, make_napari_viewer, qtbot):
    """A viewer and the widget docked in it, set to a short run from *rough*."""
    notification_manager.records.clear()
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    form = widget.settings
    qtbot.waitUntil(lambda: form.device.count() > 1, timeout=60_000)
    form.model.value = "rough"
    form.length.setValue(3)
    form.rate.setValue(RATE)
    form.patch.setValue(48)
    form.seed.setValue(1)
    return viewer, widget


def run(widget, qtbot, button=None):
    """Press Start, or another button, and wait for the end."""
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        (button or widget.start_button).click()


def test_flat_layers_are_merged_to_learn_from_them(window, stack):
    viewer, widget = window
    assert widget.settings.holds.text() == "Open a focus stack."
    for number, plane in enumerate(stack):
        viewer.add_image(plane, name=f"slice {number}")
    assert "Merge to Stack" in widget.settings.holds.text()
    assert not widget.start_button.isEnabled()
    viewer.layers.select_all()
    get_app_model().commands.execute_command("napari.layer.merge_stack").result()
    (merged,) = viewer.layers
    assert widget.settings.stacks.value == [merged]
    assert "4 slices" in widget.settings.holds.text()
    assert widget.start_button.isEnabled()


def started(widget, qtbot, rows=2):
    """A long run, up to a step."""
    widget.settings.length.setValue(500)
    widget.start_button.click()
    qtbot.waitUntil(lambda: len(widget.training.rows) >= rows, timeout=60_000)
    return widget._worker


def notification(severity=NotificationSeverity.ERROR):
    note = notification_manager.records[-1]
    assert not isinstance(note, ErrorNotification)  # those show a traceback
    assert note.severity == severity
    return note.message


def colours(widget):
    """Names of all colours that a widget shows."""
    image = widget.grab().toImage()
    places = itertools.product(range(image.width()), range(image.height()))
    return {image.pixelColor(x, y).name() for x, y in places}


def all_quiet():
    return not WorkerBase._worker_set


def test_press_start(window, stack, folder, qtbot):
    """It trains and shows its progress, and the new model is listed and fuses."""
    viewer, widget = window
    form = widget.settings
    lists = ModelComboBox("of another widget")
    qtbot.addWidget(lists)
    layer = viewer.add_image(stack, name="pollen [day 3]")
    assert form.stacks.value == [layer]
    assert form.holds.text() == "4 slices, 180 × 120 px, uint16"
    assert "measured in the first run" in form.estimate.text()
    name = form.name.text()
    assert name == "pollen-day-3-sesf"
    validations = []
    worker = widget.start()
    worker.progressed.connect(
        lambda update: (
            isinstance(update, finetuning.Validation) and validations.append(update)
        )
    )
    assert widget.cancel_button.isEnabled() and not widget.start_button.isEnabled()
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        pass
    assert widget.result.better
    text = widget.training.verdict.text()
    assert "is better than its parent" in text and name in text
    assert notification(NotificationSeverity.INFO) == text
    assert [row["step"] for row in widget.training.plot.rows] == [0, 1, 2, 3]
    # Left the field fused by the parent, right by the model in training.
    first, last = validations[0], validations[-1]
    assert first.fused[0].shape == first.decisions[0].shape == (48, 48)
    np.testing.assert_array_equal(*first.decisions)
    np.testing.assert_array_equal(first.decisions[0], last.decisions[0])
    assert (last.decisions[0] != last.decisions[1]).any()
    assert widget.training.images.titles == ("Parent: rough", "Step 3")
    # All of it is drawn.
    assert {"#3b8bd0", "#e0883a"} <= colours(widget.training.plot)
    assert len(colours(widget.training.images)) > 30
    assert "About" in form.estimate.text()
    # It is in all lists of models.
    assert name in lists.values and name in form.model.values
    assert ff.models()[name].summary == f"Tuned from rough on {layer.name}, 3 steps."
    fused = ff.fuse(stack, name, axes="ZYX")
    assert fused.provenance["model"] == name
    # The next one has another name; this one's cannot be had again.
    assert form.name.text() == "pollen-day-3-sesf-2"
    form.name.clear()
    QTest.keyClicks(form.name, name)
    assert "already" in form.hint.text()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    run(widget, qtbot)
    assert f"a model called {name!r} already" in notification()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert widget.start_button.isEnabled()


def test_compare_with_the_parent(window, stack, folder, qtbot):
    viewer, widget = window
    layer = viewer.add_image(stack, name="pollen", **PLACE)
    about = {"parent": "rough", "summary": ""}
    save_weights(random_sesf(5), folder / "child.safetensors", {}, about)
    widget.settings.model.refresh()
    widget.settings.model.value = "child"
    assert widget.compare_button.isEnabled()
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.compare_button.click()
        widget.cancel_button.click()
    assert widget.status.text() == "Stopped; no layer was added."
    assert list(viewer.layers) == [layer]
    run(widget, qtbot, widget.compare_button)
    assert widget.status.text().startswith("Left: rough. Right: child.")
    left, left_map, right, right_map = viewer.layers[1:]
    assert left.name == "pollen fused [rough]" and right.name == "pollen fused [child]"
    assert left.visible and right.visible and not left_map.visible
    assert (left_map.data != right_map.data).any()
    assert viewer.layers.selection.active is right
    # The left one lies on its source; the right one beside it, along its rows.
    region = finetuning.region_on_screen(layer)
    place = layer.world_to_data((5, *left.data_to_world((0, 0))))
    np.testing.assert_allclose(place[1:], (region.y0, region.x0), atol=1e-6)
    columns = round(region.width * (1 + finetuning.GAP))
    np.testing.assert_allclose(
        right.data_to_world((3, 0)), left.data_to_world((3, columns)), atol=1e-6
    )


def test_the_folder_of_the_preferences(window, stack, folder, monkeypatch, qtbot):
    """Models are looked for, named and kept there, and the environment stays as is."""
    viewer, widget = window
    kept = preferences()
    if kept is None:
        pytest.skip("this napari has no preferences of plugins")
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setattr(kept, "models_folder", str(folder))
    (folder / "pollen-sesf.checkpoint").write_text("")
    widget.settings.model.refresh()
    assert widget.settings.model.value == "rough"
    viewer.add_image(stack, name="pollen")
    assert widget.settings.name.value == "pollen-sesf-2"
    run(widget, qtbot)
    assert widget.result.path == folder / "pollen-sesf-2.safetensors"
    assert "pollen-sesf-2" in widget.settings.model.values
    assert FOLDER_VARIABLE not in os.environ
    assert "pollen-sesf-2" not in ff.models()


def test_one_that_is_worse_says_so(window, stack, folder, qtbot):
    viewer, widget = window
    form = widget.settings
    viewer.add_image(stack, name="pollen")
    form.model.value = "sesf"
    form.rate.setValue(0.5)
    form.length.setValue(1)
    name = form.name.text()
    run(widget, qtbot)
    assert not widget.result.better
    assert "NOT better than its parent" in widget.training.verdict.text()
    assert notification(NotificationSeverity.WARNING) == widget.training.verdict.text()
    assert name not in ff.models() and not list(folder.glob(f"{name}*"))
    assert not widget.compare_button.isEnabled()
    assert form.name.text() == name  # it can still be had


def test_stop_and_resume(window, stack, folder, qtbot):
    viewer, widget = window
    form = widget.settings
    viewer.add_image(stack, name="pollen")
    started(widget, qtbot, rows=4)
    name = form.name.text()
    run(widget, qtbot, widget.cancel_button)
    assert widget.result.stopped == "asked"
    assert "Resume goes on" in widget.training.verdict.text()
    assert (folder / f"{name}.checkpoint").exists()
    assert widget.result.better == (name in ff.models())
    done = len(widget.training.rows)
    # Whoever types its name in another session hears of it.
    form.length.setValue(9)
    form.name.clear()
    QTest.keyClicks(form.name, name)
    assert f"stopped at step {done} of 500" in form.hint.text()
    assert form.length.value == 500
    # What is chosen now does not matter to what goes on.
    form.length.setValue(7)
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.resume_button.click()
        qtbot.waitUntil(lambda: len(widget.training.rows) >= done + 2, timeout=60_000)
        widget.cancel_button.click()
    rows = widget.training.rows
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert widget.result.history == rows
    assert widget.result.card["steps"] == 500
    assert widget.resume_button.isEnabled()


def test_stopped_at_once_and_closed_in_the_middle(window, stack, folder, qtbot):
    viewer, widget = window
    viewer.add_image(stack, name="pollen")
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.start_button.click()
        widget.cancel_button.click()
        assert not widget.cancel_button.isEnabled()
    assert widget.status.text() == "Stopped before the first step."
    assert not notification_manager.records
    assert [path.stem for path in folder.iterdir()] == ["rough"] * 2
    assert widget.start_button.isEnabled()
    # Closing the dock ends the run; its layer may be gone by then.
    worker = started(widget, qtbot)
    viewer.layers.clear()
    assert widget.settings.stacks.value == []
    viewer.window.remove_dock_widget(widget)
    assert worker.abort_requested
    qtbot.waitUntil(all_quiet, timeout=60_000)
    assert (folder / "pollen-sesf.checkpoint").exists()


def test_closing_napari_ends_the_run(window, stack, folder, qtbot):
    viewer, widget = window
    viewer.add_image(stack, name="pollen")
    worker = started(widget, qtbot)
    viewer.close()
    assert worker.abort_requested
    qtbot.waitUntil(all_quiet, timeout=60_000)
    assert not worker.is_running
    assert (folder / "pollen-sesf.checkpoint").exists()


def test_what_is_wrong_is_said_before_any_work(window, stack, folder, qtbot):
    viewer, widget = window
    form = widget.settings
    assert not widget.start_button.isEnabled()
    assert widget.start() is None
    assert "no focus stack" in notification()
    flat = np.full((3, 200, 200), 5, np.uint8)
    for data, words in (
        (stack[:1], "has one slice"),
        (flat, "no slice is sharper"),
        (stack > 99, "pixels of type bool"),
    ):
        bad = viewer.add_image(data, name="bad", visible=False)
        form.stacks.value = [bad]
        refused(widget, qtbot, words)
        assert "'bad'" in widget.status.text()
        viewer.layers.remove(bad)
    viewer.add_image(stack, name="good", visible=False)
    form.name.setText("../escape")
    refused(widget, qtbot, "cannot be called '../escape'")
    form.name.clear()
    refused(widget, qtbot, "has no name")
    form.name.setText("good")
    form.where.value = "view"
    viewer.dims.ndisplay = 3
    refused(widget, qtbot, "2-D")
    form.where.value = "all"
    form.device.set_choices([("a card", "cuda:99")])
    refused(widget, qtbot, "CUDA")
    form.device.set_choices([("CPU", "cpu")])
    weights = folder / "rough.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    refused(widget, qtbot, "rough.safetensors' is no readable safetensors file")
    assert [path.stem for path in folder.iterdir()] == ["rough"] * 2


def refused(widget, qtbot, words):
    if widget.start_button.isEnabled():
        widget.start_button.click()
    if widget._worker is not None:
        qtbot.waitUntil(lambda: widget._worker is None, timeout=60_000)
    assert words in notification()
    assert widget.status.text() == notification()
    assert not widget.training.rows


def test_what_can_be_chosen(window, stack, tmp_path):
    viewer, widget = window
    form = widget.settings
    names = set(form.model.values)
    assert {"sesf", "residual", "dual-path", "rough"} <= names
    assert not names & {"sml", "residual-zero"}
    channels = viewer.add_image(np.stack([stack] * 2), name="two", visible=False)
    viewer.add_labels(stack[0].astype(int), visible=False)
    assert form.stacks.value == [channels]
    assert not form.reference.isHidden()
    assert form.reference.values == [None, 0, 1]
    form.reference.value = 1
    job = form.job()
    assert job.options["reference"] == 1
    assert (job.options["steps"], job.options["patch"]) == (3, 48)
    assert "minutes" not in job.options and "regions" not in job.options
    form.unit.value = "minutes"
    form.patch.setValue(form.patch.minimum())
    plain = viewer.add_image(stack, name="plain", visible=False)
    form.stacks.value = [channels, plain]
    assert form.reference.isHidden() and form.holds.text() == "2 stacks"
    job = form.job()
    assert [s.name for s in job.stacks] == ["two", "plain"]
    assert job.options["minutes"] == 5 and "steps" not in job.options
    # A name that was typed stays; the ticks stay when layers come and go.
    form.name.setText("mine")
    viewer.layers.remove(channels)
    assert form.stacks.value == [plain] and form.name.text() == "mine"
    path = tmp_path / "pollen.ome.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"}, ome=True)
    widget.open_files([str(path)])
    assert len(form.stacks.value) == 2
    assert form.stacks.value[1].data.shape == stack.shape
    widget.open_files([str(tmp_path / "nowhere.tif")])
    assert "nowhere.tif" in notification()
    # Regions are those drawn, wherever the layers lie and however large pixels are.
    viewer.layers.clear()
    layer = viewer.add_image(stack, name="pollen", **PLACE)
    ends = [(10, 20), (10, 139), (69, 139), (69, 20)]
    turned = np.array([layer.data_to_world((0, *place))[1:] for place in ends])
    shapes = viewer.add_shapes([turned], name="here", shape_type="polygon")
    form.where.value = shapes
    assert form.job().options["regions"] == [[Rectangle(10, 70, 20, 140)]]
    assert form.job().shown.data.shape == (4, 48, 48)
    shapes.data = [turned + np.array([0, 500])]
    assert widget.start() is None
    assert "No shape of 'here' lies on 'pollen'" in notification()
    form.where.value = "view"
    viewer.reset_view()
    assert form.job().options["regions"] == [[Rectangle(0, 120, 0, 180)]]


def test_axes_that_cannot_be_told(window, stack):
    viewer, widget = window
    form = widget.settings
    both = np.stack([stack, stack[:, ::-1], stack], 1)  # slices come first
    film = viewer.add_image(both, name="film")
    # 4 slices of 3 channels, or 3 of 4: it is asked for, not guessed.
    assert form.z_axis.value is None and "Choose it" in form.holds.text()
    assert widget.start() is None
    assert "does not say which axis is which" in notification()
    form.z_axis.value = 0
    form.other_axes.value = "C"
    assert form.holds.text().startswith("4 slices, 180 × 120 px, 3 channels")
    assert form.reference.values == [None, 0, 1, 2]
    (taken,) = form.job().stacks
    assert (taken.axes, taken.n_slices, taken.n_channels) == ("ZCYX", 4, 3)
    form.other_axes.value = "T"
    assert form.reference.isHidden()
    # So it stays while others are ticked, each with axes of its own.
    plain = viewer.add_image(stack, name="plain")
    form.stacks.value = [plain]
    assert form.z_axis.value == 0 and form.other_axes.isHidden()
    form.stacks.value = [film, plain]
    assert form.z_axis.isHidden()
    assert [one.axes for one in form.job().stacks] == ["ZTYX", "ZYX"]
    form.stacks.value = [film]
    assert not form.z_axis.isHidden()
    assert (form.z_axis.value, form.other_axes.value) == (0, "T")
    # The region in view has these axes.
    viewer.dims.set_current_step(1, 1)
    form.where.value = "view"
    viewer.reset_view()
    job = form.job()
    assert job.options["regions"] == [[Rectangle(0, 120, 0, 180)]]
    shown = np.squeeze(np.asarray(job.shown.data))
    np.testing.assert_array_equal(shown, stack[:, ::-1][:, 36:84, 66:114])
    # Labels settle it, unless something else was chosen.
    film.axis_labels = ("z", "c", "y", "x")
    form.stacks.value = []
    form.stacks.value = [film]
    assert form.other_axes.value == "T"


def test_axes_without_a_window(folder, stack):
    film = Layer.create(np.stack([stack] * 3, 1), {"name": "film"}, "image")
    job = finetune_job(
        [film], "rough", axes=["ZTYX"], regions=[[Rectangle(0, 99, 0, 120)]]
    )
    assert job.stacks[0].axes == "ZTYX" and job.stacks[0].n_slices == 4
    layers = compare_layers(
        film, "rough", "sesf", axes="ZTYX", region=Rectangle(10, 60, 20, 90), time=1
    )
    assert layers[0][0].shape[-2:] == (50, 70)
    assert layers[0][2] == "image" and layers[0][0].shape[:-2] in ((1, 1), (1,))


def test_without_a_window(folder, stack):
    layer = Layer.create(np.stack([stack] * 2), {"name": "film"}, "image")
    with pytest.raises(FocusFusionError, match="Tick one"):
        finetune_job([], "rough")
    result = finetune_layers(
        [layer],
        "rough",
        name="mine",
        regions=[[Rectangle(0, 120, 0, 130)]],
        steps=2,
        lr=RATE,
        seed=1,
    )
    assert result.card["patch"] == 48  # two larger ones do not fit in there
    assert result.card["stacks"][0]["axes"] in ("CZYX", "TZYX")
    assert result.better
    region = Rectangle(10, 60, 20, 90)
    layers = compare_layers(layer, "rough", "mine", region=region, time=1)
    assert layers[0][0].shape[-2:] == (50, 70)
