"""MSCNN: pooled slice by slice, blind to brightness and order, and worth its cost."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_focus_fusion import fuse, load_model
from napari_focus_fusion.models.base import Encoded
from napari_focus_fusion.models.mscnn import DETAILS, MSCNN
from napari_focus_fusion.models.registry import (
    models,
    new_model,
    our_models,
    weights_folder,
)
from napari_focus_fusion.simulation.scenes import Scene, make_scene

needs_weights = pytest.mark.skipif(
    "mscnn" not in models(), reason="its weights are still to be trained"
)

HALO = our_models()["mscnn"].halo
ENCODER = HALO - MSCNN.decoder_halo


def random_mscnn(seed: int = 0) -> MSCNN:
    """The network with random weights where training starts from zeros, too."""
    torch.manual_seed(seed)
    model = MSCNN()
    torch.nn.init.normal_(model.residual.weight, std=0.05)
    torch.nn.init.normal_(model.per_doubling, std=0.02)
    model.spec = our_models()["mscnn"]
    return model.eval().requires_grad_(False)


def stack_of(slices: int = 4, side: int = 60, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(slices, side, side, generator=generator)


def pooled(model: MSCNN, stack: Tensor) -> tuple[Encoded, Tensor]:
    """Features of all slices, added one at a time, and the slice with the largest."""
    best, total, winner = torch.tensor(-torch.inf), torch.tensor(0.0), torch.tensor(0)
    for z, plane in enumerate(stack):
        one = model.encode(plane[None, None])
        winner = torch.where(one.largest > best, z, winner)
        best, total = torch.maximum(best, one.largest), total + one.added
    return Encoded(best, total), winner[0]


def streamed(model: MSCNN, stack: Tensor) -> Tensor:
    return model.reconstruct(*pooled(model, stack)[0], len(stack))[0]


def inside(border: int) -> tuple[slice, slice]:
    return slice(border, -border), slice(border, -border)


@pytest.fixture(scope="module")
def model() -> MSCNN:
    return random_mscnn(3)


@cache
def steep() -> Scene:
    """A steep, noisy surface that no training has seen; do not write to it."""
    return make_scene(
        1_000_101,
        shape=(160, 160),
        slices=8,
        surface="steep",
        content="leaves",
        electrons=1000.0,
    )


def psnr(reconstruction: np.ndarray, scene: Scene) -> float:
    truth = scene.truth.astype(np.float64)
    squared = np.mean((reconstruction.astype(np.float64) - truth) ** 2)
    return float(10 * np.log10(np.ptp(truth) ** 2 / squared))


@pytest.mark.parametrize("slices", [1, 2, 9])
def test_slice_by_slice_is_all_at_once(model: MSCNN, slices: int) -> None:
    stack = stack_of(slices)
    with torch.inference_mode():
        together, encoded = model(stack[None])
        assert encoded.largest.shape[2] == model.channels[0]
        assert encoded.added.shape[2] == model.channels[1]
        torch.testing.assert_close(streamed(model, stack), together[0])


def test_the_order_of_the_slices_changes_nothing(model: MSCNN) -> None:
    stack, order = stack_of(5), [3, 0, 4, 1, 2]
    with torch.inference_mode():
        first, winner = pooled(model, stack)
        other, shuffled = pooled(model, stack[order])
        assert torch.equal(first.largest, other.largest)
        torch.testing.assert_close(
            model.reconstruct(*first, 5), model.reconstruct(*other, 5)
        )
        for z, source in enumerate(order):
            mine = model.vote(winner, first.largest[0], source)
            assert torch.equal(model.vote(shuffled, other.largest[0], z), mine)


def test_gain_and_offset_of_the_stack_are_those_of_the_picture(model: MSCNN) -> None:
    stack = stack_of(3)
    with torch.inference_mode():
        reconstruction = streamed(model, stack)
        assert (reconstruction - stack.mean(0)).std() > 0.05
        for gain, offset in ((0.05, 0.3), (7.0, -2.0)):
            other = streamed(model, gain * stack + offset)
            expected = gain * reconstruction + offset
            torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)


def test_a_flat_stack_gives_itself(model: MSCNN) -> None:
    with torch.inference_mode():
        for slices in (1, 2, 32):
            reconstruction = streamed(model, torch.full((slices, 40, 40), 0.37))
            torch.testing.assert_close(reconstruction, torch.full((40, 40), 0.37))


def test_the_network_is_told_how_many_slices_there_were(model: MSCNN) -> None:
    with torch.inference_mode():
        state, _ = pooled(model, stack_of(4))
        four, sixteen = (model.reconstruct(*state, count) for count in (4, 16))
        plain = random_mscnn(3)
        plain.per_doubling.zero_()
        torch.testing.assert_close(plain.reconstruct(*state, 4), four)
        assert not torch.allclose(plain.reconstruct(*state, 16), sixteen, atol=1e-3)


def test_the_halo_is_how_far_a_pixel_reaches(model: MSCNN) -> None:
    """Of the encoder and of the decoder; the halo is both together."""

    def radius(one: Tensor, other: Tensor) -> int:
        places = (one != other).nonzero()[:, -2:]
        return int((places - 40).abs().max())

    plane = stack_of(1, 81)[None]
    touched = plane.clone()
    touched[..., 40, 40] += 0.5
    with torch.inference_mode():
        first, second = model.encode(plane), model.encode(touched)
        assert radius(first.largest, second.largest) == ENCODER
        assert radius(first.added, second.added) == ENCODER
        added = first.added.clone()
        added[..., DETAILS : 2 * DETAILS, 40, 40] *= 1.5
        whole = model.reconstruct(first.largest, first.added, 1)
        other = model.reconstruct(first.largest, added, 1)
        assert radius(whole, other) == model.decoder_halo


def test_tiles_with_a_halo_give_the_whole(model: MSCNN) -> None:
    stack = stack_of(2, 96)
    with torch.inference_mode():
        whole = streamed(model, stack)
        for y, x, high, wide in ((25, 25, 11, 23), (31, 40, 40, 31), (60, 27, 1, 9)):
            window = stack[:, y - HALO : y + high + HALO, x - HALO : x + wide + HALO]
            crop = streamed(model, window)[inside(HALO)]
            expected = whole[y : y + high, x : x + wide]
            torch.testing.assert_close(crop, expected, rtol=1e-5, atol=1e-6)


def test_votes_go_to_the_slice_with_most_detail(model: MSCNN) -> None:
    """Shares add up to the detail and more; a tie is counted for no slice."""
    stack = stack_of(3)
    with torch.inference_mode():
        detail = model.encode(stack[:, None]).largest[:, 0]
        state, winner = pooled(model, stack)
        votes = torch.stack([model.vote(winner, state.largest[0], z) for z in range(3)])
        assert torch.equal(votes.argmax(0), detail.argmax(0))
        torch.testing.assert_close(votes.amax(0), detail.amax(0))
        winner[0, 10:20] = -1
        votes = torch.stack([model.vote(winner, state.largest[0], z) for z in range(3)])
        assert (votes[:, 10:20] == votes[:1, 10:20]).all()


@needs_weights
def test_identical_slices_come_back_and_decide_nothing() -> None:
    """Without noise, the shipped network returns what it is given."""
    truth = steep().truth
    stack = np.stack([truth.astype(np.uint16)] * 3)
    result = fuse(stack, "mscnn")
    error = np.abs(result.fused.astype(np.float64) - truth) / np.ptp(truth)
    assert error.mean() < 0.01
    assert np.asarray(result.confidence).max() == 0


@needs_weights
def test_tiles_of_a_run_are_invisible() -> None:
    stack = steep().stack[:4]
    whole, tiled = (fuse(stack, "mscnn", tile=tile) for tile in (256, 64))
    same = np.asarray(whole.decision) == np.asarray(tiled.decision)
    assert same.mean() > 0.9999
    apart = np.abs(whole.fused.astype(int) - tiled.fused.astype(int))
    assert apart.max() <= 1


@needs_weights
def test_strength_is_the_way_from_observed_pixels_to_reconstructed_ones() -> None:
    stack = steep().stack[:5]
    results = [fuse(stack, "mscnn", strength=strength) for strength in (0, 0.5, 1)]
    observed, between, whole = (result.fused.astype(float) for result in results)
    np.testing.assert_allclose(between, (observed + whole) / 2, atol=1.01)
    decided = fuse(stack, decision=results[0].decision)
    np.testing.assert_array_equal(results[0].fused, decided.fused)
    assert np.abs(whole - observed).mean() > 100
    assert [result.provenance["reconstructed"] for result in results] == [0, 1, 1]
    for result in results:
        np.testing.assert_array_equal(result.decision, results[0].decision)


def test_a_strength_that_has_no_effect_is_told() -> None:
    result = fuse(steep().stack[:3, :64, :64], "sml", strength=0.5)
    assert any("strength=0.5 has no effect" in note for note in result.notes)


@needs_weights
def test_the_picture_beats_any_choice_of_slices_and_the_network_untrained() -> None:
    scene = steep()
    torch.manual_seed(0)
    untrained = new_model(our_models()["mscnn"])
    plain, before, after = (
        fuse(scene.stack, model) for model in ("sml", untrained, "mscnn")
    )
    nearest = np.clip(np.rint(scene.depth), 0, len(scene.stack) - 1).astype(np.intp)
    chosen = np.take_along_axis(scene.stack, nearest[None], 0)[0]
    score = psnr(after.fused, scene)
    assert score > psnr(chosen, scene) + 2
    assert score > psnr(before.fused, scene) + 1.5
    assert score > psnr(plain.fused, scene) + 1
    bright = after.fused.mean() / scene.truth.mean()
    assert abs(bright - 1) < 0.01
    errors = [
        np.minimum(np.abs(result.depth - scene.depth), 3)[scene.textured].mean()
        for result in (plain, after)
    ]
    assert errors[1] < errors[0]


@needs_weights
def test_the_shipped_weights_are_those_on_their_card() -> None:
    network = load_model("mscnn")
    card = json.loads((weights_folder() / "mscnn.json").read_text())
    assert network.weights_hash == card["sha256"]
    assert card["model"] == "mscnn"
    assert not any(p.requires_grad for p in network.parameters())
