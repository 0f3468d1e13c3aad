"""How the residual model is trained: super-resolution, ranking, resynthesis."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from napari_focus_fusion.models.registry import models, new_model
from napari_focus_fusion.training.data import Batch, make_pool
from napari_focus_fusion.training.fit import Schedule, fit
from napari_focus_fusion.training.objectives.residual import (
    HALO,
    down_and_up,
    self_supervised_loss,
    super_resolution,
    training_loss,
)

if TYPE_CHECKING:
    from napari_focus_fusion.models.residual import Residual


@cache
def batch_of(step: int = 0) -> Batch:
    """Two noisy stacks of scenes; do not write to them."""
    pool = make_pool(range(930_000, 930_004), 4, 64)
    return pool.draw(step, stacks=2, crop=36, seed=1)


def network(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    model: Any = new_model(models()["residual"])
    return model.train().requires_grad_(True)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inner(x: Tensor) -> Tensor:
    return x[..., HALO:-HALO, HALO:-HALO]


class FixedOutput(torch.nn.Module):
    """A network that gives a fixed output and keeps its input."""

    def __init__(self, residual: Tensor) -> None:
        super().__init__()
        self.output, self.input = residual, torch.empty(0)

    def restored(self, x: Tensor) -> Tensor:
        self.input = x
        return self.output


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_down_and_up_is_what_pillow_makes(factor: int) -> None:
    reference = np.random.default_rng(0).random((48, 60)).astype(np.float32)
    image = Image.fromarray(reference)
    small = image.resize((60 // factor, 48 // factor), Image.Resampling.BICUBIC)
    expected = np.asarray(small.resize((60, 48), Image.Resampling.BICUBIC))
    found = down_and_up(torch.from_numpy(reference)[None, None], factor)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-5)


def test_the_pretext_wants_what_the_small_picture_lacks() -> None:
    """The true residual scores nothing, silence one and more, noise is not wanted."""
    sharp = batch_of().truth[:, None]
    noise = 0.1 * torch.randn(sharp.shape, generator=generator())
    silent: Any = FixedOutput(torch.zeros_like(inner(sharp)))
    silence = super_resolution(silent, sharp, noise, generator(1))
    assert 1 <= silence < 1.5
    perfect: Any = FixedOutput(inner(sharp - (silent.input - noise)))
    assert super_resolution(perfect, sharp, noise, generator(1)) < 1e-4
    noisy: Any = FixedOutput(perfect.output - inner(noise))
    assert super_resolution(noisy, sharp, noise, generator(1)) > 0.5


def test_the_factors_are_drawn_for_each_picture() -> None:
    sharp = batch_of().truth[:1, None].expand(8, 1, -1, -1)
    silent: Any = FixedOutput(torch.zeros_like(inner(sharp)))
    super_resolution(silent, sharp, torch.zeros_like(sharp), generator(2))
    kinds = {
        factor
        for factor in (2, 3, 4)
        for image in silent.input
        if torch.equal(image[None], down_and_up(sharp[:1], factor))
    }
    assert kinds == {2, 3, 4}


def test_both_losses_reach_the_features_and_the_ranking_the_score() -> None:
    model = network()
    losses = training_loss(model, batch_of())
    losses["ranking"].backward(retain_graph=True)
    ranked = {n for n, p in model.named_parameters() if p.grad is not None}
    assert {"head.weight", "blocks.2.second.bias", "tail.weight"} <= ranked
    assert not any(name.startswith("residual") for name in ranked)
    model.zero_grad(set_to_none=True)
    losses["resolution"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_same_step_has_the_same_losses() -> None:
    model = network()
    first, again, other = (
        training_loss(model, batch_of(step))["loss"].item() for step in (3, 3, 4)
    )
    assert first == again != other
    slices = batch_of().noisy
    first, again, other = (
        self_supervised_loss(model, slices, generator(seed))["loss"].item()
        for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize("with_truth", [True, False])
def test_training_lowers_both_losses(with_truth: bool) -> None:
    def losses(model: Any, batch: Batch) -> dict[str, Tensor]:
        if with_truth:
            return training_loss(model, batch)
        return self_supervised_loss(model, batch.noisy, generator(batch.step))

    fitted = fit(
        network(),
        losses,
        lambda step: batch_of(step % 2),
        lambda model: 0.0,
        Schedule(steps=10, learning_rate=3e-3, warm_up=2, validate_every=10),
    )
    for name in ("ranking", "resolution"):
        values = [row[name] for row in fitted.history if name in row]
        assert np.mean(values[-4:]) < np.mean(values[:3]), name
