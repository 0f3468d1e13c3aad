"""The surface that weighs scores: along Z, on one grid, in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_focus_fusion import FocusFusionError, as_stack, fuse, load_model
from napari_focus_fusion.engine import reconstruction, scoring
from napari_focus_fusion.engine.fallback import NetworkCall, run_with_fallback
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import plan_run
from napari_focus_fusion.engine.prepare import Prepared, prepare
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.engine.surface import NEAR, SurfaceShares, find_surface
from napari_focus_fusion.models.registry import load_surface
from napari_focus_fusion.models.surface import (
    BLOCK,
    FOCUS_HALO,
    INPUTS,
    NETWORK_HALO,
    SCALES,
    coarse_features,
    focus_of,
)
from napari_focus_fusion.simulation.scenes import benchmark_scenes, make_scene
from napari_focus_fusion.tiling import Rectangle, TilePlan
from small_models import energy_reconstructor, random_sesf, same_result

HIGH, WIDE = 150, 170


def noisy(slices: int = 8, seed: int = 1_000_017) -> Any:
    return make_scene(
        seed,
        shape=(HIGH, WIDE),
        slices=slices,
        surface="relief",
        modality="grey",
        electrons=800,
        dtype=np.uint16,
    )


def point_of(stack: np.ndarray) -> Prepared:
    settings = FusionSettings(surface=1.0, device="cpu")
    plan = plan_run(as_stack(stack, axes="ZYX"), load_model("sml"), settings)
    return prepare(plan, 0, Monitor())


def shares_of(point: Prepared, region: Rectangle) -> np.ndarray:
    with torch.inference_mode():
        found = find_surface(point, region, Monitor())
        assert found is not None
        count = point.plan.stack.n_slices
        return torch.stack([found.of_slice(z) for z in range(count)]).numpy()


def test_weights_are_shares_of_the_highest_and_zero_far_from_the_surface() -> None:
    weights = shares_of(point_of(noisy().stack), Rectangle(0, HIGH, 0, WIDE))
    assert weights.shape == (8, HIGH, WIDE) and weights.min() >= 0
    assert weights.max() <= 1 and weights.max(0).min() > 0.2
    assert not ((weights > 0) & (weights < NEAR)).any()
    assert 0.2 < (weights == 0).mean() < 0.9


def test_slices_far_from_the_surface_are_told_from_those_near() -> None:
    point = point_of(noisy(12).stack)
    with torch.inference_mode():
        found = find_surface(point, Rectangle(10, 100, 20, 120), Monitor())
    assert found is not None
    generator = np.random.default_rng(0)
    for _ in range(50):
        y0, x0 = (int(n) for n in generator.integers(0, (80, 90)))
        y, x = slice(y0, y0 + 10), slice(x0, x0 + 10)
        for z in range(12):
            if (found.of_slice(z)[y, x] > 0).any():
                assert found.passes(z, 1, y, x)


@pytest.mark.parametrize("name", ["sml", "residual", "mscnn"])
def test_scoring_near_the_surface_alone_gives_what_scoring_all_gives(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = make_scene(
        5, shape=(192, 224), slices=16, surface="tilt", modality="grey"
    ).stack
    computed = []

    def counted(call: NetworkCall, batch: torch.Tensor, monitor: Monitor) -> Any:
        computed.append(batch.numel())
        return run_with_fallback(call, batch, monitor)

    for module in (scoring, reconstruction):
        monkeypatch.setattr(module, "run_with_fallback", counted)
    near = fuse(stack, name, surface=1.0)
    pixels = sum(computed)
    computed.clear()
    monkeypatch.setattr(scoring, "WORTH_PARTS", 0.0)
    monkeypatch.setattr(SurfaceShares, "matters", lambda surface, z: True)
    everywhere = fuse(stack, name, surface=1.0)
    if name == "sml":
        same_result(near, everywhere)
    # On some processors convolutions of smaller parts have other last bits.
    assert (near.decision == everywhere.decision).mean() >= 0.9999
    apart = np.abs(near.depth - everywhere.depth)[near.decision == everywhere.decision]
    assert apart.max() < 1e-4
    assert np.abs(near.fused.astype(float) - everywhere.fused).mean() < 0.01
    assert pixels < 0.9 * sum(computed)


def test_shares_are_the_same_wherever_a_region_begins_and_ends() -> None:
    point = point_of(noisy().stack)
    whole = shares_of(point, Rectangle(0, HIGH, 0, WIDE))
    for core in ((64, 170), (37, 53)):
        for region in list(TilePlan(HIGH, WIDE, core))[::3]:
            np.testing.assert_allclose(
                shares_of(point, region), whole[:, *region.slices], atol=2e-5
            )


def test_reversing_the_slices_reverses_the_network_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    side = 2 * BLOCK * (NETWORK_HALO + 3)
    focus = torch.rand(1, 7, len(SCALES), side, side, generator=generator)
    intensity = torch.rand(1, 7, side, side, generator=generator)
    network = load_surface()
    with torch.inference_mode():
        forwards = coarse_features(focus, intensity)
        backwards = coarse_features(focus.flip(1), intensity.flip(1))
        assert forwards.shape[2] == INPUTS
        torch.testing.assert_close(
            network(backwards).along_z.flip(1),
            network(forwards).along_z,
            rtol=0,
            atol=2e-5,
        )
        torch.testing.assert_close(
            network(backwards).presence, network(forwards).presence, rtol=0, atol=2e-5
        )


def test_pixels_that_do_not_count_do_not_change_the_focus_measure() -> None:
    generator = torch.Generator().manual_seed(1)
    planes = torch.rand(2, 64, 72, generator=generator)
    counts = torch.ones(planes.shape, dtype=torch.bool)
    counts[0, 20:31, 40:43] = False
    changed = torch.where(counts, planes, 100.0)
    found, _ = focus_of(changed, counts)
    known = focus_of(planes, counts)[0]
    torch.testing.assert_close(found, known, equal_nan=True)
    everywhere, _ = focus_of(planes)
    assert found.shape == everywhere.shape == (2, len(SCALES), 14, 16)
    torch.testing.assert_close(found[1], everywhere[1])
    far = torch.ones(14, 16, dtype=torch.bool)
    rows = slice((20 - 3 * FOCUS_HALO) // 4, (31 + FOCUS_HALO) // 4 + 1)
    far[rows, (40 - 3 * FOCUS_HALO) // 4 : (43 + FOCUS_HALO) // 4 + 1] = False
    torch.testing.assert_close(found[0][:, far], everywhere[0][:, far])


def test_reversing_a_stack_reverses_its_maps() -> None:
    stack = noisy().stack
    there = fuse(stack, "sml", surface=1.0, blend="select")
    back = fuse(stack[::-1], "sml", surface=1.0, blend="select")
    same = there.decision == 7 - back.decision
    assert same.mean() > 0.999
    np.testing.assert_array_equal(there.fused[same], back.fused[same])
    np.testing.assert_allclose(there.depth[same], 7 - back.depth[same], atol=1e-2)
    np.testing.assert_allclose(there.confidence, back.confidence, atol=1e-3)


@pytest.mark.parametrize("make", [lambda: "sml", random_sesf, energy_reconstructor])
def test_in_noise_the_depth_is_nearer_to_the_truth(make: Any) -> None:
    scene = noisy()
    errors = []
    for strength in (0.0, 1.0):
        result = fuse(scene.stack, make(), surface=strength)
        errors.append(np.abs(result.depth - scene.depth)[scene.textured].mean())
    assert errors[1] < 0.85 * errors[0]


def test_on_benchmark_scenes_the_plain_measure_gains() -> None:
    """Scenes that no training has used; the card has the means over all of them."""
    names = {"relief-dark", "steep", "deep-relief", "fluorescence-deep"}
    scenes = [spec for spec in benchmark_scenes() if spec.name in names]
    assert len(scenes) == len(names)
    for spec in scenes:
        scene = spec.make()
        errors = []
        for strength in (0.0, 1.0):
            result = fuse(scene.stack, "sml", axes=scene.axes, surface=strength)
            errors.append(np.abs(result.depth - scene.depth)[scene.textured].mean())
        assert errors[1] < 0.9 * errors[0], spec.name


def test_confidence_promises_no_more_than_the_decision_keeps() -> None:
    """A decision is right to one slice at least as often as its confidence says."""
    found = []
    for seed in range(4):
        scene = noisy(12, 1_000_017 + seed)
        result = fuse(scene.stack, "sml", surface=1.0)
        near = np.abs(result.decision - scene.depth) <= 1
        found.append((near[scene.textured], result.confidence[scene.textured]))
    right, stated = map(np.concatenate, zip(*found, strict=True))
    least, most = (right[stated < 0.5].mean(), right[stated >= 0.8].mean())
    assert most > 0.9 and most > least + 0.15
    for low in (0.2, 0.4, 0.6, 0.8):
        those = (stated >= low) & (stated < low + 0.2)
        assert right[those].mean() > stated[those].mean() - 0.05
    assert abs(right.mean() - stated.mean()) < 0.2


@pytest.mark.parametrize("slices", [1, 2])
def test_without_a_surface_to_find_nothing_changes(slices: int) -> None:
    stack = noisy().stack[:slices]
    same_result(
        fuse(stack, "sml", axes="ZYX", surface=1.0),
        fuse(stack, "sml", axes="ZYX", surface=0.0),
    )


def test_a_given_map_is_not_weighted() -> None:
    stack = noisy().stack
    decision = fuse(stack, "sml").decision
    same_result(
        fuse(stack, decision=decision, surface=1.0),
        fuse(stack, decision=decision, surface=0.0),
    )


def test_where_there_is_no_detail_at_all_it_does_not_fail() -> None:
    result = fuse(np.full((5, 40, 50), 7, np.uint8), "sml", surface=1.0)
    assert (result.fused == 7).all()


@pytest.mark.parametrize("strength", [-0.1, 4.1, float("nan")])
def test_strengths_that_there_are_not(strength: float) -> None:
    with pytest.raises(FocusFusionError, match="surface="):
        fuse(noisy().stack, "sml", surface=strength)
