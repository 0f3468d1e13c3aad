from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from napari_focus_fusion.simulation.drawing import (
    TEXTURES,
    crop_picture,
    draw_objects,
    draw_path,
    make_atlas,
    plane,
    smooth_field,
    texture,
)


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_vary_around_the_middle(kind):
    for seed in range(5):
        values = texture(np.random.default_rng(seed), (90, 128), kind)
        assert values.min() >= 0 and values.max() <= 1
        assert values.mean() == pytest.approx(0.5, abs=0.08)
        assert 0.1 < values.std() < 0.35


def test_the_power_texture_has_a_falling_spectrum():
    values = texture(np.random.default_rng(0), (128, 128), "power")
    power = np.abs(fft.rfft2(values - values.mean())) ** 2
    assert power[2:6, 2:6].mean() > 5 * power[40:60, 40:60].mean()


def test_a_line_covers_its_length_times_its_width():
    path = np.stack([np.linspace(20, 60, 80), np.linspace(10, 70, 80)])
    y, x, coverage, point = draw_path(path, 3.0, (100, 90))
    length = np.hypot(40, 60)
    assert coverage.sum() == pytest.approx(3 * length + np.pi * 1.5**2, rel=0.05)
    # The index of a pixel is that of a path point within the pen's radius of it.
    rows, columns = np.nonzero(coverage)
    near = path[:, point[rows, columns]]
    assert np.hypot(near[0] - rows - y, near[1] - columns - x).max() <= 2.01


def test_a_line_is_cut_at_the_canvas_and_may_miss_it():
    inside = np.stack([np.linspace(-20, 20, 60), np.full(60, 10.0)])
    y, _, coverage, _ = draw_path(inside, 2.0, (30, 30))
    assert y == 0 and coverage.sum() == pytest.approx(2 * 20, rel=0.15)
    _, _, coverage, _ = draw_path(inside - 500, 2.0, (30, 30))
    assert coverage.sum() == 0


@pytest.mark.parametrize("content", ["leaves", "cells", "fibres", "beads"])
def test_objects_lie_on_the_canvas(content):
    rng, canvas = np.random.default_rng(5), (70, 90)
    atlas = make_atlas(rng, canvas)
    for sprite in draw_objects(rng, canvas, content, atlas, 1.0):
        rows, columns = sprite.box
        assert 0 <= rows.start < rows.stop <= 70
        assert 0 <= columns.start < columns.stop <= 90
        assert sprite.coverage.shape == sprite.shade.shape
        assert sprite.coverage.dtype == sprite.shade.dtype == np.float32
        assert sprite.coverage.min() >= 0 and sprite.coverage.max() <= 1
        assert sprite.shade.min() >= 0 and sprite.shade.max() <= 1


def test_a_small_image_is_continued_by_its_mirror_image():
    image = np.linspace(0, 1, 400).reshape(20, 20)
    crop = crop_picture(np.random.default_rng(0), [image], (45, 30))
    assert crop.shape == (45, 30)
    np.testing.assert_allclose(crop[20:40], crop[:20][::-1])


def test_planes_rise_by_what_was_asked():
    for seed in range(4):
        field = plane(np.random.default_rng(seed), (40, 50), 3.0)
        assert np.ptp(field) == pytest.approx(3, rel=1e-4)
        np.testing.assert_allclose(np.diff(field, 2, axis=0), 0, atol=1e-5)


def test_smooth_fields_are_smooth_over_their_length():
    rng = np.random.default_rng(0)
    steps = [
        np.abs(np.diff(smooth_field(rng, (128, 128), length), axis=0)).mean()
        for length in (3, 6, 12)
    ]
    assert steps[0] > 1.5 * steps[1] > 2.25 * steps[2]
