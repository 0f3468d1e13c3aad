"""Kinds of transforms, as matrices and as a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

Kind = Literal["translation", "similarity", "affine"]
KINDS: tuple[Kind, ...] = ("translation", "similarity", "affine")

#: Displacements (y, x) that each parameter adds to: constant, and along v and u, which
#: are y and x from the centre of the plane in units of half its diagonal.
_BASES: dict[str, list[Any]] = {
    "translation": [[[1, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]]],
    "similarity": [[[0, 1, 0], [0, 0, 1]], [[0, 0, -1], [0, 1, 0]]],
    "affine": [
        *([[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 0]]),
        *([[0, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 1]]),
    ],
}


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane in which transforms are described: centred, in units of its diagonal.

    Attributes
    ----------
    height, width
        Of the plane in pixels.
    """

    height: int
    width: int

    @property
    def centre(self) -> Array:
        """The position (y, x) of its centre, in pixels."""
        return np.array([(self.height - 1) / 2, (self.width - 1) / 2])

    @property
    def radius(self) -> float:
        """Half its diagonal in pixels: how far a corner is from the centre."""
        return float(np.hypot(self.height, self.width) / 2)

    def corners(self) -> Array:
        """(4, 2): the centres of its outermost pixels, from the plane's centre."""
        y, x = self.centre
        return np.array([[-y, -x], [-y, x], [y, -x], [y, x]])

    def to_pixels(self, matrix: Array) -> Array:
        """A transform of positions from the centre, as one of pixel positions."""
        found = np.array(matrix, np.float64)
        linear = found[..., :2, :2]
        found[..., :2, 2] += self.centre - linear @ self.centre
        return found

    def from_pixels(self, matrix: Array) -> Array:
        """The opposite of :meth:`to_pixels`."""
        found = np.array(matrix, np.float64)
        linear = found[..., :2, :2]
        found[..., :2, 2] += linear @ self.centre - self.centre
        return found


def basis(kind: str) -> Array:
    """(k, 2, 3): what each parameter of a kind adds to a displacement."""
    rows = list(_BASES["translation"])
    if kind != "translation":
        rows += _BASES[kind]
    return np.array(rows, np.float64)


def displacements(kind: str, positions: Array, plane: Plane) -> Array:
    """(n, 2, k): displacement in pixels of positions (n, 2) by one of each parameter.

    Positions are from the centre. A parameter moves a corner by as many pixels.
    """
    ones = np.ones((len(positions), 1))
    found = np.concatenate([ones, positions / plane.radius], 1)
    return np.einsum("kij,nj->nik", basis(kind), found)


def matrix_of(kind: str, parameters: Any, plane: Plane) -> Array:
    """Transforms (..., 3, 3) of positions from the centre, of parameters (..., k)."""
    moved = np.tensordot(np.asarray(parameters, float), basis(kind), (-1, 0))
    matrix = np.zeros((*moved.shape[:-2], 3, 3))
    matrix[...] = np.eye(3)
    matrix[..., :2, :2] += moved[..., 1:] / plane.radius
    matrix[..., :2, 2] = moved[..., 0]
    return matrix


def parameters_of(kind: str, difference: Array, plane: Plane) -> Array:
    """(k,): the parameters of a difference of two transforms (3, 3) of a kind."""
    moved = np.concatenate(
        [difference[:2, 2:], difference[:2, :2] * plane.radius], axis=1
    )
    rows = basis(kind)
    return np.asarray(
        np.einsum("kij,ij->k", rows, moved) / np.einsum("kij,kij->k", rows, rows)
    )


def largest_displacement(matrix: Array, plane: Plane) -> float:
    """By how many pixels a transform moves the corner that it moves most."""
    corners = plane.corners()
    moved = corners @ matrix[:2, :2].T + matrix[:2, 2] - corners
    return float(np.hypot(*moved.T).max())
