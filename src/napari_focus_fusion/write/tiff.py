"""Writes OME-TIFF, plane by plane or tile by tile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.write.blocks import regions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Planes up to this size are written whole, which more programs can read.
_WHOLE_PLANE_BYTES = 64 * 2**20
_TILE = 512
_OME_UNITS = {
    **{"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm"},
    **{"meter": "m", "angstrom": "Å", "picometer": "pm", "inch": "in"},
    **{"pixel": "pixel", "second": "s", "millisecond": "ms", "minute": "min"},
    **{"hour": "h", "day": "d"},
}


def write_ome_tiff(
    path: Path,
    data: Any,
    axes: str,
    *,
    name: str,
    pixel_sizes: Mapping[str, tuple[float, str]],
    channel_names: tuple[str, ...] = (),
    colours: tuple[str, ...] = (),
    description: Mapping[str, Any],
) -> None:
    """Write one image as uncompressed OME-TIFF, in memory no more than a plane or row.

    Parameters
    ----------
    path
        File to write.
    data
        ``len(axes)`` dimensions, numpy or Zarr. float16 is stored as float32, since
        OME-TIFF has no such type.
    axes
        Out of ``TCZYXS``.
    name
        Name of the image in the metadata.
    pixel_sizes
        Size and unit per axis letter.
    channel_names
        One a channel, or empty.
    colours
        One a channel as ``#rrggbb``, or empty.
    description
        Stored as JSON in the image's description.
    """
    import tifffile

    dtype = np.dtype(data.dtype)
    dtype = np.dtype("float32") if dtype == np.float16 else dtype.newbyteorder("=")
    metadata: dict[str, Any] = {
        "axes": axes,
        "Name": name,
        "Description": json.dumps(description, default=str),
    }
    for axis, (size, unit) in pixel_sizes.items():
        if size == 1 and unit == "pixel":
            continue
        key = "TimeIncrement" if axis == "T" else f"PhysicalSize{axis}"
        metadata[key] = size
        # A frame of reference of its own is OME's word for any other unit.
        other = "s" if axis == "T" else "reference frame"
        metadata[f"{key}Unit"] = _OME_UNITS.get(unit, other)
    channel: dict[str, Any] = {}
    if channel_names:
        channel["Name"] = list(channel_names)
    if colours:
        channel["Color"] = [_ome_colour(colour) for colour in colours]
    if channel:
        metadata["Channel"] = channel

    shape = tuple(int(n) for n in data.shape)
    first = len(axes.rstrip("S")) - 2
    plane_bytes = int(np.prod(shape[first:])) * dtype.itemsize
    tiled = plane_bytes > _WHOLE_PLANE_BYTES
    with tifffile.TiffWriter(
        path, bigtiff=plane_bytes * int(np.prod(shape[:first])) > 2**31, ome=True
    ) as writer:
        writer.write(
            _tiles(data, first, dtype) if tiled else _planes(data, first, dtype),
            shape=shape,
            dtype=dtype,
            tile=(_TILE, _TILE) if tiled else None,
            photometric="rgb" if "S" in axes else "minisblack",
            metadata=metadata,
        )


def _ome_colour(colour: str) -> int:
    """Signed 32-bit RGBA."""
    value = int(colour.lstrip("#")[:6] + "ff", 16)
    return value - (1 << 32) if value >= 1 << 31 else value


def _planes(data: Any, first: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    rest = (slice(None),) * (len(data.shape) - first)
    for place in np.ndindex(*data.shape[:first]):
        key = (*(slice(i, i + 1) for i in place), *rest)
        plane = np.asarray(data[key])
        yield np.ascontiguousarray(plane.reshape(plane.shape[first:]), dtype)


def _tiles(data: Any, first: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    samples = tuple(data.shape[first + 2 :])
    whole = (slice(None),) * len(samples)
    for region in regions(tuple(data.shape[: first + 2]), _TILE):
        pixels = np.asarray(data[(*region, *whole)])
        tile = np.zeros((_TILE, _TILE, *samples), dtype)
        rows, columns = pixels.shape[first : first + 2]
        tile[:rows, :columns] = pixels.reshape(rows, columns, *samples)
        yield tile
