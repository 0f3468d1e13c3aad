"""How MSCNN is trained: with truth, and without."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity
from torch import Tensor

from napari_focus_fusion import load_model
from napari_focus_fusion.models.registry import models, new_model, our_models
from napari_focus_fusion.training.data import Batch, make_pool
from napari_focus_fusion.training.objectives.mscnn import (
    BORDER,
    OUTSIDE_WEIGHT,
    best_window,
    draw_weighted_substack,
    log_error,
    self_supervised_loss,
    training_loss,
    validation_error,
)

if TYPE_CHECKING:
    from napari_focus_fusion.models.mscnn import MSCNN


needs_weights = pytest.mark.skipif(
    "mscnn" not in models(), reason="its weights are still to be trained"
)


@cache
def batch_of(step: int = 0, slices: int = 5, crop: int = 40) -> Batch:
    """Two noisy stacks of scenes; do not write to them."""
    pool = make_pool(range(930_000, 930_004), slices, 64)
    return pool.draw(step, stacks=2, crop=crop, seed=1)


def network(seed: int = 0) -> MSCNN:
    torch.manual_seed(seed)
    model: Any = new_model(our_models()["mscnn"])
    return model.train().requires_grad_(True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_some_slices_keep_the_depth_they_show() -> None:
    """Slices that are painted with their own number, on a ramp of depth."""
    total = 16
    ramp = torch.linspace(0, total - 1, 64).expand(1, 3, 64)
    numbers = torch.arange(float(total))[None, :, None, None].expand(1, -1, 3, 64)
    batch = Batch(numbers, numbers, ramp, ramp)
    counts = set()
    for seed in range(200):
        substack = draw_weighted_substack(batch, generator(seed))
        kept = substack.noisy[0, :, 0, 0]
        counts.add(len(kept))
        steps = torch.unique(kept.diff())
        assert len(steps) == 1 and steps.item() in (1, 2, 3)
        known = torch.isfinite(substack.depth)
        at = kept[0] + substack.depth * steps
        error = (at.clamp(kept[0], kept[-1]) - ramp).abs()[known]
        assert error.max() <= 0.75
        torch.testing.assert_close(at[known], ramp[known])
        assert torch.equal(substack.weight, torch.where(known, 1.0, OUTSIDE_WEIGHT))
    assert counts == set(range(2, total + 1))


def test_pixels_of_unknown_depth_count_in_full() -> None:
    batch = batch_of()
    lost = Batch(
        batch.noisy, batch.clean, batch.truth, torch.full_like(batch.depth, torch.nan)
    )
    assert (draw_weighted_substack(lost, generator()).weight == 1).all()


def test_the_error_is_the_psnr_negated() -> None:
    truth = torch.zeros(2, 30, 30)
    reconstructions = torch.stack([truth[0] + 0.1, truth[0] + 0.01])
    reconstructions[:, 0] = 5  # the border does not count
    found = log_error(reconstructions, truth, torch.ones_like(truth))
    decibels = torch.tensor([20.0, 40.0])
    torch.testing.assert_close(-20 / np.log(10) * found, decibels, rtol=0, atol=0.05)
    weight = torch.ones_like(truth)
    reconstructions[1, BORDER + 2, BORDER + 2] = 9
    weight[1, BORDER + 2, BORDER + 2] = 0
    torch.testing.assert_close(log_error(reconstructions, truth, weight), found)


@pytest.mark.parametrize("side", [7, 11])
def test_each_window_is_compared_with_the_slice_of_most_contrast(side: int) -> None:
    """Against scikit-image's similarity and SciPy's windows."""
    slices = batch_of().noisy[:1, :3].double()
    reconstruction = slices.mean(1)
    index, similarity = best_window(reconstruction, slices, side)
    inner = (slice(side // 2, -(side // 2)),) * 2
    variances, maps = [], []
    for plane in slices[0].numpy():
        mean = ndimage.uniform_filter(plane, side)
        variances.append((ndimage.uniform_filter(plane**2, side) - mean**2)[inner])
        options: dict[str, Any] = {"win_size": side, "data_range": 1, "full": True}
        options |= {"use_sample_covariance": False}
        maps.append(
            structural_similarity(reconstruction[0].numpy(), plane, **options)[1][inner]
        )
    best = np.argmax(variances, 0)
    np.testing.assert_array_equal(index[0, 0].numpy(), best)
    expected = np.take_along_axis(np.stack(maps), best[None], 0)[0]
    np.testing.assert_allclose(similarity[0, 0].numpy(), expected, atol=1e-9)


def losses_of(name: str, model: MSCNN, seed: int) -> dict[str, Tensor]:
    if name == "training":
        return training_loss(model, batch_of(seed))
    return self_supervised_loss(model, batch_of().noisy, generator(seed))


@pytest.mark.parametrize("name", ["training", "self-supervised"])
def test_the_same_draw_gives_the_same_losses(name: str) -> None:
    first, again, other = (
        losses_of(name, network(), seed)["loss"].item() for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("name", ["training", "self-supervised"])
def test_gradients_reach_every_parameter(name: str) -> None:
    model = network()
    with torch.no_grad():
        model.residual.weight.normal_(std=0.05)
    losses_of(name, model, 0)["loss"].backward()
    for parameter, value in model.named_parameters():
        assert value.grad is not None and value.grad.abs().max() > 0, parameter


@pytest.mark.parametrize("name", ["training", "self-supervised"])
def test_the_loss_falls(name: str) -> None:
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = losses_of(name, model, 0)["loss"].item()
    for _ in range(12):
        optimiser.zero_grad()
        losses_of(name, model, 0)["loss"].backward()
        optimiser.step()
    assert losses_of(name, model, 0)["loss"].item() < before - 0.02


@needs_weights
def test_the_shipped_network_has_less_error_than_the_untrained_one() -> None:
    batches = [batch_of(step, crop=64) for step in range(2)]
    with torch.inference_mode():
        before = validation_error(network().eval(), batches)
        trained: Any = load_model("mscnn")
        assert validation_error(trained, batches) < 0.818 * before
