"""SESF-Fuse as it scores a stack, against the network as it is trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion import load_model
from napari_focus_fusion.models.registry import models, weights_folder
from napari_focus_fusion.models.sesf import SESF, spatial_frequency
from small_models import random_sesf

HALO = models()["sesf"].halo


def stack_of(slices: int = 4, side: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(slices, 1, side, side, generator=generator)


def as_trained(model: SESF, stack: Tensor, sample: list[Tensor]) -> Tensor:
    """Scores by the unfolded network in evaluation mode.

    Block by block, as it is drawn in the paper: convolution, ReLU, normalisation, and
    gates from the means of the sample (without padding).
    """
    gates: list[Tensor] = []

    def blocks(x: Tensor, padding: int) -> list[Tensor]:
        dense: list[Tensor] = []
        for block, gate in zip(model.encoder, [*gates, None], strict=False):
            inputs = torch.cat(dense, 1) if dense else x
            weight, bias = block.convolution.weight, block.convolution.bias
            convolved = F.conv2d(inputs, weight, bias, padding=padding)
            if not padding:
                dense = [maps[..., 1:-1, 1:-1] for maps in dense]
            y = block.normalise(F.relu(convolved))
            dense.append(y if gate is None else y * gate[:, None, None])
        return dense

    for attention in model.attention:
        means = torch.stack([blocks(x, 0)[-1].mean((0, 2, 3)) for x in sample])
        gates.append(attention.gates(means.mean(0)))
    dense = blocks(stack, 1)
    return spatial_frequency(dense, [torch.ones(16)] * 4)


@pytest.fixture(scope="module")
def model() -> SESF:
    return random_sesf(3)


def test_folding_changes_nothing(model: SESF) -> None:
    stack = stack_of()
    sample = [plane[None] for plane in stack]
    with torch.inference_mode():
        found = model.score(stack, model.context(sample))
        expected = as_trained(model, stack, sample)
    inner = (slice(None), slice(HALO, -HALO), slice(HALO, -HALO))
    torch.testing.assert_close(found[inner], expected[inner], rtol=1e-4, atol=1e-6)


def test_the_network_that_is_trained_is_the_one_that_scores(model: SESF) -> None:
    """Gates of a large image: with or without its border, nearly the same."""
    stack = stack_of(3, 160)
    with torch.inference_mode():
        _, trained = model(stack)
        scored = model.score(stack, model.context([plane[None] for plane in stack]))
    inner = (slice(None), slice(HALO, -HALO), slice(HALO, -HALO))
    error = (trained - scored)[inner].abs().mean() / scored[inner].mean()
    assert error < 0.02


def test_stacks_in_one_batch_have_gates_of_their_own(model: SESF) -> None:
    """With offsets between them, so that shared gates would change them."""
    first, second = stack_of(2, 24, 0), 0.2 * stack_of(2, 24, 1)
    with torch.inference_mode():
        together = model.features(torch.cat([first, second]), stacks=2)
        alone = [model.features(s) for s in (first, second)]
    for maps, one, two in zip(together, *alone, strict=True):
        torch.testing.assert_close(maps, torch.cat([one, two]), rtol=1e-5, atol=1e-6)


def test_the_statistics_do_not_know_the_order_of_the_slices(model: SESF) -> None:
    sample = [stack_of(2, 30, seed) for seed in range(6)]
    with torch.inference_mode():
        first = model.context(sample)
        other = model.context([sample[i] for i in (3, 0, 5, 1, 4, 2)])
    for mine, theirs in zip(
        (*first.weights, *first.biases, first.squared_gains),
        (*other.weights, *other.biases, other.squared_gains),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def test_the_statistics_depend_on_the_stack(model: SESF) -> None:
    with torch.inference_mode():
        first = model.context([stack_of()])
        other = model.context([3 * stack_of()])
    assert not torch.allclose(first.squared_gains, other.squared_gains, rtol=1e-3)


def test_the_halo_is_how_far_a_pixel_reaches(model: SESF) -> None:
    plane = stack_of(1)
    other = plane.clone()
    other[0, 0, 20, 21] += 0.5
    with torch.inference_mode():
        context = model.context([plane])
        changed = (model.score(plane, context) != model.score(other, context))[0]
    rows, columns = np.nonzero(changed.numpy())
    # Differences look to the left and upwards: one pixel more on the other side.
    assert (rows.min(), rows.max()) == (20 - HALO + 1, 20 + HALO)
    assert (columns.min(), columns.max()) == (21 - HALO + 1, 21 + HALO)


def test_tiles_with_a_halo_score_as_the_whole(model: SESF) -> None:
    stack = stack_of(2, 60)
    with torch.inference_mode():
        context = model.context([stack])
        whole = model.score(stack, context)
        for y, x, high, wide in ((5, 5, 17, 23), (20, 31, 35, 24), (11, 5, 1, 50)):
            window = stack[..., y - HALO : y + high + HALO, x - HALO : x + wide + HALO]
            crop = model.score(window, context)[:, HALO:-HALO, HALO:-HALO]
            torch.testing.assert_close(
                crop, whole[:, y : y + high, x : x + wide], rtol=1e-5, atol=1e-7
            )


def test_spatial_frequency_is_the_energy_of_differences() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 3, 9, 11))
    gains = np.array([1.0, 0.5, 2.0])
    expected = np.zeros((2, 9, 11))
    weighted = gains[:, None, None]
    expected[..., 1:] += (weighted * np.diff(maps, axis=-1) ** 2).sum(1)
    expected[:, 1:] += (weighted * np.diff(maps, axis=-2) ** 2).sum(1)
    expected[:, 0], expected[..., 0] = 0, 0  # where one of the two is missing
    found = spatial_frequency([torch.from_numpy(maps)], [torch.from_numpy(gains)])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_scores_are_never_negative_and_zero_where_all_is_flat(model: SESF) -> None:
    plane = stack_of(1)
    plane[..., 20:] = 0.4
    with torch.inference_mode():
        score = model.score(plane, model.context([plane]))[0]
    assert (score >= 0).all()
    inner = (slice(HALO, -HALO), slice(20 + HALO, -HALO))
    assert score[inner].max() < 1e-10 * score.max()


def test_the_shipped_weights_are_those_on_their_card() -> None:
    network = load_model("sesf")
    card = json.loads((weights_folder() / "sesf.json").read_text())
    assert network.weights_hash == card["sha256"]
    assert card["model"] == "sesf"
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
