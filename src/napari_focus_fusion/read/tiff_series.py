"""The images of a TIFF file: their names, and which one is meant."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import Selection
from napari_focus_fusion.read.series import index_of_series, names_of_series
from napari_focus_fusion.read.tiff_sets import damaged_tiff, open_tiff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.read.source import Source


def chosen_series(tiff: Any, path: str, series: int | str | None) -> int:
    """Index of the image that is meant; an error that lists them if it is not clear."""
    if len(tiff.series) == 0:
        raise FocusFusionError(f"{path!r} holds no image.")
    names = image_names(tiff)
    count = max(len(tiff.series), len(names))
    if series is not None:
        return index_of_series(names, series, path)
    if len(names) == 1:
        return 0
    shapes = [str(tuple(image.shape)) for image in tiff.series]
    if len(names) > len(shapes):  # positions of one series
        shapes = [""] * len(names)
    images = "; ".join(
        f"{i}: {name} {shape}".rstrip()
        for i, (name, shape) in enumerate(zip(names[:8], shapes, strict=False))
    )
    raise FocusFusionError(
        f"{path!r} holds {count} images instead of one stack, or slices of different "
        f"sizes ({images}{'; ...' if count > 8 else ''}). Say which one with "
        "series=0, 1, ... or its name (--series on the command line, where all means "
        "each of them), or save the stack on its own with slices of one size."
    )


def series_in_tiff(path: str) -> list[str]:
    """Names of the images of a TIFF file; as :func:`image_names`.

    Raises
    ------
    FocusFusionError
        If the file is damaged.
    """
    import tifffile

    try:
        with open_tiff(path) as tiff:
            if len(tiff.pages) == 0:
                raise damaged_tiff(path, "it has no plane")
            return image_names(tiff)
    except (tifffile.TiffFileError, OSError, IndexError, struct.error) as error:
        raise damaged_tiff(path, error) from error


def image_names(tiff: Any) -> list[str]:
    """Names of the images of an open TIFF, without overviews of the first one.

    Parameters
    ----------
    tiff
        ``tifffile.TiffFile``.

    Returns
    -------
    list of str
        In the order of the file; an image without a name is called by its number.
    """
    series = list(tiff.series)
    slide = tiff.is_svs or tiff.is_ndpi or tiff.is_scn or tiff.is_bif
    if slide:  # its other images are its label and overview
        series = series[:1]
    while len(series) > 1 and series[-1].keyframe.is_reduced:
        series.pop()  # thumbnails, as in LSM
    if len(series) == 1 and positions_in(series[0]) > 1:
        return [f"position {i}" for i in range(positions_in(series[0]))]
    return names_of_series([str(image.name or "") for image in series])


def positions_in(image: Any) -> int:
    """How many positions a series has, as those of Micro-Manager may."""
    return int(image.shape[image.axes.index("R")]) if "R" in image.axes else 1


def at_position(source: Source, axis: int, position: int) -> Source:
    """One position of a source that has them along an axis."""
    shape = source.data.shape
    kept: list[Sequence[int] | int] = [*(range(n) for n in shape[:axis]), position]
    axes = (source.axes or "").replace("R", "")
    files = [file for file in source.files if file.get("R", position) == position]
    return replace(
        source,
        data=Selection(source.data, kept),
        axes=axes,
        files=tuple({k: v for k, v in file.items() if k != "R"} for file in files),
    )
