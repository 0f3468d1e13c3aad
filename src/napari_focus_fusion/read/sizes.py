"""Pixel sizes as files state them: which are sizes at all, and notes on others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What a file states of an axis, right or wrong, and in what unit.
Stated = tuple[Any, str]


_OF_ALL_AXES = "The metadata state"
# Dots per inch of printers and scanners; screens have fewer.
_PRINT = (100, 120, 144, 150, 180, 200, 240, 300, 360, 400, 600, 720, 1200, 2400, 4800)


class Sizes(NamedTuple):
    """Pixel sizes and units by axis letter, and notes on those that are wrong."""

    scale: dict[str, float]
    units: dict[str, str]
    notes: tuple[str, ...] = ()


def positive(value: Any) -> float | None:
    """A finite number above 0, else None."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def agreed_sizes(
    statements: Iterable[Mapping[str, Stated]], axes: str | None = None
) -> Sizes:
    """For each axis the first size that is one; a note where there are only wrong ones.

    Parameters
    ----------
    statements
        What each part of the metadata states, by axis letter, the most trusted first.
    axes
        Axes of the source, of which a wrong size is worth a note; None: T, Z, Y and X.
    """
    scale: dict[str, float] = {}
    units: dict[str, str] = {}
    wrong: dict[str, Any] = {}
    for statement in statements:
        for axis, (value, unit) in statement.items():
            size = positive(value)
            if size is None:
                wrong.setdefault(axis, value)
            elif axis not in scale:
                scale[axis], units[axis] = size, unit
    noted = [axis for axis in "TZYX" if axes is None or axis in axes]
    notes = [
        size_note(axis, wrong[axis])
        for axis in noted
        if axis in wrong and axis not in scale
    ]
    return Sizes(scale, units, tuple(notes))


def size_note(axis: str, value: Any) -> str:
    """Note on a size that is none."""
    return (
        f"{_start(axis)} is stated as {value}, which is not a positive number, and "
        "taken as unknown. Give it: as_stack(..., scale={'" + axis + "': ...}), or "
        f"--pixel-size {axis}=... on the command line."
    )


def note_on_count(values: Any, count: int) -> str:
    """Note on sizes or a place that are not one number for each of `count` axes."""
    return (
        f"{_OF_ALL_AXES} {values} for {count} axes as pixel sizes or place, which "
        "were taken as unknown. Give the sizes: as_stack(..., scale={...}), or "
        "--pixel-size on the command line."
    )


def without_sizes_of(notes: Iterable[str], axes: Iterable[str]) -> tuple[str, ...]:
    """Notes without those on the sizes of axes whose size is given after all."""
    starts = tuple(map(_start, axes))
    if set("ZYX") <= set(axes):
        starts += (_OF_ALL_AXES,)
    return tuple(note for note in notes if not (starts and note.startswith(starts)))


def _start(axis: str) -> str:
    what = "time between two points" if axis == "T" else f"pixel size along {axis}"
    return f"The {what}"


def is_for_print(dots: float) -> bool:
    """Whether dots per inch say how to show or print a picture, not what is in it."""
    return dots < 99 or any(abs(dots - one) < 0.005 * one for one in _PRINT)
