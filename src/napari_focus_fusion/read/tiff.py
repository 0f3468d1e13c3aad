"""TIFF, OME-TIFF and ImageJ TIFF: read by region, never as a whole."""

from __future__ import annotations

import functools
import os
import struct
import threading
import weakref
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_focus_fusion.axes import AXES
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.read.names import stem
from napari_focus_fusion.read.series import (
    index_of_series,
    name_of_series,
    names_of_series,
)
from napari_focus_fusion.read.source import Source
from napari_focus_fusion.read.tiff_photometry import as_shown
from napari_focus_fusion.read.tiff_sizes import tiff_sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A compressed page without tiles is decoded whole up to this size, else by strip.
_WHOLE_PAGE_BYTES = 256 * 2**20


class LazyTiff(LazyArray):
    """One image (series) of a TIFF file as an array that is read by region.

    Uncompressed files are mapped a plane at a time, others decoded by tile, page or
    strip. Travels to other processes as its path.
    """

    def __init__(self, path: str, series: int = 0) -> None:
        import tifffile

        self.path = os.path.abspath(path)
        self.series = series
        with tifffile.TiffFile(path) as tiff:
            image = tiff.series[series]
            page = image.keyframe
            self.axes = str(image.axes)
            plain = page.is_memmappable and image.transform is None
            # Several files make one series: an offset into the first is not enough.
            plain = plain and not image.is_multifile
            self._offset = image.dataoffset if plain else None
            self._stored_dtype = np.dtype(tiff.byteorder + image.dtype.char)
            whole = not page.is_tiled and page.nbytes <= _WHOLE_PAGE_BYTES
            self._chunkmode = 2 if whole else 0
            end = (self._offset or 0) + image.nbytes
            if self._offset is not None and end > os.path.getsize(path):
                raise _damaged(path, "the file ends before its last plane")
            shape, dtype = image.shape, image.dtype
            planes = _planes_of_stk(tiff)
            if planes > 1 and page.is_final and not image.is_multifile:
                # One after the other, although only the first is listed.
                shape, self.axes = (planes, *shape), f"Z{self.axes}"
                self._offset = page.dataoffsets[0]
                if self._offset + planes * image.nbytes > os.path.getsize(path):
                    raise _damaged(path, "the file ends before its last plane")
        chunks = None if self._offset is not None else self._decoded().chunks
        super().__init__(shape, dtype, chunks)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        try:
            if self._offset is None:
                return np.asarray(self._decoded()[spans])
            return self._mapped(spans)
        except (FocusFusionError, MemoryError):
            raise
        except Exception as error:  # codecs raise errors of any type
            raise _damaged(self.path, error) from error

    def _mapped(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        """Map one plane after the other, so that resident memory stays one plane."""
        planes = max(0, self.ndim - 2 - ("S" in self.axes[-1:]))
        ranges = [range(*s.indices(n)) for s, n in zip(spans, self.shape, strict=True)]
        region = np.empty([len(r) for r in ranges], self.dtype)
        plane_shape = self.shape[planes:]
        plane_bytes = int(np.prod(plane_shape)) * self.dtype.itemsize
        for place in np.ndindex(*region.shape[:planes]):
            index = 0
            for r, n, i in zip(ranges, self.shape, place, strict=False):
                index = index * n + r[i]
            offset = (self._offset or 0) + index * plane_bytes
            plane = np.memmap(self.path, self._stored_dtype, "r", offset, plane_shape)
            region[place] = plane[spans[planes:]]
        return region

    def _decoded(self) -> Any:
        status = os.stat(self.path)
        version = (status.st_mtime_ns, status.st_size)
        with _open_lock:
            return _open_decoded(self.path, self.series, self._chunkmode, version).array


class _OpenTiff:
    """An open file and the Zarr view of its pixels; closed when garbage-collected."""

    def __init__(self, path: str, series: int, chunkmode: int) -> None:
        import tifffile
        import zarr

        file = tifffile.TiffFile(path)
        self._close = weakref.finalize(self, file.close)
        store = file.series[series].aszarr(level=0, chunkmode=chunkmode, maxworkers=1)
        self.array: Any = zarr.open_array(store, mode="r")


_open_lock = threading.Lock()


# Few files stay open however many a stack has.
@functools.lru_cache(maxsize=8)
def _open_decoded(
    path: str, series: int, chunkmode: int, version: tuple[int, int]
) -> _OpenTiff:
    return _OpenTiff(path, series, chunkmode)


def read_tiff(path: str, *, series: int | str | None = None) -> Source:
    """Open a TIFF file with its OME or ImageJ metadata, reading no pixels.

    Raises
    ------
    FocusFusionError
        If the file is damaged or incomplete, or holds several images and `series` does
        not select one.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            if len(tiff.pages) == 0:
                raise _damaged(path, "it has no plane")
            if _chain_is_cut(tiff):
                raise _damaged(path, "the file ends before its last plane")
            number = _choose_series(tiff, path, series)
            image = tiff.series[number]
            if tiff.is_ome and any(page is None for page in image.pages):
                raise FocusFusionError(
                    f"{path!r} is incomplete: some planes that its metadata list are "
                    "in files that are missing. Put all files of the data set into "
                    "one folder."
                )
            fields = _metadata(tiff, number, path)
            names = image_names(tiff)
            stored = LazyTiff(path, number)
            shown = as_shown(stored, stored.axes, image.keyframe, path)
    except (
        tifffile.TiffFileError,
        OSError,
        IndexError,
        KeyError,
        struct.error,
    ) as error:
        raise _damaged(path, error) from error
    name = name_of_series(path, names[number]) if len(names) > 1 else stem(path)
    fields["notes"] = (*fields["notes"], *shown.notes)
    if shown.colour is not None and "display" not in fields:
        fields["display"] = {"colormap": shown.colour}
    letters = _axis_letters(shown.axes)
    return Source(shown.data, axes=letters, name=name, path=path, **fields)


def _planes_of_stk(tiff: Any) -> int:
    """Planes of a MetaMorph stack that tifffile takes for a single plane, else 0.

    It goes by the tag UIC1, which not all of them have; UIC2 is what counts planes.
    """
    tags = tiff.pages[0].tags
    return tags[33629].count if 33629 in tags and 33628 not in tags else 0


def _chain_is_cut(tiff: Any) -> bool:
    """Whether the last page names a next one that lies beyond the end of the file.

    tifffile only logs this, and a truncated stack would be read as a shorter one.
    """
    if tiff.is_ndpi:  # keeps half of its 64-bit offsets elsewhere
        return False
    file, form = tiff.filehandle, tiff.tiff
    file.seek(tiff.pages[-1].offset)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(tags * form.tagsize, os.SEEK_CUR)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    return bool(following >= file.size)


def _choose_series(tiff: Any, path: str, series: int | str | None) -> int:
    count = len(tiff.series)
    if count == 0:
        raise FocusFusionError(f"{path!r} holds no image.")
    names = image_names(tiff)
    if series is not None:
        return index_of_series(names, series, path)
    if len(names) == 1:
        return 0
    images = "; ".join(
        f"{i}: {name} {tuple(image.shape)}"
        for i, (name, image) in enumerate(zip(names[:8], tiff.series, strict=False))
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
        with tifffile.TiffFile(path) as tiff:
            return image_names(tiff)
    except (tifffile.TiffFileError, OSError, IndexError, struct.error) as error:
        raise _damaged(path, error) from error


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
    return names_of_series([str(image.name or "") for image in series])


def _axis_letters(axes: str) -> str | None:
    """Our letters for tifffile's; a nameless axis of planes is Z. None if unclear."""
    nameless = [axis for axis in axes if axis not in AXES]
    if not nameless:
        return axes
    if len(nameless) == 1 and "Z" not in axes:
        return axes.replace(nameless[0], "Z")
    return None


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
        raise _damaged(path, f"its OME metadata are not XML: {error}") from error
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


def _damaged(path: str, why: object) -> FocusFusionError:
    return FocusFusionError(
        f"{path!r} is damaged, incomplete or not a TIFF: {why}. Copy it again from "
        "where it was saved, or export it again."
    )
