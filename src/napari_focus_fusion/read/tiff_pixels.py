"""Pixels of TIFF files: read by region, never as a whole."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.read.tiff_cut import planes_behind
from napari_focus_fusion.read.tiff_sets import (
    damaged_tiff,
    open_tiff,
    present_planes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# A compressed page without tiles is decoded whole up to this size, else by strip.
_WHOLE_PAGE_BYTES = 256 * 2**20


class LazyTiff(LazyArray):
    """One image (series) of a TIFF file as an array that is read by region.

    Uncompressed files are mapped a plane at a time, others decoded by tile, page or
    strip. Travels to other processes as its path.
    """

    def __init__(self, path: str, series: int = 0) -> None:
        self.path = os.path.abspath(path)
        self.series = series
        with open_tiff(path) as tiff:
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
            shape, dtype = image.shape, image.dtype
            self._stored_shape = tuple(shape)
            # Files beside it may come and go.
            self._spread = image.is_multifile or present_planes(image) is not None
            self._lead = len(self.axes) - len(page.axes)
            planes = planes_behind(tiff, image)
            if planes:
                shape, self.axes = (planes, *page.shape), f"Z{page.axes}"
                self._offset = page.dataoffsets[0]
        chunks = None if self._offset is not None else self._decoded().array.chunks
        super().__init__(shape, dtype, chunks)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        try:
            if self._offset is None:
                opened = self._decoded()
                opened.check_stored(self._planes_in(spans), self.path)
                return np.asarray(opened.array[spans])
            return self._mapped(spans)
        except (FocusFusionError, MemoryError):
            raise
        except Exception as error:  # codecs raise errors of any type
            raise damaged_tiff(self.path, error) from error

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

    def _decoded(self) -> _OpenTiff:
        status = os.stat(self.path)
        beside = os.path.dirname(self.path)
        version = (
            status.st_mtime_ns,
            status.st_size,
            os.stat(beside).st_mtime_ns if self._spread else 0,
            *self._stored_shape,
        )
        with _open_lock:
            return _open_decoded(self.path, self.series, self._chunkmode, version)

    def _planes_in(self, spans: tuple[slice, ...]) -> list[int]:
        """Which pages of the series a region is in."""
        lead = self.shape[: self._lead]
        ranges = (range(*s.indices(n)) for s, n in zip(spans, lead, strict=False))
        places = np.meshgrid(*ranges, indexing="ij")
        return (
            list(np.ravel_multi_index([p.ravel() for p in places], lead))
            if lead
            else [0]
        )


class _OpenTiff:
    """An open file and the Zarr view of its pixels; closed when garbage-collected."""

    def __init__(self, path: str, series: int, chunkmode: int) -> None:
        import zarr

        file = open_tiff(path)
        self._series = file.series[series]
        self._checked: set[int] = set()
        store = self._series.aszarr(level=0, chunkmode=chunkmode, maxworkers=1)
        self._close = weakref.finalize(self, _close, store, file)
        self.array: Any = zarr.open_array(store, mode="r")

    def check_stored(self, planes: Iterable[int], path: str) -> None:
        """Raise if a strip or tile of a plane is missing: it would be read as 0."""
        for index in set(planes) - self._checked:
            with _open_lock:
                page = self._series[index] if index < len(self._series) else None
                parts = (
                    []
                    if page is None
                    else list(zip(page.dataoffsets, page.databytecounts, strict=False))
                )
            missing = sum(not (offset and count) for offset, count in parts)
            if missing:
                raise FocusFusionError(
                    f"{path!r} is incomplete: {missing} of the {len(parts)} strips or "
                    f"tiles of plane {index} (counted from 0) were never written. Copy "
                    "it again from where it was saved, or leave that plane out."
                )
            self._checked.add(index)


def _close(store: Any, file: Any) -> None:
    store.close()  # other files of the data set, too
    file.close()


_open_lock = threading.Lock()


# Few files stay open however many a stack has.
@functools.lru_cache(maxsize=8)
def _open_decoded(
    path: str, series: int, chunkmode: int, version: tuple[int, ...]
) -> _OpenTiff:
    return _OpenTiff(path, series, chunkmode)
