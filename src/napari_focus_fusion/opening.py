"""Opens arrays, files and folders as focus stacks."""

from __future__ import annotations

import glob
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.axes import (
    LUMINANCE,
    axes_of_array,
    axis_letter,
    check_axes,
    guess_axes,
    unit_name,
)
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import SliceList, reordered
from napari_focus_fusion.parameters import (
    mapping,
    real_number,
    several,
    shown,
    text_of,
)
from napari_focus_fusion.placement import displayed_axes
from napari_focus_fusion.read import (
    IMAGE_SUFFIXES,
    TIFF_SUFFIXES,
    ZARR_SUFFIX,
    files_in,
    name_of_slices,
    natural_key,
    read_path,
    stem,
)
from napari_focus_fusion.read.ome_zarr import read_group
from napari_focus_fusion.stack import FocusStack, check_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_focus_fusion.read.source import Source

__all__ = [
    "ZARR_SUFFIX",
    "Job",
    "as_stack",
    "find_jobs",
    "stack_from_array",
    "stack_of_slices",
]


#: What metadata of a wrong type or value make readers raise.
_DAMAGED = (
    *(AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError),
    *(ArithmeticError, AssertionError, struct.error, EOFError, RuntimeError),
)


@dataclass(frozen=True)
class Job:
    """One stack to fuse: its name in the outputs, and the file or files it is in."""

    name: str
    files: tuple[Path, ...]

    @property
    def source(self) -> Path | list[Path]:
        """What ``fuse`` takes: a path, or the paths of the slices in order."""
        return self.files[0] if len(self.files) == 1 else list(self.files)


def find_jobs(
    inputs: Iterable[str], *, as_one_stack: bool = False
) -> tuple[list[Job], list[tuple[str, str]]]:
    """Sort out which files make which stack.

    A stack file (a TIFF or OME-Zarr with a Z axis) is a stack. Single images (PNG,
    JPEG, TIFF of one plane) are slices: those of one folder make one stack, in the
    order of their names with numbers read as numbers.

    Parameters
    ----------
    inputs
        Files, folders, or glob patterns.
    as_one_stack
        Whether all inputs form one stack, in the order given.

    Returns
    -------
    jobs, failures
        The stacks, and (input, reason) for each input that is none.
    """
    files: list[Path] = []
    failures: list[tuple[str, str]] = []
    for text in inputs:
        found = list(_files_of(text))
        if not found:
            failures.append((text, "no such file, or nothing in it that is an image"))
        files += [path for path in found if path not in files]
    if not files:
        return [], failures
    if as_one_stack:
        return [_job_of_slices(files)], failures

    stacks = [path for path in files if not _is_single_plane(path)]
    folders: dict[Path, list[Path]] = {}
    # The shell gives z1, z10, z2: sorted by name instead.
    for path in sorted(files, key=lambda path: natural_key(str(path))):
        if path not in stacks:
            folders.setdefault(path.parent, []).append(path)
    jobs = [Job(stem(path), (path,)) for path in stacks]
    return jobs + [_job_of_slices(slices) for slices in folders.values()], failures


def _job_of_slices(slices: Sequence[Path]) -> Job:
    if len(slices) == 1:
        return Job(stem(slices[0]), tuple(slices))
    return Job(name_of_slices([str(path) for path in slices]), tuple(slices))


def _files_of(text: str) -> Iterator[Path]:
    path = Path(text).expanduser()
    if path.is_dir() and path.suffix.lower() != ZARR_SUFFIX:
        endings = (*TIFF_SUFFIXES, *IMAGE_SUFFIXES, ZARR_SUFFIX)
        names = sorted((inside.name for inside in path.iterdir()), key=natural_key)
        for name in names:
            if name.lower().endswith(endings) and not name.startswith("."):
                yield path / name
    elif path.exists():
        yield path
    else:
        for match in sorted(glob.glob(str(path), recursive=True), key=natural_key):
            yield from _files_of(match)


def _is_single_plane(path: Path) -> bool:
    """Whether a file holds one plane; what cannot be read is left to ``fuse``."""
    suffix = path.suffix.lower()
    if suffix not in TIFF_SUFFIXES:
        return suffix in IMAGE_SUFFIXES
    try:
        stack = as_stack(path)
    except (FocusFusionError, OSError):
        return False
    return stack.n_slices == 1 and stack.n_times == 1


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
        TIFF, OME-TIFF, OME-Zarr, PNG or JPEG; glob pattern or folder of images (in
        natural order: ``a2`` before ``a10``); list of images or 2-D arrays, which
        become slices in the order given; or a FocusStack.
    axes
        One letter per dimension out of ``TCZYXS``, overriding the source's.
        None: from metadata, then from the shape where that leaves no doubt.
    scale
        Pixel sizes by axis letter, or one number per axis; overrides the source's.
    units
        Units by axis letter, or one unit for Z, Y and X; overrides the source's.
    name
        Name of the stack; None: the file's, or ``"stack"``.
    channel_names, display
        See :class:`FocusStack`; `display` is added to the source's.
    series
        Which image of a file that holds several (TIFF series, OME-Zarr position).

    Returns
    -------
    FocusStack

    Raises
    ------
    FocusFusionError
        If the source cannot be read as a focus stack; the text says why and what helps.

    Examples
    --------
    >>> import numpy as np
    >>> pixels = np.zeros((5, 40, 64), np.uint8)
    >>> stack = ff.as_stack(pixels, scale={"Z": 0.5, "Y": 0.1, "X": 0.1}, units="um")
    >>> stack.axes, stack.n_slices, stack.pixel_size("Z"), stack.unit("Z")
    ('ZYX', 5, 0.5, 'micrometer')
    """
    axes = None if axes is None else text_of("axes", axes)
    name = None if name is None else text_of("name", name)
    try:
        stack = _open(source, axes=axes, name=name, series=series)
    except FocusFusionError:
        raise
    except OSError as error:
        raise FocusFusionError(
            f"{shown(source)} cannot be read: {error.strerror or error}. Check that it "
            "is still there, and that you may read it."
        ) from error
    except _DAMAGED as error:
        raise FocusFusionError(
            f"{shown(source)} cannot be opened: what it says of itself is damaged, or "
            f"not what is expected ({error!r}). Check that it was copied completely, "
            "or open it in napari with the plugin for your microscope and fuse the "
            "layer."
        ) from error
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = name
    if scale is not None:
        changes["scale"] = {**stack.scale, **_scale_by_axis(scale, stack)}
    if units is not None:
        if isinstance(units, str):
            units = dict.fromkeys("ZYX", units)
        units = mapping("units", units)
        given = {
            axis_letter(text_of("an axis of units", axis)): unit_name(unit)
            for axis, unit in units.items()
        }
        changes["units"] = {**stack.units, **given}
    if channel_names is not None:
        names = several("channel_names", channel_names)
        changes["channel_names"] = tuple(map(str, names))
    if display is not None:
        changes["display"] = {**stack.display, **mapping("display", display)}
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
    check_dtype(np.dtype(data.dtype), name)
    letters = axes if axes is not None else hint
    letters = (
        guess_axes(shape, np.dtype(data.dtype), name) if letters is None else letters
    )
    letters = letters.upper()
    check_axes(letters, shape, name)
    ordered = "".join(a for a in letters if a not in "YXS") + "YX"
    ordered += "S" if "S" in letters else ""
    if ordered != letters:
        shown = letters.replace("S", "")
        if shown != ordered.replace("S", ""):
            fields["display"] = {"axes": shown, **fields.get("display", {})}
        data = reordered(data, tuple(letters.index(axis) for axis in ordered))
    return FocusStack(data, ordered, name=name, **fields)


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
        return _open_path(os.fspath(source), axes=axes, series=series)
    label = name or "stack"
    if _is_array(source):
        hint = axes_of_array(source)
        if hasattr(source, "variable") and getattr(source, "dims", None) is not None:
            source = source.data  # xarray
        return stack_from_array(source, axes=axes, hint=hint, name=label)
    if hasattr(source, "attrs") and hasattr(source, "members"):  # a zarr.Group
        return _stack_of(read_group(source, axes=axes, series=series), axes)
    if isinstance(source, Iterable) and not isinstance(source, Mapping | bytes):
        return _open_list(list(source), axes=axes, name=label)
    raise FocusFusionError(
        f"Cannot read a focus stack from {type(source).__name__!r}. Pass an array, a "
        "file or folder, or a list of pictures."
    )


def _open_path(path: str, *, axes: str | None, series: int | None) -> FocusStack:
    """Open a file, folder, glob pattern or Zarr address, lazily."""
    path = os.path.expanduser(path)
    slices = files_in(path)
    if slices:
        return _open_files(slices, axes=axes)
    return _stack_of(read_path(path, axes=axes, series=series), axes)


def _open_files(paths: Sequence[str], *, axes: str | None) -> FocusStack:
    """Open files of one slice each as one stack, in the order given, lazily."""
    if len(paths) == 1:
        return _open_path(paths[0], axes=axes, series=None)
    slices = [
        replace(_open_path(path, axes=None, series=None), name=Path(path).name)
        for path in paths
    ]
    return stack_of_slices(
        slices, axes=axes, name=name_of_slices(paths), source=", ".join(paths)
    )


def _stack_of(source: Source, axes: str | None) -> FocusStack:
    """Make a stack of what a reader found; the caller's axes win."""
    return stack_from_array(
        source.data,
        axes=axes,
        hint=source.axes,
        name=source.name,
        scale=source.scale,
        units=source.units,
        channel_names=source.channel_names,
        source=source.path,
        display=source.display,
    )


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
        return _open_files([os.fspath(item) for item in items], axes=axes)
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
    return "YXS" if len(array.shape) == 3 and array.shape[-1] in LUMINANCE else None


def _is_array(source: Any) -> bool:
    return all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__"))


def _yx(stack: FocusStack) -> str:
    return f"{stack.height} x {stack.width}"


def _pixel_size(axis: str, size: Any) -> float:
    return real_number(f"scale: the pixel size along {axis}", size, above=0)


def _scale_by_axis(
    scale: Mapping[str, float] | Sequence[float], stack: FocusStack
) -> dict[str, float]:
    if isinstance(scale, Mapping):
        return {
            axis_letter(text_of("an axis of scale", axis)): _pixel_size(axis, size)
            for axis, size in scale.items()
        }
    axes = displayed_axes(stack)
    sizes = several("scale", scale)
    if len(sizes) != len(axes):
        raise FocusFusionError(
            f"{stack.name!r} has axes {axes}, so scale needs {len(axes)} numbers; "
            f"got {len(sizes)}. Or name the axes: scale={{'Z': 0.5, 'Y': 0.1, "
            "'X': 0.1}."
        )
    pairs = zip(axes, sizes, strict=True)
    return {axis: _pixel_size(axis, size) for axis, size in pairs}
