from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from small_stacks import ramp

ALL = slice(None)


def test_zarr_dimension_names_are_honoured() -> None:
    array = zarr.create_array(
        {}, shape=(2, 4, 20, 17), dtype="u2", dimension_names=["z", "channel", "y", "x"]
    )
    assert as_stack(array).axes == "ZCYX"
    old = zarr.create_array({}, shape=(2, 4, 20, 17), dtype="u2", zarr_format=2)
    old.attrs["_ARRAY_DIMENSIONS"] = ["time", "z", "y", "x"]
    assert as_stack(old).axes == "TZYX"


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


def test_a_stack_passes_through_and_its_fields_can_be_overridden() -> None:
    stack = as_stack(ramp("ZYX"), name="cells", scale={"Z": 2})
    assert as_stack(stack) is stack
    new = as_stack(stack, axes="TYX", units={"Y": "nm"})
    assert (new.axes, new.name, new.n_times, new.n_slices) == ("TYX", "cells", 4, 1)
    assert new.unit("Y") == "nanometer"
    assert stack.units == {}


class Labelled:
    """An array with named dimensions, as xarray has it, around pixels of a kind."""

    def __init__(self, data: np.ndarray, dims: tuple[str, ...]) -> None:
        self.data, self.dims, self.variable = data, dims, self
        self.shape, self.dtype = data.shape, data.dtype

    def __getitem__(self, key: object) -> Labelled:
        raise AssertionError("the pixels inside are what is read")


def test_named_dimensions_are_taken_over() -> None:
    array = ramp("ZCYX")
    stack = as_stack(Labelled(array, ("slice", "channel", "row", "column")))
    assert (stack.axes, stack.data is array) == ("ZCYX", True)
    stack = as_stack(
        Labelled(array, ("slice", "channel", "row", "column")), axes="TZYX"
    )
    assert (stack.axes, stack.n_slices) == ("TZYX", 3)


def test_one_file_in_a_folder_or_pattern_is_that_file(tmp_path) -> None:
    array = ramp("CZYX")
    zarr.create_array(
        tmp_path / "a.zarr", data=array, dimension_names=["c", "z", "y", "x"]
    )
    for source in (tmp_path / "*.zarr", [tmp_path / "a.zarr"]):
        stack = as_stack(source)
        assert (stack.axes, stack.name) == ("CZYX", "a")
        assert stack.source == str(tmp_path / "a.zarr")
        np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL), array)
