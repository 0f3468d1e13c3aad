"""What identifies a run: its pixels, its model and its settings."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.tiling import TilePlan, evenly_spread
from napari_focus_fusion.write.places import places_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_focus_fusion.stack import FocusStack

#: Side of what is hashed at once of an array without chunks.
BLOCK = 1024
#: So much is read at once.
BYTES_AT_ONCE = 64 << 20
#: What of a provenance decides the result, and what it is called.
DECISIVE = {
    "source_fingerprint": "the stack",
    "source_axes": "the axes",
    "source_shape": "the shape",
    "reference_fingerprint": "the reference",
    "decision_sha256": "the decision map",
    "model": "the model",
    "weights_sha256": "the weights",
    "super_resolution": "the super-resolution",
    "parameters": "the settings",
}
#: Side of the windows that are hashed of stacks in files.
SIDE = 32


def fingerprint(stack: FocusStack) -> str:
    """Hash that changes with the pixels of a stack.

    Of what lies in files: their sizes and times, and a few windows of a few slices. Of
    all else, like arrays in memory and what dask computes: every pixel.
    """
    digest = hashlib.sha256()
    if lies_in_files(stack.data):
        for line in _state_of_files(sorted(places_of(stack.data))):
            digest.update(line.encode("utf-8", "surrogateescape"))
        parts = _windows(stack)
    else:
        parts = _all_pixels(stack)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What two provenances, or a provenance and an identity, do not have in common.

    In words; the version of the program, the device and the notes do not matter.
    """
    same = json.loads(json.dumps(now, default=str))
    return [
        words for key, words in DECISIVE.items() if earlier.get(key) != same.get(key)
    ]


def lies_in_files(data: Any) -> bool:
    """Whether all pixels of an array are read from files of this machine, as they are.

    True of our own readers, of memory-mapped, HDF5 and local Zarr arrays, and of lazy
    arrays of these; False of arrays in memory, remote ones, and graphs of dask.
    """
    if isinstance(data, LazyArray):
        inner = [
            array
            for value in vars(data).values()
            for array in (value if isinstance(value, list) else [value])
            if hasattr(array, "shape") and hasattr(array, "dtype")
        ]
        return all(map(lies_in_files, inner)) and bool(places_of(data))
    if isinstance(data, np.ndarray):
        return _is_mapped(data)
    if hasattr(data, "dask"):
        return False
    is_zarr = type(data).__module__.partition(".")[0] == "zarr"
    is_hdf5 = hasattr(getattr(data, "file", None), "filename")
    return (is_zarr or is_hdf5) and bool(places_of(data))


def _is_mapped(data: Any) -> bool:
    while data is not None:
        if isinstance(data, np.memmap):
            # Changed in memory only, it is no longer what the file holds.
            return getattr(data, "mode", None) != "c"
        data = getattr(data, "base", None)
    return False


def _state_of_files(places: list[str]) -> Iterator[str]:
    """Name, size and time of each file that a stack is read from."""
    for number, place in enumerate(places):
        if not os.path.isdir(place):
            yield _state(f"{number}", place)
        for folder, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                yield _state(f"{number}/{os.path.relpath(path, place)}", path)


def _state(name: str, path: str) -> str:
    status = os.stat(path)
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"


def _windows(stack: FocusStack) -> Iterator[bytes]:
    for t in evenly_spread(stack.n_times, 3):
        for z in evenly_spread(stack.n_slices, 5):
            # Along the diagonal: the corners of an image are often black.
            for y, x in zip(
                evenly_spread(max(stack.height - SIDE, 1), 5),
                evenly_spread(max(stack.width - SIDE, 1), 5),
                strict=False,
            ):
                rows, columns = slice(y, y + SIDE), slice(x, x + SIDE)
                yield from _bytes(stack, t, slice(z, z + 1), rows, columns)


def _all_pixels(stack: FocusStack) -> Iterator[bytes]:
    # Whole chunks, so that each is read once, and not many more than so many bytes.
    tall, wide = (
        max(BLOCK // side, 1) * side for side in stack.chunk_yx or (BLOCK,) * 2
    )
    plane = tall * wide * stack.n_components * stack.dtype.itemsize
    deep = max(BYTES_AT_ONCE // plane, 1)
    for t in range(stack.n_times):
        for tile in TilePlan(stack.height, stack.width, (tall, wide)):
            for z in range(0, stack.n_slices, deep):
                slices = slice(z, min(z + deep, stack.n_slices))
                yield from _bytes(stack, t, slices, tile.y, tile.x)


def _bytes(
    stack: FocusStack, t: int, z: slice, rows: slice, columns: slice
) -> Iterator[bytes]:
    values, present = stack.read_present(t, z, rows, columns)
    yield values.tobytes()
    if present is not None:
        yield np.packbits(present).tobytes()
