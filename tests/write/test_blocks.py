from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.tiling import Rectangle, TilePlan
from napari_focus_fusion.write.blocks import regions, write_block

ALL = slice(None)
SIZES = {"T": 2, "C": 2, "Z": 4, "Y": 20, "X": 17, "S": 3}


def fused_like(axes: str, scale: int) -> tuple:
    """A stack, and a fused image with values of its own in every element."""
    stack = as_stack(np.zeros([SIZES[a] for a in axes], np.uint16), axes=axes)
    factor = {"Y": scale, "X": scale}
    shape = [SIZES[a] * factor.get(a, 1) for a in stack.fused_axes]
    return stack, np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def components(fused: np.ndarray, axes: str, t: int) -> np.ndarray:
    """(c * samples + s, y, x) of one time point, by numpy's own order of axes."""
    for axis in "CS":
        if axis not in axes:
            fused, axes = fused[None], axis + axes
    if "T" not in axes:
        fused, axes = fused[None], "T" + axes
    plane = np.einsum(f"{axes.lower()}->tcsyx", fused)[t]
    return plane.reshape(-1, *plane.shape[2:])


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize(
    "axes", ["ZYX", "YX", "ZYXS", "TZYX", "CZYX", "TCZYX", "CTZYX", "CZYXS", "TCZYXS"]
)
def test_blocks_make_the_image_whole(axes: str, scale: int, kind: str) -> None:
    stack, want = fused_like(axes, scale)
    target = np.zeros_like(want) if kind == "numpy" else zarr.array(np.zeros_like(want))
    for t in range(stack.n_times):
        whole = components(want, stack.fused_axes, t)
        for tile in TilePlan(stack.height, stack.width, (7, 9)):
            rows, columns = (
                slice(scale * s.start, scale * s.stop) for s in (tile.y, tile.x)
            )
            write_block(target, stack, t, tile, whole[:, rows, columns])
    np.testing.assert_array_equal(target[...], want)


def test_nothing_beside_the_block_is_touched() -> None:
    stack, want = fused_like("TCZYX", 2)
    target = want.copy()
    region = Rectangle(3, 8, 10, 17)
    write_block(target, stack, 1, region, np.zeros((2, 10, 14), np.uint16))
    want[1, :, 6:16, 20:34] = 0
    np.testing.assert_array_equal(target, want)


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.integers(1, 10),
    st.data(),
)
def test_regions_cover_an_array_once(shape: list, size: int, data) -> None:
    axes = st.permutations(range(len(shape)))
    plane = tuple(data.draw(axes)[:2])
    counts = np.zeros(shape, int)
    for region in regions(tuple(shape), size, plane=plane):
        counts[region] += 1
        lengths = [s.stop - s.start for s in region]
        assert all(n <= (size if i in plane else 1) for i, n in enumerate(lengths))
    assert (counts == 1).all()
