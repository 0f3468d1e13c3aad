"""What the axes of an array mean, and how they and their units are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Iterable

AXES = "TCZYXS"
# Rec. 601 luma; alpha holds no focus information.
LUMINANCE = {3: (0.299, 0.587, 0.114), 4: (0.299, 0.587, 0.114, 0.0)}
# An image is rarely narrower than this: below it the order of the axes is a guess.
_NARROWEST_IMAGE = 16
_AXIS_NAMES = {
    **dict.fromkeys(("t", "time", "timepoint", "timepoints", "frame", "frames"), "T"),
    **dict.fromkeys(("c", "ch", "channel", "channels"), "C"),
    **dict.fromkeys(("z", "slice", "slices", "depth", "focus", "plane"), "Z"),
    **dict.fromkeys(("y", "row", "rows", "height"), "Y"),
    **dict.fromkeys(("x", "column", "columns", "col", "width"), "X"),
    **dict.fromkeys(("s", "rgb", "rgba", "sample", "samples", "band"), "S"),
}
_UNIT_NAMES = {
    **dict.fromkeys(("", "none", "pixels", "px", "reference frame"), "pixel"),
    **dict.fromkeys(
        ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometre"), "micrometer"
    ),
    **dict.fromkeys(("micrometres", "micrometers"), "micrometer"),
    **dict.fromkeys(("nm", "nanometre"), "nanometer"),
    **dict.fromkeys(("mm", "millimetre"), "millimeter"),
    **dict.fromkeys(("cm", "centimetre"), "centimeter"),
    **dict.fromkeys(("m", "metre"), "meter"),
    **dict.fromkeys(("å", "ångström", "a"), "angstrom"),
    **dict.fromkeys(("pm", "picometre"), "picometer"),
    **dict.fromkeys(("in", "inches"), "inch"),
    **dict.fromkeys(("s", "sec", "seconds"), "second"),
    **dict.fromkeys(("ms", "msec"), "millisecond"),
    **dict.fromkeys(("min", "minutes"), "minute"),
    **dict.fromkeys(("h", "hours"), "hour"),
}

#: Metres of each unit of length.
METRES = {
    **{"meter": 1.0, "centimeter": 1e-2, "millimeter": 1e-3, "micrometer": 1e-6},
    **{"nanometer": 1e-9, "angstrom": 1e-10, "picometer": 1e-12, "inch": 0.0254},
}


def guess_axes(shape: tuple[int, ...], dtype: np.dtype, name: str = "stack") -> str:
    """Axes of an array without metadata, where its shape leaves no doubt.

    Raises
    ------
    FocusFusionError
        If more than one reading of the shape is plausible.
    """
    colour = len(shape) > 2 and shape[-1] in LUMINANCE
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3:
        if colour:
            is_image = min(shape[:2]) >= _NARROWEST_IMAGE
            if is_image and dtype in (np.dtype("uint8"), np.dtype("uint16")):
                return "YXS"
        elif slices_may_come_last(shape):
            pass
        elif shape[-1] >= _NARROWEST_IMAGE or shape[-1] * 4 >= max(shape):
            return "ZYX"
    if len(shape) == 4:
        if colour:
            return "ZYXS"
        if shape[0] == 1:
            return "CZYX"
        if shape[1] == 1:
            return "ZCYX"
    if len(shape) == 5 and shape[:2] == (1, 1) and not colour:
        return "TCZYX"
    examples = {
        3: '"ZYX" or "YXZ" (grey slices), "YXS" (one RGB picture)',
        4: '"CZYX" or "ZCYX" (channels), "TZYX" (time points), "ZYXS" (RGB)',
        5: '"TCZYX", "TZCYX" or "TZYXS"',
    }.get(len(shape), '"ZYX"')
    raise FocusFusionError(
        f"{name!r} has shape {shape} and does not say which axis is which. Name one "
        f"letter per axis (T time, C channel, Z slice, Y row, X column, S RGB), for "
        f"example axes={examples}."
    )


def slices_may_come_last(shape: tuple[int, ...]) -> bool:
    """Whether an array of three axes may as well be (Y, X, Z) as (Z, Y, X)."""
    return len(shape) == 3 and 1 < shape[-1] and shape[-1] * 2 <= min(shape[:2])


def planes_may_be_strips(shape: tuple[int, ...]) -> bool:
    """Whether planes that a file holds one by one are so narrow that X may be Z.

    So looks what was saved as (Y, X, Z) by a program that takes the first axis for Z.
    """
    return slices_may_come_last(shape) and shape[-1] * 4 <= min(shape[:2])


def axes_from_names(names: Iterable[Any] | None, ndim: int) -> str | None:
    """Axis letters of dimension names such as ``("z", "y", "x")``; None if unclear."""
    if names is None:
        return None
    letters = [_AXIS_NAMES.get(str(name).lower(), "") for name in names]
    if len(letters) != ndim or "" in letters or len(set(letters)) != ndim:
        return None
    return "".join(letters) if {"Y", "X"} <= set(letters) else None


def axes_of_array(array: Any) -> str | None:
    """Axis letters by the dimension names that an xarray or a Zarr array carries.

    None where it has none, or not all of them are known.
    """
    names = getattr(array, "dims", None)  # xarray
    metadata = getattr(array, "metadata", None)  # Zarr
    if names is None:
        names = getattr(metadata, "dimension_names", None)
    if names is None and metadata is not None:
        attributes = getattr(array, "attrs", None) or {}
        names = attributes.get("_ARRAY_DIMENSIONS")
    try:
        return axes_from_names(names, len(array.shape))
    except TypeError:  # some other library's .dims
        return None


def unit_name(unit: Any) -> str:
    """Spell a unit as OME-Zarr and napari do: ``"um"`` becomes ``"micrometer"``."""
    text = str(unit if unit is not None else "").strip()
    return _UNIT_NAMES.get(text.lower(), text)


def axis_letter(axis: str) -> str:
    """Our letter for the name of an axis: ``"channel"`` becomes ``"C"``."""
    return _AXIS_NAMES.get(axis.lower(), axis.upper())


def check_axes(axes: str, shape: tuple[int, ...], name: str) -> None:
    """Raise unless the letters name each axis of the shape once, Y and X among them."""

    def wrong(what: str) -> FocusFusionError:
        return FocusFusionError(
            f"{name!r}: axes {axes!r} do not fit the shape {shape}: {what} Use one "
            "letter per axis: T time, C channel, Z slice, Y row, X column, S samples "
            "of RGB."
        )

    unknown = sorted(set(axes) - set(AXES))
    if unknown:
        raise wrong(f"there is no axis {', '.join(unknown)}.")
    repeated = sorted({axis for axis in axes if axes.count(axis) > 1})
    if repeated:
        raise wrong(f"{', '.join(repeated)} is named more than once.")
    if len(axes) != len(shape):
        raise wrong(f"{len(axes)} letters for {len(shape)} axes.")
    missing = [axis for axis in "YX" if axis not in axes]
    if missing:
        raise wrong(f"{' and '.join(missing)} is missing.")
