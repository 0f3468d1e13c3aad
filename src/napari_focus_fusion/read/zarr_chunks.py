"""Chunks of a Zarr array that were never written, and are read as its fill value."""

from __future__ import annotations

import os
from itertools import product
from math import ceil, prod
from typing import Any

# Each chunk is a file that is asked for; of more, the first of each plane is.
_MAX_CHUNKS = 200_000


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
    shape = tuple(array.shape)
    stored = getattr(array, "shards", None) or array.chunks
    counts = [ceil(n / c) for n, c in zip(shape, stored, strict=True)]
    lead = max(len(counts) - 2, 0)
    within = (
        counts[lead:] if prod(counts) <= _MAX_CHUNKS else [1] * (len(counts) - lead)
    )
    if prod(counts[:lead]) * prod(within) > _MAX_CHUNKS:
        return ()
    missing: dict[tuple[int, ...], int] = {}
    for place in product(*map(range, counts[:lead])):
        for rest in product(*map(range, within)):
            key = array.metadata.encode_chunk_key((*place, *rest))
            if not os.path.exists(os.path.join(folder, key)):
                missing[place] = missing.get(place, 0) + 1
    if not missing:
        return ()
    total = prod(counts[:lead]) * prod(within)
    letters = (axes or "").upper()
    whole = [place for place, count in missing.items() if count == prod(within)]
    where = ""
    if whole and len(letters) == len(shape) and "Z" in letters[:lead]:
        z = letters.index("Z")
        slices = sorted(
            {
                index
                for place in whole
                for index in range(
                    place[z] * stored[z], min((place[z] + 1) * stored[z], shape[z])
                )
            }
        )
        listed = ", ".join(map(str, slices[:10])) + (
            ", ..." if len(slices) > 10 else ""
        )
        where = f" Among them are whole planes of the slices {listed} (from 0)."
    return (
        f"{sum(missing.values())} of {total} chunks of the Zarr are not there and are "
        f"read as {array.fill_value}: either they hold nothing else, or the recording "
        f"or a copy stopped early.{where}",
    )
