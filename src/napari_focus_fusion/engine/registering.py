"""Brings the slices of a run into register and to one brightness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.engine.empty import without_empty_bands
from napari_focus_fusion.engine.settings import align_kind
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.parameters import shown
from napari_focus_fusion.registration.aligned import AlignedSlices
from napari_focus_fusion.registration.brightness import Levels, level
from napari_focus_fusion.registration.registration import Registration, estimated
from napari_focus_fusion.stack import FocusStack

if TYPE_CHECKING:
    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.engine.settings import FusionSettings

#: Work of a pixel of a slice beside that of a focus measure.
REGISTER_COST, LEVEL_COST = 3.0, 0.5


def registering_cost(settings: FusionSettings) -> float:
    """Work of a pixel of a slice before the steps of a run."""
    cost = REGISTER_COST if align_kind(settings.align) is not None else 0.0
    return cost + (LEVEL_COST if settings.brightness == "level" else 0.0)


def in_register(plan: RunPlan, monitor: Monitor) -> RunPlan:
    """A plan whose stacks are in register and levelled, as its settings want it.

    Parameters
    ----------
    plan
        The run.
    monitor
        Takes the notes, and is asked whether to stop.

    Raises
    ------
    FocusFusionError
        If a given registration does not fit the stack.
    Cancelled
        If the run is asked to stop.
    """
    settings, stack = plan.settings, plan.stack
    if stack.n_slices == 1:
        return plan
    registration = _registration(plan, monitor)
    middle = stack.n_slices // 2
    if registration is not None:
        middle = registration.reference_slice
        moved = registration.apply(stack)
        same = plan.reference is stack
        plan = replace(
            plan,
            registration=registration,
            stack=moved,
            reference=moved if same else registration.apply(plan.reference),
        )
    if settings.brightness == "level":
        plan = _levelled(plan, middle, monitor)
    return _keeping(plan) if plan.keeps_aligned else plan


def _keeping(plan: RunPlan) -> RunPlan:
    """A plan whose aligned slices stay in memory: each pass reads them."""
    stacks = {id(one): one for one in (plan.stack, plan.reference)}
    kept = {
        key: replace(one, data=one.data.keeping())
        if isinstance(one.data, AlignedSlices)
        else one
        for key, one in stacks.items()
    }
    return replace(plan, stack=kept[id(plan.stack)], reference=kept[id(plan.reference)])


def _registration(plan: RunPlan, monitor: Monitor) -> Registration | None:
    settings, reference = plan.settings, plan.reference
    given = settings.align
    if given is None:
        return None
    if isinstance(given, Registration):
        for one in (plan.stack, reference):
            given.check(one)
        return given
    monitor.enter("Registering slices", 0, REGISTER_COST)
    area = reference.height * reference.width
    found = estimated(
        reference,
        list(plan.weights),
        given,
        settings.align_to,
        lambda: monitor.advance(area),
    )
    for note in found.notes:
        monitor.warn(note)
    return found


def _levelled(plan: RunPlan, middle: int, monitor: Monitor) -> RunPlan:
    """A plan whose stacks have slices of one brightness."""
    stacks = {id(one): one for one in (plan.stack, plan.reference)}
    area = plan.stack.height * plan.stack.width / len(stacks)
    done = REGISTER_COST * area * plan.stack.n_slices * plan.stack.n_times
    monitor.enter("Levelling brightness", done * len(stacks), LEVEL_COST)
    new, levels = {}, {}
    for key, one in stacks.items():
        levels[key] = level(one, middle, lambda: monitor.advance(area))
        new[key] = with_levels(one, levels[key])
    return replace(
        plan,
        stack=new[id(plan.stack)],
        reference=new[id(plan.reference)],
        levels=levels[id(plan.stack)],
    )


def with_levels(stack: FocusStack, levels: Levels) -> FocusStack:
    """A stack of one brightness, resampled no more than it is already."""
    source, matrices = stack, np.tile(np.eye(2, 3), (1, stack.n_slices, 1, 1))
    record: dict[str, Any] = {}
    if isinstance(stack.data, AlignedSlices):
        inner = stack.data
        source, matrices, record = inner.stack, inner.matrices, inner.record
    record = {**record, "brightness": levels.recorded()}
    return replace(stack, data=AlignedSlices(source, matrices, levels, record))


def unaligned(stack: FocusStack) -> FocusStack:
    """A stack as it was before its slices were brought into register."""
    return stack.data.stack if isinstance(stack.data, AlignedSlices) else stack


def alignment_of(stack: FocusStack) -> dict[str, Any]:
    """What provenance keeps of how a stack was aligned and levelled; {}: it was not."""
    data: Any = stack.data
    while isinstance(data, LazyArray):
        if isinstance(data, AlignedSlices):
            return data.record
        data = getattr(data, "data", None)
    return {}


def as_fused(stack: FocusStack, provenance: Mapping[str, Any]) -> FocusStack:
    """A stack as a fusion read it: its slices in register, and levelled.

    Parameters
    ----------
    stack
        What was fused. One that is aligned already stays as it is.
    provenance
        Of the result.

    Returns
    -------
    FocusStack
        Nothing is read yet. `stack` itself where nothing was aligned or levelled.

    Raises
    ------
    FocusFusionError
        If it is not the stack that was fused: of other slices, rows or columns.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> scene = gaussian_filter(np.random.default_rng(0).normal(size=(80, 90)), 1)
    >>> moved = ff.as_stack(np.stack([scene[8:72, 8:80], scene[8:72, 5:77]]))
    >>> result = ff.fuse(moved, "sml", align="translation")
    >>> aligned = as_fused(moved, result.provenance)
    >>> slices = aligned.read(0, [0, 1], slice(64), slice(69))
    >>> bool(np.abs(slices[0, 0] - slices[0, 1]).max() < 0.1)
    True
    """
    if not (isinstance(stack, FocusStack) and isinstance(provenance, Mapping)):
        raise FocusFusionError(
            f"stack={shown(stack)} and provenance={shown(provenance)} must be a "
            "FocusStack and the provenance of a result."
        )
    registration, levels = (provenance.get(n) for n in ("registration", "brightness"))
    if not (registration or levels) or alignment_of(stack):
        return stack
    found = without_empty_bands(stack)
    if registration:
        found = Registration.of_record(registration).apply(found)
    if levels:
        found = with_levels(found, Levels.of_record(levels, found))
    return found
