"""Names of files: what their endings mean, their order, and what a stack is called."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".stk")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp"),
    *(".jp2", ".j2k", ".jpx", ".webp", ".gif"),
)
#: Of those, the ones that may hold several slices.
MANY_SLICES_SUFFIXES = (".png", ".webp", ".gif")
ZARR_SUFFIX = ".zarr"
ZIPPED_ZARR_SUFFIXES = (".ozx", ".zarr.zip")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts]


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a file without folder and without ``.ome.tif`` and the like.

    What lies inside a Zarr is called after both: ``plate.zarr/A/1/0`` is plate_A_1_0.
    """
    name = Path(path).name
    pattern = r"(\.ome)?\.(tiff?|zarr(\.zip)?|ozx|btf|tf[28])$"
    base = re.sub(pattern, "", name, flags=re.IGNORECASE)
    if base != name:
        return base
    for parent in Path(path).parents:
        if parent.name.lower().endswith((".zarr", *ZIPPED_ZARR_SUFFIXES)):
            return "_".join((stem(parent), *Path(path).relative_to(parent).parts))
    return Path(path).stem


def matches(pattern: str) -> list[str]:
    """What a glob pattern stands for, in natural order.

    Brackets in the names of folders and files that are there are no choice of
    characters: ``data [1]/*.tif`` are the files in the folder ``data [1]``.
    """
    path = Path(pattern)
    folder = next((one for one in path.parents if one.is_dir()), Path())
    rest = str(path.relative_to(folder)) if folder != Path() else pattern
    found = glob.glob(rest, root_dir=folder, recursive=True)
    if not found:
        found = glob.glob(rest.replace("[", "[[]"), root_dir=folder, recursive=True)
    return sorted((str(folder / name) for name in found), key=natural_key)


def name_of_slices(paths: Sequence[str]) -> str:
    """Name a stack after what the names of its files share, else their folder."""
    names = [Path(path).name for path in paths]
    common = os.path.commonprefix(names)  # noqa: RUF071 (characters are what we want)
    name = re.sub(r"[-+]?[\d.]*$", "", common).rstrip(" -_.([{")
    name = re.sub(r"[ _.-]+(z|zs|slice|ch?|t|w)$", "", name, flags=re.IGNORECASE)
    says_nothing = len(name) < 3 or re.fullmatch(r"img(_\d+)?", name)
    return (
        name if not says_nothing else (Path(paths[0]).absolute().parent.name or "stack")
    )


def pattern_of(chosen: Sequence[str], files: Sequence[str]) -> str:
    """A glob pattern of some of the files alone; empty if there is no simple one."""
    first = re.split(r"(\d+|[^\W\d_]+)", glob.escape(chosen[0]))
    pattern = os.path.commonprefix([glob.escape(f) for f in chosen]) + "*"  # noqa: RUF071
    rest = [re.split(r"(\d+|[^\W\d_]+)", glob.escape(file)) for file in chosen[1:]]
    if all(len(parts) == len(first) for parts in rest):
        parts = [
            part if all(other[i] == part for other in rest) else "*"
            for i, part in enumerate(first)
        ]
        pattern = re.sub(r"\*+", "*", "".join(parts))
    matched = sum(fnmatch.fnmatchcase(file, pattern) for file in files)
    return pattern if matched == len(chosen) else ""
