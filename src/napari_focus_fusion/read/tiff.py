"""TIFF, OME-TIFF and ImageJ TIFF: read by region, never as a whole."""

from __future__ import annotations

import functools
import os
import struct
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_focus_fusion.axes import planes_may_be_strips
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray, Selection, SliceList
from napari_focus_fusion.read.names import name_of_slices, stem
from napari_focus_fusion.read.series import (
    index_of_series,
    name_of_series,
    names_of_series,
)
from napari_focus_fusion.read.source import Source
from napari_focus_fusion.read.tiff_cut import (
    list_is_cut,
    listed_planes,
    note_on_cut,
    planes_behind,
    planes_in_file,
)
from napari_focus_fusion.read.tiff_photometry import as_shown
from napari_focus_fusion.read.tiff_sets import (
    notes_on_plan,
    open_tiff,
    places_of_files,
    present_planes,
)
from napari_focus_fusion.read.tiff_sizes import tiff_sizes
from napari_focus_fusion.read.whole import note_on_missing, whole_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

# A compressed page without tiles is decoded whole up to this size, else by strip.
_WHOLE_PAGE_BYTES = 256 * 2**20
# What tifffile calls axes of planes that the file does not name.
_NAMELESS = "QI"


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
                raise _damaged(path, "it has no plane")
            number = _choose_series(tiff, path, series)
            position = None
            if len(tiff.series) == 1 and _positions(tiff.series[0]) > 1:
                position, number = number, 0
            image = tiff.series[number]
            behind = planes_behind(tiff, image)
            cut = planes_in_file(tiff, image, behind)
            if cut is not None and not cut.any():
                raise _damaged(path, "the file ends before its first plane does")
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
        raise _damaged(path, error) from error
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
        return _cut_hyperstack(source, planes, whole)
    if position is not None:
        at = letters.index("R") if letters else 0
        source = _at_position(source, at, position)
        if present is not None:
            present = np.take(present, position, at)
            present = None if present.all() else present
    if present is None:
        return source
    return _whole(source, present, early=early)


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
        raise _damaged(
            path,
            "the file ends early, and its OME metadata are lost, so that it is not "
            f"known what its planes are. The first {whole} are whole: if they are the "
            "slices of one stack, say so with axes='ZYX'",
        )


def _cut_hyperstack(source: Source, sizes: Mapping[str, int], whole: int) -> Source:
    """The whole part of a stack that lists more planes than are there."""
    letters = "".join(axis for axis, n in sizes.items() if n > 1)
    shape = [sizes[axis] for axis in letters]
    present = (np.arange(np.prod(shape)) < whole).reshape(shape)
    kept = whole_part(present, letters)
    pages = np.arange(present.size).reshape(shape)[np.ix_(*kept)].ravel()
    axes = source.axes or ""
    lead = [1] if "Z" in axes else []
    items = [Selection(source.data, [[int(i)] for _ in lead]) for i in pages]
    data = SliceList(items, [axes] * len(items), [len(indices) for indices in kept])
    note = _note_on_planes(letters, kept, present, "that are listed are missing")
    return replace(
        source,
        data=data,
        axes=letters + axes.replace("Z", ""),
        notes=(*source.notes, note),
    )


def _note_on_planes(
    letters: str, kept: list[list[int]], present: NDArray[np.bool_], why: str
) -> str:
    left_out = {
        axis: [i for i in range(n) if i not in indices]
        for axis, n, indices in zip(letters, present.shape, kept, strict=True)
    }
    missing = int(present.size - present.sum())
    return note_on_missing(
        letters,
        left_out,
        lambda _, index: str(index),
        f"counted from 0: {missing} of {present.size} planes {why}",
    )


def _positions(image: Any) -> int:
    """How many positions a series has, as those of Micro-Manager may."""
    return int(image.shape[image.axes.index("R")]) if "R" in image.axes else 1


def _at_position(source: Source, axis: int, position: int) -> Source:
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


def _whole(source: Source, present: NDArray[np.bool_], *, early: bool) -> Source:
    """A source without the planes that are missing, and what lacks them."""
    letters = (source.axes or "?" * present.ndim)[: present.ndim]
    kept = whole_part(present, letters)
    if not all(kept):
        raise FocusFusionError(
            f"{source.path!r} is incomplete: none of its planes is there. Put all "
            "files of the data set into one folder."
        )
    why = "that the metadata list are missing"
    if early:
        why = "are missing or not whole, since the file ends early"
    note = _note_on_planes(letters, kept, present, why)
    channels = source.channel_names
    display = dict(source.display)
    if channels and "C" in letters:
        indices = kept[letters.index("C")]
        channels = tuple(channels[i] for i in indices)
        if "colormap" in display:
            display["colormap"] = [display["colormap"][i] for i in indices]
    files = tuple(
        {**file, **{a: kept[letters.index(a)].index(file[a]) for a in letters}}
        if "planes" not in file
        else file
        for file in source.files
        if "planes" in file or all(file[a] in kept[letters.index(a)] for a in letters)
    )
    return replace(
        source,
        data=Selection(source.data, kept),
        notes=(*source.notes, note),
        channel_names=channels,
        display=display,
        files=files,
    )


def _choose_series(tiff: Any, path: str, series: int | str | None) -> int:
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
                raise _damaged(path, "it has no plane")
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
    if len(series) == 1 and _positions(series[0]) > 1:
        return [f"position {i}" for i in range(_positions(series[0]))]
    return names_of_series([str(image.name or "") for image in series])


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
