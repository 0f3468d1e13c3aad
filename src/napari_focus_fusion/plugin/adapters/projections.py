"""Layers that follow from the surface of a fusion: slabs, heights, single slices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.parameters import SMOOTHING
from napari_focus_fusion.placement import Transform, displayed_axes, displayed_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.projection import Method
    from napari_focus_fusion.result import FusionResult, LayerData
    from napari_focus_fusion.stack import FocusStack

#: What can be made of the surface of a fusion, in the order of the layers.
FROM_SURFACE = ("projection", "height", "best slice", "aligned")


@dataclass(frozen=True, slots=True)
class SlabOptions:
    """What is projected around the surface, and how smooth the height map is.

    Attributes
    ----------
    slices, offset, method
        As :func:`napari_focus_fusion.project` takes them.
    stack
        What is projected; None: what was fused.
    smoothing
        As :func:`napari_focus_fusion.height_map` takes it.
    """

    slices: int = 1
    offset: float = 0.0
    method: Method = "mean"
    stack: FocusStack | None = None
    smoothing: float = SMOOTHING


#: The slice at the surface, of what was fused.
ONE_SLICE = SlabOptions()


def layers_from_surface(
    result: FusionResult, outputs: Sequence[str], options: SlabOptions
) -> tuple[list[LayerData], list[str]]:
    """Layers of a fusion beside its own, and what is to be said of them.

    Parameters
    ----------
    result
        The fusion, at the resolution of its slices.
    outputs
        Any of :data:`FROM_SURFACE`; others do not matter.
    options
        Slab and smoothing.

    Returns
    -------
    layers : list of (data, attributes, "image")
        None of them visible.
    notes : list of str
        For the user.

    Raises
    ------
    FocusFusionError
        If the slab lies outside of the stack.
    """
    layers, notes = [], []
    if "projection" in outputs:
        made, said = _projection(result, options)
        layers += made
        notes += said
    if "height" in outputs:
        layer, said = _height(result, options.smoothing)
        layers.append(layer)
        notes += said
    if "best slice" in outputs:
        layers += _best_slice(result)
    moved = result.provenance.get("registration") or result.provenance.get("brightness")
    if "aligned" in outputs and moved:
        layers.append(_aligned(result))
    for _, attributes, _ in layers:
        attributes["visible"] = False
    return layers, notes


def _projection(
    result: FusionResult, options: SlabOptions
) -> tuple[list[LayerData], list[str]]:
    from napari_focus_fusion.projection import project

    stack = result.stack if options.stack is None else options.stack
    found = project(
        stack,
        result,
        slices=options.slices,
        offset=options.offset,
        method=options.method,
    )
    return found.layers(), found.notes


def _height(result: FusionResult, smoothing: float) -> tuple[LayerData, list[str]]:
    from napari_focus_fusion.height import height_map

    found = height_map(result, smoothing=smoothing)
    heights = replace(
        result,
        depth=found.height,
        provenance={**result.provenance, **found.provenance},
    )
    layer = heights.map_layer("depth")
    name = f"{result.stack.name} height map ({found.unit})"
    metadata = {METADATA_KEY: {**found.provenance, "output": "height map"}}
    known = found.height[found.valid]
    if known.size:
        low, high = float(known.min()), float(known.max())
        layer[1]["contrast_limits"] = (low, max(high, low + 1e-6))
    layer[1].update(name=name, metadata=metadata)
    return layer, found.notes


def _best_slice(result: FusionResult) -> list[LayerData]:
    """The slice that the decision map names most, at each time point its own."""
    from napari_focus_fusion.projection import in_register_with, project

    stack = result.stack
    best = np.asarray(result.best_slice, np.uint16)
    plane = best[..., None, None] if best.ndim else best
    slices = project(
        in_register_with(stack, result.provenance),
        np.broadcast_to(plane, stack.map_shape),
    )
    which = str(int(best)) if best.ndim == 0 else "of each time point"
    layers = slices.layers()
    for _, attributes, _ in layers:
        name = attributes["name"].replace(" projection", f" best slice {which}")
        metadata = {"output": "best slice", **result.provenance}
        attributes.update(name=name, metadata={METADATA_KEY: metadata})
    return layers


def _aligned(result: FusionResult) -> LayerData:
    """The slices as the fusion saw them, read where they are shown."""
    import dask.array as da

    from napari_focus_fusion.engine.registering import as_fused

    stack = as_fused(result.stack, result.provenance)
    shown = displayed_axes(stack)
    letters = shown + ("S" if "S" in stack.axes else "")
    chunks = [stack.size(a) if a in "YXS" else 1 for a in stack.axes]
    slices = da.from_array(stack.data, chunks=chunks, name=False, asarray=False)
    slices = slices.map_blocks(np.ma.filled, 0, dtype=stack.dtype)
    slices = slices.transpose([stack.axes.index(axis) for axis in letters])
    provenance = {"output": "aligned slices", **result.provenance}
    attributes = {
        "name": f"{stack.name} aligned",
        "rgb": "S" in stack.axes,
        "axis_labels": tuple(axis.lower() for axis in shown),
        "units": displayed_units(stack),
        "metadata": {METADATA_KEY: provenance},
        **Transform.of(stack).attributes(),
    }
    limits = stack.display.get("contrast_limits")
    if limits is not None and "S" not in stack.axes:
        attributes["contrast_limits"] = limits
    return slices, attributes, "image"
