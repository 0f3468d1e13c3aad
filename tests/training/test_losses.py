"""Losses against scikit-image and against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from napari_focus_fusion.training.losses import slice_ranking, ssim


def pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = ndimage.gaussian_filter(rng.random((30, 41)), 1)
    return a, a + 0.05 * rng.normal(size=a.shape)


def as_batch(*planes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(planes))[:, None]


@pytest.mark.parametrize("window", [5, 11])
@pytest.mark.parametrize("data_range", [1.0, 0.3])
def test_ssim_is_that_of_scikit_image(window: int, data_range: float) -> None:
    a, b = pair()
    expected = structural_similarity(
        a, b, win_size=window, data_range=data_range, use_sample_covariance=False
    )
    found = ssim(as_batch(a), as_batch(b), window=window, data_range=data_range)
    assert float(found) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_a_batch_is_the_mean() -> None:
    (a, b), (c, d) = pair(0), pair(1)
    both = ssim(as_batch(a, c), as_batch(b, d))
    alone = [ssim(as_batch(x), as_batch(y)) for x, y in ((a, b), (c, d))]
    assert float(both) == pytest.approx(float(sum(alone)) / 2)


def test_ssim_of_a_picture_with_itself_is_one_and_leads_back_to_it() -> None:
    a = as_batch(pair()[0])
    assert float(ssim(a, a)) == pytest.approx(1)
    b = as_batch(pair()[1]).requires_grad_(True)
    before = ssim(a, b)
    before.backward()
    after = ssim(a, b.detach() + 0.1 * b.grad)
    assert float(after) > float(before.detach())


def ranking_at_leisure(
    scores: np.ndarray, depth: np.ndarray, radius: int, sharpness: float
) -> float:
    """The cross-entropy, pixel by pixel."""
    _, count, high, wide = scores.shape
    losses = []
    for b, y, x in np.ndindex(len(scores), high - 2 * radius, wide - 2 * radius):
        true = depth[b, y + radius, x + radius]
        if np.isnan(true):
            continue
        window = scores[b, :, y : y + 2 * radius + 1, x : x + 2 * radius + 1]
        power = window.mean((1, 2)) ** sharpness
        log = np.log(power / power.sum())
        true = np.clip(true, 0, count - 1)
        below = min(int(true), count - 2)
        losses.append(
            -(below + 1 - true) * log[below] - (true - below) * log[below + 1]
        )
    return float(np.mean(losses))


@pytest.mark.parametrize("radius", [0, 2])
@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_ranking_is_the_cross_entropy_with_the_two_slices_around_the_truth(
    radius: int, sharpness: float
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.gamma(2, size=(2, 5, 11, 12))
    depth = rng.uniform(-0.4, 4.4, (2, 11, 12))
    depth[0, 3:6, 4:7] = np.nan
    depth[1, 5, 5] = 4.0
    found = slice_ranking(
        torch.from_numpy(scores),
        torch.from_numpy(depth),
        radius=radius,
        sharpness=sharpness,
    )
    expected = ranking_at_leisure(scores, depth, radius, sharpness)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_ranking_is_least_for_the_right_slice_and_does_not_know_the_gain() -> None:
    depth = torch.full((1, 9, 9), 2.0)
    losses = []
    for best in range(4):
        scores = torch.ones(1, 4, 9, 9)
        scores[:, best] = 5
        losses.append(float(slice_ranking(scores, depth, radius=1)))
        scaled = slice_ranking(scores * 1e4, depth, radius=1)
        assert float(scaled) == pytest.approx(losses[-1], rel=1e-5)
    assert min(losses) == losses[2]


def test_where_nothing_is_known_nothing_is_learnt() -> None:
    scores = torch.rand(1, 3, 9, 9, requires_grad=True)
    loss = slice_ranking(scores, torch.full((1, 9, 9), torch.nan), radius=1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (scores.grad == 0).all()


def test_one_slice_is_always_right() -> None:
    loss = slice_ranking(torch.rand(1, 1, 9, 9), torch.zeros(1, 9, 9), radius=1)
    assert float(loss.detach()) == 0
