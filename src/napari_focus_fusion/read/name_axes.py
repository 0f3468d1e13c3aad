"""What varies in the names of files: slices, channels, time points, separate stacks.

``img_000000000_DAPI_003.tif`` is a slice of a channel; ``A01_s2_z07.tif`` one of a
field of a well. No file is opened here.
"""

from __future__ import annotations

import fnmatch
import glob
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.name_columns import (
    ODD_SHARE,
    Column,
    Token,
    columns_of,
    fields_of,
)
from napari_focus_fusion.read.names import name_of_slices, natural_key, stem
from napari_focus_fusion.read.whole import note_on_missing, whole_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_THUMBNAIL = re.compile(r"(^|[^a-z])thumb(nail)?s?([^a-z]|$)", re.IGNORECASE)


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


def is_no_slice(name: str) -> bool:
    """Whether a file name is that of a hidden file or a thumbnail."""
    return name.startswith(".") or bool(_THUMBNAIL.search(os.path.splitext(name)[0]))


def sets_by_name(
    paths: Sequence[str], *, in_order: bool = False, stacks: bool = False
) -> list[NamedSet]:
    """Sort files into stacks by what varies in their names.

    Parameters
    ----------
    paths
        Files of one plane each.
    in_order
        Whether they are in the order of their slices already: a list that a user gave.
    stacks
        Whether the files hold whole stacks instead: their names can say time points
        and channels, and all else tells stacks apart.

    Returns
    -------
    list of NamedSet
        One a stack; those of positions, wells and unknown words each on their own.

    Raises
    ------
    FocusFusionError
        If a name is the odd one, or it cannot be known what varies.
    """
    files = list(paths) if in_order else sorted(paths, key=natural_key)
    if len(files) == 1:
        return [flat_set(files)]
    names = _names_within(files)
    kinds = _by_suffix(files)
    if len(kinds) > 1:
        return [found for kind in kinds for found in sets_by_name(kind, stacks=stacks)]
    fields = [fields_of(name) for name in names]
    counts = Counter(map(len, fields))
    if len(counts) > 1:
        return _sets_of_templates(files, fields, counts, in_order, stacks)
    columns, odd = columns_of(fields)
    if in_order and not columns:
        return [flat_set(files)]
    if odd:
        raise _odd(files, odd)
    columns = _reduced(columns)
    roles = _assigned(columns, files, names, in_order=in_order, stacks=stacks)
    return _split(roles, files, in_order)


def set_by_axes(paths: Sequence[str], axes: str, *, in_order: bool) -> NamedSet:
    """Arrange files along axes that the user named.

    Parameters
    ----------
    paths
        Files of one plane each.
    axes
        One letter out of ``TCZ`` for each part of the names that varies, in the order
        of the names; a single letter is for all of them.
    in_order
        As in :func:`sets_by_name`.

    Raises
    ------
    FocusFusionError
        If as many parts do not vary, or files are missing.
    """
    files = list(paths) if in_order else sorted(paths, key=natural_key)
    fields = [fields_of(name) for name in _names_within(files)]
    alike = len(set(map(len, fields))) == 1
    columns = _reduced(columns_of(fields)[0]) if alike else []
    if len(axes) == 1:
        if not in_order and len(columns) == 1:
            files = [f for _, f in sorted(zip(columns[0].keys, files, strict=True))]
        return flat_set(files, axes)
    if len(columns) != len(axes):
        raise FocusFusionError(
            f"The axes {axes} were given for the files in {_folder(files)}, but "
            f"{len(columns)} parts of their names vary. Give one letter for each, in "
            "the order of the name, and then those of a file."
        )
    roles = _Roles(dict(zip(axes, columns, strict=True)), [], True)
    (found,) = _split(roles, files, in_order)
    return found


def _names_within(files: Sequence[str]) -> list[str]:
    """Names without endings, with the folders in which the files differ."""
    folders = [os.path.dirname(os.path.abspath(file)) for file in files]
    common = os.path.commonpath(folders)
    return [
        os.path.join(os.path.relpath(folder, common), stem(file)).removeprefix("./")
        for folder, file in zip(folders, files, strict=True)
    ]


def _by_suffix(files: Sequence[str]) -> list[list[str]]:
    """Files by their kind, where the same names are there in several kinds."""
    kinds: dict[str, list[str]] = {}
    for file in files:
        suffix = os.path.splitext(file)[1].lower()
        kinds.setdefault({".tiff": ".tif", ".jpeg": ".jpg"}.get(suffix, suffix), [])
        kinds[{".tiff": ".tif", ".jpeg": ".jpg"}.get(suffix, suffix)].append(file)
    stems = [{os.path.splitext(file)[0] for file in kind} for kind in kinds.values()]
    twice = any(one & two for i, one in enumerate(stems) for two in stems[:i])
    return list(kinds.values()) if twice else [list(files)]


# Columns to axes ----------------------------------------------------------------------


def _reduced(columns: list[Column]) -> list[Column]:
    """Leave out what says the same again, and numbers that only count files."""
    rank = ["Z", "C", "T", "place", "word", "maybe place", "number"]
    kept: list[Column] = []
    for column in sorted(columns, key=lambda column: rank.index(column.role)):
        if not any(_same(column, other) for other in kept):
            kept.append(column)
    named = [column for column in kept if column.role not in ("number", "maybe place")]
    if len(kept) > len(named) and any(column.role == "Z" for column in named):
        if _identify(named):
            kept = [c for c in kept if c in named or not _counts_files(c)]
    return [column for column in columns if column in kept]


def _same(one: Column, other: Column) -> bool:
    pairs = len(set(zip(one.keys, other.keys, strict=True)))
    return pairs == len(set(one.keys)) == len(set(other.keys))


def _identify(columns: Sequence[Column]) -> bool:
    together = set(zip(*(column.keys for column in columns), strict=True))
    return len(together) == len(columns[0].keys)


def _counts_files(column: Column) -> bool:
    return column.stamp or len(set(column.keys)) == len(column.keys)


class _Roles(NamedTuple):
    axes: dict[str, Column]
    groups: list[Column]
    stated: bool
    notes: tuple[str, ...] = ()


def _assigned(
    columns: list[Column],
    files: Sequence[str],
    names: Sequence[str],
    *,
    in_order: bool,
    stacks: bool,
) -> _Roles:
    """Which column is which axis; the rest tell stacks apart."""
    by_role: dict[str, list[Column]] = {}
    for column in columns:
        by_role.setdefault(column.role, []).append(column)
    words = by_role.get("word", [])
    if len(words) == 1 and "C" not in by_role and _is_micromanager(names):
        by_role["C"] = [words.pop()]
    notes: tuple[str, ...] = ()
    stated = "Z" in by_role
    if not stated and not stacks:
        z, notes = _z_of_the_rest(by_role, files, names)
        if z is not None:
            by_role["Z"] = [z]
        notes = () if in_order else notes
    axes: dict[str, Column] = {}
    for axis in "TC" if stacks else "TCZ":
        found = by_role.get(axis, [])
        if len(found) > 1 and axis == "Z":
            raise _unclear(files, found)
        if found:
            axes[axis] = found[0]
    groups = [column for column in columns if column not in axes.values()]
    return _Roles(axes, groups, stated, notes)


def _z_of_the_rest(
    by_role: dict[str, list[Column]], files: Sequence[str], names: Sequence[str]
) -> tuple[Column | None, tuple[str, ...]]:
    """The column that is Z though its name does not say so; None if none can be."""
    numbers, maybe = by_role.get("number", []), by_role.get("maybe place", [])
    if len(numbers) == 2 and _is_micromanager(names):
        by_role["T"] = [numbers[0]]
        return numbers[1], ()
    if len(numbers) > 1 and sum(column.stamp for column in numbers) == 1:
        numbers = [column for column in numbers if not column.stamp]
    if len(numbers) > 1:
        raise _unclear(files, numbers)
    letters = [c for c in by_role.get("word", []) if all(len(t) == 1 for t in c.texts)]
    if numbers and letters:  # lytro-01-A.jpg: either may count the slices
        raise _unclear(files, [*numbers, *letters])
    if numbers:
        return numbers[0], ()
    if len(maybe) == 1 and len(by_role) == 1:
        return maybe[0], _doubt(maybe[0])
    words = by_role.get("word", [])
    if len(words) == 1 and len(by_role) == 1:
        texts = list(dict.fromkeys(words[0].texts))
        if all(len(text) == 1 for text in texts) or _one_letter_apart(texts):
            return words[0], ()
        if any(map(str.isdigit, "".join(texts))):
            raise _unclear(files, words)
        listed = ", ".join(texts[:8]) + (", ..." if len(texts) > 8 else "")
        note = f"The names have no numbers; the slices are in the order {listed}."
        return words[0], (note,)
    return None, ()


def _doubt(column: Column) -> tuple[str, ...]:
    """A note where what was taken for slices may be positions as well."""
    if isinstance(column.keys[0], tuple):
        no_well = any(not number for _, number in column.keys)
        if no_well or all(text[0].islower() for text in column.texts):
            return ()  # a00.jpg
    first, last = (
        _text_of(column, key) for key in (min(column.keys), max(column.keys))
    )
    return (
        f"{first} to {last} in the names was taken to count the slices. If these are "
        "positions or wells, the files are no focus stack.",
    )


def _one_letter_apart(texts: Sequence[str]) -> bool:
    """Whether words end in A, B, C and are the same otherwise."""
    return len({text[:-1].casefold() for text in texts}) == 1


def _is_micromanager(names: Sequence[str]) -> bool:
    pattern = re.compile(r"img_\d{9}_.*_\d{3,}")
    return all(pattern.fullmatch(os.path.basename(name)) for name in names)


# Axes to stacks -----------------------------------------------------------------------


def _split(roles: _Roles, files: Sequence[str], in_order: bool) -> list[NamedSet]:
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
    roles: _Roles, group: list[int], files: Sequence[str], in_order: bool
) -> list[NamedSet]:
    """The files of one stack in the order of its axes; what is not whole left out."""
    axes = {a: c for a, c in roles.axes.items() if len({c.keys[i] for i in group}) > 1}
    if not axes and "Z" in roles.axes and len(group) > 1:
        raise _same_place(files, group)
    places: dict[tuple[Any, ...], int] = {}
    for i in group:
        place = tuple(column.keys[i] for column in axes.values())
        if place in places:
            raise _same_place(files, [places[place], i])
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
        tuple(_text_of(axes[axis], value) for value in values)
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
            pattern=_pattern(chosen, files),
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


def _text_of(column: Column, key: Any) -> str:
    return column.texts[column.keys.index(key)]


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
        raise _incomplete(order, present, axes, files)
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
                lambda axis, value: _text_of(axes[axis], value),
                f"since by their names {missing} of {present.size} files are missing",
            )
        )
    order = {
        axis: [values[i] for i in kept]
        for (axis, values), kept in zip(order.items(), indices, strict=True)
    }
    if "Z" in order:
        notes += _gaps(axes["Z"], order["Z"])
    return order, notes


def _incomplete(
    order: dict[str, list[Any]],
    present: NDArray[np.bool_],
    axes: dict[str, Column],
    files: Sequence[str],
) -> FocusFusionError:
    lacking = np.argwhere(~present)
    words = {"T": "time point", "C": "channel", "Z": "slice"}
    first = ", ".join(
        f"{words[axis]} {_text_of(axes[axis], values[i])}"
        for (axis, values), i in zip(order.items(), lacking[0], strict=True)
    )
    more = f", nor for {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return FocusFusionError(
        f"The files in {_folder(files)} do not make a whole stack: by their names "
        f"there is none for {first}{more}. Put what is missing there, or name the "
        "files of one whole stack with a pattern."
    )


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


def _pattern(chosen: Sequence[str], files: Sequence[str]) -> str:
    """A glob pattern of some of the files alone; empty if there is no simple one."""
    first = re.split(r"(\d+|[^\W\d_]+)", glob.escape(chosen[0]))
    pattern = os.path.commonprefix([glob.escape(f) for f in chosen]) + "*"  # noqa: RUF071
    rest = [re.split(r"(\d+|[^\W\d_]+)", glob.escape(file)) for file in chosen[1:]]
    if all(len(parts) == len(first) for parts in rest):
        parts = [
            part if all(other[i] == part for other in rest) else "*"
            for i, part in enumerate(first)
        ]
        pattern = re.sub(r"\*+", "*", "".join(parts))
    matched = sum(fnmatch.fnmatchcase(file, pattern) for file in files)
    return pattern if matched == len(chosen) else ""


def _sets_of_templates(
    files: list[str],
    fields: Sequence[list[list[Token]]],
    counts: Counter[int],
    in_order: bool,
    stacks: bool,
) -> list[NamedSet]:
    """Names of several kinds: a few odd ones are named, else each kind is apart."""
    many, count = counts.most_common(1)[0]
    few = [i for i, found in enumerate(fields) if len(found) != many]
    if in_order:
        return [flat_set(files)]
    if count >= 3 and len(few) <= max(1, ODD_SHARE * len(files)):
        raise _odd(files, few)
    kinds: dict[int, list[str]] = {}
    for file, found in zip(files, fields, strict=True):
        kinds.setdefault(len(found), []).append(file)
    return [
        found for kind in kinds.values() for found in sets_by_name(kind, stacks=stacks)
    ]


def flat_set(files: Sequence[str], axis: str = "Z") -> NamedSet:
    """Files along one axis, in the order given, whatever their names are."""
    if len(files) == 1:
        return NamedSet(stem(files[0]), "", (), tuple(files), tuple(files))
    name = name_of_slices(files)
    return NamedSet(name, axis, (len(files),), tuple(files), tuple(files))


# Errors -------------------------------------------------------------------------------


def _odd(files: Sequence[str], odd: Sequence[int]) -> FocusFusionError:
    rest = [file for i, file in enumerate(files) if i not in odd]
    listed = ", ".join(repr(os.path.basename(files[i])) for i in odd[:5])
    are = "is" if len(odd) == 1 else "are"
    return FocusFusionError(
        f"{listed} {are} named unlike the other {len(rest)} files in {_folder(files)} "
        f"({os.path.basename(rest[0])} to {os.path.basename(rest[-1])}). Take "
        f"{'it' if len(odd) == 1 else 'them'} out of the folder, or name the slices "
        f"with a pattern like {_pattern(rest, files) or 'folder/z*.tif'!r}."
    )


def _unclear(files: Sequence[str], columns: Sequence[Column]) -> FocusFusionError:
    ranges = " and ".join(
        f"{_text_of(c, min(c.keys))} to {_text_of(c, max(c.keys))}" for c in columns
    )
    return FocusFusionError(
        f"In the names of the {len(files)} files in {_folder(files)} several numbers "
        f"or letters vary ({ranges}), and they do not say which counts the slices. "
        "Name the files of one stack with a pattern, or put a letter before "
        "each number as in t01_c2_z003; or say with the axes what they are, one letter "
        "for each number"
        'in the order of the name and those of a file, for example axes="TZYX".'
    )


def _same_place(files: Sequence[str], same: Sequence[int]) -> FocusFusionError:
    one, two = (os.path.basename(files[i]) for i in same[:2])
    return FocusFusionError(
        f"{one!r} and {two!r} in {_folder(files)} would be the same slice by their "
        "names. Take one of them out, or name the slices of one stack with a pattern."
    )


def _folder(files: Sequence[str]) -> str:
    folders = {os.path.dirname(os.path.abspath(file)) for file in files}
    return repr(os.path.commonpath(list(folders)))
