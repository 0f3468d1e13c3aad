"""Opens arrays, files and folders as focus stacks."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_focus_fusion.arrays import (
    axes_as_given,
    is_array,
    stack_from_array,
    stack_of_slices,
    with_axes,
)
from napari_focus_fusion.axes import (
    LUMINANCE,
    axes_of_array,
    axis_letter,
    unit_name,
)
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.file_sets import (
    open_file,
    sets_of_stacks,
    slices_among,
    stack_in_order,
    stack_of_files,
    stack_of_source,
)
from napari_focus_fusion.parameters import (
    mapping,
    real_number,
    several,
    shown,
    text_of,
)
from napari_focus_fusion.placement import displayed_axes
from napari_focus_fusion.read import (
    ZARR_SUFFIX,
    files_in,
    local_path,
    micromanager_files,
    series_in,
)
from napari_focus_fusion.read.ome_zarr import read_group
from napari_focus_fusion.read.series import checked_series
from napari_focus_fusion.read.sizes import without_sizes_of
from napari_focus_fusion.read.zarr_chunks import notes_on_chunks
from napari_focus_fusion.stack import FocusStack

__all__ = [
    "ZARR_SUFFIX",
    "as_stack",
    "axes_as_given",
    "open_file",
    "series_in",
    "sets_of_stacks",
    "slices_among",
    "stack_from_array",
    "stack_in_order",
    "stack_of_files",
    "stack_of_slices",
]


#: What metadata of a wrong type or value make readers raise.
_DAMAGED = (
    *(AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError),
    *(ArithmeticError, AssertionError, struct.error, EOFError, RuntimeError),
)


def as_stack(
    source: Any,
    *,
    axes: str | None = None,
    scale: Mapping[str, float] | Sequence[float] | None = None,
    units: Mapping[str, str] | str | None = None,
    name: str | None = None,
    channel_names: Sequence[str] | None = None,
    display: Mapping[str, Any] | None = None,
    series: int | str | None = None,
) -> FocusStack:
    """Make a :class:`FocusStack` of anything that holds one, reading no pixels.

    Parameters
    ----------
    source
        Array (numpy, dask, Zarr, xarray, HDF5); Zarr group with OME metadata; path of a
        TIFF, OME-TIFF, OME-Zarr, PNG or JPEG; glob pattern or folder of images, of
        which the names say what is a slice, a channel or a time point; list of images
        or 2-D arrays, which become slices in the order given; or a FocusStack.
    axes
        One letter per dimension out of ``TCZYXS``, overriding the source's; of several
        files, first those of the parts of their names that vary. None: from metadata
        and names, then from the shape where that leaves no doubt.
    scale
        Pixel sizes by axis letter, or one number per axis; overrides the source's.
    units
        Units by axis letter, or one unit for Z, Y and X; overrides the source's.
    name
        Name of the stack; None: the file's, or ``"stack"``.
    channel_names, display
        See :class:`FocusStack`; `display` is added to the source's.
    series
        Which image of a file that holds several (TIFF series, OME-Zarr position or
        field): its number from 0 or its name, one of :func:`series_in`.

    Returns
    -------
    FocusStack

    Raises
    ------
    FocusFusionError
        If the source cannot be read as a focus stack; the text says why and what helps.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.zeros((5, 40, 64), np.uint8)
    >>> stack = ff.as_stack(pixels, scale={"Z": 0.5, "Y": 0.1, "X": 0.1}, units="um")
    >>> stack.axes, stack.n_slices, stack.pixel_size("Z"), stack.unit("Z")
    ('ZYX', 5, 0.5, 'micrometer')
    """
    axes = None if axes is None else text_of("axes", axes)
    name = None if name is None else text_of("name", name)
    series = checked_series(series)
    try:
        stack = _open(source, axes=axes, name=name, series=series)
    except FocusFusionError:
        raise
    except OSError as error:
        raise FocusFusionError(
            f"{shown(source)} cannot be read: {error.strerror or error}. Check that it "
            "is still there, and that you may read it."
        ) from error
    except _DAMAGED as error:
        raise FocusFusionError(
            f"{shown(source)} cannot be opened: what it says of itself is damaged, or "
            f"not what is expected ({error!r}). Check that it was copied completely, "
            "or open it in napari with the plugin for your microscope and fuse the "
            "layer."
        ) from error
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = name
    if scale is not None:
        given_sizes = _scale_by_axis(scale, stack)
        changes["scale"] = {**stack.scale, **given_sizes}
        changes["notes"] = without_sizes_of(stack.notes, given_sizes)
    if units is not None:
        if isinstance(units, str):
            units = dict.fromkeys("ZYX", units)
        units = mapping("units", units)
        given = {
            axis_letter(text_of("an axis of units", axis)): unit_name(unit)
            for axis, unit in units.items()
        }
        changes["units"] = {**stack.units, **given}
    if channel_names is not None:
        names = several("channel_names", channel_names)
        changes["channel_names"] = tuple(map(str, names))
    if display is not None:
        changes["display"] = {**stack.display, **mapping("display", display)}
    return replace(stack, **changes) if changes else stack


def _open(
    source: Any, *, axes: str | None, name: str | None, series: int | str | None
) -> FocusStack:
    if isinstance(source, FocusStack):
        return with_axes(source, axes)
    if isinstance(source, str | os.PathLike):
        return _open_path(os.fspath(source), axes=axes, series=series)
    label = name or "stack"
    if is_array(source):
        hint = axes_of_array(source)
        if hasattr(source, "variable") and getattr(source, "dims", None) is not None:
            source = source.data  # xarray
        notes = notes_on_chunks(source, axes or hint)
        return stack_from_array(source, axes=axes, hint=hint, name=label, notes=notes)
    if hasattr(source, "attrs") and hasattr(source, "members"):  # a zarr.Group
        return stack_of_source(read_group(source, axes=axes, series=series), axes)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return _open_list(list(source), axes=axes, name=label)
    raise FocusFusionError(
        f"Cannot read a focus stack from {type(source).__name__!r}. Pass an array, a "
        "file or folder, or a list of pictures."
    )


def _open_path(path: str, *, axes: str | None, series: int | str | None) -> FocusStack:
    """Open a file, folder, glob pattern or Zarr address, lazily."""
    path = local_path(os.path.expanduser(path))
    slices = files_in(path) or micromanager_files(path)
    if slices:
        return stack_of_files(slices, axes=axes, series=series)
    return open_file(path, axes=axes, series=series)


def _open_list(items: list[Any], *, axes: str | None, name: str) -> FocusStack:
    if not items:
        raise FocusFusionError(
            "The list of slices is empty. A focus stack needs at least one."
        )
    paths = [isinstance(item, str | os.PathLike) for item in items]
    if any(paths):
        if not all(paths):
            raise FocusFusionError(
                "The list mixes files and arrays. Pass either the paths of all slices, "
                "or all slices as 2-D arrays."
            )
        return stack_of_files(
            [os.path.expanduser(os.fspath(item)) for item in items],
            axes=axes,
            in_order=True,
        )
    if not all(is_array(item) for item in items):
        try:
            return stack_from_array(np.array(items), axes=axes, name=name)
        except ValueError as error:
            if isinstance(error, FocusFusionError):
                raise
            raise FocusFusionError(
                "Cannot read a focus stack from this list. Pass 2-D arrays of one "
                "size, or paths of pictures."
            ) from error
    slices = [
        stack_from_array(item, hint=_one_slice_axes(item), name=f"slice {i} of {name}")
        for i, item in enumerate(items)
    ]
    return stack_of_slices(slices, axes=axes, name=name, source="array")


def _one_slice_axes(array: Any) -> str | None:
    return "YXS" if len(array.shape) == 3 and array.shape[-1] in LUMINANCE else None


def _pixel_size(axis: str, size: Any) -> float:
    return real_number(f"scale: the pixel size along {axis}", size, above=0)


def _scale_by_axis(
    scale: Mapping[str, float] | Sequence[float], stack: FocusStack
) -> dict[str, float]:
    if isinstance(scale, Mapping):
        return {
            axis_letter(text_of("an axis of scale", axis)): _pixel_size(axis, size)
            for axis, size in scale.items()
        }
    axes = displayed_axes(stack)
    sizes = several("scale", scale)
    if len(sizes) != len(axes):
        raise FocusFusionError(
            f"{stack.name!r} has axes {axes}, so scale needs {len(axes)} numbers; "
            f"got {len(sizes)}. Or name the axes: scale={{'Z': 0.5, 'Y': 0.1, "
            "'X': 0.1}."
        )
    pairs = zip(axes, sizes, strict=True)
    return {axis: _pixel_size(axis, size) for axis, size in pairs}
