"""The layers of a quality report, and the report as one call that takes layers.

::

    found = report_layers(stack_layer, fused_layer, decision_layer)
    found.save_csv("quality.csv")
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.placement import displayed_axes
from napari_focus_fusion.plugin.adapters.crop import crop_stack
from napari_focus_fusion.plugin.adapters.layers import layers_of, level_0, name_of
from napari_focus_fusion.plugin.adapters.maps import (
    EDITABLE,
    first_of,
    in_stack_order,
    result_metadata,
)
from napari_focus_fusion.plugin.adapters.sources import stack_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari.layers import Layer

    from napari_focus_fusion.report import Report
    from napari_focus_fusion.stack import FocusStack


def fused_images(layers: Iterable[Layer]) -> list[Image]:
    """Layers that may be a fused image: ours first, then other two-dimensional ones."""
    ours, others = [], []
    for layer in layers:
        output = result_metadata(layer).get("output")
        if output in ("fused", "unscaled"):
            ours.append(layer)
        elif isinstance(layer, Image) and output is None and layer.ndim == 2:
            others.append(layer)
    return [*ours, *others]


def map_of(layers: Iterable[Layer], fused: Layer, output: str) -> Layer | None:
    """The map of one kind of the same run as a fused image, if it is there."""
    known = result_metadata(fused)
    kinds = (output, EDITABLE) if output == "decision" else (output,)
    runs = [{**known, "output": kind} for kind in kinds] if known else []
    return next((layer for layer in layers if result_metadata(layer) in runs), None)


def stack_like(
    stacks: Iterable[Image | Sequence[Image]], fused: Layer
) -> Image | Sequence[Image] | None:
    """The stack named in the metadata of a fused image, or the first that fits."""
    fitting = [(one, stack_fused_as(one, fused)) for one in stacks]
    fitting = [(one, stack) for one, stack in fitting if stack is not None]
    source = result_metadata(fused).get("source")
    for one, stack in fitting:
        if stack is not None and stack.source == source:
            return one
    return fitting[0][0] if fitting else None


def stack_fused_as(source: Image | Sequence[Image], fused: Layer) -> FocusStack | None:
    """The stack that layers hold, if a fused image has its size; None if not."""
    stack = stack_of(source, fused)
    if stack is None:
        return None
    rgb = bool(getattr(fused, "rgb", False))
    shape = in_stack_order(level_0(fused), stack, rgb=rgb).shape
    shape = shape[:-1] if rgb else shape
    factor = shape[-2] // stack.height
    fits = factor > 0 and shape[-2:] == (stack.height * factor, stack.width * factor)
    return stack if fits else None


def time_shown(
    source: Image | Sequence[Image], fused: Layer, point: Sequence[float]
) -> int:
    """Time point of a stack at the position of the sliders."""
    stack = stack_fused_as(source, fused)
    if stack is None or stack.n_times == 1:
        return 0
    (layer,) = layers_of(source)
    position = layer.world_to_data(point)[displayed_axes(stack).index("T")]
    return int(np.clip(round(position), 0, stack.n_times - 1))


def report_layers(
    layer: Image | Sequence[Image],
    fused: Image,
    decision: Layer | None = None,
    confidence: Layer | None = None,
    **options: Any,
) -> Report:
    """Measure the quality of a fused layer against its stack.

    Parameters
    ----------
    layer
        The stack: one layer, or a two-dimensional one a slice.
    fused
        Made of it, by whatever program; of a stack with channels, any of them.
    decision, confidence
        Its maps, where they are known.
    **options
        Further keyword arguments of :func:`napari_focus_fusion.report.report`.

    Returns
    -------
    Report

    Raises
    ------
    FocusFusionError
        If they do not fit together.
    """
    return report_job(layer, fused, decision, confidence)(**options)


def report_job(
    layer: Image | Sequence[Image],
    fused: Image,
    decision: Layer | None,
    confidence: Layer | None,
    **options: Any,
) -> Callable[..., Report]:
    """As :func:`report_layers`, as a job that later changes of layers do not affect."""
    stack = stack_fused_as(layer, fused)
    if stack is None:
        raise FocusFusionError(
            f"{fused.name!r} is not of the size of {name_of(layer)!r}. Choose the "
            "stack that it was made of."
        )
    rgb = bool(fused.rgb)
    image = in_stack_order(level_0(fused), stack, rgb=rgb)
    maps = {
        "confidence": None
        if confidence is None
        else in_stack_order(level_0(confidence), stack),
        "provenance": {
            k: v for k, v in result_metadata(fused).items() if k != "output"
        },
    }
    labels = None if decision is None else in_stack_order(level_0(decision), stack)
    first = None if decision is None else first_of(decision)

    def job(*callbacks: Any, **more: Any) -> Report:
        from napari_focus_fusion.report import report
        from napari_focus_fusion.retouch import as_decision

        names = dict(zip(("progress", "should_stop"), callbacks, strict=False))
        single = _channel_of(stack, image, rgb)
        given = dict(maps)
        if labels is not None:
            given["decision"] = as_decision(labels, single, first=first)
        if given["confidence"] is not None:
            given["confidence"] = _shaped(given["confidence"], single.map_shape)
        scale = image.shape[-3 if rgb else -2] // single.height
        finer = [
            n * scale if axis in "YX" else n
            for axis, n in zip(single.fused_axes, single.fused_shape, strict=True)
        ]
        given["fused"] = _shaped(image, tuple(finer))
        return report(single, given, **names, **options, **more)

    return job


def _shaped(array: Any, shape: tuple[int, ...]) -> Any:
    """An array reshaped by axes of length 1; read only where that is needed."""
    if tuple(array.shape) == shape:
        return array
    if not hasattr(array, "reshape"):
        array = np.asarray(array)
    return array.reshape(shape)


def _channel_of(stack: FocusStack, image: Any, rgb: bool) -> FocusStack:
    """The channel of a stack that a fused image belongs to: the most similar one.

    A fused image has the values of some slice at nearly every pixel.
    """
    if stack.n_channels == 1:
        return stack
    side = 128
    y, x = (max((n - side) // 2, 0) for n in (stack.height, stack.width))
    rows, columns = (
        slice(start, min(start + side, n))
        for start, n in ((y, stack.height), (x, stack.width))
    )
    scale = image.shape[-2] // stack.height
    at = (
        *(0,) * (len(image.shape) - 2),
        slice(rows.start * scale, rows.stop * scale, scale),
        slice(columns.start * scale, columns.stop * scale, scale),
    )
    crop = np.asarray(image[at], np.float64)
    slices = stack.read(0, slice(None), rows, columns).astype(np.float64)
    distance = np.abs(slices - crop).min(1).mean((1, 2))
    channel = int(np.argmin(distance))
    names = stack.channel_names
    return replace(
        crop_stack(stack, {"C": slice(channel, channel + 1)}),
        channel_names=names[channel : channel + 1],
    )
