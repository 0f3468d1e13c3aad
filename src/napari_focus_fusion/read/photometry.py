"""What pixel values mean: turned, inverted, palette, CMYK and grey-with-alpha images.

What is read looks as a viewer shows it; each is a :class:`LazyArray` around another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.lazy import LazyArray, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_focus_fusion.lazy import Pixels

#: By orientation tag of TIFF and EXIF: whether Y and X change places, and then which
#: of them runs backwards, to show row 0 at the top and column 0 at the left.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """One image, ``(y, x)`` or ``(y, x, samples)``, as its orientation tag shows it."""
    if orientation not in _TURNS:
        return pixels
    swap, down, left = _TURNS[orientation]
    pixels = pixels.swapaxes(0, 1) if swap else pixels
    return pixels[:: -1 if down else 1, :: -1 if left else 1]


def turned_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Rows and columns of an image as its orientation tag shows it."""
    swap = _TURNS.get(orientation, (False,))[0]
    return (width, height) if swap else (height, width)


class Turned(LazyArray):
    """An array of images as their orientation tag shows them.

    Parameters
    ----------
    data
        Array with Y and X next to each other.
    y
        Which axis is Y; X is the next.
    orientation
        2 to 8, as in TIFF and EXIF.
    """

    def __init__(self, data: Pixels, y: int, orientation: int) -> None:
        self.data = data
        self.y = y
        self.swap, self.down, self.left = _TURNS[orientation]
        super().__init__(
            self._swapped(data.shape), data.dtype, _chunks(data, self._swapped)
        )

    def _swapped(self, sizes: Any) -> list[int]:
        """Sizes of the axes, those of Y and X exchanged if they change places."""
        swapped = list(sizes)
        if self.swap:
            swapped[self.y], swapped[self.y + 1] = sizes[self.y + 1], sizes[self.y]
        return swapped

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        inner = list(spans)
        for axis, back in ((self.y, self.down), (self.y + 1, self.left)):
            if back:
                inner[axis] = _mirrored(spans[axis], self.shape[axis])
        if self.swap:
            inner[self.y], inner[self.y + 1] = inner[self.y + 1], inner[self.y]
        region = take(self.data, tuple(inner))
        if self.swap:
            region = region.swapaxes(self.y, self.y + 1)
        for axis, back in ((self.y, self.down), (self.y + 1, self.left)):
            region = np.flip(region, axis) if back else region
        return region


def _mirrored(span: slice, length: int) -> slice:
    """The same elements of an axis, counted from its end, in ascending order."""
    picked = range(*span.indices(length))
    if not picked:
        return slice(0, 0, 1)
    return slice(length - 1 - picked[-1], length - picked[0], picked.step)


class Converted(LazyArray):
    """An array whose pixels are computed from those of another, region by region.

    Parameters
    ----------
    data
        The other array.
    convert
        Makes a region of a region; travels to other processes.
    dtype
        Type of what it makes.
    samples
        Samples per pixel that it makes, on a last axis; None: the axes stay.
    replaces
        Whether the other array's last axis is that of its samples.
    """

    def __init__(
        self,
        data: Pixels,
        convert: Callable[[NDArray[Any]], NDArray[Any]],
        dtype: Any,
        samples: int | None = None,
        *,
        replaces: bool = False,
    ) -> None:
        self.data, self.convert = data, convert
        self.samples, self.replaces = samples, replaces
        super().__init__(self._with_samples(data.shape), dtype, self._chunks_of(data))

    def _with_samples(self, sizes: Any) -> list[int]:
        if self.samples is None:
            return list(sizes)
        kept = list(sizes)[:-1] if self.replaces else list(sizes)
        return [*kept, self.samples]

    def _chunks_of(self, data: Pixels) -> list[int] | None:
        return _chunks(data, self._with_samples)

    def _region(self, spans: tuple[slice, ...]) -> NDArray[Any]:
        if self.samples is None:
            return self.convert(take(self.data, spans))
        inner = spans[:-1]
        if self.replaces:
            inner = (*inner, slice(0, self.data.shape[-1], 1))
        return self.convert(take(self.data, inner))[..., spans[-1]]


def _chunks(data: Pixels, change: Callable[[Any], list[int]]) -> list[int] | None:
    chunks = getattr(data, "chunks", None)
    return None if chunks is None else change(chunks)


class Inverted:
    """White is 0: counts from the other end, so that white is the highest value."""

    def __init__(self, white: int) -> None:
        self.white = white

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Invert a region."""
        return np.asarray(self.white - pixels.astype(np.int64)).astype(pixels.dtype)


class Palette:
    """Indices of colours to RGB.

    Parameters
    ----------
    colours
        (n, 3), uint8 or uint16.
    """

    def __init__(self, colours: NDArray[Any]) -> None:
        self.colours = colours

    def __call__(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Colours of a region of indices: one axis more."""
        return self.colours[np.minimum(pixels, len(self.colours) - 1)]


def rgb_of_cmyk(pixels: NDArray[Any]) -> NDArray[Any]:
    """Cyan, magenta, yellow and black (and alpha, kept) as RGB (and alpha).

    Without a colour profile, which is what viewers do.
    """
    most = np.iinfo(pixels.dtype).max
    ink = pixels[..., :4].astype(np.float32) / np.float32(most)
    light = (1 - ink[..., :3]) * (1 - ink[..., 3:4])
    rgb = np.round(light * np.float32(most)).astype(pixels.dtype)
    return np.concatenate([rgb, pixels[..., 4:5]], axis=-1)


def rgba_of_grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Grey and alpha as RGBA."""
    return pixels[..., [0, 0, 0, 1]]
