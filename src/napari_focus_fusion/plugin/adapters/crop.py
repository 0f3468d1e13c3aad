"""A crop or a coarser version of a stack, at its place in world coordinates."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.lazy import LazyArray, take
from napari_focus_fusion.placement import Transform, displayed_axes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack


def crop_stack(stack: FocusStack, spans: Mapping[str, slice]) -> FocusStack:
    """Crop a stack; no pixel is read.

    Parameters
    ----------
    stack
        The stack to crop.
    spans
        By axis letter the range to keep, with a positive step; axes that are not
        named are kept whole.

    Returns
    -------
    FocusStack
        Its pixels keep their world coordinates: with a step, a pixel is as large as
        the step, and centred on the pixel that was taken.
    """
    ranges = {
        axis: range(*spans.get(axis, slice(None)).indices(stack.size(axis)))
        for axis in stack.axes
    }
    keys = tuple(slice(r.start, r.stop, r.step) for r in ranges.values())
    data = stack.data[keys] if _is_view(stack.data) else _LazyCrop(stack.data, keys)
    return _resampled(
        replace(stack, data=data),
        {axis: r.step for axis, r in ranges.items()},
        {axis: r.start for axis, r in ranges.items()},
    )


def coarser(stack: FocusStack, factors: Mapping[str, float]) -> FocusStack:
    """The same stack, described with pixels so many times as large along an axis.

    Parameters
    ----------
    stack
        Pixels of a pyramid level, with scale and transform of the full resolution.
    factors
        By axis letter how many pixels of the full resolution each of them covers.
    """
    return _resampled(
        stack, factors, {axis: (f - 1) / 2 for axis, f in factors.items()}
    )


def _resampled(
    stack: FocusStack, size: Mapping[str, float], centre: Mapping[str, float]
) -> FocusStack:
    """Pixels of another size, with the centre of the first one elsewhere."""
    shown = displayed_axes(stack)
    transform = Transform.of(stack).resampled(
        np.array([size.get(axis, 1) for axis in shown], float),
        np.array([centre.get(axis, 0) for axis in shown], float),
    )
    return replace(
        stack,
        scale={axis: step * size.get(axis, 1) for axis, step in stack.scale.items()},
        display={**stack.display, **transform.attributes()},
    )


def _is_view(data: Any) -> bool:
    """Whether slicing reads nothing."""
    return isinstance(data, np.ndarray) or hasattr(data, "dask")


class _LazyCrop(LazyArray):
    """A region of an array, at a step, read by region."""

    def __init__(self, data: Any, keys: tuple[slice, ...]) -> None:
        self.data = data
        self.ranges = [
            range(*key.indices(n)) for key, n in zip(keys, data.shape, strict=True)
        ]
        chunks = getattr(data, "chunks", None)
        super().__init__(
            [len(r) for r in self.ranges],
            data.dtype,
            None
            if chunks is None
            else [
                max(1, min(chunk // r.step, len(r)))
                for chunk, r in zip(chunks, self.ranges, strict=True)
            ],
        )

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        inner = [r[span] for r, span in zip(self.ranges, spans, strict=True)]
        return take(self.data, tuple(slice(r.start, r.stop, r.step) for r in inner))
