"""Where two depths show, the one that is preferred."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_focus_fusion import FocusFusionError, fuse
from napari_focus_fusion.simulation.two_depths import TwoDepths, make_two_depths


@pytest.fixture(scope="module")
def films() -> TwoDepths:
    return make_two_depths(9_100_001, "films", shape=(112, 128), slices=8)


def decided(stack: np.ndarray, prefer: str, **options: Any) -> np.ndarray:
    result = fuse(stack, "sml", axes="ZYX", prefer=prefer, device="cpu", **options)
    return np.asarray(result.decision, int)


def test_front_is_nearer_to_the_first_slice_and_back_to_the_last(
    films: TwoDepths,
) -> None:
    stack, both = films.scene.stack, films.both

    def right(prefer: str, depth: np.ndarray) -> float:
        return float((abs(decided(stack, prefer) - depth) <= 1.5)[both].mean())

    front = right("front", films.front)
    assert front > 0.6 and front > right("sharpest", films.front) + 0.2
    assert right("back", films.back) > 0.85


def test_the_reversed_stack_with_front_and_back_swapped_is_the_reverse(
    films: TwoDepths,
) -> None:
    stack = films.scene.stack
    last = len(stack) - 1
    forwards, backwards = decided(stack, "front"), decided(stack[::-1], "back")
    assert (forwards == last - backwards).mean() > 0.9999


def test_hairs_give_way_to_what_is_behind_them() -> None:
    hairs = make_two_depths(
        9_100_003, "hairs", shape=(112, 128), slices=8, electrons=None
    )
    stack, both = hairs.scene.stack, hairs.both
    right = {
        prefer: (abs(decided(stack, prefer) - hairs.back) <= 1.5)[both].mean()
        for prefer in ("sharpest", "back")
    }
    assert right["back"] > right["sharpest"] + 0.3


def test_regions_do_not_show(films: TwoDepths) -> None:
    stack = np.tile(films.scene.stack, (1, 3, 3))
    whole = fuse(stack, "sml", axes="ZYX", prefer="front", device="cpu")
    parts = fuse(stack, "sml", axes="ZYX", prefer="front", device="cpu", memory="16MB")
    assert (whole.decision == parts.decision).mean() > 0.9999


def test_what_has_no_effect_is_said(films: TwoDepths) -> None:
    pair = films.scene.stack[[1, 6]]
    result = fuse(pair, "sml", axes="ZYX", prefer="back", device="cpu")
    assert any("prefer='back' has no effect" in note for note in result.notes)
    with pytest.raises(FocusFusionError, match="needs the surface"):
        fuse(pair, "sml", axes="ZYX", prefer="back", surface=0)
    with pytest.raises(FocusFusionError, match="sharpest"):
        fuse(pair, "sml", axes="ZYX", prefer="first")
