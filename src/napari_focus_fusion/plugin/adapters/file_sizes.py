"""Pixel sizes that a layer's file has, and the layer has not.

napari's own reader of TIFF takes the pixels alone; the layer knows where they are from.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read import TIFF_SUFFIXES, read_path

if TYPE_CHECKING:
    from napari.layers import Image


class FileSizes(NamedTuple):
    """Pixel sizes and units by the axis letters of a layer, and notes."""

    scale: dict[str, float]
    units: dict[str, str]
    notes: tuple[str, ...]


def sizes_of_file(layer: Image, axes: str) -> FileSizes | None:
    """Sizes by the file of a layer that has none itself.

    Parameters
    ----------
    layer
        An image layer.
    axes
        What its axes are, one letter each, without one for RGB.

    Returns
    -------
    FileSizes or None
        None where the layer has sizes, the file has none or is not there any more, or
        holds something else than the layer.
    """
    path = layer.source.path
    if path is None or not str(path).lower().endswith(TIFF_SUFFIXES):
        return None
    plain = np.allclose(layer.scale, 1) and {str(unit) for unit in layer.units} == {
        "pixel"
    }
    if not plain or not os.path.isfile(path):
        return None
    status = os.stat(path)
    found = _sizes(str(path), (status.st_mtime_ns, status.st_size))
    pixels = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(pixels.shape)[: layer.ndim]
    if found is None or found[1] != tuple(n for n in shape if n > 1):
        return None
    letters = [axis for axis, n in zip(axes, shape, strict=True) if n > 1]
    source = found[0]
    here = dict(zip(found[2], letters, strict=True))
    scale = {here[axis]: s for axis, s in source.scale.items() if axis in here}
    if not scale:
        return None
    units = {here[axis]: u for axis, u in source.units.items() if axis in here}
    sizes = ", ".join(
        f"{axis} {size:g} {units.get(axis, 'pixel')}" for axis, size in scale.items()
    )
    note = (
        f"The layer {layer.name!r} has no pixel sizes; those of its file "
        f"{os.path.basename(path)!r} were taken: {sizes}."
    )
    return FileSizes(scale, units, (note, *source.notes))


@functools.lru_cache(maxsize=32)
def _sizes(path: str, version: tuple[int, int]) -> Any:
    """Source of a file, and size and letter of each of its axes longer than 1."""
    try:
        source = read_path(path, series=0)
    except FocusFusionError:
        return None
    if source.axes is None:
        return None
    kept = [
        (n, axis)
        for n, axis in zip(source.data.shape, source.axes, strict=True)
        if axis != "S" and n > 1
    ]
    return source, tuple(n for n, _ in kept), "".join(axis for _, axis in kept)
