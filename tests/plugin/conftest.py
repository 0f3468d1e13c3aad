from __future__ import annotations

import numpy as np
import pytest

from napari_focus_fusion.plugin.samples import brightfield_sample, fluorescence_sample
from napari_focus_fusion.training.scenes import make_scene


@pytest.fixture(autouse=True)
def remembered(tmp_path, monkeypatch):
    """Where widgets remember what was chosen: no test knows of another one."""
    path = tmp_path / "remembered" / "napari-focus-fusion.json"
    monkeypatch.setattr(
        "napari_focus_fusion.plugin.settings.settings_file", lambda: path
    )
    return path


@pytest.fixture(scope="session")
def slices() -> np.ndarray:
    """A small grey stack, (5, 90, 120) uint16; do not write to it."""
    scene = make_scene(
        1_000_001,
        shape=(90, 120),
        slices=5,
        surface="relief",
        content="leaves",
        modality="grey",
        dtype=np.uint16,
    )
    scene.stack.flags.writeable = False
    return scene.stack


@pytest.fixture(scope="session")
def brightfield():
    """Layer data of the sample; do not write to it."""
    return brightfield_sample()


@pytest.fixture(scope="session")
def fluorescence():
    """Layer data of the sample; do not write to it."""
    return fluorescence_sample()
