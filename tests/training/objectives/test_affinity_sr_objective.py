"""Training affinity-sr: what is learnt from, the losses, the stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_focus_fusion import FocusFusionError
from napari_focus_fusion.models.affinity_sr import (
    FULL,
    AffinitySR,
    AffinitySRConfig,
)
from napari_focus_fusion.models.layers import interpolate
from napari_focus_fusion.models.registry import new_model, our_models
from napari_focus_fusion.training.data import Batch, Pool, make_pool
from napari_focus_fusion.training.fit import fit
from napari_focus_fusion.training.objectives import affinity_sr
from napari_focus_fusion.training.objectives.affinity_sr import (
    RECIPE,
    SAMPLINGS,
    Pairs,
    Sampling,
    best_of_others,
    blurred_pairs,
    coarse_pairs,
    coloured,
    fill_holes,
    finer_error,
    finer_losses,
    finer_training_loss,
    focus_losses,
    focus_training_loss,
    fusing_error,
    fusing_losses,
    fusing_training_loss,
    sampled,
    scene_pairs,
    self_supervised_loss,
)
from napari_focus_fusion.training.train import _fit_stage, train

SMALL = AffinitySRConfig(
    path=(4,), half_width=2, rows=1, near=(4, 6), far=(4,), refine=2, width=8, growth=4,
    dense=1, blocks=1, embed=(), fine=(4,),
)  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(config: AffinitySRConfig = SMALL, seed: int = 0) -> AffinitySR:
    torch.manual_seed(seed)
    return AffinitySR(config)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(range(910_000, 910_004), 4, 48)


@pytest.fixture
def batch(pool: Pool) -> Batch:
    return pool.draw(5, stacks=2, crop=48, seed=0)


# --- What is learnt from


def test_pairs_are_sharp_where_the_mask_says() -> None:
    """Eq. 21."""
    images = torch.rand(3, 2, 30, 34, generator=generator())
    slices, masks = blurred_pairs(images, generator(1))
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    for image, (one, two), mask in zip(images, slices, masks, strict=True):
        inside = mask.bool()
        assert torch.equal(one[:, inside], image[:, inside])
        assert torch.equal(two[:, ~inside], image[:, ~inside])
        blurred = one + two - image
        assert blurred.std() < 0.5 * image.std()
        assert blurred.mean() == pytest.approx(float(image.mean()), abs=0.02)
        assert 0.2 < mask.mean() < 0.8


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_coarse_pixels_lie_in_the_middle_of_their_fine_ones(
    sampling: Sampling, scale: int
) -> None:
    x = torch.arange(12.0 * scale)
    fine = (x[:, None] + 2 * x[None, :])[None, None]
    centre = (torch.arange(12.0) + 0.5) * scale - 0.5
    expected = centre[:, None] + 2 * centre[None, :]
    found = sampled(fine, scale, sampling)[0, 0]
    inner = (slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_coarse_pairs_are_of_the_fine_ones(scale: int, batch: Batch) -> None:
    seen = set()
    for seed in range(24):
        pairs = coarse_pairs(batch.truth, scale, generator(seed))
        fine, coarse = (a.flatten(0, 1) for a in (pairs.fine, pairs.coarse))
        error = [
            float((sampled(fine, scale, how) - coarse).abs().mean())
            for how in SAMPLINGS
        ]
        how, channels = int(np.argmin(error)), pairs.truth.shape[1]
        seen.add((how, channels))
        assert min(error) < 0.03
    assert len(seen) == 6


def test_colours_are_mixtures_of_pictures(batch: Batch) -> None:
    found = coloured(batch.truth, generator())
    other = batch.truth.roll(1, 0).flip(-1)
    flat = found[0].flatten(1).double()
    basis = torch.stack([batch.truth[0].flatten(), other[0].flatten()], 1).double()
    shares = torch.linalg.lstsq(basis, flat.T).solution
    torch.testing.assert_close(basis @ shares, flat.T, rtol=0, atol=1e-5)
    torch.testing.assert_close(shares.sum(0), torch.ones(3).double(), rtol=0, atol=1e-4)
    assert shares[0].std() > 0.01


def levels(depth: float, count: int = 5, stacks: int = 8) -> Batch:
    """Slices that are as bright as their number, to identify the source of a pixel."""
    shape = (stacks, count, 24, 26)
    planes = torch.arange(count, dtype=torch.float32)[:, None, None].expand(shape)
    known = torch.full((stacks, 24, 26), float(depth))
    known[:, :4] = torch.nan
    # A texture that is strongest in slice 3, then in slice 1, for the plain measure.
    contrast = torch.tensor([0, 0.002, 0, 0.004, 0.001])[:count, None, None]
    noise = torch.randn(24, 26, generator=generator(7))
    return Batch(planes + contrast * noise, planes.clone(), known, known)


def test_the_rival_is_the_best_of_the_others() -> None:
    found = best_of_others(levels(3).noisy)
    inner = found[:, :, 8:-8, 8:-8]
    assert (inner[:, 3] == 1).all()
    for n in (0, 1, 2, 4):
        assert (inner[:, n] == 3).all()
    own = torch.arange(5)[None, :, None, None]
    assert (found != own).all()


@pytest.mark.parametrize("depth", [0.0, 2.0, 2.75, 3.5])
def test_masks_say_which_slice_of_a_pair_is_nearer_to_the_truth(depth: float) -> None:
    first_is_rival = 0
    for seed in range(6):
        noisy, clean, wanted, known = scene_pairs(levels(depth), generator(seed))
        assert (noisy - clean).abs().max() < 0.05
        assert not known[:, :4].any() and known[:, 4:].all()
        far = (clean[:, 1] - depth).abs() - (clean[:, 0] - depth).abs()
        expected = (far + 0.5).clamp(0, 1)[:, 4:]
        torch.testing.assert_close(wanted[:, 4:], expected)
        assert (clean[:, 0] != clean[:, 1]).all()
        first_is_rival += int((clean[:, 0, 12, 12] == 3).sum())
    assert first_is_rival > 4


def test_holes_are_small_and_inside() -> None:
    """Eq. 14."""
    mask = torch.ones(2, 40, 50)
    mask[0, 10:13, 20:22] = 0.3  # a hole
    mask[0, :3, 5:7] = 0.2  # at the border
    mask[0, 20:30, 20:30] = 0.1  # large
    expected = mask.clone()
    expected[0, 10:13, 20:22] = 1
    torch.testing.assert_close(fill_holes(mask), expected)
    assert torch.equal(fill_holes(mask[None]), expected[None])
    # What is below a half and encloses nothing stays as it is.
    assert torch.equal(fill_holes(torch.full((5, 6), 0.4)), torch.full((5, 6), 0.4))


# --- Losses


def test_the_focus_loss_is_the_papers(batch: Batch) -> None:
    """Eq. 17 and 18, each term by hand."""
    model = network().eval()
    noisy, clean, wanted, known = scene_pairs(batch, generator())
    with torch.no_grad():
        losses = focus_losses(model, noisy, clean, wanted, known)
    masks = model.fapn(noisy[:, :1], noisy[:, 1:]).detach().double().numpy()
    target, weight = wanted.double().numpy(), known.numpy() > 0
    off = np.abs(masks[:, 0] - target) + np.abs(masks[:, 1] - (1 - target))
    assert float(losses["mask"]) == pytest.approx(off[weight].mean(), rel=1e-4)
    pair = clean.double().numpy()
    difference = (masks - np.stack([target, 1 - target], 1)) * pair
    plane = np.pad(difference.sum(1), [(0, 0), (1, 1), (1, 1)])
    high, wide = pair.shape[-2:]
    around = sum(
        plane[:, i : i + high, j : j + wide] for i in range(3) for j in range(3)
    )
    gradient = np.abs(9 * plane[:, 1:-1, 1:-1] - around).mean()
    assert float(losses["gradient"]) == pytest.approx(gradient, rel=1e-4)
    expected = 0.8 * losses["mask"] + 0.1 * (losses["gradient"] + losses["structure"])
    torch.testing.assert_close(losses["loss"], expected)


def test_what_srn_has_to_reach(batch: Batch) -> None:
    """Eq. 19, and the release's target: an untrained network interpolates."""
    model = network()
    pairs = coarse_pairs(batch.truth, 2, generator())
    plain = interpolate(pairs.coarse.flatten(0, 1), 2).unflatten(0, (-1, 2))
    inner = (..., slice(4, -4), slice(4, -4))
    for target, wanted in (("source", pairs.fine), ("sharp", pairs.truth[:, None])):
        expected = (plain - wanted)[inner].abs().mean()
        found = finer_losses(model, pairs, 2, target)["loss"]  # type: ignore[arg-type]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_fusing_is_judged_by_truth_and_by_each_source_in_its_mask(batch: Batch) -> None:
    """Eq. 20 with masks of which everything is known."""
    model = network()
    last = model.fapn.head[-1]
    with torch.no_grad():  # M_1 is 1 everywhere, M_2 is 0
        last.weight.zero_()
        last.bias.copy_(torch.tensor([99.0, -99.0]))
    pairs = coarse_pairs(batch.truth, 2, generator())
    fused = interpolate(pairs.coarse[:, 0], 2)
    inner = (..., slice(4, -4), slice(4, -4))
    whole = (fused - pairs.truth)[inner].abs().mean()
    focused = (fused - pairs.fine[:, 0])[inner].abs().mean()
    found = fusing_losses(model, pairs, 2, fill=False)
    torch.testing.assert_close(found["fused"], whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["focused"], focused, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "training_loss", [focus_training_loss, finer_training_loss, fusing_training_loss]
)
def test_the_same_step_has_the_same_loss(training_loss: Any, pool: Pool) -> None:
    def loss(step: int) -> Tensor:
        batch = pool.draw(step, stacks=2, crop=48, seed=0)
        return training_loss(network().train(), batch)["loss"]

    torch.manual_seed(3)
    first = loss(4)
    torch.manual_seed(4)
    assert torch.equal(loss(4), first)
    assert not torch.equal(loss(7), first)


def test_without_truth_every_part_learns(batch: Batch) -> None:
    model, twin = (network(replace(SMALL, skip=False)).train() for _ in "12")
    losses = self_supervised_loss(model, batch.noisy, generator(2))
    again = self_supervised_loss(twin, batch.noisy, generator(2))
    assert torch.equal(losses["loss"], again["loss"])
    assert not torch.equal(
        losses["loss"], self_supervised_loss(model, batch.noisy, generator(3))["loss"]
    )
    losses["loss"].backward()
    used = {
        name
        for name, p in model.named_parameters()
        if p.grad is not None and p.grad.any()
    }
    assert {"fapn.refine.0.weight", "srn.shallow.weight"} <= used
    assert any(name.endswith("d1.weight") for name in used)
    assert any(name.endswith("d2.weight") for name in used)


def test_the_full_network_learns_in_every_parameter() -> None:
    """One step of each stage, at every scale."""
    torch.manual_seed(0)
    model = AffinitySR(FULL).train()
    truth = torch.rand(2, 24, 24, generator=generator())
    slices, masks = blurred_pairs(truth[:, None], generator())
    pair = slices[:, :, 0]
    known = torch.ones_like(masks)
    loss = focus_losses(model, pair, pair, masks, known)["loss"]
    for scale in (2, 3, 4):
        pairs = coarse_pairs(truth, scale, generator(scale))
        with torch.no_grad():  # what is fused must not all be below black
            model.srn.head(scale).d2.bias.fill_(0.5)
        loss = loss + finer_losses(model, pairs, scale)["loss"]
        loss = loss + fusing_losses(model, pairs, scale)["loss"]
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    optimiser.step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_errors_are_shares_of_what_interpolation_leaves(batch: Batch) -> None:
    model = network().eval()
    with torch.inference_mode():
        assert finer_error(model, [batch]) == pytest.approx(1, abs=1e-4)
        fused = fusing_error(model, [batch], (2,))
        model.srn.head(3).d1.bias.add_(1)
        assert finer_error(model, [batch]) > 2
        assert finer_error(model, [batch], (2, 4)) == pytest.approx(1, abs=1e-4)
        assert fusing_error(model, [batch], (2,)) == fused


# --- Stages


def changed(before: dict[str, Tensor], model: AffinitySR) -> set[str]:
    return {
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("scale", [None, 3])
def test_a_stage_trains_its_part_alone(
    number: int, scale: int | None, pool: Pool, tmp_path: Any
) -> None:
    stage = [RECIPE, *RECIPE.next_stages][number]
    schedule = replace(stage.schedule, steps=3, validate_every=3)
    # The worst score is the first: what training changed is kept.
    scores = iter([1.0, 0.5])
    stage = replace(
        stage,
        schedule=schedule,
        crop=48,
        stacks=2,
        validate=lambda model, batches, **options: next(scores),
    )
    model = network(replace(SMALL, skip=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[float] = []
    _fit_stage(
        model,
        stage,
        pool,
        [pool.draw(0, stacks=1, crop=48, seed=0)],
        tmp_path / "checkpoint",
        seed=0,
        scale=scale,
        first=10,
        on_step=lambda row: seen.append(row["step"]),
        should_stop=None,
    )
    found = changed(before, model)
    part = "fapn." if number == 0 else "srn."
    assert found and all(name.startswith(part) for name in found)
    assert seen == [10, 11, 12, 13]
    if number:
        heads = {name.split(".")[2] for name in found if ".heads." in name}
        assert heads == ({"3"} if scale else {"2", "3", "4"})


def test_taken_up_again_it_ends_with_the_same_bits(pool: Pool, tmp_path: Any) -> None:
    stage = RECIPE.next_stages[1]
    schedule = replace(stage.schedule, steps=4, validate_every=2)

    def run(model: AffinitySR, **options: Any) -> None:
        fit(
            model,
            stage.training_loss,
            lambda step: pool.draw(step, stacks=2, crop=48, seed=0),
            lambda network: 1.0,
            schedule,
            **options,
        )

    whole, parts, asked = network(), network(), iter([False] * 3 + [True])
    run(whole, checkpoint=tmp_path / "whole")
    run(parts, checkpoint=tmp_path / "c", should_stop=lambda: next(asked))
    run(network(seed=9), checkpoint=tmp_path / "c")
    one, two = (
        torch.load(tmp_path / name, weights_only=True)["network"]
        for name in ("whole", "c")
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_only_what_enlarges_can_be_trained_for_a_factor(tmp_path: Any) -> None:
    with pytest.raises(FocusFusionError, match="'sesf' does not enlarge by 2"):
        train("sesf", tmp_path / "a.safetensors", scale=2)


def test_srn_learns_to_be_ahead_of_interpolation(pool: Pool) -> None:
    """On the images that it is trained on."""
    model = network().train()
    truth = pool.truth[:2, None]
    fine = truth[:, None].repeat(1, 2, 1, 1, 1)
    coarse = sampled(truth, 2, "bins")[:, None].repeat(1, 2, 1, 1, 1)
    optimiser = torch.optim.Adam(model.srn.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        loss = finer_losses(model, Pairs(truth, fine, coarse), 2)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.96 * losses[0]


def test_the_report_holds_the_untrained_network_against_interpolation() -> None:
    untrained = new_model(our_models()["affinity-sr"])
    assert isinstance(untrained, AffinitySR)
    scores = affinity_sr.super_resolution_scores({"untrained": untrained}, count=1)
    assert set(scores) == {
        f"x{scale}, {how}"
        for scale in (2, 3, 4)
        for how in ("cubic", "bins", "bins, 4000 electrons")
    }
    for row in scores.values():
        assert row["untrained"] == pytest.approx(row["cubic"], abs=0.02)
    assert scores["x2, bins"]["cubic"]["psnr"] > scores["x4, bins"]["cubic"]["psnr"]
