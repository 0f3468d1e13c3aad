"""Resynthesised stacks: their depth is true, their noise is that of the stack."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_focus_fusion.filters import box_mean
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.simulation.scenes import make_scene
from napari_focus_fusion.training.resynthesis import (
    COUNT,
    denoised,
    noise_of,
    resynthesised_batch,
    resynthesised_stack,
    sharpest,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def leaves(electrons: float | None, slices: int = 5) -> tuple[Tensor, Tensor]:
    """Slices and truth of a scene, full scale 1."""
    scene = make_scene(
        910_001,
        shape=(96, 112),
        slices=slices,
        surface="relief",
        content="leaves",
        electrons=electrons,
        read_noise=2.0,
        offset=0.0,
        exposure=0.9,
        blur_per_slice=1.5,
        dtype=np.float32,
    )
    return torch.from_numpy(scene.stack), torch.from_numpy(scene.truth)


@pytest.mark.parametrize("electrons", [200.0, 5_000.0])
@pytest.mark.parametrize("slices", [2, 8])
def test_the_noise_is_found_in_the_picture(electrons: float, slices: int) -> None:
    """The camera's variance is (I * E + r^2) / E^2."""
    noisy, _ = leaves(electrons, slices)
    gain, floor = noise_of(noisy)
    brightness = float(noisy.mean())
    found = floor + gain * brightness
    expected = (brightness * electrons + 2.0**2) / electrons**2
    assert found == pytest.approx(expected, rel=0.3)


def test_bright_places_have_more_shot_noise() -> None:
    noisy, _ = leaves(200.0)
    gain, _ = noise_of(noisy)
    assert gain == pytest.approx(1 / 200, rel=0.4)
    even = noisy.mean() + 0.05 * torch.randn(noisy.shape, generator=generator())
    gain, floor = noise_of(even)
    assert floor + gain * float(even.mean()) == pytest.approx(0.05**2, rel=0.2)
    assert gain * float(even.std()) < 0.2 * floor


def test_freed_of_noise_the_content_is_nearer_to_the_truth() -> None:
    noisy, truth = leaves(100.0)
    taken = sharpest(noisy)
    freed = denoised(taken, *noise_of(noisy))
    before, after = ((a - truth).square().mean() for a in (taken, freed))
    assert after < 0.75 * before


def test_the_sharpest_slice_is_found_denoised() -> None:
    clean, truth = leaves(None)
    error = (sharpest(clean) - truth).square().mean()
    assert error < 0.2 * min((plane - truth).square().mean() for plane in clean)


def test_at_its_depth_the_content_is_itself() -> None:
    """Where a terrace lies in a slice, this slice shows the content unchanged."""
    noisy, _ = leaves(4_000.0)
    seen = 0
    for seed in range(8):
        batch = resynthesised_batch(noisy[None], generator(seed))
        depth, truth = batch.depth[0], batch.truth[0]
        for z in range(COUNT):
            here = (depth - z).abs() < 1e-3
            seen += int(here.sum())
            assert torch.allclose(batch.clean[0, z][here], truth[here], atol=2e-3)
    assert seen > 0


def test_denoised_a_plain_measure_finds_the_depth() -> None:
    clean, _ = leaves(None)
    measure = SumModifiedLaplacian()
    errors = []
    for seed in range(6):
        noisy, depth = resynthesised_stack(clean[None], generator(seed))
        score = box_mean(measure.score(noisy[0][:, None]), 4)
        error = (score.argmax(0) - depth[0, 4:-4, 4:-4]).abs()
        errors.append(float(error.nanmean()))
    # Half a slice is lost to rounding, some to edges of terraces and to refraction.
    assert np.mean(errors) < 0.75


def test_the_noise_is_as_strong_as_in_the_slices() -> None:
    noisy, _ = leaves(300.0)
    gain, floor = noise_of(noisy)
    for seed in range(4):
        batch = resynthesised_batch(noisy[None], generator(seed))
        found = (batch.noisy - batch.clean).square().mean()
        wanted = floor + gain * float(batch.clean.mean())
        assert 0.7 < found / wanted < 1.4


def test_pictures_without_detail_teach_nothing() -> None:
    blank = 0.5 + 0.02 * torch.randn(1, 4, 64, 64, generator=generator())
    _, depth = resynthesised_stack(blank, generator())
    assert torch.isnan(depth).float().mean() > 0.95


def test_the_same_generator_makes_the_same_stacks() -> None:
    noisy, _ = leaves(1_000.0)
    pair = torch.stack([noisy[:3, :50, :61], noisy[:3, 40:90, 30:91]])
    first, second, other = (
        resynthesised_batch(pair, generator(seed)) for seed in (1, 1, 2)
    )
    for name in ("noisy", "clean", "truth", "depth"):
        mine, theirs = getattr(first, name), getattr(second, name)
        assert torch.equal(mine.nan_to_num(), theirs.nan_to_num())
    assert first.step == second.step != other.step
    assert not torch.equal(first.noisy, other.noisy)
    assert first.noisy.shape == (2, COUNT, 50, 61)
    known = first.depth[torch.isfinite(first.depth)]
    assert known.min() >= 0
    assert known.max() <= COUNT - 1
