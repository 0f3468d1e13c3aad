"""Projections of a slab of slices that follows a surface."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_focus_fusion._version import __version__
from napari_focus_fusion.axes import METRES, unit_name
from napari_focus_fusion.device import choose_device, memory_budget
from napari_focus_fusion.engine.empty import without_empty_bands
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import plan_regions
from napari_focus_fusion.engine.reading import read_components
from napari_focus_fusion.engine.registering import alignment_of
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import Selection
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import (
    callback,
    checked_channel,
    file_path,
    one_of,
    real_number,
    shown,
    whole_number,
    yes_or_no,
)
from napari_focus_fusion.progress import Meter
from napari_focus_fusion.registration.registration import Registration
from napari_focus_fusion.result import FusionResult, write_image
from napari_focus_fusion.surface_map import surface_of
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.write.blocks import regions, write_block
from napari_focus_fusion.write.ome_zarr import (
    complete_output,
    create_output,
    open_output,
)
from napari_focus_fusion.write.picture import PICTURE_SUFFIXES, check_picture
from napari_focus_fusion.write.places import places_of
from napari_focus_fusion.write.saving import check_targets, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import LayerData
    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.surface_map import SurfaceMap

Method = Literal["mean", "max"]

#: A pixel of which less than half a slice of the slab is there has no value.
LEAST_SLICES = 0.5
_LENGTH = re.compile(
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*([^\d\s]*)\s*", re.I
)


@dataclass(frozen=True, eq=False, repr=False)
class Projection:
    """A projection of the slices around a surface.

    Parameters
    ----------
    image
        numpy or Zarr, axes `stack.fused_axes`, the stack's dtype.
    stack
        What was projected, with its one channel where one was chosen.
    provenance
        Slab, surface, version and source of the projection.
    inputs
        Files and folders that were read, which :meth:`save` never overwrites.

    Examples
    --------
    >>> import numpy as np
    >>> ff.project(np.zeros((5, 40, 64), np.uint8), np.full((40, 64), 2))
    <Projection 'stack': 40 x 64 uint8, mean of 1 slice at the surface>
    """

    image: Any
    stack: FocusStack
    provenance: dict[str, Any]
    inputs: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        stack, slab = self.stack, self.provenance["projection"]
        count, offset = slab["slices"], slab["offset"]
        where = f"{offset:+g} slices from" if offset else "at"
        notes = len(self.notes)
        return (
            f"<Projection {stack.name!r}: {stack.height} x {stack.width} "
            f"{stack.dtype}, {slab['method']} of {count} slice{'s' * (count != 1)} "
            f"{where} the surface"
            + (f"; {notes} note{'s' * (notes != 1)}>" if notes else ">")
        )

    @property
    def notes(self) -> list[str]:
        """What was missing, guessed or doubtful; empty if nothing was."""
        return list(self.provenance.get("notes", ()))

    def layers(self) -> list[LayerData]:
        """Give the image as napari layer-data tuples, one a channel, on its source.

        Returns
        -------
        list of (data, attributes, "image")
        """
        fused = FusionResult(
            self.image, None, None, None, self.stack, dict(self.provenance)
        )
        layers: list[LayerData] = []
        for pixels, attributes, kind in fused.fused_layers():
            name = attributes["name"].replace(" fused", " projection")
            metadata = {
                key: {**value, "output": "projection"}
                for key, value in attributes["metadata"].items()
            }
            layers.append(
                (pixels, {**attributes, "name": name, "metadata": metadata}, kind)
            )
        return layers

    def save(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write the image to a file.

        Parameters
        ----------
        path
            ``.ome.tif``, ``.ome.tiff``, ``.tif``, ``.tiff``; ``.png``, ``.jpg`` or
            ``.jpeg``, if it is one image of 8 bits (PNG: or 16); ``.ome.zarr`` or
            ``.zarr``.
        overwrite
            Whether an existing file may be replaced.

        Returns
        -------
        list of Path
            The one file.

        Raises
        ------
        FocusFusionError
            If it exists and `overwrite` is False, or writing fails; then nothing new is
            left behind.
        """
        path = file_path("path", path)
        overwrite = yes_or_no("overwrite", overwrite)
        check_projection_target(
            path, self.stack, overwrite=overwrite, inputs=self.inputs
        )
        description = {"output": "projection", **self.provenance}
        with written_whole([path], overwrite=overwrite) as (partial,):
            if path.suffix.lower() != ".zarr":
                write_image(
                    partial,
                    path.suffix,
                    self.image,
                    self.stack,
                    description=description,
                )
            else:
                target = create_output(partial, self.stack, maps=False)["fused"]
                axes = self.stack.fused_axes
                plane = (axes.index("Y"), axes.index("X"))
                size = 2 * target.chunks[plane[0]]
                for region in regions(target.shape, size, plane=plane):
                    target[region] = np.asarray(self.image[region])
                complete_output(partial, self.provenance)
        return [path]


def check_projection_target(
    path: Path, stack: FocusStack, *, overwrite: bool, inputs: frozenset[str]
) -> None:
    """Raise before any work is done if a projection could not be saved there."""
    suffix = path.suffix.lower()
    if suffix not in (".tif", ".tiff", ".zarr", *PICTURE_SUFFIXES):
        raise FocusFusionError(
            f"{str(path)!r}: projections are saved as .ome.tif, .ome.zarr, .png or "
            ".jpg. Choose a name with one of these endings."
        )
    if suffix in PICTURE_SUFFIXES:
        check_picture(path, stack.fused_shape, stack.fused_axes, stack.dtype)
    nbytes = int(np.prod(stack.fused_shape)) * stack.dtype.itemsize
    inputs |= places_of(stack)
    check_targets([path], overwrite=overwrite, inputs=inputs, nbytes=nbytes)


@dataclass(frozen=True, slots=True)
class Slab:
    """Some slices that follow a surface.

    Attributes
    ----------
    slices
        How many.
    offset
        How many slices its middle lies behind the surface.
    method
        How they become one.
    """

    slices: int
    offset: float
    method: Method

    def first(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """The first slice of the slab at each place of the surface.

        Of the maximum, which takes whole slices, the nearest.
        """
        first = places + (self.offset - (self.slices - 1) / 2)
        return np.floor(first + 0.5) if self.method == "max" else first

    def share(self, z: int, first: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of a slice is in the slab, from 0 to 1; 0 where there is no slab.

        So that the mean is that of slices interpolated linearly between two.
        """
        inside = np.minimum(z - first + 1, first + self.slices - z)
        return np.nan_to_num(inside).clip(0, 1)


def project(
    stack: Any,
    surface: Any,
    *,
    slices: int = 1,
    offset: float | str = 0.0,
    method: Method = "mean",
    channel: int | str | None = None,
    memory: int | str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Projection:
    """Project a slab of slices that follows a surface.

    Where the fusion brought the slices into register, so are those that are projected,
    also of another channel or stack; their brightness stays.

    Slices of the slab that the stack does not have, because it ends before, are absent,
    as are pixels that are NaN or masked: what is there counts. A pixel of which less
    than half a slice is there is NaN, in integer types 0, and a note says how many.

    Parameters
    ----------
    stack
        What is projected: anything that :func:`as_stack` opens. It may be another
        stack than the one in which the surface was found, of as many time points,
        slices, rows and columns.
    surface
        The :class:`FusionResult` that found the surface. Or a map of the same pixels,
        (Y, X) for all time points or (T, Y, X), as an array or file: whole numbers are
        slices from 0, as of a decision map; floating point numbers heights in the unit
        of Z, as of a depth map, NaN where there is no surface. Or the file that
        ``FusionResult.save`` wrote, of which the depth is taken.
    slices
        Thickness of the slab in slices, at least 1.
    offset
        How far the middle of the slab lies from the surface, towards later slices
        where it is positive: in slices, or as text with a unit of length like
        ``"-1.5 um"``, which needs the stack's pixel size along Z.
    method
        ``"mean"``: of the slab exactly where the surface is, the slices being
        interpolated linearly, so that there are no steps; rounded in integer types.
        ``"max"``: of the `slices` whole slices nearest to that; every pixel is an
        observed value.
    channel
        The only channel to project: its number from 0, or its name; None: all.
    memory
        Working memory beyond the result, as for :func:`fuse`.
    out
        OME-Zarr to write by region instead of holding the image in memory.
    overwrite
        Whether `out` may replace an existing one.
    progress
        Called with a :class:`Progress`, at most ten times a second, in this thread.
    should_stop
        Asked between slices; when it returns True the run ends with `Cancelled`.

    Returns
    -------
    Projection

    Raises
    ------
    FocusFusionError
        If stack, surface or a parameter is wrong, they do not belong together, or the
        slab lies outside of the stack everywhere.
    Cancelled
        If `should_stop` returned True.

    Examples
    --------
    >>> import numpy as np
    >>> stack = np.stack([np.full((40, 64), z, np.uint8) for z in (10, 20, 60, 90)])
    >>> surface = np.full((40, 64), 1.5, np.float32)  # between the slices 1 and 2
    >>> int(ff.project(stack, surface).image[0, 0])
    40
    >>> int(ff.project(stack, surface, slices=2, method="max").image[0, 0])
    60
    >>> int(ff.project(stack, surface, offset=1).image[0, 0])
    75
    """
    count = whole_number("slices", slices, least=1)
    method = one_of("method", method, get_args(Method))  # type: ignore[assignment]
    channel = checked_channel("channel", channel)
    budget = FusionSettings(memory=memory).memory  # type: ignore[arg-type]  # text too
    out = None if out is None else file_path("out", out)
    overwrite = yes_or_no("overwrite", overwrite)
    callback("progress", progress, "a Progress")
    callback("should_stop", should_stop)
    source = as_stack(stack)
    slab = Slab(count, offset_in_slices(offset, source), method)
    found = surface_of(surface, source)
    aligned = in_register_with(without_empty_bands(source), found.provenance)
    projected, components = channel_of(source, channel)
    inputs = found.inputs | places_of(source)
    provenance = {
        "software": "napari-focus-fusion",
        "version": __version__,
        "projection": {
            "slices": slab.slices,
            "offset": slab.offset,
            "method": slab.method,
            "channel": channel,
        },
        "surface": found.provenance,
        "source": source.source,
        "source_shape": list(source.data.shape),
        "source_axes": source.axes,
    }
    work = source.n_times * source.n_slices * source.height * source.width
    monitor = Monitor(Meter(work, progress), should_stop)
    run = _Run(aligned, found, slab, components)
    if out is None:
        image = np.empty(projected.fused_shape, source.dtype)
        provenance["notes"] = _fill(image, projected, run, budget, monitor)
        return Projection(image, projected, provenance, inputs)
    if out.suffix.lower() != ".zarr":
        raise FocusFusionError(
            f"out={shown(str(out))} must end in .ome.zarr, which is written by region; "
            "save() writes other files."
        )
    check_projection_target(out, projected, overwrite=overwrite, inputs=inputs)
    with written_whole([out], overwrite=overwrite) as (partial,):
        target = create_output(partial, projected, maps=False)["fused"]
        provenance["notes"] = _fill(target, projected, run, budget, monitor)
        complete_output(partial, provenance)
    written = open_output(out, projected)["fused"]
    return Projection(written, projected, provenance, inputs)


def in_register_with(stack: FocusStack, provenance: dict[str, Any]) -> FocusStack:
    """A stack with its slices where the fusion of this provenance saw them."""
    record = provenance.get("registration")
    if not record or alignment_of(stack).get("registration"):
        return stack
    return Registration.of_record(record).apply(stack)


@dataclass(frozen=True, slots=True)
class _Run:
    """What is projected, and how."""

    stack: FocusStack
    surface: SurfaceMap
    slab: Slab
    components: list[int]

    @property
    def bytes_a_pixel(self) -> int:
        """Working memory of a pixel of a region."""
        itemsize = self.stack.dtype.itemsize
        # The sum, its weights, one product; what is read, and the result. The map.
        each = 3 * 8 + 3 * itemsize + 2
        read = itemsize * self.stack.n_components
        return each * len(self.components) + read + 6 * 8


def _fill(
    image: Any,
    projected: FocusStack,
    run: _Run,
    budget: int | None,
    monitor: Monitor,
) -> list[str]:
    """Project region by region into an image; notes for the user."""
    stack = run.stack
    cells = memory_budget(choose_device("cpu"), budget) // run.bytes_a_pixel
    stored = not isinstance(image, np.ndarray)
    plan = plan_regions(stack, cells, stored=stored, jobs=1)
    for note in stack.notes:
        monitor.warn(note)
    counts: Counter[str] = Counter()
    done = 0
    for t in range(stack.n_times):
        when = f" (time point {t + 1} of {stack.n_times})" if stack.n_times > 1 else ""
        for region in plan:
            monitor.enter(f"Projecting{when}", done)
            pixels, found = _project_region(run, t, region, monitor)
            write_block(image, projected, t, region, pixels)
            counts += found
            done += region.area * stack.n_slices
    monitor.enter("Done", done)
    for text in _notes(counts, run):
        monitor.warn(text)
    return monitor.notes


def _project_region(
    run: _Run, t: int, region: Rectangle, monitor: Monitor
) -> tuple[NDArray[Any], Counter[str]]:
    """Pixels (components, h, w), and how many of them lack slices."""
    stack, slab = run.stack, run.slab
    first = slab.first(run.surface.places(t, region.y, region.x))
    shape = (len(run.components), region.height, region.width)
    mean = slab.method == "mean"
    lowest = -np.inf if stack.dtype.kind == "f" else np.iinfo(stack.dtype).min
    pixels = np.zeros(shape) if mean else np.full(shape, lowest, stack.dtype)
    there = np.zeros(shape)  # how many slices
    for z in range(stack.n_slices):
        monitor.advance(region.area)
        share = slab.share(z, first)
        area = _bounds(share > 0)
        if area is None:
            continue
        around = area.moved(region.y0, region.x0)
        values, present = read_components(
            stack, t, run.components, slice(z, z + 1), around.y, around.x
        )
        part = np.broadcast_to(share[area.slices], values[:, 0].shape)
        if present is not None:
            part = part * present[:, 0]
        there[:, *area.slices] += part
        if mean:
            pixels[:, *area.slices] += values[:, 0] * part
        else:
            inside = pixels[:, *area.slices]
            np.maximum(inside, values[:, 0], out=inside, where=part > 0)
    none = there < LEAST_SLICES - 1e-6
    if mean:
        pixels /= np.where(none, 1, there)
    if stack.dtype.kind != "f":
        pixels = np.rint(pixels) if mean else pixels
    pixels[none] = np.nan if stack.dtype.kind == "f" else 0
    counts = Counter(
        all=none.size,
        none=int(none.sum()),
        fewer=int((there < slab.slices - 1e-6).sum() - none.sum()),
    )
    return pixels.astype(stack.dtype), counts


def _notes(counts: Counter[str], run: _Run) -> list[str]:
    """What the slab lacks, in words.

    Raises
    ------
    FocusFusionError
        If it lies outside of the stack everywhere.
    """
    if counts["none"] == counts["all"]:
        raise FocusFusionError(
            f"The slab lies outside of {run.stack.name!r} everywhere, which has slices "
            f"0 to {run.stack.n_slices - 1}. Check the offset, and whether the map is "
            "of this stack: floating point numbers are heights in the unit of Z."
        )
    notes = []
    if counts["fewer"]:
        notes.append(
            f"{_percent(counts['fewer'], counts['all'])} of the pixels have fewer than "
            f"{run.slab.slices} slices, because the stack ends there or pixels are "
            "absent: what is there is projected."
        )
    if counts["none"]:
        value = "NaN" if run.stack.dtype.kind == "f" else "0"
        notes.append(
            f"{_percent(counts['none'], counts['all'])} of the pixels are {value}: "
            "there is no surface, or no slice of the slab."
        )
    return notes


def _percent(part: int, whole: int) -> str:
    return f"{max(100 * part / whole, 0.1):.1f} %"


def channel_of(
    stack: FocusStack, channel: int | str | None
) -> tuple[FocusStack, list[int]]:
    """The stack with one of its channels, and which components that has.

    Raises
    ------
    FocusFusionError
        If there is no such channel.
    """
    samples = range(stack.n_samples)
    if channel is None:
        return stack, list(range(stack.n_components))
    names = stack.channel_names
    index = names.index(channel) if channel in names else channel
    if isinstance(index, str) or not index < stack.n_channels:
        listed = f" ({', '.join(names)})" if names else ""
        raise FocusFusionError(
            f"{stack.name!r} has no channel {channel!r}. It has {stack.n_channels}, "
            f"counted from 0{listed}."
        )
    components = [index * stack.n_samples + sample for sample in samples]
    if "C" not in stack.axes:
        return stack, components
    display = dict(stack.display)
    for key in ("colormap", "contrast_limits"):
        several = display.get(key)
        if several is not None and not isinstance(several, str):
            if np.shape(several)[:1] == (stack.n_channels,):
                display[key] = [several[index]]
    place = stack.axes.index("C")
    data: Any = stack.data
    if isinstance(data, np.ndarray) or hasattr(data, "dask"):
        data = data[(*(slice(None),) * place, slice(index, index + 1))]
    else:
        data = Selection(data, [*map(range, data.shape[:place]), [index]])
    names = names[index : index + 1]
    chosen = replace(stack, data=data, channel_names=names, display=display)
    return chosen, components


def offset_in_slices(offset: float | str, stack: FocusStack) -> float:
    """An offset in slices, from slices or text with a unit of length.

    Raises
    ------
    FocusFusionError
        If it is neither, or the pixel size along Z is not known as a length.
    """
    if not isinstance(offset, str):
        return real_number("offset", offset)
    match = _LENGTH.fullmatch(offset)
    unit = unit_name(match[2]) if match else ""
    if match is None or (match[2] and unit not in METRES):
        raise FocusFusionError(
            f"offset={shown(offset)} is no offset: give a number of slices, or a "
            "length like '-1.5 um'."
        )
    if not match[2]:
        return real_number("offset", float(match[1]))
    if stack.unit("Z") not in METRES or "Z" not in stack.scale:
        raise FocusFusionError(
            f"offset={shown(offset)} is a length, and the pixel size of {stack.name!r} "
            "along Z is not known. Give the offset in slices, or the size: "
            "as_stack(..., scale={'Z': ...}, units='um')."
        )
    slice_ = stack.pixel_size("Z") * METRES[stack.unit("Z")]
    return real_number("offset", float(match[1]) * METRES[unit] / slice_)


def _bounds(mask: NDArray[np.bool_]) -> Rectangle | None:
    """The smallest rectangle that holds all that is true."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return Rectangle(
        int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    )
