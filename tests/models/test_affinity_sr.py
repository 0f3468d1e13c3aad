"""affinity-sr: its parts against the paper's formulas, its tiles, its grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.models.affinity_sr import (
    FULL,
    LIGHT,
    AffinitySR,
    AffinitySRConfig,
    Gates,
    interpolate,
    laplacian,
    row_products,
)
from napari_focus_fusion.models.registry import new_model, our_models

SMALL = AffinitySRConfig(
    path=(4,),
    branch=(3,),
    reach=3,
    rows=2,
    near=(4, 6),
    far=(4, 5),
    refine=2,
    width=6,
    growth=4,
    dense=1,
    blocks=2,
    embed=(4,),
    fine=(5,),
)
#: The paper's tables II and IV, and our own choices: what is left out or changed.
VARIANTS = {
    "no affinity": {"affinity": False},
    "no attention": {"attention": ()},
    "no channel attention": {"attention": ("spatial",)},
    "no spatial attention": {"attention": ("channel",)},
    "channel attention first": {"attention": ("channel", "spatial")},
    "no refinement": {"refine": 0},
    "no shallow-deep attention": {"shallow_deep": False},
    "no gradient branch": {"gradient": False},
    "no interpolation": {"skip": False},
    "rectified": {"rectify": True},
}
OF_MASKS = list(VARIANTS)[:6]


def random_model(config: AffinitySRConfig = LIGHT, seed: int = 0) -> AffinitySR:
    """Random weights everywhere, and running statistics as training leaves them."""
    torch.manual_seed(seed)
    model = AffinitySR(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                if not module.weight.any():
                    nn.init.normal_(module.weight, 0, 0.1)
                assert module.bias is not None
                nn.init.uniform_(module.bias, -0.1, 0.1)
        if model.fapn.normalise is not None:
            model.fapn.normalise.running_mean.uniform_(0.4, 0.7)
            model.fapn.normalise.running_var.uniform_(0.05, 0.2)
    return model.eval().requires_grad_(False)


def pictures(count: int, height: int = 40, width: int = 44, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, height, width, generator=generator)


# --- The grid: nothing moves


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_interpolation_is_that_of_torch_where_it_has_no_end(scale: int) -> None:
    """``antialias`` selects the cubic kernel of Keys; enlarging it changes nothing."""
    image = pictures(2, 9, 11).double().unflatten(0, (1, 2))[:, :, 0]
    size = [scale * n for n in image.shape[-2:]]
    expected = F.interpolate(image, size, mode="bicubic", antialias=True)
    found = interpolate(image, scale)
    inner = (..., slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
    torch.testing.assert_close(found[inner], expected[inner])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_interpolation_puts_a_ramp_where_it_is(scale: int) -> None:
    y = torch.arange(12, dtype=torch.float64)
    image = (y[:, None] - 3 * y[None, :])[None, None]
    fine = (torch.arange(12 * scale, dtype=torch.float64) + 0.5) / scale - 0.5
    expected = fine[:, None] - 3 * fine[None, :]
    inner = slice(2 * scale, -2 * scale)
    found = interpolate(image, scale)[0, 0, inner, inner]
    torch.testing.assert_close(found, expected[inner, inner])


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
    a, b = pictures(2, 18, 15).double().chunk(2)

    def picture(network: AffinitySR, image: Tensor) -> Tensor:
        return network.resolve(network.features(image, scale), scale)

    found = picture(mirrored, a.flip(axis)).flip(axis)
    torch.testing.assert_close(found, picture(model, a))
    if scale == 2:
        gates = Gates(*torch.rand(2, 3).double())
        found = mirrored.mask(a.flip(axis), b.flip(axis), gates).flip(axis)
        torch.testing.assert_close(found, model.mask(a, b, gates))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_untrained_it_interpolates(scale: int) -> None:
    model = new_model(our_models()["affinity-sr"])
    assert isinstance(model, AffinitySR)
    colours = pictures(3).unflatten(0, (1, 3))[:, :, 0]
    found = model.resolve(model.features(colours, scale), scale)
    torch.testing.assert_close(found, interpolate(colours, scale))
    flat = torch.full((1, 1, 20, 20), 0.3)
    found = model.resolve(model.features(flat, scale), scale)
    torch.testing.assert_close(found, torch.full((1, 3, 20 * scale, 20 * scale), 0.3))


# --- Tiles


def reach_of(changed: Tensor, y: int, x: int) -> int:
    """How far from (y, x) a map (h, w) has changed."""
    rows, columns = np.nonzero(changed.numpy())
    far = (y - rows.min(), rows.max() - y, x - columns.min(), columns.max() - x)
    return int(max(far))


@pytest.mark.parametrize("name", ["", *OF_MASKS])
def test_the_halo_is_how_far_a_mask_sees(name: str) -> None:
    config = replace(LIGHT if not name else SMALL, **VARIANTS.get(name, {}))
    model = random_model(config).double()
    side = 2 * config.focus_halo + 11
    a, b = pictures(2, side, side).double().chunk(2)
    gates = Gates(*torch.rand(2, 3).double())
    before = model.mask(a, b, gates)
    a, b = a.clone(), b.clone()
    y, x = side // 2, side // 2 + 1
    a[..., y, x] += 1
    b[..., y, x] -= 1
    changed = (model.mask(a, b, gates) != before)[0]
    assert reach_of(changed, y, x) == config.focus_halo


def test_the_registry_knows_the_halo() -> None:
    assert our_models()["affinity-sr"].halo == LIGHT.focus_halo
    assert AffinitySR.upscale_halo == LIGHT.upscale_halo
    assert AffinitySR(SMALL).upscale_halo == SMALL.upscale_halo < LIGHT.upscale_halo


@pytest.mark.parametrize(
    "name", ["", "no shallow-deep attention", "no gradient branch"]
)
def test_the_halo_is_how_far_super_resolution_sees(name: str) -> None:
    config = replace(LIGHT if not name else SMALL, **VARIANTS.get(name, {}))
    model = random_model(config).double()
    side = 2 * config.upscale_halo + 7
    image = pictures(1, side, side).double()
    other = image.clone()
    y, x = side // 2, side // 2 - 1
    other[..., y, x] += 1
    reached = []
    for scale in (2, 3, 4):
        one, two = (
            model.resolve(model.features(i, scale), scale) for i in (image, other)
        )
        changed = (one != two).any(1, keepdim=True).double()
        reached.append(reach_of(F.max_pool2d(changed, scale)[0, 0], y, x))
    assert max(reached) == config.upscale_halo


def test_tiles_with_a_halo_mask_as_the_whole() -> None:
    model = random_model()
    halo = our_models()["affinity-sr"].halo
    a, b = pictures(2, 100, 130).chunk(2)
    context = model.context([a, b])
    whole = model.mask(a, b, context)
    for y, x, high, wide in ((35, 35, 20, 31), (40, 61, 25, 34)):
        window = (
            ...,
            slice(y - halo, y + high + halo),
            slice(x - halo, x + wide + halo),
        )
        part = model.mask(a[window], b[window], context)[:, halo:-halo, halo:-halo]
        expected = whole[:, y : y + high, x : x + wide]
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tiles_with_a_halo_are_made_finer_as_the_whole(scale: int) -> None:
    model = random_model()
    halo = model.upscale_halo
    image = pictures(1, 60, 70)
    whole = model.features(image, scale)
    for y, x, high, wide in ((20, 20, 10, 13), (21, 25, 19, 24)):
        window = (
            ...,
            slice(y - halo, y + high + halo),
            slice(x - halo, x + wide + halo),
        )
        rim = slice(scale * halo, -scale * halo)
        part = model.features(image[window], scale)[..., rim, rim]
        rows, columns = (
            slice(scale * i, scale * (i + n)) for i, n in ((y, high), (x, wide))
        )
        expected = whole[..., rows, columns]
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-5)
        resolved = model.resolve(whole, scale)[..., rows, columns]
        # D2 sees single pixels: no halo on the finer grid.
        torch.testing.assert_close(model.resolve(expected, scale), resolved)


def test_the_statistics_do_not_know_the_order_of_the_slices() -> None:
    model = random_model()
    sample = [pictures(2, 30, 30, seed) for seed in range(6)]
    first = model.context(sample)
    other = model.context([sample[i] for i in (3, 0, 5, 1, 4, 2)])
    assert first is not None and other is not None
    for mine, theirs in zip(first, other, strict=True):
        assert torch.equal(mine, theirs)
    # Of random networks some have no hidden unit that answers.
    changed = []
    for seed in range(6):
        model = random_model(seed=seed)
        here = model.context(sample)
        elsewhere = model.context([3 * planes for planes in sample])
        assert here is not None and elsewhere is not None
        changed += [
            not torch.allclose(a, b, rtol=1e-4)
            for a, b in zip(here, elsewhere, strict=True)
        ]
    assert any(changed)


# --- The parts


def test_row_products_of_a_small_picture_are_the_papers() -> None:
    """Eq. 4 with windows that hold the whole picture: products of matrices."""
    maps = pictures(2, 5, 7).double()
    first, second = maps.chunk(2)
    reach, rows = 8, 6
    one, two = first[0, 0].numpy(), second[0, 0].numpy()
    resemblance = two @ one.T
    area = (2 * reach + 1) * (2 * rows + 1)
    found = row_products(first, second, reach, rows)[0].numpy() * area
    # Where all columns lie within reach: every one of seven.
    np.testing.assert_allclose(found[0], resemblance @ one)
    np.testing.assert_allclose(found[1], resemblance @ two)


def test_row_products_look_at_windows_alone() -> None:
    first, second = pictures(2, 20, 30).double().chunk(2)
    one, two = first[0, 0].numpy(), second[0, 0].numpy()
    found = row_products(first, second, 3, 2)[0, :, 9, 14].numpy()
    expected = np.zeros(2)
    for j in range(7, 12):
        similarity = (two[9, 11:18] * one[j, 11:18]).sum() / (7 * 5)
        expected += similarity * np.array([one[j, 14], two[j, 14]])
    np.testing.assert_allclose(found, expected)


def test_the_gradient_map_is_the_laplacian_of_eight_neighbours() -> None:
    image = pictures(3, 6, 8).double().unflatten(0, (1, 3))[:, :, 0]
    grey = image.mean(1)[0].numpy()
    found = laplacian(image)[0, 0].numpy()
    expected = 9 * grey[3, 4] - grey[2:5, 3:6].sum()
    assert found[3, 4] == pytest.approx(expected)
    assert not laplacian(torch.ones(1, 3, 5, 5))[0, 0, 1:-1, 1:-1].any()


def test_channel_attention_takes_its_gates_from_the_means() -> None:
    """Eq. 6 for one pair: what the mean over both images gives."""
    model = random_model()
    a, b = pictures(2).chunk(2)
    images = torch.cat([a, b])
    alone = model.fapn.enhance(images)
    near, far, _ = model.fapn._affine(images)
    maps = model.fapn._attend(near, far)
    means = torch.stack([m.mean((0, 2, 3)) for m in maps])
    gates = Gates(*(cam(m) for cam, m in zip(model.fapn.channel, means, strict=True)))
    given = model.fapn.enhance(images, gates)
    for mine, theirs in zip(alone, given, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert all(((gate > 0) & (gate < 1)).all() for gate in gates)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_makes_a_difference(name: str) -> None:
    """The same weights with and without it."""
    model, without = (random_model(replace(SMALL, **c)) for c in ({}, VARIANTS[name]))
    shapes = {key: value.shape for key, value in without.state_dict().items()}
    shared = {k: v for k, v in model.state_dict().items() if shapes.get(k) == v.shape}
    without.load_state_dict(shared, strict=False)
    a, b = (pictures(2) - 0.5).chunk(2)
    sample = [a, b]
    masks = [m.mask(a, b, m.context(sample)) for m in (model, without)]
    finer = [m.resolve(m.features(a, 2), 2) for m in (model, without)]
    same = [torch.allclose(*pair, atol=1e-4) for pair in (masks, finer)]
    assert same == ([False, True] if name in OF_MASKS else [True, False])


def test_grey_is_seen_as_colour() -> None:
    model = random_model()
    grey = pictures(2)
    torch.testing.assert_close(
        model.features(grey, 3), model.features(grey.expand(-1, 3, -1, -1), 3)
    )


@pytest.mark.parametrize("scale", [2, 3])
def test_fusing_takes_the_slice_that_the_masks_say(scale: int) -> None:
    """Eq. 15, divided by the masks' sum."""
    model = random_model()
    slices = pictures(4).unflatten(0, (2, 2))
    masks = torch.zeros(2, 2, 40, 44)
    masks[0, 0] = masks[1, 1] = 0.2
    fused = model.fuse(slices, masks, scale)
    chosen = torch.stack([slices[0, 0], slices[1, 1]])
    expected = model.resolve(model.features(chosen, scale), scale)
    torch.testing.assert_close(fused, expected)
    both = model.fuse(slices, torch.ones_like(masks), scale)
    halves = model.features(slices.flatten(0, 1), scale).unflatten(0, (2, 2)).mean(1)
    torch.testing.assert_close(both, model.resolve(halves, scale))


# --- The paper's sizes


def test_the_full_network_has_the_sizes_of_the_release() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    network = AffinitySR(replace(FULL, scales=(2,)))
    assert count(network.fapn) == pytest.approx(1.24e6, rel=0.01)
    assert count(network.srn) == pytest.approx(1.59e6, rel=0.01)
    assert len(network.fapn.refine) == len(network.srn.blocks) == 10
    light = AffinitySR()
    assert count(light.fapn) < 60_000 and count(light.srn) < 120_000
