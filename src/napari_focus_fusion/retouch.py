"""Correcting a decision map by hand, with the fused image following what changes.

    decision, fused = result.decision.copy(), result.fused.copy()
    area = take_slice(decision, mask, 7)
    recompose(stack, decision, fused, area)

Afterwards ``fused`` is, where it changed, what ``fuse(stack, decision=decision)`` gives
there; only the slices around the area have been read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from napari_focus_fusion.composite import ALIKE_RADIUS, COMPOSITE_HALO, GUIDE_RADIUS
from napari_focus_fusion.decision import Maps
from napari_focus_fusion.engine.finishing import finish_region
from napari_focus_fusion.engine.preparing import prepare
from napari_focus_fusion.engine.reading import Reference
from napari_focus_fusion.engine.work import SWEEP, Work
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from napari_focus_fusion.composite import Blend
    from napari_focus_fusion.stack import FocusStack

#: Pixels around a changed label whose fused value it has a say in.
REACH = max(2 * GUIDE_RADIUS, ALIKE_RADIUS)


class Area(NamedTuple):
    """A rectangle of the plane, in pixels.

    Attributes
    ----------
    y, x
        Rows and columns, each ``slice(start, stop)``.
    """

    y: slice
    x: slice


def as_decision(
    values: ArrayLike, stack: FocusStack, *, first: int | None = None
) -> NDArray[np.uint16]:
    """Take a map of slices, made by whatever program, for a decision map of a stack.

    Parameters
    ----------
    values
        Whole numbers, of any type, at each pixel of (Y, X) or (T, Y, X); further axes
        of length 1 do not matter. One plane serves all time points.
    stack
        What it shall decide for.
    first
        How the map calls the first slice, 0 or 1; None: 1 if it goes up to the number
        of slices, which no map that counts from 0 does, else 0.

    Returns
    -------
    ndarray
        uint16, axes ``stack.map_axes``, slices counted from 0; an array of its own.

    Raises
    ------
    FocusFusionError
        If it is of another size, holds fractions, or names slices that do not exist.
    """
    given = np.asarray(values)
    plane = (stack.height, stack.width)
    shape = tuple(n for n in given.shape if n != 1)
    whole = tuple(n for n in stack.map_shape if n != 1)
    if shape not in (whole, tuple(n for n in plane if n != 1)):
        raise FocusFusionError(
            f"The map has the shape {given.shape}, and {stack.name!r} is "
            f"{plane[0]} x {plane[1]} pixels. It must be a map of the same pixels."
        )
    if given.dtype.kind not in "iuf" or (
        given.dtype.kind == "f" and not (given == np.rint(given)).all()
    ):
        raise FocusFusionError(
            f"The map holds {given.dtype} numbers that are no indices of slices. "
            "Choose a map of whole numbers."
        )
    lowest, highest = int(given.min()), int(given.max())
    if first is None:
        first = 1 if highest == stack.n_slices else 0
    if lowest < first or highest >= first + stack.n_slices:
        raise FocusFusionError(
            f"The map names slices {lowest} to {highest}, and {stack.name!r} has "
            f"slices {first} to {first + stack.n_slices - 1}, counted from {first}. "
            "Choose its own map, or say from which number the map counts."
        )
    planes = given.reshape(stack.map_shape if shape == whole else plane)
    decision = np.empty(stack.map_shape, np.uint16)
    decision[...] = planes - first if first else planes
    return decision


def take_slice(
    decision: NDArray[Any], mask: ArrayLike, z: int, *, t: int = 0
) -> Area | None:
    """Take the pixels of an area from one slice.

    Parameters
    ----------
    decision
        Decision map (Y, X) or (T, Y, X), slices counted from 0; changed in place.
    mask
        bool (Y, X), the area.
    z
        Slice, from 0.
    t
        Time point.

    Returns
    -------
    Area or None
        What holds all that changed, for :func:`recompose`; None if nothing did.

    Raises
    ------
    FocusFusionError
        If mask and map differ in size.
    """
    plane = decision[t] if decision.ndim == 3 else decision
    area = np.asarray(mask, bool)
    if area.shape != plane.shape:
        raise FocusFusionError(
            f"The area is drawn on {area.shape} pixels, and the decision map has "
            f"{plane.shape}. They must be the same."
        )
    changed = area & (plane != z)
    plane[changed] = z
    return bounds(changed)


def bounds(mask: NDArray[np.bool_]) -> Area | None:
    """The smallest rectangle that holds all that is true; None if nothing is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return Area(
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )


def intensities(
    stack: FocusStack, *, t: int = 0, reference: int | str | None = None
) -> tuple[float, float]:
    """Intensities that :func:`recompose` takes for 0 and 1; the sample of ``fuse``.

    Of 8 and 16 bits nothing is read; of other types a few windows of each slice are.
    """
    work = _work(stack, reference, "feather")
    prepare(work, t)
    return work.reference.black, work.reference.white


def recompose(
    stack: FocusStack,
    decision: NDArray[Any],
    fused: Any,
    area: Area,
    *,
    t: int = 0,
    reference: int | str | None = None,
    blend: Blend = "feather",
    black_and_white: tuple[float, float] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Area:
    """Make a fused image follow its decision map where that has changed.

    Parameters
    ----------
    stack
        Of any kind of array; of each slice the area and
        :data:`~napari_focus_fusion.composite.COMPOSITE_HALO` pixels around it are read.
    decision
        (Y, X) or (T, Y, X), slices counted from 0.
    fused
        Axes ``stack.fused_axes``; numpy, or Zarr that can be written. Changed in place.
    area
        Holds every pixel of `decision` that has changed.
    t
        Time point.
    reference, blend
        As for :func:`napari_focus_fusion.fuse`.
    black_and_white
        What :func:`intensities` gave, so that it is not looked for again; needed only
        for pixels of more than 16 bits.
    should_stop
        Asked between blocks; when it returns True, what is left stays as it was.

    Returns
    -------
    Area
        What was written: the area and :data:`REACH` pixels around it.

    Raises
    ------
    FocusFusionError
        If the slices cannot be read.
    Cancelled
        If `should_stop` said so.
    """
    work = _work(stack, reference, blend)
    work.should_stop = should_stop
    if black_and_white is None:
        prepare(work, t)
    else:
        black, white = black_and_white
        work.reference = replace(work.reference, t=t, black=black, white=white)
    plane = decision[t] if "T" in stack.axes and decision.ndim == 3 else decision
    whole = _grown(area, REACH, stack)
    places: dict[str, Any] = {"T": t}
    to_axes = f"csyx->{stack.fused_axes.replace('T', '').lower()}"
    blocks = TilePlan(
        whole.y.stop - whole.y.start, whole.x.stop - whole.x.start, (SWEEP, SWEEP)
    )
    with torch.inference_mode():
        for block in blocks:
            region = Tile(
                block.y0 + whole.y.start,
                block.y1 + whole.y.start,
                block.x0 + whole.x.start,
                block.x1 + whole.x.start,
            )
            rim = _grown(Area(region.y, region.x), COMPOSITE_HALO, stack)
            labels = np.ascontiguousarray(plane[rim])
            raw = Maps(labels, labels, labels)  # nothing here looks at the other two
            around = Tile(rim.y.start, rim.y.stop, rim.x.start, rim.x.stop)
            pixels, _ = finish_region(work, region, raw, around)
            shape = (stack.n_channels, stack.n_samples, *pixels.shape[1:])
            places |= {"Y": region.y, "X": region.x}
            key = tuple(places.get(axis, slice(None)) for axis in stack.fused_axes)
            fused[key] = np.einsum(to_axes, pixels.reshape(shape))
    return whole


def _work(stack: FocusStack, reference: int | str | None, blend: Blend) -> Work:
    """What ``fuse(stack, decision=map)`` works with."""
    weights = tuple(float(w) for w in stack.reference_weights(reference))
    return Work(
        reference=Reference(stack, 0, weights),
        model=SumModifiedLaplacian(),
        halo=0,
        context=None,
        device=torch.device("cpu"),
        tile=SWEEP,
        blend=blend,
        verified=False,
    )


def _grown(area: Area, by: int, stack: FocusStack) -> Area:
    return Area(
        slice(max(area.y.start - by, 0), min(area.y.stop + by, stack.height)),
        slice(max(area.x.start - by, 0), min(area.x.stop + by, stack.width)),
    )


def save_decision(
    path: str | Path,
    decision: NDArray[Any],
    stack: FocusStack,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a decision map as OME-TIFF, with the stack's pixel sizes.

    Parameters
    ----------
    path
        Ends in ``.ome.tif``, ``.ome.tiff``, ``.tif`` or ``.tiff``.
    decision
        Axes ``stack.map_axes``, slices counted from 0.
    stack
        What it decides for.
    overwrite
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FocusFusionError
        If the name has another ending, is taken, or the file cannot be written.
    """
    from pathlib import Path

    from napari_focus_fusion.write.saving import check_targets, written_whole
    from napari_focus_fusion.write.tiff import write_ome_tiff

    target = Path(path).expanduser()
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise FocusFusionError(
            f"{str(target)!r}: decision maps are saved as .ome.tif. Choose a name with "
            "this ending."
        )
    check_targets([target], overwrite=overwrite, source=stack.source)
    with written_whole([target], overwrite=overwrite) as (part,):
        write_ome_tiff(
            part,
            np.asarray(decision, np.uint16),
            stack.map_axes,
            name=f"{stack.name} decision",
            pixel_sizes={
                axis: (stack.pixel_size(axis), stack.unit(axis))
                for axis in stack.map_axes
            },
            channel_names=("decision",),
            description={"output": "decision", "source": stack.source},
        )
    return target


def load_decision(
    path: str | Path, stack: FocusStack, *, first: int | None = None
) -> NDArray[np.uint16]:
    """Read a decision map: one of :func:`save_decision`, of a fusion, or any picture.

    Parameters
    ----------
    path
        Anything that :func:`napari_focus_fusion.as_stack` opens.
    stack, first
        As for :func:`as_decision`.

    Returns
    -------
    ndarray
        uint16, axes ``stack.map_axes``, slices counted from 0.

    Raises
    ------
    FocusFusionError
        If it cannot be read, or is no decision map of this stack.
    """
    return as_decision(np.asarray(as_stack(path).data), stack, first=first)
