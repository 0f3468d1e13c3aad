from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path

import pytest
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name

import napari_focus_fusion

HERE = Path(napari_focus_fusion.__file__).parent
TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    found = PluginManifest.from_distribution("napari-focus-fusion")
    assert found is not None
    return found


def test_the_installed_plugin_is_this_package(manifest: PluginManifest) -> None:
    assert manifest.name == "napari-focus-fusion"
    assert manifest.package_version == version("napari-focus-fusion")
    assert manifest.package_version == napari_focus_fusion.__version__


def test_every_command_can_be_imported(manifest: PluginManifest) -> None:
    commands = manifest.contributions.commands or []
    assert commands
    for command in commands:
        assert command.id.startswith("napari-focus-fusion.")
        assert callable(import_python_name(command.python_name)), command.id


def test_every_contribution_names_a_command(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    known = {command.id for command in contributions.commands or []}
    menus = [item for items in (contributions.menus or {}).values() for item in items]
    used = {
        item.command
        for item in [
            *(contributions.widgets or []),
            *(contributions.sample_data or []),
            *menus,
        ]
        if hasattr(item, "command")
    }
    assert used <= known
    # What is shown nowhere is for scripts: functions, not widgets.
    unseen = [c for c in contributions.commands or [] if c.id not in used]
    assert all(inspect.isfunction(import_python_name(c.python_name)) for c in unseen)
    submenus = {item.submenu for item in menus if hasattr(item, "submenu")}
    assert submenus == {submenu.id for submenu in contributions.submenus or []}
    assert submenus <= set(contributions.menus or {})
    # Every widget is in the menu of ours.
    widgets = {widget.command for widget in contributions.widgets or []}
    ours = (contributions.menus or {})["focus_fusion"]
    assert {item.command for item in ours} == widgets
    # napari makes an action <plugin>.<key> of each sample: it must not hide a command.
    samples = {f"{manifest.name}.{s.key}" for s in contributions.sample_data or []}
    assert not samples & known


def test_the_manifest_at_the_top_is_a_link_to_the_one_in_the_package() -> None:
    link = TOP / "napari.yaml"
    if not TOP.joinpath("pyproject.toml").exists():
        pytest.skip("not running from a source checkout")
    assert link.readlink() == Path("src/napari_focus_fusion/napari.yaml")
    assert link.resolve() == (HERE / "napari.yaml").resolve()
