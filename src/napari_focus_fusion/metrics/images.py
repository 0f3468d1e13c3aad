"""What a measure may be given, and how it is brought to grey levels 0..255.

The measures were defined on 8-bit images: several of them contain constants in grey
levels, so that the same image stored as 0..1 would score differently. Everything is
therefore mapped to 0..255 once, by one rule, here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import ArrayLike, NDArray

    Plane: TypeAlias = NDArray[np.float64]

SMALLEST_SIDE = 11  # the largest window that the six measures slide over an image

Range: TypeAlias = tuple[float, float]
DataRange: TypeAlias = float | Range | None
_Out = TypeVar("_Out")

_MOST_THREADS = 4  # each holds up to 17 planes of its own (Q_P)


def thread_map(function: Callable[..., _Out], *items: Iterable[Any]) -> Iterator[_Out]:
    """Apply `function` to the items on all cores; yield the results in order.

    FFTs and array arithmetic release the interpreter lock, so threads do. Each has a
    core; PyTorch, where `function` uses it, is kept from starting more of its own.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        cores = os.cpu_count() or 1
    pool = partial(ThreadPoolExecutor, min(cores, _MOST_THREADS))
    torch = sys.modules.get("torch")
    if torch is None:
        with pool() as threads:
            yield from threads.map(function, *items)
        return
    own = torch.get_num_threads()
    try:
        with pool(initializer=torch.set_num_threads, initargs=(1,)) as threads:
            yield from threads.map(function, *items)
    finally:  # what one thread asks for becomes the default of all that start later
        torch.set_num_threads(own)


def as_array(values: Any, name: str) -> NDArray[Any]:
    """Return values as an array, or raise an error."""
    if isinstance(values, str | os.PathLike):
        raise FocusFusionError(
            f"{name} is {shown(values)}, and files are not read here. Give its pixels, "
            "for example as_stack(path).data."
        )
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise FocusFusionError(
            f"{name} is no array of numbers, but {shown(values)}."
        ) from error


def _checked(image: ArrayLike, name: str) -> NDArray[Any]:
    """Return a real, finite image (Y, X) or (Y, X, 3), or raise an error."""
    array = as_array(image, name)
    if array.dtype.kind not in "uif":
        raise FocusFusionError(
            f"{name} holds values of type {array.dtype}; a grey or RGB picture of "
            "whole or decimal numbers is needed."
        )
    if array.ndim == 3 and array.shape[2] == 4:
        raise FocusFusionError(
            f"{name} has four samples per pixel (RGBA); remove the transparency first, "
            "for example with image[..., :3]."
        )
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise FocusFusionError(
            f"{name} has the shape {array.shape}; a single grey plane (Y, X) or an RGB "
            "picture (Y, X, 3) is needed. Measure channels and time points one by one."
        )
    if array.size == 0:
        raise FocusFusionError(f"{name} has no pixels: its shape is {array.shape}.")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FocusFusionError(
            f"{name} contains NaN or infinite values; fill or crop these pixels first."
        )
    return array


def _same_type(image: NDArray[Any] | Sources, other: NDArray[Any] | Sources) -> bool:
    """Return whether two images use one brightness scale: byte order may differ."""
    a, b = image.dtype, other.dtype
    return a.kind == b.kind and (a.kind == "f" or a.itemsize == b.itemsize)


def _too_small(shape: tuple[int, ...]) -> str:
    return (
        f"The pictures are {shape[1]} x {shape[0]} pixels; the measures slide windows "
        f"of {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels over them and need at least that."
    )


def _value_range(images: Sequence[NDArray[Any]], data_range: DataRange) -> Range:
    """Return the values that become 0 and 255; the rule is stated at `as_sources`."""
    if data_range is None:
        if images[0].dtype == np.uint8:
            return 0.0, 255.0
        low = min(float(image.min()) for image in images)
        high = max(float(image.max()) for image in images)
        return low, high if high > low else low + 1
    try:
        pair = data_range if isinstance(data_range, Sequence) else (0, data_range)
        low, high = map(float, pair)
    except (TypeError, ValueError):
        low = high = 0.0
    if not (np.isfinite((low, high)).all() and low < high):
        raise FocusFusionError(
            f"data_range={shown(data_range)} is not a range: give the largest possible "
            "value (65535 for full 16-bit data, 1 for 0..1) or a pair (low, high)."
        )
    return low, high


def grey_levels(image: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Map low..high to 0..255 linearly (values outside are not clipped)."""
    levels = np.asarray(image, dtype=np.float64)
    if (low, high) == (0, 255):
        return levels
    return (levels - low) * (255 / (high - low))


def split_channels(image: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return the contiguous (Y, X) planes of a grey or an RGB image."""
    planes = image[np.newaxis] if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return tuple(np.ascontiguousarray(plane) for plane in planes)


@dataclass(frozen=True, eq=False)
class PhaseFeatures:
    """Features of one plane, each float64 (Y, X).

    Attributes
    ----------
    congruency : array
        Phase congruency, 0..1.
    strongest, weakest : array
        Its largest and smallest moment over the orientations (edges and corners).

    Examples
    --------
    >>> import numpy as np
    >>> from napari_focus_fusion.metrics import phase_features
    >>> edge = np.zeros((64, 64))
    >>> edge[:, 32:] = 200
    >>> features = phase_features(edge)
    >>> bool(features.congruency[32, 32] > features.congruency[32, 16])
    True
    """

    congruency: Plane
    strongest: Plane
    weakest: Plane

    @property
    def maps(self) -> tuple[Plane, Plane, Plane]:
        """Return the three features in the order in which Q_P compares them."""
        return self.congruency, self.strongest, self.weakest


@dataclass(frozen=True, eq=False)
class Sources:
    """The slices that a fused image was made from, checked and in grey levels.

    Made by `prepare` (or silently by every measure); pass it in place of the arrays
    when several fused images are compared on the same slices.

    Attributes
    ----------
    planes : tuple of tuples of float64 arrays (Y, X)
        ``planes[channel][slice]``, grey levels 0..255.
    shape : tuple of int
        Shape of one slice, (Y, X) or (Y, X, 3).
    dtype : numpy.dtype
        Type of the slices as given.
    low, high : float
        The values that became 0 and 255.
    given_range : bool
        Whether the caller gave that range.
    phase : tuple of tuples of PhaseFeatures, or None
        Features of Q_P of `planes`, where they were computed in advance.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_focus_fusion.metrics import prepare, q_p
    >>> slices = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    >>> sources = prepare(slices)
    >>> sources.shape, len(sources.planes), len(sources.planes[0])
    ((32, 32), 1, 3)
    >>> best = max(slices, key=lambda fused: q_p(fused, sources))
    """

    planes: tuple[tuple[Plane, ...], ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: float
    high: float
    given_range: bool
    phase: tuple[tuple[PhaseFeatures, ...], ...] | None = None

    def check(self, image: ArrayLike, name: str) -> NDArray[Any]:
        """Return `image` as an array that can be compared with the slices.

        Raises
        ------
        FocusFusionError
            If its shape differs, or its type differs and no range was given.
        """
        array = _checked(image, name)
        if array.shape != self.shape:
            raise FocusFusionError(
                f"{name} has the shape {array.shape}, the slices have {self.shape}; "
                "compare pictures of one size and colour mode (a super-resolved image "
                "with slices of its own resolution)."
            )
        if not (self.given_range or _same_type(array, self)):
            raise FocusFusionError(
                f"{name} holds {array.dtype} values and the slices {self.dtype}; their "
                "brightness can only be compared if you say which range both use, for "
                "example data_range=255."
            )
        return array

    def channels(self, image: ArrayLike, name: str) -> tuple[Plane, ...]:
        """Return the planes of `image` in the grey levels of the slices."""
        return _measured_planes(self.check(image, name), self.low, self.high)


def _measured_planes(
    image: NDArray[Any], low: float, high: float
) -> tuple[NDArray[np.float64], ...]:
    """Split `image` into planes of grey levels, whole ones if it was rescaled.

    Whole levels, because gradient directions and flat windows are undefined on the
    rounding noise that a division leaves behind.
    """
    levels = grey_levels(image, low, high)
    if (low, high) != (0, 255):
        levels = np.floor(levels + 0.5)
    return split_channels(levels)


def as_sources(
    sources: Sources | ArrayLike | Sequence[ArrayLike], data_range: DataRange = None
) -> Sources:
    """Check slices and bring them to grey levels.

    8-bit data are taken as they are. Of every other type the darkest value in the
    slices becomes 0 and the brightest 255, in between linearly, rounded to whole grey
    levels; `data_range` replaces these two values. ``data_range=255`` takes values as
    they are.

    Parameters
    ----------
    sources : array (N, Y, X) or (N, Y, X, 3), sequence of slices, or Sources
        N >= 2 registered slices of one shape and dtype.
    data_range : float or (float, float), optional
        The largest possible value (from 0), or the lowest and the highest.

    Returns
    -------
    Sources

    Raises
    ------
    FocusFusionError
        If there are fewer than two slices, they differ in shape or type, are neither
        grey nor RGB, are smaller than 11 pixels, or contain NaN.

    Examples
    --------
    >>> import numpy as np
    >>> slices = np.linspace(100, 4000, 2 * 16 * 16).reshape(2, 16, 16)
    >>> sources = as_sources(slices)
    >>> sources.low, sources.high, float(sources.planes[0][1].max())
    (100.0, 4000.0, 255.0)
    """
    if isinstance(sources, Sources):
        if data_range is not None:
            raise FocusFusionError(
                "The slices were prepared already; give data_range when preparing them."
            )
        return sources
    try:
        images = list(sources)  # type: ignore[arg-type]
    except TypeError:
        raise FocusFusionError(
            "The slices must be an array (N, Y, X) or (N, Y, X, 3), or a list of "
            "pictures."
        ) from None
    slices = [_checked(image, f"Slice {n}") for n, image in enumerate(images, 1)]
    if len(slices) < 2:
        raise FocusFusionError(
            f"{len(slices)} slice(s) given; a fusion is measured against the two or "
            "more slices it was made from."
        )
    first = slices[0]
    for number, image in enumerate(slices, 1):
        if image.shape != first.shape:
            raise FocusFusionError(
                f"Slice {number} has the shape {image.shape}, slice 1 {first.shape}; "
                "all slices must be of one size and colour mode."
            )
        if data_range is None and not _same_type(image, first):
            raise FocusFusionError(
                f"Slice {number} holds {image.dtype} values, slice 1 {first.dtype}; "
                "convert them to one type or say which range all use with data_range."
            )
    if min(first.shape[:2]) < SMALLEST_SIDE:
        raise FocusFusionError(_too_small(first.shape))
    low, high = _value_range(slices, data_range)
    by_slice = [_measured_planes(image, low, high) for image in slices]
    return Sources(
        planes=tuple(zip(*by_slice, strict=True)),
        shape=first.shape,
        dtype=first.dtype,
        low=low,
        high=high,
        given_range=data_range is not None,
    )


def as_image(
    image: ArrayLike, name: str, data_range: DataRange = None
) -> tuple[Plane, ...]:
    """Return the checked planes of one image in grey levels; rule as `as_sources`."""
    array = _checked(image, name)
    return _measured_planes(array, *_value_range([array], data_range))


def as_pair(
    fused: ArrayLike, truth: ArrayLike, data_range: DataRange = None
) -> list[tuple[Plane, Plane]]:
    """Return the planes of two comparable images in grey levels, not rounded.

    The range is that of `truth` where it is not given.
    """
    true = _checked(truth, "The true image")
    low, high = _value_range([true], data_range)
    given = data_range is not None
    reference = Sources((), true.shape, true.dtype, low, high, given)
    found = reference.check(fused, "The fused image")
    if min(true.shape[:2]) < SMALLEST_SIDE:
        raise FocusFusionError(_too_small(true.shape))
    planes = (split_channels(grey_levels(image, low, high)) for image in (found, true))
    return list(zip(*planes, strict=True))


def over_channels(
    measure: Callable[[Plane, Sequence[Plane]], float],
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    data_range: DataRange,
) -> float:
    """Return the mean over the channels of a measure of one plane and its sources."""
    checked = as_sources(sources, data_range)
    fused_planes = checked.channels(fused, "The fused image")
    return float(np.mean(list(thread_map(measure, fused_planes, checked.planes))))
