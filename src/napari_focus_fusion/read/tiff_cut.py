"""TIFF files that end early: which planes are whole, and how many were to follow."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Planes begin at multiples of this, at most.
_PADDING = 64
_MOST_PLANES = 1 << 20


def planes_behind(tiff: Any, image: Any) -> int:
    """Planes that lie one after the other although only the first is listed, else 0.

    So they do in MetaMorph stacks, and where the list of planes is behind the pixels of
    all of them and was cut off.

    Parameters
    ----------
    tiff, image
        ``tifffile.TiffFile``, and its series.
    """
    first = image.keyframe
    if image.is_multifile or len(tiff.pages) > 1 or not first.is_final:
        return 0
    # tifffile goes by the tag UIC1, which not all of them have; UIC2 counts planes.
    if 33629 in first.tags and 33628 not in first.tags:
        return int(first.tags[33629].count)
    following = _following_page(tiff)
    if not first.is_memmappable or 0 < following < tiff.filehandle.size:
        return 0
    if not following:  # ImageJ lists the first plane alone beyond 4 GB
        listed = tiff.imagej_metadata if tiff.is_imagej else None
        images = int((listed or {}).get("images", 1))
        fits = first.dataoffsets[0] + 2 * first.nbytes <= tiff.filehandle.size
        return images if fits and 1 < images < _MOST_PLANES else 0
    planes, rest = divmod(following - first.dataoffsets[0], first.nbytes)
    return planes if 1 < planes < _MOST_PLANES and rest < _PADDING else 0


def list_is_cut(tiff: Any) -> bool:
    """Whether the last plane names a next one that lies beyond the end of the file.

    tifffile only logs this, and a truncated stack would be read as a shorter one.
    """
    if tiff.is_ndpi:  # keeps half of its 64-bit offsets elsewhere
        return False
    return _following_page(tiff) >= tiff.filehandle.size


def planes_in_file(tiff: Any, image: Any, behind: int) -> NDArray[np.bool_] | None:
    """Whether the pixels of each plane end before their file does; None if all do.

    Parameters
    ----------
    tiff, image
        ``tifffile.TiffFile``, and its series.
    behind
        What `planes_behind` says.

    Returns
    -------
    array of bool
        By the axes in front of the plane.
    """
    size, first = tiff.filehandle.size, image.keyframe
    if behind:
        there = (size - first.dataoffsets[0]) // first.nbytes
        return None if there >= behind else np.arange(behind) < there
    shape = tuple(image.shape[: len(image.axes) - len(first.axes)])
    count = int(np.prod(shape))
    if image.dataoffset is not None and first.is_memmappable and len(image) < count:
        there = (size - image.dataoffset) // (image.nbytes // count)
        return None if there >= count else (np.arange(count) < there).reshape(shape)
    if not list_is_cut(tiff) and len(image) >= count and _is_whole(image[-1]):
        return None
    there = [_is_whole(image[i]) for i in range(min(len(image), count))]
    there += [False] * (count - len(there))
    return None if all(there) else np.array(there).reshape(shape)


def note_on_cut(planes: int) -> str:
    """Note on a file that ends before its list of planes does."""
    return (
        f"The file ends early, after {planes} plane{'s' if planes > 1 else ''} or in "
        "the next; how many were to follow is not known. Copy it again if you can."
    )


def _is_whole(page: Any) -> bool:
    """Whether the pixels of a plane lie within its file; strips never written do."""
    if page is None or not hasattr(page, "dataoffsets"):
        return page is not None
    size = page.parent.filehandle.size
    parts = zip(page.dataoffsets, page.databytecounts, strict=False)
    return all(offset + count <= size for offset, count in parts)


def _following_page(tiff: Any) -> int:
    """Where the page after the last one is said to be; 0 if there is none."""
    file, form = tiff.filehandle, tiff.tiff
    file.seek(tiff.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(tags * form.tagsize, os.SEEK_CUR)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    return int(following)
