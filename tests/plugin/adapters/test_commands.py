"""Every command of the manifest runs through npe2, with no window."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from npe2 import PluginManager, PluginManifest
from npe2.manifest.utils import import_python_name
from qtpy.QtWidgets import QComboBox, QListWidget

from napari_focus_fusion import FineTuneResult
from napari_focus_fusion.models.registry import models_folder
from napari_focus_fusion.plugin.adapters.layers import fuse_layer
from napari_focus_fusion.report import Report

MANIFEST = PluginManifest.from_distribution("napari-focus-fusion")
COMMANDS = {command.id: command for command in MANIFEST.contributions.commands}


@pytest.fixture
def execute():
    manager = PluginManager.instance()
    manager.discover()
    return manager.commands.execute


def is_widget(command):
    return inspect.isclass(import_python_name(command.python_name))


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if is_widget(c)])
def test_widgets_are_made_without_a_window(execute, qtbot, slices, name):
    """Of a viewer that is only a model; they list what is in it."""
    viewer = ViewerModel()
    viewer.add_image(slices, name="leaves")
    widget = execute(name, (viewer,))
    qtbot.addWidget(widget)
    texts = [
        view.model().data(view.model().index(row, 0))
        for view in (*widget.findChildren(QComboBox), *widget.findChildren(QListWidget))
        for row in range(view.model().rowCount())
    ]
    assert "leaves" in texts


def fused_layer(source):
    return Layer.create(*fuse_layer(source, model="sml")[0])


#: For each command that is no widget: arguments, and what comes of them.
FUNCTIONS = {
    "brightfield_sample": lambda source: ((), {}, list),
    "fluorescence_sample": lambda source: ((), {}, list),
    "fuse_layer": lambda source: ((source,), {"model": "sml"}, list),
    "fuse_by_map": lambda source: (
        (source, Labels(np.ones(source.data.shape[1:], int))),
        {},
        list,
    ),
    "report_layers": lambda source: ((source, fused_layer(source)), {}, Report),
    "finetune_layers": lambda source: (
        ([Image(np.tile(source.data, (1, 2, 2)))], "sesf"),
        {"name": "by-command", "steps": 1, "patch": 48},
        FineTuneResult,
    ),
}


@pytest.mark.parametrize(
    "name",
    [n.partition(".")[2] for n, c in COMMANDS.items() if not is_widget(c)],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_run(execute, slices, name):
    source = Image(slices, name="leaves")
    arguments, keywords, kind = FUNCTIONS[name](source)
    found = execute(f"{MANIFEST.name}.{name}", arguments, keywords)
    for file in models_folder().glob("by-command*"):
        file.unlink()
    assert isinstance(found, kind)
    if kind is not list:
        return
    layers = [Layer.create(*data) for data in found]
    assert layers
    if arguments:
        assert layers[0].name.startswith("leaves fused")
        np.testing.assert_allclose(
            layers[0].extent.world, source.extent.world[:, 1:], atol=1e-9
        )


def test_the_menus_lead_to_the_widgets(make_napari_viewer):
    """In Layers > Project, and in a menu of ours under Layers > Filter."""
    from napari._app_model import get_app_model

    make_napari_viewer()
    menus = get_app_model().menus
    projected = [
        item.command.id for item in commands_in(menus, "napari/layers/project")
    ]
    assert any("fuse_widget" in name for name in projected)
    (ours,) = [
        item
        for item in menus.get_menu("napari/layers/filter")
        if getattr(item, "title", "") == "Focus Fusion"
    ]
    listed = " ".join(i.command.id for i in commands_in(menus, ours.submenu))
    for name, command in COMMANDS.items():
        assert (name in listed) == is_widget(command)


def commands_in(menus, name):
    return [item for item in menus.get_menu(name) if hasattr(item, "command")]
