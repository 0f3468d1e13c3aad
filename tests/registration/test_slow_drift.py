"""Drift so slow that two slices hardly show it is found by all of them together."""

from __future__ import annotations

import numpy as np
import pytest

from napari_focus_fusion import register
from napari_focus_fusion.simulation.drift import disturb
from napari_focus_fusion.simulation.scenes import make_scene


@pytest.mark.parametrize("electrons", [4000, 1000])
def test_a_rotation_of_a_tenth_of_a_degree_is_found(electrons: float) -> None:
    room = 32
    scene = make_scene(
        7_100_001, shape=(288, 320), slices=6, content="leaves", electrons=None
    )
    seen = disturb(scene.stack, 1, "rotation", room=room, electrons=electrons)
    points = np.array([[y, x, 1.0] for y in (0, 223) for x in (0, 255)])
    positions = points @ np.swapaxes(seen.transforms, 1, 2)
    moved = np.linalg.norm(positions - points[:, :2], axis=-1)
    assert 0.1 < np.ptp(moved, axis=0).max() < 1  # less than .2 pixels a slice
    found = register(seen.stack, "similarity", axes="ZYX").matrices[0]
    off = np.linalg.norm(points @ np.swapaxes(found, 1, 2) - positions, axis=-1)
    assert off.max() < 0.3 * moved.max()
    assert off.mean() < 0.1
