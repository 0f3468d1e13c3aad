"""From a stack to planes of numbers: the reference channel, windows of it, a sample.

Single pixels must not decide for their surroundings. A pixel further outside the range
of its eight neighbours than light through a lens can bring it (stuck, hot, hit by a
cosmic ray) is limited to that range in the planes that are scored, never in those that
are fused. Pixels that are absent are flagged, and so are those so near that their
scores see an absent one: they win nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch

from napari_focus_fusion.engine.normalise import is_wide, relative
from napari_focus_fusion.filters import box_sum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch import Tensor

    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.tiling import Rectangle

Item = TypeVar("Item")

#: Side of the sample's windows in pixels, and how many there are along each axis.
SAMPLE_SIDE = 64
SAMPLE_GRID = 3
#: The more slices the smaller the windows, so that the sample does not grow with them:
#: this many pixels in all, as long as the windows are no smaller than this.
SAMPLE_PIXELS = 1 << 18
SMALLEST_SIDE = 24
#: How far a pixel may lie outside the range of its eight neighbours, in ranges. Detail
#: that a microscope samples as it should (a point of 0.8 pixels standard deviation)
#: stays inside, and so does Gaussian noise.
OUTLIER_RANGES = 3
#: Rows that are limited together, so that what is computed stays in the cache.
OUTLIER_ROWS = 48
#: Absent pixels are filled with the mean of those present within this radius.
FILL_RADIUS = 8
#: Flags of pixels. Doubtful: within :data:`FLAG_RADIUS` pixels of one that is absent.
DOUBTFUL, ABSENT = 1, 2
FLAG_RADIUS = 2
#: Pixels around a window that its planes and flags depend on.
READ_HALO = FLAG_RADIUS


class Planes(NamedTuple):
    """Planes of a window, and what not to believe of them.

    Attributes
    ----------
    values
        (n, h, w) float32, normalised; without outliers, absent pixels filled.
    flags
        (n, h, w) uint8: 0, DOUBTFUL or ABSENT; None where all are 0.
    """

    values: np.ndarray
    flags: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Reference:
    """The grey plane of each slice that is scored; normalised once for the whole stack.

    Attributes
    ----------
    stack
        Where pixels come from.
    t
        Time point.
    weights
        How much each component counts, (components,), adding up to 1.
    black, white
        Intensities that become 0 and 1.
    """

    stack: FocusStack
    t: int
    weights: tuple[float, ...]
    black: float = 0.0
    white: float = 1.0

    @property
    def used(self) -> list[int]:
        """The components that count."""
        return [i for i, weight in enumerate(self.weights) if weight]

    def planes(self, z: slice, y: slice, x: slice) -> np.ndarray:
        """The values that :meth:`read` gives, (n, h, w) float32."""
        return self.read(z, y, x).values

    def read(self, z: slice, y: slice, x: slice) -> Planes:
        """Normalised planes and their flags; windows may extend outside the image.

        Outside, the image is mirrored at its border, so that the border of an image
        is no edge.
        """
        rows, above, below = _clip(y, self.stack.height)
        columns, left, right = _clip(x, self.stack.width)
        values, flags = self._inside(z, rows, columns)
        if above or below or left or right:
            padding = ((0, 0), (above, below), (left, right))
            values = np.pad(values, padding, mode="symmetric")
            if flags is not None:
                flags = np.pad(flags, padding, mode="symmetric")
        return Planes(values, flags)

    def _inside(self, z: slice, y: slice, x: slice) -> Planes:
        """Planes and flags of a window inside the image."""
        size = self.stack.height, self.stack.width
        wide = _grown((y, x), READ_HALO, size)
        block, present = read_components(self.stack, self.t, self.used, z, *wide)
        if present is not None:
            wide = _grown((y, x), READ_HALO + FILL_RADIUS, size)
            block, present = read_components(self.stack, self.t, self.used, z, *wide)
        values = self._mix(self.used, block)
        flags = None
        if present is not None:
            there = np.asarray(present.all(0))
            values, flags = filled(values, there), absence_flags(there)
        window = tuple(
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip((y, x), wide, strict=True)
        )
        if flags is not None:
            flags = np.ascontiguousarray(flags[:, *window])
        return Planes(limited(values, *window), flags if np.any(flags) else None)

    def observed(
        self, z: slice, y: slice, x: slice
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Normalised planes (n, h, w) with their outliers, and where they have pixels.

        Absent pixels hold no meaning; None in place of a mask: there are none.
        """
        block, present = read_components(self.stack, self.t, self.used, z, y, x)
        seen = None if present is None else np.asarray(present.all(0))
        return self._mix(self.used, block), seen

    def mixed(self, values: np.ndarray) -> np.ndarray:
        """The normalised plane (..., h, w) of components (components, ..., h, w)."""
        used = self.used
        return self._mix(used, values[used] if len(used) < len(values) else values)

    def _mix(self, used: list[int], values: np.ndarray) -> np.ndarray:
        black, white = self.black, self.white
        if is_wide(self.stack.dtype):
            values = relative(values, black, white)
            black, white = 0.0, 1.0
        gain = 1 / (white - black)
        mixed = np.empty(values.shape[1:], np.float32)
        np.multiply(values[0], np.float32(gain * self.weights[used[0]]), out=mixed)
        for component, plane in zip(used[1:], values[1:], strict=True):
            mixed += plane * np.float32(gain * self.weights[component])
        if black:
            mixed -= np.float32(gain * black)
        return mixed


def read_components(
    stack: FocusStack, t: int, components: list[int], z: slice, y: slice, x: slice
) -> tuple[np.ndarray, np.ndarray | None]:
    """(components, n, h, w) in the stack's dtype, mirrored outside the image.

    Colour samples lie together in files, and are read together. Beside them where they
    are present, of the same shape; None: everywhere. Absent pixels are 0.
    """
    rows, above, below = _clip(y, stack.height)
    columns, left, right = _clip(x, stack.width)
    only = components[0] if len(components) == 1 else None
    block, present = stack.read_present(t, z, rows, columns, only)
    if len(components) < len(block):
        block = block[components]
        present = None if present is None else present[components]
    if above or below or left or right:
        padding = ((0, 0), (0, 0), (above, below), (left, right))
        block = np.pad(block, padding, mode="symmetric")
        if present is not None:
            present = np.pad(present, padding, mode="symmetric")
    return block, present


def limited(planes: np.ndarray, y: slice, x: slice) -> np.ndarray:
    """A window of planes, outliers limited to the range of their neighbours.

    An outlier lies further outside it than :data:`OUTLIER_RANGES` ranges.

    Parameters
    ----------
    planes
        (n, h, w) float32. A pixel at an edge of these has fewer neighbours.
    y, x
        The window, (n, rows, columns) of the result.
    """
    height, width = planes.shape[-2:]
    found = np.empty((len(planes), y.stop - y.start, x.stop - x.start), planes.dtype)
    if min(height, width) < 2:
        found[...] = planes[:, y, x]
        return found
    left, right = max(x.start - 1, 0), min(x.stop + 1, width)
    inner = slice(x.start - left, x.stop - left)
    for plane, result in zip(planes, found, strict=True):
        for top in range(y.start, y.stop, OUTLIER_ROWS):
            bottom = min(top + OUTLIER_ROWS, y.stop)
            # Outside the planes a row is taken from inside, so that it adds nothing.
            above = plane[max(top - 1, 0) : min(bottom + 1, height), left:right]
            if top == 0:
                above = np.concatenate([above[1:2], above])
            if bottom == height:
                above = np.concatenate([above, above[-2:-1]])
            highest = _extreme_neighbour(above, np.maximum)
            lowest = _extreme_neighbour(above, np.minimum)
            centre = above[1:-1]
            # Nothing lies outside a range that is too wide for a number.
            with np.errstate(over="ignore"):
                room = highest - lowest
                room *= OUTLIER_RANGES
                outlying = centre > highest + room
                outlying |= centre < lowest - room
            rows = slice(top - y.start, bottom - y.start)
            result[rows] = centre[:, inner]
            if outlying.any():
                usual = np.clip(centre, lowest, highest)
                np.copyto(result[rows], usual[:, inner], where=outlying[:, inner])
    return found


def _extreme_neighbour(plane: np.ndarray, extreme: np.ufunc) -> np.ndarray:
    """(h - 2, w), the highest or lowest of the eight neighbours of the inner rows."""
    beside = np.empty_like(plane)
    extreme(plane[:, :-2], plane[:, 2:], out=beside[:, 1:-1])
    beside[:, 0], beside[:, -1] = plane[:, 1], plane[:, -2]
    three = extreme(beside, plane)
    found = extreme(three[:-2], three[2:])
    return extreme(found, beside[1:-1], out=found)


def filled(planes: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Planes (n, h, w) with means of what is present around in absent pixels.

    Further than :data:`FILL_RADIUS` from any that is present, 0.
    """
    padding = ((0, 0), (FILL_RADIUS, FILL_RADIUS), (FILL_RADIUS, FILL_RADIUS))
    values, count = (
        box_sum(torch.from_numpy(np.pad(a, padding)), FILL_RADIUS).numpy()
        for a in (np.where(present, planes, 0), present.astype(np.float32))
    )
    means = np.divide(values, count, out=np.zeros_like(planes), where=count > 0)
    return np.where(present, planes, means)


def absence_flags(present: np.ndarray) -> np.ndarray:
    """(n, h, w) uint8: ABSENT, around that DOUBTFUL, and 0."""
    near = ~present
    for axis in (1, 2):
        found = near.copy()
        after, before = np.moveaxis(found, axis, 0), np.moveaxis(near, axis, 0)
        for step in range(1, FLAG_RADIUS + 1):
            after[step:] |= before[:-step]
            after[:-step] |= before[step:]
        near = found
    return np.where(present, np.where(near, DOUBTFUL, 0), ABSENT).astype(np.uint8)


def _grown(
    window: tuple[slice, slice], by: int, size: tuple[int, int]
) -> tuple[slice, slice]:
    """A window and so many pixels around it, inside the image."""
    y, x = (
        slice(max(s.start - by, 0), min(s.stop + by, length))
        for s, length in zip(window, size, strict=True)
    )
    return y, x


def _clip(window: slice, length: int) -> tuple[slice, int, int]:
    """A window clipped to ``range(length)``, and what is missing each side."""
    start, stop = max(window.start, 0), min(window.stop, length)
    return slice(start, stop), start - window.start, window.stop - stop


def sample(
    reference: Reference,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """For each slice the same few windows, (windows, h, w) float32.

    A grid of small windows, the whole plane where that is no larger. They depend on
    the size of the plane and the number of slices alone. Beside them where they have
    pixels, bool; None: everywhere.
    """
    places = sample_places(reference.stack)
    for z in range(reference.stack.n_slices):
        found = [reference.read(slice(z, z + 1), y, x) for y, x in places]
        planes = np.stack([one.values[0] for one in found])
        present = None
        if any(one.flags is not None and (one.flags == ABSENT).any() for one in found):
            present = np.stack(
                [
                    np.ones(values.shape[1:], bool)
                    if flags is None
                    else flags[0] < ABSENT
                    for values, flags in found
                ]
            )
        yield planes, present


def filled_from_slices(
    windows: Sequence[np.ndarray], present: Sequence[np.ndarray | None]
) -> list[np.ndarray]:
    """Windows of slices, absent pixels taken from the nearest slice that has them.

    So that statistics of a network, which needs whole windows, are those of pixels
    that are there. Where no slice has one, what it was filled with stays.
    """
    if all(mask is None for mask in present):
        return list(windows)
    result = []
    for z, (planes, mask) in enumerate(zip(windows, present, strict=True)):
        if mask is None:
            result.append(planes)
            continue
        new, missing = planes.copy(), ~mask
        for other in sorted(range(len(windows)), key=lambda i: abs(i - z)):
            if not missing.any():
                break
            there = present[other]
            takes = missing if there is None else missing & there
            np.copyto(new, windows[other], where=takes)
            missing = missing & ~takes
        result.append(new)
    return result


def sample_places(stack: FocusStack) -> list[tuple[slice, slice]]:
    """Rows and columns of the sample's windows; of a tiny plane they extend outside."""
    side = int((SAMPLE_PIXELS / stack.n_slices) ** 0.5) // SAMPLE_GRID
    side = min(max(side, SMALLEST_SIDE), SAMPLE_SIDE)
    columns = _windows(stack.width, side)
    return [(y, x) for y in _windows(stack.height, side) for x in columns]


def _windows(length: int, side: int) -> list[slice]:
    if length <= SAMPLE_GRID * side:
        # A tiny plane is mirrored around its border: of networks that do not pad
        # some output must be left.
        missing = max(SMALLEST_SIDE - length, 0)
        before = (missing + 1) // 2
        return [slice(-before, length + missing - before)]
    gap = length - SAMPLE_GRID * side
    starts = [
        i * side + gap * (2 * i + 1) // (2 * SAMPLE_GRID) for i in range(SAMPLE_GRID)
    ]
    return [slice(start, start + side) for start in starts]


def prefetch(tasks: Iterable[Callable[[], Item]], depth: int = 1) -> Iterator[Item]:
    """Results of tasks in order, prefetched by a thread, ``depth`` tasks ahead."""
    with ThreadPoolExecutor(1, thread_name_prefix="focus-fusion-reader") as pool:
        waiting = []
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > depth:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def flagged_slabs(
    reference: Reference, area: Rectangle, slab: int, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """The planes of an area, so many slices at a time, on the device, prefetched.

    Parameters
    ----------
    reference
        The reference plane.
    area
        Rows and columns; mirrored where it extends outside the image.
    slab
        Slices at a time.
    device
        Where the planes are wanted.

    Yields
    ------
    z : int
        The first slice.
    planes : Tensor
        (n, h, w) float32.
    flags : Tensor or None
        (n, h, w) uint8, as :class:`Planes` has them.
    """
    count = reference.stack.n_slices
    starts = range(0, count, slab)

    def tensor_of(values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if device.type == "cuda" else tensor

    def read(z: int) -> tuple[Tensor, Tensor | None]:
        found = reference.read(slice(z, min(z + slab, count)), area.y, area.x)
        flags = None if found.flags is None else tensor_of(found.flags)
        return tensor_of(found.values), flags

    tasks = (partial(read, z) for z in starts)
    for z, (planes, flags) in zip(starts, prefetch(tasks), strict=True):
        on_device = None if flags is None else flags.to(device, non_blocking=True)
        yield z, planes.to(device, non_blocking=True), on_device
