"""Writes OME-Zarr 0.5: created empty, filled by region, renamed when complete.

Layout of one output::

    name.ome.zarr/           fused (an OME-Zarr image; 0 is full resolution)
        labels/decision/     index of the slice that each pixel came from
        confidence/  depth/  images of their own, like the other maps

OME-Zarr wants time, channel and space in this order and has no RGB, so arrays are
handed out as views in the order of the stack's axes; RGB is stored as channels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import Reordered
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.palette import hex_colours
from napari_focus_fusion.placement import displayed_axes
from napari_focus_fusion.write.blocks import regions
from napari_focus_fusion.write.saving import put_in_place, translated_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_focus_fusion.stack import FocusStack

OUTPUTS = {
    "fused": ".",
    "decision": "labels/decision",
    "confidence": "confidence",
    "depth": "depth",
    "consistency": "consistency",
    "beyond": "beyond",
}
# The smallest level of a pyramid is at most this wide and high.
_SMALLEST_LEVEL = 1024
_TIME_UNITS = ("millisecond", "second", "minute", "hour", "day")
_LENGTH_UNITS = (
    *("angstrom", "picometer", "nanometer", "micrometer", "millimeter"),
    *("centimeter", "meter", "inch"),
)
_RGB = ("FF0000", "00FF00", "0000FF", "FFFFFF")


def create_output(
    path: str | Path,
    stack: FocusStack,
    *,
    scale: int = 1,
    chunk: int = 512,
    maps: bool = True,
    reconstructed: bool = False,
) -> dict[str, Any]:
    """Create an empty OME-Zarr for the results of a stack, to be filled by region.

    Parameters
    ----------
    path
        Folder to create; a temporary name, renamed by `finish_output`.
    stack
        The source, for axes, sizes, dtype, pixel size and units.
    scale
        Super-resolution factor of the fused image.
    chunk
        Rows and columns of a chunk. Parallel writers must write whole chunks: regions
        that start at multiples of it in the pixels of the array written to.
    maps
        Whether there are maps beside the fused image.
    reconstructed
        Whether one of them says how far it lies beyond the slices.

    Returns
    -------
    dict
        ``"fused"`` (stack.fused_axes, the stack's dtype), ``"decision"`` (uint16),
        ``"confidence"``, ``"depth"`` and, if the scale is not 1, ``"consistency"``
        (float32, stack.map_axes), and of a reconstructed image ``"beyond"`` (float32,
        stack.channel_axes): arrays to read and write with one slice per axis.
        They travel to other processes as their path.

    Raises
    ------
    FocusFusionError
        If OME-Zarr cannot hold the stack's axes, or the folder cannot be written.
    """
    import zarr

    path = Path(path)
    if "C" in stack.axes and "S" in stack.axes:
        raise FocusFusionError(
            f"{stack.name!r} has channels that are RGB each, which OME-Zarr cannot "
            "hold. Save as OME-TIFF."
        )
    kinds: dict[str, tuple[str, Any, int]] = {
        "fused": (stack.fused_axes, stack.dtype, scale)
    }
    if maps:
        kinds["decision"] = (stack.map_axes, np.dtype("uint16"), 1)
        kinds["confidence"] = (stack.map_axes, np.dtype("float32"), 1)
        kinds["depth"] = (stack.map_axes, np.dtype("float32"), 1)
    if maps and scale > 1:
        kinds["consistency"] = (stack.map_axes, np.dtype("float32"), 1)
    if maps and reconstructed:
        kinds["beyond"] = (stack.channel_axes, np.dtype("float32"), 1)
    # As many levels for all: OME-Zarr wants that of an image and its labels.
    count = 1
    while max(stack.height, stack.width) * scale > _SMALLEST_LEVEL << (count - 1):
        count += 1
    with translated_errors(path.absolute().parent):
        for output, (axes, dtype, factor) in kinds.items():
            place = path / OUTPUTS[output]
            _create_image(place, stack, output, axes, dtype, factor, chunk, count)
            if output == "fused" and maps:
                labels = zarr.create_group(path / "labels", zarr_format=3)
                labels.attrs["ome"] = {"version": "0.5", "labels": ["decision"]}
        return open_output(path, stack)


def open_output(path: str | Path, stack: FocusStack) -> dict[str, Any]:
    """Open what `create_output` made, to go on filling it; same return value."""
    import zarr

    # Members of one group, so that an array finds the other levels of its pyramid.
    group = zarr.open_group(Path(path), mode="r+")
    arrays = {}
    for output, place in _outputs_of(Path(path)).items():
        array = group[f"{place}/0".removeprefix("./")]
        axes = axes_of(output, stack)
        arrays[output] = _as_axes(array, _stored_axes(axes), axes)
    return arrays


def axes_of(output: str, stack: FocusStack) -> str:
    """Axes of an output of a stack."""
    axes = {"fused": stack.fused_axes, "beyond": stack.channel_axes}
    return axes.get(output, stack.map_axes)


def _outputs_of(path: Path) -> dict[str, str]:
    """Places of the outputs that are there: not every result has all maps."""
    return {
        output: place for output, place in OUTPUTS.items() if (path / place).is_dir()
    }


def finish_output(
    path_partial: str | Path,
    path_final: str | Path,
    provenance: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Complete a filled output (pyramids, provenance) and give it its final name.

    Returns
    -------
    Path
        `path_final`. Arrays opened under the partial name must be opened anew.

    Raises
    ------
    FocusFusionError
        If the final name is taken and `overwrite` is False, or the disk is full.
    """
    partial, final = Path(path_partial), Path(path_final)
    with translated_errors(final.absolute().parent):
        complete_output(partial, provenance)
        put_in_place(partial, final, overwrite=overwrite)
    return final


def complete_output(path: Path, provenance: Mapping[str, Any]) -> None:
    """Fill the pyramids of a filled output and write where it came from."""
    import zarr

    for output, place in _outputs_of(path).items():
        _fill_pyramid(path / place, nearest=output == "decision")
    group = zarr.open_group(path, mode="r+")
    ours: dict[str, Any] = dict(cast("Any", group.attrs[METADATA_KEY]))
    if not ours["contrast_known"]:
        group.attrs["ome"] = _with_contrast(group)
    ours["provenance"] = json.loads(json.dumps(provenance, default=str))
    group.attrs[METADATA_KEY] = ours


def levels(array: Any) -> list[Any]:
    """Resolution levels of a full-resolution array of an OME-Zarr, itself first."""
    import zarr

    if isinstance(array, Reordered):
        return [Reordered(level, array.order) for level in levels(array.data)]
    parent, _, name = str(getattr(array, "path", "")).rpartition("/")
    if not isinstance(array, zarr.Array) or name != "0":
        return [array]
    group = zarr.open_group(array.store, path=parent, mode="r")
    ome: Any = group.attrs.get("ome", {})
    if "multiscales" not in ome:
        return [array]
    return [group[dataset["path"]] for dataset in ome["multiscales"][0]["datasets"]]


def _create_image(
    path: Path,
    stack: FocusStack,
    output: str,
    axes: str,
    dtype: np.dtype,
    factor: int,
    chunk: int,
    count: int,
) -> None:
    from yaozarrs import v05
    from yaozarrs.write.v05 import prepare_image

    stored = _stored_axes(axes)
    sizes = {axis: stack.size(axis) for axis in axes}
    sizes["Y"] *= factor
    sizes["X"] *= factor
    shape = tuple(sizes["S" if axis == "s" else axis] for axis in stored)
    shapes = [
        (*shape[:-2], *(-(-n // 2**level) for n in shape[-2:]))
        for level in range(count)
    ]
    datasets = [
        v05.Dataset(path=str(level), coordinateTransformations=transforms)
        for level, transforms in enumerate(
            _transforms(stack, stored, factor, 2**level) for level in range(count)
        )
    ]
    title = stack.name if output == "fused" else f"{stack.name} {output}"
    multiscale = v05.Multiscale(
        name=title, axes=[_axis(stack, axis) for axis in stored], datasets=datasets
    )
    if output == "decision":
        image: Any = v05.LabelImage.model_validate(
            {"version": "0.5", "multiscales": [multiscale], "image-label": {}}
        )
    elif output == "fused":
        image = v05.Image(multiscales=[multiscale], omero=_omero(stack, axes))
    else:
        image = v05.Image(multiscales=[multiscale])
    prepare_image(
        path,
        image,
        [(level_shape, dtype) for level_shape in shapes],
        extra_attributes={
            METADATA_KEY: {
                "output": output,
                "axes": axes,
                "contrast_known": "S" in axes or "contrast_limits" in stack.display,
            }
        },
        chunks=(*(1,) * (len(shape) - 2), chunk, chunk),
        writer="zarr",
    )


def _stored_axes(axes: str) -> str:
    """Order on disk, time, channel, space; ``s`` is RGB in the place of channels."""
    stored = "".join(axis for axis in "TC" if axis in axes)
    return stored + ("s" if "S" in axes else "") + "YX"


def _as_axes(array: Any, stored: str, axes: str) -> Any:
    order = tuple(stored.upper().index(axis) for axis in axes)
    return array if order == tuple(range(len(order))) else Reordered(array, order)


def _axis(stack: FocusStack, axis: str) -> Any:
    from yaozarrs import v05

    if axis in "Cs":
        return v05.ChannelAxis(name="c")
    unit = stack.unit(axis)
    if axis == "T":
        return v05.TimeAxis(name="t", unit=unit if unit in _TIME_UNITS else None)
    known = unit if unit in _LENGTH_UNITS else None
    return v05.SpaceAxis(name=axis.lower(), unit=known)


def _transforms(stack: FocusStack, stored: str, factor: int, step: int) -> list[Any]:
    """Scale and place of a level whose pixels are `step` / `factor` source pixels."""
    from yaozarrs import v05

    shown = displayed_axes(stack)
    origin = dict(zip(shown, stack.display.get("translate", ()), strict=False))
    scale, translate = [], []
    for axis in stored:
        pixel = stack.pixel_size(axis) if axis in "TYX" else 1.0
        wide = step / factor if axis in "YX" else 1.0
        scale.append(pixel * wide)
        translate.append(float(origin.get(axis, 0.0)) + pixel * (wide - 1) / 2)
    transforms: list[Any] = [v05.ScaleTransformation(scale=scale)]
    if any(translate):
        transforms.append(v05.TranslationTransformation(translation=translate))
    return transforms


def _omero(stack: FocusStack, axes: str) -> Any:
    """Channel names, colours and contrast, as far as they are known."""
    from yaozarrs import v05

    names: list[str]
    colours: list[str]
    if "S" in axes:
        names, colours = "Red Green Blue Alpha".split()[: stack.n_samples], list(_RGB)
    elif stack.channel_names and "C" in axes:
        names = list(stack.channel_names)
        colours = _hex_colours(stack.display.get("colormap"), len(names))
    else:
        return None
    lowest, highest = _value_range(stack)
    limits = stack.display.get("contrast_limits")
    pairs = np.asarray(limits if limits is not None else (lowest, highest), float)
    if pairs.shape not in ((2,), (len(names), 2)):
        pairs = np.array((lowest, highest))
    windows = np.broadcast_to(pairs, (len(names), 2))
    return v05.Omero(
        channels=[
            v05.OmeroChannel(
                label=name,
                color=colour,
                active=True,
                window=v05.OmeroWindow(
                    start=low, end=high, min=min(low, lowest), max=max(high, highest)
                ),
            )
            for name, colour, (low, high) in zip(names, colours, windows, strict=False)
        ]
    )


def _hex_colours(given: Any, count: int) -> list[str]:
    """Colours as OME-Zarr writes them; our own for names, which only napari defines."""
    colours = hex_colours(count)
    if isinstance(given, list | tuple) and len(given) == count:
        for i, colour in enumerate(map(str, given)):
            if colour.startswith("#") and len(colour) >= 7:
                colours[i] = colour[1:7]
    return colours


def _with_contrast(group: Any) -> dict[str, Any]:
    """OME metadata with contrast limits from the smallest level of the pyramid."""
    ome: dict[str, Any] = dict(group.attrs["ome"])
    if "omero" in ome:
        overview = np.asarray(levels(group["0"])[-1])
        axis = [a["name"] for a in ome["multiscales"][0]["axes"]].index("c")
        for channel, pixels in zip(
            ome["omero"]["channels"], np.moveaxis(overview, axis, 0), strict=True
        ):
            low, high = float(pixels.min()), float(pixels.max())
            channel["window"].update(start=low, end=high if high > low else low + 1)
    return ome


def _value_range(stack: FocusStack) -> tuple[float, float]:
    if stack.dtype.kind == "f":
        return 0.0, 1.0
    limits = np.iinfo(stack.dtype)
    return float(limits.min), float(limits.max)


def _fill_pyramid(path: Path, *, nearest: bool) -> None:
    import zarr

    images = levels(zarr.open_group(path, mode="r+")["0"])
    for level in range(1, len(images)):
        fine = images[level - 1]
        coarse = zarr.open_array(path / str(level), mode="r+")
        for region in regions(coarse.shape, coarse.chunks[-1]):
            wide = (
                *region[:-2],
                *(slice(2 * r.start, 2 * r.stop) for r in region[-2:]),
            )
            pixels = np.asarray(fine[wide])
            coarse[region] = pixels[..., ::2, ::2] if nearest else _mean_of_four(pixels)


def _mean_of_four(pixels: np.ndarray) -> np.ndarray:
    odd = [(0, 0)] * (pixels.ndim - 2) + [(0, n % 2) for n in pixels.shape[-2:]]
    wide = np.pad(pixels, odd, mode="edge")
    # float32 holds sums of four 16-bit numbers exactly.
    precise = np.float32 if pixels.dtype.itemsize <= 2 else np.float64
    total = np.add(wide[..., ::2, ::2], wide[..., 1::2, ::2], dtype=precise)
    total += wide[..., ::2, 1::2]
    total += wide[..., 1::2, 1::2]
    total /= 4
    exact = np.rint(total) if pixels.dtype.kind in "iu" else total
    return exact.astype(pixels.dtype)
