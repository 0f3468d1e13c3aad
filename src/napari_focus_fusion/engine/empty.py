"""Slices that do not fill their plane: bands of zeros that a stage or a file left.

Slices of a mosaic, or slices moved onto each other, often end inside the plane, and are
zero beyond. Such bands look like edges and like the darkest of all backgrounds; here
they are masked, so that these pixels are absent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.lazy import LazyArray, take
from napari_focus_fusion.tiling import Rectangle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_focus_fusion.lazy import Pixels
    from napari_focus_fusion.stack import FocusStack

#: A band ends at a line of which at least this share is not zero: dark background
#: ends where a few bright pixels begin.
LEAST_FILLED = 0.5


def without_empty_bands(stack: FocusStack) -> FocusStack:
    """The stack with bands of zeros along the edges of its slices masked.

    Only where another slice has pixels: a border that all slices share stays as it is.
    Nothing is read before pixels are.
    """
    if stack.n_slices == 1:
        return stack
    return replace(stack, data=WithoutEmptyBands(stack.data, stack.axes))


class WithoutEmptyBands(LazyArray):
    """An array of slices, masked where a slice is an empty band and another is not.

    Parameters
    ----------
    data
        The slices.
    axes
        Their axes, one letter a dimension, Z among them.
    """

    def __init__(self, data: Pixels, axes: str) -> None:
        self.data, self.axes = data, axes
        self._filled: dict[int, list[Rectangle]] = {}
        chunks = getattr(data, "chunksize", getattr(data, "chunks", None))
        super().__init__(data.shape, data.dtype, chunks)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        region = take(self.data, spans)
        picks = {
            axis: range(*span.indices(length))
            for axis, span, length in zip(self.axes, spans, self.shape, strict=True)
        }
        mask = None
        for i, t in enumerate(picks.get("T", (0,))):
            absent = self._absent(t, picks["Z"], picks["Y"], picks["X"])
            if absent is None:
                continue
            if mask is None:
                mask = np.ma.getmaskarray(region).copy()
            # Z, Y and X come in this order in every stack.
            kept = [
                len(picks[axis]) if axis in "ZYX" else 1
                for axis in self.axes
                if axis != "T"
            ]
            mask[tuple(i if a == "T" else slice(None) for a in self.axes)] |= (
                absent.reshape(kept)
            )
        if mask is None:
            return region
        return np.ma.array(np.ma.getdata(region), mask=mask)

    def _absent(self, t: int, z: range, y: range, x: range) -> NDArray[np.bool_] | None:
        """(z, y, x), where slices are empty and another is not; None: nowhere."""
        if t not in self._filled:
            count = self.shape[self.axes.index("Z")]
            self._filled[t] = [self._filled_part(t, z) for z in range(count)]
        parts = self._filled[t]
        if all(part == parts[0] for part in parts):
            return None
        rows, columns = np.asarray(y)[:, None], np.asarray(x)

        def inside(part: Rectangle) -> NDArray[np.bool_]:
            tall = (rows >= part.y0) & (rows < part.y1)
            return tall & (columns >= part.x0) & (columns < part.x1)

        somewhere = np.zeros((len(y), len(x)), bool)
        for part in set(parts):
            somewhere |= inside(part)
        absent = np.stack([somewhere & ~inside(parts[i]) for i in z])
        return absent if absent.any() else None

    def _filled_part(self, t: int, z: int) -> Rectangle:
        """The part of a slice inside its empty bands; all of it if it is all zero."""
        height, width = (self.shape[self.axes.index(axis)] for axis in "YX")
        whole = Rectangle(0, height, 0, width)
        top, bottom = (
            self._is_filled(t, z, slice(y, y + 1), slice(None))[0]
            for y in (0, height - 1)
        )
        ends = [
            not (top[x] or bottom[x])
            and not self._is_filled(t, z, slice(None), slice(x, x + 1)).any()
            for x in (0, width - 1)
        ]
        if top.any() and bottom.any() and not any(ends):
            return whole
        filled = self._is_filled(t, z, slice(None), slice(None))
        rows, columns = (np.flatnonzero(filled.any(axis)) for axis in (1, 0))
        if rows.size == 0:
            return whole
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        inside = filled[y0:y1, x0:x1]
        return Rectangle(
            int(y0) if inside[0].mean() >= LEAST_FILLED else 0,
            int(y1) if inside[-1].mean() >= LEAST_FILLED else height,
            int(x0) if inside[:, 0].mean() >= LEAST_FILLED else 0,
            int(x1) if inside[:, -1].mean() >= LEAST_FILLED else width,
        )

    def _is_filled(self, t: int, z: int, y: slice, x: slice) -> NDArray[np.bool_]:
        """(y, x), where a slice is not zero in any channel; opacity does not count."""
        places = {"T": slice(t, t + 1), "Z": slice(z, z + 1), "Y": y, "X": x}
        places["S"] = slice(0, 3)
        key = tuple(places.get(axis, slice(None)) for axis in self.axes)
        found = np.ma.filled(take(self.data, key) != 0, True)
        others = tuple(i for i, axis in enumerate(self.axes) if axis not in "YX")
        return np.asarray(found.any(others))
