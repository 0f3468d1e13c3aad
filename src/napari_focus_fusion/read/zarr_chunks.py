"""Chunks of a Zarr array that were never written, and are read as its fill value."""

from __future__ import annotations

import os
import struct
from collections import Counter
from itertools import product
from math import ceil, prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Each chunk is a file that is asked for; of more, the first of each plane is.
_MAX_CHUNKS = 200_000
# The index of a shard: where each chunk is and how long, and a checksum.
_NOT_THERE = 2**64 - 1
_CHECKSUM_BYTES = 4


def notes_on_chunks(array: Any, axes: str | None) -> tuple[str, ...]:
    """A note where chunks of an array on a local disk were never written.

    Not an error: programs leave out chunks that are all zero, too.

    Parameters
    ----------
    array
        ``zarr.Array``.
    axes
        One letter a dimension; None if unknown.
    """
    root = getattr(getattr(array, "store", None), "root", None)
    if root is None or not os.path.isdir(root):
        return ()
    folder = os.path.join(root, array.path)
    shape, chunks = tuple(array.shape), tuple(array.chunks)
    stored = getattr(array, "shards", None) or chunks
    lead = max(len(shape) - 2, 0)
    counts = [ceil(n / c) for n, c in zip(shape, stored, strict=True)]
    if prod(counts) > _MAX_CHUNKS:
        counts[lead:] = [1] * len(counts[lead:])
    if prod(counts) > _MAX_CHUNKS:
        return ()
    missing: Counter[tuple[int, ...]] = Counter()
    there: set[tuple[int, ...]] = set()
    total = 0
    for place in product(*map(range, counts)):
        file = os.path.join(folder, array.metadata.encode_chunk_key(place))
        corner = [i * c for i, c in zip(place, stored, strict=True)]
        for inner, written in _chunks_in(file, corner, shape, chunks, stored):
            total += 1
            if written:
                there.add(inner[:lead])
            else:
                missing[inner[:lead]] += 1
    if not missing:
        return ()
    whole = sorted(place for place in missing if place not in there)
    return (
        f"{missing.total()} of {total} chunks of the Zarr are not there and are read "
        f"as {array.fill_value}: either they hold nothing else, or the recording or a "
        f"copy stopped early.{_slices_of(whole, (axes or '').upper(), shape, chunks)}",
    )


def _chunks_in(
    file: str,
    corner: Sequence[int],
    shape: Sequence[int],
    chunks: Sequence[int],
    stored: Sequence[int],
) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Index of each chunk in a file, a chunk itself or a shard; whether it is there."""
    grid = [s // c for s, c in zip(stored, chunks, strict=True)]
    written = [os.path.exists(file)] * prod(grid)
    if prod(grid) > 1 and written[0]:
        written = _written_in_shard(file, prod(grid))
    first = [i // c for i, c in zip(corner, chunks, strict=True)]
    for place, is_there in zip(product(*map(range, grid)), written, strict=True):
        index = tuple(i + j for i, j in zip(first, place, strict=True))
        if all(i * c < n for i, c, n in zip(index, chunks, shape, strict=True)):
            yield index, is_there


def _written_in_shard(file: str, count: int) -> list[bool]:
    """Which chunks of a shard are there, by the index at its end."""
    size = 16 * count + _CHECKSUM_BYTES
    with open(file, "rb") as opened:
        if opened.seek(0, os.SEEK_END) < size:
            return [True] * count  # another kind of index
        opened.seek(-size, os.SEEK_END)
        words = struct.unpack(f"<{2 * count}Q", opened.read(16 * count))
    return [word != _NOT_THERE for word in words[::2]]


def _slices_of(
    places: Sequence[tuple[int, ...]],
    letters: str,
    shape: Sequence[int],
    chunks: Sequence[int],
) -> str:
    """A sentence on the slices of which whole planes are missing."""
    z = letters.find("Z")
    if not places or len(letters) != len(shape) or not 0 <= z < len(shape) - 2:
        return ""
    starts = {place[z] * chunks[z] for place in places}
    slices = sorted(
        i for start in starts for i in range(start, min(start + chunks[z], shape[z]))
    )
    listed = ", ".join(map(str, slices[:10])) + (", ..." if len(slices) > 10 else "")
    return f" Among them are whole planes of the slices {listed} (from 0)."
