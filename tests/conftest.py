"""What all tests share: where real stacks lie, and settings kept apart from yours."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Beside other processes that test, each thread more than one is one too many.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples every time, however slow the machine is.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

# napari reads this when its settings are first loaded: before any fixture runs. The
# developer's own settings must neither matter nor change.
_settings = tempfile.TemporaryDirectory(prefix="napari-settings-")
os.environ["NAPARI_CONFIG"] = str(Path(_settings.name) / "settings.yaml")
os.environ["NAPARI_FOCUS_FUSION_MODELS"] = str(Path(_settings.name) / "models")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real focus stacks (lytro, wbc10, keyboard32, ...)."""
    folder = os.environ.get("FOCUS_FUSION_DATA")
    if not folder:
        pytest.skip("FOCUS_FUSION_DATA does not name a folder of real focus stacks")
    return Path(folder)
