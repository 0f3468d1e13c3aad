"""The surface of a specimen, as a map of places along Z: of a result, array or file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.decision import as_decision
from napari_focus_fusion.engine.plan import check_reference
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import take
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import file_path, shown
from napari_focus_fusion.read.own_results import provenance_in
from napari_focus_fusion.result import FusionResult, result_files
from napari_focus_fusion.write.places import places_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack


@dataclass(frozen=True, slots=True)
class SurfaceMap:
    """Where the surface passes, read by region.

    Attributes
    ----------
    values
        Numbers of the axes ``stack.map_axes``, or (Y, X) for all time points.
    step
        How much of `values` is one slice.
    confidence
        Of the same shape, from 0 to 1; None: all count the same.
    provenance
        Where it comes from.
    inputs
        Files and folders that are read.
    """

    values: Any
    step: float
    confidence: Any = None
    provenance: dict[str, Any] = field(default_factory=dict)
    inputs: frozenset[str] = frozenset()

    def places(self, t: int, y: slice, x: slice) -> NDArray[np.float64]:
        """Slices (h, w), counted from 0, finer than one; NaN where there is none."""
        places = _region(self.values, t, y, x) / self.step
        places[~np.isfinite(places)] = np.nan
        return places

    def weights(self, t: int, y: slice, x: slice) -> NDArray[np.float64]:
        """How sure the surface is, (h, w) from 0 to 1; 0 where there is none."""
        known = np.isfinite(_region(self.values, t, y, x))
        if self.confidence is None:
            return known.astype(np.float64)
        weights = np.nan_to_num(_region(self.confidence, t, y, x))
        return np.where(known, weights.clip(0, 1), 0)


def surface_of(
    surface: Any, stack: FocusStack, *, confidence: Any = None
) -> SurfaceMap:
    """Take a result, a map, or the file of one, for the surface in a stack.

    Parameters
    ----------
    surface
        A FusionResult of the same slices, of which the depth is taken. An array
        (Y, X) or (T, Y, X), or the path of one: whole numbers are slices counted from
        0, as of a decision map; floating point numbers are heights in the unit of the
        stack's Z axis, as of a depth map, NaN where there is none. Or what
        ``FusionResult.save`` wrote, of which the depth is taken.
    stack
        What it lies in.
    confidence
        A map of the same pixels; None: that of the result, if there is one.

    Raises
    ------
    FocusFusionError
        If it is none of these, or of another size.
    """
    if isinstance(surface, FusionResult):
        check_reference(stack, surface.stack)
        found = SurfaceMap(
            _fitted(surface.depth, stack, "depth"),
            surface.stack.pixel_size("Z"),
            surface.confidence,
            dict(surface.provenance),
            surface.inputs | places_of(surface.stack, surface.depth),
        )
    elif isinstance(surface, str | os.PathLike):
        found = _of_file(file_path("surface", surface), stack)
    else:
        found = _of_array(surface, stack)
    if confidence is None:
        confidence = found.confidence
    return SurfaceMap(
        found.values,
        found.step,
        None if confidence is None else _fitted(confidence, stack, "confidence"),
        found.provenance,
        found.inputs,
    )


def _of_file(path: Path, stack: FocusStack) -> SurfaceMap:
    """The depth of a result that is saved, or the map that the file holds."""
    maps = _maps_beside(path)
    depth, confidence = (maps.get(name) for name in ("depth", "confidence"))
    place = path if depth is None else depth
    found = _of_array(as_stack(place).data, stack)
    provenance: dict[str, Any] = {"file": str(place)}
    registration = provenance_in(str(path)).get("registration")
    if registration:
        provenance["registration"] = registration
    return SurfaceMap(
        found.values,
        found.step,
        None if confidence is None else as_stack(confidence).data,
        provenance,
        places_of(path, *maps.values()),
    )


def _maps_beside(path: Path) -> dict[str, Path]:
    """The maps that were saved with a fused image, by name; none of other files."""
    names = ("decision", "confidence", "depth")
    if path.suffix.lower() == ".zarr":
        places = {name: path / name for name in names}
    else:
        places = dict(zip(names, result_files(path)[1:], strict=True))
    return {name: place for name, place in places.items() if os.path.exists(place)}


def _of_array(values: Any, stack: FocusStack) -> SurfaceMap:
    if not hasattr(values, "shape") or not hasattr(values, "dtype"):
        try:
            values = np.asarray(values)
        except (TypeError, ValueError) as error:
            raise FocusFusionError(
                f"surface={shown(values)} is no result of a fusion, no map and no path."
            ) from error
    kind = np.dtype(values.dtype).kind
    if kind not in "iuf":
        raise FocusFusionError(
            f"surface={shown(values)} holds no numbers. Give a result, a depth map in "
            "the unit of Z, or a map of slices counted from 0."
        )
    step = stack.pixel_size("Z")
    if kind in "iu":
        step = 1.0
        if not np.ma.is_masked(values):
            values = as_decision(values, stack, first=0)
    values = _fitted(values, stack, "surface")
    provenance = {"map": "given as an array"}
    if isinstance(values, np.ndarray):
        provenance["sha256"] = hashlib.sha256(values.tobytes()).hexdigest()
    return SurfaceMap(values, step, None, provenance, places_of(values))


def _fitted(values: Any, stack: FocusStack, name: str) -> Any:
    """A map of the pixels of a stack, without further axes of length 1."""
    plane = (stack.height, stack.width)
    shape = tuple(getattr(values, "shape", ()))
    if shape in (stack.map_shape, plane):
        return values
    without = tuple(n for n in shape if n != 1)
    for wanted in (stack.map_shape, plane):
        if shape and without == tuple(n for n in wanted if n != 1):
            return take(values, (slice(None),) * len(shape)).reshape(wanted)
    raise FocusFusionError(
        f"{name}={shown(values)} is no map of {stack.name!r}, which has {plane[0]} x "
        f"{plane[1]} pixels"
        + (f" at {stack.n_times} time points" if stack.n_times > 1 else "")
        + ". It must be a map of the same pixels."
    )


def _region(values: Any, t: int, y: slice, x: slice) -> NDArray[np.float64]:
    """Rows and columns of a time point; masked pixels are NaN."""
    key = (slice(t, t + 1), y, x) if len(values.shape) == 3 else (y, x)
    region = take(values, key)
    numbers = np.ma.filled(region.astype(np.float64), np.nan)
    return np.asarray(numbers).reshape(numbers.shape[-2:])
