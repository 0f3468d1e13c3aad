"""Which of what varies in the names of files is which axis."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from napari_focus_fusion.read.name_columns import Column, text_of
from napari_focus_fusion.read.name_errors import unclear_names

if TYPE_CHECKING:
    from collections.abc import Sequence


class Roles(NamedTuple):
    """Columns by what they are; `groups` tell stacks apart, `stated` is about Z."""

    axes: dict[str, Column]
    groups: list[Column]
    stated: bool
    notes: tuple[str, ...] = ()


def reduced(columns: list[Column]) -> list[Column]:
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


def assigned(
    columns: list[Column],
    files: Sequence[str],
    names: Sequence[str],
    *,
    in_order: bool,
    stacks: bool,
) -> Roles:
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
            raise unclear_names(files, found)
        if found:
            axes[axis] = found[0]
    groups = [column for column in columns if column not in axes.values()]
    return Roles(axes, groups, stated, notes)


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
        raise unclear_names(files, numbers)
    letters = [c for c in by_role.get("word", []) if all(len(t) == 1 for t in c.texts)]
    if numbers and letters:  # lytro-01-A.jpg: either may count the slices
        raise unclear_names(files, [*numbers, *letters])
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
            raise unclear_names(files, words)
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
    first, last = (text_of(column, key) for key in (min(column.keys), max(column.keys)))
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
