"""Disturbances of a focus stack whose truth stays known: drift, breathing, flicker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KINDS = ("still", "translation", "breathing", "rotation", "moving object", "all")
#: Shift from slice to slice in pixels (standard deviation), scale from slice to slice
#: (at most), and rotation over the whole stack in degrees (at most).
SHIFT, BREATHING, ROTATION = 1.5, (0.005, 0.03), 1.0
#: Side of what moves, as a share of that of the plane.
OBJECT = 0.15


@dataclass(frozen=True)
class Disturbed:
    """A stack that was disturbed, and how.

    Attributes
    ----------
    stack
        (Z, Y, X), in the dtype of the stack.
    transforms
        (Z, 2, 3): from pixels of the middle slice to positions in each slice.
    gains
        (Z,): by which the brightness of each slice was multiplied.
    """

    stack: Array
    transforms: NDArray[np.float64]
    gains: NDArray[np.float64]


def disturb(
    stack: Array,
    seed: int,
    kind: str,
    *,
    room: int,
    electrons: float | None = None,
    flicker: float = 0.0,
    bleaching: float = 0.0,
) -> Disturbed:
    """Let the slices of a stack drift and flicker, and add noise.

    Parameters
    ----------
    stack
        (Z, Y, X), free of noise, with `room` pixels on each side that slices may show
        where they drift.
    seed
        Of what is drawn.
    kind
        One of :data:`KINDS`; ``"all"`` shifts, breathes, rotates and has an object that
        moves.
    room
        Pixels on each side that are cut off.
    electrons
        Of the brightest pixel, for the noise of photons; None: no noise.
    flicker
        Gains lie between one less and one more than this.
    bleaching
        Share of the brightness that is lost from slice to slice.
    """
    rng = np.random.default_rng(seed)
    count, height, width = stack.shape
    order = np.arange(count) - count // 2
    everything = kind == "all"
    steps = np.cumsum(rng.normal(0, SHIFT, (count, 2)), 0)
    steps -= steps[count // 2]
    breathing = rng.uniform(*BREATHING) * rng.choice([-1, 1]) * 8 / max(count, 8)
    turn = np.deg2rad(rng.uniform(-1, 1) * ROTATION / max(count - 1, 1))
    shifts = steps if kind == "translation" or everything else np.zeros((count, 2))
    scales = (1 + breathing * (kind == "breathing" or everything)) ** order
    angles = turn * order * (kind == "rotation" or everything)
    values: Array = stack.astype(np.float64)
    if kind == "moving object" or everything:
        values = _with_object(values, rng, room)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    moved, transforms = [], []
    for plane, shift, scale, angle in zip(values, shifts, scales, angles, strict=True):
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        linear = np.array([[c, -s], [s, c]])
        inverse = np.linalg.inv(linear)
        offset = centre - inverse @ (centre + shift)
        moved.append(
            ndimage.affine_transform(plane, inverse, offset, order=5, mode="mirror")
        )
        inner = centre - room
        transforms.append(np.column_stack([linear, inner - linear @ inner + shift]))
    values = np.asarray(np.array(moved)[:, room:-room, room:-room].clip(0))
    gains = rng.uniform(1 - flicker, 1 + flicker, count) * (1 - bleaching) ** (
        np.arange(count)
    )
    values *= (gains / max(gains.max(), 1.0))[:, None, None]
    white = float(values.max()) or 1.0
    if electrons is not None:
        values = rng.poisson(values / white * electrons) * (white / electrons)
    if stack.dtype.kind in "iu":
        limits = np.iinfo(stack.dtype)
        values = values.round().clip(limits.min, limits.max)
    gains = gains / max(gains.max(), 1.0)
    return Disturbed(values.astype(stack.dtype), np.array(transforms), gains)


def _with_object(values: Array, rng: np.random.Generator, room: int) -> Array:
    """A textured disc that goes across the plane while slices are taken."""
    count, height, width = values.shape
    side = int(OBJECT * (min(height, width) - 2 * room))
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    disc = np.hypot(y, x) < side / 2
    grain = ndimage.gaussian_filter(rng.normal(size=(side, side)), 2)
    bright = values.mean() * (1 + 0.5 * grain / grain.std()).clip(0.1, 2)
    found = values.copy()
    rows = np.linspace(room, height - room - side, count).astype(int)
    columns = np.linspace(room, width - room - side, count).astype(int)
    for plane, top, left in zip(found, rows, columns, strict=True):
        window = plane[top : top + side, left : left + side]
        window[disc] = bright[disc]
    return found
