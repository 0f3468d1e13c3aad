"""Measures of the maps of a fusion: of depth and confidence, with and without truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.data import Truth

    Array = NDArray[Any]

CONFIDENT = 0.5
"""Confidence from which on a pixel counts as covered."""

BINS = 10
"""Equal bins of confidence from 0 to 1."""

WINDOW = 41
"""Side in pixels of the windows whose median a map is compared with."""


def map_values(depth: Array, confidence: Array, truth: Truth) -> dict[str, float]:
    """Measure a depth map where the truth has texture.

    Parameters
    ----------
    depth : ndarray
        (Y, X) in slices; NaN where nothing was found.
    confidence : ndarray
        (Y, X) in [0, 1].
    truth
        What is true.

    Returns
    -------
    dict of str to float
        ``"depth error"``, mean in slices where a depth was found; ``"depth >1"``, share
        off by more than one slice or without a depth; the same ``"at steps"`` and
        ``"away from steps"``, where there are any; ``"coverage"``, share that is
        right to one slice at a confidence of `CONFIDENT` or more; and
        ``"sure of nothing"``, share of the pixels without texture at such a confidence.
    """
    textured = truth.textured
    error = np.abs(depth.astype(np.float64) - truth.depth)
    values = _errors(error[textured], "")
    steps, away = textured & truth.edges, textured & ~truth.edges
    if steps.any():
        values |= _errors(error[steps], " at steps")
        if away.any():
            values |= _errors(error[away], " away from steps")
    sure = confidence >= CONFIDENT
    values["coverage"] = float((sure & (error <= 1))[textured].mean())
    if not textured.all():
        values["sure of nothing"] = float(sure[~textured].mean())
    return values


def _errors(error: Array, where: str) -> dict[str, float]:
    known = np.isfinite(error)
    found = {f"depth >1{where}": float(1 - (error <= 1).mean())}
    if known.any():
        found = {f"depth error{where}": float(error[known].mean())} | found
    return found


def reliability(depth: Array, confidence: Array, truth: Truth) -> NDArray[np.float64]:
    """Count how often a confidence is right, in `BINS` equal bins.

    Parameters
    ----------
    depth, confidence, truth
        As for `map_values`.

    Returns
    -------
    ndarray
        (3, BINS): pixels, those of them right to one slice, and the sum of their
        confidence. Only pixels with texture count. Those of several stacks can be
        added up.
    """
    textured = truth.textured
    sure = confidence[textured].astype(np.float64)
    right = np.abs(depth[textured] - truth.depth[textured]) <= 1
    place = np.clip((sure * BINS).astype(np.intp), 0, BINS - 1)
    return np.stack(
        [
            np.bincount(place, weights, minlength=BINS)
            for weights in (np.ones_like(sure), right.astype(np.float64), sure)
        ]
    )


def calibration_error(bins: Array) -> float:
    """How far confidence is from the share that is right, on average over the pixels.

    Parameters
    ----------
    bins
        What `reliability` returned, of one stack or added up.

    Returns
    -------
    float
        0 where each confidence is right as often as it says; at most 1.
    """
    count, right, sure = bins
    return float(np.abs(right - sure).sum() / max(count.sum(), 1))


def patchwork(decision: Array) -> dict[str, float]:
    """Measure how broken up a decision map is, without knowing the truth.

    Parameters
    ----------
    decision : ndarray
        (Y, X), index of a slice.

    Returns
    -------
    dict of str to float
        ``"off the median"``, share of pixels more than one slice off the median of
        `WINDOW` x `WINDOW` pixels; ``"pieces"``, connected pieces of one slice a
        megapixel (pixels that touch at a side).
    """
    from skimage.filters import rank  # half a second

    labels, place = np.unique(decision, return_inverse=True)
    # The median of ranks, in the few levels that the fast filter takes
    if len(labels) > 256:
        labels = np.linspace(labels[0], labels[-1], 256)
        place = np.searchsorted(labels, decision.ravel())
    ranks = place.reshape(decision.shape).astype(np.uint8)
    middle = labels[rank.median(ranks, np.ones((WINDOW, WINDOW), np.uint8))]
    off = np.abs(decision.astype(np.float64) - middle) > 1
    pieces = sum(_pieces(decision == label) for label in np.unique(decision))
    return {
        "off the median": float(off.mean()),
        "pieces": pieces / decision.size * 1e6,
    }


def _pieces(mask: Array) -> int:
    return int(ndimage.label(mask)[1])


def pooled(bins: Iterable[Array]) -> NDArray[np.float64]:
    """Counts of several stacks, each stack counting as much as every other."""
    return np.sum([one / max(one[0].sum(), 1) for one in bins], axis=0)
