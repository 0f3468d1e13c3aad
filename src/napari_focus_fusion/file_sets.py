"""Several files as one stack: slices, channels and time points by their names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_focus_fusion.arrays import joined, stack_from_array, with_axes
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read import files_of_set, read_path
from napari_focus_fusion.read.name_axes import (
    NamedSet,
    flat_set,
    is_no_slice,
    set_by_axes,
    sets_by_name,
)
from napari_focus_fusion.read.own_results import is_own_result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_focus_fusion.read.source import Source
    from napari_focus_fusion.stack import FocusStack

_Name = TypeVar("_Name", Path, str, Path | str)


def open_file(
    path: str, *, axes: str | None = None, series: int | str | None = None
) -> FocusStack:
    """Open what one file, Zarr or address holds."""
    return stack_of_source(read_path(path, axes=axes, series=series), axes)


def stack_of_source(source: Source, axes: str | None) -> FocusStack:
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
    return with_axes(stack, axes) if given else stack


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
    return with_axes(_stack_of_set(flat_set(paths), opened), axes)


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
        "of one, by their names. If each is one of its own, fuse them one by one (on "
        f"the command line with --axes {opened[found.files[0]].axes})."
    )
    given = axes is not None and axes.upper() != stack.axes
    stack = with_axes(stack, axes) if given else stack
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
