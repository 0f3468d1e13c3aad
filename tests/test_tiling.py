"""Properties of the cut of a plane into tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_focus_fusion.tiling import TilePlan, even_split, evenly_spread

sides = st.integers(1, 70)
plans = st.builds(
    TilePlan,
    height=sides,
    width=sides,
    core=st.tuples(sides, sides),
    halo=st.integers(0, 12),
    align=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)


@given(plans)
def test_cores_cover_the_plane_exactly_once(plan: TilePlan) -> None:
    covered = np.zeros((plan.height, plan.width), int)
    for tile in plan:
        assert tile.height > 0
        assert tile.width > 0
        covered[tile.y, tile.x] += 1
    assert (covered == 1).all()
    assert len(plan) == len(list(plan))


@given(plans)
def test_cores_begin_at_multiples_of_the_alignment_and_are_no_larger_than_asked(
    plan: TilePlan,
) -> None:
    for tile in plan:
        assert tile.y0 % plan.align[0] == 0
        assert tile.x0 % plan.align[1] == 0
        assert tile.height <= max(plan.core[0], plan.align[0])
        assert tile.width <= max(plan.core[1], plan.align[1])


@given(plans)
def test_windows_have_one_shape_and_hold_the_core_and_its_halo(plan: TilePlan) -> None:
    high, wide = plan.window
    for tile in plan:
        y, x = plan.window_of(tile)
        assert (y.stop - y.start, x.stop - x.start) == (high, wide)
        assert y.start <= tile.y0 - plan.halo
        assert tile.y1 + plan.halo <= y.stop
        assert x.start <= tile.x0 - plan.halo
        assert tile.x1 + plan.halo <= x.stop
        rows, columns = tile.inside
        assert y.start + rows.start == tile.y0
        assert y.start + rows.stop == tile.y1
        assert x.start + columns.start == tile.x0
        assert x.start + columns.stop == tile.x1


@given(plans)
def test_windows_look_past_the_plane_by_no_more_than_the_halo(plan: TilePlan) -> None:
    for tile in plan:
        y, x = plan.window_of(tile)
        assert y.start >= -plan.halo
        assert x.start >= -plan.halo
        assert y.stop <= plan.height + plan.halo
        assert x.stop <= plan.width + plan.halo


@given(st.integers(1, 3000), st.integers(1, 900), st.integers(1, 300))
def test_parts_are_as_few_as_can_be_and_even(
    length: int, size: int, align: int
) -> None:
    parts = even_split(length, size, align)
    largest = max(size // align, 1) * align
    assert len(parts) <= -(-length // largest)
    sizes = [stop - start for start, stop in parts]
    assert len(set(sizes[:-1])) <= 1
    assert sizes[-1] <= sizes[0]
    assert [stop for _, stop in parts[:-1]] == [start for start, _ in parts[1:]]


def test_a_large_plane_is_cut_as_one_would_by_hand() -> None:
    plan = TilePlan(1000, 2100, (512, 1024), halo=5, align=(512, 512))
    rows = sorted({(t.y0, t.y1) for t in plan})
    columns = sorted({(t.x0, t.x1) for t in plan})
    assert rows == [(0, 512), (512, 1000)]
    assert columns == [(0, 1024), (1024, 2048), (2048, 2100)]
    assert plan.window == (522, 1034)


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_cannot_be_cut(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        even_split(*wrong)


@given(length=st.integers(0, 200), count=st.integers(2, 20))
def test_spread_evenly_the_ends_are_there_and_gaps_are_alike(
    length: int, count: int
) -> None:
    found = evenly_spread(length, count)
    assert len(found) == min(length, count)
    assert found == sorted(set(found))
    if found:
        assert (found[0], found[-1]) == (0, length - 1)
    gaps = np.diff(found)
    assert gaps.max(initial=0) - gaps.min(initial=length) <= 1
