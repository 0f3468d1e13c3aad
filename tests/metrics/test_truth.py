"""Measures against a truth, on numbers that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics import depth_errors, psnr, sharpness, ssim


def test_psnr_is_that_of_its_formula():
    truth = np.zeros((16, 16), np.uint8)
    assert psnr(truth + 5, truth) == pytest.approx(20 * math.log10(255 / 5))
    ramp = np.linspace(-1, 3, 256).reshape(16, 16)  # range 4
    assert psnr(ramp + 0.5, ramp) == pytest.approx(20 * math.log10(4 / 0.5))
    assert psnr(ramp + 0.5, ramp, data_range=2) == pytest.approx(20 * math.log10(4))


def test_identical_images_are_perfect():
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    flat = np.full((16, 16), 3.5)
    for image in (ramp, flat, np.stack([ramp] * 3, axis=2)):
        assert psnr(image, image) == math.inf
        assert ssim(image, image) == 1


def test_an_empty_channel_does_not_make_psnr_infinite():
    truth = np.zeros((16, 16, 3), np.uint8)
    fused = truth.copy()
    fused[..., 1] = 5
    assert psnr(fused, truth) == psnr(fused[..., 1], truth[..., 1]) < math.inf


def test_depth_errors_of_a_step():
    true = np.zeros((20, 40))
    true[:, 20:] = 4
    depth = true.copy()
    depth[:, 19] = 1.5  # next to the step
    depth[:, 0] = 1  # far away, and not off by more than one slice
    errors = depth_errors(depth, true)
    assert errors["depth error"] == pytest.approx((1.5 + 1) / 40)
    assert errors["depth >1"] == pytest.approx(1 / 40)
    assert errors["depth edge"] == pytest.approx(1.5 / 10)  # 5 columns on either side


def test_unknown_depth_is_left_out():
    true = np.full((12, 12), np.nan)
    true[:6] = 2
    depth = np.full((12, 12), 3)
    depth[6:] = 1000
    assert depth_errors(depth, true) == {"depth error": 1, "depth >1": 0}


@pytest.mark.parametrize(
    ("depth", "true", "words"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), "same size"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), "one plane"),
        (np.full((4, 4), np.nan), np.zeros((4, 4)), "depth map contains NaN"),
        (np.zeros((4, 4)), np.full((4, 4), np.nan), "not known"),
    ],
)
def test_depths_that_cannot_be_compared(depth, true, words):
    with pytest.raises(FocusFusionError, match=words):
        depth_errors(depth, true)


def test_sharpness_of_patterns():
    y, x = np.indices((12, 14))
    board = (255 * ((x + y) % 2)).astype(np.uint8)
    assert sharpness(board) == pytest.approx(255 * math.sqrt(2))
    assert sharpness((3 * x + 4 * y).astype(np.uint8)) == pytest.approx(5)
    assert sharpness(np.full((5, 5), 9, np.uint8)) == 0
    # by range: 0..1 counts as 0..255
    assert sharpness(x % 2 * 1.0) == pytest.approx(255)
    assert sharpness(np.stack([board, board, 0 * board], axis=2)) == pytest.approx(
        255 * math.sqrt(2) * 2 / 3
    )
