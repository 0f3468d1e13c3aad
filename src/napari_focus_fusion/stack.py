"""A focus stack: pixels that are read by region, and what their axes mean.

All other modules work on one form, ``(component, z, y, x)`` of one time point;
:class:`FocusStack` translates between that and whatever the data came as.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.axes import LUMINANCE, check_axes
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import take
from napari_focus_fusion.parameters import (
    mapping,
    real_number,
    several,
    shown,
    text_of,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.lazy import Pixels

SUPPORTED_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("uint8", "uint16", "uint32", "int8", "int16", "int32"),
        *("float16", "float32", "float64"),
    )
)
_COLOUR_MEAN = {1: (1.0,), 3: (1 / 3, 1 / 3, 1 / 3), 4: (1 / 3, 1 / 3, 1 / 3, 0.0)}


@dataclass(frozen=True, slots=True, eq=False)
class FocusStack:
    """Pixels of a focus stack, read by region, with the meaning of their axes.

    Parameters
    ----------
    data
        Array of ``len(axes)`` dimensions: numpy, dask, Zarr or anything else with
        ``shape``, ``dtype`` and basic slicing
        (:class:`~napari_focus_fusion.lazy.Pixels`).
    axes
        One letter per dimension out of ``TCZYXS``; ends in ``YX``, or ``YXS`` where S
        holds the 3 or 4 samples of RGB(A). Without Z the stack has one slice.
    scale
        Pixel size per axis letter, in `units`; 1.0 where absent.
    units
        Unit per axis letter, e.g. ``"micrometer"``; ``"pixel"`` where absent.
    name
        What messages and results call the stack.
    channel_names
        One name a channel, or empty.
    source
        Where the pixels came from: path(s) or ``"array"``.
    display
        napari layer state that results inherit (translate, rotate, shear, affine,
        contrast_limits, colormap, gamma, ...); the core does not read it.
        ``display["axes"]``, if present, is the order of the axes (without S) in the
        source as it is displayed, where that differs from `axes`.
    notes
        What of the source was missing, wrong or guessed, in sentences for the user;
        those of the result begin with them.
    files
        Of a stack in several files: for each its path as ``"file"`` and, by axis
        letter, the index that it has; a file of several planes is there once a plane.

    Raises
    ------
    FocusFusionError
        If the axes do not fit the data, nothing is in it, or the dtype is unsupported.

    Examples
    --------
    >>> import numpy as np
    >>> stack = ff.FocusStack(np.zeros((2, 5, 40, 64), np.uint16), "CZYX")
    >>> stack.n_slices, stack.n_channels, stack.fused_axes, stack.map_shape
    (5, 2, 'CYX', (40, 64))
    """

    data: Pixels
    axes: str
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    name: str = "stack"
    channel_names: tuple[str, ...] = ()
    source: str = "array"
    display: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not all(hasattr(self.data, name) for name in ("shape", "dtype")):
            raise FocusFusionError(
                f"data={shown(self.data)} is no array; as_stack() opens other things."
            )
        for name in ("axes", "name"):
            text_of(name, getattr(self, name))
        for name in ("scale", "units", "display"):
            mapping(name, getattr(self, name))
        names = tuple(several("channel_names", self.channel_names))
        for name in names:
            if not isinstance(name, str):
                raise FocusFusionError(f"channel_names: {shown(name)} is no name.")
        object.__setattr__(self, "channel_names", names)
        check_axes(self.axes, tuple(self.data.shape), self.name)
        if self.axes.removesuffix("S")[-2:] != "YX":
            raise FocusFusionError(
                f"{self.name!r}: the axes {self.axes!r} must end in YX or YXS; "
                "as_stack() puts them in that order."
            )
        check_dtype(np.dtype(self.data.dtype), self.name)
        if self.n_slices == 0:
            raise FocusFusionError(
                f"{self.name!r} has no slices (shape {tuple(self.data.shape)}, axes "
                f"{self.axes}). A focus stack needs at least one."
            )
        if 0 in self.data.shape:
            raise FocusFusionError(
                f"{self.name!r} is empty: shape {tuple(self.data.shape)}, axes "
                f"{self.axes}. Check that the file was written completely."
            )
        if "S" in self.axes and self.n_samples not in LUMINANCE:
            raise FocusFusionError(
                f"{self.name!r}: the colour axis S has {self.n_samples} samples, but "
                "RGB has 3 and RGBA 4. If they are channels, name the axis C."
            )
        if self.channel_names and len(self.channel_names) != self.n_channels:
            raise FocusFusionError(
                f"{self.name!r} has {self.n_channels} channels but "
                f"{len(self.channel_names)} channel names: "
                f"{', '.join(self.channel_names)}."
            )
        for axis, size in self.scale.items():
            if not _is_positive(size):
                raise FocusFusionError(
                    f"{self.name!r}: the pixel size along {axis} is {size}; it must be "
                    "a positive number. Pass scale={...} to correct it."
                )

    def size(self, axis: str) -> int:
        """Length along an axis letter; 1 where the stack does not have it."""
        return int(self.data.shape[self.axes.index(axis)]) if axis in self.axes else 1

    @property
    def n_times(self) -> int:
        """Number of time points; each is a stack of its own."""
        return self.size("T")

    @property
    def n_channels(self) -> int:
        """Number of channels (axis C)."""
        return self.size("C")

    @property
    def n_samples(self) -> int:
        """Samples per pixel: 3 or 4 for RGB(A), else 1."""
        return self.size("S")

    @property
    def n_components(self) -> int:
        """Channels times samples: planes per slice."""
        return self.n_channels * self.n_samples

    @property
    def n_slices(self) -> int:
        """Number of slices along Z."""
        return self.size("Z")

    @property
    def height(self) -> int:
        """Rows of a slice."""
        return self.size("Y")

    @property
    def width(self) -> int:
        """Columns of a slice."""
        return self.size("X")

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels, in the machine's byte order."""
        return np.dtype(self.data.dtype).newbyteorder("=")

    @property
    def fused_axes(self) -> str:
        """Axes of the fused image: those of the stack without Z."""
        return self.axes.replace("Z", "")

    @property
    def map_axes(self) -> str:
        """Axes of decision, confidence and depth: without Z, C and S."""
        return "".join(axis for axis in self.axes if axis in "TYX")

    @property
    def channel_axes(self) -> str:
        """Axes of a map of each channel: without Z and S."""
        return self.fused_axes.replace("S", "")

    @property
    def fused_shape(self) -> tuple[int, ...]:
        """Shape of the fused image at scale 1."""
        return tuple(self.size(axis) for axis in self.fused_axes)

    @property
    def map_shape(self) -> tuple[int, ...]:
        """Shape of decision, confidence and depth."""
        return tuple(self.size(axis) for axis in self.map_axes)

    @property
    def channel_shape(self) -> tuple[int, ...]:
        """Shape of a map of each channel."""
        return tuple(self.size(axis) for axis in self.channel_axes)

    @property
    def chunk_yx(self) -> tuple[int, int] | None:
        """Rows and columns of one stored chunk; None where any region is cheap."""
        chunks = getattr(self.data, "chunksize", None)  # dask: the largest block
        if chunks is None:
            chunks = getattr(self.data, "chunks", None)  # Zarr, HDF5, our own readers
        if chunks is None:
            return None
        return int(chunks[self.axes.index("Y")]), int(chunks[self.axes.index("X")])

    def pixel_size(self, axis: str) -> float:
        """Pixel size along an axis letter, 1.0 where unknown."""
        return float(self.scale.get(axis, 1.0))

    def unit(self, axis: str) -> str:
        """Length unit (T: time unit) of an axis letter, ``"pixel"`` where unknown."""
        return self.units.get(axis, "pixel")

    def read(
        self, t: int, z: slice | Sequence[int], y: slice, x: slice
    ) -> NDArray[Any]:
        """Read one region of one time point, all components, and nothing else.

        Parameters
        ----------
        t
            Time point, 0 where the stack has no T axis.
        z, y, x
            Slices of step 1 (z: also a sequence of slice indices).

        Returns
        -------
        ndarray
            ``(components, z, y, x)`` in the stack's dtype, C-contiguous, the caller's
            own; component ``c * n_samples + s``.
        """
        return _filled(*self._read(t, z, y, x, slice(None), slice(None)))

    def read_present(
        self,
        t: int,
        z: slice | Sequence[int],
        y: slice,
        x: slice,
        component: int | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Read one region, and which of its pixels are there.

        A pixel is absent where the array is masked, or holds NaN: beyond what a
        registration or a stage left, or what a camera does not see.

        Parameters
        ----------
        t, z, y, x
            As `read` takes them.
        component
            The only one to read; None: all.

        Returns
        -------
        values : ndarray
            ``(components, z, y, x)`` as `read` returns it; 0 where a pixel is absent.
        present : ndarray or None
            bool, of the same shape; None where nothing is absent.

        Raises
        ------
        FocusFusionError
            If it holds infinite values.

        Examples
        --------
        >>> import numpy as np
        >>> slices = np.ma.zeros((2, 40, 64), np.uint8)
        >>> slices[1, :, :10] = np.ma.masked
        >>> whole = slice(None)
        >>> values, present = ff.as_stack(slices).read_present(0, [1], whole, whole)
        >>> int((~present).sum())
        400
        """
        c = s = slice(None)
        if component is not None:
            c, s = self._of_component(component)
        values, present = self._read(t, z, y, x, c, s)
        y0, x0 = y.indices(self.height)[0], x.indices(self.width)[0]
        z0 = z.indices(self.n_slices)[0] if isinstance(z, slice) else list(z)
        check_finite(values, t=t, z0=z0, y0=y0, x0=x0, name=self.name)
        numbers = ~np.isnan(values) if _may_hold_nan(values) else None
        if numbers is not None and not numbers.all():
            values[~numbers] = 0
            present = numbers if present is None else present & numbers
        if present is not None:
            values[~present] = 0
        return values, present

    def component_read(
        self, t: int, component: int, z: slice | Sequence[int], y: slice, x: slice
    ) -> NDArray[Any]:
        """Read one region of one component: ``(z, y, x)``; otherwise as `read`."""
        return _filled(*self._read(t, z, y, x, *self._of_component(component)))[0]

    def _of_component(self, component: int) -> tuple[slice, slice]:
        """Where a component lies along C and S."""
        c, s = divmod(component, self.n_samples)
        if not 0 <= c < self.n_channels:
            raise IndexError(f"component {component} of {self.n_components}")
        return slice(c, c + 1), slice(s, s + 1)

    def _read(
        self,
        t: int,
        z: slice | Sequence[int],
        y: slice,
        x: slice,
        c: slice,
        s: slice,
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Values as stored, and where they are not masked, None for everywhere."""
        if not 0 <= t < self.n_times:
            raise IndexError(f"time point {t} of {self.n_times}")
        if not isinstance(z, slice):
            slices = [int(i) for i in z]
            first = slices[0] if slices else 0
            if slices != list(range(first, first + len(slices))):
                parts = [self._read(t, slice(i, i + 1), y, x, c, s) for i in slices]
                return _joined(parts)
            z = slice(first, first + len(slices))
        if z.stop is not None and z.stop > self.n_slices:
            raise IndexError(f"slice {z.stop - 1} of {self.n_slices}")

        picks = {"T": slice(t, t + 1), "C": c, "Z": z, "Y": y, "X": x, "S": s}
        try:
            region = take(self.data, tuple(picks[axis] for axis in self.axes))
        except (FocusFusionError, MemoryError):
            raise
        except Exception as error:  # readers raise errors of any type
            raise FocusFusionError(
                f"{self.name!r} cannot be read at time point {t}, slices {z.start} to "
                f"{z.stop}: {error}. Check that {self.source} is still there and was "
                "copied completely."
            ) from error
        order = [self.axes.index(axis) for axis in "TCSZYX" if axis in self.axes]
        region = region.transpose(order)
        depth = region.shape[-3] if "Z" in self.axes else 1
        region = region.reshape(-1, depth, *region.shape[-2:])
        present = ~np.ma.getmaskarray(region) if np.ma.is_masked(region) else None
        values = np.ma.getdata(region)
        return np.array(values, dtype=self.dtype, order="C", copy=True), present

    def reference_weights(self, reference: int | str | None = None) -> NDArray[Any]:
        """Weights of the components in the reference image, which is scored.

        Parameters
        ----------
        reference
            Index or name of a channel; ``"luminance"`` (Rec. 601 on RGB, alpha 0);
            ``"mean"``; None for luminance on RGB and the mean over channels otherwise.

        Returns
        -------
        ndarray
            float32 ``(components,)``, adding up to 1.

        Raises
        ------
        FocusFusionError
            If there is no such channel, or luminance is asked of a stack without RGB.
        """
        samples = LUMINANCE.get(self.n_samples, (1.0,))
        channels = np.full(self.n_channels, 1 / self.n_channels)
        named = isinstance(reference, str) and reference in self.channel_names
        if reference is None:
            pass
        elif reference == "mean" and not named:
            samples = _COLOUR_MEAN[self.n_samples]
        elif reference == "luminance" and not named:
            if self.n_samples == 1:
                raise FocusFusionError(
                    f"{self.name!r} is not a colour (RGB) stack, so it has no "
                    'luminance. Choose a channel, or "mean".'
                )
        else:
            channels = np.zeros(self.n_channels)
            channels[self._channel_index(reference)] = 1
        return np.outer(channels, samples).ravel().astype(np.float32)

    def _channel_index(self, reference: int | str) -> int:
        if isinstance(reference, str) and reference in self.channel_names:
            return self.channel_names.index(reference)
        try:
            given = int(reference) if isinstance(reference, str) else reference
            index = whole_number("reference", given)
        except ValueError:
            index = -1
        if not 0 <= index < self.n_channels:
            names = f" ({', '.join(self.channel_names)})" if self.channel_names else ""
            raise FocusFusionError(
                f"{self.name!r} has no channel {reference!r}. It has "
                f"{self.n_channels}, counted from 0{names}; or say "
                '"mean", or "luminance" for RGB.'
            )
        return index


def _filled(values: NDArray[Any], present: NDArray[np.bool_] | None) -> NDArray[Any]:
    """What `read` gives for masked pixels: NaN in floating point numbers, else 0."""
    if present is not None:
        values[~present] = np.nan if values.dtype.kind == "f" else 0
    return values


def _joined(
    parts: Sequence[tuple[NDArray[Any], NDArray[np.bool_] | None]],
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Slices that were read one by one, along Z."""
    values = np.concatenate([values for values, _ in parts], axis=1)
    if all(present is None for _, present in parts):
        return values, None
    masks = [np.ones(v.shape, bool) if p is None else p for v, p in parts]
    return values, np.concatenate(masks, axis=1)


def _may_hold_nan(block: NDArray[Any]) -> bool:
    """Whether a sum over the block is no number: NaN and infinity survive it."""
    if block.dtype.kind != "f" or block.size == 0:
        return False
    with np.errstate(all="ignore"):
        return not np.isfinite(np.sum(block))


def _is_positive(size: Any) -> bool:
    try:
        return real_number("scale", size) > 0
    except FocusFusionError:
        return False


def check_finite(
    block: NDArray[Any],
    *,
    t: int = 0,
    z0: int | Sequence[int] = 0,
    y0: int = 0,
    x0: int = 0,
    name: str = "stack",
) -> None:
    """Raise if a block holds infinity, naming where the first one is.

    NaN is no error: such pixels are absent.

    Parameters
    ----------
    block
        ``([components,] z, y, x)`` as `FocusStack.read` returned it; integers pass.
    t
        Time point of the block.
    z0
        First slice of the block, or the index of each of its slices.
    y0, x0
        First row and column of the block.
    name
        Name of the stack, for the message.

    Raises
    ------
    FocusFusionError
        Naming slice, row and column, all counted from 0.
    """
    if not _may_hold_nan(block):
        return
    infinite = np.isinf(block)
    if not infinite.any():
        return
    position = np.unravel_index(int(np.argmax(infinite)), block.shape)
    z, y, x = (int(i) for i in position[-3:])
    z = z0 + z if isinstance(z0, int | np.integer) else z0[z]
    when = f"time point {t}, " if t else ""
    raise FocusFusionError(
        f"{name!r} contains an infinite value at {when}slice {z}, row {y0 + y}, column "
        f"{x0 + x} (counted from 0). Replace such values first, by NaN where there is "
        "no pixel, for example with numpy.where(numpy.isinf(stack), numpy.nan, stack)."
    )


def check_dtype(dtype: np.dtype, name: str) -> None:
    """Raise if pixels of this type cannot be fused, with what to do."""
    if dtype.newbyteorder("=") in SUPPORTED_DTYPES:
        return
    advice = {
        "b": "It is a mask of true and false, which has no sharp or blurred parts. "
        "Choose the image it was made from.",
        "c": "Complex numbers have no sharpness. Choose the magnitude or the phase, "
        "for example numpy.abs(stack).",
        "O": "The slices probably differ in size. Make them one array of numbers.",
        "V": "Structured pixels cannot be fused. Take one field, or make RGB an axis.",
        "i": "Convert it to 32 bits or fewer, for example stack.astype('int32').",
        "u": "Convert it to 32 bits or fewer, for example stack.astype('uint16').",
        "f": "Convert it, for example with stack.astype('float32').",
    }.get(dtype.kind, "Convert it, for example with stack.astype('float32').")
    raise FocusFusionError(
        f"{name!r} holds pixels of type {dtype}, which cannot be fused. {advice}"
    )
