"""Slices that are brought into register, and levelled, where they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.registration.interpolate import TAPS, seen_through

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_focus_fusion.registration.brightness import Levels
    from napari_focus_fusion.stack import FocusStack

#: Pixels around a window that its interpolation sees: half of its taps along each axis,
#: and for those of the second pass what a rotation moves them by.
MARGIN = TAPS
#: Rows that are resampled together where whole slices are.
BAND = 256
#: Pixels around an absent one that are absent too, as it would show in them.
SPREAD = 2
#: Positions this far outside of the plane count as its border.
TOLERANCE = 1e-6


class AlignedSlices(LazyArray):
    """The pixels of a stack, seen through a transform for each slice, and levelled.

    Each pixel is interpolated once, levelled, and rounded once. A pixel depends on
    where it is and on nothing else, so that any window gives the same. What a slice
    does not show is masked.

    Parameters
    ----------
    stack
        The slices.
    matrices
        (T, N, 2, 3), or (1, N, 2, 3) for all time points: from positions in the
        result to positions in the slice, in pixels.
    levels
        How the brightness changes; None: it stays.
    record
        What provenance keeps of both, by ``"registration"`` and ``"brightness"``.
    keep
        Whether the slices of a time point stay in memory once they are resampled.
    """

    def __init__(
        self,
        stack: FocusStack,
        matrices: NDArray[np.float64],
        levels: Levels | None,
        record: dict[str, Any],
        *,
        keep: bool = False,
    ) -> None:
        self.stack, self.matrices, self.levels = stack, matrices, levels
        self.record, self.keep = record, keep
        self._kept: dict[tuple[int, int], tuple[NDArray[Any], NDArray[np.bool_]]] = {}
        data: Any = stack.data
        chunks = getattr(data, "chunksize", getattr(data, "chunks", None))
        super().__init__(stack.data.shape, stack.dtype, chunks)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        axes = self.stack.axes
        picks = {
            axis: range(*span.indices(n))
            for axis, span, n in zip(axes, spans, self.shape, strict=True)
        }
        one = range(1)
        times, slices = picks.get("T", one), picks.get("Z", one)
        channels, samples = picks.get("C", one), picks.get("S", one)
        y, x = picks["Y"], picks["X"]
        sizes = [len(r) for r in (times, channels, samples, slices, y, x)]
        values = np.empty(sizes, self.dtype)
        absent = np.zeros(sizes, bool)
        read = self._kept_slice if self.keep else self._slice
        components = [c * self.stack.n_samples + s for c in channels for s in samples]
        for i, t in enumerate(times):
            for k, z in enumerate(slices):
                found, missing = read(t, z, components, y, x)
                values[i, :, :, k] = found.reshape(sizes[1:3] + sizes[4:])
                absent[i, :, :, k] = missing.reshape(sizes[1:3] + sizes[4:])
        # From T, C, S, Z, Y, X to the axes of the stack.
        order = ["TCSZYX".index(axis) for axis in axes]
        gone = tuple(i for i, axis in enumerate("TCSZYX") if axis not in axes)
        values, absent = (
            a.transpose([*order, *gone]).reshape([len(picks[axis]) for axis in axes])
            for a in (values, absent)
        )
        return np.ma.array(values, mask=absent) if absent.any() else values

    def _kept_slice(
        self, t: int, z: int, components: list[int], y: range, x: range
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """As :meth:`_slice`, of a slice that is resampled as a whole, and once."""
        if (t, z) not in self._kept:
            every = list(range(self.stack.n_components))
            height, width = self.stack.height, self.stack.width
            found = np.empty((len(every), height, width), self.dtype)
            missing = np.empty(found.shape, bool)
            for top in range(0, height, BAND):
                rows = range(top, min(top + BAND, height))
                some = slice(top, rows.stop)
                found[:, some], missing[:, some] = self._slice(
                    t, z, every, rows, range(width)
                )
            for earlier in [key for key in self._kept if key[0] != t]:
                del self._kept[earlier]
            self._kept[t, z] = found, missing
        window = (slice(y.start, y.stop, y.step), slice(x.start, x.stop, x.step))
        values, absent = self._kept[t, z]
        return values[:, *window][components], absent[:, *window][components]

    def _slice(
        self, t: int, z: int, components: list[int], y: range, x: range
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Some components of a window of a slice, and where they are absent."""
        matrix = self.matrices[t if len(self.matrices) > 1 else 0, z]
        rows, columns = slice(y.start, y.stop), slice(x.start, x.stop)
        shift = matrix[:, 2]
        size = len(y), len(x)
        if not size[0] or not size[1] or not components:
            empty = (len(components), *size)
            return np.empty(empty, self.dtype), np.zeros(empty, bool)
        whole = np.array_equal(matrix[:, :2], np.eye(2)) and np.all(shift % 1 == 0)
        if whole and not shift.any():
            values, present = self._read(t, z, components, rows, columns)
            absent = np.zeros(values.shape, bool) if present is None else ~present
            inside = np.ones(size, bool)
        else:
            inside = _inside(matrix, y, x, self.stack.height, self.stack.width)
            values, absent = self._resampled(t, z, components, matrix, y, x)
        if y.step != 1 or x.step != 1:  # never by the engine
            values = values[:, :: y.step, :: x.step]
            absent = absent[:, :: y.step, :: x.step]
        absent = absent | ~inside
        if self.levels is not None:
            values = self.levels.applied(values, t, z, components, y, x)
        return _in_type(values, self.dtype), absent

    def _read(
        self, t: int, z: int, components: list[int], y: slice, x: slice
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        only = components[0] if len(components) == 1 else None
        values, present = self.stack.read_present(t, [z], y, x, only)
        if only is None and len(components) < self.stack.n_components:
            values = values[components]
            present = None if present is None else present[components]
        return values[:, 0], None if present is None else present[:, 0]

    def _resampled(
        self,
        t: int,
        z: int,
        components: list[int],
        matrix: NDArray[np.float64],
        y: range,
        x: range,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """A window by interpolation, float64; where it is outside it has no meaning."""
        rows = range(y.start, y.stop)
        columns = range(x.start, x.stop)
        size = len(rows), len(columns)
        values = np.zeros((len(components), *size))
        absent = np.zeros((len(components), *size), bool)
        corners = np.array(
            [[a, b, 1] for a in (rows[0], rows[-1]) for b in (columns[0], columns[-1])]
        )
        seen = corners @ matrix.T
        sides = self.stack.height, self.stack.width
        spans = [
            slice(max(int(np.floor(low)) - MARGIN, 0), min(int(high) + MARGIN + 2, n))
            for low, high, n in zip(seen.min(0), seen.max(0), sides, strict=True)
        ]
        if any(span.start >= span.stop for span in spans):
            return values, absent
        block, present = self._read(t, z, components, spans[0], spans[1])
        # From pixels of the window to pixels of what was read.
        first = matrix @ [rows[0], columns[0], 1] - [spans[0].start, spans[1].start]
        planes = block.astype(np.float64)
        for i, plane in enumerate(planes):
            if present is not None and not present[i].all():
                plane[...] = _filled(plane, present[i])
                near = ndimage.binary_dilation(
                    ~present[i], iterations=SPREAD, structure=np.ones((3, 3))
                )
                absent[i] = (
                    ndimage.affine_transform(
                        near.astype(np.float32), matrix[:, :2], first, size, order=1
                    )
                    > 0
                )
        return seen_through(planes, matrix[:, :2], first, size), absent

    def keeping(self) -> AlignedSlices:
        """The same whose slices stay in memory once they are resampled."""
        return AlignedSlices(
            self.stack, self.matrices, self.levels, self.record, keep=True
        )


def _inside(
    matrix: NDArray[np.float64], y: range, x: range, height: int, width: int
) -> NDArray[np.bool_]:
    """(h, w), where a transform leads into the plane."""
    rows, columns = np.asarray(y)[:, None], np.asarray(x)
    found = np.ones((len(y), len(x)), bool)
    for (a, b, c), n in zip(matrix, (height, width), strict=True):
        at = (a * rows + c) + b * columns
        found &= (at >= -TOLERANCE) & (at <= n - 1 + TOLERANCE)
    return found


def _filled(plane: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[Any]:
    """A plane whose absent pixels are as the nearest that is present."""
    if not present.any():
        return plane
    nearest = ndimage.distance_transform_edt(
        ~present, return_distances=False, return_indices=True
    )
    return plane[tuple(nearest)]


def _in_type(values: NDArray[Any], dtype: np.dtype) -> NDArray[Any]:
    """Values rounded and limited to what a type can hold."""
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)
