"""What to say where names of files do not make a stack, or cannot be read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.name_columns import Column, text_of
from napari_focus_fusion.read.names import pattern_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def odd_name(files: Sequence[str], odd: Sequence[int]) -> FocusFusionError:
    """A few names, by their indices, that are unlike the many."""
    rest = [file for i, file in enumerate(files) if i not in odd]
    listed = ", ".join(repr(os.path.basename(files[i])) for i in odd[:5])
    are = "is" if len(odd) == 1 else "are"
    return FocusFusionError(
        f"{listed} {are} named unlike the other {len(rest)} files in "
        f"{folder_of(files)} ({os.path.basename(rest[0])} to "
        f"{os.path.basename(rest[-1])}). Take "
        f"{'it' if len(odd) == 1 else 'them'} out of the folder, or name the slices "
        f"with a pattern like {pattern_of(rest, files) or 'folder/z*.tif'!r}."
    )


def unclear_names(files: Sequence[str], columns: Sequence[Column]) -> FocusFusionError:
    """Several parts of the names vary, and which counts the slices is not said."""
    ranges = " and ".join(
        f"{text_of(c, min(c.keys))} to {text_of(c, max(c.keys))}" for c in columns
    )
    return FocusFusionError(
        f"In the names of the {len(files)} files in {folder_of(files)} several numbers "
        f"or letters vary ({ranges}), and they do not say which counts the slices. "
        "Name the files of one stack with a pattern, or put a letter before "
        "each number as in t01_c2_z003; or say with the axes what they are, one letter "
        "for each number "
        'in the order of the name and those of a file, for example axes="TZYX".'
    )


def same_place(files: Sequence[str], same: Sequence[int]) -> FocusFusionError:
    """Two files, by their indices, that would be the same slice."""
    one, two = (os.path.basename(files[i]) for i in same[:2])
    return FocusFusionError(
        f"{one!r} and {two!r} in {folder_of(files)} would be the same slice by their "
        "names. Take one of them out, or name the slices of one stack with a pattern."
    )


def incomplete_set(
    order: dict[str, list[Any]],
    present: NDArray[np.bool_],
    axes: dict[str, Column],
    files: Sequence[str],
) -> FocusFusionError:
    """So many files are missing that what is whole is no stack any more."""
    lacking = np.argwhere(~present)
    words = {"T": "time point", "C": "channel", "Z": "slice"}
    first = ", ".join(
        f"{words[axis]} {text_of(axes[axis], values[i])}"
        for (axis, values), i in zip(order.items(), lacking[0], strict=True)
    )
    more = f", nor for {len(lacking) - 1} more" if len(lacking) > 1 else ""
    return FocusFusionError(
        f"The files in {folder_of(files)} do not make a whole stack: by their names "
        f"there is none for {first}{more}. Put what is missing there, or name the "
        "files of one whole stack with a pattern."
    )


def folder_of(files: Sequence[str]) -> str:
    """The folder that all files are in, as text for messages."""
    folders = {os.path.dirname(os.path.abspath(file)) for file in files}
    return repr(os.path.commonpath(list(folders)))
