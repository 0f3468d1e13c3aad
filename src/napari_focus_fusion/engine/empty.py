"""Slices that do not fill their plane: bands of zeros that a stage or a file left.

Slices of a mosaic, or slices moved onto each other, often end inside the plane, and are
zero beyond. Such bands look like edges and like the darkest of all backgrounds; here
they are masked, so that these pixels are absent.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
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
#: Side of what is read at once of arrays without chunks.
BLOCK = 1024


def without_empty_bands(stack: FocusStack) -> FocusStack:
    """The stack with bands of zeros along the edges of its slices masked.

    Only where another slice has pixels: a border that all slices share stays as it is.
    Nothing is read before pixels are.
    """
    if stack.n_slices == 1:
        return stack
    return replace(stack, data=WithoutEmptyBands(stack.data, stack.axes))


def with_empty_bands(stack: FocusStack) -> FocusStack:
    """The stack as it was given, so that a few of its pixels can be read cheaply."""
    if isinstance(stack.data, WithoutEmptyBands):
        return replace(stack, data=stack.data.data)
    return stack


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
            self._filled[t] = self._filled_parts(t)
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

    def _filled_parts(self, t: int) -> list[Rectangle]:
        """For each slice the part inside its empty bands; all of it if all is zero."""
        height, width, count = (self.shape[self.axes.index(axis)] for axis in "YXZ")
        whole, every = Rectangle(0, height, 0, width), slice(0, count)
        parts = [whole] * count
        top, bottom = (
            self._is_filled(t, every, slice(y, y + 1), slice(0, width))[:, 0]
            for y in (0, height - 1)
        )
        ends = [
            not (top[:, x] | bottom[:, x]).all()
            and not self._is_filled(t, every, slice(0, height), slice(x, x + 1))
            .any((1, 2))
            .all()
            for x in (0, width - 1)
        ]
        if top.any(1).all() and bottom.any(1).all() and not any(ends):
            return parts
        rows, columns = self._profiles(t)
        for z, (across, down) in enumerate(zip(rows, columns, strict=True)):
            filled_rows, filled_columns = np.flatnonzero(across), np.flatnonzero(down)
            if filled_rows.size == 0:
                continue
            y0, y1 = int(filled_rows[0]), int(filled_rows[-1]) + 1
            x0, x1 = int(filled_columns[0]), int(filled_columns[-1]) + 1
            least_across, least_down = (
                LEAST_FILLED * (x1 - x0),
                LEAST_FILLED * (y1 - y0),
            )
            parts[z] = Rectangle(
                y0 if across[y0] >= least_across else 0,
                y1 if across[y1 - 1] >= least_across else height,
                x0 if down[x0] >= least_down else 0,
                x1 if down[x1 - 1] >= least_down else width,
            )
        return parts

    def _profiles(self, t: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pixels that are not zero in each row (Z, Y) and column (Z, X) of each slice.

        Each stored chunk is read once.
        """
        lengths = [self.shape[self.axes.index(axis)] for axis in "ZYX"]
        steps = [1, BLOCK, BLOCK]
        if self.chunks is not None:
            steps = [self.chunks[self.axes.index(axis)] for axis in "ZYX"]
        rows = np.zeros(lengths[:2], np.int64)
        columns = np.zeros((lengths[0], lengths[2]), np.int64)
        starts = (range(0, n, step) for n, step in zip(lengths, steps, strict=True))
        for corner in product(*starts):
            z, y, x = (
                slice(start, min(start + step, n))
                for start, step, n in zip(corner, steps, lengths, strict=True)
            )
            filled = self._is_filled(t, z, y, x)
            rows[z, y] += filled.sum(2)
            columns[z, x] += filled.sum(1)
        return rows, columns

    def _is_filled(self, t: int, z: slice, y: slice, x: slice) -> NDArray[np.bool_]:
        """(z, y, x), where slices are not zero in any channel; opacity is none."""
        places = {"T": slice(t, t + 1), "Z": z, "Y": y, "X": x, "S": slice(0, 3)}
        key = tuple(places.get(axis, slice(None)) for axis in self.axes)
        found = np.ma.filled(take(self.data, key) != 0, True)
        others = tuple(i for i, axis in enumerate(self.axes) if axis not in "ZYX")
        return np.asarray(found.any(others))
