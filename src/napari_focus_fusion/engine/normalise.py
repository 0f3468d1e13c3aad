"""One normalisation a stack, independent of tiles and of the order of slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Quantiles of the sample that become 0 and 1.
BLACK, WHITE = 0.005, 0.998
#: The least and the largest difference of floating point numbers that is computed with.
SPANS = {np.dtype("float32"): (1e-37, 1e38), np.dtype("float64"): (1e-300, 1e300)}
#: How far a pixel may lie outside of 0 to 1: float32 can still hold its square.
FURTHEST = 1e12


def is_wide(dtype: np.dtype) -> bool:
    """Whether float32 cannot hold what a type holds: its range, or its digits."""
    return dtype.itemsize > 2 and dtype != np.float32


def relative(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Values of a wide type as float64, `black` 0 and `white` 1.

    Black is taken off in twice the precision of float32, so that nothing is lost of
    what lies on a large offset.
    """
    found = values.astype(np.float64)
    found -= black
    found /= white - black
    return found.clip(-FURTHEST, FURTHEST, out=found)


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
        white = highest if highest > lowest else lowest + max(1, abs(lowest) * 1e-6)
    return black, white


def check_span(lowest: float, highest: float, dtype: np.dtype, name: str) -> None:
    """Raise if two intensities are too far apart, or too close, to compute with.

    Raises
    ------
    FocusFusionError
        Naming the stack and what to do.
    """
    least, most = SPANS.get(dtype, (0, np.inf))
    if not least <= highest - lowest <= most:
        raise FocusFusionError(
            f"{name!r} holds values from {lowest:.3g} to {highest:.3g}, which {dtype} "
            "cannot be computed with. Scale them first, so that the largest is near 1, "
            "or replace those that are no intensities."
        )
