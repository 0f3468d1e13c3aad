"""What a fusion gives back: pixels, maps, and where they came from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import Reordered
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.palette import channel_colours
from napari_focus_fusion.parameters import file_path, yes_or_no
from napari_focus_fusion.placement import Transform, displayed_axes, displayed_units
from napari_focus_fusion.read.names import stem
from napari_focus_fusion.write.blocks import regions
from napari_focus_fusion.write.ome_zarr import (
    axes_of,
    complete_output,
    create_output,
    levels,
)
from napari_focus_fusion.write.picture import (
    PICTURE_SUFFIXES,
    check_picture,
    write_picture,
)
from napari_focus_fusion.write.places import places_of
from napari_focus_fusion.write.saving import check_targets, written_whole
from napari_focus_fusion.write.tiff import write_ome_tiff

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_focus_fusion.registration.registration import Registration
    from napari_focus_fusion.stack import FocusStack

LayerData = tuple[Any, dict[str, Any], str]

_MAPS = ("decision", "confidence", "depth")
#: What has the strongest colour in the layer of what lies beyond the slices, as a share
#: of the contrast of the fused image.
BEYOND_SHOWN = 0.2
#: Rows and columns of a map that are read at once.
_BLOCK_SIDE = 2048
_HEX = re.compile("#[0-9a-fA-F]{6}")


def result_files(path: Path, scale: int = 1, reconstructed: bool = False) -> list[Path]:
    """The files that :meth:`FusionResult.save` writes for a name, the fused one first.

    A TIFF, PNG or JPEG has its maps as TIFF beside it; a Zarr holds everything.
    """
    if path.suffix.lower() == ".zarr":
        return [path]
    maps = _maps_of(scale, reconstructed)
    return [path, *(path.with_name(f"{stem(path)}_{name}.ome.tif") for name in maps)]


def _maps_of(scale: int, reconstructed: bool) -> tuple[str, ...]:
    finer = ("consistency",) if scale > 1 else ()
    return (*_MAPS, *finer, *(("beyond",) if reconstructed else ()))


@dataclass(frozen=True, eq=False, repr=False)
class FusionResult:
    """A fused stack.

    Parameters
    ----------
    fused
        All-in-focus image, numpy or Zarr, axes `stack.fused_axes`, the stack's dtype;
        Y and X are `scale` times the stack's.
    decision
        uint16, axes `stack.map_axes`: index along Z of the slice each pixel came from,
        counted from 0.
    confidence
        float32 in [0, 1], axes `stack.map_axes`.
    depth
        float32, axes `stack.map_axes`: height in the unit of Z (slice index times
        pixel size), finer than one slice.
    stack
        The source, for its axes, pixel sizes, units, name and display.
    provenance
        Model, weights, parameters, version, device and source of the run.
    scale
        Super-resolution factor of `fused`.
    consistency
        float32, axes `stack.map_axes`, where `scale` is not 1: how far the
        super-resolved image, brought back to the source's pixels, differs from the
        fused slices, as a share of their range. None otherwise.
    registration
        How the slices were brought into register; None: they were not.
    inputs
        Files and folders that were read, which :meth:`save` never overwrites; those of
        `stack` need not be among them.
    beyond
        float32, axes `stack.channel_axes`, of a model that reconstructs pixels: how far
        the fused image lies above the highest value that any slice has at that pixel
        (positive), or below the lowest (negative), in the units of the image; 0 where
        it lies between, or no slice has the pixel. Of RGB the luminance. None where
        pixels are taken from slices.

    Examples
    --------
    >>> import numpy as np
    >>> ff.fuse(np.zeros((5, 40, 64), np.uint8), "sml")
    <FusionResult 'stack': fused 40 x 64 uint8 of 5 slices, by sml; 1 note>
    """

    fused: Any
    decision: Any
    confidence: Any
    depth: Any
    stack: FocusStack
    provenance: dict[str, Any]
    scale: int = 1
    consistency: Any = None
    inputs: frozenset[str] = frozenset()
    registration: Registration | None = None
    beyond: Any = None

    def __repr__(self) -> str:
        stack, notes = self.stack, len(self.notes)
        sizes = dict(zip(stack.fused_axes, self.fused.shape, strict=True))
        kind = {3: " RGB", 4: " RGBA"}.get(stack.n_samples, "")
        if stack.n_channels > 1:
            kind += f" in {stack.n_channels} channels"
        model = self._model
        return (
            f"<FusionResult {stack.name!r}: fused {sizes['Y']} x {sizes['X']} "
            f"{stack.dtype}{kind} of {_count(stack.n_slices, 'slice')}"
            + (f" at {stack.n_times} time points" if stack.n_times > 1 else "")
            + (f", by {model}" if model else "")
            + (f"; {_count(notes, 'note')}>" if notes else ">")
        )

    @property
    def notes(self) -> list[str]:
        """What was missing, guessed or doubtful; empty if nothing was."""
        return list(self.provenance.get("notes", ()))

    @property
    def best_slice(self) -> int | NDArray[np.intp]:
        """The one slice that shows most of what is in focus, counted from 0.

        The slice that the decision map names most, each pixel weighted with its
        confidence, so that background does not count; of equal ones the first. Where
        no pixel is confident, all count the same. Of a stack with time points an
        array, one slice each.
        """
        stack = self.stack
        shape = (stack.n_times, stack.n_slices)
        weighted, plain = np.zeros(shape), np.zeros(shape)
        for region in regions(stack.map_shape, _BLOCK_SIDE):
            labels = np.asarray(self.decision[region]).ravel()
            weights = np.asarray(self.confidence[region], np.float64).ravel()
            t = region[0].start if "T" in stack.axes else 0
            weighted[t] += np.bincount(labels, weights, stack.n_slices)
            plain[t] += np.bincount(labels, minlength=stack.n_slices)
        counted = np.where(weighted.any(1, keepdims=True), weighted, plain)
        best = counted.argmax(1)
        return best if "T" in stack.axes else int(best[0])

    @property
    def _maps(self) -> tuple[str, ...]:
        return _maps_of(self.scale, self.beyond is not None)

    @property
    def _model(self) -> str:
        model = self.provenance.get("model", "")
        return str(model.get("name", "") if isinstance(model, dict) else model)

    def layers(self) -> list[LayerData]:
        """Give the result as napari layer-data tuples, without importing napari.

        Every layer lies exactly on its source. A source without axes before Z gives
        two-dimensional layers, which napari shows at every z; otherwise Z stays as one
        plane as thick as the whole stack. Channels become a layer each.

        Returns
        -------
        list of (data, attributes, "image")
            The fused image (one a channel) first, then decision, confidence, depth
            and, of a super-resolved image, consistency, and of a reconstructed one
            beyond (one a channel), which start hidden.
        """
        maps = [name for name in self._maps if name != "beyond"]
        return [
            *self.fused_layers(),
            *(self.map_layer(name) for name in maps),
            *self._beyond_layers(),
        ]

    def save(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write fused image, decision, confidence and depth to files.

        Parameters
        ----------
        path
            ``.ome.tif``, ``.ome.tiff``, ``.tif`` or ``.tiff``: the fused image as
            OME-TIFF, and the maps beside it as ``NAME_decision.ome.tif`` and so on.
            ``.png``, ``.jpg`` or ``.jpeg``: the fused image alone so, if it is one
            image of 8 bits (PNG: or 16); JPEG changes pixels a little.
            ``.ome.zarr`` or ``.zarr``: all in one OME-Zarr 0.5, the decision as label
            image, confidence and depth as images inside.
        overwrite
            Whether existing files may be replaced.

        Returns
        -------
        list of Path
            What was written, the fused image first.

        Raises
        ------
        FocusFusionError
            If a file exists and `overwrite` is False, or writing fails; then nothing
            new is left behind.
        """
        path = file_path("path", path)
        overwrite = yes_or_no("overwrite", overwrite)
        suffix = path.suffix.lower()
        if suffix in PICTURE_SUFFIXES:
            fused = self.fused
            axes, dtype = self.stack.fused_axes, np.dtype(fused.dtype)
            check_picture(path, tuple(fused.shape), axes, dtype)
        if suffix in (".tif", ".tiff", *PICTURE_SUFFIXES):
            return self._save_tiff(path, overwrite=overwrite)
        if suffix == ".zarr":
            return self._save_zarr(path, overwrite=overwrite)
        raise FocusFusionError(
            f"{str(path)!r}: results are saved as .ome.tif, .ome.zarr, .png or .jpg. "
            "Choose a name with one of these endings."
        )

    def _save_tiff(self, path: Path, *, overwrite: bool) -> list[Path]:
        targets = result_files(path, self.scale, self.beyond is not None)
        check_targets(
            targets,
            overwrite=overwrite,
            inputs=self.inputs | places_of(self.stack),
            nbytes=self._nbytes(),
        )
        with written_whole(targets, overwrite=overwrite) as partials:
            names = ("fused", *self._maps)
            for name, partial in zip(names, partials, strict=True):
                description = {"output": name, **self.provenance}
                if name == "fused":
                    write_image(
                        partial,
                        path.suffix,
                        self.fused,
                        self.stack,
                        scale=self.scale,
                        description=description,
                    )
                    continue
                unit = self.stack.unit("Z")
                titles: tuple[str, ...] = (name,)
                if name == "depth":
                    titles = (f"depth ({unit})",)
                if name == "beyond" and "C" in self.stack.axes:
                    titles = self.stack.channel_names
                write_ome_tiff(
                    partial,
                    getattr(self, name),
                    axes_of(name, self.stack),
                    name=f"{self.stack.name} {name}",
                    pixel_sizes=pixel_sizes(self.stack),
                    channel_names=titles,
                    description=description,
                )
        return targets

    def _save_zarr(self, path: Path, *, overwrite: bool) -> list[Path]:
        check_targets(
            [path],
            overwrite=overwrite,
            inputs=self.inputs | places_of(self.stack),
            nbytes=self._nbytes(),
        )
        with written_whole([path], overwrite=overwrite) as (partial,):
            arrays = create_output(
                partial,
                self.stack,
                scale=self.scale,
                reconstructed=self.beyond is not None,
            )
            for name, target in arrays.items():
                source = getattr(self, name)
                axes = axes_of(name, self.stack)
                plane = (axes.index("Y"), axes.index("X"))
                size = 2 * target.chunks[plane[0]]
                for region in regions(target.shape, size, plane=plane):
                    target[region] = np.asarray(source[region])
            complete_output(partial, self.provenance)
        return [path]

    def _nbytes(self) -> int:
        arrays = [getattr(self, name) for name in ("fused", *self._maps)]
        return sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in arrays)

    def fused_layers(self) -> list[LayerData]:
        """The first of :meth:`layers`: the fused image, one layer a channel."""
        stack, display = self.stack, self.stack.display
        rgb = "S" in stack.axes
        common: dict[str, Any] = {
            "rgb": rgb,
            **{
                key: display[key]
                for key in ("blending", "gamma", "interpolation2d")
                if display.get(key) is not None
            },
        }
        if "C" not in stack.axes:
            own: dict[str, Any] = {}
            if not rgb and display.get("colormap") is not None:
                own["colormap"] = self._colours()[0]
            pixels, place = self._placed(self.fused, stack.fused_axes, self.scale)
            if not rgb:
                own["contrast_limits"] = self._contrast(pixels, 0)
            return [self._layer("fused", pixels, {**common, **own, **place})]
        layers = []
        colours = self._colours()
        for channel in range(stack.n_channels):
            pixels, place = self._placed(
                self.fused, stack.fused_axes, self.scale, channel=channel
            )
            own = {"blending": "additive"} if stack.n_channels > 1 else {}
            if not rgb:
                own["colormap"] = colours[channel]
                own["contrast_limits"] = self._contrast(pixels, channel)
            name = f"{self._channel_names[channel]} fused"
            layers.append(self._layer(name, pixels, {**common, **own, **place}))
        return layers

    @property
    def _channel_names(self) -> Sequence[str]:
        count = self.stack.n_channels
        return self.stack.channel_names or [f"channel {i}" for i in range(count)]

    def _beyond_layers(self) -> list[LayerData]:
        """The map of what lies beyond the slices, one layer a channel."""
        if self.beyond is None:
            return []
        stack, layers = self.stack, []
        several = "C" in stack.axes
        for channel in range(stack.n_channels):
            which = channel if several else None
            fused, _ = self._placed(self.fused, stack.fused_axes, 1, channel=which)
            low, high = self._contrast(fused, channel)
            pixels, place = self._placed(
                self.beyond, stack.channel_axes, 1, channel=which
            )
            reach = BEYOND_SHOWN * (high - low)
            attributes = {
                "rgb": False,
                "colormap": "PiYG",
                "contrast_limits": (-reach, reach),
                "visible": False,
                **place,
            }
            title = f"{self._channel_names[channel]} beyond" if several else "beyond"
            layers.append(self._layer(title, pixels, attributes))
        return layers

    def map_layer(self, name: str) -> LayerData:
        """One of the maps of :meth:`layers`, by its name."""
        last = max(self.stack.n_slices - 1, 1)
        colormap, limits = {
            "decision": ("turbo", (0.0, float(last))),
            "confidence": ("magma", (0.0, 1.0)),
            "depth": ("viridis", (0.0, last * self.stack.pixel_size("Z"))),
            "consistency": ("magma", (0.0, 0.2)),
        }[name]
        pixels, place = self._placed(getattr(self, name), self.stack.map_axes, 1)
        attributes = {
            "rgb": False,
            "colormap": colormap,
            "contrast_limits": limits,
            "visible": False,
            **place,
        }
        return self._layer(name, pixels, attributes)

    def _layer(
        self, title: str, pixels: list[Any], attributes: dict[str, Any]
    ) -> LayerData:
        model = self._model
        output = title.rpartition(" ")[2]
        finer = f" × {self.scale}" if output == "fused" and self.scale > 1 else ""
        pyramid = len(pixels) > 1
        return (
            pixels if pyramid else pixels[0],
            {
                "name": f"{self.stack.name} {title}{finer}"
                + (f" [{model}]" if model else ""),
                "multiscale": pyramid,
                "metadata": {METADATA_KEY: {"output": output, **self.provenance}},
                **attributes,
            },
            "image",
        )

    def _colours(self) -> Sequence[Any]:
        count = self.stack.n_channels
        given = self.stack.display.get("colormap")
        if isinstance(given, list | tuple) and len(given) == count:
            return given
        if count == 1:
            return [given if given is not None else "gray"]
        return channel_colours(count)

    def _contrast(self, pixels: list[Any], channel: int) -> tuple[float, float]:
        limits = self.stack.display.get("contrast_limits")
        if limits is not None:
            pair = np.asarray(limits, float)
            if pair.shape == (self.stack.n_channels, 2):
                pair = pair[channel]
            if pair.shape == (2,):
                return float(pair[0]), float(pair[1])
        if self.stack.dtype == np.uint8:
            return 0.0, 255.0
        overview = np.asarray(pixels[-1])
        known = overview[np.isfinite(overview)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0, 1)
        return (low, high) if low < high else (low, low + 1)

    def _placed(
        self, array: Any, axes: str, factor: int, channel: int | None = None
    ) -> tuple[list[Any], dict[str, Any]]:
        """Resolution levels of one layer, and what puts it on its source."""
        shown, transform = displayed_axes(self.stack), Transform.of(self.stack)
        # A result has no extent along these.
        removed = "".join(axis for axis in shown if axis in "ZC")
        first = 0
        while first < len(shown) and shown[first] in removed:
            first += 1
        if transform.couples(first):
            first = 0

        # In pixels of the source: the new pixel's size, and its first pixel's centre.
        size, centre = np.ones(len(shown)), np.zeros(len(shown))
        for i, axis in enumerate(shown):
            if axis in removed:
                size[i] = self.stack.size(axis)
                centre[i] = (size[i] - 1) / 2
            elif axis in "YX":
                size[i] = 1 / factor
                centre[i] = (1 / factor - 1) / 2
        kept_axes = range(first, len(shown))
        place = transform.resampled(size, centre).restricted(kept_axes).attributes()

        display = self.stack.display
        labels = display.get("axis_labels") or [axis.lower() for axis in shown]
        place["axis_labels"] = tuple(labels)[first:]
        place["units"] = displayed_units(self.stack)[first:]
        kept = "".join(a for a in shown[first:] if a in axes and a not in removed)
        order = kept + ("S" if "S" in axes else "")
        pixels = [
            _with_axes(level, axes, order, shown[first:], removed, channel)
            for level in _levels(array)
        ]
        return pixels, place


def write_image(
    partial: Path,
    suffix: str,
    image: Any,
    stack: FocusStack,
    *,
    scale: int = 1,
    description: dict[str, Any],
) -> None:
    """Write an image of the axes ``stack.fused_axes`` as TIFF, PNG or JPEG.

    Parameters
    ----------
    partial
        File to write.
    suffix
        Ending that stands for the format.
    image
        numpy or Zarr.
    stack
        Its source.
    scale
        How many times finer than its source it is.
    description
        Provenance, and under ``"output"`` what it is.
    """
    sizes = pixel_sizes(stack, scale)
    if suffix.lower() in PICTURE_SUFFIXES:
        write_picture(
            partial,
            image,
            stack.fused_axes,
            suffix=suffix,
            pixel_sizes=sizes,
            description=description,
        )
        return
    write_ome_tiff(
        partial,
        image,
        stack.fused_axes,
        name=f"{stack.name} {description['output']}",
        pixel_sizes=sizes,
        channel_names=stack.channel_names if "S" not in stack.axes else (),
        colours=_hex_colours(stack),
        description=description,
    )


def pixel_sizes(stack: FocusStack, scale: int = 1) -> dict[str, tuple[float, str]]:
    """Size and unit by axis of an image or map that is `scale` times finer."""
    sizes = {
        axis: (stack.pixel_size(axis), stack.unit(axis)) for axis in stack.map_axes
    }
    for axis in "YX":
        sizes[axis] = (sizes[axis][0] / scale, sizes[axis][1])
    return sizes


def _hex_colours(stack: FocusStack) -> tuple[str, ...]:
    """Colours of the channels where the source's metadata have them."""
    given = stack.display.get("colormap")
    colours = [given] if isinstance(given, str) else given
    if not isinstance(colours, list | tuple) or "S" in stack.axes:
        return ()
    known = [c for c in colours if isinstance(c, str) and _HEX.fullmatch(c)]
    return tuple(known) if len(known) == stack.n_channels else ()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _levels(array: Any) -> list[Any]:
    if isinstance(array, np.ndarray):
        return [array]
    return levels(array)


def _with_axes(
    array: Any, axes: str, order: str, shown: str, removed: str, channel: int | None
) -> Any:
    """Bring a result into the axes its layer has: one channel, Z and C of length 1."""
    lengthened = [axis for axis in shown if axis in removed]
    as_it_is = channel is None and not lengthened and order == axes
    if as_it_is and not isinstance(array, Reordered):
        return array
    if not isinstance(array, np.ndarray):
        array = _lazy(array)
    if channel is not None:
        array = array[tuple(channel if a == "C" else slice(None) for a in axes)]
        axes = axes.replace("C", "")
    array = array.transpose([axes.index(axis) for axis in order])
    key = [None if axis in removed else slice(None) for axis in shown]
    return array[tuple(key)]


def _lazy(array: Any) -> Any:
    """Wrap Zarr in dask, which napari can transpose and lengthen without reading."""
    import dask.array as da

    if isinstance(array, Reordered):
        return _lazy(array.data).transpose(array.order)
    # A name of its own: napari caches by name, and the file may have been replaced.
    return da.from_array(array, chunks=array.chunks, name=False)
