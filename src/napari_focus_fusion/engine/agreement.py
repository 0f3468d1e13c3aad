"""Whether what a network made can be believed: held against what is plain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.decision import TINY
from napari_focus_fusion.engine.reading import sample_places
from napari_focus_fusion.filters import box_sum
from napari_focus_fusion.models.sml import SumModifiedLaplacian

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.engine.store import Store
    from napari_focus_fusion.engine.work import Work
    from napari_focus_fusion.tiling import TilePlan

#: The plain measure is believed where its best slice stands out as far as this.
SURE = 0.4
#: Fewer believed pixels say nothing.
FEWEST = 500
#: A rank correlation below this is a contradiction.
LEAST_CORRELATION = 0.1
#: Mean distance of a super-resolved image from the slices, as a share of their range,
#: from which on it shows something else: much more than noise that it may leave out.
MOST_INCONSISTENT = 0.05


def hold_against_plain(
    work: Work, t: int, windows: list[np.ndarray], store: Store
) -> None:
    """Note it where a network's decision contradicts the plain focus measure."""
    stack = work.reference.stack
    places = {"T": t}
    decisions = []
    for y, x in sample_places(stack):
        if y.start < 0 or x.start < 0:  # of a tiny plane, mirrored
            return
        key = tuple(places.get(a, y if a == "Y" else x) for a in stack.map_axes)
        decisions.append(np.asarray(store.outputs["decision"][key]))
    correlation = correlation_with_plain(windows, decisions)
    if correlation is not None and correlation < LEAST_CORRELATION:
        when = f" at time point {t}" if stack.n_times > 1 else ""
        assert work.model.spec is not None
        work.notes.append(
            f"The decision of {work.model.spec.title}{when} contradicts the plain "
            f"focus measure (rank correlation {correlation:.2f} where that is sure). "
            "Look at the decision map, and compare with model='sml'."
        )


def hold_against_slices(work: Work, t: int, plan: TilePlan, store: Store) -> None:
    """Note it where a super-resolved image shows something else than the slices."""
    stack = work.reference.stack
    total = 0.0
    for region in plan:
        places = {"T": t, "Y": region.y, "X": region.x}
        key = tuple(places[axis] for axis in stack.map_axes)
        total += float(np.asarray(store.outputs["consistency"][key]).sum())
    mean = total / (stack.height * stack.width)
    if mean > MOST_INCONSISTENT:
        when = f" at time point {t}" if stack.n_times > 1 else ""
        work.notes.append(
            f"The super-resolved image{when}, brought back to the source's pixels, "
            f"differs from the fused slices by {mean:.1%} of their range on average. "
            "Do not trust its detail: look at the consistency map, or use scale=1."
        )


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
        Spearman's, in [-1, 1], over the pixels where the plain measure is sure; None
        where these are too few, or where one of the two is the same everywhere.
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
    sure = (1 - others / best.clamp_min(TINY) > SURE).numpy()
    r = plain.window
    ours = np.stack(decisions)[:, r:-r, r:-r][sure]
    theirs = index.numpy()[sure]
    if ours.size < FEWEST or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(_ranks(ours), _ranks(theirs))[0, 1])


def _ranks(labels: np.ndarray) -> np.ndarray:
    """Ranks of labels (n,), equal ones sharing theirs; scipy.stats is slow to load."""
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[which]
