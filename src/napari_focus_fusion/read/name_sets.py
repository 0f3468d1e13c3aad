"""Files in the order of the axes that their names have, and what is missing there."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.read.name_columns import Column, text_of
from napari_focus_fusion.read.name_errors import incomplete_set, same_place
from napari_focus_fusion.read.names import name_of_slices, pattern_of, stem
from napari_focus_fusion.read.whole import note_on_missing, whole_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_focus_fusion.read.name_roles import Roles


@dataclass(frozen=True)
class NamedSet:
    """Files that make one stack by their names.

    Attributes
    ----------
    name
        What the stack is called.
    axes
        What varies in the names, out of ``TCZ``, in this order; may be empty.
    shape
        How many of each.
    files
        In the order of the axes, the last one varying fastest.
    members
        These files, and after them those that are left out since others are missing.
    values
        The words or numbers in the names along each axis, as they stand there.
    spacing
        Distance of the slices in micrometres, where the names have it; else None.
    pattern
        A glob pattern of these files alone.
    notes
        What is missing or was guessed, in sentences for the user.
    axis_is_stated
        Whether Z is called so in the names, and not only what is left.
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    files: tuple[str, ...]
    members: tuple[str, ...]
    values: tuple[tuple[str, ...], ...] = ()
    spacing: float | None = None
    pattern: str = ""
    notes: tuple[str, ...] = ()
    axis_is_stated: bool = False

    def places(self) -> list[dict[str, int]]:
        """Which index along each axis each of `files` has."""
        indices = product(*map(range, self.shape))
        return [dict(zip(self.axes, index, strict=True)) for index in indices]


def flat_set(files: Sequence[str], axis: str = "Z") -> NamedSet:
    """Files along one axis, in the order given, whatever their names are."""
    if len(files) == 1:
        return NamedSet(stem(files[0]), "", (), tuple(files), tuple(files))
    name = name_of_slices(files)
    return NamedSet(name, axis, (len(files),), tuple(files), tuple(files))


def sets_of_roles(roles: Roles, files: Sequence[str], in_order: bool) -> list[NamedSet]:
    """Sort files into stacks by their columns, and each stack by its axes."""
    members: dict[tuple[Any, ...], list[int]] = {}
    for i in range(len(files)):
        group = tuple(column.keys[i] for column in roles.groups)
        members.setdefault(group, []).append(i)
    if not in_order:
        members = {group: members[group] for group in sorted(members)}
    sets: list[NamedSet] = []
    for indices in members.values():
        sets += _arranged(roles, indices, files, in_order)
    return sets


def _arranged(
    roles: Roles, group: list[int], files: Sequence[str], in_order: bool
) -> list[NamedSet]:
    """The files of one stack in the order of its axes; what is not whole left out."""
    axes = {a: c for a, c in roles.axes.items() if len({c.keys[i] for i in group}) > 1}
    if not axes and "Z" in roles.axes and len(group) > 1:
        raise same_place(files, group)
    places: dict[tuple[Any, ...], int] = {}
    for i in group:
        place = tuple(column.keys[i] for column in axes.values())
        if place in places:
            raise same_place(files, [places[place], i])
        places[place] = i
    letters = "".join(axes)
    if "C" in axes and "Z" in axes and _channels_share_no_slice(letters, places):
        channel = letters.index("C")
        parts = sorted({place[channel] for place in places})
        fewer = roles._replace(axes={a: c for a, c in axes.items() if a != "C"})
        return [
            one
            for part in parts
            for one in _arranged(
                fewer, [i for p, i in places.items() if p[channel] == part], files, True
            )
        ]
    order = {
        axis: _in_order([column.keys[i] for i in group], in_order)
        for axis, column in axes.items()
    }
    order, notes = _whole_part(order, places, axes, files)
    kept = [places[place] for place in product(*order.values())]
    texts = tuple(
        tuple(text_of(axes[axis], value) for value in values)
        for axis, values in order.items()
    )
    spacing, uneven = _spacing(axes.get("Z"), order.get("Z", []))
    chosen = tuple(files[i] for i in kept)
    return [
        NamedSet(
            name=stem(chosen[0]) if len(chosen) == 1 else name_of_slices(chosen),
            axes=letters,
            shape=tuple(map(len, order.values())),
            files=chosen,
            members=(*chosen, *(files[i] for i in group if i not in kept)),
            values=texts,
            spacing=spacing,
            pattern=pattern_of(chosen, files),
            notes=(*roles.notes, *notes, *uneven),
            axis_is_stated=roles.stated,
        )
    ]


def _channels_share_no_slice(letters: str, places: Iterable[tuple[Any, ...]]) -> bool:
    """Whether no number is there in two channels: they count the files instead."""
    c, z = letters.index("C"), letters.index("Z")
    channels: dict[Any, set[Any]] = {}
    for place in places:
        channels.setdefault(place[z], set()).add(place[c])
    slices = {place[c]: 0 for place in places}
    return all(len(found) == 1 for found in channels.values()) and len(slices) > 1


def _in_order(keys: Sequence[Any], in_order: bool) -> list[Any]:
    distinct = list(dict.fromkeys(keys))
    return distinct if in_order else sorted(distinct)


def _whole_part(
    order: dict[str, list[Any]],
    places: Iterable[tuple[Any, ...]],
    axes: dict[str, Column],
    files: Sequence[str],
) -> tuple[dict[str, list[Any]], list[str]]:
    """Leave out channels, time points and slices of which files are missing."""
    present = np.zeros([len(values) for values in order.values()], bool)
    for place in places:
        at = zip(order.values(), place, strict=True)
        present[tuple(values.index(value) for values, value in at)] = True
    indices = whole_part(present, "".join(order))
    if math.prod(map(len, indices)) * 2 < present.sum():
        raise incomplete_set(order, present, axes, files)
    left_out = {
        axis: [value for i, value in enumerate(values) if i not in kept]
        for (axis, values), kept in zip(order.items(), indices, strict=True)
    }
    notes: list[str] = []
    if any(left_out.values()):
        missing = int(present.size - present.sum())
        notes.append(
            note_on_missing(
                "TCZ",
                left_out,
                lambda axis, value: text_of(axes[axis], value),
                f"since by their names {missing} of {present.size} files are missing",
            )
        )
    order = {
        axis: [values[i] for i in kept]
        for (axis, values), kept in zip(order.items(), indices, strict=True)
    }
    if "Z" in order and not left_out.get("Z"):
        notes += _gaps(axes["Z"], order["Z"])
    return order, notes


def _gaps(column: Column, values: Sequence[Any]) -> list[str]:
    """A note on numbers that are missing in a count of slices."""
    plain = all(re.fullmatch(r"[-+]?\d+", text) for text in column.texts)
    if not _are_numbers(values) or column.length or column.stamp or not plain:
        return []
    numbers = sorted(values)
    if len(numbers) < 3:
        return []
    steps = Counter(high - low for low, high in pairwise(numbers))
    step, count = steps.most_common(1)[0]
    if len(steps) == 1 or count * 2 < len(numbers):
        return []
    missing = [
        low + step * k
        for low, high in pairwise(numbers)
        for k in range(1, round((high - low) / step))
    ]
    width = min(map(len, column.texts))
    listed = ", ".join(f"{int(number):0{width}d}" for number in missing[:8])
    more = ", ..." if len(missing) > 8 else ""
    note = (
        f"The numbers in the names leave out {listed}{more}: slices may be missing. "
        "Depths are counted in slices that are there."
    )
    return [note] if missing else []


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, float) for value in values)


def _spacing(
    column: Column | None, values: Sequence[Any]
) -> tuple[float | None, list[str]]:
    """Distance of the slices, if their names have lengths; a note where it varies."""
    if column is None or not _are_numbers(values) or len(values) < 2:
        return None, []
    fractions = any(not re.fullmatch(r"[-+]?\d+", text) for text in column.texts)
    if not (column.length or fractions):
        return None, []
    steps = [abs(high - low) for low, high in pairwise(values)]
    if max(steps) - min(steps) > 0.02 * max(steps):
        return None, [
            f"By their names the slices are {min(steps):g} to {max(steps):g} apart; "
            "depths are counted as if they were equally far apart."
        ]
    mean = math.fsum(steps) / len(steps)
    return (float(f"{mean:.6g}") if column.length else None), []
