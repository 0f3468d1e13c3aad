"""A focus stack: pixels that are read by region, and what their axes mean.

Everything downstream works on one form, ``(component, z, y, x)`` of one time point;
:class:`FocusStack` translates between that and whatever the data came as.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import SliceList, reordered, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES = "TCZYXS"
SUPPORTED_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("uint8", "uint16", "uint32", "int8", "int16", "int32"),
        *("float16", "float32", "float64"),
    )
)
# Rec. 601 luma; alpha says nothing about focus.
_LUMINANCE = {3: (0.299, 0.587, 0.114), 4: (0.299, 0.587, 0.114, 0.0)}
_COLOUR_MEAN = {1: (1.0,), 3: (1 / 3, 1 / 3, 1 / 3), 4: (1 / 3, 1 / 3, 1 / 3, 0.0)}
# A picture is rarely narrower than this: below it the order of the axes is a guess.
_NARROWEST_PICTURE = 16

_AXIS_NAMES = {
    **dict.fromkeys(("t", "time", "timepoint", "timepoints", "frame", "frames"), "T"),
    **dict.fromkeys(("c", "ch", "channel", "channels"), "C"),
    **dict.fromkeys(("z", "slice", "slices", "depth", "focus", "plane"), "Z"),
    **dict.fromkeys(("y", "row", "rows", "height"), "Y"),
    **dict.fromkeys(("x", "column", "columns", "col", "width"), "X"),
    **dict.fromkeys(("s", "rgb", "rgba", "sample", "samples", "band"), "S"),
}
_UNIT_NAMES = {
    **dict.fromkeys(("", "none", "pixels", "px", "reference frame"), "pixel"),
    **dict.fromkeys(
        ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometre"), "micrometer"
    ),
    **dict.fromkeys(("micrometres", "micrometers"), "micrometer"),
    **dict.fromkeys(("nm", "nanometre"), "nanometer"),
    **dict.fromkeys(("mm", "millimetre"), "millimeter"),
    **dict.fromkeys(("cm", "centimetre"), "centimeter"),
    **dict.fromkeys(("m", "metre"), "meter"),
    **dict.fromkeys(("å", "ångström", "a"), "angstrom"),
    **dict.fromkeys(("pm", "picometre"), "picometer"),
    **dict.fromkeys(("in", "inches"), "inch"),
    **dict.fromkeys(("s", "sec", "seconds"), "second"),
    **dict.fromkeys(("ms", "msec"), "millisecond"),
    **dict.fromkeys(("min", "minutes"), "minute"),
    **dict.fromkeys(("h", "hours"), "hour"),
}


@dataclass(frozen=True, slots=True, eq=False)
class FocusStack:
    """Pixels of a focus stack, read by region, with the meaning of their axes.

    Parameters
    ----------
    data
        Array of ``len(axes)`` dimensions: numpy, dask, Zarr or anything else with
        ``shape``, ``dtype`` and basic slicing.
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
        contrast_limits, colormap, gamma, ...); the core does not look inside.
        ``display["axes"]``, if present, is the order of the axes (without S) in the
        source as it is displayed, where that differs from `axes`.

    Raises
    ------
    FocusFusionError
        If the axes do not fit the data, nothing is in it, or the dtype is unsupported.
    """

    data: Any
    axes: str
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    name: str = "stack"
    channel_names: tuple[str, ...] = ()
    source: str = "array"
    display: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_axes(self.axes, tuple(self.data.shape), self.name)
        if self.axes.removesuffix("S")[-2:] != "YX":
            raise FocusFusionError(
                f"{self.name!r}: the axes {self.axes!r} must end in YX or YXS; "
                "as_stack() puts them in that order."
            )
        _check_dtype(np.dtype(self.data.dtype), self.name)
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
        if "S" in self.axes and self.n_samples not in _LUMINANCE:
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
            if not (np.isfinite(size) and size > 0):
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
    def fused_shape(self) -> tuple[int, ...]:
        """Shape of the fused image at scale 1."""
        return tuple(self.size(axis) for axis in self.fused_axes)

    @property
    def map_shape(self) -> tuple[int, ...]:
        """Shape of decision, confidence and depth."""
        return tuple(self.size(axis) for axis in self.map_axes)

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
        return self._read(t, z, y, x, slice(None), slice(None))

    def component_read(
        self, t: int, component: int, z: slice | Sequence[int], y: slice, x: slice
    ) -> NDArray[Any]:
        """Read one region of one component: ``(z, y, x)``; otherwise as `read`."""
        c, s = divmod(component, self.n_samples)
        if not 0 <= c < self.n_channels:
            raise IndexError(f"component {component} of {self.n_components}")
        return self._read(t, z, y, x, slice(c, c + 1), slice(s, s + 1))[0]

    def _read(
        self,
        t: int,
        z: slice | Sequence[int],
        y: slice,
        x: slice,
        c: slice,
        s: slice,
    ) -> NDArray[Any]:
        if not 0 <= t < self.n_times:
            raise IndexError(f"time point {t} of {self.n_times}")
        if not isinstance(z, slice):
            slices = [int(i) for i in z]
            first = slices[0] if slices else 0
            if slices != list(range(first, first + len(slices))):
                parts = [self._read(t, slice(i, i + 1), y, x, c, s) for i in slices]
                return np.concatenate(parts, axis=1)
            z = slice(first, first + len(slices))
        if z.stop is not None and z.stop > self.n_slices:
            raise IndexError(f"slice {z.stop - 1} of {self.n_slices}")

        picks = {"T": slice(t, t + 1), "C": c, "Z": z, "Y": y, "X": x, "S": s}
        try:
            region = take(self.data, tuple(picks[axis] for axis in self.axes))
        except (FocusFusionError, MemoryError):
            raise
        except Exception as error:  # readers raise whatever they like
            raise FocusFusionError(
                f"{self.name!r} cannot be read at time point {t}, slices {z.start} to "
                f"{z.stop}: {error}. Check that {self.source} is still there and was "
                "copied completely."
            ) from error
        order = [self.axes.index(axis) for axis in "TCSZYX" if axis in self.axes]
        region = region.transpose(order)
        depth = region.shape[-3] if "Z" in self.axes else 1
        region = region.reshape(-1, depth, *region.shape[-2:])
        return np.array(region, dtype=self.dtype, order="C", copy=True)

    def reference_weights(self, reference: int | str | None = None) -> NDArray[Any]:
        """Weights of the components in the one image that decides what is sharp.

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
        samples = _LUMINANCE.get(self.n_samples, (1.0,))
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
            index = int(reference)
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


def as_stack(
    source: Any,
    *,
    axes: str | None = None,
    scale: Mapping[str, float] | Sequence[float] | None = None,
    units: Mapping[str, str] | str | None = None,
    name: str | None = None,
    channel_names: Sequence[str] | None = None,
    display: Mapping[str, Any] | None = None,
    series: int | None = None,
) -> FocusStack:
    """Make a :class:`FocusStack` of anything that holds one, reading no pixels.

    Parameters
    ----------
    source
        Array (numpy, dask, Zarr, xarray, HDF5); Zarr group with OME metadata; path of a
        TIFF, OME-TIFF, OME-Zarr, PNG or JPEG; glob pattern or folder of pictures (in
        natural order: ``a2`` before ``a10``); list of pictures or 2-D arrays, which
        become slices in the order given; or a FocusStack.
    axes
        One letter per dimension out of ``TCZYXS``, overriding what the source says.
        None: from metadata, then from the shape where that leaves no doubt.
    scale
        Pixel sizes by axis letter, or one number per axis; overrides the source's.
    units
        Units by axis letter, or one unit for Z, Y and X; overrides the source's.
    name
        Name of the stack; None: the file's, or ``"stack"``.
    channel_names, display
        See :class:`FocusStack`; `display` is added to what the source brings.
    series
        Which image of a file that holds several (TIFF series, OME-Zarr position).

    Returns
    -------
    FocusStack

    Raises
    ------
    FocusFusionError
        If the source cannot be read as a focus stack; the text says why and what helps.
    """
    stack = _open(source, axes=axes, name=name, series=series)
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = name
    if scale is not None:
        changes["scale"] = {**stack.scale, **_scale_by_axis(scale, stack)}
    if units is not None:
        if isinstance(units, str):
            units = dict.fromkeys("ZYX", units)
        given = {_axis_letter(axis): unit_name(unit) for axis, unit in units.items()}
        changes["units"] = {**stack.units, **given}
    if channel_names is not None:
        changes["channel_names"] = tuple(map(str, channel_names))
    if display is not None:
        changes["display"] = {**stack.display, **display}
    return replace(stack, **changes) if changes else stack


def stack_from_array(
    data: Any,
    *,
    axes: str | None = None,
    hint: str | None = None,
    name: str = "stack",
    **fields: Any,
) -> FocusStack:
    """Make a FocusStack of one array; `hint` are axes from metadata, `axes` wins."""
    if not _is_array(data):
        data = np.asarray(data)
    try:
        np.dtype(data.dtype)
    except TypeError:  # a tensor of another library
        data = np.asarray(data)
    if any(n != n for n in data.shape):
        raise FocusFusionError(
            f"{name!r} is a dask array that does not know its own size. Call its "
            "compute_chunk_sizes() first."
        )
    if isinstance(data, np.ma.MaskedArray):
        if np.ma.is_masked(data):
            raise FocusFusionError(
                f"{name!r} has masked pixels. Fill them first, for example with "
                "stack.filled(0)."
            )
        data = data.data
    shape = tuple(data.shape)
    _check_dtype(np.dtype(data.dtype), name)
    letters = axes if axes is not None else hint
    letters = (
        guess_axes(shape, np.dtype(data.dtype), name) if letters is None else letters
    )
    letters = letters.upper()
    _check_axes(letters, shape, name)
    ordered = "".join(a for a in letters if a not in "YXS") + "YX"
    ordered += "S" if "S" in letters else ""
    if ordered != letters:
        shown = letters.replace("S", "")
        if shown != ordered.replace("S", ""):
            fields["display"] = {"axes": shown, **fields.get("display", {})}
        data = reordered(data, tuple(letters.index(axis) for axis in ordered))
    return FocusStack(data, ordered, name=name, **fields)


def guess_axes(shape: tuple[int, ...], dtype: np.dtype, name: str = "stack") -> str:
    """Axes of an array without metadata, where its shape leaves no doubt.

    Raises
    ------
    FocusFusionError
        If more than one reading of the shape is plausible.
    """
    colour = len(shape) > 2 and shape[-1] in _LUMINANCE
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3:
        if colour:
            picture = min(shape[:2]) >= _NARROWEST_PICTURE
            if picture and dtype in (np.dtype("uint8"), np.dtype("uint16")):
                return "YXS"
        elif shape[-1] >= _NARROWEST_PICTURE or shape[-1] * 4 >= max(shape):
            return "ZYX"
    if len(shape) == 4:
        if colour:
            return "ZYXS"
        if shape[0] == 1:
            return "CZYX"
        if shape[1] == 1:
            return "ZCYX"
    if len(shape) == 5 and shape[:2] == (1, 1) and not colour:
        return "TCZYX"
    examples = {
        3: '"ZYX" or "YXZ" (grey slices), "YXS" (one RGB picture)',
        4: '"CZYX" or "ZCYX" (channels), "TZYX" (time points), "ZYXS" (RGB)',
        5: '"TCZYX", "TZCYX" or "TZYXS"',
    }.get(len(shape), '"ZYX"')
    raise FocusFusionError(
        f"{name!r} has shape {shape} and does not say which axis is which. Name one "
        f"letter per axis (T time, C channel, Z slice, Y row, X column, S RGB), for "
        f"example axes={examples}."
    )


def axes_from_names(names: Iterable[Any] | None, ndim: int) -> str | None:
    """Axis letters of dimension names such as ``("z", "y", "x")``; None if unclear."""
    if names is None:
        return None
    letters = [_AXIS_NAMES.get(str(name).lower(), "") for name in names]
    if len(letters) != ndim or "" in letters or len(set(letters)) != ndim:
        return None
    return "".join(letters) if {"Y", "X"} <= set(letters) else None


def unit_name(unit: Any) -> str:
    """Spell a unit as OME-Zarr and napari do: ``"um"`` becomes ``"micrometer"``."""
    text = str(unit if unit is not None else "").strip()
    return _UNIT_NAMES.get(text.lower(), text)


def check_finite(
    block: NDArray[Any],
    *,
    t: int = 0,
    z0: int | Sequence[int] = 0,
    y0: int = 0,
    x0: int = 0,
    name: str = "stack",
) -> None:
    """Raise if a block holds NaN or infinity, saying where the first one is.

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
    if block.dtype.kind != "f" or block.size == 0:
        return
    # NaN and infinity survive a sum: one pass without a mask of the block's size.
    with np.errstate(all="ignore"):
        if np.isfinite(np.sum(block)):
            return
    finite = np.isfinite(block)
    if finite.all():
        return
    position = np.unravel_index(int(np.argmin(finite)), block.shape)
    z, y, x = (int(i) for i in position[-3:])
    value = block[position]
    z = z0 + z if isinstance(z0, int | np.integer) else z0[z]
    kind = "NaN (not a number)" if np.isnan(value) else "an infinite value"
    when = f"time point {t}, " if t else ""
    raise FocusFusionError(
        f"{name!r} contains {kind} at {when}slice {z}, row {y0 + y}, column {x0 + x} "
        "(counted from 0). Replace such pixels first, for example with "
        "numpy.nan_to_num(stack, posinf=0, neginf=0), or crop the empty border that a "
        "registration left."
    )


def _open(
    source: Any, *, axes: str | None, name: str | None, series: int | None
) -> FocusStack:
    if isinstance(source, FocusStack):
        if axes is None:
            return source
        names = source.channel_names if "C" in axes.upper() else ()
        return stack_from_array(
            source.data,
            axes=axes,
            name=source.name,
            scale=source.scale,
            units=source.units,
            channel_names=names,
            source=source.source,
            display={k: v for k, v in source.display.items() if k != "axes"},
        )
    if isinstance(source, str | os.PathLike):
        from napari_focus_fusion.io import open_path

        return open_path(os.fspath(source), axes=axes, series=series)
    label = name or "stack"
    if _is_array(source):
        return _open_array(source, axes=axes, name=label)
    if hasattr(source, "attrs") and hasattr(source, "members"):  # a zarr.Group
        from napari_focus_fusion.io.ome_zarr import open_group

        return open_group(source, axes=axes, series=series)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return _open_list(list(source), axes=axes, name=label)
    raise FocusFusionError(
        f"Cannot read a focus stack from {type(source).__name__!r}. Pass an array, a "
        "file or folder, or a list of pictures."
    )


def _open_array(source: Any, *, axes: str | None, name: str) -> FocusStack:
    names = getattr(source, "dims", None)  # xarray
    if names is not None and hasattr(source, "variable"):
        source = source.data
    metadata = getattr(source, "metadata", None)  # Zarr
    if names is None:
        names = getattr(metadata, "dimension_names", None)
    if names is None and metadata is not None:
        attributes = getattr(source, "attrs", None) or {}
        names = attributes.get("_ARRAY_DIMENSIONS")
    try:
        hint = axes_from_names(names, len(source.shape))
    except TypeError:  # some other library's .dims
        hint = None
    return stack_from_array(source, axes=axes, hint=hint, name=name)


def _open_list(items: list[Any], *, axes: str | None, name: str) -> FocusStack:
    if not items:
        raise FocusFusionError(
            "The list of slices is empty. A focus stack needs at least one."
        )
    paths = [isinstance(item, str | os.PathLike) for item in items]
    if any(paths):
        if not all(paths):
            raise FocusFusionError(
                "The list mixes files and arrays. Pass either the paths of all slices, "
                "or all slices as 2-D arrays."
            )
        from napari_focus_fusion.io import open_files

        return open_files([os.fspath(item) for item in items], axes=axes)
    if not all(_is_array(item) for item in items):
        try:
            return stack_from_array(np.array(items), axes=axes, name=name)
        except ValueError as error:
            if isinstance(error, FocusFusionError):
                raise
            raise FocusFusionError(
                "Cannot read a focus stack from this list. Pass 2-D arrays of one "
                "size, or paths of pictures."
            ) from error
    slices = [
        stack_from_array(item, hint=_one_slice_axes(item), name=f"slice {i} of {name}")
        for i, item in enumerate(items)
    ]
    return stack_of_slices(slices, axes=axes, name=name, source="array")


def _one_slice_axes(array: Any) -> str | None:
    return "YXS" if len(array.shape) == 3 and array.shape[-1] in _LUMINANCE else None


def stack_of_slices(
    slices: Sequence[FocusStack], *, axes: str | None, name: str, source: str
) -> FocusStack:
    """Join single slices along Z, in the order given, reading nothing.

    Raises
    ------
    FocusFusionError
        Naming the first slice that differs in size, type or colour from the first one.
    """
    first = slices[0]
    for one in slices:
        if one.n_slices > 1:
            raise FocusFusionError(
                f"{one.name!r} holds {one.n_slices} slices itself (axes {one.axes}, "
                f"shape {tuple(one.data.shape)}), but each item of a list must be one "
                "slice. Open a file that is a whole stack on its own."
            )
        for what, here, there in (
            ("pixels (rows x columns)", _yx(one), _yx(first)),
            ("channels", one.n_channels, first.n_channels),
            ("colour samples", one.n_samples, first.n_samples),
            ("time points", one.n_times, first.n_times),
            ("type", one.dtype, first.dtype),
        ):
            if here != there:
                raise FocusFusionError(
                    f"{one.name!r} does not fit the rest of the stack: {what} "
                    f"{here}, but {first.name!r} has {there}. All slices must agree; "
                    "take the odd one out or convert it."
                )
        if one.axes.replace("Z", "") != first.axes.replace("Z", ""):
            raise FocusFusionError(
                f"{one.name!r} has axes {one.axes}, but {first.name!r} has "
                f"{first.axes}. All slices must agree."
            )
    data = SliceList([one.data for one in slices], [one.axes for one in slices])
    return stack_from_array(
        data,
        axes=axes,
        hint="Z" + first.fused_axes,
        name=name,
        scale=first.scale,
        units=first.units,
        channel_names=first.channel_names,
        source=source,
        display=first.display,
    )


def _is_array(source: Any) -> bool:
    return all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__"))


def _yx(stack: FocusStack) -> str:
    return f"{stack.height} x {stack.width}"


def _axis_letter(axis: str) -> str:
    return _AXIS_NAMES.get(axis.lower(), axis.upper())


def _scale_by_axis(
    scale: Mapping[str, float] | Sequence[float], stack: FocusStack
) -> dict[str, float]:
    if isinstance(scale, Mapping):
        return {_axis_letter(axis): float(size) for axis, size in scale.items()}
    axes = str(stack.display.get("axes", stack.axes.replace("S", "")))
    sizes = [float(size) for size in scale]
    if len(sizes) != len(axes):
        raise FocusFusionError(
            f"{stack.name!r} has axes {axes}, so scale needs {len(axes)} numbers; "
            f"got {len(sizes)}. Or name the axes: scale={{'Z': 0.5, 'Y': 0.1, "
            "'X': 0.1}."
        )
    return dict(zip(axes, sizes, strict=True))


def _check_axes(axes: str, shape: tuple[int, ...], name: str) -> None:
    def wrong(what: str) -> FocusFusionError:
        return FocusFusionError(
            f"{name!r}: axes {axes!r} do not fit the shape {shape}: {what} Use one "
            "letter per axis: T time, C channel, Z slice, Y row, X column, S samples "
            "of RGB."
        )

    unknown = sorted(set(axes) - set(AXES))
    if unknown:
        raise wrong(f"there is no axis {', '.join(unknown)}.")
    repeated = sorted({axis for axis in axes if axes.count(axis) > 1})
    if repeated:
        raise wrong(f"{', '.join(repeated)} is named more than once.")
    if len(axes) != len(shape):
        raise wrong(f"{len(axes)} letters for {len(shape)} axes.")
    missing = [axis for axis in "YX" if axis not in axes]
    if missing:
        raise wrong(f"{' and '.join(missing)} is missing.")


def _check_dtype(dtype: np.dtype, name: str) -> None:
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
