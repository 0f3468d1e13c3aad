"""Arrays of results, written block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.tiling import Rectangle


def write_block(
    target: Any,
    stack: FocusStack,
    t: int,
    region: Rectangle,
    pixels: NDArray[Any],
    axes: str | None = None,
) -> None:
    """Write the fused pixels of a region of one time point.

    Parameters
    ----------
    target
        Array of the axes `axes`, numpy or Zarr, with as many times the
        stack's rows and columns as `pixels` has of the region's. Changed in place.
    stack
        The source of the pixels.
    t
        Time point, 0 where the stack has no T axis.
    region
        Rows and columns of the source's plane.
    pixels
        ``(components, h, w)``, component ``c * n_samples + s``; the region's rows and
        columns, or a whole number of times as many. Without S a channel each.
    axes
        Those of the stack without Z, perhaps without S; None: ``stack.fused_axes``.
    """
    axes = stack.fused_axes if axes is None else axes
    scale = pixels.shape[-1] // region.width
    places: dict[str, Any] = {
        "T": t,
        "Y": slice(scale * region.y0, scale * region.y1),
        "X": slice(scale * region.x0, scale * region.x1),
    }
    key = tuple(places.get(axis, slice(None)) for axis in axes)
    block = pixels.reshape(stack.n_channels, -1, *pixels.shape[1:])
    there = [axis for axis in "CSYX" if axis in axes]
    order = [there.index(axis) for axis in axes if axis != "T"]
    shape = [n for axis, n in zip("CSYX", block.shape, strict=True) if axis in there]
    target[key] = block.reshape(shape).transpose(order)


def regions(
    shape: tuple[int, ...], size: int, *, plane: tuple[int, int] = (-2, -1)
) -> Iterator[tuple[slice, ...]]:
    """Regions that cover an array: `size` along the two plane axes, 1 along others."""
    steps = [1] * len(shape)
    for axis in plane:
        steps[axis] = size
    grid = [range(0, n, step) for n, step in zip(shape, steps, strict=True)]
    for place in np.ndindex(*(len(starts) for starts in grid)):
        starts = [grid[axis][i] for axis, i in enumerate(place)]
        yield tuple(
            slice(start, min(start + step, n))
            for start, step, n in zip(starts, steps, shape, strict=True)
        )
