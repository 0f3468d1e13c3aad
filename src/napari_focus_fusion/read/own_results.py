"""Results of this program among other files."""

from __future__ import annotations

import os

from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.read.names import TIFF_SUFFIXES, ZARR_SUFFIX

SOFTWARE = "napari-focus-fusion"


def is_own_result(path: str) -> bool:
    """Whether a file or Zarr folder was written as the result of a fusion."""
    name = path.lower()
    if name.endswith(TIFF_SUFFIXES):
        return SOFTWARE in _description(path)
    if name.endswith(ZARR_SUFFIX):
        marks = (os.path.join(path, mark) for mark in ("zarr.json", ".zattrs"))
        return any(f'"{METADATA_KEY}"' in _text(mark) for mark in marks)
    return False


def _description(path: str) -> str:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return str(tiff.pages.first.description)
    except Exception:  # whatever is wrong is said when it is opened
        return ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
