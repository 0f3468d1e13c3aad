"""The files and folders that an array is read from, whatever object it came as."""

from __future__ import annotations

import functools
import os
import types
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")
_LOCAL = ("file", "local")
# The longest path of the usual systems; longer text is something else.
_LONGEST = 4096
# Objects of these packages hold a process together, not an array.
_FOREIGN = ("asyncio", "concurrent", "distributed", "logging", "threading", "torch")


def places_of(*sources: Any) -> frozenset[str]:
    """Existing files and folders that some sources are read from.

    Parameters
    ----------
    sources
        Arrays of any kind (memory-mapped, Zarr, dask, HDF5, our own), stacks, paths
        and ``file://`` addresses, or collections of them.

    Returns
    -------
    frozenset of str
        Absolute, without symbolic links. Text that only happens to be the name of
        something that exists is among them.
    """
    found: set[str] = set()
    seen: dict[int, Any] = {}  # keeps what it has seen, so that no id is used again
    left = list(sources)
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, str | os.PathLike):
            found |= set(_existing(os.fspath(thing)))
        elif isinstance(getattr(thing, "path", None), str) and hasattr(thing, "store"):
            for root in places_of(thing.store):
                found |= set(_existing(os.path.join(root, thing.path))) or {root}
        else:
            left += _parts_of(thing)
    return frozenset(found)


def zarr_around(path: str) -> str | None:
    """The outermost Zarr folder that a path is or lies in; None where there is none."""
    here = Path(path)
    around = [str(p) for p in (here, *here.parents) if looks_like_zarr(p)]
    return around[-1] if around else None


def looks_like_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((folder / name).exists() for name in ZARR_MARKS)


def _existing(text: str | bytes) -> Iterator[str]:
    text = os.fsdecode(text)
    if not text or len(text) > _LONGEST:
        return
    candidates = [text]
    for part in text.split("::"):  # fsspec chains addresses
        scheme, separator, rest = part.partition("://")
        if separator and scheme in _LOCAL:
            candidates += [rest, unquote(rest)]
    for candidate in filter(os.path.exists, candidates):
        place = os.path.realpath(candidate)
        if place != os.path.dirname(place):
            yield place


def _parts_of(thing: Any) -> Iterable[Any]:
    """What an object is made of, as far as it may name the place of an array."""
    if isinstance(thing, np.ndarray):
        return [getattr(thing, "filename", None), thing.base]
    if hasattr(thing, "dask"):
        return [thing.dask]
    layers = getattr(thing, "layers", None)
    if isinstance(layers, Mapping):  # a graph of dask's
        return list(layers.values())
    if isinstance(thing, Mapping):
        # A layer of a graph makes its tasks only when asked for them.
        made = getattr(thing, "is_materialized", lambda: True)()
        return list(thing.values()) if made else _attributes_of(thing)
    if isinstance(thing, list | tuple | Set):
        return list(thing)
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        return [thing.__self__]
    if isinstance(thing, types.FunctionType):
        cells = thing.__closure__ or ()
        return [*(thing.__defaults__ or ()), *(_content_of(cell) for cell in cells)]
    if hasattr(getattr(thing, "file", None), "filename"):  # HDF5
        return [thing.file.filename]
    return _attributes_of(thing)


def _content_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _attributes_of(thing: Any) -> list[Any]:
    package = type(thing).__module__.partition(".")[0]
    if isinstance(thing, type | types.ModuleType) or package in _FOREIGN:
        return []
    slots = [
        name
        for kind in type(thing).__mro__
        for name in _names(kind.__dict__.get("__slots__", ()))
    ]
    values = list(getattr(thing, "__dict__", {}).values())
    return values + [getattr(thing, name, None) for name in slots]


def _names(slots: Any) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
