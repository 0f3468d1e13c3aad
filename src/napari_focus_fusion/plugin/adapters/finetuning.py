"""Fine-tuning on napari layers, and comparing models, without a window.

Everything the widget does can be done from here::

    result = finetune_layers([layer], "sesf", name="pollen")
    print(result.verdict)
    for data, attributes, kind in compare_layers(layer, "sesf", "pollen"):
        viewer.add_layer(Layer.create(data, attributes, kind))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, floor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer, Shapes

from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.plugin.adapters.crop import crop_stack
from napari_focus_fusion.plugin.adapters.errors import explain_failure
from napari_focus_fusion.plugin.adapters.layers import (
    chosen_layers,
    guess_axes,
    level_0,
    stack_from_layer,
)
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.tiling import Rectangle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import napari
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.result import FusionResult, LayerData
    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.training.finetune import FineTuneResult

#: Sides of a patch, in pixels: the usual one, and one for small stacks.
PATCH, SMALL_PATCH = 64, 48
#: Largest side, in pixels, and most slices of the field shown during training.
FIELD, FIELD_SLICES = 192, 24
#: Gap between images shown side by side, as a share of their width.
GAP = 0.04


@dataclass(frozen=True)
class Validation:
    """A field fused at a validation, by the parent and by the model in training.

    Attributes
    ----------
    fused
        Two fused images (Y, X) or (Y, X, 3): the parent's and the model's.
    decisions
        Two decision maps (Y, X), the index of a slice at each pixel.
    """

    fused: tuple[NDArray[Any], NDArray[Any]]
    decisions: tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """A step of training: its row of the history."""

    values: dict[str, float]


@dataclass(frozen=True)
class FineTuneJob:
    """The settings and data of a fine-tuning run, fixed before it starts.

    Attributes
    ----------
    model
        Name of the parent.
    stacks
        The stacks to train on.
    shown
        A small field that is fused at each validation, for display.
    folder
        The folder of models; None: the usual one.
    options
        Further keyword arguments of :func:`napari_focus_fusion.finetune`.
    """

    model: str
    stacks: tuple[FocusStack, ...]
    shown: FocusStack
    folder: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self, progress: Callable[[Any], None], should_stop: Callable[[], bool]
    ) -> FineTuneResult:
        """Run; `progress` gets Progress, :class:`Row` and :class:`Validation` objects.

        Once `should_stop` returns True it ends before the next step, with the best
        state so far.
        """
        from napari_focus_fusion.fusion import fuse
        from napari_focus_fusion.models.registry import load_model
        from napari_focus_fusion.training.finetune import finetune

        parents: list[FusionResult] = []

        def fused(model: FusionModel) -> FusionResult:
            options = {k: self.options[k] for k in ("reference", "device")}
            return fuse(self.shown, model, should_stop=should_stop, **options)

        def show_field(model: FusionModel) -> None:
            # A field that cannot be fused does not stop the training.
            try:
                if not parents:
                    parents.append(fused(load_model(self.model, self.folder)))
                both = (parents[0], fused(model))
            except (Cancelled, FocusFusionError):
                return
            images, maps = zip(*map(_image_and_map, both), strict=True)
            progress(Validation(images, maps))

        return finetune(
            self.model,
            list(self.stacks),
            on_step=lambda row: progress(Row(row)),
            on_validation=show_field,
            progress=progress,
            should_stop=should_stop,
            folder=self.folder,
            **self.options,
        )

    @property
    def names(self) -> str:
        """Names of the stacks, as one text."""
        names = [repr(stack.name) for stack in self.stacks[:2]]
        return ", ".join(names) + (" and others" if len(self.stacks) > 2 else "")


def finetune_layers(
    layers: Sequence[Image],
    model: str,
    *,
    name: str,
    axes: Sequence[str | None] | None = None,
    regions: Shapes | Sequence[Sequence[Rectangle] | None] | None = None,
    folder: Path | None = None,
    **options: Any,
) -> FineTuneResult:
    """Fine-tune a model on image layers: what the widget does, as one call.

    Parameters
    ----------
    layers
        Focus stacks, each as :func:`fuse_layer` takes it.
    model
        Name of a model with self-supervised training.
    name
        Name of the tuned model.
    axes
        For each layer what :func:`fuse_layer` takes as `axes`; None: guessed of all.
    regions
        Where to train: a layer of rectangles; or for each layer a list of
        :class:`~napari_focus_fusion.tiling.Rectangle` in its pixels, or None for all
        of it; None: all of every layer.
    folder
        The folder of models; None: the one of the preferences.
    **options
        Further keyword arguments of :func:`napari_focus_fusion.finetune`.

    Returns
    -------
    FineTuneResult

    Raises
    ------
    FocusFusionError
        As :func:`napari_focus_fusion.finetune` does.
    """
    job = finetune_job(
        layers,
        model,
        axes=axes,
        regions=regions,
        folder=folder or models_folder(),
        name=name,
        **options,
    )
    return job(lambda _: None, lambda: False)


def finetune_job(
    layers: Sequence[Image],
    model: str,
    *,
    axes: Sequence[str | None] | None = None,
    regions: Shapes | Sequence[Sequence[Rectangle] | None] | None = None,
    around: tuple[int, int, int] | None = None,
    patch: int | None = None,
    reference: int | None = None,
    device: str = "auto",
    folder: Path | None = None,
    **options: Any,
) -> FineTuneJob:
    """Fix what layers hold now; no pixel is read before the job is called.

    Parameters
    ----------
    layers, model, axes, regions
        As in :func:`finetune_layers`.
    around
        Time point, row and column in the first layer of the centre of the field shown
        during training; None: the middle of the first region.
    patch
        Side of a patch in pixels; None: as large as small stacks allow.
    reference, device, folder, **options
        As :func:`napari_focus_fusion.finetune` takes them.

    Raises
    ------
    FocusFusionError
        If there is no layer, the layers cannot be fused, or no region lies on one.
    """
    if not layers:
        raise FocusFusionError("There is no focus stack to learn from. Tick one first.")
    read = list(zip(layers, axes or [None] * len(layers), strict=True))
    stacks = tuple(stack_from_layer(layer, axes=own) for layer, own in read)
    if isinstance(regions, Shapes):
        regions = [rectangles_on(layer, regions, own) for layer, own in read]
    inside = [
        list(own) if own else [Rectangle(0, stack.height, 0, stack.width)]
        for stack, own in zip(stacks, regions or [None] * len(stacks), strict=True)
    ]
    if patch is None:
        flat = [rectangle for own in inside for rectangle in own]
        patch = PATCH if _windows(flat, PATCH) > 1 else SMALL_PATCH
    t, y, x = around or (0, *inside[0][0].centre)
    options |= {"patch": patch, "reference": reference, "device": device}
    options |= {} if regions is None else {"regions": inside}
    return FineTuneJob(
        model,
        stacks,
        _field(stacks[0], t, y, x),
        folder,
        MappingProxyType(options),
    )


def _windows(rectangles: Sequence[Rectangle], side: int) -> int:
    """How many windows fit, with a quarter of their side between them."""
    gap = round(side / 4)

    def fit(length: int) -> int:
        return (length + gap) // (side + gap)

    return sum(fit(r.height) * fit(r.width) for r in rectangles)


def _field(stack: FocusStack, t: int, y: int, x: int) -> FocusStack:
    """A small crop of a stack around a pixel, of one time point and some slices."""

    def span(middle: int, length: int) -> slice:
        low = min(max(middle - FIELD // 2, 0), max(length - FIELD, 0))
        return slice(low, min(low + FIELD, length))

    spans = {
        "T": slice(t, t + 1),
        "Z": slice(None, None, ceil(stack.n_slices / FIELD_SLICES)),
        "Y": span(y, stack.height),
        "X": span(x, stack.width),
    }
    return crop_stack(stack, {a: s for a, s in spans.items() if a in stack.axes})


def _image_and_map(result: FusionResult) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fused image (Y, X) or (Y, X, 3), mean of channels, and decision map (Y, X)."""
    axes, fused = result.stack.fused_axes, np.asarray(result.fused)
    for axis in "TC":
        if axis in axes:
            mean = fused.astype(np.float64).mean(axes.index(axis))
            axes, fused = axes.replace(axis, ""), mean
    decision = np.asarray(result.decision)
    return fused[..., :3] if "S" in axes else fused, decision.reshape(fused.shape[:2])


def rectangles_on(
    layer: Image, shapes: Shapes, axes: str | None = None
) -> list[Rectangle]:
    """Bounding boxes of shapes on an image, in its pixels.

    Parameters
    ----------
    layer
        Image layer.
    shapes
        Shapes layer; it may have other pixel sizes and fewer axes.
    axes
        What the axes of the image are, one letter each; None: :func:`guess_axes`.

    Returns
    -------
    list of Rectangle
        Cut to the image; those beside it are left out.

    Raises
    ------
    FocusFusionError
        If none lies on it.
    """
    axes = axes or guess_axes(layer)
    found = []
    for vertices in shapes.data:
        corners = []
        for vertex in vertices:
            world = np.zeros(layer.ndim)
            known = np.asarray(shapes.data_to_world(vertex))[-layer.ndim :]
            world[-len(known) :] = known
            place = layer.world_to_data(world)
            corners.append((place[axes.index("Y")], place[axes.index("X")]))
        (top, left), (bottom, right) = np.min(corners, 0), np.max(corners, 0)
        found.append(
            Rectangle(ceil(top), floor(bottom) + 1, ceil(left), floor(right) + 1)
        )
    return _on_plane(layer, axes, found, f"No shape of {shapes.name!r}")


def region_on_screen(layer: Image, axes: str | None = None) -> Rectangle:
    """The region of a layer that its viewer shows, in its pixels.

    Parameters
    ----------
    layer
        Image layer in a viewer, shown in two dimensions.
    axes
        What its axes are, one letter each; None: :func:`guess_axes`.

    Raises
    ------
    FocusFusionError
        If none of it is in view.
    """
    axes = axes or guess_axes(layer)
    factors = np.ones(layer.ndim)
    if layer.multiscale:
        factors = np.asarray(layer.downsample_factors[layer.data_level])
    corners = np.asarray(layer.corner_pixels) * factors
    (top, left), (bottom, right) = (
        (int(corner[axes.index("Y")]), int(corner[axes.index("X")]))
        for corner in corners
    )
    step_y, step_x = (ceil(factors[axes.index(axis)]) for axis in "YX")
    visible = Rectangle(top, bottom + step_y, left, right + step_x)
    shown = [visible] if bottom > top else []
    return _on_plane(layer, axes, shown, "Nothing on the screen")[0]


def region_in_view(
    viewer: napari.Viewer, layer: Image, axes: str | None = None
) -> Rectangle:
    """As :func:`region_on_screen`, of a viewer that may be in 3-D.

    Raises
    ------
    FocusFusionError
        If it is, or none of the layer is in view.
    """
    if viewer.dims.ndisplay != 2:
        raise FocusFusionError("Go back from 3-D to the 2-D view, to choose a part.")
    return region_on_screen(layer, axes)


def _on_plane(
    layer: Image, axes: str, rectangles: list[Rectangle], what: str
) -> list[Rectangle]:
    """Rectangles cut to the plane of a layer."""
    shape = level_0(layer).shape
    height, width = shape[axes.index("Y")], shape[axes.index("X")]
    cut = [r.inside_plane(height, width) for r in rectangles]
    found = [r for r in cut if r.height > 0 and r.width > 0]
    if not found:
        raise FocusFusionError(
            f"{what} lies on {layer.name!r}. Move there, in 2-D, or choose to learn "
            "from the whole stack."
        )
    return found


@dataclass(frozen=True)
class CompareJob:
    """A comparison of two models, fixed before it starts.

    Attributes
    ----------
    stack
        What is fused.
    parent, child
        The models.
    folder
        The folder of models; None: the usual one.
    options
        Keyword arguments of :func:`napari_focus_fusion.fuse`.
    """

    stack: FocusStack
    parent: str | Path | FusionModel
    child: str | Path | FusionModel
    folder: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(
        self, progress: Callable[[Any], None], should_stop: Callable[[], bool]
    ) -> list[LayerData]:
        """Run; gives the layers of both models, the child's to the right."""
        from napari_focus_fusion.fusion import fuse
        from napari_focus_fusion.models.registry import load_model

        layers: list[LayerData] = []
        for number, model in enumerate((self.parent, self.child)):
            result = fuse(
                self.stack,
                load_model(model, self.folder),
                progress=progress,
                should_stop=should_stop,
                **self.options,
            )
            for data, attributes, kind in chosen_layers(result, ("fused", "decision")):
                columns = number * round(self.stack.width * (1 + GAP))
                attributes["translate"] = _shifted_right(data, attributes, columns)
                layers.append((data, attributes, kind))
        return layers

    @property
    def names(self) -> str:
        """Name of the stack."""
        return repr(self.stack.name)


def compare_layers(
    layer: Image,
    parent: str | Path | FusionModel,
    child: str | Path | FusionModel,
    *,
    folder: Path | None = None,
    **options: Any,
) -> list[LayerData]:
    """Fuse a region of a layer with two models; the fused images lie side by side.

    Parameters
    ----------
    layer
        A focus stack.
    parent, child
        Models; the parent's fused image lies on the layer, the child's to its right.
    folder
        The folder of models; None: the one of the preferences.
    **options
        As in :func:`compare_job`.

    Returns
    -------
    list of (data, attributes, "image")
        For each model the fused image of each channel and, not shown, the decision
        map.

    Raises
    ------
    FocusFusionError
        As :func:`napari_focus_fusion.fuse` does.
    """
    folder = folder or models_folder()
    job = compare_job(layer, parent, child, folder=folder, **options)
    return job(lambda _: None, lambda: False)


def compare_job(
    layer: Image,
    parent: str | Path | FusionModel,
    child: str | Path | FusionModel,
    *,
    axes: str | None = None,
    region: Rectangle | None = None,
    time: int | None = None,
    folder: Path | None = None,
    **options: Any,
) -> CompareJob:
    """Fix what a layer holds now; no pixel is read before the job is called.

    Parameters
    ----------
    layer, parent, child
        As in :func:`compare_layers`.
    axes
        As in :func:`fuse_layer`.
    region
        In pixels of the layer; None: all of it.
    time
        The one time point to fuse, from 0; None: all.
    folder
        The folder of models; None: the usual one.
    **options
        Further keyword arguments of :func:`napari_focus_fusion.fuse`.
    """
    stack = stack_from_layer(layer, axes=axes)
    region = region or Rectangle(0, stack.height, 0, stack.width)
    spans = {"Y": region.y, "X": region.x}
    if time is not None and "T" in stack.axes:
        spans["T"] = slice(time, time + 1)
    return CompareJob(
        crop_stack(stack, spans), parent, child, folder, MappingProxyType(options)
    )


def _shifted_right(data: Any, attributes: dict[str, Any], columns: int) -> Any:
    """Translation of a layer shifted right by so many of its own columns."""
    layer: Any = Layer.create(data, attributes, "image")
    offset = np.zeros(layer.ndim)
    offset[-1] = columns
    there, here = layer.data_to_world(offset), layer.data_to_world(0 * offset)
    # The affine is applied after the translation.
    shift = np.linalg.solve(layer.affine.linear_matrix, np.subtract(there, here))
    return layer.translate + shift


def explain(error: Exception, names: str) -> str:
    """Message about a failed fine-tuning, with advice; bugs are logged.

    Parameters
    ----------
    error
        The exception that the run raised.
    names
        Names of the stacks.
    """
    return explain_failure(
        error,
        f"Fine-tuning on {names} failed",
        no_memory=f"There is not enough memory to fine-tune on {names}. Close other "
        "programs, choose the CPU as device, or a smaller patch.",
        lost_device="The graphics card stopped answering while it learnt from "
        f"{names}. Start napari again and go on from where it was, with the same name; "
        "or choose the CPU as device.",
    )
