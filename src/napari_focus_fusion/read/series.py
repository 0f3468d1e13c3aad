"""Images of a file that holds several: their names, and the choice of one."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import shown, whole_number
from napari_focus_fusion.read.names import stem

if TYPE_CHECKING:
    from collections.abc import Sequence


def names_of_series(names: Sequence[str]) -> list[str]:
    """Names that tell images apart: the number where a name is missing or not alone."""
    count = Counter(names)
    return [
        name if name and count[name] == 1 and not name.isdigit() else str(i)
        for i, name in enumerate(names)
    ]


def name_of_series(path: str, name: str) -> str:
    """What one of several images of a file is called, also in names of files."""
    safe = re.sub(r"[^\w.+-]+", "_", name).strip("_")
    return safe if safe.startswith(stem(path)) else f"{stem(path)}_{safe}"


def checked_series(series: Any) -> int | str | None:
    """The choice of an image by its number or name; None: none was made.

    Raises
    ------
    FocusFusionError
        If it is none of these.
    """
    if series is None or isinstance(series, str):
        return series
    try:
        return whole_number("series", series, least=0)
    except FocusFusionError as error:
        raise FocusFusionError(
            f"series={shown(series)} is no image of a file: give its number from 0, or "
            "its name."
        ) from error


def index_of_series(names: Sequence[str], series: int | str, path: str) -> int:
    """Index of an image that is given by its name or number.

    Raises
    ------
    FocusFusionError
        If there is no such image.
    """
    if isinstance(series, str) and series in names:
        return list(names).index(series)
    if isinstance(series, int) or series.isdigit():
        if 0 <= int(series) < len(names):
            return int(series)
    known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    raise FocusFusionError(
        f"{path!r} has no image {series}; it has {len(names)}, counted from 0: {known}."
    )
