"""The widget *Fine-tune focus model*, in real napari windows."""

from __future__ import annotations

import itertools

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
from napari_focus_fusion.models.registry import save_weights
from napari_focus_fusion.plugin.adapters import finetuning
from napari_focus_fusion.plugin.adapters.finetuning import (
    compare_layers,
    finetune_job,
    finetune_layers,
)
from napari_focus_fusion.plugin.common.choice import ModelChoice
from napari_focus_fusion.training import finetune as core
from small_models import random_sesf, relief

PLUGIN, WIDGET = "napari-focus-fusion", "Fine-tune focus model"
PLACE = {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7), "rotate": 20}
#: So high a rate that three steps mend the parent.
RATE = 1e-2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of models with *rough*, which hardly any learning makes better."""
    path = tmp_path / "models"
    path.mkdir()
    monkeypatch.setenv("NAPARI_FOCUS_FUSION_MODELS", str(path))
    about = {"parent": "sesf", "summary": "Not trained."}
    save_weights(random_sesf(), path / "rough.safetensors", {}, about)
    monkeypatch.setattr(core, "MADE", 2)
    monkeypatch.setattr(core, "FUSED", 1)
    monkeypatch.setattr(core, "LOOKS", 2)
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
    qtbot.waitUntil(lambda: widget.device.count() > 1, timeout=60_000)
    widget.model.value = "rough"
    widget.length.setValue(3)
    widget.rate.setValue(RATE)
    widget.patch.setValue(48)
    widget.seed.setValue(1)
    return viewer, widget


def run(widget, qtbot, button=None):
    """Press Start, or another button, and wait for the end."""
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        (button or widget.start_button).click()


def test_flat_layers_are_merged_to_learn_from_them(window, stack):
    viewer, widget = window
    assert widget.holds.text() == "Open a focus stack."
    for number, plane in enumerate(stack):
        viewer.add_image(plane, name=f"slice {number}")
    assert "Merge to Stack" in widget.holds.text()
    assert not widget.start_button.isEnabled()
    viewer.layers.select_all()
    get_app_model().commands.execute_command("napari.layer.merge_stack").result()
    (merged,) = viewer.layers
    assert widget.chosen == [merged] and "4 slices" in widget.holds.text()
    assert widget.start_button.isEnabled()


def started(widget, qtbot, rows=2):
    """A long run, up to a step."""
    widget.length.setValue(500)
    widget.start_button.click()
    qtbot.waitUntil(lambda: len(widget._rows) >= rows, timeout=60_000)
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
    """It learns, shows it, and the new model is everywhere and fuses."""
    viewer, widget = window
    lists = ModelChoice("of another widget")
    qtbot.addWidget(lists)
    layer = viewer.add_image(stack, name="pollen [day 3]")
    assert widget.chosen == [layer]
    assert widget.holds.text() == "4 slices, 180 × 120 px, uint16"
    assert "measured in the first run" in widget.estimate.text()
    name = widget.name.text()
    assert name == "pollen-day-3-sesf"
    looks = []
    worker = widget.start()
    worker.progressed.connect(
        lambda news: isinstance(news, finetuning.Look) and looks.append(news)
    )
    assert widget.cancel_button.isEnabled() and not widget.start_button.isEnabled()
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        pass
    assert widget.result.better
    text = widget.verdict.text()
    assert "is better than its parent" in text and name in text
    assert notification(NotificationSeverity.INFO) == text
    assert [row["step"] for row in widget.plot.rows] == [0, 1, 2, 3]
    # Left what the parent makes of the field, right what the model makes of it now.
    first, last = looks[0], looks[-1]
    assert first.fused[0].shape == first.decisions[0].shape == (48, 48)
    np.testing.assert_array_equal(*first.decisions)
    np.testing.assert_array_equal(first.decisions[0], last.decisions[0])
    assert (last.decisions[0] != last.decisions[1]).any()
    assert widget.pictures.titles == ("Parent: rough", "Step 3")
    # All of it is drawn.
    assert {"#3b8bd0", "#e0883a"} <= colours(widget.plot)
    assert len(colours(widget.pictures)) > 30
    assert "About" in widget.estimate.text()
    # It is there for all.
    assert name in lists.values and name in widget.model.values
    assert ff.models()[name].summary == f"Tuned from rough on {layer.name}, 3 steps."
    fused = ff.fuse(stack, name, axes="ZYX")
    assert fused.provenance["model"] == name
    # The next one has another name; this one's cannot be had again.
    assert widget.name.text() == "pollen-day-3-sesf-2"
    widget.name.clear()
    QTest.keyClicks(widget.name, name)
    assert "already" in widget.hint.text()
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
    widget.model.refresh()
    widget.model.value = "child"
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
    seen = finetuning.region_on_screen(layer)
    place = layer.world_to_data((5, *left.data_to_world((0, 0))))
    np.testing.assert_allclose(place[1:], seen[:2], atol=1e-6)
    columns = round((seen[3] - seen[1]) * (1 + finetuning.GAP))
    np.testing.assert_allclose(
        right.data_to_world((3, 0)), left.data_to_world((3, columns)), atol=1e-6
    )


def test_one_that_is_worse_says_so(window, stack, folder, qtbot):
    viewer, widget = window
    viewer.add_image(stack, name="pollen")
    widget.model.value = "sesf"
    widget.rate.setValue(0.5)
    widget.length.setValue(1)
    name = widget.name.text()
    run(widget, qtbot)
    assert not widget.result.better
    assert "NOT better than its parent" in widget.verdict.text()
    assert notification(NotificationSeverity.WARNING) == widget.verdict.text()
    assert name not in ff.models() and not list(folder.glob(f"{name}*"))
    assert not widget.compare_button.isEnabled()
    assert widget.name.text() == name  # it can still be had


def test_stop_and_resume(window, stack, folder, qtbot):
    viewer, widget = window
    viewer.add_image(stack, name="pollen")
    worker = started(widget, qtbot, rows=4)
    name = worker.job.options["name"]
    run(widget, qtbot, widget.cancel_button)
    assert widget.result.stopped == "asked"
    assert "Resume goes on" in widget.verdict.text()
    assert (folder / f"{name}.checkpoint").exists()
    assert widget.result.better == (name in ff.models())
    done = len(widget._rows)
    # Whoever types its name in another session hears of it.
    widget.length.setValue(9)
    widget.name.clear()
    QTest.keyClicks(widget.name, name)
    assert f"stopped at step {done} of 500" in widget.hint.text()
    assert widget.length.value() == 500
    # What is chosen now does not matter to what goes on.
    widget.length.setValue(7)
    with qtbot.waitSignal(widget.ended, timeout=60_000):
        widget.resume_button.click()
        qtbot.waitUntil(lambda: len(widget._rows) >= done + 2, timeout=60_000)
        widget.cancel_button.click()
    assert [row["step"] for row in widget._rows] == list(range(len(widget._rows)))
    assert widget.result.history == widget._rows
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
    assert widget.chosen == []
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
        widget.chosen = [bad]
        refused(widget, qtbot, words)
        assert "'bad'" in widget.status.text()
        viewer.layers.remove(bad)
    viewer.add_image(stack, name="good", visible=False)
    widget.name.setText("../escape")
    refused(widget, qtbot, "cannot be called '../escape'")
    widget.name.clear()
    refused(widget, qtbot, "has no name")
    widget.name.setText("good")
    widget.where.value = "view"
    viewer.dims.ndisplay = 3
    refused(widget, qtbot, "2-D")
    widget.where.value = "all"
    widget.device.set_choices([("a card", "cuda:99")])
    refused(widget, qtbot, "CUDA")
    widget.device.set_choices([("CPU", "cpu")])
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
    assert not widget._rows


def test_what_can_be_chosen(window, stack, tmp_path):
    viewer, widget = window
    names = set(widget.model.values)
    assert {"sesf", "residual", "dual-path", "rough"} <= names
    assert not names & {"sml", "residual-zero"}
    channels = viewer.add_image(np.stack([stack] * 2), name="two", visible=False)
    viewer.add_labels(stack[0].astype(int), visible=False)
    assert widget.chosen == [channels]
    assert not widget.reference.isHidden()
    assert widget.reference.values == [None, 0, 1]
    widget.reference.value = 1
    job = widget.job()
    assert job.options["reference"] == 1
    assert (job.options["steps"], job.options["patch"]) == (3, 48)
    assert "minutes" not in job.options and "regions" not in job.options
    widget.unit.value = "minutes"
    widget.patch.setValue(widget.patch.minimum())
    plain = viewer.add_image(stack, name="plain", visible=False)
    widget.chosen = [channels, plain]
    assert widget.reference.isHidden() and widget.holds.text() == "2 stacks"
    job = widget.job()
    assert [s.name for s in job.stacks] == ["two", "plain"]
    assert job.options["minutes"] == 5 and "steps" not in job.options
    # A name that was typed stays; the ticks stay when layers come and go.
    widget.name.setText("mine")
    viewer.layers.remove(channels)
    assert widget.chosen == [plain] and widget.name.text() == "mine"
    path = tmp_path / "pollen.ome.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"}, ome=True)
    widget.open_files([str(path)])
    assert widget.chosen[1].data.shape == stack.shape and len(widget.chosen) == 2
    widget.open_files([str(tmp_path / "nowhere.tif")])
    assert "nowhere.tif" in notification()
    # Regions are those drawn, wherever the layers lie and however large pixels are.
    viewer.layers.clear()
    layer = viewer.add_image(stack, name="pollen", **PLACE)
    ends = [(10, 20), (10, 139), (69, 139), (69, 20)]
    turned = np.array([layer.data_to_world((0, *place))[1:] for place in ends])
    shapes = viewer.add_shapes([turned], name="here", shape_type="polygon")
    widget.where.value = shapes
    assert widget.job().options["regions"] == [[(10, 20, 70, 140)]]
    assert widget.job().shown.data.shape == (4, 48, 48)
    shapes.data = [turned + np.array([0, 500])]
    assert widget.start() is None
    assert "No shape of 'here' lies on 'pollen'" in notification()
    widget.where.value = "view"
    viewer.reset_view()
    assert widget.job().options["regions"] == [[(0, 0, 120, 180)]]


def test_axes_that_cannot_be_told(window, stack):
    viewer, widget = window
    both = np.stack([stack, stack[:, ::-1], stack], 1)  # slices come first
    film = viewer.add_image(both, name="film")
    assert widget.z_axis.value == 1 and "3 slices" in widget.holds.text()
    widget.z_axis.value = 0
    widget.other_axes.value = "C"
    assert widget.holds.text().startswith("4 slices, 180 × 120 px, 3 channels")
    assert widget.reference.values == [None, 0, 1, 2]
    (taken,) = widget.job().stacks
    assert (taken.axes, taken.n_slices, taken.n_channels) == ("ZCYX", 4, 3)
    widget.other_axes.value = "T"
    assert widget.reference.isHidden()
    # So it stays while others are ticked, each with axes of its own.
    plain = viewer.add_image(stack, name="plain")
    widget.chosen = [plain]
    assert widget.z_axis.value == 0 and widget.other_axes.isHidden()
    widget.chosen = [film, plain]
    assert widget.z_axis.isHidden()
    assert [one.axes for one in widget.job().stacks] == ["ZTYX", "ZYX"]
    widget.chosen = [film]
    assert not widget.z_axis.isHidden()
    assert (widget.z_axis.value, widget.other_axes.value) == (0, "T")
    # What is seen is of these axes.
    viewer.dims.set_current_step(1, 1)
    widget.where.value = "view"
    viewer.reset_view()
    job = widget.job()
    assert job.options["regions"] == [[(0, 0, 120, 180)]]
    seen = np.squeeze(np.asarray(job.shown.data))
    np.testing.assert_array_equal(seen, stack[:, ::-1][:, 36:84, 66:114])
    # Labels settle it, unless something else was chosen.
    film.axis_labels = ("z", "c", "y", "x")
    widget.chosen = []
    widget.chosen = [film]
    assert widget.other_axes.value == "T"


def test_axes_without_a_window(folder, stack):
    film = Layer.create(np.stack([stack] * 3, 1), {"name": "film"}, "image")
    job = finetune_job([film], "rough", axes=["ZTYX"], regions=[[(0, 0, 99, 120)]])
    assert job.stacks[0].axes == "ZTYX" and job.stacks[0].n_slices == 4
    layers = compare_layers(
        film, "rough", "sesf", axes="ZTYX", region=(10, 20, 60, 90), time=1
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
        regions=[[(0, 0, 120, 130)]],
        steps=2,
        lr=RATE,
        seed=1,
    )
    assert result.card["patch"] == 48  # two larger ones do not fit in there
    assert result.card["stacks"][0]["axes"] in ("CZYX", "TZYX")
    assert result.better
    region = (10, 20, 60, 90)
    layers = compare_layers(layer, "rough", "mine", region=region, time=1)
    assert layers[0][0].shape[-2:] == (50, 70)
