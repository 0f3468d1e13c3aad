"""What the composite is made of: soft labels, the noise, similarity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_focus_fusion.composite import (
    COMPOSITE_HALO,
    GUIDE_EPSILON,
    GUIDE_RADIUS,
    NOISE_RADIUS,
    SIMILARITY_RADIUS,
    colour_slopes,
    label_weights,
    least_noise_bias,
    noise_energy,
    similarity,
)


def noise(
    seed: int, shape: tuple[int, int] = (300, 300), sd: float = 1.0
) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sd, shape).astype(np.float32)


def test_label_weights_are_the_guided_filter() -> None:
    """Against He, Sun and Tang's five equations, written out in double precision."""
    rng = np.random.default_rng(0)
    guide = ndimage.gaussian_filter(rng.normal(size=(40, 50)), 1.5)
    index = rng.integers(0, 3, (40, 50))
    side = 2 * GUIDE_RADIUS + 1

    def mean(image: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(image, side)

    mask = (index == 1).astype(np.float64)
    variance = mean(guide * guide) - mean(guide) ** 2
    slope = (mean(guide * mask) - mean(guide) * mean(mask)) / (variance + GUIDE_EPSILON)
    offset = mean(mask) - slope * mean(guide)
    border = 2 * GUIDE_RADIUS
    expected = (mean(slope) * guide + mean(offset)).clip(0, 1)[
        border:-border, border:-border
    ]
    found = label_weights(torch.from_numpy(index), 1, torch.from_numpy(guide))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_label_weights_add_up_to_one_where_none_is_clipped() -> None:
    index = torch.from_numpy(np.arange(40)[:, None] // 10 + np.zeros((40, 30), int))
    flat = torch.full((40, 30), 0.4)
    total = sum(label_weights(index, z, flat) for z in range(4))
    np.testing.assert_allclose(total.numpy(), 1, atol=1e-5)


def test_far_from_its_label_a_slice_has_no_weight_at_all() -> None:
    """Blocks without a label are skipped: their weights must be zero, not nearly."""
    index = torch.zeros(60, 60, dtype=torch.int64)
    index[:20] = 1
    guide = torch.from_numpy(noise(0, (60, 60)))
    weights = label_weights(index, 1, guide)
    rows = torch.arange(2 * GUIDE_RADIUS, 60 - 2 * GUIDE_RADIUS)
    assert (weights[rows >= 20 + 2 * GUIDE_RADIUS] == 0).all()
    assert (weights[rows == 20] > 0).any()


@pytest.mark.parametrize("sd", [0.003, 1.0])
def test_the_energy_of_white_noise_is_its_variance(sd: float) -> None:
    energy = noise_energy(torch.from_numpy(noise(0, (600, 600), sd)))
    assert energy.mean() == pytest.approx(sd**2, rel=0.02)


def test_smooth_images_have_no_noise() -> None:
    y, x = np.mgrid[:60, :60] / 60
    for plane in (np.full((60, 60), 0.7), 3 * x - y, x * x + x * y):
        energy = noise_energy(torch.from_numpy(plane))
        assert energy.max() < 1e-20


@pytest.mark.parametrize("slices", [2, 8, 32])
def test_the_least_of_many_measurements_is_as_low_as_simulated(slices: int) -> None:
    planes = (torch.from_numpy(noise(i, (200, 200))) for i in range(slices))
    least = torch.stack([noise_energy(plane) for plane in planes]).min(0).values
    assert least_noise_bias(slices) == pytest.approx(float(least.mean()), rel=0.03)


def test_one_measurement_has_no_bias() -> None:
    assert least_noise_bias(1) == 1


@pytest.mark.parametrize("sd", [0.01, 0.1])
def test_equal_images_with_independent_noise_are_similar(sd: float) -> None:
    image = noise(0)
    a, b = (torch.from_numpy(image + noise(i, sd=sd)) for i in (1, 2))
    side = 300 - 2 * SIMILARITY_RADIUS
    weight = similarity(a, b, torch.full((side, side), sd**2))
    assert weight.mean() > 0.95


def test_another_image_is_not_similar() -> None:
    image = noise(0)
    blurred = ndimage.gaussian_filter(image, 1.0)
    a, b = torch.from_numpy(image), torch.from_numpy(blurred + noise(1, sd=0.1))
    side = 300 - 2 * SIMILARITY_RADIUS
    assert similarity(a, b, torch.full((side, side), 0.01)).max() == 0


def test_an_image_is_similar_to_itself_even_without_noise() -> None:
    a = torch.from_numpy(noise(0, (40, 40)))
    side = 40 - 2 * SIMILARITY_RADIUS
    assert (similarity(a, a, torch.zeros(side, side)) == 1).all()


def test_noise_and_similarity_depend_on_their_window_only() -> None:
    plane, other = (torch.from_numpy(noise(i, (60, 60))) for i in (0, 1))
    far = plane.clone()
    far[30, 30] += 50
    changed = noise_energy(far) != noise_energy(plane)
    rows, columns = np.nonzero(changed.numpy())
    border = NOISE_RADIUS + 1  # also what the result is smaller by
    assert rows.min() == 30 - 2 * border
    assert rows.max() == columns.max() == 30
    level = torch.full((60 - 2 * SIMILARITY_RADIUS,) * 2, 1.0)
    changed = similarity(far, other, level) != similarity(plane, other, level)
    rows, _ = np.nonzero(changed.numpy())
    assert rows.min() >= 30 - 2 * SIMILARITY_RADIUS
    assert rows.max() <= 30


def test_colours_follow_brightness_as_they_do_around() -> None:
    rng = np.random.default_rng(3)
    brightness = rng.random((80, 90), np.float32)
    weights, rise = (0.3, 0.6, 0.1), np.array([0.4, 1.2, 1.6], np.float32)
    rise /= np.dot(weights, rise)
    line = rise[:, None, None] * brightness + np.float32([0.3, 0.1, 0.0])[:, None, None]
    halo = COMPOSITE_HALO
    variance = torch.full((80 - 2 * halo, 90 - 2 * halo), 1e-6)
    slopes = colour_slopes(torch.from_numpy(line), weights, variance)
    assert slopes.shape == (3, *variance.shape)
    np.testing.assert_allclose(slopes.mean((1, 2)), rise, atol=1e-3)
    # Of noise alone no colour is told from another.
    flat = 0.5 + 1e-3 * rng.standard_normal((3, 80, 90)).astype(np.float32)
    variance.fill_(1e-6 * np.square(weights).sum())
    slopes = colour_slopes(torch.from_numpy(flat), weights, variance * 10)
    assert (slopes - 1).abs().max() < 0.3
    changed = (torch.tensor(weights)[:, None, None] * slopes).sum(0)
    np.testing.assert_allclose(changed, 1, atol=1e-5)
