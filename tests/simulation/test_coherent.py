"""Partially coherent images: against closed forms, and what scenes promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_focus_fusion.simulation.coherent import (
    SPECIMENS,
    Microscope,
    image_planes,
    make_coherent_scene,
    plane_of_best_contrast,
)

SIDE = 64
#: So narrow a condenser that the light is coherent.
COHERENT = Microscope((SIDE, SIDE), 0.25, 1e-6, 0.3, 0.0)
NOTHING = np.zeros((SIDE, SIDE), np.float32)


def grating(period: int, amplitude: float) -> np.ndarray:
    x = np.arange(SIDE) * (2 * np.pi / period)
    return np.tile(amplitude * np.cos(x), (SIDE, 1)).astype(np.float32)


def modulation(image: np.ndarray, period: int) -> float:
    return float(2 * (image * grating(period, 1)).mean())


@pytest.mark.parametrize("period", [8, 16, 32])
def test_a_weak_grating_has_the_contrast_of_the_textbook(period: int) -> None:
    """Of a phase 2 p sin(pi D z f^2), of an absorbance -a cos(pi D z f^2)."""
    positions = [-3.0, -1.0, 0.0, 0.5, 2.0]
    turn = np.pi * COHERENT.defocus * np.array(positions) / period**2
    phase = image_planes([(0.0, NOTHING, grating(period, 0.01))], positions, COHERENT)
    seen = [modulation(image, period) for image in phase]
    np.testing.assert_allclose(seen, 2 * 0.01 * np.sin(turn), atol=3e-4)
    dense = image_planes([(0.0, grating(period, 0.01), NOTHING)], positions, COHERENT)
    seen = [modulation(image, period) for image in dense]
    np.testing.assert_allclose(seen, -0.01 * np.cos(turn), atol=3e-4)


def test_what_the_objective_does_not_pass_is_not_seen() -> None:
    fine = image_planes([(0.0, grating(2, 0.1), NOTHING)], [0.0, 1.0], COHERENT)
    assert np.ptp(fine) < 1e-3


def test_without_a_specimen_the_field_is_bright() -> None:
    microscope = Microscope((SIDE, SIDE), 0.15, 0.8, 0.3, 1.0)
    images = image_planes([(2.0, NOTHING, NOTHING)], range(5), microscope)
    np.testing.assert_allclose(images, 1, atol=1e-4)


def test_planes_of_weak_matter_add_up() -> None:
    microscope = Microscope((SIDE, SIDE), 0.2, 0.6, 0.3, 0.4)
    rng = np.random.default_rng(0)
    one, two = (
        ndimage.gaussian_filter(rng.standard_normal((SIDE, SIDE)), 2, mode="wrap")
        * 0.01
        for _ in "12"
    )
    positions = [0.0, 1.5, 4.0]
    first = image_planes([(1.0, one, NOTHING)], positions, microscope)
    second = image_planes([(3.0, NOTHING, two)], positions, microscope)
    both = image_planes(
        [(1.0, one, NOTHING), (3.0, NOTHING, two)], positions, microscope
    )
    np.testing.assert_allclose(both - 1, (first - 1) + (second - 1), atol=2e-4)


def test_matter_is_seen_at_its_own_depth() -> None:
    microscope = Microscope((SIDE, SIDE), 0.2, 0.9, 0.4, 0.0)
    dot = NOTHING.copy()
    dot[30:33, 30:33] = 1
    near = image_planes([(1.0, dot, NOTHING)], [1.0, 4.0], microscope)
    far = image_planes([(4.0, dot, NOTHING)], [1.0, 4.0], microscope)
    np.testing.assert_allclose(near[0], far[1], atol=1e-5)
    assert near[0].min() < near[1].min() - 0.05


def test_an_absorber_has_its_best_contrast_where_it_lies() -> None:
    microscope = Microscope((SIDE, SIDE), 0.15, 0.7, 0.2, 0.0)
    rng = np.random.default_rng(1)
    dense = ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 1, mode="wrap") * 3
    assert plane_of_best_contrast(dense, NOTHING, microscope) == 0
    # Phase moves it to the side where it darkens outlines, and less of it less.
    bends = plane_of_best_contrast(dense, 2 * dense, microscope)
    assert abs(bends) > 0.2
    assert plane_of_best_contrast(dense, -2 * dense, microscope) == pytest.approx(
        -bends, abs=0.3
    )


@pytest.mark.parametrize("specimen", SPECIMENS)
def test_the_truth_is_closest_to_the_slice_in_focus(specimen: str) -> None:
    scene = make_coherent_scene(
        1_000_500,
        shape=(80, 80),
        slices=9,
        specimen=specimen,
        surface="flat",
        span=(4, 4),
        waves=0.4,
        electrons=None,
        dtype=np.float32,
    )
    assert scene.axes == "ZYX" and scene.stack.shape == (9, 80, 80)
    error = ((scene.stack - scene.truth) ** 2).mean((1, 2))
    # Dust lies anywhere; all else is in focus in slice 4.
    assert error.argmin() == 4
    assert np.median(scene.depth[scene.textured]) == pytest.approx(4, abs=0.5)


def test_a_seed_is_a_scene_whatever_its_camera() -> None:
    options = {"shape": (48, 48), "slices": 3, "waves": 0.3}
    clean = make_coherent_scene(5, **options, electrons=None, dtype=np.float32)
    noisy = make_coherent_scene(5, **options, electrons=1000.0, dtype=np.float32)
    np.testing.assert_array_equal(clean.truth, noisy.truth)
    np.testing.assert_array_equal(clean.depth, noisy.depth)
    assert 0 < np.abs(clean.stack - noisy.stack).mean() < 0.1


def test_colours_are_samples() -> None:
    scene = make_coherent_scene(
        6, shape=(48, 40), slices=3, rgb=True, absorbance=1.0, dtype=np.uint8
    )
    assert scene.axes == "ZYXS" and scene.stack.shape == (3, 48, 40, 3)
    assert scene.truth.shape == (48, 40, 3)
    colours = scene.truth.reshape(-1, 3)
    assert np.abs(colours[:, 0] - colours[:, 2]).max() > 5
