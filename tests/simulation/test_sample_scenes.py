from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_focus_fusion.simulation.samples import brightfield_scene, fluorescence_scene


@pytest.mark.parametrize(
    ("make", "dtype", "axes", "shape"),
    [
        (brightfield_scene, np.uint8, "ZYXS", (6, 120, 150, 3)),
        (fluorescence_scene, np.uint16, "CZYX", (2, 6, 120, 150)),
    ],
)
def test_a_sample_needs_all_of_its_slices(make, dtype, axes, shape):
    scene = make(shape=(120, 150), slices=6)
    assert (scene.stack.dtype, scene.axes, scene.stack.shape) == (dtype, axes, shape)
    colours = axes.index("S") if "S" in axes else 0
    grey = scene.stack.astype(float).mean(axis=colours)
    truth = scene.truth.astype(float).mean(axis=2 if "S" in axes else 0)
    error = ndimage.uniform_filter(np.abs(grey - truth), (0, 9, 9))
    nearest = error.argmin(axis=0)[scene.textured]
    assert (np.bincount(nearest, minlength=6) > 0.02 * nearest.size).sum() >= 4
    # Even the best slice is further from the truth than the nearest slice of each
    # place; none is very near, as bodies have an upper and a lower side.
    assert error.min(axis=0).mean() < 0.9 * error.mean(axis=(1, 2)).min()


@pytest.mark.parametrize("make", [brightfield_scene, fluorescence_scene])
def test_a_sample_is_the_same_each_time(make):
    first, second = (make(shape=(64, 64), slices=3) for _ in range(2))
    np.testing.assert_array_equal(first.stack, second.stack)
    np.testing.assert_array_equal(first.depth, second.depth)
    np.testing.assert_array_equal(first.truth, second.truth)
