"""Arrays that are read by region, and only where they are sliced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Pixels(Protocol):
    """What the pixels of a stack must offer.

    numpy, dask, Zarr and HDF5 arrays do, and every :class:`LazyArray`. ``chunks`` (or
    dask's ``chunksize``), where there is one, is the shape of what is read at once.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Type of the pixels: what numpy makes a dtype of."""

    def __getitem__(self, key: Any, /) -> Any:
        """A region, given by a slice of each axis; :func:`take` reads it."""


class LazyArray(ABC):
    """An array of known shape and type whose regions are read when sliced.

    Attributes
    ----------
    shape, dtype
        As of a numpy array.
    chunks
        Shape of what is read at once, or None where any region is cheap.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        chunks: Sequence[int] | None,
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.chunks = None if chunks is None else tuple(int(n) for n in chunks)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(
        self, dtype: np.dtype | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        return np.asarray(self[...], dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a region; `key` is made of slices, integers and an ellipsis."""
        spans, singles = self._spans(key)
        return self._region(spans).squeeze(singles)

    @abstractmethod
    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region given by one slice an axis, with bounds."""

    def _spans(self, key: Any) -> tuple[tuple[slice, ...], tuple[int, ...]]:
        """One slice an axis, with bounds, and the axes where a number was given."""
        parts = list(key) if isinstance(key, tuple) else [key]
        ellipses = [i for i, part in enumerate(parts) if part is Ellipsis]
        place = ellipses[0] if ellipses else len(parts)
        missing = self.ndim - (len(parts) - len(ellipses))
        if missing < 0 or len(ellipses) > 1:
            raise IndexError(f"{key} does not fit an array of {self.ndim} axes")
        parts[place : place + 1] = [slice(None)] * missing
        singles = tuple(i for i, part in enumerate(parts) if not _is_slice(part))
        for i, n in enumerate(self.shape):
            if i in singles:
                if not -n <= parts[i] < n:
                    raise IndexError(f"index {parts[i]} of {n} along axis {i}")
                parts[i] = slice(parts[i] % n, parts[i] % n + 1)
            else:
                parts[i] = slice(*parts[i].indices(n))
                if parts[i].step < 0:
                    raise IndexError(f"axis {i} is read forwards only")
        return tuple(parts), singles


class SliceList(LazyArray):
    """Arrays of one slice each, as one array with Z in front, read one by one.

    With `lead` they lie along several axes in front, such as channels and slices, the
    last of them varying fastest. With `stacks` each has a Z axis that it keeps.
    """

    def __init__(
        self,
        items: Sequence[Pixels],
        axes: Sequence[str],
        lead: Sequence[int] | None = None,
        *,
        stacks: bool = False,
    ) -> None:
        self.items = list(items)
        self.axes = list(axes)
        self.stacks = stacks
        self.lead = (len(self.items),) if lead is None else tuple(lead)
        first, letters = items[0], axes[0] if stacks else axes[0].replace("Z", "")
        sizes = dict(zip(axes[0], first.shape, strict=True))
        chunks = getattr(first, "chunksize", getattr(first, "chunks", None))
        ones = (1,) * len(self.lead)
        if chunks is not None:
            stored = dict(zip(axes[0], chunks, strict=True))
            chunks = (*ones, *(stored[axis] for axis in letters))
        shape = (*self.lead, *(sizes[axis] for axis in letters))
        super().__init__(shape, first.dtype, chunks)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        ranges = [range(*s.indices(n)) for s, n in zip(spans, self.shape, strict=True)]
        region = np.empty([len(r) for r in ranges], self.dtype)
        count = len(self.lead)
        for place in np.ndindex(*region.shape[:count]):
            index = 0
            for r, n, i in zip(ranges, self.lead, place, strict=False):
                index = index * n + r[i]
            axes, rest = self.axes[index], list(spans[count:])
            if "Z" in axes and not self.stacks:
                rest.insert(axes.index("Z"), slice(0, 1))
            read = take(self.items[index], tuple(rest)).reshape(region.shape[count:])
            if np.ma.is_masked(read):
                region = np.ma.asarray(region)
            region[place] = read
        return region


class Selection(LazyArray):
    """Some of the indices of an array along its first axes, read by region.

    A single index, not in a list, takes its axis away.
    """

    def __init__(self, data: Pixels, kept: Sequence[Sequence[int] | int]) -> None:
        self.data = data
        self.kept = [k if isinstance(k, int) else list(k) for k in kept]
        chunks = getattr(data, "chunks", None)
        lead = [len(k) for k in self.kept if not isinstance(k, int)]
        count = len(self.kept)
        super().__init__(
            [*lead, *data.shape[count:]],
            data.dtype,
            None if chunks is None else [*(1 for _ in lead), *chunks[count:]],
        )

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        ranges = [range(*s.indices(n)) for s, n in zip(spans, self.shape, strict=True)]
        region = np.empty([len(r) for r in ranges], self.dtype)
        count = sum(not isinstance(k, int) for k in self.kept)
        for place in np.ndindex(*region.shape[:count]):
            picked = iter([r[i] for r, i in zip(ranges, place, strict=False)])
            indices = [k if isinstance(k, int) else k[next(picked)] for k in self.kept]
            key = (*(slice(i, i + 1) for i in indices), *spans[count:])
            read = take(self.data, key).reshape(region.shape[count:])
            if np.ma.is_masked(read):
                region = np.ma.asarray(region)
            region[place] = read
        return region


class Reordered(LazyArray):
    """An array with its axes in another order, read and written by region."""

    def __init__(self, data: Pixels, order: tuple[int, ...]) -> None:
        self.data: Any = data  # writable if the array is
        self.order = order
        chunks = getattr(data, "chunks", None)
        super().__init__(
            [data.shape[i] for i in order],
            data.dtype,
            None if chunks is None else [chunks[i] for i in order],
        )

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        inner = tuple(spans[self.order.index(i)] for i in range(self.ndim))
        return take(self.data, inner).transpose(self.order)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Write a region; `value` has its shape."""
        spans, singles = self._spans(key)
        back = tuple(self.order.index(i) for i in range(self.ndim))
        region = np.expand_dims(np.asarray(value), singles)
        self.data[tuple(spans[i] for i in back)] = region.transpose(back)


def take(data: Pixels, key: tuple[slice, ...]) -> NDArray[Any]:
    """Read a region of any kind of array into memory; masked pixels stay masked."""
    region = data[key]
    if hasattr(region, "dask"):
        # Threads of this process, also where a cluster is dask's default scheduler.
        region = region.compute(scheduler="threads")
    return region if isinstance(region, np.ma.MaskedArray) else np.asarray(region)


def reordered(data: Pixels, order: tuple[int, ...]) -> Pixels:
    """Put the axes of any kind of array in another order, reading nothing."""
    if isinstance(data, np.ndarray) or hasattr(data, "dask"):
        view: Any = data
        return view.transpose(order)
    return Reordered(data, order)


def _is_slice(part: Any) -> bool:
    return isinstance(part, slice)
