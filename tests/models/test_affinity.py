"""FAPN: its parts against the paper's formulas, and its tiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_affinity import (
    OF_MASKS,
    SMALL,
    VARIANTS,
    changed_radius,
    images,
    random_model,
)

from napari_focus_fusion.models.affinity import Gates, row_products
from napari_focus_fusion.models.affinity_sr import (
    LIGHT,
)
from napari_focus_fusion.models.registry import our_models


@pytest.mark.parametrize("name", ["", *OF_MASKS])
def test_the_halo_is_how_far_a_mask_sees(name: str) -> None:
    config = replace(LIGHT if not name else SMALL, **VARIANTS.get(name, {}))
    model = random_model(config).double()
    side = 2 * config.focus_halo + 11
    a, b = images(2, side, side).double().chunk(2)
    gates = Gates(*torch.rand(2, 3).double())
    before = model.mask(a, b, gates)
    a, b = a.clone(), b.clone()
    y, x = side // 2, side // 2 + 1
    a[..., y, x] += 1
    b[..., y, x] -= 1
    changed = (model.mask(a, b, gates) != before)[0]
    assert changed_radius(changed, y, x) == config.focus_halo


def test_tiles_with_a_halo_mask_as_the_whole() -> None:
    model = random_model()
    halo = our_models()["affinity-sr"].halo
    a, b = images(2, 100, 130).chunk(2)
    context = model.context([a, b])
    whole = model.mask(a, b, context)
    for y, x, high, wide in ((35, 35, 20, 31), (40, 61, 25, 34)):
        window = (
            ...,
            slice(y - halo, y + high + halo),
            slice(x - halo, x + wide + halo),
        )
        crop = model.mask(a[window], b[window], context)[:, halo:-halo, halo:-halo]
        expected = whole[:, y : y + high, x : x + wide]
        torch.testing.assert_close(crop, expected, rtol=0, atol=1e-5)


def test_row_products_of_a_small_picture_are_the_papers() -> None:
    """Eq. 4 with windows that contain the whole image: products of matrices."""
    maps = images(2, 5, 7).double()
    first, second = maps.chunk(2)
    half_width, rows = 8, 6
    one, two = first[0, 0].numpy(), second[0, 0].numpy()
    resemblance = two @ one.T
    area = (2 * half_width + 1) * (2 * rows + 1)
    found = row_products(first, second, half_width, rows)[0].numpy() * area
    # Where all columns lie in the window: every one of seven.
    np.testing.assert_allclose(found[0], resemblance @ one)
    np.testing.assert_allclose(found[1], resemblance @ two)


def test_row_products_look_at_windows_alone() -> None:
    first, second = images(2, 20, 30).double().chunk(2)
    one, two = first[0, 0].numpy(), second[0, 0].numpy()
    found = row_products(first, second, 3, 2)[0, :, 9, 14].numpy()
    expected = np.zeros(2)
    for j in range(7, 12):
        similarity = (two[9, 11:18] * one[j, 11:18]).sum() / (7 * 5)
        expected += similarity * np.array([one[j, 14], two[j, 14]])
    np.testing.assert_allclose(found, expected)


def test_channel_attention_takes_its_gates_from_the_means() -> None:
    """Eq. 6 for one pair: what the mean over both images gives."""
    model = random_model()
    a, b = images(2).chunk(2)
    pair = torch.cat([a, b])
    alone = model.fapn.enhance(pair)
    near, far, _ = model.fapn._affine(pair)
    maps = model.fapn._attend(near, far)
    means = torch.stack([m.mean((0, 2, 3)) for m in maps])
    gates = Gates(*(cam(m) for cam, m in zip(model.fapn.channel, means, strict=True)))
    given = model.fapn.enhance(pair, gates)
    for mine, theirs in zip(alone, given, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert all(((gate > 0) & (gate < 1)).all() for gate in gates)


def test_the_statistics_do_not_depend_on_the_order_of_the_slices() -> None:
    model = random_model()
    sample = [images(2, 30, 30, seed) for seed in range(6)]
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
