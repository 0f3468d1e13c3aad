"""SRN: its grid, its tiles, and what it is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_affinity import SMALL, VARIANTS, changed_radius, images, random_model

from napari_focus_fusion.models.affinity_sr import (
    LIGHT,
    AffinitySR,
)
from napari_focus_fusion.models.layers import interpolate, laplacian
from napari_focus_fusion.models.registry import new_model, our_models


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_interpolation_is_that_of_torch_where_it_has_no_end(scale: int) -> None:
    """``antialias`` selects the cubic kernel of Keys; enlarging it changes nothing."""
    image = images(2, 9, 11).double().unflatten(0, (1, 2))[:, :, 0]
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
def test_untrained_it_interpolates(scale: int) -> None:
    model = new_model(our_models()["affinity-sr"])
    assert isinstance(model, AffinitySR)
    colours = images(3).unflatten(0, (1, 3))[:, :, 0]
    found = model.resolve(model.features(colours, scale), scale)
    torch.testing.assert_close(found, interpolate(colours, scale))
    flat = torch.full((1, 1, 20, 20), 0.3)
    found = model.resolve(model.features(flat, scale), scale)
    torch.testing.assert_close(found, torch.full((1, 3, 20 * scale, 20 * scale), 0.3))


@pytest.mark.parametrize(
    "name", ["", "no shallow-deep attention", "no gradient branch"]
)
def test_the_halo_is_how_far_super_resolution_sees(name: str) -> None:
    config = replace(LIGHT if not name else SMALL, **VARIANTS.get(name, {}))
    model = random_model(config).double()
    side = 2 * config.upscale_halo + 7
    image = images(1, side, side).double()
    other = image.clone()
    y, x = side // 2, side // 2 - 1
    other[..., y, x] += 1
    radii = []
    for scale in (2, 3, 4):
        one, two = (
            model.resolve(model.features(i, scale), scale) for i in (image, other)
        )
        changed = (one != two).any(1, keepdim=True).double()
        radii.append(changed_radius(F.max_pool2d(changed, scale)[0, 0], y, x))
    assert max(radii) == config.upscale_halo


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tiles_with_a_halo_are_made_finer_as_the_whole(scale: int) -> None:
    model = random_model()
    halo = model.upscale_halo
    image = images(1, 60, 70)
    whole = model.features(image, scale)
    for y, x, high, wide in ((20, 20, 10, 13), (21, 25, 19, 24)):
        window = (
            ...,
            slice(y - halo, y + high + halo),
            slice(x - halo, x + wide + halo),
        )
        inner = slice(scale * halo, -scale * halo)
        crop = model.features(image[window], scale)[..., inner, inner]
        rows, columns = (
            slice(scale * i, scale * (i + n)) for i, n in ((y, high), (x, wide))
        )
        expected = whole[..., rows, columns]
        torch.testing.assert_close(crop, expected, rtol=0, atol=1e-5)
        resolved = model.resolve(whole, scale)[..., rows, columns]
        # D2 is a 1x1 convolution: no halo on the finer grid.
        torch.testing.assert_close(model.resolve(expected, scale), resolved)


def test_the_gradient_map_is_the_laplacian_of_eight_neighbours() -> None:
    image = images(3, 6, 8).double().unflatten(0, (1, 3))[:, :, 0]
    grey = image.mean(1)[0].numpy()
    found = laplacian(image)[0, 0].numpy()
    expected = 9 * grey[3, 4] - grey[2:5, 3:6].sum()
    assert found[3, 4] == pytest.approx(expected)
    assert not laplacian(torch.ones(1, 3, 5, 5))[0, 0, 1:-1, 1:-1].any()


def test_grey_is_seen_as_colour() -> None:
    model = random_model()
    grey = images(2)
    torch.testing.assert_close(
        model.features(grey, 3), model.features(grey.expand(-1, 3, -1, -1), 3)
    )
