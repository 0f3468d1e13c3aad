"""From a napari layer to a focus stack, and from a fusion back to layers.

Everything the widget does can be done from here without a window::

    for data, attributes, kind in fuse_layer(layer):
        viewer.add_layer(Layer.create(data, attributes, kind))
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray, take
from napari_focus_fusion.stack import as_stack, axes_from_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_focus_fusion.result import FusionResult, LayerData
    from napari_focus_fusion.stack import FocusStack

#: Where a layer's metadata say that it is a result, and of what.
METADATA = "napari_focus_fusion"
OUTPUTS = ("fused", "decision", "confidence", "depth")

#: State of a layer that its results take over as it is.
_DISPLAY = (
    *("scale", "translate", "rotate", "shear", "axis_labels"),
    *("blending", "contrast_limits", "gamma", "interpolation2d"),
)
# napari opens channels as an axis now and then; there are rarely more than this.
_MOST_CHANNELS = 5
# Blending in which a layer hides what lies below it.
_COVERING = ("opaque", "translucent", "translucent_no_depth")


def fuse_layer(
    layer: Image,
    *,
    axes: str | None = None,
    decided_by: Image | None = None,
    outputs: Sequence[str] = OUTPUTS,
    **options: Any,
) -> list[LayerData]:
    """Fuse a napari image layer: what the widget does, as one call.

    Parameters
    ----------
    layer
        A stack of 2 to many slices, with or without channels, time and RGB; its data
        may be numpy, dask, Zarr or multiscale (the full resolution is fused).
    axes
        One letter an axis of the layer out of ``TCZYX``, without one for RGB; None:
        :func:`guess_axes`.
    decided_by
        Another layer of the same axes and size, in which sharpness is looked for.
    outputs
        Which of ``"fused"``, ``"decision"``, ``"confidence"`` and ``"depth"`` to give.
    **options
        Further keyword arguments of :func:`napari_focus_fusion.fuse`.

    Returns
    -------
    list of (data, attributes, "image")
        Layer-data tuples that lie on the layer.

    Raises
    ------
    FocusFusionError
        As :func:`napari_focus_fusion.fuse` does.
    """
    stack = stack_from_layer(layer, axes=axes)
    judge = None if decided_by is None else stack_from_layer(decided_by, axes=axes)
    return chosen_layers(fuse_decided(stack, judge, **options), outputs)


def guess_axes(layer: Image, z_axis: int | None = None) -> str:
    """Work out what the axes of a layer are.

    Parameters
    ----------
    layer
        An image layer. Axis labels such as ``("t", "z", "y", "x")`` settle it;
        otherwise Z is the axis before Y and X, unless that is short as channels are
        and another one is not.
    z_axis
        Which axis is Z, where that is known; the others are worked out.

    Returns
    -------
    str
        One letter an axis out of ``TCZYX``, without one for RGB. A layer of two axes
        has no Z.

    Raises
    ------
    FocusFusionError
        If the layer has more than five axes.
    """
    count = layer.ndim
    labels = tuple(layer.axis_labels)
    named = axes_from_names(labels, count)
    if named and "S" not in named and (z_axis is None or named[z_axis] == "Z"):
        if count == 2 or "Z" in named:
            return named
    if count == 2:
        return "YX"
    if count > 5:
        raise FocusFusionError(
            f"The layer {layer.name!r} has {count} axes, but there is room for time, "
            "channel, z, y and x alone. Cut it down first."
        )
    shape = level_0(layer).shape[:count]
    if z_axis is None:
        alone = [axes_from_names((label, "y", "x"), 3) for label in labels[:-2]]
        if "ZYX" in alone:
            z_axis = alone.index("ZYX")
        else:
            z_axis = count - 3
            longest = int(np.argmax(shape[:-2]))
            if shape[z_axis] <= _MOST_CHANNELS < shape[longest]:
                z_axis = longest
    letters = dict.fromkeys(range(count), "")
    letters[z_axis] = "Z"
    rest = [axis for axis in letters if axis != z_axis]
    letters[rest[-2]], letters[rest[-1]] = "Y", "X"
    letters.update(zip(rest[:-2], _guess_leading(layer, rest[:-2]), strict=True))
    return "".join(letters.values())


def _guess_leading(layer: Image, axes: Sequence[int]) -> str:
    """``"C"``, ``"T"``, ``"TC"`` or ``"CT"`` for the axes beside Z, Y and X."""
    shape = level_0(layer).shape
    labels = [layer.axis_labels[axis] for axis in axes]
    if len(axes) == 1:
        named = axes_from_names((*labels, "y", "x"), 3)
        if named in ("TYX", "CYX"):
            return named[0]
        return "C" if shape[axes[0]] <= _MOST_CHANNELS else "T"
    if len(axes) == 2:
        named = axes_from_names((*labels, "y", "x"), 4)
        if named in ("TCYX", "CTYX"):
            return named[:2]
        return "CT" if shape[axes[0]] < shape[axes[1]] else "TC"
    return ""


def stack_from_layer(layer: Image, *, axes: str | None = None) -> FocusStack:
    """Take down what a layer holds now; nothing that happens to it later matters.

    Parameters
    ----------
    layer
        An image layer; of a multiscale one the full resolution is taken.
    axes
        One letter an axis of the layer out of ``TCZYX``, without one for RGB; None:
        :func:`guess_axes`.

    Returns
    -------
    FocusStack
        With the layer's pixel sizes, units, place in the world and colours. No pixel
        is read or copied.

    Raises
    ------
    FocusFusionError
        If the axes do not fit, or the pixels are of a kind that cannot be fused.
    """
    letters = (guess_axes(layer) if axes is None else axes).upper()
    display: dict[str, Any] = {
        key: copy.copy(getattr(layer, key)) for key in _DISPLAY if hasattr(layer, key)
    }
    display["affine"] = np.array(layer.affine.affine_matrix)
    if not layer.rgb:
        display["colormap"] = layer.colormap
    stack = as_stack(
        level_0(layer),
        axes=letters + ("S" if layer.rgb else ""),
        name=layer.name,
        scale=dict(zip(letters, np.abs(layer.scale), strict=False)),
        units=dict(zip(letters, map(str, layer.units), strict=False)),
        display=display,
    )
    return replace(stack, source=layer.source.path or f"layer {layer.name!r}")


def level_0(layer: Image) -> Any:
    """A layer's pixels at full resolution, not read."""
    return layer.data[0] if layer.multiscale else layer.data


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


def chosen_layers(
    result: FusionResult, outputs: Sequence[str] = OUTPUTS
) -> list[LayerData]:
    """Layers of a result, those asked for alone.

    Parameters
    ----------
    result
        What :func:`napari_focus_fusion.fuse` gave.
    outputs
        Any of :data:`OUTPUTS`.

    Returns
    -------
    list of (data, attributes, "image")
        The first one is visible.

    Raises
    ------
    FocusFusionError
        If there is no such output.
    """
    unknown = sorted(set(outputs) - set(OUTPUTS))
    if unknown:
        raise FocusFusionError(
            f"There is no output {', '.join(unknown)}; there are {', '.join(OUTPUTS)}."
        )
    layers = [
        layer
        for layer in result.layers()
        if layer[1]["metadata"][METADATA]["output"] in outputs
    ]
    if layers:
        layers[0][1]["visible"] = True
    return layers


def covers(blending: str) -> bool:
    """Whether a layer of this blending hides what lies below it."""
    return blending in _COVERING
