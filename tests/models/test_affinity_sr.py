"""affinity-sr: what its parts do together, and its sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_affinity import OF_MASKS, SMALL, VARIANTS, images, random_model
from torch import Tensor, nn

from napari_focus_fusion.models.affinity import Gates
from napari_focus_fusion.models.affinity_sr import (
    FULL,
    LIGHT,
    AffinitySR,
    AffinitySRConfig,
)
from napari_focus_fusion.models.registry import our_models


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("config", [LIGHT, replace(FULL, width=6, blocks=1, growth=4)])
def test_mirrored_kernels_see_the_mirrored_picture(
    config: AffinitySRConfig, axis: int, scale: int
) -> None:
    """So nothing is shifted: a kernel off the centre would go the other way."""
    model, mirrored = (random_model(config).double() for _ in "12")
    for parameter in mirrored.parameters():
        if parameter.ndim == 4:
            parameter.copy_(parameter.flip(axis))
    a, b = images(2, 18, 15).double().chunk(2)

    def fused(network: AffinitySR, image: Tensor) -> Tensor:
        return network.resolve(network.features(image, scale), scale)

    found = fused(mirrored, a.flip(axis)).flip(axis)
    torch.testing.assert_close(found, fused(model, a))
    if scale == 2:
        gates = Gates(*torch.rand(2, 3).double())
        found = mirrored.mask(a.flip(axis), b.flip(axis), gates).flip(axis)
        torch.testing.assert_close(found, model.mask(a, b, gates))


def test_the_registry_knows_the_halo() -> None:
    assert our_models()["affinity-sr"].halo == LIGHT.focus_halo
    assert AffinitySR.upscale_halo == LIGHT.upscale_halo
    assert AffinitySR(SMALL).upscale_halo == SMALL.upscale_halo < LIGHT.upscale_halo


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_makes_a_difference(name: str) -> None:
    """The same weights with and without it."""
    model, without = (random_model(replace(SMALL, **c)) for c in ({}, VARIANTS[name]))
    shapes = {key: value.shape for key, value in without.state_dict().items()}
    shared = {k: v for k, v in model.state_dict().items() if shapes.get(k) == v.shape}
    without.load_state_dict(shared, strict=False)
    a, b = (images(2) - 0.5).chunk(2)
    sample = [a, b]
    masks = [m.mask(a, b, m.context(sample)) for m in (model, without)]
    finer = [m.resolve(m.features(a, 2), 2) for m in (model, without)]
    same = [torch.allclose(*pair, atol=1e-4) for pair in (masks, finer)]
    assert same == ([False, True] if name in OF_MASKS else [True, False])


@pytest.mark.parametrize("scale", [2, 3])
def test_fusing_takes_the_slice_that_the_masks_say(scale: int) -> None:
    """Eq. 15, divided by the masks' sum."""
    model = random_model()
    slices = images(4).unflatten(0, (2, 2))
    masks = torch.zeros(2, 2, 40, 44)
    masks[0, 0] = masks[1, 1] = 0.2
    fused = model.fuse(slices, masks, scale)
    chosen = torch.stack([slices[0, 0], slices[1, 1]])
    expected = model.resolve(model.features(chosen, scale), scale)
    torch.testing.assert_close(fused, expected)
    both = model.fuse(slices, torch.ones_like(masks), scale)
    halves = model.features(slices.flatten(0, 1), scale).unflatten(0, (2, 2)).mean(1)
    torch.testing.assert_close(both, model.resolve(halves, scale))


def test_the_full_network_has_the_sizes_of_the_release() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    network = AffinitySR(replace(FULL, scales=(2,)))
    assert count(network.fapn) == pytest.approx(1.24e6, rel=0.01)
    assert count(network.srn) == pytest.approx(1.59e6, rel=0.01)
    assert len(network.fapn.refine) == len(network.srn.blocks) == 10
    light = AffinitySR()
    assert count(light.fapn) < 60_000 and count(light.srn) < 120_000
