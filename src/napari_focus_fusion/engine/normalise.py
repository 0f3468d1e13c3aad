"""One normalisation a stack, independent of tiles and of the order of slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Quantiles of the sample that become 0 and 1.
BLACK, WHITE = 0.005, 0.998


def black_and_white(
    sample: Sequence[np.ndarray], present: Sequence[np.ndarray | None] | None = None
) -> tuple[float, float]:
    """Intensities that become 0 and 1, from the sample of all slices together.

    ``present`` says for each slice which pixels are there; None: all.

    A stack without any contrast gets a range of one, so that nothing is divided by
    zero; its scores are then zero everywhere.
    """
    if present is None:
        present = [None] * len(sample)
    values = np.concatenate(
        [
            planes.ravel() if there is None else planes[there]
            for planes, there in zip(sample, present, strict=True)
        ]
    )
    if values.size == 0:
        return 0.0, 1.0
    black, white = (float(q) for q in np.quantile(values, (BLACK, WHITE)))
    if white - black <= 1e-6 * max(abs(black), abs(white), 1e-20):
        lowest, highest = float(values.min()), float(values.max())
        black = lowest
        white = highest if highest > lowest else lowest + 1
    return black, white
