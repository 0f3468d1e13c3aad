from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

from napari_focus_fusion.lazy import Reordered, SliceList

SHAPE = (4, 5, 6)
VALUES = np.arange(120, dtype=np.int32).reshape(SHAPE)
indices = basic_indices(SHAPE, allow_newaxis=False).filter(
    lambda index: (
        not any(
            isinstance(part, slice) and (part.step or 1) < 0
            for part in (index if isinstance(index, tuple) else (index,))
        )
    )
)


@given(indices, st.permutations([0, 1, 2]))
def test_lazy_arrays_slice_like_numpy(index, order: list[int]) -> None:
    back = [order.index(i) for i in range(3)]
    for array in (
        Reordered(VALUES.transpose(back).copy(), tuple(order)),
        SliceList(list(VALUES), ["YX"] * 4),
        SliceList([plane[:, None] for plane in VALUES], ["YZX"] * 4),
    ):
        assert array.shape == SHAPE
        np.testing.assert_array_equal(array[index], VALUES[index])


@given(indices, st.permutations([0, 1, 2]))
def test_writing_changes_what_numpy_would_change(index, order: list[int]) -> None:
    want = VALUES.copy()
    inner = np.ascontiguousarray(VALUES.transpose([order.index(i) for i in range(3)]))
    array = Reordered(inner, tuple(order))
    new = -1 - want[index]
    want[index] = new
    array[index] = new
    np.testing.assert_array_equal(np.asarray(array), want)


@pytest.mark.parametrize("index", [4, -5, (0, 0, 0, 0), slice(None, None, -1)])
def test_what_is_out_of_bounds_is_refused(index) -> None:
    with pytest.raises(IndexError):
        SliceList(list(VALUES), ["YX"] * 4)[index]
