"""Where the pixels of a stack, and of its results, lie in world coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack


def displayed_axes(stack: FocusStack) -> str:
    """Axes of a stack in the order of its source as it is displayed, without S."""
    return str(stack.display.get("axes", stack.axes.replace("S", "")))


def displayed_units(stack: FocusStack) -> tuple[str, ...]:
    """Unit of each axis of :func:`displayed_axes` in world coordinates.

    Those of the layer that the stack is from, if it is from one.
    """
    shown, units = displayed_axes(stack), stack.display.get("units")
    if units is not None and len(units) == len(shown):
        return tuple(units)
    return tuple(stack.unit(axis) for axis in shown)


@dataclass(frozen=True)
class Transform:
    """napari's chain of transforms of one layer.

    World = affine(rotate @ shear @ (scale * index) + translate), in the order of the
    axes that the layer has.

    Parameters
    ----------
    scale
        (n,): pixel size along each axis.
    translate
        (n,): world coordinates of the centre of the first pixel, before `affine`.
    rotate, shear
        (n, n).
    affine
        (n + 1, n + 1), homogeneous.
    """

    scale: NDArray[Any]
    translate: NDArray[Any]
    rotate: NDArray[Any]
    shear: NDArray[Any]
    affine: NDArray[Any]

    @classmethod
    def of(cls, stack: FocusStack) -> Transform:
        """Transform of a stack's source, in the order of :func:`displayed_axes`.

        Parameters
        ----------
        stack
            ``stack.display`` holds what napari gave: matrices, or its short forms of
            them (degrees, entries above the diagonal); what is absent is the identity.
        """
        shown, display = displayed_axes(stack), stack.display
        n, scale = len(shown), display.get("scale")
        if scale is None:
            scale = [stack.pixel_size(axis) for axis in shown]
        return cls(
            scale=_tail(scale, n, 1.0),
            translate=_tail(display.get("translate"), n, 0.0),
            rotate=_matrix(display.get("rotate"), n),
            shear=_matrix(display.get("shear"), n),
            affine=_matrix(display.get("affine"), n + 1),
        )

    def couples(self, first: int) -> bool:
        """Whether the axes before `first` turn into those from there on."""
        for matrix in (self.rotate, self.shear, self.affine[:-1, :-1]):
            block = np.abs(matrix[:first, first:]).sum()
            if block + np.abs(matrix[first:, :first]).sum() > 1e-9:
                return True
        return False

    def resampled(self, size: NDArray[Any], centre: NDArray[Any]) -> Transform:
        """Transform of pixels of another size.

        Parameters
        ----------
        size
            (n,): how many of the present pixels a new one is long, along each axis.
        centre
            (n,): centre of the first new pixel, in indices of the present ones.
        """
        shift = self.rotate @ self.shear @ (self.scale * centre)
        return Transform(
            self.scale * size,
            self.translate + shift,
            self.rotate,
            self.shear,
            self.affine,
        )

    def restricted(self, kept: Sequence[int]) -> Transform:
        """Transform of some axes, by index, as if the others were not there."""
        axes, homogeneous = list(kept), [*kept, len(self.scale)]
        square = np.ix_(axes, axes)
        return Transform(
            self.scale[axes],
            self.translate[axes],
            self.rotate[square],
            self.shear[square],
            self.affine[np.ix_(homogeneous, homogeneous)],
        )

    def attributes(self) -> dict[str, Any]:
        """The transform as keyword arguments of a napari layer."""
        return {
            "scale": tuple(self.scale.tolist()),
            "translate": tuple(self.translate.tolist()),
            "rotate": self.rotate,
            "shear": self.shear,
            "affine": self.affine,
        }


def _tail(values: Any, n: int, default: float) -> NDArray[Any]:
    """Last n values, with the default in front where there are fewer."""
    given = [] if values is None else np.asarray(values, float).ravel().tolist()
    return np.array(
        [default] * max(0, n - len(given)) + given[max(0, len(given) - n) :]
    )


def _matrix(given: Any, n: int) -> NDArray[Any]:
    """Square matrix of n rows: identity, embedded in it, or upper triangle given."""
    full = np.eye(n)
    if given is None:
        return full
    matrix = np.asarray(getattr(given, "affine_matrix", given), float)
    if matrix.ndim == 1:  # napari's shear: entries above the diagonal, row by row
        m = int((1 + np.sqrt(1 + 8 * matrix.size)) / 2)
        upper = np.eye(m)
        upper[np.triu_indices(m, 1)] = matrix
        matrix = upper
    if matrix.ndim == 0:  # napari's rotate: degrees in the plane
        c, s = np.cos(np.deg2rad(matrix)), np.sin(np.deg2rad(matrix))
        matrix = np.array([[c, -s], [s, c]])
    m = min(n, len(matrix))
    full[n - m :, n - m :] = matrix[len(matrix) - m :, len(matrix) - m :]
    return full
