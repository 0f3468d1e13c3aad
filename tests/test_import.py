"""What importing the package brings in, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

import napari_focus_fusion

SCREEN = ("napari", "qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "superqt", "vispy")


def modules_after(code: str) -> set[str]:
    """Top-level names in ``sys.modules`` once a fresh interpreter has run some code."""
    script = f"{code}\nimport sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_is_light() -> None:
    loaded = modules_after("import napari_focus_fusion")
    assert not loaded & {"numpy", "torch", "skimage", "zarr", "dask", "tifffile"}
    assert not loaded & set(SCREEN)


def test_the_core_runs_without_napari_or_qt() -> None:
    """A whole run, files included, and every public name and module of the core."""
    loaded = modules_after(
        """
import pkgutil, tempfile, importlib
import numpy as np
import napari_focus_fusion as ff
for name in ff.__all__:
    getattr(ff, name)
for module in pkgutil.walk_packages(ff.__path__, "napari_focus_fusion."):
    parts = module.name.split(".")
    if parts[1] not in ("plugin", "__main__"):
        importlib.import_module(module.name)
slices = np.random.default_rng(0).integers(0, 255, (3, 40, 48), np.uint8)
result = ff.fuse(slices, model="sml", device="cpu")
result.layers()
with tempfile.TemporaryDirectory() as folder:
    result.save(folder + "/fused.ome.tif")
    ff.as_stack(folder + "/fused.ome.tif")
"""
    )
    assert {"torch", "numpy"} <= loaded
    assert not loaded & set(SCREEN)


def test_the_models_can_be_listed_whatever_was_imported_before() -> None:
    modules_after(
        """
import napari_focus_fusion.models.sml
import napari_focus_fusion as ff
assert "sml" in ff.models()
from napari_focus_fusion.models.registry import load_model, models
assert (load_model, models) == (ff.load_model, ff.models)
"""
    )


def test_the_command_line_answers_help_without_torch() -> None:
    loaded = modules_after(
        """
from napari_focus_fusion.cli import main
try:
    main(["fuse", "--help"])
except SystemExit:
    pass
"""
    )
    assert "torch" not in loaded
    assert "numpy" not in loaded


@pytest.mark.parametrize("name", napari_focus_fusion.__all__)
def test_public_names_exist(name: str) -> None:
    assert name in dir(napari_focus_fusion)
    assert getattr(napari_focus_fusion, name).__doc__


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fuze'"):
        napari_focus_fusion.fuze  # noqa: B018
