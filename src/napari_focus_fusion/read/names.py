"""Names of files: what their endings mean, their order, and what a stack is called."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".stk")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
ZARR_SUFFIX = ".zarr"


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts]


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a file without folder and without ``.ome.tif`` and the like."""
    name = Path(path).name
    base = re.sub(r"(\.ome)?\.(tiff?|zarr|btf|tf[28])$", "", name, flags=re.IGNORECASE)
    return base if base != name else Path(path).stem


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
