"""Files in, without napari: TIFF, OME-Zarr, pictures and, through BioIO, others.

Each is a `Source`.

The axes of a focus stack are assigned to a source in ``opening``.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import file_path
from napari_focus_fusion.read.name_axes import is_no_slice
from napari_focus_fusion.read.names import (
    IMAGE_SUFFIXES,
    MANY_SLICES_SUFFIXES,
    TIFF_SUFFIXES,
    ZARR_SUFFIX,
    ZIPPED_ZARR_SUFFIXES,
    matches,
    name_of_slices,
    natural_key,
    stem,
)
from napari_focus_fusion.read.tiff_sets import COMPANION_SUFFIX, files_of_set

if TYPE_CHECKING:
    from napari_focus_fusion.read.source import Source

__all__ = [
    "IMAGE_SUFFIXES",
    "MANY_SLICES_SUFFIXES",
    "TIFF_SUFFIXES",
    "ZARR_SUFFIX",
    "ZIPPED_ZARR_SUFFIXES",
    "files_in",
    "files_of_set",
    "folders_of_images",
    "is_zarr",
    "matches",
    "micromanager_files",
    "name_of_slices",
    "natural_key",
    "read_path",
    "series_in",
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
    path = local_path(path)
    if "://" in path or is_zarr(path):
        return []
    if os.path.isdir(path):
        return _image_files_in(path)
    if os.path.exists(path):
        return []
    found = matches(path)
    if not found:
        raise FocusFusionError(
            f"There is no file or folder {path!r}. Check the path; in a pattern, "
            "* stands for any characters."
        )
    return found


def read_path(
    path: str, *, axes: str | None = None, series: int | str | None = None
) -> Source:
    """Read the metadata of one file, or one Zarr folder or address; no pixels.

    Parameters
    ----------
    path
        A source of its own: what `files_in` calls none of several.
    axes
        The caller's letters, one a dimension. In a Zarr they take over the pixel
        sizes of the axes in whose place they are; a TIFF that lost its metadata is
        opened with them only.
    series
        Which image of a file that holds several: its name or number.

    Raises
    ------
    FocusFusionError
        If the format is not read here, or the file is damaged.
    """
    path = local_path(path)
    suffix = os.path.splitext(path)[1].lower()
    if "://" in path or is_zarr(path):
        from napari_focus_fusion.read.ome_zarr import read_zarr

        return read_zarr(path, axes=axes, series=series)
    if suffix in TIFF_SUFFIXES or path.lower().endswith(COMPANION_SUFFIX):
        from napari_focus_fusion.read.tiff import read_tiff

        return read_tiff(path, axes=axes, series=series)
    if suffix in IMAGE_SUFFIXES:
        from napari_focus_fusion.read.image_files import read_image_file

        return read_image_file(path)
    from napari_focus_fusion.read.bioio import read_with_bioio

    return read_with_bioio(path, series=series)


def series_in(path: str | os.PathLike[str]) -> list[str]:
    """Names of the images that a file, plate or Zarr holds: what ``series`` can be.

    Parameters
    ----------
    path
        File, Zarr folder or address.

    Returns
    -------
    list of str
        In the order of the file: names of the images, or their numbers where they have
        none; paths within a plate, a well or another collection in Zarr. One name where
        there is one image.

    Raises
    ------
    FocusFusionError
        If there is no such file, or it is damaged.

    Examples
    --------
    >>> import numpy as np, tifffile
    >>> with tifffile.TiffWriter("day.ome.tif", ome=True) as file:
    ...     for name in ("well A", "well B"):
    ...         stack = np.zeros((5, 40, 64), np.uint8)
    ...         metadata = {"axes": "ZYX", "Name": name}
    ...         file.write(stack, metadata=metadata, photometric="minisblack")
    >>> ff.series_in("day.ome.tif")
    ['well A', 'well B']
    >>> ff.fuse("day.ome.tif", "sml", series="well B").stack.name
    'day_well_B'
    """
    file_path("path", path)
    path = local_path(os.path.expanduser(os.fspath(path)))
    if "://" in path or is_zarr(path):
        from napari_focus_fusion.read.ome_zarr import series_in_zarr

        return series_in_zarr(path)
    if not os.path.exists(path):
        raise FocusFusionError(f"There is no file or folder {path!r}.")
    if os.path.splitext(path)[1].lower() in TIFF_SUFFIXES:
        from napari_focus_fusion.read.tiff import series_in_tiff

        return series_in_tiff(path)
    if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
        return [stem(path)]
    from napari_focus_fusion.read.bioio import series_with_bioio

    return series_with_bioio(path)


def local_path(path: str) -> str:
    """A path for the ``file://`` address of one; other paths as they are."""
    from urllib.parse import unquote, urlsplit
    from urllib.request import url2pathname

    if not path.lower().startswith("file://"):
        return path
    parts = urlsplit(path.replace("#", "%23").replace("?", "%3F"))
    host = "" if parts.netloc in ("", "localhost") else f"//{parts.netloc}"
    return host + (url2pathname(parts.path) if os.name == "nt" else unquote(parts.path))


def is_zarr(path: str) -> bool:
    """Whether a Zarr lies at a path, as a folder or zipped."""
    if path.lower().endswith(ZIPPED_ZARR_SUFFIXES):
        return os.path.isfile(path)
    return any(os.path.exists(os.path.join(path, mark)) for mark in _ZARR_MARKS)


def folders_of_images(folder: str) -> list[str]:
    """Names of the folders with pictures in one that has none itself.

    Micro-Manager makes one a position.
    """
    suffixes = TIFF_SUFFIXES + IMAGE_SUFFIXES

    def has_images(path: str) -> bool:
        names = os.listdir(path)
        return any(n.lower().endswith(suffixes) and not is_no_slice(n) for n in names)

    if has_images(folder):
        return []
    inside = [
        name
        for name in sorted(os.listdir(folder), key=natural_key)
        if not name.startswith(".") and os.path.isdir(os.path.join(folder, name))
    ]
    inside = [name for name in inside if not is_zarr(os.path.join(folder, name))]
    return [name for name in inside if has_images(os.path.join(folder, name))]


def micromanager_files(path: str) -> list[str]:
    """Files of the Micro-Manager data set of one plane a file that a file is in.

    Empty if it is in none: ``metadata.txt`` beside it lists those that are.
    """
    folder, name = os.path.split(path)
    listing = os.path.join(folder, "metadata.txt")
    if not name.lower().endswith(".tif") or not os.path.isfile(listing):
        return []
    with open(listing, encoding="utf-8", errors="replace") as file:
        listed = set(re.findall(r'"FileName":\s*"(?:[^"]*/)?([^"/]+)"', file.read()))
    if name not in listed:
        return []
    there = sorted(listed.intersection(os.listdir(folder or ".")), key=natural_key)
    return [os.path.join(folder, one) for one in there] if len(there) > 1 else []


def _image_files_in(folder: str) -> list[str]:
    names = sorted(os.listdir(folder), key=natural_key)
    suffixes = TIFF_SUFFIXES + IMAGE_SUFFIXES
    found = [
        os.path.join(folder, name)
        for name in names
        if name.lower().endswith(suffixes) and not is_no_slice(name)
    ]
    folders = [] if found else folders_of_images(folder)
    if len(folders) == 1:
        return _image_files_in(os.path.join(folder, folders[0]))
    if folders:
        raise FocusFusionError(
            f"The folder {folder!r} holds no pictures itself, but its folders "
            f"{', '.join(folders[:8])}{', ...' if len(folders) > 8 else ''} do. Open "
            "one of them; or fuse all of them on the command line."
        )
    if not found:
        raise FocusFusionError(
            f"The folder {folder!r} is not an OME-Zarr and holds no pictures "
            f"({', '.join(suffixes)})."
        )
    return found
