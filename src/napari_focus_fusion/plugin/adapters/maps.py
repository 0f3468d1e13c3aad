"""Decision maps as napari layers: reading, retouching, fusing by them; no window.

napari draws label 0 as transparent and erases with it, so an editable map counts from
1: label 1 is slice 0, label 2 is slice 1. Everywhere else slices count from 0::

    result, layers = retouch_layers(stack_layer, decision_layer)
    labels = Layer.create(*layers[-1])  # to be painted on
    result.decision[...] = decision_of(labels, result.stack)
    fused = fuse_by_map(other_layer, labels)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Shapes

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.placement import displayed_axes
from napari_focus_fusion.plugin.adapters.layers import (
    chosen_layers,
    level_0,
    stack_from_layers,
)
from napari_focus_fusion.plugin.adapters.models import with_models
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.result import FusionResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_focus_fusion.result import LayerData
    from napari_focus_fusion.stack import FocusStack

#: Marks the metadata of a map that is painted on.
EDITABLE = "editable decision"


def result_metadata(layer: Any) -> dict[str, Any]:
    """Output and provenance of a layer of this plugin; empty for other layers."""
    known = getattr(layer, "metadata", {}).get(METADATA_KEY, {})
    return known if isinstance(known, dict) else {}


def is_map(layer: Any) -> bool:
    """Whether a layer may be a decision map: integers in a plane, no other result.

    Time may come first, and other axes of length 1.
    """
    if not isinstance(layer, Image | Labels) or getattr(layer, "rgb", False):
        return False
    output = result_metadata(layer).get("output")
    if output is not None:
        return output in ("decision", EDITABLE)
    data = level_0(layer)
    long_axes = sum(n > 1 for n in data.shape[:-2])
    return data.ndim >= 2 and np.dtype(data.dtype).kind in "iu" and long_axes <= 1


def axes_of_result(stack: FocusStack, ndim: int) -> str:
    """Axes of a layer of `ndim` axes that lies on a stack, without S.

    They are the last ones of the stack's own layer, in which Z and C have the length 1.
    Where rows and columns are not among them the layer has rows and columns alone, and
    perhaps time points before them.
    """
    letters = displayed_axes(stack)[-ndim:]
    if len(letters) == ndim and {"Y", "X"} <= set(letters):
        return letters
    return "CTYX"[-ndim:]


def in_stack_order(values: Any, stack: FocusStack, *, rgb: bool = False) -> Any:
    """Pixels of a result's layer in the order of its stack: (T, Y, X) or (Y, X).

    Parameters
    ----------
    values
        Level 0 of a layer, whose axes are those of the stack's layer: in one of (Y, X,
        Z) the slices, of which a result has one, come last.
    stack
        The stack that it lies on.
    rgb
        Whether the last axis is colour, which stays there.

    Returns
    -------
    array
        A view, where `values` is numpy or dask; as it was, where the axes are others.
    """
    shape = tuple(values.shape)
    letters = axes_of_result(stack, len(shape) - rgb)
    long_axes = [a for a, n in zip(letters, shape, strict=False) if n > 1]
    kept = "".join(a for a in letters if a in "TYX")
    order = [kept.index(axis) for axis in "TYX" if axis in kept]
    if len(letters) != len(shape) - rgb or not set(long_axes) <= set("TYX"):
        return values
    if kept == letters and order == sorted(order):
        return values
    if not hasattr(values, "transpose"):  # Zarr
        values = np.asarray(values)
    plane = values[tuple(slice(None) if axis in kept else 0 for axis in letters)]
    return plane.transpose(*order, *([len(order)] if rgb else []))


def maps_of(layers: Iterable[Layer], stack: FocusStack) -> list[Layer]:
    """Layers that may be a stack's decision map, the likeliest first.

    Parameters
    ----------
    layers
        Any layers.
    stack
        The stack that the map is for.

    Returns
    -------
    list of Layer
        Of the stack's size; its own decision maps, then labels, then images.
    """
    plane = (stack.height, stack.width)
    whole = tuple(n for n in stack.map_shape[:-2] if n > 1)
    fitting = []
    for layer in layers:
        if not is_map(layer):
            continue
        shape = tuple(in_stack_order(level_0(layer), stack).shape)
        rest = tuple(n for n in shape[:-2] if n > 1)
        if shape[-2:] == plane and rest in ((), whole):
            fitting.append(layer)

    def rank(layer: Layer) -> tuple[bool, bool, bool]:
        known = result_metadata(layer)
        own = known.get("source") == stack.source
        return not (known and own), not known, not isinstance(layer, Labels)

    return sorted(fitting, key=rank)


def decision_of(
    layer: Image | Labels,
    stack: FocusStack,
    *,
    first: int | None = None,
    t: int | None = None,
) -> NDArray[np.uint16]:
    """Read a layer as the decision map of a stack.

    Parameters
    ----------
    layer
        A map of this program, of another, or painted.
    stack
        The stack that the map is for.
    first
        Value of the first slice in the layer, 0 or 1; None: 1 for a map that was made
        to be painted on, else as :func:`napari_focus_fusion.retouch.as_decision` finds.
    t
        Time point of the map to use for all time points of the stack; None: the map's
        own time points, or its only one for all.

    Returns
    -------
    ndarray
        uint16, axes ``stack.map_axes``, slices counted from 0; a copy.

    Raises
    ------
    FocusFusionError
        If the layer is no decision map of this stack.
    """
    from napari_focus_fusion.retouch import as_decision

    values = in_stack_order(level_0(layer), stack)
    if t is not None:
        values = plane_of(values, t)
    return as_decision(values, stack, first=first_of(layer) if first is None else first)


def first_of(layer: Layer) -> int | None:
    """Value of the first slice in a layer, where that is known."""
    return 1 if result_metadata(layer).get("output") == EDITABLE else None


def aligned_as(stack: FocusStack, known: dict[str, Any]) -> FocusStack:
    """A stack, aligned and levelled as it was for a result.

    Parameters
    ----------
    stack
        What was fused.
    known
        What :func:`result_metadata` gave of the result.

    Raises
    ------
    FocusFusionError
        If it is not the stack that was fused.
    """
    if not (known.get("registration") or known.get("brightness")):
        return stack  # without the import, which takes long
    from napari_focus_fusion.engine.registering import as_fused

    return as_fused(stack, known)


def alignment_for(
    known: dict[str, Any], stack: FocusStack, t: int | None = None
) -> Any:
    """What ``align=`` of a fusion by the map of a result has to be; None: nothing.

    Parameters
    ----------
    known
        What :func:`result_metadata` gave of the map, or a provenance.
    stack
        What is to be fused; one that is aligned already stays as it is.
    t
        The time point whose map is used; None: all.
    """
    from napari_focus_fusion.engine.registering import alignment_of
    from napari_focus_fusion.registration.registration import Registration

    record = known.get("registration")
    if record is None or alignment_of(stack):
        return None
    transforms = record["transforms"]
    if t is not None and len(transforms) > 1:
        transforms = transforms[t : t + 1]
    return Registration.of_record({**record, "transforms": transforms})


def retouch_layers(
    layer: Image | Sequence[Image],
    map_layer: Image | Labels,
    *,
    axes: str | None = None,
    first: int | None = None,
    fused_layer: Image | None = None,
    **options: Any,
) -> tuple[FusionResult, list[LayerData]]:
    """Make the layers of retouching: a fused image, and a map to paint on.

    Parameters
    ----------
    layer
        The stack: one layer, or a two-dimensional one a slice.
    map_layer, first
        The decision map to begin with, as for :func:`decision_of`.
    axes
        As for :func:`napari_focus_fusion.plugin.adapters.layers.stack_from_layers`.
    fused_layer
        The fused image that belongs to the map, if there is one: it is copied, and no
        slice is read. Not for stacks with channels.
    **options
        Further keyword arguments of :func:`napari_focus_fusion.fuse`.

    Returns
    -------
    result : FusionResult
        Its fused pixels are those of the layers, to be changed in place.
    layers : list of (data, attributes, type)
        The fused image, one layer a channel, then the map as labels.

    Raises
    ------
    FocusFusionError
        If the map does not fit the stack, or as :func:`napari_focus_fusion.fuse` does.
    """
    stack = stack_from_layers(layer, axes=axes)
    stack = aligned_as(stack, result_metadata(map_layer))
    decision = decision_of(map_layer, stack, first=first)
    pixels = None if fused_layer is None else level_0(fused_layer)
    return begin(stack, decision, pixels, **with_models(options, models_folder()))


def begin(
    stack: FocusStack,
    decision: NDArray[np.uint16],
    fused: Any = None,
    **options: Any,
) -> tuple[FusionResult, list[LayerData]]:
    """As :func:`retouch_layers`, from the stack and the arrays of the layers."""
    # A fused image of one time point only, or of another resolution, is not reused.
    if fused is None or np.prod(fused.shape) != np.prod(stack.fused_shape):
        from napari_focus_fusion.fusion import fuse

        result = fuse(stack, decision=decision, **options)
    else:
        confidence = np.broadcast_to(np.float32(1), decision.shape)
        depth = decision * np.float32(stack.pixel_size("Z"))
        fused = in_stack_order(fused, stack, rgb="S" in stack.axes)
        copy = np.array(fused).reshape(stack.fused_shape)
        result = FusionResult(copy, decision, confidence, depth, stack, {})
    from napari_focus_fusion.registration.aligned import AlignedSlices

    provenance = {**result.provenance, "model": "retouched", "source": stack.source}
    if isinstance(stack.data, AlignedSlices):
        provenance |= stack.data.record
    result = replace(result, provenance=provenance)
    return result, [*chosen_layers(result, ("fused",)), _to_paint_on(result)]


def _to_paint_on(result: FusionResult) -> LayerData:
    """The decision map as labels that count from 1."""
    from napari.utils.colormaps import DirectLabelColormap, ensure_colormap

    stack = result.stack
    count = stack.n_slices
    labels = np.asarray(result.decision) + np.uint16(1)
    if count < np.iinfo(np.uint8).max:
        labels = labels.astype(np.uint8)
    ((data, attributes, _),) = chosen_layers(
        replace(result, decision=labels), ("decision",)
    )
    unwanted = ("rgb", "contrast_limits", "multiscale")
    attributes = {k: v for k, v in attributes.items() if k not in unwanted}
    turbo = ensure_colormap("turbo").map(np.linspace(0.05, 0.95, count))
    colours: dict[int | None, Any] = {z + 1: turbo[z] for z in range(count)}
    colours |= {0: "transparent", None: "transparent"}
    attributes |= {
        "name": f"{stack.name} decision, to paint on",
        "colormap": DirectLabelColormap(color_dict=colours),
        "opacity": 0.2,
        # Shown in the status bar for the pixel under the mouse.
        "features": {"index": range(1, count + 1), "slice": range(count)},
        "metadata": {METADATA_KEY: {"output": EDITABLE, **result.provenance}},
    }
    return data, attributes, "labels"


def fused_of(layers: Iterable[Layer], map_layer: Layer) -> Image | None:
    """The fused image of the same run as a decision map.

    Parameters
    ----------
    layers
        Layers to search.
    map_layer
        A decision map of :func:`napari_focus_fusion.fuse`.

    Returns
    -------
    Image or None
        None if it is not there, has channels of its own, is super-resolved, or was made
        by a model that does not take its pixels from slices.
    """
    known = result_metadata(map_layer)
    if not known or known.get("reconstructed", True) or "super_resolution" in known:
        return None
    if "C" in known.get("source_axes", "C"):
        return None
    run = {**known, "output": "fused"}
    return next((layer for layer in layers if result_metadata(layer) == run), None)


def fuse_by_map(
    layer: Image | Sequence[Image],
    map_layer: Image | Labels,
    *,
    axes: str | None = None,
    first: int | None = None,
    t: int | None = None,
    **options: Any,
) -> list[LayerData]:
    """Fuse a stack by a decision map: another channel, another time series.

    Parameters
    ----------
    layer, axes
        The stack, as for :func:`retouch_layers`, with as many slices and pixels as the
        one that the map is of. It is aligned as that one was.
    map_layer, first, t
        As for :func:`decision_of`.
    **options
        Further keyword arguments of :func:`napari_focus_fusion.fuse`.

    Returns
    -------
    list of (data, attributes, "image")
        The fused image, one layer a channel.

    Raises
    ------
    FocusFusionError
        If the map does not fit the stack, or as :func:`napari_focus_fusion.fuse` does.
    """
    from napari_focus_fusion.fusion import fuse

    stack = stack_from_layers(layer, axes=axes)
    decision = decision_of(map_layer, stack, first=first, t=t)
    options = {"align": alignment_for(result_metadata(map_layer), stack, t), **options}
    options = with_models(options, models_folder())
    return chosen_layers(fuse(stack, decision=decision, **options), ("fused",))


def plane_of(values: Any, t: int) -> NDArray[Any]:
    """One time point (Y, X) of a map whose other leading axes have the length 1."""
    array = np.asarray(values)
    planes = array.reshape(-1, *array.shape[-2:])
    if len(planes) == 1:
        return planes[0]
    if not 0 <= t < len(planes):
        raise FocusFusionError(
            f"The map has {len(planes)} time points, counted from 0; there is no {t}."
        )
    return planes[t]


def drawn_area(
    shapes: Shapes, labels: Labels, axes: str | None = None
) -> NDArray[np.bool_]:
    """Mask of the pixels inside of drawn shapes.

    Parameters
    ----------
    shapes
        The selected shapes are used; all, where none is selected. Their layer may have
        another transform than the map.
    labels
        The map.
    axes
        Its axes, one letter each; None: Y and X are the last ones.

    Returns
    -------
    ndarray
        bool (Y, X) of the map.

    Raises
    ------
    FocusFusionError
        If nothing is drawn.
    """
    chosen = sorted(shapes.selected_data) or range(shapes.nshapes)
    if not len(chosen):
        raise FocusFusionError(
            f"Nothing is drawn in {shapes.name!r}. Draw a shape around the area first."
        )
    plane_axes = [-2, -1] if axes is None else [axes.index("Y"), axes.index("X")]
    outlines = [
        np.array(
            [labels.world_to_data(shapes.data_to_world(p)) for p in shapes.data[i]]
        )[:, plane_axes]
        for i in chosen
    ]
    kinds = [shapes.shape_type[i] for i in chosen]
    plane = tuple(labels.data.shape[axis] for axis in plane_axes)
    masks: Any = Shapes(outlines, shape_type=kinds).to_masks(mask_shape=plane)
    return masks.any(0)


def connected_area(plane: NDArray[Any], y: int, x: int) -> NDArray[np.bool_]:
    """The 4-connected area of one label around a pixel.

    Parameters
    ----------
    plane
        (Y, X), labels.
    y, x
        One of its pixels.

    Returns
    -------
    ndarray
        bool (Y, X).

    Raises
    ------
    FocusFusionError
        If the pixel lies outside.
    """
    from skimage.segmentation import flood

    if not (0 <= y < plane.shape[0] and 0 <= x < plane.shape[1]):
        raise FocusFusionError("Click on the area first; that was outside the image.")
    area: Any = flood(plane, (y, x), connectivity=1)
    return area
