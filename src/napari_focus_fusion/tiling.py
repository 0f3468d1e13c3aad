"""Tiles of a plane: pure integer geometry, no pixels.

A plane is cut into *cores* that cover it exactly once. To compute a core, a model must
see its *halo* too: the ring of pixels that its receptive field reaches. All tiles of a
plan are read in windows of one shape, so that one set of buffers, or one compiled
graph, serves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Tile:
    """One rectangle of a plane, in pixels; ``stop`` is exclusive.

    Attributes
    ----------
    y0, y1, x0, x1
        The core: the pixels that this tile writes.
    top, left
        Where the core begins inside the window that is computed for it: the halo, or
        more where the last tile of a row is moved back to keep the common shape.
    """

    y0: int
    y1: int
    x0: int
    x1: int
    top: int = 0
    left: int = 0

    @property
    def height(self) -> int:
        """Height of the core in pixels."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Width of the core in pixels."""
        return self.x1 - self.x0

    @property
    def y(self) -> slice:
        """Rows of the core."""
        return slice(self.y0, self.y1)

    @property
    def x(self) -> slice:
        """Columns of the core."""
        return slice(self.x0, self.x1)

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
                # shape of the others and does not look past the plane for nothing.
                y = min(y0, self.height - high)
                x = min(x0, self.width - wide)
                yield Tile(y0, y1, x0, x1, y0 - y + self.halo, x0 - x + self.halo)

    def window_of(self, tile: Tile) -> tuple[slice, slice]:
        """Rows and columns to read for a tile; they may reach outside the plane."""
        high, wide = self.window
        y, x = tile.y0 - tile.top, tile.x0 - tile.left
        return slice(y, y + high), slice(x, x + wide)


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
