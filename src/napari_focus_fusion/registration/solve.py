"""Transforms of all slices from those of pairs of slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from napari_focus_fusion.registration.transforms import (
    Plane,
    basis,
    largest_displacement,
    matrix_of,
    parameters_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_focus_fusion.registration.pairs import Measured
    from napari_focus_fusion.registration.transforms import Array

#: By how many pixels neighbours may differ where nothing is known of them: little
#: weight, so that slices without detail take the place of those around them.
LOOSE = 50.0
#: The same of how far a slice may be off the middle of its neighbours.
UNSTEADY = 20.0
#: Pairs further off the solution than so many standard deviations lose their weight.
OUTLYING, ROUNDS = 3.0, 5
#: Uncertainty of a pair in pixels, beside what its blocks say: blur, distortion.
PAIR_ERROR = 0.05
#: Displacements below this many pixels are no drift that could be told from none.
LEAST_DRIFT = 0.1
#: Aligned slices must be misaligned by at most this share of what they were.
IMPROVED = 0.95
#: So many times their variance must the displacements of neighbours, or their sum, be.
SIGNIFICANT = 4.0


def solve(
    pairs: Mapping[tuple[int, int], Measured],
    count: int,
    reference: int,
    kind: str,
    plane: Plane,
) -> Array:
    """The transform from the reference slice to each slice.

    Parameters
    ----------
    pairs
        What was measured from the first slice of each pair to the second.
    count
        Number of slices.
    reference
        The slice that stays in its place.
    kind
        One of ``KINDS``.
    plane
        The plane of the slices.

    Returns
    -------
    ndarray
        (count, 3, 3), of positions from the centre.
    """
    size = len(basis(kind))
    identity, nothing = np.eye(size), np.zeros(size)
    weights = dict.fromkeys(pairs, 1.0)
    found = np.zeros((count, size))
    for _ in range(ROUNDS):
        equations = _Equations(count, size)
        for (i, j), pair in pairs.items():
            root = _root(pair) * np.sqrt(weights[i, j])
            expected = parameters_of(kind, pair.matrix - np.eye(3), plane)
            carried = -root @ _carried(pair, kind, plane)
            equations.add({j: root, i: carried}, root @ expected)
        for z in range(count - 1):
            loose = identity / LOOSE
            equations.add({z + 1: loose, z: -loose}, nothing)
        for z in range(1, count - 1):
            steady = identity / UNSTEADY
            equations.add({z - 1: steady, z: -2 * steady, z + 1: steady}, nothing)
        equations.add({reference: identity * 1e6}, nothing)
        found = equations.solution()
        weights = {
            key: _weight(pair, found[key[0]], found[key[1]], kind, plane)
            for key, pair in pairs.items()
        }
    found -= found[reference]  # what the solver's rounding left
    return matrix_of(kind, found, plane)


class _Equations:
    """Linear equations for the parameters of all slices, each of a few of them."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.rows: list[dict[int, Array]] = []
        self.right: list[Array] = []

    def add(self, blocks: dict[int, Array], right: Array) -> None:
        """Add equations: the matrix of each slice they speak of, and what they give."""
        self.rows.append(blocks)
        self.right.append(right)

    def solution(self) -> Array:
        """(count, size): the least squares."""
        entries = [
            (row * self.size, z * self.size, block)
            for row, blocks in enumerate(self.rows)
            for z, block in blocks.items()
        ]
        y, x = np.indices((self.size, self.size))
        system = sparse.csr_matrix(
            (
                np.concatenate([block.ravel() for _, _, block in entries]),
                (
                    np.concatenate([(y + top).ravel() for top, _, _ in entries]),
                    np.concatenate([(x + left).ravel() for _, left, _ in entries]),
                ),
            ),
            (len(self.rows) * self.size, self.count * self.size),
        )
        normal = (system.T @ system).tocsc()
        found = spsolve(normal, system.T @ np.concatenate(self.right))
        return np.asarray(found).reshape(self.count, self.size)


def _root(pair: Measured) -> Array:
    """A matrix whose square is the information of a pair."""
    covariance = np.linalg.inv(pair.information)
    covariance += PAIR_ERROR**2 * np.eye(len(covariance))
    return np.linalg.cholesky(np.linalg.inv(covariance)).T


def _carried(pair: Measured, kind: str, plane: Plane) -> Array:
    """(k, k): parameters of what a pair's transform makes of each parameter."""
    size = len(basis(kind))
    each = matrix_of(kind, np.eye(size), plane) - np.eye(3)
    columns = [parameters_of(kind, pair.matrix @ one, plane) for one in each]
    return np.stack(columns, 1)


def _weight(pair: Measured, a: Array, b: Array, kind: str, plane: Plane) -> float:
    expected = parameters_of(kind, pair.matrix - np.eye(3), plane)
    off = _root(pair) @ (b - _carried(pair, kind, plane) @ a - expected)
    distance = float(np.sqrt(np.mean(off**2)))
    return 1 / (1 + (distance / OUTLYING) ** 2)


def improves(
    matrices: Array, pairs: Mapping[tuple[int, int], Measured], kind: str, plane: Plane
) -> bool:
    """Whether slices fit better with transforms than without, beyond chance.

    Parameters
    ----------
    matrices
        (count, 3, 3), of positions from the centre.
    pairs
        What was measured.
    kind
        One of ``KINDS``.
    plane
        The plane of the slices.
    """
    largest = max(largest_displacement(one, plane) for one in matrices)
    if not pairs or largest < LEAST_DRIFT:
        return False
    before, after = 0.0, 0.0
    moves = []
    for (i, j), pair in pairs.items():
        before += pair.misalignment(np.eye(3))
        after += pair.misalignment(matrices[j] @ np.linalg.inv(matrices[i]))
        moves.append(_root(pair) @ parameters_of(kind, pair.matrix - np.eye(3), plane))
    # By themselves, or together: a slow drift goes on in one direction.
    alone = np.mean(np.square(moves))
    together = np.mean(np.square(np.sum(moves, 0))) / len(moves)
    return after < IMPROVED * before and max(alone, together) > SIGNIFICANT
