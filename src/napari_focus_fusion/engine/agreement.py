"""Whether a network's decision agrees with that of the plain focus measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.decision import TINY
from napari_focus_fusion.models.layers import box_sum
from napari_focus_fusion.models.sml import SumModifiedLaplacian

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The plain measure is believed where its best slice stands out as far as this.
SURE = 0.4
#: Fewer believed pixels say nothing.
FEWEST = 500
#: A rank correlation below this is a contradiction.
LEAST_CORRELATION = 0.1


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
