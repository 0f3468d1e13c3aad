"""TIFF, OME-TIFF and ImageJ TIFF: metadata, and pixels that are read by region."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_focus_fusion.axes import planes_may_be_strips
from napari_focus_fusion.read.names import name_of_slices, stem
from napari_focus_fusion.read.series import name_of_series
from napari_focus_fusion.read.source import Source
from napari_focus_fusion.read.tiff_cut import (
    list_is_cut,
    listed_planes,
    note_on_cut,
    planes_behind,
    planes_in_file,
)
from napari_focus_fusion.read.tiff_photometry import as_shown
from napari_focus_fusion.read.tiff_pixels import LazyTiff
from napari_focus_fusion.read.tiff_series import (
    at_position,
    chosen_series,
    image_names,
    positions_in,
    series_in_tiff,
)
from napari_focus_fusion.read.tiff_sets import (
    damaged_tiff,
    notes_on_plan,
    open_tiff,
    places_of_files,
    present_planes,
)
from napari_focus_fusion.read.tiff_sizes import tiff_sizes
from napari_focus_fusion.read.tiff_whole import cut_hyperstack, without_missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LazyTiff", "image_names", "read_tiff", "series_in_tiff"]

# What tifffile calls axes of planes that the file does not name.
_NAMELESS = "QI"


def read_tiff(
    path: str, *, axes: str | None = None, series: int | str | None = None
) -> Source:
    """Open a TIFF file with its OME or ImageJ metadata, reading no pixels.

    Of a file that ends early the planes that are whole are opened.

    Parameters
    ----------
    path
        The file.
    axes
        The caller's letters, for a file whose metadata are lost.
    series
        Which image, by its name or number.

    Raises
    ------
    FocusFusionError
        If the file is damaged, or nothing of it is whole, or it holds several images
        and `series` does not select one.
    """
    import tifffile

    try:
        with open_tiff(path) as tiff:
            if len(tiff.pages) == 0:
                raise damaged_tiff(path, "it has no plane")
            number = chosen_series(tiff, path, series)
            position = None
            if len(tiff.series) == 1 and positions_in(tiff.series[0]) > 1:
                position, number = number, 0
            image = tiff.series[number]
            behind = planes_behind(tiff, image)
            cut = planes_in_file(tiff, image, behind)
            if cut is not None and not cut.any():
                raise damaged_tiff(path, "the file ends before its first plane does")
            listed = present_planes(image)
            present = _both(listed, cut)
            early = cut is not None and (listed is None or bool((listed & ~cut).any()))
            fields = _metadata(tiff, number, path)
            fields["notes"] = (*fields["notes"], *notes_on_plan(tiff, image))
            fields["files"] = places_of_files(image, _axis_letters(image.axes))
            names = image_names(tiff)
            count = behind or int(np.prod(image.shape[: _lead_of(image)]))
            whole = count if present is None else int(present.sum())
            planes = listed_planes(tiff, image)
            if list_is_cut(tiff):
                _check_metadata(tiff, path, axes, whole)
                if not (behind or planes) and len(image) == len(tiff.pages):
                    fields["notes"] = (*fields["notes"], note_on_cut(whole))
            stored = LazyTiff(path, number)
            shown = as_shown(stored, stored.axes, image.keyframe, path)
    except (
        tifffile.TiffFileError,
        OSError,
        IndexError,
        KeyError,
        struct.error,
    ) as error:
        raise damaged_tiff(path, error) from error
    chosen = names[number if position is None else position]
    name = name_of_series(path, chosen) if len(names) > 1 else stem(path)
    files = [str(file["file"]) for file in fields["files"] if "planes" not in file]
    if len(names) == 1 and len(files) > 1:  # a plane each
        name = name_of_slices(files)
    fields["notes"] = (*fields["notes"], *shown.notes)
    if shown.colour is not None and "display" not in fields:
        fields["display"] = {"colormap": shown.colour}
    letters = _axis_letters(shown.axes)
    if set(shown.axes) & set(_NAMELESS) and planes_may_be_strips(shown.data.shape):
        letters = None
    if image.keyframe.photometric in (0, 1) and letters and "C" not in letters:
        # Grey samples of a plane each: channels, or slices; at the end there is alpha.
        letters = letters[:-1].replace("S", "C") + letters[-1]
    source = Source(shown.data, axes=letters, name=name, path=path, **fields)
    if whole < int(np.prod(list(planes.values()))):
        return cut_hyperstack(source, planes, whole)
    if position is not None:
        at = letters.index("R") if letters else 0
        source = at_position(source, at, position)
        if present is not None:
            present = np.take(present, position, at)
            present = None if present.all() else present
    if present is None:
        return source
    return without_missing(source, present, early=early)


def _lead_of(image: Any) -> int:
    """How many axes a series has in front of the plane."""
    return len(image.axes) - len(image.keyframe.axes)


def _both(
    one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """What is present by both of two statements, of which None means all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _check_metadata(tiff: Any, path: str, axes: str | None, whole: int) -> None:
    """Raise where OME metadata were behind the pixels and are lost."""
    if axes is None and ".ome." in path.lower() and not tiff.pages[0].description:
        raise damaged_tiff(
            path,
            "the file ends early, and its OME metadata are lost, so that it is not "
            f"known what its planes are. The first {whole} are whole: if they are the "
            "slices of one stack, say so with axes='ZYX'",
        )


def _axis_letters(axes: str) -> str | None:
    """Our letters for tifffile's; a nameless axis of planes is Z. None if unclear.

    Axes that are named but not ours, such as R for positions, stay as they are.
    """
    nameless = [axis for axis in axes if axis in _NAMELESS]
    if len(nameless) == 1 and "Z" not in axes:
        return axes.replace(nameless[0], "Z")
    return None if nameless else axes


def _metadata(tiff: Any, series: int, path: str) -> dict[str, Any]:
    pixels = None
    if tiff.is_ome and tiff.ome_metadata:
        pixels = _ome_pixels(tiff.ome_metadata, series, path)
    axes = _axis_letters(str(tiff.series[series].axes))
    sizes = tiff_sizes(tiff, path, axes, pixels)
    fields = {"scale": sizes.scale, "units": sizes.units, "notes": sizes.notes}
    return fields | ({} if pixels is None else _ome_channels(pixels))


def _ome_pixels(xml: str, series: int, path: str) -> ElementTree.Element | None:
    try:
        images = ElementTree.fromstring(xml).findall("{*}Image")
    except ElementTree.ParseError as error:
        raise damaged_tiff(path, f"its OME metadata are not XML: {error}") from error
    return images[series].find("{*}Pixels") if series < len(images) else None


def _ome_channels(pixels: ElementTree.Element) -> dict[str, Any]:
    channels = pixels.findall("{*}Channel")
    names = [channel.get("Name") or "" for channel in channels]
    # An RGB image is one channel of three samples.
    if len(channels) != int(pixels.get("SizeC", 0)):
        return {}
    fields: dict[str, Any] = {"channel_names": tuple(names)} if all(names) else {}
    colours = [_hex_colour(channel.get("Color")) for channel in channels]
    if channels and all(colours) and set(colours) != {"#ffffff"}:
        fields["display"] = {"colormap": colours}
    return fields


def _hex_colour(value: str | None) -> str | None:
    """Colour of OME-XML, a signed 32-bit RGBA, as ``#rrggbb``."""
    try:
        return f"#{(int(value or '') & 0xFFFFFFFF) >> 8:06x}"
    except ValueError:
        return None
