"""Opens arrays, files and folders as focus stacks."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_focus_fusion.arrays import (
    axes_as_given,
    is_array,
    joined,
    stack_from_array,
    stack_of_slices,
)
from napari_focus_fusion.axes import (
    LUMINANCE,
    axes_of_array,
    axis_letter,
    unit_name,
)
from napari_focus_fusion.errors import FocusFusionError
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
    files_of_set,
    local_path,
    micromanager_files,
    read_path,
    series_in,
)
from napari_focus_fusion.read.name_axes import (
    NamedSet,
    flat_set,
    is_no_slice,
    set_by_axes,
    sets_by_name,
)
from napari_focus_fusion.read.ome_zarr import read_group
from napari_focus_fusion.read.own_results import is_own_result
from napari_focus_fusion.read.series import (
    checked_series,
)
from napari_focus_fusion.read.sizes import without_sizes_of
from napari_focus_fusion.read.zarr_chunks import notes_on_chunks
from napari_focus_fusion.stack import FocusStack

if TYPE_CHECKING:
    from napari_focus_fusion.read.source import Source

_Name = TypeVar("_Name", Path, str, Path | str)

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
        if axes is None or axes.upper() == source.axes:
            return source
        names = source.channel_names if "C" in axes.upper() else ()
        return stack_from_array(
            source.data,
            axes=axes,
            name=source.name,
            scale=source.scale,
            units=source.units,
            channel_names=names,
            source=source.source,
            display={k: v for k, v in source.display.items() if k != "axes"},
            notes=source.notes,
            files=source.files,
        )
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
        return _stack_of(read_group(source, axes=axes, series=series), axes)
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


def open_file(
    path: str, *, axes: str | None = None, series: int | str | None = None
) -> FocusStack:
    """Open what one file, Zarr or address holds."""
    return _stack_of(read_path(path, axes=axes, series=series), axes)


def stack_of_files(
    paths: Sequence[str],
    *,
    axes: str | None = None,
    series: int | str | None = None,
    in_order: bool = False,
) -> FocusStack:
    """Open the files of one stack by what varies in their names, lazily.

    Parameters
    ----------
    paths
        Files of one plane each, or of one data set that is spread over files.
    axes, series
        As in :func:`as_stack`.
    in_order
        Whether the files are in the order of their slices, and none is to be left out.

    Raises
    ------
    FocusFusionError
        If they are several stacks, or one of them is odd.
    """
    notes: tuple[str, ...] = ()
    if not in_order:
        paths, notes = slices_among(paths)
    if len(paths) == 1:
        stack = open_file(paths[0], axes=axes, series=series)
        return replace(stack, notes=(*stack.notes, *notes))
    opened = _opened(paths)
    if len(opened) == 1:  # a data set of several files
        (path,) = opened
        stack = open_file(path, axes=axes, series=series)
        return replace(stack, notes=(*stack.notes, *notes))
    paths = list(opened)
    if all(opened[path].n_slices > 1 for path in paths):
        stack = _stack_of_stacks(opened, axes, in_order=in_order)
        return replace(stack, notes=(*notes, *stack.notes))
    found = _set_of(paths, opened, axes, in_order=in_order)
    stack = _stack_of_set(found, opened)
    stack = replace(stack, notes=(*notes, *stack.notes))
    given = axes is not None and axes.upper() != stack.axes
    return as_stack(stack, axes=axes) if given else stack


def stack_in_order(paths: Sequence[str], *, axes: str | None = None) -> FocusStack:
    """Make one stack of files in the order given, whatever their names are.

    Raises
    ------
    FocusFusionError
        If one of them is odd.
    """
    opened = _opened(paths)
    if axes is not None and all(one.n_slices > 1 for one in opened.values()):
        return _stack_of_stacks(opened, axes, in_order=True)
    return as_stack(_stack_of_set(flat_set(paths), opened), axes=axes)


def sets_of_stacks(
    opened: Mapping[str, FocusStack], *, axes: str | None, in_order: bool = False
) -> list[NamedSet]:
    """Which stacks in files are time points or channels of one, by names and sizes.

    Parameters
    ----------
    opened
        Stacks of several slices by their paths.
    axes
        As in :func:`as_stack`: those of the parts of the names, then a file's.
    in_order
        As in :func:`stack_of_files`.

    Returns
    -------
    list of NamedSet
        Stacks that are none of these are sets of one file.
    """
    paths = list(opened)
    alone = [flat_set([path]) for path in paths]
    own = opened[paths[0]].axes
    lead = "" if axes is None else axes.upper()[: max(len(axes) - len(own), 0)]
    if len(paths) == 1 or (axes is not None and not lead):
        return alone
    try:
        sets = sets_by_name(paths, in_order=in_order, stacks=True)
    except FocusFusionError:
        sets = alone
    if lead and set(lead) <= set("TC"):  # what differs is named where they are joined
        if {one.axes for one in sets} == {lead}:
            return sets
        return [set_by_axes(paths, lead, in_order=in_order)]
    found: list[NamedSet] = []
    for one in sets:
        kinds = {_kind(opened[path]) for path in one.members}
        if len(kinds) == 1 and not set(one.axes) & set(own):
            found.append(one)
        else:
            found += [flat_set([path]) for path in one.members]
    return found


def _kind(stack: FocusStack) -> tuple[Any, ...]:
    return stack.axes, tuple(stack.data.shape), np.dtype(stack.dtype)


def _stack_of_stacks(
    opened: Mapping[str, FocusStack], axes: str | None, *, in_order: bool
) -> FocusStack:
    """Stacks in files as the time points or channels of one."""
    sets = sets_of_stacks(opened, axes=axes, in_order=in_order)
    if len(sets) > 1:
        raise _several(sets, stacks=True)
    (found,) = sets
    stack = _stack_of_set(found, opened)
    words = {"T": "time points", "C": "channels"}
    what = " and ".join(
        f"{n} {words[a]}" for a, n in zip(found.axes, found.shape, strict=True)
    )
    names = [os.path.basename(file) for file in (found.files[0], found.files[-1])]
    note = (
        f"The {len(found.files)} stacks {names[0]} to {names[1]} were joined as {what} "
        "of one, by their names. If each is one of its own, fuse them one by one."
    )
    given = axes is not None and axes.upper() != stack.axes
    stack = as_stack(stack, axes=axes) if given else stack
    return stack if given else replace(stack, notes=(*stack.notes, note))


def _set_of(
    paths: Sequence[str],
    opened: Mapping[str, FocusStack],
    axes: str | None,
    *,
    in_order: bool,
) -> NamedSet:
    """What the names of files say, or the given axes say of the names."""
    first = opened[paths[0]]
    lead = (
        ""
        if axes is None
        else axes.upper()[: max(len(axes) - len(first.fused_axes), 0)]
    )
    if lead and set(lead) <= set("TCZ"):
        return set_by_axes(paths, lead, in_order=in_order)
    sets = sets_by_name(paths, in_order=in_order)
    if len(sets) > 1:
        raise _several(sets)
    (found,) = sets
    if first.n_channels > 1 and not found.axis_is_stated and axes is None:
        letters = first.axes.replace("C", "Z")
        raise FocusFusionError(
            f"Each of the {len(paths)} files holds {first.n_channels} planes tagged as "
            f"channels, as {first.name!r} does. If those are the slices of a focus "
            f"stack, fuse each file on its own with axes={letters!r}. If each file is "
            f"one slice of {first.n_channels} channels, say so with "
            f"axes={'Z' + first.fused_axes!r}."
        )
    return found


def _stack_of_set(found: NamedSet, opened: Mapping[str, FocusStack]) -> FocusStack:
    """The files of a set as one stack."""
    slices = [opened[path] for path in found.files]
    if not found.axes:
        return slices[0]
    values = dict(zip(found.axes, found.values, strict=False))
    fields: dict[str, Any] = {}
    channels = values.get("C", ())
    if channels and not all(text.isdecimal() for text in channels):
        fields["channel_names"] = channels
    first = slices[0]
    if found.spacing is not None and "Z" not in first.scale:
        fields["scale"] = {**first.scale, "Z": found.spacing}
    stack = joined(
        slices,
        found.axes,
        found.shape,
        name=found.name,
        source=", ".join(found.files),
        notes=found.notes,
        files=tuple(
            {"file": path, **place}
            for path, place in zip(found.files, found.places(), strict=True)
        ),
        **fields,
    )
    if "scale" not in fields:
        return stack
    return replace(stack, units={**stack.units, "Z": "micrometer"})


def _opened(paths: Sequence[str]) -> dict[str, FocusStack]:
    """Files as stacks, by path; a data set of several files once, by its first."""
    opened: dict[str, FocusStack] = {}
    seen: set[str] = set()
    for path in paths:
        if os.path.abspath(path) in seen:
            continue
        stack = open_file(path)
        seen.update(files_of_set(path))
        opened[path] = replace(stack, name=Path(path).name)
    return opened


def slices_among(paths: Sequence[_Name]) -> tuple[list[_Name], tuple[str, ...]]:
    """Files without thumbnails and results of this program; a note on those."""
    left_out = {
        path
        for path in paths
        if is_no_slice(Path(path).name) or is_own_result(str(path))
    }
    if not left_out or len(left_out) == len(paths):
        return list(paths), ()
    names = [repr(Path(path).name) for path in paths if path in left_out]
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    note = f"Not taken for slices, as thumbnails or results of a fusion: {listed}."
    return [path for path in paths if path not in left_out], (note,)


def _several(sets: Sequence[NamedSet], *, stacks: bool = False) -> FocusFusionError:
    """What to do where files are several stacks."""
    folder = os.path.dirname(os.path.abspath(sets[0].files[0]))
    listed = "; ".join(
        (found.pattern or found.files[0])
        + (f" ({len(found.files)} files)" if len(found.files) > 1 else "")
        for found in sets[:8]
    )
    joined = (
        "If they are the slices of one stack after all, say so with the axes, for "
        'example axes="ZYX".'
    )
    if stacks:
        joined = (
            "If they are the time points or channels of one stack, say so with the "
            'axes, for example axes="TZYX" or axes="CZYX".'
        )
    return FocusFusionError(
        f"The files in {folder!r} are {len(sets)} stacks, or positions, by their names "
        f"and contents: {listed}{'; ...' if len(sets) > 8 else ''}. Open one of them, "
        "by its file or pattern; or fuse all of them on the command line, which makes "
        f"one result of each. {joined}"
    )


def _stack_of(source: Source, axes: str | None) -> FocusStack:
    """Make a stack of what a reader found; the caller's axes win."""
    return stack_from_array(
        source.data,
        axes=axes,
        hint=source.axes,
        name=source.name,
        scale=source.scale,
        units=source.units,
        channel_names=source.channel_names,
        source=", ".join(str(file["file"]) for file in source.files) or source.path,
        display=source.display,
        notes=source.notes,
        files=source.files,
    )


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
