"""Checks of a run and its result: each returns a note for the user, or None."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_focus_fusion.decision import TINY
from napari_focus_fusion.engine.reading import sample_places
from napari_focus_fusion.filters import box_sum
from napari_focus_fusion.models.base import Reconstructor
from napari_focus_fusion.models.sml import SumModifiedLaplacian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.stack import FocusStack

#: The plain focus measure is trusted where its confidence is above this.
MIN_CONFIDENCE = 0.4
#: With fewer trusted pixels there is no check.
MIN_PIXELS = 500
#: A rank correlation below this is a contradiction.
MIN_CORRELATION = 0.1
#: Mean distance of a super-resolved image from the slices, as a share of their range,
#: from which on it is inconsistent: much more than noise that it may leave out.
MAX_INCONSISTENCY = 0.05
#: A pixel more confident than this counts as in focus; with a smaller share of the
#: plane than the second, nothing is.
SURE, LEAST_IN_FOCUS = 0.8, 0.005
#: A larger share of pixels clearly beyond what any slice shows there is worth a note.
MOST_BEYOND = 0.01
#: More than this share of what is in focus in the first or last of four slices or more:
#: the stack may end inside the specimen.
MOST_AT_END, FEW_SLICES = 0.25, 4


def note_of_preference(plan: RunPlan) -> str | None:
    """A note for the user where a preference has no effect; else None."""
    prefer, stack = plan.settings.prefer, plan.stack
    if prefer == "sharpest" or plan.surface is not None:
        return None
    why = "a given decision map" if plan.model is None else f"{stack.n_slices} slices"
    return (
        f"prefer={prefer!r} has no effect with {why}: of two depths that show, one can "
        "be told from the other only along Z, in three slices or more."
    )


def note_of_strength(plan: RunPlan) -> str | None:
    """A note for the user where a strength has no effect; else None."""
    strength = plan.settings.strength
    if strength == 1 or isinstance(plan.model, Reconstructor):
        return None
    return (
        f"strength={strength:g} has no effect: pixels are taken from the slices, and "
        "nothing is reconstructed. It is for the model mscnn."
    )


def contradiction_of_plain(point: Prepared, decision: Any) -> str | None:
    """A note for the user where a decision contradicts the plain focus measure.

    Parameters
    ----------
    point
        A time point, with the sample of its model's statistics.
    decision
        The final decision map, axes ``stack.map_axes``.

    Returns
    -------
    str or None
        A note; None where there is no contradiction, or nothing to compare with.
    """
    plan, stack = point.plan, point.plan.stack
    if plan.model is None or not plan.model.needs_sample or not point.windows:
        return None
    decisions = []
    for y, x in sample_places(stack):
        if y.start < 0 or x.start < 0:  # of a tiny plane, mirrored
            return None
        places = {"T": point.t, "Y": y, "X": x}
        key = tuple(places[axis] for axis in stack.map_axes)
        decisions.append(np.asarray(decision[key]))
    correlation = correlation_with_plain(point.windows, decisions)
    if correlation is None or correlation >= MIN_CORRELATION:
        return None
    assert plan.model.spec is not None
    return (
        f"The decision of {plan.model.spec.title}{_when(point)} contradicts the plain "
        f"focus measure (rank correlation {correlation:.2f} where that is sure). "
        "Look at the decision map, and compare with model='sml'."
    )


def inconsistency_with_slices(point: Prepared, consistency: Any) -> str | None:
    """A note for the user where a super-resolved image contradicts its slices.

    Parameters
    ----------
    point
        A time point.
    consistency
        The map of distances from the fused slices, axes ``stack.map_axes``.

    Returns
    -------
    str or None
        A note; None where there is no contradiction.
    """
    stack = point.plan.stack
    total = 0.0
    for region in point.plan.regions:
        places = {"T": point.t, "Y": region.y, "X": region.x}
        key = tuple(places[axis] for axis in stack.map_axes)
        total += float(np.asarray(consistency[key]).sum())
    mean = total / (stack.height * stack.width)
    if mean <= MAX_INCONSISTENCY:
        return None
    return (
        f"The super-resolved image{_when(point)}, brought back to the source's pixels, "
        f"differs from the fused slices by {mean:.1%} of their range on average. "
        "Do not trust its detail: look at the consistency map, or use scale=1."
    )


def nothing_in_focus(point: Prepared, decision: Any, confidence: Any) -> list[str]:
    """Notes for the user where a stack is never in focus, or goes on beyond its ends.

    Parameters
    ----------
    point
        A time point.
    decision, confidence
        The final maps, axes ``stack.map_axes``.

    Returns
    -------
    list of str
        Notes; none where a surface was not looked for.
    """
    stack = point.plan.stack
    if point.plan.surface is None:
        return []
    counts = np.zeros(stack.n_slices, np.int64)
    for region in point.plan.regions:
        places = {"T": point.t, "Y": region.y, "X": region.x}
        key = tuple(places[axis] for axis in stack.map_axes)
        sure = np.asarray(confidence[key]) > SURE
        found = np.asarray(decision[key])[sure]
        counts += np.bincount(found, minlength=stack.n_slices)
    share = counts.sum() / (stack.height * stack.width)
    if share < LEAST_IN_FOCUS:
        return [
            f"Nothing is clearly in focus{_when(point)}: only {share:.1%} of the "
            "pixels show detail that stands out in some slice. Look at the confidence "
            "map; the specimen may lie outside the stack."
        ]
    notes: list[str] = []
    if stack.n_slices < FEW_SLICES:
        return notes
    for z, where in ((0, "first"), (stack.n_slices - 1, "last")):
        at_end = counts[z] / counts.sum()
        if at_end > MOST_AT_END and counts[z] == counts.max():
            notes.append(
                f"The {where} slice is the sharpest for {at_end:.0%} of what is in "
                f"focus{_when(point)}: the specimen may go on beyond the stack."
            )
    return notes


def note_of_absent(stack: FocusStack, monitor: Monitor) -> str | None:
    """A note for the user on pixels that are absent; None where none is."""
    some, everywhere = monitor.absent
    if not some and not everywhere:
        return None
    whole = stack.n_times * stack.height * stack.width
    parts = []
    if some:
        parts.append(
            f"{some} pixels ({some / whole:.1%}) are absent in some slices (NaN, "
            "masked, or an empty band) and come from the others."
        )
    if everywhere:
        kept = "NaN" if stack.dtype.kind == "f" else "0"
        parts.append(
            f"{everywhere} pixels ({everywhere / whole:.1%}) are absent in every "
            f"slice: the fused image is {kept} there, and the confidence 0."
        )
    return " ".join([*parts, *_doubt_of_counts(monitor)])


def note_of_beyond(stack: FocusStack, monitor: Monitor) -> str | None:
    """A note for the user where much was reconstructed that no slice shows; or None."""
    share = monitor.beyond / (stack.n_times * stack.height * stack.width)
    if share <= MOST_BEYOND:
        return None
    note = (
        f"{share:.1%} of the pixels are brighter or darker than in every slice, by "
        "more than the noise: they were reconstructed, not observed. The map of what "
        "lies beyond the slices shows where."
    )
    return " ".join([note, *_doubt_of_counts(monitor)])


def _doubt_of_counts(monitor: Monitor) -> list[str]:
    if not monitor.recut:
        return []
    return [
        "The run went on from an earlier one with another amount of memory, so that "
        "some may be counted twice."
    ]


def _when(point: Prepared) -> str:
    return f" at time point {point.t}" if point.plan.stack.n_times > 1 else ""


def correlation_with_plain(
    windows: Sequence[np.ndarray], decisions: Sequence[np.ndarray]
) -> float | None:
    """Rank correlation of a decision with that of the plain focus measure.

    Parameters
    ----------
    windows
        For each slice the same windows of it, (windows, h, w) float32.
    decisions
        The decision map in each of these windows, (h, w).

    Returns
    -------
    float or None
        Spearman's, in [-1, 1], over the pixels where the plain measure is confident;
        None where these are too few, or where one of the two is the same everywhere.
    """
    plain = SumModifiedLaplacian()
    scores = torch.stack(
        [
            box_sum(plain.score(torch.from_numpy(planes)[:, None]), plain.window)
            for planes in windows
        ]
    )
    best, index = scores.max(0)
    others = (scores.sum(0) - best) / max(len(scores) - 1, 1)
    confident = (1 - others / best.clamp_min(TINY) > MIN_CONFIDENCE).numpy()
    r = plain.window
    ours = np.stack(decisions)[:, r:-r, r:-r][confident]
    theirs = index.numpy()[confident]
    if ours.size < MIN_PIXELS or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(_ranks(ours), _ranks(theirs))[0, 1])


def _ranks(labels: np.ndarray) -> np.ndarray:
    """Ranks of labels (n,), equal ones sharing theirs; scipy.stats is slow to load."""
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[which]
