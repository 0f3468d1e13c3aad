"""Patterns that repeat, and slices that no displacement makes more alike."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from moving_slices import grain

from napari_focus_fusion import register

SIDES = 120, 140
PERIOD = 12


def pattern(step: float, lattice: bool) -> np.ndarray:
    y, x = np.mgrid[: SIDES[0], : SIDES[1]] * (2 * np.pi / PERIOD)
    across = np.sin(y) if lattice else 1
    noise = np.random.default_rng(0).normal(0, 20, (3, *SIDES))
    moved = [np.sin(x - 2 * np.pi * step * z) * across for z in range(3)]
    return (1000 + 300 * np.stack(moved) + noise).astype(np.uint16)


@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("step", [0.2, 0.6])
def test_that_a_pattern_repeats_is_said(step: float, lattice: bool) -> None:
    found = register(pattern(step, lattice), "translation", axes="ZYX")
    period = round(PERIOD / 2**0.5) if lattice else PERIOD  # along its diagonal
    assert any(f"repeats every {period} pixels" in note for note in found.notes)
    if step < 0.5:
        columns = found.matrices[0, :, 1, 2]
        expected = step * PERIOD * (np.arange(3) - 1)
        np.testing.assert_allclose(columns, expected, atol=0.2)


def test_texture_does_not_repeat() -> None:
    plane = grain()
    slices = np.stack([plane[40:160, 40 + 2 * z : 180 + 2 * z] for z in range(3)])
    found = register(slices, "translation", axes="ZYX")
    assert found.notes == ()
    np.testing.assert_allclose(found.matrices[0, :, 1, 2], [2, 0, -2], atol=0.1)


def test_domes_whose_outlines_grow_with_depth_are_left_as_they_are() -> None:
    folder = os.environ.get("FOCUS_FUSION_DATA")
    path = Path(folder or "", "envelope14", "stack.tif")
    if folder is None or not path.exists():
        pytest.skip("no folder of real stacks")
    assert register(path, "translation").largest_displacement == 0
