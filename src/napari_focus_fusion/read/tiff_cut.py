"""TIFF files that end early: which planes are whole, and how many were to follow."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Planes begin at multiples of this, at most.
_PADDING = 64
_MOST_PLANES = 1 << 16
# Kinds of tifffile's series that have the axes that the metadata list.
_ORDERED = ("imagej", "ome", "shaped", "mmstack", "lsm", "stk")
_IMAGEJ_SIZES = {"T": "frames", "Z": "slices", "C": "channels"}


def opened_as_far_as_listed(path: str) -> Any:
    """Open a TIFF with tifffile, as if it ended where its list of planes is broken."""
    import tifffile

    tiff = tifffile.TiffFile(path)
    # A slide scanner's file keeps half of its 64-bit offsets elsewhere.
    if len(tiff.pages) == 0 or tiff.is_ndpi:
        return tiff
    try:
        cut = _following_page(tiff) >= tiff.filehandle.size
    except (tifffile.TiffFileError, struct.error):
        end = _end_of_list(tiff)
        tiff.close()
        return tifffile.TiffFile(path, size=end, is_shaped=False)
    except BaseException:
        tiff.close()
        raise
    if cut and tiff.is_shaped:  # of which tifffile would give the first plane alone
        tiff.close()
        return tifffile.TiffFile(path, is_shaped=False)
    return tiff


def listed_planes(tiff: Any, image: Any) -> dict[str, int]:
    """How many planes ImageJ or tifffile itself list along each axis, by its letter.

    Empty where neither does, or tifffile made the axes of them already.
    """
    if image.kind in _ORDERED or len(tiff.series) > 1:
        return {}
    if tiff.is_imagej:
        listed = tiff.imagej_metadata or {}
        sizes = {a: int(listed.get(k, 1)) for a, k in _IMAGEJ_SIZES.items()}
        if int(np.prod(list(sizes.values()))) == 1:
            sizes["Z"] = int(listed.get("images", 1))
        return sizes
    try:
        listed = json.loads(tiff.pages.first.description)
        shape, page = [int(n) for n in listed["shape"]], image.keyframe.shape
        lead = shape[: len(shape) - len(page)]
        letters = str(listed.get("axes", "Z"))[: len(lead)]
        if tuple(shape[len(lead) :]) == tuple(page) and len(letters) == len(lead):
            return dict(zip(letters, lead, strict=True))
    except (ValueError, KeyError, TypeError):
        pass
    return {}


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
    if image.is_multifile or not first.is_final:
        return 0
    # tifffile goes by the tag UIC1, which not all of them have; UIC2 counts planes.
    if 33629 in first.tags and 33628 not in first.tags:
        return int(first.tags[33629].count)
    if len(tiff.pages) > 1:
        return 0
    following = _following_page(tiff)
    if 0 < following < tiff.filehandle.size:
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
    if image.dataoffset is not None and first.is_final:
        there = (size - image.dataoffset) // first.nbytes
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
    """Where the page after the last one is said to be; 0 if there is none.

    The end of the file, if it ends before it says so: the entry of the last page, which
    may be the only one and behind all pixels, is whole without that.
    """
    file, form = tiff.filehandle, tiff.tiff
    file.seek(tiff.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(tags * form.tagsize, os.SEEK_CUR)
    pointer = file.read(form.offsetsize)
    if len(pointer) < form.offsetsize and file.tell() == file.size:
        return int(file.size)
    (following,) = struct.unpack(form.offsetformat, pointer)
    return int(following)


def _end_of_list(tiff: Any) -> int:
    """Where the entry of the first plane begins that is not in the file as a whole.

    That of the second plane where the pixels of all come before it.
    """
    file, form, first = tiff.filehandle, tiff.tiff, tiff.pages.first
    place, starts = 8 if form.is_bigtiff else 4, list[int]()
    while True:
        file.seek(place)
        pointer = file.read(form.offsetsize)
        if len(pointer) < form.offsetsize:
            break
        (start,) = struct.unpack(form.offsetformat, pointer)
        if start in starts:
            break
        starts.append(start)
        file.seek(start)
        count = file.read(form.tagnosize)
        if len(count) < form.tagnosize:
            break
        (tags,) = struct.unpack(form.tagnoformat, count)
        place = start + form.tagnosize + tags * form.tagsize
    second = starts[1] if len(starts) > 1 else 0
    if first.is_final and second >= first.dataoffsets[0] + 2 * first.nbytes:
        return second
    return min(starts[-1], file.size) if starts else int(file.size)
