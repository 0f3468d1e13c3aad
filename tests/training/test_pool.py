"""Pools of scenes that training draws from."""

from __future__ import annotations

import numpy as np
import torch

from napari_focus_fusion.training.data import make_pool


def test_a_pool_goes_round_its_modalities() -> None:
    one = make_pool(range(3), 4, 48, modalities=("grey", "refractile", "fluorescence"))
    other = make_pool(range(3), 4, 48, modalities=("grey", "grey", "fluorescence"))
    same = [torch.equal(a, b) for a, b in zip(one.slices, other.slices, strict=True)]
    assert same == [True, False, True]


def test_rims_of_thick_cells_have_the_depth_of_what_they_surround() -> None:
    """Where a slice shows detail the depth is known, if the truth is flat there or not.

    A bright rim in the background is out of focus: its true depth must be learnt.
    """
    pool = make_pool(range(4), 8, 64, modalities=("refractile",))
    variance = (pool.slices - pool.slices.mean((2, 3), keepdim=True)).square()
    striking = (variance > 0.05).any(1)
    known = torch.isfinite(pool.depth)
    assert 0.2 < known.float().mean() < 1
    assert known[striking].float().mean() > 0.9
    plain = make_pool(range(4), 8, 64, modalities=("brightfield",))
    assert known.float().mean() > torch.isfinite(plain.depth).float().mean()


def test_processes_draw_the_same_pool() -> None:
    pictures = [np.random.default_rng(k).random((90, 100), np.float32) for k in (0, 1)]
    modalities = ("grey", "coherent", "tissue")
    alone, together = (
        make_pool(
            range(7),
            3,
            48,
            modalities=modalities,
            pictures=pictures,
            processes=processes,
        )
        for processes in (1, 2)
    )
    for name in ("slices", "truth", "depth"):
        one, other = getattr(alone, name), getattr(together, name)
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1)), name
