"""Residual features, and the prior alone against one computed with matrices."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from napari_focus_fusion import fuse, load_model
from napari_focus_fusion.models.registry import models, new_model, weights_folder
from napari_focus_fusion.models.residual import FACTOR, Residual, ResidualZero, low_pass
from napari_focus_fusion.simulation.scenes import make_scene
from small_models import relief, same_result

HALO = models()["residual"].halo
ZERO_HALO = models()["residual-zero"].halo


def stack_of(slices: int = 4, side: int = 48, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(slices, 1, side, side, generator=generator)


def random_residual(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    model: Any = new_model(models()["residual"])
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> Residual:
    return random_residual(3)


# The prior alone.


def keys(distance: np.ndarray) -> np.ndarray:
    """Cubic interpolation, Keys 1981, a = -1/2."""
    s = np.abs(distance)
    near, far = 1.5 * s**3 - 2.5 * s**2 + 1, -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2
    return np.where(s < 1, near, np.where(s < 2, far, 0))


def down_and_up(length: int, phase: int) -> np.ndarray:
    """The matrix that makes a row of pixels smaller and larger again, on one grid."""
    starts = np.arange(phase - FACTOR, length, FACTOR)
    starts = starts[(starts >= 0) & (starts + FACTOR <= length)]
    down = np.zeros((len(starts), length))
    for row, start in zip(down, starts, strict=True):
        row[start : start + FACTOR] = 1 / FACTOR
    middles = starts + (FACTOR - 1) / 2
    up = keys((np.arange(length)[:, None] - middles) / FACTOR)
    return up @ down


def test_the_prior_is_the_mean_over_all_places_of_the_grid() -> None:
    """Sixteen times down and up on a grid of every fourth pixel, by matrices."""
    image = np.random.default_rng(0).random((50, 60))
    copies = [
        down_and_up(50, a) @ image @ down_and_up(60, b).T
        for a in range(FACTOR)
        for b in range(FACTOR)
    ]
    residual = image - np.mean(copies, axis=0)
    expected = np.zeros_like(image)
    expected[1:, 1:] = (
        np.diff(residual, axis=0)[:, 1:] ** 2 + np.diff(residual, axis=1)[1:] ** 2
    )
    given = torch.from_numpy(image)[None, None].float()
    found = ResidualZero().score(given)[0].numpy()
    inner = (slice(ZERO_HALO, -ZERO_HALO), slice(ZERO_HALO, -ZERO_HALO))
    np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 6])
def test_slopes_have_no_residual(factor: int) -> None:
    taps = np.array(low_pass(factor))
    kernel = np.concatenate([taps[:0:-1], taps])
    ramp = 3.0 + 0.25 * np.arange(80)
    halo = len(taps)
    np.testing.assert_allclose(
        np.convolve(ramp, kernel, "same")[halo:-halo], ramp[halo:-halo], rtol=1e-12
    )


def test_the_prior_does_not_know_where_a_tile_begins() -> None:
    stack = stack_of(2, 64)
    whole = ResidualZero().score(stack)
    for top, left in ((1, 0), (2, 3), (7, 5)):
        crop = ResidualZero().score(stack[..., top : top + 50, left : left + 47])
        inner = crop[:, ZERO_HALO:-ZERO_HALO, ZERO_HALO:-ZERO_HALO]
        y, x = top + ZERO_HALO, left + ZERO_HALO
        high, wide = inner.shape[1:]
        expected = whole[:, y : y + high, x : x + wide]
        torch.testing.assert_close(inner, expected, rtol=1e-5, atol=1e-7)


# Statistics of the stack.


def test_the_statistics_do_not_know_the_order_of_the_slices(model: Residual) -> None:
    sample = [stack_of(2, 30, seed) for seed in range(6)]
    with torch.inference_mode():
        first = model.context(sample)
        other = model.context([sample[i] for i in (3, 0, 5, 1, 4, 2)])
    assert torch.equal(first, other)


def test_each_feature_counts_in_units_of_its_deviation(model: Residual) -> None:
    """A feature that is a hundred times as large has the same influence."""
    stack, sample = stack_of(), [stack_of(2, 40, seed) for seed in range(3)]
    louder = random_residual(3)
    with torch.inference_mode():
        louder.tail.weight[5] *= 100
        louder.tail.bias[5] *= 100
        torch.testing.assert_close(
            louder.score(stack, louder.context(sample)),
            model.score(stack, model.context(sample)),
            rtol=1e-3,
            atol=1e-5,
        )


def test_the_network_that_is_trained_is_the_one_that_scores(model: Residual) -> None:
    """Each stack of a batch with scales of its own, which are those of its context."""
    stacks = torch.cat([stack_of(3, 48, 0), 0.1 * stack_of(3, 48, 1)])
    with torch.inference_mode():
        trained = model(stacks, stacks=2)
        scored = torch.cat(
            [
                model.score(crop, model.context([plane[None] for plane in crop]))
                for crop in stacks.chunk(2)
            ]
        )
    inner = scored[:, HALO:-HALO, HALO:-HALO]
    torch.testing.assert_close(trained, inner, rtol=1e-3, atol=1e-6)


# Tiles, order, equal slices.


@pytest.mark.parametrize(("name", "halo"), [("residual", 9), ("residual-zero", 10)])
def test_the_halo_is_how_far_a_pixel_reaches(name: str, halo: int) -> None:
    torch.manual_seed(0)
    network: Any = new_model(models()[name]).double()
    assert models()[name].halo == halo
    plane = stack_of(1).double()
    other = plane.clone()
    other[0, 0, 23, 24] += 0.5
    with torch.inference_mode():
        context = network.context([plane])
        change = (network.score(plane, context) - network.score(other, context))[0]
    rows, columns = np.nonzero(change.abs().numpy() > 1e-12)
    # Differences look to the left and upwards: one pixel more on the other side.
    assert (rows.min(), rows.max()) == (23 - halo + 1, 23 + halo)
    assert (columns.min(), columns.max()) == (24 - halo + 1, 24 + halo)


@pytest.mark.parametrize("name", ["residual", "residual-zero"])
def test_tiles_are_invisible(name: str) -> None:
    stack = relief(100, 130, 3).stack
    whole = fuse(stack, name)
    for tile in (31, 64, 100):
        crop = fuse(stack, name, tile=tile)
        agreed = crop.decision == whole.decision
        assert agreed.mean() >= 0.9999
        change = crop.fused[agreed].astype(int) - whole.fused[agreed].astype(int)
        assert np.abs(change).max() <= 1
        np.testing.assert_allclose(crop.confidence, whole.confidence, atol=1e-4)


@pytest.mark.parametrize("name", ["residual", "residual-zero"])
def test_the_order_of_the_slices_does_not_matter(name: str) -> None:
    stack = relief(60, 70, 5).stack
    order = [2, 4, 0, 3, 1]
    # Averages depend on the order: noise is measured between neighbouring slices.
    result, other = (
        fuse(s, name, surface=0, blend="select") for s in (stack, stack[order])
    )
    np.testing.assert_array_equal(np.asarray(order)[other.decision], result.decision)
    np.testing.assert_array_equal(other.fused, result.fused)
    np.testing.assert_array_equal(other.confidence, result.confidence)


@pytest.mark.parametrize("name", ["residual", "residual-zero"])
def test_of_equal_slices_each_is_the_answer(name: str) -> None:
    plane = relief(60, 70, 2).stack[0]
    result = fuse(np.stack([plane] * 3), name)
    np.testing.assert_array_equal(result.fused, plane)
    assert (result.decision == 0).all()
    assert result.confidence.max() == 0


def test_other_units_change_nothing() -> None:
    stack = relief(60, 70, 3).stack.astype(np.float64)
    same_result(fuse(stack, "residual-zero"), fuse(stack, "residual-zero"))
    first, other = (fuse(s, "residual") for s in (stack, 40 + stack / 1024))
    assert (first.decision == other.decision).mean() > 0.9999


# What the weights have learnt.


def test_the_sharper_the_higher() -> None:
    """Also for images sharper than any that was made smaller: monotone in the blur."""
    image = relief(120, 130, 1).truth.astype(np.float64) / 65535
    blurred = [ndimage.gaussian_filter(image, s) for s in (0.0, 0.4, 0.8, 1.6, 3.2)]
    stack = torch.from_numpy(np.stack(blurred)[:, None]).float()
    for name in ("residual", "residual-zero"):
        network: Any = load_model(name)
        with torch.inference_mode():
            context = network.context([plane[None] for plane in stack])
            score = network.score(stack, context)[:, 12:-12, 12:-12].mean((1, 2))
        assert (score.diff() < 0).all(), name
        assert score[0] > 2 * score[3]


@pytest.mark.parametrize("surface", ["relief", "steep"])
def test_it_beats_itself_untrained_and_the_prior(surface: str) -> None:
    """On noisy scenes of seeds that neither trained nor chose the weights."""
    scene = make_scene(
        940_001,
        shape=(128, 144),
        slices=6,
        surface=surface,
        electrons=700.0,
        modality="grey",
    )
    errors = {}
    for name, network in {
        "trained": load_model("residual"),
        "untrained": random_residual(),
        "prior": load_model("residual-zero"),
        "plain": load_model("sml"),
    }.items():
        # Without the help of a surface, which is the same for all.
        depth = fuse(scene.stack, network, surface=0).depth
        distance = np.abs(depth - scene.depth)[scene.textured]
        errors[name] = np.minimum(distance, 3).mean()
    assert errors["trained"] < 0.95 * errors["untrained"]
    assert errors["trained"] < 0.95 * errors["prior"]
    assert errors["prior"] < errors["plain"]


def test_the_shipped_weights_are_those_on_their_card() -> None:
    network = load_model("residual")
    card = json.loads((weights_folder() / "residual.json").read_text())
    assert network.weights_hash == card["sha256"]
    assert card["model"] == "residual"
    scores = card["scores"]
    for other in ("sml", "untrained"):
        assert scores["trained"]["psnr"] > scores[other]["psnr"]
        assert scores["trained"]["depth_error"] < scores[other]["depth_error"]
