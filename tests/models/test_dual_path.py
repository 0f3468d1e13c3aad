"""Dual-Path: one unrolling for training and for tiles, for any number of slices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import napari_focus_fusion
from napari_focus_fusion import FusionResult, fuse, load_model
from napari_focus_fusion.models.dual_path import (
    STAGES,
    START_RADIUS,
    DualPath,
    gradient_energy,
)
from napari_focus_fusion.models.registry import our_models, weights_folder
from napari_focus_fusion.simulation.scenes import refractile_scenes
from napari_focus_fusion.training.scores import score_of
from small_models import relief

SPEC = our_models()["dual-path"]
HALO = SPEC.halo


def random_dual_path(seed: int = 0) -> DualPath:
    """With weights large enough for every stage to change its mind."""
    torch.manual_seed(seed)
    model = DualPath()
    with torch.no_grad():
        for stage in model.stages:
            stage.logit.weight *= 4
            stage.step += 0.3
    model.spec = SPEC
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> DualPath:
    return random_dual_path(1)


def stack_of(slices: int, side: int = 40, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(slices, 1, side, side, generator=generator)


def whole_and_chunked(model: DualPath, slices: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        *_, last = model.unroll(slices[:, 0][None])
        return last.masks()[0], model.masks(slices)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_slice_by_slice_the_numbers_are_those_of_training(
    model: DualPath, count: int
) -> None:
    whole, chunked = whole_and_chunked(model, stack_of(count))
    torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 33])
def test_masks_lie_on_the_simplex(model: DualPath, count: int) -> None:
    masks = model.masks(stack_of(count))
    assert (masks >= 0).all()
    torch.testing.assert_close(masks.sum(0), torch.ones(40, 40))
    if count > 1:  # and are those of no one
        assert masks.max() > 1.5 / count


def test_stacks_of_one_batch_do_not_see_each_other(model: DualPath) -> None:
    stacks = torch.stack([stack_of(3, seed=seed)[:, 0] for seed in (0, 1)])
    with torch.inference_mode():
        *_, together = model.unroll(stacks)
        for stack, masks in zip(stacks, together.masks(), strict=True):
            alone = model.masks(stack[:, None])
            torch.testing.assert_close(masks, alone, rtol=1e-4, atol=1e-6)


def test_permuting_the_slices_permutes_the_masks(model: DualPath) -> None:
    slices = stack_of(6)
    order = [4, 0, 5, 2, 1, 3]
    masks = model.masks(slices)
    torch.testing.assert_close(
        model.masks(slices[order]), masks[order], rtol=1e-4, atol=1e-6
    )


def test_identical_slices_weigh_the_same(model: DualPath) -> None:
    slices = stack_of(1).expand(5, -1, -1, -1)
    masks = model.masks(slices)
    torch.testing.assert_close(masks, torch.full_like(masks, 0.2))


def test_a_gain_and_an_offset_of_the_whole_stack_change_nothing(
    model: DualPath,
) -> None:
    slices = stack_of(4)
    masks = model.masks(slices)
    inner = (slice(None), slice(HALO, -HALO), slice(HALO, -HALO))
    slices, large = stack_of(4, 80), 5 * stack_of(4, 80) - 2
    masks, scaled = model.masks(slices)[inner], model.masks(large)[inner]
    torch.testing.assert_close(scaled, masks, rtol=0, atol=2e-3)


def test_the_halo_is_how_far_a_pixel_reaches(model: DualPath) -> None:
    slices = stack_of(2, 2 * HALO + 31, 3)
    other = slices.clone()
    y, x = HALO + 15, HALO + 14
    other[0, 0, y, x] += 3
    changed = (model.masks(slices) != model.masks(other)).any(0)
    rows, columns = np.nonzero(changed.numpy())
    assert y - HALO <= rows.min() < y - HALO + 6
    assert y + HALO - 6 < rows.max() <= y + HALO
    assert x - HALO <= columns.min() < x - HALO + 6
    assert x + HALO - 6 < columns.max() <= x + HALO


@pytest.mark.parametrize("offset", [(0, 0), (5, 9), (30, 17)])
def test_windows_with_a_halo_are_the_whole(
    model: DualPath, offset: tuple[int, int]
) -> None:
    slices, (y, x) = stack_of(3, 120), offset
    whole = model.masks(slices)
    high, wide = 11, 24
    crop = model.masks(slices[..., y : y + high + 2 * HALO, x : x + wide + 2 * HALO])[
        :, HALO:-HALO, HALO:-HALO
    ]
    expected = whole[:, y + HALO :, x + HALO :][:, :high, :wide]
    torch.testing.assert_close(crop, expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def untiled() -> FusionResult:
    return fuse(relief(120, 150, 3).stack, random_dual_path(2), tile=512)


@pytest.mark.parametrize("tile", [32, 67, 128])
def test_tiles_are_invisible(tile: int, untiled: FusionResult) -> None:
    model, stack, whole = random_dual_path(2), relief(120, 150, 3).stack, untiled
    tiled = fuse(stack, model, tile=tile)
    same = whole.decision == tiled.decision
    assert same.mean() > 0.9999
    np.testing.assert_allclose(
        tiled.fused[same].astype(float), whole.fused[same].astype(float), atol=1
    )


def test_identical_slices_fuse_to_themselves() -> None:
    plane = relief(60, 70, 3).stack[1]
    result = fuse(np.stack([plane] * 4), random_dual_path(2))
    np.testing.assert_array_equal(result.fused, plane)


def test_reversing_the_slices_reverses_the_decision() -> None:
    model, stack = random_dual_path(2), relief(90, 100, 6).stack
    forward, backward = fuse(stack, model), fuse(stack[::-1], model)
    mirrored = 5 - backward.decision.astype(int)
    same = forward.decision == mirrored
    assert same.mean() > 0.9999


MEMORY = """
import ctypes, json, sys
from pathlib import Path
import torch
from test_dual_path import random_dual_path, stack_of

# Planes are given back as soon as they are freed, and never pile up as holes.
M_MMAP_THRESHOLD = -3
assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 16384)

def memory(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024

model, peaks = random_dual_path(), []
with torch.inference_mode():
    model.masks(stack_of(2, 80))
    for count in (2, 10, 40):
        slices = stack_of(count, 80)
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        model.masks(slices)
        peaks.append(memory("VmHWM") - before)
print(json.dumps(peaks))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="the kernel does not report the peak of a part of a run",
)
def test_memory_holds_planes_of_all_slices_and_features_of_one() -> None:
    here = Path(__file__).parent
    paths = [here, here.parent, Path(napari_focus_fusion.__file__).parents[1]]
    environment = {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    few, some, many = json.loads(done.stdout)
    plane = 80 * 80 * 4
    print(
        f"beyond the slices: {few / plane:.0f}, {some / plane:.0f}, "
        f"{many / plane:.0f} planes of 2, 10 and 40 slices"
    )
    # Logits, and at the end the masks; features would be 16 planes a slice.
    assert many - some < 30 * 3 * plane


def test_a_gradient_is_that_of_sobel() -> None:
    images = torch.rand(2, 3, 12, 15, generator=torch.Generator().manual_seed(0))
    found = gradient_energy(images).numpy()
    for image, energy in zip(
        images.reshape(-1, 12, 15).numpy(), found.reshape(-1, 12, 15), strict=True
    ):
        expected = ndimage.sobel(image, 0) ** 2 + ndimage.sobel(image, 1) ** 2
        np.testing.assert_allclose(
            energy[1:-1, 1:-1], expected[1:-1, 1:-1] / 64, rtol=1e-4
        )
        assert not energy[0].any()
        assert not energy[:, -1].any()


def test_the_start_alone_is_the_plain_measure() -> None:
    """With networks that output zero, the masks are powers of the gradient energy."""
    model = random_dual_path()
    for stage in model.stages:
        stage.logit.weight.zero_()
        stage.logit.bias.zero_()
        stage.step.zero_()
    slices = stack_of(4, 30)
    energy = gradient_energy(slices[:, 0]).numpy()
    size = 2 * START_RADIUS + 1
    mean = ndimage.uniform_filter(energy, (0, size, size), mode="constant")
    powers = mean.astype(float) ** float(model.sharpness)
    expected = powers / powers.sum(0)
    np.testing.assert_allclose(model.masks(slices).numpy(), expected, atol=1e-3)


def test_the_predictor_never_sees_what_is_hidden() -> None:
    model = random_dual_path(4)
    slices = stack_of(3, 33)[:, 0][None]
    generator = torch.Generator().manual_seed(7)
    visible = (torch.rand(1, 1, 33, 33, generator=generator) < 0.6).float()
    mask, other = (
        torch.rand(1, 3, 33, 33, generator=generator).softmax(1) for _ in range(2)
    )
    other = torch.where(visible > 0, mask, other)
    assert torch.equal(
        model.predictor(slices, mask, visible), model.predictor(slices, other, visible)
    )
    # What is visible does matter.
    flipped = mask.flip(1)
    assert not torch.allclose(
        model.predictor(slices, mask, visible),
        model.predictor(slices, flipped, visible),
    )


def test_the_predictor_permutes_with_the_slices() -> None:
    model, order = random_dual_path(4), [2, 0, 3, 1]
    slices = stack_of(4, 30)[:, 0][None]
    mask, visible = slices.softmax(1), (slices[:, :1] > 0.4).float()
    predicted = model.predictor(slices, mask, visible)
    permuted = model.predictor(slices[:, order], mask[:, order], visible)
    torch.testing.assert_close(permuted, predicted[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dual-path", "dual-path-brightfield"])
def test_the_shipped_weights_are_those_on_their_card(name: str) -> None:
    network = load_model(name)
    card = json.loads((weights_folder() / f"{name}.json").read_text())
    assert network.weights_hash == card["sha256"]
    assert card["model"] == name
    assert len(network.stages) == STAGES
    assert not any(p.requires_grad for p in network.parameters())
    scores = card["scores"]
    assert (
        scores["trained"]["psnr"] > scores["untrained"]["psnr"] > scores["sml"]["psnr"]
    )


def test_the_weights_for_brightfield_know_refraction() -> None:
    """Cell rims that look sharp cause less error than with a plain focus measure."""
    spec = next(s for s in refractile_scenes() if s.name == "tilt, 10 slices, clean")
    scene = spec.make()
    names = ("dual-path-brightfield", "dual-path", "sml")
    # Without the help of a surface, which is the same for all.
    found = []
    for name in names:
        result = fuse(scene.stack, load_model(name), axes=scene.axes, surface=0)
        found.append(score_of(scene, result.fused, result.depth))
    own, general, plain = (scores["psnr"] for scores in found)
    assert own > general + 3 and own > plain + 0.5
