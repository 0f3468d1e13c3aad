"""Pixel sizes in TIFF files, wherever the program that wrote them left them."""

from __future__ import annotations

import functools
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.axes import unit_name
from napari_focus_fusion.read.sizes import (
    Sizes,
    agreed_sizes,
    is_for_print,
    positive,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from napari_focus_fusion.read.sizes import Stated

_MICROMETER = "micrometer"
_LARGEST_METADATA_FILE = 64 * 2**20


def tiff_sizes(
    tiff: Any, path: str, axes: str | None = None, ome_pixels: Element | None = None
) -> Sizes:
    """Pixel sizes by OME, makers, Micro-Manager, ImageJ, or the resolution tags.

    Parameters
    ----------
    tiff
        ``tifffile.TiffFile``.
    path
        Of the file: Micro-Manager keeps metadata beside it.
    axes
        Of the image; wrong sizes along others are not worth a note.
    ome_pixels
        Element ``Pixels`` of the image's OME metadata, if there are any.
    """
    statements = [ome_sizes(ome_pixels)] if ome_pixels is not None else []
    # Each keeps to its own: a number in an ImageJ comment is not in metres.
    if tiff.is_lsm:
        statements.append(_lsm(tiff.lsm_metadata or {}))
    if tiff.is_fluoview:
        statements.append(_fluoview(tiff.fluoview_metadata or {}))
    if tiff.is_metaseries:
        statements.append(_metaseries(tiff.metaseries_metadata or {}))
    if 33629 in tiff.pages[0].tags:
        statements.append(_stk(tiff.pages[0].tags))
    statements.append(_micro_manager(tiff, path))
    if tiff.is_imagej:
        statements.append(_imagej(tiff))
    statements.append(_resolution(tiff.pages[0].tags))
    return agreed_sizes(statements, axes)


def ome_sizes(pixels: Element) -> dict[str, Stated]:
    """What the element ``Pixels`` of OME metadata states."""
    return {
        axis: (pixels.get(key), unit_name(pixels.get(f"{key}Unit", default)))
        for axis, key, default in (
            *((axis, f"PhysicalSize{axis}", "µm") for axis in "ZYX"),
            ("T", "TimeIncrement", "s"),
        )
        if pixels.get(key) is not None
    }


def _lsm(metadata: dict[str, Any]) -> dict[str, Stated]:
    """Zeiss: in metres and seconds; an interval of 0 is none."""
    stated: dict[str, Stated] = {
        axis: (_micrometers(metadata.get(f"VoxelSize{axis}")), _MICROMETER)
        for axis in "ZYX"
    }
    if metadata.get("TimeIntervall"):  # as Zeiss spells it
        stated["T"] = (metadata["TimeIntervall"], "second")
    return stated


def _fluoview(metadata: dict[str, Any]) -> dict[str, Stated]:
    """Olympus: a name, size, origin, resolution and unit for each dimension."""
    stated: dict[str, Stated] = {}
    for name, count, _, resolution, unit in metadata.get("Dimensions", ()):
        axis = {"TIME": "T"}.get(str(name).upper(), str(name).upper())
        if axis in ("T", "Z", "Y", "X") and count > 1 and unit:
            # A stage that moves down has negative steps.
            stated[axis] = (
                abs(resolution) if axis == "Z" else resolution,
                unit_name(unit),
            )
    return stated


def _micrometers(metres: Any) -> Any:
    size = positive(metres)
    # 0.2, not 0.19999999999999998
    return metres if size is None else float(f"{size * 1e6:.12g}")


def _metaseries(metadata: dict[str, Any]) -> dict[str, Stated]:
    """MetaXpress and MetaMorph: XML in the description of each plane."""
    plane = metadata.get("PlaneInfo", {})
    if str(plane.get("spatial-calibration-state")).lower() not in ("true", "1"):
        return {}
    unit = unit_name(plane.get("spatial-calibration-units"))
    return {
        axis: (plane[key], unit)
        for axis, key in (
            ("Y", "spatial-calibration-y"),
            ("X", "spatial-calibration-x"),
        )
        if key in plane and unit != "pixel"
    }


def _stk(tags: Any) -> dict[str, Stated]:
    """MetaMorph: calibrated or not, and a distance for each plane."""
    values: dict[str, Any] = {}
    for code in (33628, 33631, 33629):
        value = tags.valueof(code)
        values.update(value if isinstance(value, dict) else {})
    stated: dict[str, Stated] = {}
    unit = unit_name(str(values.get("CalibrationUnits", "")).strip("\0 "))
    if values.get("SpatialCalibration", 1) and unit != "pixel":
        for axis in "YX":
            if f"{axis}Calibration" in values:
                stated[axis] = (_number(values[f"{axis}Calibration"]), unit)
    step = _step(np.asarray(values.get("ZDistance", ()), float).ravel())
    if step is not None:
        stated["Z"] = (step, _MICROMETER if unit == "pixel" else unit)
    return stated


def _step(distances: np.ndarray) -> float | None:
    """Distance of two planes, of distances to the last one or to the first one."""
    if len(distances) < 2 or not np.isfinite(distances).all():
        return None
    later, differences = distances[1:], np.diff(distances)
    for steps in (later, differences):
        step = float(np.abs(steps).mean())
        if step > 0 and np.allclose(np.abs(steps), step, rtol=0.01):
            return step
    return None


def _number(value: Any) -> Any:
    """A fraction, which STK keeps as two numbers, as one."""
    if isinstance(value, tuple) and len(value) == 2:
        return value[0] / value[1] if value[1] else 0.0
    return value


def _micro_manager(tiff: Any, path: str) -> dict[str, Stated]:
    """In the file, in the tag of its first plane, or in ``metadata.txt`` beside it."""
    found: list[Any] = []
    if tiff.is_micromanager:
        tag = tiff.pages[0].tags.valueof(51123)
        found += [(tiff.micromanager_metadata or {}).get("Summary"), tag]
    beside = os.path.join(os.path.dirname(os.path.abspath(path)), "metadata.txt")
    if os.path.isfile(beside):
        found += _metadata_txt(beside, os.stat(beside).st_mtime_ns)
    names = {
        "X": ("PixelSize_um", "PixelSizeUm"),
        "Y": ("PixelSize_um", "PixelSizeUm"),
        "Z": ("z-step_um", "z-StepUm"),
    }
    stated: dict[str, Stated] = {}
    for axis, keys in names.items():
        values = [m[k] for m in found if isinstance(m, dict) for k in keys if k in m]
        good = [value for value in values if positive(value)]
        if values:
            stated[axis] = ((good or values)[0], _MICROMETER)
    # The stage may have moved down from slice to slice.
    if "Z" in stated and positive(stated["Z"][0]) is None:
        step = stated["Z"][0]
        if isinstance(step, int | float) and step < 0:
            stated["Z"] = (-step, _MICROMETER)
    return stated


@functools.lru_cache(maxsize=4)
def _metadata_txt(path: str, version: int) -> list[Any]:
    """Summary and first plane of Micro-Manager's ``metadata.txt``; empty if it is none.

    Of an acquisition that was stopped, the last bracket is missing.
    """
    if os.path.getsize(path) > _LARGEST_METADATA_FILE:
        return []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read().rstrip().rstrip(",")
    except OSError:
        return []
    for ending in ("", "}", "}}"):
        try:
            metadata = json.loads(text + ending)
        except ValueError:
            continue
        if not isinstance(metadata, dict) or "Summary" not in metadata:
            return []
        planes = (v for k, v in metadata.items() if k != "Summary")
        return [metadata["Summary"], next(planes, None)]
    return []


def _imagej(tiff: Any) -> dict[str, Stated]:
    metadata = tiff.imagej_metadata or {}
    unit = unit_name(metadata.get("unit", ""))
    stated: dict[str, Stated] = {}
    if unit != "pixel":
        for axis, tag in (("X", "XResolution"), ("Y", "YResolution")):
            pixels, length = _fraction(tiff.pages[0].tags, tag)
            if pixels and length:
                stated[axis] = (length / pixels, unit)
        if "spacing" in metadata:
            stated["Z"] = (metadata["spacing"], unit)
    if metadata.get("finterval"):
        stated["T"] = (metadata["finterval"], unit_name(metadata.get("tunit", "s")))
    return stated


def _resolution(tags: Any) -> dict[str, Stated]:
    """Resolution tags in cm or inch, unless it is that of a screen or printer."""
    unit = tags.valueof("ResolutionUnit", 1)
    micrometers = {2: 25_400.0, 3: 10_000.0}.get(int(unit))
    if micrometers is None:
        return {}
    stated: dict[str, Stated] = {}
    for axis, tag in (("Y", "YResolution"), ("X", "XResolution")):
        pixels, length = _fraction(tags, tag)
        if not (pixels and length):
            continue
        size = micrometers * length / pixels
        if not is_for_print(25_400 / size):
            stated[axis] = (float(f"{size:.9g}"), _MICROMETER)
    return stated


def _fraction(tags: Any, tag: str) -> tuple[int, int]:
    value = tags.valueof(tag, (0, 0))
    return value if isinstance(value, tuple) and len(value) == 2 else (0, 0)
