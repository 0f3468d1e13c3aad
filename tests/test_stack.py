from __future__ import annotations

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.stack import FocusStack, check_finite
from small_stacks import SIZES, ramp

ALL = slice(None)


def canonical(array: np.ndarray, axes: str, t: int) -> np.ndarray:
    """(C, S, Z, Y, X) of one time point, by pure indexing."""
    named = {axis: np.arange(SIZES[axis] if axis in axes else 1) for axis in "CSZYX"}
    c, s, z, y, x = np.ix_(*(named[axis] for axis in "CSZYX"))
    index = {"T": np.array(t), "C": c, "S": s, "Z": z, "Y": y, "X": x}
    return array[tuple(index[axis] for axis in axes)]


@st.composite
def regions(draw: st.DrawFn) -> tuple[str, int, list[int], slice, slice]:
    extra = draw(st.sets(st.sampled_from("TCZS")))
    axes = "".join(draw(st.permutations(sorted({"Y", "X"} | extra))))
    t = draw(st.integers(0, 1)) if "T" in axes else 0
    depth = SIZES["Z"] if "Z" in axes else 1
    z = draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=5))
    spans = []
    for axis in "YX":
        start = draw(st.integers(0, SIZES[axis] - 1))
        spans.append(slice(start, draw(st.integers(start + 1, SIZES[axis]))))
    return axes, t, z, spans[0], spans[1]


@given(regions(), st.sampled_from(["numpy", "dask", "zarr"]))
@settings(max_examples=80, deadline=None)
def test_any_region_of_any_axis_order_reads_the_same_pixels(
    region: tuple[str, int, list[int], slice, slice], kind: str
) -> None:
    axes, t, z, y, x = region
    array = ramp(axes)
    chunks = tuple(min(7, n) for n in array.shape)
    data = {
        "numpy": lambda: array,
        "dask": lambda: da.from_array(array, chunks=chunks),
        "zarr": lambda: zarr.array(array, chunks=chunks),
    }[kind]()
    stack = as_stack(data, axes=axes)
    want = canonical(array, axes, t)[:, :, z, y, x]
    want = want.reshape(-1, *want.shape[2:])

    got = stack.read(t, z, y, x)

    np.testing.assert_array_equal(got, want)
    assert got.flags.c_contiguous
    assert got.dtype == array.dtype
    if z == list(range(z[0], z[0] + len(z))):
        run = slice(z[0], z[0] + len(z))
        np.testing.assert_array_equal(stack.read(t, run, y, x), want)
    component = stack.n_components - 1
    np.testing.assert_array_equal(stack.component_read(t, component, z, y, x), want[-1])


def test_read_hands_out_a_copy() -> None:
    array = ramp("ZYX")
    block = as_stack(array).read(0, ALL, ALL, ALL)
    block[:] = 0
    assert array.any()


def test_read_refuses_what_is_not_there() -> None:
    stack = as_stack(ramp("ZYX"))
    for t, z in ((1, [0]), (0, [4]), (0, slice(2, 5))):
        with pytest.raises(IndexError):
            stack.read(t, z, ALL, ALL)


def test_big_endian_pixels_are_read_in_native_order() -> None:
    array = ramp("ZYX")
    stack = as_stack(array.astype(">u2"))
    assert stack.dtype.isnative
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], array)


def test_dask_computes_only_the_blocks_asked_for() -> None:
    seen = []

    def block(block_info: dict) -> np.ndarray:
        seen.append(block_info[None]["chunk-location"])
        return np.zeros((1, 32, 32), np.uint8)

    lazy = da.map_blocks(block, chunks=((1,) * 4, (32,) * 3, (32,) * 3), dtype="uint8")
    as_stack(lazy).read(0, slice(1, 2), slice(40, 50), slice(5, 60))
    assert sorted(seen) == [(1, 1, 0), (1, 1, 1)]


def test_zarr_reads_only_the_chunks_asked_for(tmp_path) -> None:
    array = ramp("ZYX")
    zarr.create_array(tmp_path / "z.zarr", data=array, chunks=(1, 8, 8))
    wanted = {("1", "0", "0"), ("1", "0", "1")}
    for chunk in (tmp_path / "z.zarr" / "c").rglob("*"):
        if chunk.is_file() and chunk.parts[-3:] not in wanted:
            chunk.write_bytes(b"damaged")
    stack = as_stack(zarr.open_array(tmp_path / "z.zarr"))
    got = stack.read(0, slice(1, 2), slice(2, 8), slice(3, 12))
    np.testing.assert_array_equal(got[0], array[1:2, 2:8, 3:12])
    with pytest.raises(FocusFusionError, match="slices 0 to 1"):
        stack.read(0, slice(0, 1), ALL, ALL)


def test_a_cluster_as_dasks_default_is_not_used() -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the default scheduler was asked")

    stack = as_stack(da.from_array(ramp("ZYX"), chunks=8))
    with dask.config.set(scheduler=refuse):
        stack.read(0, [0], ALL, ALL)


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "list", "turned"])
def test_stacks_travel_to_other_processes(kind: str, tmp_path) -> None:
    array = ramp("ZYX")
    stack = {
        "numpy": lambda: as_stack(array),
        "dask": lambda: as_stack(da.from_array(array, chunks=8)),
        "zarr": lambda: as_stack(zarr.create_array(tmp_path / "a.zarr", data=array)),
        "list": lambda: as_stack(list(array)),
        "turned": lambda: as_stack(
            zarr.create_array(tmp_path / "b.zarr", data=array.T), axes="XYZ"
        ),
    }[kind]()
    copy = pickle.loads(pickle.dumps(stack))
    np.testing.assert_array_equal(copy.read(0, ALL, ALL, ALL)[0], array)
    assert (copy.axes, copy.name, copy.chunk_yx) == (
        stack.axes,
        stack.name,
        stack.chunk_yx,
    )


def test_chunk_of_the_plane() -> None:
    array = ramp("CZYX")
    lazy = da.from_array(array, chunks=(1, 2, (12, 8), (17,)))
    assert as_stack(lazy, axes="CZYX").chunk_yx == (12, 17)
    stored = zarr.array(array, chunks=(3, 4, 5, 6))
    assert as_stack(stored, axes="CZYX").chunk_yx == (5, 6)
    assert as_stack(stored, axes="YXCZ").chunk_yx == (3, 4)
    assert as_stack(array, axes="CZYX").chunk_yx is None


def weights(axes: str, reference: int | str | None, **fields: object) -> np.ndarray:
    return as_stack(ramp(axes), axes=axes, **fields).reference_weights(reference)


def test_reference_weights() -> None:
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    names = {"channel_names": ("DAPI", "mean", "2")}
    np.testing.assert_array_equal(weights("ZYXS", None), luma)
    np.testing.assert_array_equal(weights("ZYXS", "luminance"), luma)
    np.testing.assert_allclose(weights("ZYXS", "mean"), [1 / 3] * 3)
    np.testing.assert_allclose(weights("CZYX", None), [1 / 3] * 3)
    np.testing.assert_array_equal(weights("CZYX", 1), [0, 1, 0])
    np.testing.assert_array_equal(weights("CZYX", "2"), [0, 0, 1])
    np.testing.assert_array_equal(weights("CZYX", "DAPI", **names), [1, 0, 0])
    # A channel may be called like one of our words.
    np.testing.assert_array_equal(weights("CZYX", "mean", **names), [0, 1, 0])
    np.testing.assert_array_equal(
        weights("CZYXS", 1), np.concatenate([[0] * 3, luma, [0] * 3])
    )
    np.testing.assert_array_equal(weights("ZYX", None), [1])
    alpha = as_stack(np.zeros((2, 20, 20, 4), "uint8"))
    assert alpha.reference_weights(None)[3] == alpha.reference_weights("mean")[3] == 0


@pytest.mark.parametrize("reference", [3, -1, "GFP", "luminance"])
def test_a_reference_that_is_not_there(reference: int | str) -> None:
    with pytest.raises(FocusFusionError, match="cells"):
        weights("CZYX", reference, name="cells", channel_names=("a", "b", "c"))


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 4),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    value=st.sampled_from([np.inf, -np.inf]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_first_infinite_pixel_is_named(
    shape: tuple[int, ...], dtype: str, value: float, data: st.DataObject
) -> None:
    block = np.ones(shape, dtype)
    block.ravel()[::2] = np.nan  # absent, which is no error
    check_finite(block)
    place = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    block[place] = value
    _, z, y, x = place
    with pytest.raises(
        FocusFusionError,
        match=rf"'cells'.*slice {z + 10}, row {y + 20}, column {x + 30} ",
    ):
        check_finite(block, t=0, z0=10, y0=20, x0=30, name="cells")
    listed = [7 * i for i in range(shape[1])]
    with pytest.raises(FocusFusionError, match=rf"point 3, slice {7 * z}, row"):
        check_finite(block, t=3, z0=listed)


def test_large_finite_values_are_no_infinity() -> None:
    for dtype in ("float16", "float32", "float64"):
        check_finite(np.full((1, 1, 64, 64), np.finfo(dtype).max, dtype))
    check_finite(np.full((1, 1, 4, 4), 2**31 - 1, np.int32))


def test_axes_of_results() -> None:
    stack = as_stack(ramp("TCZYX"), axes="TCZYX")
    assert (stack.fused_axes, stack.fused_shape) == ("TCYX", (2, 3, 20, 17))
    assert (stack.map_axes, stack.map_shape) == ("TYX", (2, 20, 17))
    colour = as_stack(ramp("ZYXS", "uint8"))
    assert (colour.fused_axes, colour.fused_shape) == ("YXS", (20, 17, 3))
    assert colour.map_shape == (20, 17)


def test_focus_stack_wants_the_plane_last() -> None:
    with pytest.raises(FocusFusionError, match="must end in YX"):
        FocusStack(ramp("YXZ"), "YXZ")
    with pytest.raises(FocusFusionError, match="3 channels but 2 channel names"):
        FocusStack(ramp("CZYX"), "CZYX", channel_names=("a", "b"))
