"""Transforms agree with those of napari's own layers."""

from __future__ import annotations

import numpy as np
import pytest
from napari import layers as napari_layers

from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.placement import Transform, displayed_axes
from small_results import corners

pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")

SHAPE = (4, 6, 8)
AFFINE = np.eye(4)
AFFINE[:3] = np.random.default_rng(0).normal(size=(3, 4))
STATES = {
    "nothing": {},
    "sizes": {"scale": (2, 0.5, 0.25), "translate": (1, -2, 3)},
    "degrees": {"scale": (2, 0.5, 0.25), "rotate": 30},
    "shear": {
        "scale": (2, 0.5, 0.25),
        "shear": (0.1, 0.2, 0.3),
        "translate": (5, 6, 7),
    },
    "affine": {"scale": (2, 0.5, 0.25), "affine": AFFINE, "rotate": 40},
    "plane only": {"translate": (3, 4), "affine": np.diag([2.0, 3.0, 1.0])},
}


def stack_and_layer(state: dict) -> tuple:
    stack = as_stack(np.zeros(SHAPE, np.uint8), axes="ZYX", display=state)
    return stack, napari_layers.Image(stack.data, **state)


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_transform_of_a_stack_is_that_of_its_layer(state: dict) -> None:
    stack, layer = stack_and_layer(state)
    same = napari_layers.Image(stack.data, **Transform.of(stack).attributes())
    np.testing.assert_allclose(corners(same), corners(layer))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_larger_pixels_cover_the_same_box(state: dict) -> None:
    stack, layer = stack_and_layer(state)
    size = np.array((4, 2, 0.5))
    place = Transform.of(stack).resampled(size, (size - 1) / 2)
    binned = napari_layers.Image(np.zeros((1, 3, 16)), **place.attributes())
    np.testing.assert_allclose(corners(binned), corners(layer))


def test_axes_that_turn_into_each_other_are_noticed() -> None:
    stack, _ = stack_and_layer(STATES["degrees"])
    assert [Transform.of(stack).couples(first) for first in range(3)] == [
        False,
        False,  # Z stays what it is
        True,
    ]
    assert Transform.of(stack_and_layer(STATES["affine"])[0]).couples(1)


def test_some_of_the_axes() -> None:
    stack, layer = stack_and_layer(STATES["degrees"])
    plane = Transform.of(stack).restricted((1, 2))
    flat = napari_layers.Image(stack.data[0], **plane.attributes())
    np.testing.assert_allclose(np.unique(corners(layer)[:, 1:], axis=0).shape, (4, 2))
    np.testing.assert_allclose(corners(flat), corners(layer)[:4, 1:])


def test_displayed_axes_are_those_of_the_source() -> None:
    pixels = np.zeros((6, 8, 4, 3), np.uint8)
    assert displayed_axes(as_stack(pixels, axes="YXZS")) == "YXZ"
    assert displayed_axes(as_stack(pixels, axes="ZYXS")) == "ZYX"
