"""Notes on slices that drift or flicker, from a few windows of them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, rfft2

from napari_focus_fusion.registration.transforms import Plane, displacements

if TYPE_CHECKING:
    from napari_focus_fusion.engine.prepare import Prepared

#: Slices in the middle of the stack that are looked at, in a grid of windows of at most
#: so many pixels along a side, binned to fewer.
SLICES, GRID, SIDE, BINNED_SIDE, LEAST_SIDE = 4, 3, 288, 96, 32
#: Windows whose correlation is less show nothing, or something else.
LEAST_CORRELATION = 0.6
#: Windows of a pair that must tell something; a transform has four numbers.
LEAST_WINDOWS = 5
#: Drift in pixels, on average over the windows, from which on it is worth a note, and
#: how much of it a transform may leave.
LEAST_DRIFT, MOST_LEFT = 0.5, 0.4
#: Standard deviations of the band in which windows are compared, in pixels.
FINE, COARSE = 1.0, 4.0
#: Share by which the brightness of slices must differ from that of their neighbours,
#: and the most by which windows may disagree, as a share of that.
LEAST_FLICKER, MOST_UNLIKE = 0.06, 0.35


def drift_of(point: Prepared) -> float | None:
    """By how many pixels what slices show moves from one to the next, as they are.

    Parameters
    ----------
    point
        A time point, with the sample of its slices.

    Returns
    -------
    float or None
        0 where no drift is seen; None where it cannot be seen, or slices were aligned.
    """
    stack = point.reference.stack
    if point.plan.registration is not None or stack.n_slices < 2:
        return None
    step = max(1, min(SIDE, min(stack.height, stack.width) // GRID) // BINNED_SIDE)
    side = min(SIDE, min(stack.height, stack.width) // GRID) // step * step
    if side < LEAST_SIDE:
        return None
    corners = [
        (int(y), int(x))
        for y in _starts(stack.height, side)
        for x in _starts(stack.width, side)
    ]
    plane = Plane(stack.height, stack.width)
    centres = np.array(corners) + side / 2
    at = displacements("similarity", centres - plane.centre, plane) / step
    first = max(stack.n_slices // 2 - SLICES // 2, 0)
    slices = range(first, min(first + SLICES, stack.n_slices))
    windows = [_windows(point, z, corners, side, step) for z in slices]
    drifts = [_drift(*pair, at, step) for pair in pairwise(windows)]
    known = [drift for drift in drifts if drift is not None]
    if 2 * len(known) < len(drifts):
        return None
    return float(np.median(known))


def note_of_drift(point: Prepared, drift: float | None) -> str | None:
    """A note for the user where slices drift and were not aligned; else None.

    Parameters
    ----------
    point
        A time point.
    drift
        What `drift_of` gives.
    """
    if drift is None or drift < LEAST_DRIFT:
        return None
    return (
        f"Slices drift: what they show moves by about {drift:.1f} pixels from one to "
        f"the next{_when(point)}, so that it may look doubled. Fuse with "
        "align='similarity', or 'translation' where nothing scales or rotates."
    )


def _starts(length: int, side: int) -> np.ndarray:
    return np.linspace(0, length - side, GRID).round().astype(int)


def _windows(
    point: Prepared, z: int, corners: list[tuple[int, int]], side: int, step: int
) -> np.ndarray:
    """Windows (n, h, w) of a slice, binned, in the band in which they are compared."""
    reference, stack = point.reference, point.reference.stack
    whole = slice(0, stack.height), slice(0, stack.width)
    chunk = stack.chunk_yx
    plane = None
    if chunk is not None and 2 * chunk[0] * chunk[1] > stack.height * stack.width:
        # Any window of such a file costs as much as the whole plane.
        plane = reference.observed(slice(z, z + 1), *whole)[0][0]
    size = side // step
    found = []
    for top, left in corners:
        y, x = slice(top, top + side), slice(left, left + side)
        if plane is None:
            window = reference.observed(slice(z, z + 1), y, x)[0][0]
        else:
            window = plane[y, x]
        found.append(_band(window.reshape(size, step, size, step).mean((1, 3))))
    return np.array(found)


def _drift(
    first: np.ndarray, second: np.ndarray, at: np.ndarray, step: int
) -> float | None:
    """Mean displacement in pixels of windows (n, h, w), binned by a step.

    0: none that fits; None: not known.
    """
    found = [_shift(*pair) for pair in zip(first, second, strict=True)]
    told = np.array([one is not None for one in found])
    if told.sum() < LEAST_WINDOWS:
        return None
    moved = np.array([one for one in found if one is not None])
    where = at[told]
    weights = np.ones(len(moved))
    for _ in range(5):
        root = np.sqrt(weights)[:, None, None]
        fit = np.linalg.lstsq(
            (where * root).reshape(-1, 4), (moved * root[..., 0]).ravel(), rcond=None
        )[0]
        off = np.hypot(*(moved - where @ fit).T)
        weights = 1 / np.maximum(off, 0.1)
    size = float(np.hypot(*(where @ fit).T).mean())
    return size * step if np.median(off) < max(MOST_LEFT * size, 0.1) else 0.0


def _shift(a: np.ndarray, b: np.ndarray) -> tuple[float, float] | None:
    """By how many pixels (y, x) a window shows the same further on; None: not known."""
    power = np.sqrt(float((a * a).sum()) * float((b * b).sum()))
    if power < 1e-12:
        return None
    size = [2 * n for n in a.shape]
    peaks = irfft2(rfft2(a, size).conj() * rfft2(b, size), size) / power
    y, x = np.unravel_index(int(np.argmax(peaks)), peaks.shape)
    if peaks[y, x] < LEAST_CORRELATION:
        return None
    found = []
    for axis, place in enumerate((y, x)):
        n = peaks.shape[axis]
        line = peaks[:, x] if axis == 0 else peaks[y]
        low, top, high = (float(line[(place + step) % n]) for step in (-1, 0, 1))
        bend = low - 2 * top + high
        whole = place if place < n // 2 else place - n
        found.append(whole + (0.5 * (low - high) / bend if bend < 0 else 0.0))
    return found[0], found[1]


def _band(plane: np.ndarray) -> np.ndarray:
    """A window without noise and background, fading towards its edges."""
    fine, coarse = (
        ndimage.gaussian_filter(plane, sigma, truncate=3) for sigma in (FINE, COARSE)
    )
    fade = np.multiply.outer(*(np.hanning(n + 2)[1:-1] for n in plane.shape))
    return (fine - coarse) * fade


def note_of_flicker(point: Prepared) -> str | None:
    """A note for the user where slices differ in brightness as a whole; else None.

    Parameters
    ----------
    point
        A time point, with the sample of its slices.
    """
    if point.plan.levels is not None or len(point.windows) < 2:
        return None
    black, white = point.reference.black, point.reference.white
    means = np.array([planes.mean((1, 2)) for planes in point.windows], np.float64)
    means = black + means * (white - black)
    if means.min() <= 0:
        return None
    logs = np.log(means)
    # Against the middle of its neighbours: light that changes evenly with depth, as in
    # optical sections, is no flicker.
    if len(logs) > 2:
        off = logs[1:-1] - (logs[:-2] + logs[2:]) / 2
    else:
        off = logs[1:] - logs[:-1]
    differs = np.median(off, 1)
    unlike = np.median(np.abs(off - differs[:, None]), 1)
    flickers = (np.abs(differs) > LEAST_FLICKER) & (
        unlike < MOST_UNLIKE * np.abs(differs)
    )
    if 4 * flickers.sum() < len(off):
        return None
    most = float(np.expm1(np.abs(differs[flickers]).max()))
    return (
        f"Slices flicker: neighbours differ in brightness by up to {most:.0%}"
        f"{_when(point)}, which leaves bands. Fuse with brightness='level' to make "
        "them equally bright."
    )


def _when(point: Prepared) -> str:
    return f" at time point {point.t}" if point.plan.stack.n_times > 1 else ""
