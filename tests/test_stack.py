from __future__ import annotations

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_focus_fusion.axes import axes_from_names, guess_axes, unit_name
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.stack import FocusStack, check_finite

ALL = slice(None)
SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 20, "X": 17, "S": 3}


def ramp(axes: str, dtype: str = "uint16") -> np.ndarray:
    """Every element has a value of its own."""
    shape = [SIZES[axis] for axis in axes]
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


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


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [
        ((512, 512), "uint8", "YX"),
        ((7, 512, 512), "uint16", "ZYX"),
        ((3, 512, 512), "uint8", "ZYX"),
        ((300, 20, 30), "uint16", "ZYX"),
        ((512, 512, 3), "uint8", "YXS"),
        ((512, 512, 4), "uint16", "YXS"),
        ((3, 64, 64, 3), "uint8", "ZYXS"),
        ((3, 64, 64, 3), "float32", "ZYXS"),
        ((1, 7, 512, 512), "uint16", "CZYX"),
        ((7, 1, 512, 512), "uint16", "ZCYX"),
        ((1, 1, 7, 512, 512), "uint16", "TCZYX"),
    ],
)
def test_axes_are_guessed_where_the_shape_leaves_no_doubt(
    shape: tuple[int, ...], dtype: str, axes: str
) -> None:
    assert guess_axes(shape, np.dtype(dtype)) == axes


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((512,), "uint8"),
        ((512, 512, 3), "float32"),  # RGB of 0 to 1, or three slices in the last axis?
        ((3, 5, 3), "uint8"),
        ((512, 512, 7), "uint16"),  # slices last, as MATLAB has it
        ((2, 7, 512, 512), "uint16"),  # channels or time points?
        ((2, 3, 7, 512, 512), "uint16"),
        ((2, 7, 512, 512, 3), "uint8"),
    ],
)
def test_doubtful_axes_are_asked_for(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(FocusFusionError, match="axes="):
        guess_axes(shape, np.dtype(dtype), "my stack")


def test_zarr_dimension_names_are_honoured() -> None:
    array = zarr.create_array(
        {}, shape=(2, 4, 20, 17), dtype="u2", dimension_names=["z", "channel", "y", "x"]
    )
    assert as_stack(array).axes == "ZCYX"
    old = zarr.create_array({}, shape=(2, 4, 20, 17), dtype="u2", zarr_format=2)
    old.attrs["_ARRAY_DIMENSIONS"] = ["time", "z", "y", "x"]
    assert as_stack(old).axes == "TZYX"


def test_unclear_names_leave_the_axes_to_the_shape() -> None:
    assert axes_from_names(("dim_0", "dim_1", "dim_2"), 3) is None
    assert axes_from_names(("z", "y", "y"), 3) is None
    assert axes_from_names(("Frame", "row", "col"), 3) == "TYX"


@pytest.mark.parametrize(
    ("axes", "what"),
    [
        ("ZYQ", "no axis Q"),
        ("ZYY", "Y is named more than once"),
        ("ZYXS", "4 letters for 3 axes"),
        ("TZX", "Y is missing"),
        ("TCZ", "Y and X is missing"),
    ],
)
def test_axes_that_do_not_fit_are_named(axes: str, what: str) -> None:
    with pytest.raises(FocusFusionError, match=what):
        as_stack(ramp("ZYX"), axes=axes, name="cells")


NUMBERS = da.arange(9, chunks=3)
UNSIZED = NUMBERS[NUMBERS > 2][:, None, None] * np.ones((20, 20))


@pytest.mark.parametrize(
    ("source", "axes", "what"),
    [
        ([], None, "empty"),
        (np.zeros((0, 64, 64)), None, "no slices"),
        (np.zeros((5, 0, 64)), "ZYX", "is empty"),
        (np.zeros((5, 64, 64), bool), None, "mask"),
        (np.zeros((5, 64, 64), complex), None, "numpy.abs"),
        (np.full((5, 64, 64), None), None, "cannot be fused"),
        (np.zeros((5, 64, 64), "u1,u1"), None, "Structured"),
        (np.zeros((5, 64, 64), "int64"), None, "int32"),
        (np.zeros((5, 64, 64), "datetime64[s]"), None, "cannot be fused"),
        (np.zeros((5, 64, 64, 2)), "ZYXS", "name the axis C"),
        (np.ma.masked_equal(np.zeros((5, 64, 64)), 0), None, "masked"),
        ({"a": 1}, None, "Cannot read"),
        (7, None, "Cannot read"),
        ([[1, 2], [3]], None, "Cannot read"),
        (UNSIZED, None, "compute_chunk_sizes"),
        (["a.tif", np.zeros((4, 4))], None, "mixes files and arrays"),
        ([np.zeros((9, 8)), np.zeros((8, 9))], None, "slice 1.*8 x 9.*slice 0.*9 x 8"),
        ([np.zeros((9, 8), "u1"), np.zeros((9, 8), "u2")], None, "type uint16.*uint8"),
        ([np.zeros((9, 8, 3)), np.zeros((9, 8))], None, "colour samples 1.* has 3"),
        ([np.zeros((5, 64, 64))] * 2, None, "5 slices itself"),
    ],
)
def test_what_cannot_be_fused_is_explained(source, axes, what: str) -> None:
    with pytest.raises(FocusFusionError, match=what):
        as_stack(source, axes=axes)


@pytest.mark.parametrize(
    "dtype",
    "uint8 uint16 uint32 int8 int16 int32 float16 float32 float64 >u2 >f4".split(),
)
def test_supported_types(dtype: str) -> None:
    assert as_stack(np.zeros((3, 20, 20), dtype)).n_slices == 3


def test_a_tensor_of_another_library() -> None:
    torch = pytest.importorskip("torch")
    array = ramp("ZYX", "int32")
    stack = as_stack(torch.from_numpy(array))
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], array)


def test_one_slice_is_a_stack() -> None:
    stack = as_stack(ramp("YX"))
    assert (stack.n_slices, stack.fused_axes, stack.map_axes) == (1, "YX", "YX")


def test_a_list_keeps_its_order_and_reads_only_the_slices_asked_for() -> None:
    array = ramp("ZYX")
    broken = da.map_blocks(lambda: 1 / 0, chunks=((20,), (17,)), dtype="uint16")
    stack = as_stack([array[3], array[1], broken])
    np.testing.assert_array_equal(stack.read(0, [0, 1], ALL, ALL)[0], array[[3, 1]])
    with pytest.raises(FocusFusionError, match="division"):
        stack.read(0, [2], ALL, ALL)


def test_a_list_of_rgb_pictures_is_a_stack_of_rgb_slices() -> None:
    array = ramp("ZYXS", "uint8")
    stack = as_stack(list(array))
    assert stack.axes == "ZYXS"
    got = stack.read(0, ALL, ALL, ALL)
    np.testing.assert_array_equal(got, np.moveaxis(array, -1, 0))


def test_scale_and_units_by_axis_or_in_order() -> None:
    array = ramp("TZYX")
    by_name = as_stack(array, axes="TZYX", scale={"z": 2, "Y": 0.5}, units="um")
    assert by_name.pixel_size("Z") == 2
    assert by_name.pixel_size("X") == 1
    assert by_name.unit("X") == "micrometer"
    assert by_name.unit("T") == "pixel"
    in_order = as_stack(array, axes="TZYX", scale=(10, 2, 0.5, 0.25))
    assert dict(in_order.scale) == {"T": 10, "Z": 2, "Y": 0.5, "X": 0.25}
    turned = as_stack(ramp("YXZ"), axes="YXZ", scale=(0.5, 0.25, 2))
    assert dict(turned.scale) == {"Z": 2, "Y": 0.5, "X": 0.25}
    with pytest.raises(FocusFusionError, match="needs 4 numbers; got 3"):
        as_stack(array, axes="TZYX", scale=(2, 1, 1))
    for wrong in (0, -1, np.nan):
        with pytest.raises(FocusFusionError, match="along Y"):
            as_stack(array, axes="TZYX", scale={"Y": wrong})


def test_a_stack_passes_through_and_can_be_told_better() -> None:
    stack = as_stack(ramp("ZYX"), name="cells", scale={"Z": 2})
    assert as_stack(stack) is stack
    told = as_stack(stack, axes="TYX", units={"Y": "nm"})
    assert (told.axes, told.name, told.n_times, told.n_slices) == ("TYX", "cells", 4, 1)
    assert told.unit("Y") == "nanometer"
    assert stack.units == {}


def test_unit_spellings() -> None:
    assert unit_name("µm") == unit_name("μm") == unit_name("Micron") == "micrometer"
    assert unit_name("\\u00B5m") == "micrometer"  # as ImageJ writes it
    assert unit_name(None) == unit_name("") == "pixel"
    assert unit_name("furlong") == "furlong"


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
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_first_pixel_that_is_not_finite_is_named(
    shape: tuple[int, ...], dtype: str, value: float, data: st.DataObject
) -> None:
    block = np.ones(shape, dtype)
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
