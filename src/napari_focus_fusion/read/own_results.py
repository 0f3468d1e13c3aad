"""Results of this program among other files."""

from __future__ import annotations

import json
import os
from typing import Any

from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.read.image_files import description_of_picture
from napari_focus_fusion.read.names import IMAGE_SUFFIXES, TIFF_SUFFIXES, ZARR_SUFFIX

SOFTWARE = "napari-focus-fusion"


def is_own_result(path: str) -> bool:
    """Whether a file or Zarr folder was written as the result of a fusion."""
    name = path.lower()
    if name.endswith(TIFF_SUFFIXES):
        return SOFTWARE in _description(path)
    if name.endswith(ZARR_SUFFIX):
        marks = (os.path.join(path, mark) for mark in ("zarr.json", ".zattrs"))
        return any(f'"{METADATA_KEY}"' in _text(mark) for mark in marks)
    if name.endswith((".png", ".jpg", ".jpeg")):
        return SOFTWARE in _description_of_picture(path)
    return False


def provenance_in(path: str) -> dict[str, Any]:
    """Where a result came from, of any kind that is written; empty for other files."""
    name = path.lower()
    try:
        if name.endswith(ZARR_SUFFIX):
            attributes = json.loads(_text(os.path.join(path, "zarr.json")))
            known = attributes["attributes"][METADATA_KEY]["provenance"]
        elif name.endswith(IMAGE_SUFFIXES):
            known = json.loads(description_of_picture(path))
        else:
            known = json.loads(_ome_description(path))
    except (OSError, KeyError, TypeError, ValueError):  # damaged, or of another kind
        return {}
    return known if isinstance(known, dict) else {}


def _ome_description(path: str) -> str:
    import tifffile

    with tifffile.TiffFile(path) as file:
        xml = file.ome_metadata
    return str(tifffile.xml2dict(xml)["OME"]["Image"]["Description"] if xml else "")


def _description(path: str) -> str:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return str(tiff.pages.first.description)
    except Exception:  # whatever is wrong is said when it is opened
        return ""


def _description_of_picture(path: str) -> str:
    try:
        return description_of_picture(path)
    except Exception:  # whatever is wrong is said when it is opened
        return ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
