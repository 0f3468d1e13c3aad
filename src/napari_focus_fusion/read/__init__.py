"""Files in and out, without napari: TIFF, OME-Zarr, PNG and JPEG."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.stack import FocusStack

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".stk")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def open_path(
    path: str, *, axes: str | None = None, series: int | None = None
) -> FocusStack:
    """Open a file, folder, glob pattern or Zarr address as a FocusStack, lazily.

    Raises
    ------
    FocusFusionError
        If nothing is there, the format is not read here, or the file is damaged.
    """
    if "://" in path:
        from napari_focus_fusion.read.ome_zarr import open_zarr

        return open_zarr(path, axes=axes, series=series)
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        if any(os.path.exists(os.path.join(path, mark)) for mark in _ZARR_MARKS):
            from napari_focus_fusion.read.ome_zarr import open_zarr

            return open_zarr(path, axes=axes, series=series)
        return open_files(_pictures_in(path), axes=axes)
    if not os.path.exists(path):
        found = sorted(glob.glob(path), key=natural_key)
        if not found:
            raise FocusFusionError(
                f"There is no file or folder {path!r}. Check the path; in a pattern, "
                "* stands for any characters."
            )
        return open_files(found, axes=axes)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in TIFF_SUFFIXES:
        from napari_focus_fusion.read.tiff import open_tiff

        return open_tiff(path, axes=axes, series=series)
    if suffix in PICTURE_SUFFIXES:
        from napari_focus_fusion.read.pictures import open_picture

        return open_picture(path, axes=axes)
    raise FocusFusionError(
        f"{path!r}: files of type {suffix or '(no ending)'} are not read here. Export "
        "it as OME-TIFF or OME-Zarr, or open it in napari with the plugin for your "
        "microscope and fuse the layer."
    )


def open_files(paths: Sequence[str], *, axes: str | None = None) -> FocusStack:
    """Open files of one slice each as one stack, in the order given, lazily.

    Raises
    ------
    FocusFusionError
        Naming the file that cannot be read or does not fit the others.
    """
    from dataclasses import replace

    from napari_focus_fusion.opening import stack_of_slices

    if len(paths) == 1:
        return open_path(paths[0], axes=axes)
    slices = [replace(open_path(path), name=Path(path).name) for path in paths]
    return stack_of_slices(
        slices, axes=axes, name=name_of_slices(paths), source=", ".join(paths)
    )


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``a2`` before ``a10``."""
    parts = re.split(r"(\d+)", text)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts]


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a file without folder and without ``.ome.tif`` and the like."""
    name = Path(path).name
    base = re.sub(r"(\.ome)?\.(tiff?|zarr|btf|tf[28])$", "", name, flags=re.IGNORECASE)
    return base if base != name else Path(path).stem


def _pictures_in(folder: str) -> list[str]:
    names = sorted(os.listdir(folder), key=natural_key)
    suffixes = TIFF_SUFFIXES + PICTURE_SUFFIXES
    found = [
        os.path.join(folder, name)
        for name in names
        if name.lower().endswith(suffixes) and not name.startswith(".")
    ]
    if not found:
        raise FocusFusionError(
            f"The folder {folder!r} is not an OME-Zarr and holds no pictures "
            f"({', '.join(suffixes)})."
        )
    return found


def name_of_slices(paths: Sequence[str]) -> str:
    """Name a stack after what the names of its files share, else their folder."""
    names = [Path(path).name for path in paths]
    common = os.path.commonprefix(names)  # noqa: RUF071 (characters are what we want)
    name = re.sub(r"\d+$", "", common).rstrip(" -_.")
    return name if len(name) > 2 else (Path(paths[0]).absolute().parent.name or "stack")


_common_name = name_of_slices  # until callers know its new name
