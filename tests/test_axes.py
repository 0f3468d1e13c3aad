from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_focus_fusion.axes import (
    axes_from_names,
    axes_of_array,
    guess_axes,
    unit_name,
)
from napari_focus_fusion.errors import FocusFusionError


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


def test_unclear_names_leave_the_axes_to_the_shape() -> None:
    assert axes_from_names(("dim_0", "dim_1", "dim_2"), 3) is None
    assert axes_from_names(("z", "y", "y"), 3) is None
    assert axes_from_names(("Frame", "row", "col"), 3) == "TYX"


def test_unit_spellings() -> None:
    assert unit_name("µm") == unit_name("μm") == unit_name("Micron") == "micrometer"
    assert unit_name("\\u00B5m") == "micrometer"  # as ImageJ writes it
    assert unit_name(None) == unit_name("") == "pixel"
    assert unit_name("furlong") == "furlong"


def test_names_of_dimensions_that_an_array_carries() -> None:
    def stored(*names: str, **options: object) -> zarr.Array:
        shape = (4,) * len(names)
        return zarr.create_array({}, shape=shape, dtype="u2", **options)

    names = ("time", "z", "y", "x")
    assert axes_of_array(stored(*names, dimension_names=names)) == "TZYX"
    old = stored(*names, zarr_format=2)
    assert axes_of_array(old) is None
    old.attrs["_ARRAY_DIMENSIONS"] = names
    assert axes_of_array(old) == "TZYX"
    assert axes_of_array(np.zeros((4, 4, 4))) is None
