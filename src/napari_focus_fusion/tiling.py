"""Tiles of a plane: pure integer geometry, no pixels.

A plane is cut into *cores* that cover it exactly once. To compute a core, a model
needs its *halo* too: the pixels around it that its receptive field covers. All tiles of
a plan are read in windows of one shape, so that one set of buffers, or one compiled
graph, serves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A rectangle of a plane, in pixels; the ends are exclusive.

    Attributes
    ----------
    y0, y1, x0, x1
        Rows and columns; they may lie outside the plane.
    """

    y0: int
    y1: int
    x0: int
    x1: int

    @classmethod
    def of(cls, y: slice, x: slice) -> Rectangle:
        """The rectangle of some rows and columns, both with bounds."""
        return Rectangle(y.start, y.stop, x.start, x.stop)

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x1 - self.x0

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def corner(self) -> tuple[int, int]:
        """First row and column."""
        return self.y0, self.x0

    @property
    def centre(self) -> tuple[int, int]:
        """Row and column of the pixel in the middle."""
        return (self.y0 + self.y1) // 2, (self.x0 + self.x1) // 2

    @property
    def y(self) -> slice:
        """Rows."""
        return slice(self.y0, self.y1)

    @property
    def x(self) -> slice:
        """Columns."""
        return slice(self.x0, self.x1)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index a plane with."""
        return self.y, self.x

    def moved(self, y: int, x: int) -> Rectangle:
        """So many rows further down and columns to the right."""
        return Rectangle(self.y0 + y, self.y1 + y, self.x0 + x, self.x1 + x)

    def grown(self, halo: int) -> Rectangle:
        """With so many pixels more on each side."""
        return Rectangle(self.y0 - halo, self.y1 + halo, self.x0 - halo, self.x1 + halo)

    def joined(self, other: Rectangle) -> Rectangle:
        """The smallest rectangle that holds both."""
        return Rectangle(
            min(self.y0, other.y0),
            max(self.y1, other.y1),
            min(self.x0, other.x0),
            max(self.x1, other.x1),
        )

    def inside_plane(self, height: int, width: int) -> Rectangle:
        """The part of it that lies inside a plane."""
        return Rectangle(
            max(self.y0, 0), min(self.y1, height), max(self.x0, 0), min(self.x1, width)
        )

    def window(self, halo: int, offset: int) -> tuple[slice, slice]:
        """It and a halo around it, in an array that begins `offset` pixels before."""
        return self.moved(offset, offset).grown(halo).slices


@dataclass(frozen=True, slots=True)
class Tile(Rectangle):
    """One rectangle of a plane, its core, and where it lies in what is computed for it.

    Attributes
    ----------
    top, left
        Where the core begins inside the window that is computed for it: the halo, or
        more where the last tile of a row is moved back to keep the common shape.
    """

    top: int = 0
    left: int = 0

    @property
    def inside(self) -> tuple[slice, slice]:
        """The core's place in its window."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How a plane of ``height`` x ``width`` pixels is cut.

    Attributes
    ----------
    height, width
        The plane, in pixels.
    core
        Largest height and width of a core, in pixels.
    halo
        Pixels to read around a core.
    align
        Cores begin at multiples of this (the chunk that a core is written to).
    """

    height: int
    width: int
    core: tuple[int, int]
    halo: int = 0
    align: tuple[int, int] = (1, 1)

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of every window, halo included."""
        rows = max(stop - start for start, stop in self._rows())
        columns = max(stop - start for start, stop in self._columns())
        return rows + 2 * self.halo, columns + 2 * self.halo

    def _rows(self) -> list[tuple[int, int]]:
        return even_split(self.height, self.core[0], self.align[0])

    def _columns(self) -> list[tuple[int, int]]:
        return even_split(self.width, self.core[1], self.align[1])

    def __len__(self) -> int:
        return len(self._rows()) * len(self._columns())

    def __iter__(self) -> Iterator[Tile]:
        high, wide = (size - 2 * self.halo for size in self.window)
        for y0, y1 in self._rows():
            for x0, x1 in self._columns():
                # The last window of a row or column starts earlier, so that it has the
                # shape of the others and does not extend past the plane needlessly.
                y = min(y0, self.height - high)
                x = min(x0, self.width - wide)
                yield Tile(y0, y1, x0, x1, y0 - y + self.halo, x0 - x + self.halo)

    def window_of(self, tile: Tile) -> tuple[slice, slice]:
        """Rows and columns to read for a tile; they may extend outside the plane."""
        high, wide = self.window
        y, x = tile.y0 - tile.top, tile.x0 - tile.left
        return slice(y, y + high), slice(x, x + wide)


def shifted(window: tuple[slice, slice], by: int) -> tuple[slice, slice]:
    """A window of a plane, in an array that has ``by`` more pixels on each side."""
    y, x = window
    return slice(y.start + by, y.stop + by), slice(x.start + by, x.stop + by)


def even_split(length: int, size: int, align: int = 1) -> list[tuple[int, int]]:
    """Cut ``range(length)`` into as few, as equal parts as ``size`` allows.

    Parameters
    ----------
    length
        What to cut, at least 1.
    size
        Largest part; at least ``align`` is used.
    align
        Parts begin at multiples of this.

    Returns
    -------
    list of (start, stop)
    """
    if length < 1 or size < 1 or align < 1:
        raise ValueError(f"cannot cut {length} pixels into {size} aligned to {align}")
    largest = max(size // align, 1) * align
    parts = -(-length // largest)
    equal = -(-length // parts)
    step = -(-equal // align) * align
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def rectangles_of(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
    """Rectangles that cover what is True in a mask, and nothing else, each once.

    Runs of each row; those that continue one of the row before make one with it.

    Returns
    -------
    list of (y0, y1, x0, x1)

    Examples
    --------
    >>> rectangles_of(np.array([[True, True, False], [True, True, True]]))
    [(0, 1, 0, 2), (1, 2, 0, 3)]
    >>> rectangles_of(np.array([[True, False, True], [True, False, True]]))
    [(0, 2, 0, 1), (0, 2, 2, 3)]
    """
    found: list[tuple[int, int, int, int]] = []
    open_: dict[tuple[int, int], int] = {}
    for y, row in enumerate([*mask, np.zeros(mask.shape[1], bool)]):
        edges = np.flatnonzero(np.diff(row.astype(np.int8), prepend=0, append=0))
        runs = {(int(a), int(b)) for a, b in edges.reshape(-1, 2)}
        for ended in [run for run in open_ if run not in runs]:
            found.append((open_.pop(ended), y, *ended))
        for run in runs:
            open_.setdefault(run, y)
    return sorted(found)


def evenly_spread(length: int, count: int) -> list[int]:
    """At most `count` of ``range(length)``, evenly spread, the ends among them.

    Parameters
    ----------
    length
        At least 0.
    count
        At least 2.

    Examples
    --------
    >>> evenly_spread(9, 3)
    [0, 4, 8]
    >>> evenly_spread(2, 3)
    [0, 1]
    """
    if length <= count:
        return list(range(length))
    return [i * (length - 1) // (count - 1) for i in range(count)]
