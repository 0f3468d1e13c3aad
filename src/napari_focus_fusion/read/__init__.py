"""Files in, without napari: TIFF, OME-Zarr, PNG, JPEG and BMP, each as a `Source`.

The axes of a focus stack are assigned to a source in ``opening``.
"""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.name_axes import is_no_slice
from napari_focus_fusion.read.names import (
    IMAGE_SUFFIXES,
    TIFF_SUFFIXES,
    ZARR_SUFFIX,
    name_of_slices,
    natural_key,
    stem,
)

if TYPE_CHECKING:
    from napari_focus_fusion.read.source import Source

__all__ = [
    "IMAGE_SUFFIXES",
    "TIFF_SUFFIXES",
    "ZARR_SUFFIX",
    "files_in",
    "name_of_slices",
    "natural_key",
    "read_path",
    "stem",
]

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def files_in(path: str) -> list[str]:
    """Files of a folder of images or of a glob pattern, in natural order.

    Parameters
    ----------
    path
        What a user named; ``~`` is spelled out already.

    Returns
    -------
    list of str
        Empty if the path itself is one source: a file, a Zarr or an address.

    Raises
    ------
    FocusFusionError
        If nothing is there.
    """
    if "://" in path or _is_zarr(path):
        return []
    if os.path.isdir(path):
        return _image_files_in(path)
    if os.path.exists(path):
        return []
    found = sorted(glob.glob(path), key=natural_key)
    if not found:
        raise FocusFusionError(
            f"There is no file or folder {path!r}. Check the path; in a pattern, "
            "* stands for any characters."
        )
    return found


def read_path(
    path: str, *, axes: str | None = None, series: int | None = None
) -> Source:
    """Read the metadata of one file, or one Zarr folder or address; no pixels.

    Parameters
    ----------
    path
        A source of its own: what `files_in` calls none of several.
    axes
        The caller's letters, one a dimension. In a Zarr they take over the pixel
        sizes of the axes in whose place they are.
    series
        Which image of a file that holds several.

    Raises
    ------
    FocusFusionError
        If the format is not read here, or the file is damaged.
    """
    suffix = os.path.splitext(path)[1].lower()
    if "://" in path or _is_zarr(path):
        from napari_focus_fusion.read.ome_zarr import read_zarr

        return read_zarr(path, axes=axes, series=series)
    if suffix in TIFF_SUFFIXES:
        from napari_focus_fusion.read.tiff import read_tiff

        return read_tiff(path, series=series)
    if suffix in IMAGE_SUFFIXES:
        from napari_focus_fusion.read.image_files import read_image_file

        return read_image_file(path)
    raise FocusFusionError(
        f"{path!r}: files of type {suffix or '(no ending)'} are not read here. Export "
        "it as OME-TIFF or OME-Zarr, or open it in napari with the plugin for your "
        "microscope and fuse the layer."
    )


def _is_zarr(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, mark)) for mark in _ZARR_MARKS)


def _image_files_in(folder: str) -> list[str]:
    names = sorted(os.listdir(folder), key=natural_key)
    suffixes = TIFF_SUFFIXES + IMAGE_SUFFIXES
    found = [
        os.path.join(folder, name)
        for name in names
        if name.lower().endswith(suffixes) and not is_no_slice(name)
    ]
    if not found:
        raise FocusFusionError(
            f"The folder {folder!r} is not an OME-Zarr and holds no pictures "
            f"({', '.join(suffixes)})."
        )
    return found
