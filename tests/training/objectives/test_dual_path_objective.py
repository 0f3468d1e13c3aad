"""How Dual-Path learns: from imperfect masks, from each other, from truth."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_focus_fusion.decision import aggregate
from napari_focus_fusion.models.dual_path import STAGES, DualPath
from napari_focus_fusion.training.data import Batch, Pool, make_pool
from napari_focus_fusion.training.objectives import dual_path

SIDE = 48


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(range(500_000, 500_003), 4, SIDE)


def batch_of(pool: Pool, step: int = 3) -> Batch:
    return pool.draw(step, stacks=2, crop=SIDE, seed=0)


def network_of(seed: int = 0) -> DualPath:
    torch.manual_seed(seed)
    return DualPath().train()


def generator_of(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_gradients_reach_every_parameter(pool: Pool, truth: float) -> None:
    network = network_of()
    batch = batch_of(pool, dual_path.WARM_UP)
    dual_path.training_loss(network, batch, truth)["loss"].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_pretext_reaches_every_parameter_and_needs_no_truth(pool: Pool) -> None:
    network = network_of()
    losses = dual_path.self_supervised_loss(
        network, batch_of(pool).noisy, generator_of()
    )
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert "ranking" not in dual_path.training_loss(network, batch_of(pool), truth=0.0)


def test_the_same_generator_gives_the_same_losses(pool: Pool) -> None:
    network, slices = network_of(), batch_of(pool).noisy
    first, again, other = (
        dual_path.self_supervised_loss(network, slices, generator_of(seed))
        for seed in (5, 5, 6)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["loss"], other["loss"])
    batch = batch_of(pool)
    same = [dual_path.training_loss(network, batch)["loss"] for _ in range(2)]
    assert torch.equal(*same)


def test_a_few_steps_on_a_stack_lower_the_self_supervised_loss(pool: Pool) -> None:
    network, slices = network_of(), batch_of(pool).noisy
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)

    def loss() -> float:
        with torch.no_grad():
            found = [
                dual_path.self_supervised_loss(network, slices, generator_of(100 + k))[
                    "loss"
                ]
                for k in range(2)
            ]
        return float(torch.stack(found).mean())

    before = loss()
    for step in range(12):
        optimiser.zero_grad()
        dual_path.self_supervised_loss(network, slices, generator_of(step))[
            "loss"
        ].backward()
        optimiser.step()
    assert loss() < 0.9 * before


def test_the_fuser_is_taught_by_the_predictor_and_not_the_reverse(pool: Pool) -> None:
    """Supervision and consistency send nothing to the predictor."""
    network, slices = network_of(), batch_of(pool).noisy
    losses = dual_path.self_supervised_loss(network, slices, generator_of())
    (losses["supervision"] + losses["consistency"]).backward(retain_graph=True)
    assert all(p.grad is None for p in network.predictor.parameters())
    assert all(p.grad is not None for p in network.stages.parameters())
    network.zero_grad()
    losses["predicting"].backward()
    assert all(p.grad is None for p in network.stages.parameters())


def test_a_young_predictor_teaches_nothing(pool: Pool) -> None:
    network, batch = network_of(), batch_of(pool, step=0)
    dual_path.training_loss(network, batch, truth=0.0)["loss"].backward()
    fuser = [p.grad for p in network.stages.parameters() if p.grad is not None]
    assert all(not grad.any() for grad in fuser)


def test_every_pixel_is_hidden_in_one_of_the_two_passes() -> None:
    slices = torch.zeros(100, 1, 60, 70)
    hidden = dual_path.checkerboard(slices, generator_of())
    assert set(hidden.unique().tolist()) == {0.0, 1.0}
    assert abs(float(hidden.mean()) - 0.5) < 0.03
    # Where a square lies is drawn: every pixel is hidden first about every other time.
    assert ((hidden.mean(0) > 0.3) & (hidden.mean(0) < 0.7)).all()
    # And it is a square of 8 to 16 pixels, except at the border.
    labels, count = ndimage.label(hidden[0, 0].numpy())
    for rows, columns in ndimage.find_objects(labels):
        if rows.start and columns.start and rows.stop < 60 and columns.stop < 70:
            high, wide = rows.stop - rows.start, columns.stop - columns.start
            assert high == wide
            assert 8 <= high <= 16
    assert count > 4


def test_a_pixel_is_guessed_without_looking_at_it(pool: Pool) -> None:
    network, slices = network_of().eval(), batch_of(pool).noisy
    hidden = dual_path.checkerboard(slices, generator_of(1))
    mask = dual_path.imperfect_masks(slices, generator_of(2))
    with torch.no_grad():
        predicted = dual_path.predict_masks(network, slices, mask, hidden)
        for visible in (0, 1):
            other = torch.where(hidden == visible, mask, mask.roll(1, 1))
            again = dual_path.predict_masks(network, slices, other, hidden)
            same = hidden.expand_as(predicted) != visible
            assert torch.equal(again[same], predicted[same])
            assert not torch.allclose(again[~same], predicted[~same])


def test_imperfect_masks_are_one_hot_and_find_what_is_plain() -> None:
    """One slice has detail, the others none: every measure finds it."""
    slices = torch.full((1, 3, 40, 40), 0.5)
    slices[:, 1] += torch.rand(40, 40, generator=generator_of(3)) - 0.5
    for seed in range(25):
        mask = dual_path.imperfect_masks(slices, generator_of(seed))
        assert torch.equal(mask.sum(1), torch.ones(1, 40, 40))
        assert mask[:, 1].mean() > 0.97


def test_imperfect_masks_err_in_ways_of_their_own(pool: Pool) -> None:
    slices = batch_of(pool).noisy
    masks = [
        dual_path.imperfect_masks(slices, generator_of(seed)).argmax(1)
        for seed in range(8)
    ]
    agreement = [
        float((a == b).float().mean()) for a in masks for b in masks if a is not b
    ]
    assert 0.3 < np.mean(agreement) < 0.98


def test_some_slices_keep_truth_true() -> None:
    """Slices whose values are their number, to check the slices and the depth."""
    numbers = torch.arange(9.0)[None, :, None, None].expand(2, 9, 6, 8)
    depth = torch.linspace(0, 8, 2 * 6 * 8).reshape(2, 6, 8)
    batch = Batch(numbers, numbers, depth, depth)
    seen = set()
    for seed in range(250):
        substack = dual_path.draw_substack(batch, generator_of(seed))
        kept = substack.noisy[0, :, 0, 0]
        assert torch.equal(substack.noisy, substack.clean)
        step = float(kept[1] - kept[0])
        assert torch.equal(kept.diff(), torch.full((len(kept) - 1,), step))
        seen.add((len(kept), step))
        known = substack.depth.isfinite()
        was = float(kept[0]) + step * substack.depth[known]
        lost = (was - depth[known]).abs()
        # Half a slice beyond the ends counts as the end.
        assert lost.max() <= step / 2
        inside = (depth > kept[0]) & (depth < kept[-1])
        assert (known & inside).sum() == inside.sum()
        assert not known[(depth < kept[0] - step) | (depth > kept[-1] + step)].any()
    assert {count for count, _ in seen} == set(range(2, 10))
    assert {step for _, step in seen} == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_truth_lowers_with_masks_that_are_right(pool: Pool) -> None:
    network, batch = network_of(), batch_of(pool)
    estimates = list(network.unroll(batch.noisy))
    depth = batch.depth.nan_to_num().clamp(0, 3)
    slices = torch.arange(4)[None, :, None, None]
    share = (1 - (slices - depth[:, None]).abs()).clamp_min(1e-6)
    right = [share.log() / dual_path.SHARPNESS]
    perfect = [
        e._replace(logits=right, reconstruction=batch.truth[:, None]) for e in estimates
    ]
    lost = dual_path.true_losses(estimates, batch)
    least = dual_path.true_losses(perfect, batch)
    assert least["truth"] < lost["truth"]
    assert least["ranking"] < 0.7 * lost["ranking"]
    assert least["risk"] < lost["risk"]
    assert least["picture"] < 0.1 * lost["picture"]
    assert len(estimates) == STAGES


def test_masks_are_added_up_as_the_engine_does() -> None:
    masks = torch.rand(1, 2, 50, 60, generator=generator_of(8))
    found = dual_path.aggregate_masks(masks)[0]
    for mask, added in zip(masks[0], found, strict=True):
        expected = aggregate(mask, DualPath.window, 1.0)
        ratio = expected / added
        torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))


def test_the_shortfall_tells_right_from_wrong(pool: Pool) -> None:
    """A network that only starts: the plain measure does it right on a clean stack."""
    network = network_of().eval().requires_grad_(False)
    quiet = copy.deepcopy(network)
    for stage in quiet.stages:
        stage.logit.weight.zero_()
        stage.logit.bias.zero_()
        stage.step.zero_()
    batch = batch_of(pool)
    clean = Batch(batch.clean, batch.clean, batch.truth, batch.depth)
    wrong = Batch(batch.clean.flip(1), batch.clean, batch.truth, batch.depth)
    right = dual_path.validation_error(quiet, [clean])
    assert right > 0
    assert dual_path.validation_error(quiet, [wrong]) > 1.5 * right


def test_doubt_is_no_loss_where_the_sum_of_the_window_decides() -> None:
    """A mask that hesitates is chosen as surely as one that does not."""
    slices = torch.tensor([[0.7, 0.3], [0.55, 0.45]])[..., None, None]
    probability = dual_path.selection_probability(slices.expand(2, 2, 5, 5))
    torch.testing.assert_close(probability.sum(1), torch.ones(2, 5, 5))
    assert (probability[0, 0] > 0.99).all()
    assert (probability[1, 0] > 0.7).all()


def test_what_is_not_known_does_not_count() -> None:
    values = torch.tensor([[[1.0, 2.0, 50.0]], [[3.0, 4.0, 5.0]]])
    nan = torch.nan
    depth = torch.tensor([[[0.0, 1.0, nan]], [[nan, nan, nan]]])
    found = dual_path.mean_where_known(values, depth)
    torch.testing.assert_close(found, torch.tensor([1.5, 0.0]))
