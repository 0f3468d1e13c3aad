"""Correcting a decision map by hand, with the fused image updated where it changes.

    decision, fused = result.decision.copy(), result.fused.copy()
    area = take_slice(decision, mask, 7)
    recompose(stack, decision, fused, area)

Afterwards ``fused`` is, where it changed, what ``fuse(stack, decision=decision)`` gives
there; only the slices around the area have been read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_focus_fusion.composite import (
    BANDS_HALO,
    GUIDE_RADIUS,
    SIMILARITY_RADIUS,
    composing_halo,
)
from napari_focus_fusion.decision import as_decision
from napari_focus_fusion.engine.finishing import compose_region
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import RunPlan, plan_run
from napari_focus_fusion.engine.prepare import Prepared, prepare
from napari_focus_fusion.engine.reading import Reference
from napari_focus_fusion.engine.registering import as_fused
from napari_focus_fusion.engine.scoring import BLOCK_SIDE
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import (
    callback,
    file_path,
    real_number,
    several,
    shown,
    whole_number,
    yes_or_no,
)
from napari_focus_fusion.tiling import Rectangle, TilePlan
from napari_focus_fusion.write.blocks import write_block

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from napari_focus_fusion.composite import Blend
    from napari_focus_fusion.stack import FocusStack

__all__ = [
    "as_decision",
    "as_fused",
    "bounds",
    "intensities",
    "load_decision",
    "recompose",
    "save_decision",
    "take_slice",
]

#: Pixels around a changed label whose fused values depend on it.
LABEL_HALO = max(2 * GUIDE_RADIUS, SIMILARITY_RADIUS)


def take_slice(
    decision: NDArray[Any], mask: ArrayLike, z: int, *, t: int = 0
) -> Rectangle | None:
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
    Rectangle or None
        What holds all that changed, for :func:`recompose`; None if nothing did.

    Raises
    ------
    FocusFusionError
        If mask and map differ in size, or one of them or `z` or `t` is none.

    Examples
    --------
    >>> import numpy as np
    >>> decision, mask = np.zeros((40, 64), np.uint16), np.zeros((40, 64), bool)
    >>> mask[10:20, 30:50] = True
    >>> take_slice(decision, mask, 3)
    Rectangle(y0=10, y1=20, x0=30, x1=50)
    >>> int(decision[15, 40])
    3
    """
    plane = _plane_of(decision, t)
    z = whole_number("z", z, least=0, most=np.iinfo(plane.dtype).max)
    area = _as_mask(mask)
    if area.shape != plane.shape:
        raise FocusFusionError(
            f"The area is drawn on {area.shape} pixels, and the decision map has "
            f"{plane.shape}. They must be the same."
        )
    changed = area & (plane != z)
    plane[changed] = z
    return bounds(changed)


def _plane_of(decision: Any, t: int) -> NDArray[Any]:
    """The plane of a time point of a decision map, a view."""
    if not isinstance(decision, np.ndarray) or decision.dtype.kind not in "iu":
        raise FocusFusionError(
            f"decision={shown(decision)} is no decision map: an array of whole numbers."
        )
    if decision.ndim not in (2, 3):
        raise FocusFusionError(
            f"The decision map has the shape {decision.shape}; it must have the axes "
            "(Y, X) or (T, Y, X)."
        )
    if decision.ndim == 2:
        whole_number("t", t, least=0)
        return decision
    return decision[whole_number("t", t, least=0, most=len(decision) - 1)]


def _as_mask(mask: ArrayLike) -> NDArray[np.bool_]:
    try:
        return np.asarray(mask, bool)
    except (TypeError, ValueError) as error:
        raise FocusFusionError(
            f"mask={shown(mask)} is no area: an array (Y, X) of True and False."
        ) from error


def bounds(mask: NDArray[np.bool_]) -> Rectangle | None:
    """The smallest rectangle that holds all that is true; None if nothing is.

    Raises
    ------
    FocusFusionError
        If it is no plane.

    Examples
    --------
    >>> import numpy as np
    >>> bounds(np.eye(5, dtype=bool)[:, 1:4])
    Rectangle(y0=1, y1=4, x0=0, x1=3)
    """
    mask = _as_mask(mask)
    if mask.ndim != 2:
        raise FocusFusionError(
            f"The area has the shape {mask.shape}; it must have the axes (Y, X)."
        )
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return Rectangle(
        int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    )


def intensities(
    stack: FocusStack, *, t: int = 0, reference: int | str | None = None
) -> tuple[float, float]:
    """Intensities that :func:`recompose` takes for 0 and 1; the sample of ``fuse``.

    Of 8 and 16 bits nothing is read; of other types a few windows of each slice are.

    Raises
    ------
    FocusFusionError
        If there is no such time point or reference, or the slices cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> intensities(ff.as_stack(np.zeros((3, 40, 64), np.uint8)))
    (0.0, 255.0)
    """
    stack = as_stack(stack)
    t = whole_number("t", t, least=0, most=stack.n_times - 1)
    found = prepare(_plan(stack, reference, "feather"), t, Monitor()).reference
    return found.black, found.white


def recompose(
    stack: FocusStack,
    decision: NDArray[Any],
    fused: Any,
    area: Rectangle,
    *,
    t: int = 0,
    reference: int | str | None = None,
    blend: Blend = "feather",
    black_and_white: tuple[float, float] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Rectangle:
    """Update a fused image where its decision map has changed.

    Parameters
    ----------
    stack
        Of any kind of array; where the fusion aligned or levelled slices, what
        :func:`as_fused` gives. Of each slice the area and
        some pixels around it are read: 12, or 32 with ``blend="bands"``.
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
        What :func:`intensities` gave, so that it is not computed again; needed only
        for pixels of more than 16 bits.
    should_stop
        Asked between blocks; when it returns True, what is left stays as it was.

    Returns
    -------
    Rectangle
        What was written: the area and what depends on it, 3 pixels around it, or 32
        with ``blend="bands"``.

    Raises
    ------
    FocusFusionError
        If the slices cannot be read; if `decision` is no map of this stack or names
        slices that it does not have, or `fused` has another shape or type; if `area`
        lies outside, or there is no such time point, reference or blend.
    Cancelled
        If `should_stop` returned True.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_focus_fusion.retouch import take_slice
    >>> slices = np.stack([np.full((40, 64), z, np.uint8) for z in (10, 20, 30)])
    >>> stack = ff.as_stack(slices)
    >>> result = ff.fuse(stack, "sml", blend="select")
    >>> mask = np.zeros((40, 64), bool)
    >>> mask[10:20, 30:50] = True
    >>> area = take_slice(result.decision, mask, 2)
    >>> recompose(stack, result.decision, result.fused, area, blend="select")
    Rectangle(y0=7, y1=23, x0=27, x1=53)
    >>> int(result.fused[15, 40])
    30
    """
    stack = as_stack(stack)
    t = whole_number("t", t, least=0, most=stack.n_times - 1)
    callback("should_stop", should_stop)
    plan, monitor = _plan(stack, reference, blend), Monitor(should_stop=should_stop)
    plane = _plane_of(decision, t)
    size = (stack.height, stack.width)
    _check_retouched(stack, plane, fused, area)
    reach = BANDS_HALO if blend == "bands" else LABEL_HALO
    halo = composing_halo(blend)
    whole = area.grown(reach).inside_plane(*size)
    # Only what is composed is looked at: a map may be large, and an edit small.
    _check_labels(stack, plane[whole.grown(halo).inside_plane(*size).slices])
    if black_and_white is None:
        point = prepare(plan, t, monitor)
    else:
        ends = _black_and_white(black_and_white)
        point = Prepared(plan, t, Reference(stack, t, plan.weights, *ends))
    with torch.inference_mode():
        for block in TilePlan(whole.height, whole.width, (BLOCK_SIDE, BLOCK_SIDE)):
            region = block.moved(whole.y0, whole.x0)
            around = region.grown(halo).inside_plane(*size)
            labels = np.ascontiguousarray(plane[around.slices])
            pixels = compose_region(point, region, labels, around, monitor)
            write_block(fused, stack, t, region, pixels)
    return whole


def _check_retouched(
    stack: FocusStack, plane: NDArray[Any], fused: Any, area: Rectangle
) -> None:
    """Raise unless map, fused image and area belong to a stack."""
    size = (stack.height, stack.width)
    if plane.shape != size:
        raise FocusFusionError(
            f"The decision map has {plane.shape[0]} x {plane.shape[1]} pixels, and "
            f"{stack.name!r} has {size[0]} x {size[1]}. It must be a map of the same "
            "pixels."
        )
    shape = tuple(getattr(fused, "shape", ()))
    if shape != stack.fused_shape or np.dtype(fused.dtype) != stack.dtype:
        raise FocusFusionError(
            f"fused={shown(fused)} is no fused image of {stack.name!r}: that is "
            f"{stack.dtype} of shape {stack.fused_shape} (axes {stack.fused_axes})."
        )
    if not isinstance(area, Rectangle):
        raise FocusFusionError(
            f"area={shown(area)} is no Rectangle; take_slice() and bounds() give one."
        )
    inside = area.inside_plane(*size)
    if inside.height < 1 or inside.width < 1:
        raise FocusFusionError(f"{area} lies outside of {stack.name!r}.")


def _check_labels(stack: FocusStack, labels: NDArray[Any]) -> None:
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= stack.n_slices:
        raise FocusFusionError(
            f"The decision map names slices {lowest} to {highest}, and {stack.name!r} "
            f"has slices 0 to {stack.n_slices - 1}. Choose its own map."
        )


def _black_and_white(given: Any) -> tuple[float, float]:
    pair = [
        real_number("black_and_white", n) for n in several("black_and_white", given)
    ]
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise FocusFusionError(
            f"black_and_white={shown(given)} must be two numbers, the lower first; "
            "intensities() gives them."
        )
    return pair[0], pair[1]


def _plan(stack: FocusStack, reference: int | str | None, blend: Blend) -> RunPlan:
    """The plan of ``fuse(stack, decision=map)``, whatever the map."""
    settings = FusionSettings(reference=reference, blend=blend, device="cpu")
    return plan_run(stack, None, settings)


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
        The stack that the map belongs to.
    overwrite
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FocusFusionError
        If the name has another ending, is taken, the file cannot be written, or it is
        no decision map of this stack.

    Examples
    --------
    >>> import numpy as np
    >>> stack = ff.as_stack(np.zeros((3, 40, 64), np.uint8))
    >>> save_decision("map.ome.tif", np.full((40, 64), 2, np.uint16), stack).name
    'map.ome.tif'
    """
    from napari_focus_fusion.write.places import places_of
    from napari_focus_fusion.write.saving import check_targets, written_whole
    from napari_focus_fusion.write.tiff import write_ome_tiff

    stack, target = as_stack(stack), file_path("path", path)
    overwrite = yes_or_no("overwrite", overwrite)
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise FocusFusionError(
            f"{str(target)!r}: decision maps are saved as .ome.tif. Choose a name with "
            "this ending."
        )
    check_targets([target], overwrite=overwrite, inputs=places_of(stack))
    with written_whole([target], overwrite=overwrite) as (partial,):
        write_ome_tiff(
            partial,
            as_decision(decision, stack, first=0),
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
    """Read a decision map: one of :func:`save_decision`, of a fusion, or any image.

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

    Examples
    --------
    >>> import numpy as np
    >>> from napari_focus_fusion.retouch import save_decision
    >>> stack = ff.as_stack(np.zeros((3, 40, 64), np.uint8))
    >>> path = save_decision("edited.ome.tif", np.full((40, 64), 2), stack)
    >>> int(load_decision(path, stack).max())
    2
    """
    return as_decision(np.asarray(as_stack(path).data), as_stack(stack), first=first)
