"""What is whole of a TIFF file of which planes are missing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import Selection, SliceList
from napari_focus_fusion.read.whole import note_on_missing, whole_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_focus_fusion.read.source import Source


def without_missing(
    source: Source, present: NDArray[np.bool_], *, early: bool
) -> Source:
    """A source without the planes that are missing, and what lacks them."""
    letters = (source.axes or "?" * present.ndim)[: present.ndim]
    kept = whole_part(present, letters)
    if not all(kept):
        raise FocusFusionError(
            f"{source.path!r} is incomplete: none of its planes is there. Put all "
            "files of the data set into one folder."
        )
    why = "that the metadata list are missing"
    if early:
        why = "are missing or not whole, since the file ends early"
    note = _note_on_planes(letters, kept, present, why)
    channels = source.channel_names
    display = dict(source.display)
    if channels and "C" in letters:
        indices = kept[letters.index("C")]
        channels = tuple(channels[i] for i in indices)
        if "colormap" in display:
            display["colormap"] = [display["colormap"][i] for i in indices]
    files = tuple(
        {**file, **{a: kept[letters.index(a)].index(file[a]) for a in letters}}
        if "planes" not in file
        else file
        for file in source.files
        if "planes" in file or all(file[a] in kept[letters.index(a)] for a in letters)
    )
    return replace(
        source,
        data=Selection(source.data, kept),
        notes=(*source.notes, note),
        channel_names=channels,
        display=display,
        files=files,
    )


def cut_hyperstack(source: Source, sizes: Mapping[str, int], whole: int) -> Source:
    """The whole part of a stack that lists more planes than are there."""
    letters = "".join(axis for axis, n in sizes.items() if n > 1)
    shape = [sizes[axis] for axis in letters]
    present = (np.arange(np.prod(shape)) < whole).reshape(shape)
    kept = whole_part(present, letters)
    pages = np.arange(present.size).reshape(shape)[np.ix_(*kept)].ravel()
    axes = source.axes or ""
    lead = [1] if "Z" in axes else []
    items = [Selection(source.data, [[int(i)] for _ in lead]) for i in pages]
    data = SliceList(items, [axes] * len(items), [len(indices) for indices in kept])
    note = _note_on_planes(letters, kept, present, "that are listed are missing")
    return replace(
        source,
        data=data,
        axes=letters + axes.replace("Z", ""),
        notes=(*source.notes, note),
    )


def _note_on_planes(
    letters: str, kept: list[list[int]], present: NDArray[np.bool_], why: str
) -> str:
    left_out = {
        axis: [i for i in range(n) if i not in indices]
        for axis, n, indices in zip(letters, present.shape, kept, strict=True)
    }
    missing = int(present.size - present.sum())
    return note_on_missing(
        letters,
        left_out,
        lambda _, index: str(index),
        f"counted from 0: {missing} of {present.size} planes {why}",
    )
