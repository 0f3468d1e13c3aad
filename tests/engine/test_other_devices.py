"""Runs on a stand-in for a graphics card: nothing lies on the wrong device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_focus_fusion import fuse, load_model
from napari_focus_fusion.engine.fallback import NetworkCall, copied_to_cpu
from napari_focus_fusion.simulation.scenes import make_scene
from tests.stand_in_card import CARD, stand_in_card


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    scene = make_scene(3, shape=(56, 56), slices=3, content="leaves", electrons=2e4)
    return np.asarray(scene.stack)


@pytest.fixture(scope="module")
def with_gaps(stack: np.ndarray) -> np.ndarray:
    floats = stack.astype(np.float32) / 65535
    floats[0, :20, :20] = np.nan
    floats[:, 40:43, 40:43] = np.nan
    return floats


def test_the_stand_in_refuses_what_a_card_refuses():
    with stand_in_card():
        there = torch.zeros(3, device=CARD)
        assert (there + 1).device == CARD
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        assert (there + 1).cpu().numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("sml", {}),
        ("sml", {"blend": "select"}),
        ("dual-path", {}),
        ("affinity-sr", {}),
        ("affinity-sr", {"scale": 2}),
    ],
)
def test_a_run_is_that_of_the_cpu(stack, model, options):
    check_against_cpu(stack, model, options)


@pytest.mark.parametrize("model", ["sml", "mscnn"])
def test_a_run_with_absent_pixels_is_that_of_the_cpu(with_gaps, model):
    check_against_cpu(with_gaps, model, {"background": "mean"})


@pytest.mark.parametrize(
    ("largest", "noted"),
    [(250_000, "had no memory for a region"), (5_000_000, None)],
)
def test_without_memory_for_a_region_the_cpu_takes_over(largest, noted):
    scene = make_scene(3, shape=(200, 200), slices=3, content="leaves")
    wanted = fuse(scene.stack, "sml", device="cpu")
    with stand_in_card(largest):
        found = fuse(scene.stack, "sml", device="cuda")
    np.testing.assert_array_equal(found.decision, wanted.decision)
    np.testing.assert_array_equal(found.fused, wanted.fused)
    assert any("had no memory" in note for note in found.notes) is bool(noted)


def check_against_cpu(stack: np.ndarray, model: str, options: dict) -> None:
    wanted = fuse(stack, model, device="cpu", **options)
    with stand_in_card():
        found = fuse(stack, model, device="cuda", **options)
    assert (found.decision == wanted.decision).mean() > 0.9999
    span = np.nanmax(wanted.fused) - np.nanmin(wanted.fused)
    np.testing.assert_allclose(found.fused, wanted.fused, rtol=0, atol=2e-5 * span)


def test_a_tile_on_the_cpu_leaves_the_network_as_it_is():
    network = load_model("sesf")
    twin = copied_to_cpu(network)
    planes = torch.rand(2, 1, 40, 40)
    with torch.inference_mode():
        context = network.context([planes[:1]])
        wanted = network.score(planes, context)
        call = NetworkCall(
            lambda model, batch, context: model.score(batch, context),
            network,
            context,
            5,
        )
        assert torch.equal(call.on_cpu(planes[:, 0]), wanted)
        assert torch.equal(twin.score(planes, context), wanted)
    # A network that was moved in inference mode could not be trained again.
    network.requires_grad_(True)
    network(planes)[0].sum().backward()
    assert not {id(p) for p in twin.parameters()} & {
        id(p) for p in network.parameters()
    }
