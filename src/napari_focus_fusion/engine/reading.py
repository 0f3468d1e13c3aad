"""From a stack to planes of numbers: the reference channel, windows of it, a sample."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from napari_focus_fusion.engine.normalise import is_wide, relative
from napari_focus_fusion.stack import check_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

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

    def planes(self, z: slice, y: slice, x: slice) -> np.ndarray:
        """Normalised planes (n, h, w) float32; windows may extend outside the image.

        Outside, the image is mirrored at its border, so that the border of an image
        is no edge.
        """
        used = [i for i, weight in enumerate(self.weights) if weight]
        return self._mix(used, read_components(self.stack, self.t, used, z, y, x))

    def mixed(self, values: np.ndarray) -> np.ndarray:
        """The normalised plane (..., h, w) of components (components, ..., h, w)."""
        used = [i for i, weight in enumerate(self.weights) if weight]
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
) -> np.ndarray:
    """(components, n, h, w) in the stack's dtype, mirrored outside the image.

    Colour samples lie together in files, and are read together.
    """
    rows, above, below = _clip(y, stack.height)
    columns, left, right = _clip(x, stack.width)
    if len(components) == 1:
        block = stack.component_read(t, components[0], z, rows, columns)[None]
    else:
        block = stack.read(t, z, rows, columns)
        if len(components) < len(block):
            block = block[components]
    check_finite(
        block, t=t, z0=z.start, y0=rows.start, x0=columns.start, name=stack.name
    )
    if above or below or left or right:
        padding = ((0, 0), (0, 0), (above, below), (left, right))
        block = np.pad(block, padding, mode="symmetric")
    return block


def _clip(window: slice, length: int) -> tuple[slice, int, int]:
    """A window clipped to ``range(length)``, and what is missing each side."""
    start, stop = max(window.start, 0), min(window.stop, length)
    return slice(start, stop), start - window.start, window.stop - stop


def sample(reference: Reference) -> Iterator[np.ndarray]:
    """For each slice the same few windows, (windows, h, w) float32.

    A grid of small windows, the whole plane where that is no larger. They depend on
    the size of the plane and the number of slices alone.
    """
    places = sample_places(reference.stack)
    for z in range(reference.stack.n_slices):
        yield np.stack([reference.planes(slice(z, z + 1), y, x)[0] for y, x in places])


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


def slabs(
    reference: Reference, area: Rectangle, slab: int, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
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
    """
    count = reference.stack.n_slices
    starts = range(0, count, slab)

    def read(z: int) -> Tensor:
        planes = reference.planes(slice(z, min(z + slab, count)), area.y, area.x)
        tensor = torch.from_numpy(planes)
        return tensor.pin_memory() if device.type == "cuda" else tensor

    tasks = (partial(read, z) for z in starts)
    for z, planes in zip(starts, prefetch(tasks), strict=True):
        yield z, planes.to(device, non_blocking=True)
