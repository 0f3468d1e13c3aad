"""What the surface network learns from, and that it learns."""

from __future__ import annotations

import pytest
import torch

from napari_focus_fusion import FocusFusionError, finetune
from napari_focus_fusion.models.registry import SURFACE, models, new_model
from napari_focus_fusion.models.surface import CELL
from napari_focus_fusion.training.data import Batch, Pool, make_pool
from napari_focus_fusion.training.objectives import surface
from napari_focus_fusion.training.rng import generator_of


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(range(4), 9, 64, modalities=("grey", "fluorescence"))


def batch_of(pool: Pool, step: int = 0) -> Batch:
    return pool.draw(step, stacks=2, crop=64, seed=0)


def test_slices_are_drawn_in_many_numbers_and_their_depth_goes_with_them(
    pool: Pool,
) -> None:
    batch = batch_of(pool)
    counts = set()
    for number in range(40):
        slices, depth = surface.draw_slices(batch, generator_of(number))
        counts.add(slices.shape[1])
        index = (depth[0].nan_to_num(-9).round().long()).clamp(0, slices.shape[1] - 1)
        inside = (depth[0] >= 0) & (depth[0] <= slices.shape[1] - 1)
        # The slice at the depth is the one that the whole stack has there.
        own = slices[0].gather(0, index[None])[0][inside]
        stride = _stride(batch.depth[0], depth[0])
        first = (batch.depth[0] - depth[0] * stride).nanmean().round()
        there = (index * stride + first).long().clamp(0, 8)
        whole = batch.noisy[0].gather(0, there[None])[0][inside]
        torch.testing.assert_close(own, whole)
    assert min(counts) == 3 and max(counts) == 9 and len(counts) > 4


def _stride(whole: torch.Tensor, drawn: torch.Tensor) -> float:
    known = torch.isfinite(whole)
    spans = [a[known].max() - a[known].min() for a in (whole, drawn)]
    return float((spans[0] / spans[1]).round())


def test_cells_without_detail_count_little_and_take_the_nearest_depth() -> None:
    depth = torch.full((1, 32, 32), torch.nan)
    depth[0, :, :8] = 2.0
    depth[0, :, 24:] = 5.0
    cells = surface.coarse(torch.rand(1, 8, 32, 32), depth)
    assert cells.depth.shape == (1, 32 // CELL, 32 // CELL)
    assert (cells.depth[0, :, :4] == 2).all() and (cells.depth[0, :, 4:] == 5).all()
    known = cells.weight[0, :, [0, 1, 6, 7]]
    assert known.min() > 10 * cells.weight[0, :, 2:6].max()


def test_depths_beyond_the_slices_hardly_count() -> None:
    depth = torch.full((1, 16, 16), 9.0)
    beyond = surface.coarse(torch.rand(1, 4, 16, 16), depth)
    inside = surface.coarse(torch.rand(1, 4, 16, 16), depth - 7)
    assert beyond.weight.max() < 0.05 * inside.weight.min()
    assert (beyond.depth == 3).all()


def test_a_few_steps_lower_the_validation_error(pool: Pool) -> None:
    torch.manual_seed(0)
    network = new_model(SURFACE).requires_grad_(True)
    batches = [batch_of(pool, 100 + k) for k in range(3)]
    before = surface.validation_error(network, batches)
    assert before == surface.validation_error(network, batches)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(25):
        optimiser.zero_grad()
        surface.training_loss(network, batch_of(pool, step))["loss"].backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    assert surface.validation_error(network, batches) < 0.9 * before


def test_it_is_no_model_to_choose_or_to_tune() -> None:
    assert "surface" not in models()
    with pytest.raises(FocusFusionError, match="There is no model 'surface'"):
        finetune("surface", torch.zeros(3, 64, 64).numpy())
