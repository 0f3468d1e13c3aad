"""Brightness of slices: flicker, bleaching and shading that differs between slices.

A slice is compared with the reference slice cell by cell, in means over cells so large
that blur moves little light from one to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.registration.transforms import Plane

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack

    Array = NDArray[np.float64]

#: Cells along the longer side of a plane.
CELLS = 24
#: A cell is used where at least this share of it is there in both slices.
LEAST_PRESENT = 0.5
#: Standard deviations expected of the terms of the gain, and of the offset as a share
#: of the mean: little evidence changes little.
EXPECTED_GAIN, EXPECTED_FIELD, EXPECTED_OFFSET = 0.5, 0.2, 0.03
#: How often cells are weighted anew, and the cut-off of Tukey's biweight.
ROUNDS, CUTOFF = 12, 4.7
#: Error of a cell's mean as a share of the mean: what blur carries over its border.
CELL_ERROR = 0.01
#: A gain stays within these, or there is nothing to level.
LEAST_GAIN, MOST_GAIN = 0.1, 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """What a slice shows of the brightness of the reference slice.

    Attributes
    ----------
    gains
        (T, N, components, 6): the gain as a polynomial of row v and column u, 1, v, u,
        vv, vu, uu, from the centre in units of half the diagonal.
    offsets
        (T, N, components), in intensities: what is shown is gain times what the
        reference slice would show, plus this.
    shape
        Rows and columns of the plane.
    """

    gains: Array
    offsets: Array
    shape: tuple[int, int]

    def applied(
        self,
        values: NDArray[Any],
        t: int,
        z: int,
        components: list[int],
        y: range,
        x: range,
    ) -> NDArray[Any]:
        """A window (components, h, w) of a slice as bright as the reference slice."""
        gains, offsets = self.gains[t, z, components], self.offsets[t, z, components]
        even = np.eye(1, 6)[0]
        if (
            np.array_equal(gains, np.broadcast_to(even, gains.shape))
            and not offsets.any()
        ):
            return values
        plane = Plane(*self.shape)
        v = (np.asarray(y)[:, None] - plane.centre[0]) / plane.radius
        u = (np.asarray(x) - plane.centre[1]) / plane.radius
        levelled = np.empty(values.shape)
        for i, (c, offset) in enumerate(zip(gains, offsets, strict=True)):
            gain = (
                c[0] + c[1] * v + c[2] * u + c[3] * v * v + c[4] * v * u + c[5] * u * u
            )
            levelled[i] = (values[i] - offset) / np.clip(gain, LEAST_GAIN, MOST_GAIN)
        return levelled

    def recorded(self) -> dict[str, Any]:
        """What provenance keeps of it: what JSON can hold."""
        return {"gains": self.gains.tolist(), "offsets": self.offsets.tolist()}

    @classmethod
    def of_record(cls, record: dict[str, Any], stack: FocusStack) -> Levels:
        """What :meth:`recorded` gave, for the stack it was estimated on.

        Raises
        ------
        FocusFusionError
            If the stack has not as many time points, slices and channels.
        """
        gains = np.array(record["gains"], np.float64)
        expected = stack.n_times, stack.n_slices, stack.n_components, 6
        if gains.shape != expected:
            raise FocusFusionError(
                f"{stack.name!r} has not the time points, slices and channels whose "
                "brightness was levelled. Give the stack that was fused."
            )
        offsets = np.array(record["offsets"], np.float64)
        return cls(gains, offsets, (stack.height, stack.width))


def level(stack: FocusStack, reference: int, advance: Callable[[], None]) -> Levels:
    """Estimate how bright the slices of a stack are against a reference slice.

    Parameters
    ----------
    stack
        The stack, in register.
    reference
        The slice whose brightness stays.
    advance
        Called after each slice.
    """
    shape = stack.n_times, stack.n_slices, stack.n_components
    gains = np.zeros((*shape, 6))
    gains[..., 0] = 1
    offsets = np.zeros(shape)
    alpha = stack.n_samples == 4
    for t in range(stack.n_times):
        target, weights, positions = _cells(stack, t, reference)
        for z in range(stack.n_slices):
            advance()
            if z == reference:
                continue
            means, own, _ = _cells(stack, t, z)
            for c in range(stack.n_components):
                if alpha and c % 4 == 3:
                    continue
                there = np.minimum(weights[c], own[c]) >= LEAST_PRESENT
                gains[t, z, c], offsets[t, z, c] = _fit(
                    target[c][there], means[c][there], positions[there]
                )
    return Levels(np.round(gains, 9), np.round(offsets, 9), (stack.height, stack.width))


def _cells(stack: FocusStack, t: int, z: int) -> tuple[Array, Array, Array]:
    """Means (components, cells), their share of pixels, and positions (cells, 2)."""
    side = max(-(-max(stack.height, stack.width) // CELLS), 4)
    plane = Plane(stack.height, stack.width)
    columns = np.arange(0, stack.width, side)
    means, shares, positions = [], [], []
    for top in range(0, stack.height, side):
        y = slice(top, min(top + side, stack.height))
        values, present = stack.read_present(t, [z], y, slice(0, stack.width))
        there = np.ones(values.shape, bool) if present is None else present
        total, count = (
            np.add.reduceat(a[:, 0].sum(1, dtype=np.float64), columns, axis=1)
            for a in (np.where(there, values, 0), there)
        )
        means.append(total / np.maximum(count, 1))
        widths = np.diff([*columns, stack.width])
        shares.append(count / ((y.stop - y.start) * widths))
        middle = (y.start + y.stop - 1) / 2
        positions += [
            (middle, x + (w - 1) / 2) for x, w in zip(columns, widths, strict=True)
        ]
    where = (np.array(positions) - plane.centre) / plane.radius
    return np.concatenate(means, 1), np.concatenate(shares, 1), where


def _fit(target: Array, means: Array, positions: Array) -> tuple[Array, float]:
    """Gain, as a polynomial, and offset of the cells of a slice, robustly."""
    even = np.eye(1, 6)[0]
    usual = float(np.median(np.abs(target))) if target.size else 0.0
    if target.size < 12 or usual <= 0:
        return even, 0.0
    v, u = positions.T
    terms = np.stack([np.ones_like(v), v, u, v * v, v * u, u * u], 1)
    design = np.concatenate([terms * target[:, None], np.full((len(v), 1), usual)], 1)
    deviations = np.array([EXPECTED_GAIN, *[EXPECTED_FIELD] * 5, EXPECTED_OFFSET])
    prior = np.eye(1, 7)[0]
    error = CELL_ERROR * (np.abs(target) + usual)
    weights = np.ones(len(v))
    found = prior
    for _ in range(ROUNDS):
        w = weights / error**2
        normal = design.T @ (design * w[:, None]) + np.diag(deviations**-2)
        right = design.T @ (w * (means - design @ prior))
        found = prior + np.linalg.solve(normal, right)
        off = np.abs(means - design @ found) / error
        scale = max(1.4826 * float(np.median(off)), 0.2)
        weights = (1 - np.minimum(off / (CUTOFF * scale), 1) ** 2) ** 2
    gain = terms @ found[:6]
    if gain.min() < LEAST_GAIN or gain.max() > MOST_GAIN:
        return even, 0.0
    return found[:6], float(found[6] * usual)
