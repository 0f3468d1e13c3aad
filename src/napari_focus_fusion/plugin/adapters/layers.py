"""From a napari layer to a focus stack, and from a fusion back to layers.

Everything the widget does can be done from here without a window::

    for data, attributes, kind in fuse_layer(layer):
        viewer.add_layer(Layer.create(data, attributes, kind))
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.axes import axes_from_names, slices_may_come_last
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY, SOURCE_KEY
from napari_focus_fusion.opening import as_stack, stack_of_files, stack_of_slices
from napari_focus_fusion.plugin.adapters.crop import coarser, crop_stack
from napari_focus_fusion.plugin.adapters.file_sizes import sizes_of_file
from napari_focus_fusion.plugin.adapters.models import with_models
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.plugin.adapters.projections import (
    FROM_SURFACE,
    ONE_SLICE,
    SlabOptions,
    layers_from_surface,
)
from napari_focus_fusion.read import is_zarr, natural_key, series_in, stem

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_focus_fusion.result import FusionResult, LayerData
    from napari_focus_fusion.stack import FocusStack

OUTPUTS = ("fused", "decision", "confidence", "depth")
#: Further outputs: of a super-resolved run the fused image at the source's own
#: resolution, and how far the finer pixels differ from the slices; of a reconstructed
#: one how far it lies beyond them; and the depth map as a surface textured with the
#: fused image.
MORE_OUTPUTS = ("unscaled", "consistency", "beyond", "surface", *FROM_SURFACE)

#: Most images of one file that are opened at once.
MOST_IMAGES = 20

#: Attributes of a layer that its results copy unchanged.
_DISPLAY = (
    *("scale", "translate", "rotate", "shear", "axis_labels"),
    *("blending", "contrast_limits", "gamma", "interpolation2d"),
)
# napari opens channels as an axis now and then; there are rarely more than this.
_MAX_CHANNELS = 5
# Blending in which a layer hides what lies below it.
_COVERING = ("opaque", "translucent", "translucent_no_depth")


def fuse_layer(
    layer: Image | Sequence[Image],
    *,
    axes: str | None = None,
    reference_layer: Image | None = None,
    time: int | None = None,
    outputs: Sequence[str] = OUTPUTS,
    **options: Any,
) -> list[LayerData]:
    """Fuse a napari image layer: what the widget does, as one call.

    Parameters
    ----------
    layer
        A stack of 2 to many slices, with or without channels, time and RGB; its data
        may be numpy, dask, Zarr or multiscale (the full resolution is fused). Or
        several two-dimensional layers of one size: one slice each, in that order.
    axes
        One letter an axis of the layer out of ``TCZYX``, without one for RGB; None:
        :func:`guess_axes`, where there is no doubt.
    reference_layer
        Another layer of the same axes and size, in which the focus is measured.
    time
        The one time point to fuse, from 0; None: all of them.
    outputs
        Which of ``"fused"``, ``"decision"``, ``"confidence"`` and ``"depth"`` to give;
        further :data:`MORE_OUTPUTS`.
    **options
        Further keyword arguments of :func:`napari_focus_fusion.fuse`.

    Returns
    -------
    list of (data, attributes, type)
        Layer-data tuples, at the place of the layer in world coordinates.

    Raises
    ------
    FocusFusionError
        As :func:`napari_focus_fusion.fuse` does.
    """
    stack = stack_from_layers(layer, axes=axes, time=time)
    if reference_layer is not None:
        options["reference"] = stack_from_layers(reference_layer, axes=axes, time=time)
    return fuse_to_layers(stack, outputs, folder=models_folder(), **options)


def fuse_to_layers(
    stack: FocusStack,
    outputs: Sequence[str] = OUTPUTS,
    *,
    folder: Path | None = None,
    slab: SlabOptions | None = None,
    **options: Any,
) -> list[LayerData]:
    """Fuse a stack into layers.

    Parameters
    ----------
    stack
        The stack to fuse.
    outputs
        As in :func:`fuse_layer`.
    folder
        Where fine-tuned models are; None: the usual one.
    slab
        What is projected around the surface, for those outputs; None: one slice.
    **options
        Keyword arguments of :func:`napari_focus_fusion.fuse`.

    Returns
    -------
    list of (data, attributes, type)
        The first one is visible, and has the notes on all of them.

    Raises
    ------
    FocusFusionError
        As :func:`napari_focus_fusion.fuse` and :func:`chosen_layers` do.
    """
    from napari_focus_fusion.fusion import fuse

    _check_outputs(outputs)
    result = fuse(stack, **with_models(options, folder))
    layers = chosen_layers(result, outputs)
    if "unscaled" in outputs and result.scale > 1:
        layers.extend(_unscaled(result, options))
    if "surface" in outputs:
        from napari_focus_fusion.plugin.adapters.surface import surface_layer

        layers.append(surface_layer(result))
    more, notes = layers_from_surface(result, outputs, slab or ONE_SLICE)
    layers.extend(more)
    if layers:
        first = layers[0][1]
        first["visible"] = True
        known = first["metadata"][METADATA_KEY]
        notes = list(dict.fromkeys([*result.notes, *known.get("notes", ()), *notes]))
        own = {METADATA_KEY: {**known, "notes": notes}}
        first["metadata"] = {**first["metadata"], **own}
    return layers


def _unscaled(result: FusionResult, options: dict[str, Any]) -> list[LayerData]:
    """The fused image at the resolution of the slices, by the same decision map."""
    from napari_focus_fusion.fusion import fuse

    kept = {
        key: value
        for key, value in options.items()
        if key not in ("model", "scale", "joint", "reference", "out")
    }
    out = options.get("out")
    if out is not None:
        out = Path(out)
        kept["out"] = out.with_name(f"{stem(out)}_x1.ome.zarr")
    plain = fuse(
        result.stack, "sml", **{**kept, "decision": np.asarray(result.decision)}
    )
    plain = replace(plain, provenance={**plain.provenance, "model": ""})
    layers = chosen_layers(plain, ("fused",))
    for _, attributes, _ in layers:
        attributes["visible"] = False
    return layers


def guess_axes(layer: Image, z_axis: int | None = None) -> str:
    """Guess the axes of a layer.

    Parameters
    ----------
    layer
        An image layer. Axis labels such as ``("t", "z", "y", "x")`` are used if they
        are clear; otherwise Z is the axis before Y and X, unless that is as short as
        channels are and another one is not.
    z_axis
        Which axis is Z, where that is known; the others are guessed.

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
            if shape[z_axis] <= _MAX_CHANNELS < shape[longest]:
                z_axis = longest
    letters = dict.fromkeys(range(count), "")
    letters[z_axis] = "Z"
    rest = [axis for axis in letters if axis != z_axis]
    letters[rest[-2]], letters[rest[-1]] = "Y", "X"
    letters.update(zip(rest[:-2], _guess_leading(layer, rest[:-2]), strict=True))
    return "".join(letters.values())


def doubt_about_axes(layer: Image) -> str:
    """Why the order of a layer's axes cannot be known; empty where it can.

    Slices may come last, as in (Y, X, Z); and of two short axes of which the first is
    the longer either may be the channels. Axis labels leave no doubt.
    """
    shape = level_0(layer).shape[: layer.ndim]
    if axes_from_names(layer.axis_labels, layer.ndim) is not None:
        return ""
    named = [axes_from_names((label, "y", "x"), 3) for label in layer.axis_labels]
    if "ZYX" in named:
        return ""
    size = " x ".join(map(str, shape))
    start = f"The layer {layer.name!r} of {size} does not say which axis is which: "
    end = " Say so with axes=, or by the axis labels of the layer."
    if layer.ndim == 3 and slices_may_come_last(shape):
        return (
            f"{start}{shape[0]} slices of {shape[1]} x {shape[2]} pixels "
            f'(axes="ZYX"), or {shape[2]} slices of {shape[0]} x {shape[1]} ("YXZ")?'
            + end
        )
    # Channels come first by convention; with more of them than slices it is unlikely.
    if layer.ndim == 4 and _MAX_CHANNELS + 1 >= shape[0] > shape[1] > 1:
        return (
            f"{start}{shape[0]} slices and {shape[1]} channels "
            f'(axes="ZCYX"), or {shape[0]} channels and {shape[1]} slices ("CZYX")?'
            + end
        )
    return ""


def _guess_leading(layer: Image, axes: Sequence[int]) -> str:
    """``"C"``, ``"T"``, ``"TC"`` or ``"CT"`` for the axes beside Z, Y and X."""
    shape = level_0(layer).shape
    labels = [layer.axis_labels[axis] for axis in axes]
    if len(axes) == 1:
        named = axes_from_names((*labels, "y", "x"), 3)
        if named in ("TYX", "CYX"):
            return named[0]
        return "C" if shape[axes[0]] <= _MAX_CHANNELS else "T"
    if len(axes) == 2:
        named = axes_from_names((*labels, "y", "x"), 4)
        if named in ("TCYX", "CTYX"):
            return named[:2]
        return "CT" if shape[axes[0]] < shape[axes[1]] else "TC"
    return ""


def stack_from_layer(
    layer: Image, *, axes: str | None = None, level: int = 0
) -> FocusStack:
    """Read what a layer holds now; later changes of the layer have no effect.

    Parameters
    ----------
    layer
        An image layer; of a multiscale one the full resolution is taken.
    axes
        One letter an axis of the layer out of ``TCZYX``, without one for RGB; None:
        :func:`guess_axes`.
    level
        Which resolution of a multiscale layer to take, 0 for the full one.

    Returns
    -------
    FocusStack
        With the layer's pixel sizes, units, transforms and colours. No pixel is read
        or copied.

    Raises
    ------
    FocusFusionError
        If it is no image layer, the axes do not fit or are None and cannot be known,
        or the pixels are of a kind that cannot be fused.
    """
    check_is_image(layer)
    if axes is None:
        doubt = doubt_about_axes(layer)
        if doubt:
            raise FocusFusionError(doubt)
    letters = (guess_axes(layer) if axes is None else axes).upper()
    display: dict[str, Any] = {
        key: copy.copy(getattr(layer, key)) for key in _DISPLAY if hasattr(layer, key)
    }
    display["affine"] = np.array(layer.affine.affine_matrix)
    if not layer.rgb:
        display["colormap"] = layer.colormap
    scale = dict(zip(letters, np.abs(layer.scale), strict=False))
    units = dict(zip(letters, map(str, layer.units), strict=False))
    # Where results lie is up to the layer, whatever its file says of sizes.
    display["units"] = tuple(units.values())
    of_file = sizes_of_file(layer, letters) if len(letters) == layer.ndim else None
    if of_file is not None:
        scale, units = {**scale, **of_file.scale}, {**units, **of_file.units}
    pixels = layer.data[level] if layer.multiscale else layer.data
    stack = as_stack(
        pixels,
        axes=letters + ("S" if layer.rgb else ""),
        name=layer.name,
        scale=scale,
        units=units,
        display=display,
    )
    opened = layer.metadata.get(SOURCE_KEY, {})  # by `layers_from_files`
    notes = dict.fromkeys(
        (*opened.get("notes", ()), *(() if of_file is None else of_file.notes))
    )
    stack = replace(
        stack,
        source=source_of([layer]),
        notes=(*stack.notes, *notes),
        files=opened.get("files", ()) if opened.get("axes") == letters else (),
    )
    if level == 0:
        return stack
    sizes = zip(letters, level_0(layer).shape, pixels.shape, strict=False)
    return coarser(stack, {axis: full / here for axis, full, here in sizes})


def stack_from_layers(
    layers: Image | Sequence[Image],
    *,
    axes: str | None = None,
    time: int | None = None,
    level: int = 0,
) -> FocusStack:
    """Read what one layer holds, or several that hold a slice each.

    Parameters
    ----------
    layers
        An image layer, or two-dimensional ones of one size, which become the slices.
    axes
        As in :func:`stack_from_layer`; ignored for several layers.
    time
        The one time point to take, from 0; None: all.
    level
        As in :func:`stack_from_layer`.

    Returns
    -------
    FocusStack
        As of :func:`stack_from_layer`. Where layers are slices, they lie along z.

    Raises
    ------
    FocusFusionError
        If the layers do not fit together, or there is no such time point.
    """
    several = layers_of(layers)
    if len(several) == 1:
        stack = stack_from_layer(several[0], axes=axes, level=level)
    else:
        stack = _stack_of_layers(several, level)
    if time is None or "T" not in stack.axes:
        return stack
    if not 0 <= time < stack.n_times:
        raise FocusFusionError(
            f"{stack.name!r} has no time point {time}: it has {stack.n_times}, counted "
            "from 0."
        )
    return crop_stack(stack, {"T": slice(time, time + 1)})


def _stack_of_layers(layers: Sequence[Image], level: int) -> FocusStack:
    for layer in layers:
        check_is_image(layer)
    solid = [layer.name for layer in layers if layer.ndim != 2]
    if solid:
        raise FocusFusionError(
            f"The layer {solid[0]!r} is no single slice. Choose two-dimensional layers "
            "to be the slices of a stack, or one layer that holds all of them."
        )
    _check_same_place(layers)
    slices = [stack_from_layer(layer, axes="YX", level=level) for layer in layers]
    stack = stack_of_slices(
        slices, axes=None, name=name_of(layers), source=source_of(layers)
    )
    labels = ("z", *layers[0].axis_labels)
    units = ("pixel", *map(str, layers[0].units))
    display = {**stack.display, "axis_labels": labels, "units": units}
    return replace(stack, display=display)


def _check_same_place(layers: Sequence[Image]) -> None:
    """Raise if layers that are to be the slices of a stack do not lie on each other."""
    first = layers[0]
    height, width = level_0(first).shape[:2]
    corners = [(y, x) for y in (0, height) for x in (0, width)]
    pixel = float(np.abs(first.scale).min())
    for layer in layers[1:]:
        away = max(
            float(np.linalg.norm(np.subtract(*places)))
            for places in zip(
                map(first.data_to_world, corners),
                map(layer.data_to_world, corners),
                strict=True,
            )
        )
        if away > 0.01 * pixel:
            sizes = [" x ".join(f"{s:g}" for s in one.scale) for one in (layer, first)]
            what = (
                f"pixels of {sizes[0]}, the other of {sizes[1]}"
                if sizes[0] != sizes[1]
                else f"a place up to {away / pixel:.3g} pixels away"
            )
            raise FocusFusionError(
                f"The layers {layer.name!r} and {first.name!r} do not lie on each "
                f"other: the one has {what}. Slices must show the same field. Give "
                "them the same scale and translate if they do; if they do not, "
                "register them first."
            )


def check_is_image(layer: Any) -> None:
    """Raise if a layer is none of images.

    Raises
    ------
    FocusFusionError
        Naming what it is and what to choose.
    """
    from napari.layers import Image as ImageLayer
    from napari.layers import Layer

    if isinstance(layer, Layer) and not isinstance(layer, ImageLayer):
        kind = type(layer).__name__
        raise FocusFusionError(
            f"{layer.name!r} is a {kind} layer, which has no sharp and blurred slices. "
            "Choose the image layer that it belongs to."
        )


def layers_of(source: Image | Sequence[Image]) -> tuple[Image, ...]:
    """The layers of a stack: one, or a two-dimensional one a slice."""
    return tuple(source) if isinstance(source, Sequence) else (source,)


def name_of(source: Image | Sequence[Image]) -> str:
    """Name of a stack: ``"pollen"``, ``"z0 to z9"``."""
    layers = layers_of(source)
    first, last = layers[0].name, layers[-1].name
    return first if len(layers) == 1 else f"{first} to {last}"


def source_of(layers: Sequence[Image]) -> str:
    """The text by which a result's metadata name its source layers."""
    if len(layers) == 1:
        return layers[0].source.path or f"layer {layers[0].name!r}"
    return "layers " + ", ".join(repr(layer.name) for layer in layers)


def layers_from_files(paths: Sequence[str | Path]) -> list[LayerData]:
    """Open files lazily as one focus stack, or as several where a file holds them.

    Parameters
    ----------
    paths
        One file, folder or OME-Zarr that holds stacks, or image files of one slice
        each, of which the names say what is a slice, a channel or a time point.

    Returns
    -------
    list of (data, attributes, "image")
        One layer a stack, with the pixel sizes and units of the files.

    Raises
    ------
    FocusFusionError
        If a file cannot be read or does not fit the others, or holds more than
        :data:`MOST_IMAGES`.
    """
    files = sorted(map(str, paths), key=natural_key)
    if not files:
        raise FocusFusionError("No file was chosen. Choose one that holds a stack.")
    if len(files) > 1:
        return [_layer_data(stack_of_files(files))]
    (path,) = files
    if Path(path).is_dir() and not is_zarr(path):
        return [_layer_data(as_stack(path))]
    names = series_in(path)
    if len(names) > MOST_IMAGES:
        raise FocusFusionError(
            f"{path!r} holds {len(names)} images. Open those that you want by their "
            "paths or, for all of them, use the command line: napari-focus-fusion fuse."
        )
    if len(names) == 1:
        return [_layer_data(as_stack(path))]
    return [_layer_data(as_stack(path, series=name)) for name in names]


def _layer_data(stack: FocusStack) -> LayerData:
    axes = stack.axes.removesuffix("S")
    data = stack.data
    if not isinstance(data, np.ndarray) and not hasattr(data, "dask"):
        import dask.array as da

        chunks = (
            getattr(data, "chunks", None)
            or (1,) * (len(axes) - 2) + (data.shape[len(axes) - 2 :])
        )
        # A name of its own: napari caches by name, and the files may change.
        data = da.from_array(data, chunks=chunks, name=False)
    attributes: dict[str, Any] = {
        "name": stack.name,
        "rgb": "S" in stack.axes,
        "scale": tuple(stack.pixel_size(axis) for axis in axes),
        "units": tuple(stack.unit(axis) for axis in axes),
        "axis_labels": tuple(axes.lower()),
        "metadata": {
            SOURCE_KEY: {"axes": axes, "notes": stack.notes, "files": stack.files}
        },
    }
    return data, attributes, "image"


def level_0(layer: Image) -> Any:
    """A layer's pixels at full resolution, not read."""
    return layer.data[0] if layer.multiscale else layer.data


def chosen_layers(
    result: FusionResult, outputs: Sequence[str] = OUTPUTS
) -> list[LayerData]:
    """The requested layers of a result.

    Parameters
    ----------
    result
        A result of :func:`napari_focus_fusion.fuse`.
    outputs
        Any of :data:`OUTPUTS`, and ``"consistency"`` of a super-resolved result and
        ``"beyond"`` of a reconstructed one; the others of :data:`MORE_OUTPUTS` are made
        by :func:`fuse_to_layers`.

    Returns
    -------
    list of (data, attributes, "image")
        The first one is visible.

    Raises
    ------
    FocusFusionError
        If there is no such output.
    """
    _check_outputs(outputs)
    layers = [
        layer
        for layer in result.layers()
        if layer[1]["metadata"][METADATA_KEY]["output"] in outputs
    ]
    if layers:
        layers[0][1]["visible"] = True
    return layers


def _check_outputs(outputs: Sequence[str]) -> None:
    known = (*OUTPUTS, *MORE_OUTPUTS)
    unknown = sorted(set(outputs) - set(known))
    if unknown:
        raise FocusFusionError(
            f"There is no output {', '.join(unknown)}; there are {', '.join(known)}."
        )


def covers(blending: str) -> bool:
    """Whether a layer of this blending hides what lies below it."""
    return blending in _COVERING
