"""The whole part of a stack of which planes are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

_WORDS = {"T": "time point", "C": "channel", "Z": "slice"}


def whole_part(present: NDArray[np.bool_], axes: str) -> list[list[int]]:
    """Leave out what lacks most planes, one index after the other, until none lacks.

    A time point goes rather than a slice or channel of all time points.

    Parameters
    ----------
    present
        Whether each plane is there, one axis for each axis in front of the plane.
    axes
        One letter for each of them.

    Returns
    -------
    list of list of int
        For each axis the indices that stay; empty lists if no plane is there.
    """
    if present.ndim == 1:
        return [np.flatnonzero(present).tolist()]
    kept = [list(range(n)) for n in present.shape]
    if not present.any():
        return [[] for _ in kept]
    while not present.all():
        worst: tuple[float, int, int] = (0.0, 0, 0)
        for axis in range(present.ndim):
            if present.shape[axis] == 1:  # without it nothing would be left
                continue
            rest = tuple(i for i in range(present.ndim) if i != axis)
            lacking = (1 - present.mean(axis=rest)) * (2 if axes[axis] == "T" else 1)
            last = len(lacking) - 1 - int(np.argmax(lacking[::-1]))
            if lacking[last] > worst[0]:
                worst = (float(lacking[last]), axis, last)
        _, axis, index = worst
        present = np.delete(present, index, axis)
        del kept[axis][index]
    return kept


def note_on_missing(
    axes: str,
    left_out: Mapping[str, Sequence[Any]],
    text: Callable[[str, Any], str],
    why: str,
) -> str:
    """A sentence that names what is left out.

    Parameters
    ----------
    axes
        The axes, out of ``TCZ``.
    left_out
        By axis what is left out.
    text
        How a value of an axis is called.
    why
        What is missing there, as the end of the sentence.
    """
    parts = []
    for axis in axes:
        values = left_out.get(axis, ())
        if values:
            listed = ", ".join(text(axis, value) for value in values[:8])
            more = ", ..." if len(values) > 8 else ""
            word = _WORDS.get(axis, f"index of {axis}")
            parts.append(f"{word}{'s' * (len(values) > 1)} {listed}{more}")
    return f"Left out: {'; '.join(parts)}, {why}."
