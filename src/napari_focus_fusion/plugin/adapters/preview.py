"""The part of a stack in the field of view, and its fusion as a preview."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.plugin.adapters.crop import crop_stack
from napari_focus_fusion.plugin.adapters.layers import (
    chosen_layers,
    level_0,
    stack_from_layers,
)
from napari_focus_fusion.plugin.adapters.models import with_models
from napari_focus_fusion.plugin.adapters.projections import (
    ONE_SLICE,
    SlabOptions,
    layers_from_surface,
)
from napari_focus_fusion.registration.registration import (
    Registration,
    load_registration,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import napari
    from napari.layers import Image

    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import LayerData
    from napari_focus_fusion.stack import FocusStack

#: What a preview shows where the fused image is not wanted: the first that is.
PREVIEWED = ("projection", "height", "best slice")
#: Fewest pixels of a preview, however slow the model.
MIN_PIXELS = 160 * 160
#: Most pixels read for a preview of data that are not in memory.
MAX_PIXELS_READ = 64_000_000
#: With fewer rows or columns in view the stack counts as out of view.
MIN_SIDE = 16


@dataclass(frozen=True)
class View:
    """The part of a stack in the field of view.

    Attributes
    ----------
    y, x
        First pixel, one behind the last, and step, in pixels of the level.
    level
        Level of a multiscale layer, 0 for the full resolution.
    time, channel
        Those on the screen, from 0.
    """

    y: tuple[int, int, int]
    x: tuple[int, int, int]
    level: int = 0
    time: int = 0
    channel: int = 0


@dataclass(frozen=True)
class PreviewJob:
    """A fusion of the field of view, fixed before it starts.

    Attributes
    ----------
    stack
        The stack to fuse, cropped to the view.
    channel
        Which channel is shown.
    options
        Keyword arguments of :func:`napari_focus_fusion.fuse`.
    folder
        Where fine-tuned models are; None: the usual one.
    shown
        ``"fused"``, or one of :data:`FROM_SURFACE` where the fused image is not wanted.
    slab
        What is projected around the surface.
    """

    stack: FocusStack
    channel: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    shown: str = "fused"
    slab: SlabOptions = ONE_SLICE

    def __call__(
        self, progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> LayerData:
        """Run; gives the layer of the preview."""
        from napari_focus_fusion.fusion import fuse

        result = fuse(
            self.stack,
            should_stop=should_stop,
            **with_models(self.options, self.folder),
        )
        channels = chosen_layers(result, ("fused",))
        if self.shown != "fused":
            channels, _ = layers_from_surface(result, (self.shown,), self.slab)
        data, attributes, kind = channels[min(self.channel, len(channels) - 1)]
        attributes.update(
            name="Preview",
            metadata={METADATA_KEY: {"output": "preview", **result.provenance}},
            # It lies over its source and must hide it.
            blending="opaque",
            visible=True,
        )
        return data, attributes, kind

    @property
    def work(self) -> int:
        """Pixels x slices."""
        return self.stack.height * self.stack.width * self.stack.n_slices


def view_of(
    layers: Sequence[Image], axes: str, viewer: napari.Viewer, work: float
) -> View:
    """The part of a stack in view, at a resolution coarse enough for the work.

    Parameters
    ----------
    layers
        The stack: one layer, or a two-dimensional one a slice.
    axes
        What the axes of the stack are, one letter each.
    viewer
        The viewer that shows the stack.
    work
        Pixels x slices to fuse, at most; though at least :data:`MIN_PIXELS` a slice.

    Raises
    ------
    FocusFusionError
        If nothing of the stack is in view; the text says what to do.
    """
    layer = layers[0]
    letters = axes[-2:] if len(layers) > 1 else axes
    if viewer.dims.ndisplay != 2:
        raise FocusFusionError("For a preview, go back from 3-D to the 2-D view.")
    lead = viewer.dims.ndim - layer.ndim
    if {axis - lead for axis in viewer.dims.displayed} != {
        letters.index("Y"),
        letters.index("X"),
    }:
        raise FocusFusionError(
            "For a preview, roll the axes of the viewer until the slices are seen face "
            "on."
        )
    full = level_0(layer).shape
    count = len(layers) if len(layers) > 1 else full[axes.index("Z")]
    sides = [letters.index("Y"), letters.index("X")]
    spans, on_screen = _in_view(layer, sides, viewer)
    if not hasattr(level_0(layer), "__array_interface__") and not layer.multiscale:
        spans = _centre(spans, MAX_PIXELS_READ / count)
    pixels = (spans[0][1] - spans[0][0]) * (spans[1][1] - spans[1][0])
    wanted = max(work / count, MIN_PIXELS)
    step = max(1, int(on_screen), ceil((pixels / wanted) ** 0.5))
    level = _level(layer, sides, step)
    if level:
        scale = layer.downsample_factors[level]
        step = max(1, round(step / scale[sides[1]]))
        spans = [
            (int(low / scale[side]), max(int(high / scale[side]), 1))
            for side, (low, high) in zip(sides, spans, strict=True)
        ]
    index = index_on_screen(layer, letters, viewer)
    return View(
        (*spans[0], step),
        (*spans[1], step),
        level,
        index.get("T", 0),
        index.get("C", 0),
    )


def index_on_screen(layer: Image, axes: str, viewer: napari.Viewer) -> dict[str, int]:
    """Indices of the sliders of a viewer in a layer, by axis letter, from 0."""
    point = layer.world_to_data(viewer.dims.point[viewer.dims.ndim - layer.ndim :])
    return {
        axis: min(max(round(float(value)), 0), size - 1)
        for axis, value, size in zip(axes, point, level_0(layer).shape, strict=False)
    }


def _in_view(
    layer: Image, sides: list[int], viewer: napari.Viewer
) -> tuple[list[tuple[int, int]], float]:
    """Pixels in view along some axes, and how many of them one screen pixel covers."""
    camera = camera_of(viewer)
    if hasattr(viewer, "canvas"):
        high, wide = viewer.canvas.viewbox_size(viewer.layers)
    else:  # before napari 0.9
        high, wide = viewer._canvas_size
    shown = list(viewer.dims.displayed)
    corners = []
    for down, right in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        point = np.array(viewer.dims.point, float)
        point[shown] = np.array(camera.center[-2:]) + (
            np.array([down * high, right * wide]) / 2 / camera.zoom
        )
        corners.append(layer.world_to_data(point[viewer.dims.ndim - layer.ndim :]))
    low, top = (pick(corners, axis=0)[sides] for pick in (np.min, np.max))
    full = np.array(level_0(layer).shape)[sides]
    first = np.clip(np.floor(low), 0, full).astype(int)
    last = np.clip(np.ceil(top) + 1, 0, full).astype(int)
    if min(last - first) < MIN_SIDE:
        raise FocusFusionError(
            f"Nothing of {layer.name!r} is in view; move to it for a preview."
        )
    a, b = np.array(corners)[[0, 1]][:, sides]
    on_screen = float(np.hypot(*(b - a))) / wide
    return list(zip(first.tolist(), last.tolist(), strict=True)), on_screen


def camera_of(viewer: napari.Viewer) -> Any:
    """The camera; napari 0.9 moved it, and warns about the old name."""
    return getattr(viewer, "scene", viewer).camera


def _centre(spans: list[tuple[int, int]], most: float) -> list[tuple[int, int]]:
    """The centre of a field, where it has too many pixels."""
    sides = [high - low for low, high in spans]
    shrink = min(1.0, (most / (sides[0] * sides[1])) ** 0.5)
    borders = [int(side * (1 - shrink) / 2) for side in sides]
    return [
        (low + border, high - border)
        for (low, high), border in zip(spans, borders, strict=True)
    ]


def _level(layer: Image, sides: list[int], step: int) -> int:
    """The coarsest level of a layer that is no coarser than a step."""
    if not layer.multiscale:
        return 0
    fit = [
        i
        for i, factors in enumerate(layer.downsample_factors)
        if max(factors[side] for side in sides) <= step
    ]
    return fit[-1] if fit else 0


def preview_job(
    layers: Sequence[Image],
    axes: str,
    view: View,
    *,
    reference_layer: Image | None = None,
    folder: Path | None = None,
    outputs: Sequence[str] = ("fused",),
    slab: SlabOptions | None = None,
    slab_layer: Image | None = None,
    **options: Any,
) -> PreviewJob:
    """Fix what a view shows; no pixel is read before the job is called.

    Parameters
    ----------
    layers, axes
        As in :func:`view_of`.
    view
        The result of :func:`view_of`.
    reference_layer
        Another layer in which the focus is measured.
    folder
        Where fine-tuned models are; None: the usual one.
    outputs
        What is wanted: the fused image is shown, or else the slab, the height map or
        the best slice.
    slab, slab_layer
        What is projected around the surface, and of which layer; None: of the stack.
    **options
        Keyword arguments of :func:`napari_focus_fusion.fuse`. A preview has
        the source's own resolution, without super-resolution.

    Raises
    ------
    FocusFusionError
        If the layers cannot be fused.
    """
    if options.pop("scale", 1) > 1:
        options["model"] = options.get("decision") or options["model"]
    for name in ("decision", "joint", "out", "overwrite"):
        options.pop(name, None)
    spans = {"Y": slice(*view.y), "X": slice(*view.x)}
    spans["T"] = slice(view.time, view.time + 1)

    def cropped(source: Sequence[Image]) -> FocusStack:
        stack = stack_from_layers(source, axes=axes, level=view.level)
        return crop_stack(stack, {a: s for a, s in spans.items() if a in stack.axes})

    if reference_layer is not None:
        options["reference"] = cropped([reference_layer])
    stack = cropped(layers)
    if isinstance(options.get("align"), str) and options["align"].endswith(".json"):
        options["align"] = _registration_in(view, layers[0], stack, options["align"])
    slab = slab or ONE_SLICE
    if slab_layer is not None:
        slab = replace(slab, stack=cropped([slab_layer]))
    of_surface = [name for name in PREVIEWED if name in outputs]
    shown = of_surface[0] if of_surface and "fused" not in outputs else "fused"
    return PreviewJob(stack, view.channel, options, folder, shown, slab)


def _registration_in(
    view: View, layer: Image, stack: FocusStack, path: str
) -> Registration:
    """A saved registration in the pixels of a view."""
    known = load_registration(path)
    factors = layer.downsample_factors[view.level] if layer.multiscale else None
    steps, starts = [], []
    for axis, span in (("Y", view.y), ("X", view.x)):
        factor = 1.0
        if factors is not None:
            factor = float(factors[stack.axes.removesuffix("S").index(axis)])
        steps.append(span[2] * factor)
        starts.append(span[0] * factor)
    step, start = np.array(steps), np.array(starts)
    matrices = known.matrices
    matrices = matrices[view.time : view.time + 1] if len(matrices) > 1 else matrices
    linear, shift = matrices[..., :2], matrices[..., 2]
    moved = (linear @ start + shift - start) / step
    seen = np.concatenate([linear * step / step[:, None], moved[..., None]], -1)
    sides = stack.height, stack.width
    return Registration(known.kind, known.reference_slice, sides, tuple(seen.tolist()))
