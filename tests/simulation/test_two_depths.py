"""Scenes in which pixels are sharp at two depths: both are where they are said."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_focus_fusion.simulation.two_depths import KINDS, make_two_depths


@pytest.mark.parametrize("kind", KINDS)
def test_both_depths_are_sharp_where_the_truth_has_them(kind: str) -> None:
    found = make_two_depths(5, kind, shape=(96, 112), slices=8, electrons=None)
    assert found.front[found.both].max() < 3.5 < found.back.min()
    slices = found.scene.stack.astype(float)
    focus = np.abs(slices - ndimage.gaussian_filter(slices, (0, 1, 1)))
    curve = focus[:, found.both].mean(1)
    front = int(np.rint(found.front[found.both].mean()))
    assert curve[front] > 1.2 * curve[4]
    assert (found.front == found.back)[~found.both].all()


def test_the_same_seed_is_the_same_scene() -> None:
    one, other = (make_two_depths(3, shape=(64, 64), slices=4) for _ in "12")
    np.testing.assert_array_equal(one.scene.stack, other.scene.stack)
