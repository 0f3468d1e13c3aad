"""Estimating the registration of a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.registration.pairs import (
    Level,
    Measured,
    likeness,
    measure_pair,
    pyramid,
)
from napari_focus_fusion.registration.repeats import period_of
from napari_focus_fusion.registration.solve import improves, solve
from napari_focus_fusion.registration.transforms import Plane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.registration.transforms import Array
    from napari_focus_fusion.stack import FocusStack

#: Planes are binned to at most this many pixels.
MOST_PIXELS = 1 << 19
#: A slice is compared with the one before, or else with the one before that.
NEIGHBOURS = 2
#: So many pairs of neighbours are compared once more at the end, at the finest level
#: of at most so many pixels.
COMPARED, COMPARED_PIXELS = 24, 1 << 17
#: Of the likeness that the displacement would cost if it were one, the least share that
#: must be won, or slices stay where they are.
LEAST_GAIN = 0.5
#: Pixels that are read at once.
READ_PIXELS = 1 << 22


def estimate(
    stack: FocusStack,
    t: int,
    weights: Sequence[float],
    kind: str,
    reference: int,
    advance: Callable[[], None],
) -> tuple[Array, list[int], float | None]:
    """Transforms of the slices of a time point, and which of them told nothing.

    Returns
    -------
    matrices : ndarray
        (N, 3, 3): from positions in the reference slice to those in each slice, in
        pixels, as (y, x, 1).
    lost : list of int
        Slices that could be compared with no other.
    period : float or None
        Pixels after which what the reference slice shows repeats; None: it does not.
    """
    plane = Plane(stack.height, stack.width)
    step = max(1, int(np.ceil((stack.height * stack.width / MOST_PIXELS) ** 0.5)))
    kept: list[tuple[int, list[Level]]] = []
    pairs: dict[tuple[int, int], Measured] = {}
    last = stack.n_slices - 1
    compared = {int(z) for z in np.linspace(0, max(last - 1, 0), COMPARED)}
    looked_at: dict[int, Level] = {}
    period: float | None = None
    for z in range(stack.n_slices):
        levels = pyramid(*read_binned(stack, t, z, weights, step), step)
        for earlier, others in reversed(kept):
            guess = _guess(pairs, earlier)
            found = measure_pair(others, levels, kind, plane, guess)
            if found is not None:
                pairs[earlier, z] = found
                break
        kept = [*kept, (z, levels)][-NEIGHBOURS:]
        if z in compared or z - 1 in compared:
            looked_at[z] = next(
                (one for one in levels if one.band.size <= COMPARED_PIXELS), levels[-1]
            )
        if z == reference:
            period = period_of(levels[0])
        advance()
    matrices = solve(pairs, stack.n_slices, reference, kind, plane)
    if not (
        improves(matrices, pairs, kind, plane)
        and _more_alike(matrices, looked_at, plane)
    ):
        matrices = np.broadcast_to(np.eye(3), matrices.shape).copy()
    known = {z for pair in pairs for z in pair}
    lost = [z for z in range(stack.n_slices) if z not in known]
    return plane.to_pixels(matrices), lost, period


def _more_alike(matrices: Array, levels: dict[int, Level], plane: Plane) -> bool:
    """Whether neighbouring slices look more alike with transforms than without.

    As much more as they would if that is how they had moved: each slice is compared
    with itself, displaced so. What grows or moves with depth gives blocks a common
    displacement, which does not make the slices any more alike. Pairs of slices that
    are unlike in either place count less.
    """
    still = np.eye(3)
    won = expected = 0.0
    for a in (z for z in levels if z + 1 in levels):
        first, second = levels[a], levels[a + 1]
        moved = matrices[a], matrices[a + 1]
        after = likeness(first, second, *moved, plane)
        counts = max(after, 0.0) ** 2
        won += counts * (after - likeness(first, second, still, still, plane))
        kept = [likeness(one, one, *moved, plane) for one in (first, second)]
        expected += counts * after * (1 - sum(kept) / 2)
    return won > LEAST_GAIN * expected


def _guess(pairs: dict[tuple[int, int], Measured], first: int) -> Array | None:
    """That a drift goes on as it was."""
    return next((pairs[i, j].matrix for i, j in reversed(pairs) if j == first), None)


def read_binned(
    stack: FocusStack, t: int, z: int, weights: Sequence[float], step: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """The grey plane of a slice, binned, and where it has pixels.

    Parameters
    ----------
    stack, t, z
        Which slice.
    weights
        How much each component counts.
    step
        Pixels along a side that become one; what is left at the far edges is left out.

    Returns
    -------
    plane : ndarray
        (h, w) float32.
    present : ndarray or None
        (h, w) bool; None: everywhere.
    """
    used = [i for i, weight in enumerate(weights) if weight]
    only = used[0] if len(used) == 1 else None
    width = stack.width // step * step
    rows = max(READ_PIXELS // stack.width // step, 1) * step
    planes, masks, some_absent = [], [], False
    for top in range(0, stack.height // step * step, rows):
        y = slice(top, min(top + rows, stack.height // step * step))
        values, present = stack.read_present(t, [z], y, slice(0, width), only)
        if only is None:
            values = values[used]
            present = None if present is None else present[used]
        grey: np.ndarray = np.zeros(values.shape[-2:], np.float32)
        for index, plane in zip(used, values[:, 0], strict=True):
            grey += np.float32(weights[index]) * plane
        cells = (len(grey) // step, step, width // step, step)
        planes.append(grey.reshape(cells).mean((1, 3)))
        there: np.ndarray = np.ones((cells[0], cells[2]), bool)
        if present is not None:
            shown: np.ndarray = np.asarray(present.all((0, 1))).reshape(cells)
            there = np.asarray(shown.all((1, 3)))
            some_absent |= not there.all()
        masks.append(there)
    found = np.concatenate(planes)
    return found, np.concatenate(masks) if some_absent else None
