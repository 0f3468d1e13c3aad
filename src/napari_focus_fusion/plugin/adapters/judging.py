"""Fusing a stack by the sharpness that is seen in another one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.result import FusionResult
    from napari_focus_fusion.stack import FocusStack


def fuse_decided(
    stack: FocusStack, judge: FocusStack | None, **options: Any
) -> FusionResult:
    """Fuse a stack by the sharpness seen in another one, or in itself.

    Parameters
    ----------
    stack
        What is fused.
    judge
        Where sharpness is looked for: same axes, size and dtype, no channels. None:
        in `stack`.
    **options
        Keyword arguments of :func:`napari_focus_fusion.fuse`.

    Raises
    ------
    FocusFusionError
        If the two do not fit together, or as :func:`napari_focus_fusion.fuse` does.
    """
    from napari_focus_fusion.fusion import fuse

    if judge is None:
        return fuse(stack, **options)
    for what, here, there in (
        ("axes", stack.axes, judge.axes),
        ("size", tuple(stack.data.shape), tuple(judge.data.shape)),
        ("pixel type", stack.dtype, judge.dtype),
    ):
        if here != there:
            raise FocusFusionError(
                f"{judge.name!r} cannot decide for {stack.name!r}: its {what} is "
                f"{there}, not {here}. Choose a channel of the same image."
            )
    if "C" in stack.axes:
        raise FocusFusionError(
            f"{stack.name!r} has channels of its own; choose one of them to decide."
        )
    both = replace(
        stack,
        data=_Channels((stack.data, judge.data)),
        axes="C" + stack.axes,
        channel_names=(),
        display={},
    )
    result = fuse(both, **{**options, "reference": 1})
    parameters = {**result.provenance["parameters"], "reference": judge.name}
    provenance = {
        **result.provenance,
        "source_shape": list(stack.data.shape),
        "source_axes": stack.axes,
        "parameters": parameters,
    }
    return replace(result, fused=result.fused[0], stack=stack, provenance=provenance)


class _Channels(LazyArray):
    """Arrays of one size, seen as one with a channel axis in front, read by region."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = tuple(arrays)
        first = arrays[0]
        chunks = getattr(first, "chunksize", getattr(first, "chunks", None))
        super().__init__(
            (len(arrays), *first.shape),
            first.dtype,
            None if chunks is None else (1, *chunks),
        )

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        chosen = range(*spans[0].indices(len(self)))
        return np.stack([take(self.arrays[i], spans[1:]) for i in chosen])
