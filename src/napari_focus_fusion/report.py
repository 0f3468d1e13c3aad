"""How good a fusion is, in numbers and in words, for one stack and its fused image.

print(report(stack, fuse(stack)).text())
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.decision import LOW_CONFIDENCE
from napari_focus_fusion.engine.registering import as_fused
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.metrics import WITHOUT_TRUTH, as_sources, evaluate
from napari_focus_fusion.metrics.evaluate import names_of_measures
from napari_focus_fusion.metrics.sharpness import sharpness
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import (
    callback,
    file_path,
    shown,
    whole_number,
    yes_or_no,
)
from napari_focus_fusion.progress import Meter
from napari_focus_fusion.read.own_results import provenance_in
from napari_focus_fusion.report_chart import histogram, page, slice_at
from napari_focus_fusion.report_words import (
    channel_names,
    find_clipped_ends,
    flat,
    stack_text,
    verdict,
    window_text,
)
from napari_focus_fusion.result import FusionResult, result_files
from napari_focus_fusion.write.saving import check_targets, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.stack import FocusStack

__all__ = [
    "Report",
    "histogram",
    "load_result",
    "report",
    "slice_at",
    "slices_by_channel",
]

#: Pixels of all slices and components together that are measured.
MAX_PIXELS = 3_000_000
SMALLEST_WINDOW, LARGEST_WINDOW = 64, 1024
#: Rows are read in bands of so many pixels.
_BAND = 1 << 24


@dataclass(frozen=True)
class Report:
    """What :func:`report` found.

    Attributes
    ----------
    name
        The stack's.
    holds
        Size of the stack, in words.
    measures
        By name the values of each channel; empty with fewer than two slices.
    measured_on
        Which pixels were measured, in words.
    sharpness
        Spatial frequency of the fused image there, in grey levels; mean over channels.
    slice_sharpness
        The same of each slice.
    share
        Of the pixels that were taken from each slice; empty without a decision map.
    clear_share
        The same, of the pixels whose confidence is not low; as `share` where no
        confidence is known.
    low_confidence
        Share of the pixels whose confidence is below
        :data:`~napari_focus_fusion.decision.LOW_CONFIDENCE`; None if it is not known.
    verdict
        The findings, in sentences.
    clipped_ends
        First or last slice, from 0, where the stack may be clipped (too short).
    channels
        Names of the channels; empty for one.
    provenance
        Provenance of the fusion.
    """

    name: str
    holds: str
    measures: dict[str, tuple[float, ...]]
    measured_on: str
    sharpness: float
    slice_sharpness: tuple[float, ...]
    share: tuple[float, ...]
    clear_share: tuple[float, ...]
    low_confidence: float | None
    verdict: tuple[str, ...]
    clipped_ends: tuple[int, ...] = ()
    channels: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str, str]]:
        """Everything as (section, name, value), for tables and files."""
        rows = [("stack", "name", self.name), ("stack", "size", self.holds)]
        rows += [("verdict", str(i), text) for i, text in enumerate(self.verdict, 1)]
        if self.low_confidence is not None:
            rows.append(("decision", "low confidence", f"{self.low_confidence:.4f}"))
        for z, (every, clear) in enumerate(
            zip(self.share, self.clear_share, strict=True)
        ):
            rows.append(("share of all pixels", f"slice {z}", f"{every:.4f}"))
            rows.append(("share of clear pixels", f"slice {z}", f"{clear:.4f}"))
        rows.append(("measures", "measured on", self.measured_on))
        for name, values in self.measures.items():
            for channel, value in enumerate(values):
                where = f" {self.channels[channel]}" if self.channels else ""
                rows.append(("measures", f"{name}{where}", f"{value:.4f}"))
        rows.append(("sharpness", "fused image", f"{self.sharpness:.4f}"))
        for z, value in enumerate(self.slice_sharpness):
            rows.append(("sharpness", f"slice {z}", f"{value:.4f}"))
        rows += [("provenance", *pair) for pair in flat(self.provenance)]
        return rows

    def text(self) -> str:
        """The report as plain text, without the values of single slices."""
        lines = [f"{self.name}: {self.holds}", *self.verdict, ""]
        lines.append(f"Measures, {self.measured_on}:")
        if self.channels:
            lines.append("  channels: " + ", ".join(self.channels))
        for name, values in self.measures.items():
            numbers = "  ".join(f"{value:8.4f}" for value in values)
            lines.append(f"  {name:<10}{numbers}")
        best = int(np.argmax(self.slice_sharpness))
        lines += [
            "",
            f"Sharpness (spatial frequency in grey levels of 0 to 255): "
            f"{self.sharpness:.2f}, of the sharpest slice ({best}) "
            f"{self.slice_sharpness[best]:.2f}",
            "",
            "Provenance:",
        ]
        lines += [f"  {name}: {value}" for name, value in flat(self.provenance)]
        return "\n".join(lines)

    def save_csv(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write :meth:`rows` as a table with a header.

        Raises
        ------
        FocusFusionError
            If the file exists and may not be replaced, or cannot be written.
        """
        with _written(path, overwrite) as partial:
            with partial.open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(("section", "name", "value"))
                table.writerows(self.rows())
        return Path(path)

    def save_png(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the histogram over the text, as a PNG image.

        Raises
        ------
        FocusFusionError
            As :meth:`save_csv`.
        """
        from PIL import Image

        with _written(path, overwrite) as partial:
            Image.fromarray(self.draw()).save(partial, format="PNG")
        return Path(path)

    def draw(self, width: int = 800) -> NDArray[np.uint8]:
        """Draw the histogram over the text: (height, width, 3) uint8, on white."""
        return page(self, self.text(), width)


def report(
    stack: Any,
    result: FusionResult | Mapping[str, Any],
    *,
    t: int = 0,
    measures: Sequence[str] = WITHOUT_TRUTH,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Report:
    """Check a fused image against its stack.

    Parameters
    ----------
    stack
        What was fused: anything that :func:`napari_focus_fusion.as_stack` takes. Where
        the fusion aligned its slices, they are aligned again as its provenance says.
    result
        What :func:`napari_focus_fusion.fuse` gave; or arrays by name: ``"fused"`` (axes
        ``stack.fused_axes``) and, where they are known, ``"decision"`` (slices from 0)
        and ``"confidence"`` (both ``stack.map_axes``), and a ``"provenance"``.
    t
        Time point.
    measures
        Names of :func:`napari_focus_fusion.evaluate`. They are computed on a window of
        at most :data:`MAX_PIXELS` pixels in all slices together, of nine the one with
        the most detail; a super-resolved image is averaged to the slices' pixels.
    progress
        Called with a :class:`~napari_focus_fusion.Progress` between measures.
    should_stop
        Asked between measures; when it returns True the run ends with `Cancelled`.

    Returns
    -------
    Report

    Raises
    ------
    FocusFusionError
        If the image is not of this stack, or a measure is not known.
    Cancelled
        If `should_stop` returned True.

    Examples
    --------
    >>> import napari_focus_fusion as ff
    >>> from napari_focus_fusion.simulation.scenes import make_scene
    >>> scene = make_scene(3, shape=(64, 64), slices=4)
    >>> result = ff.fuse(scene.stack, "sml")
    >>> found = report(scene.stack, result, measures=["Q_S"])
    >>> found.holds
    '4 slices, 64 x 64 pixels, uint16'
    >>> len(found.share), round(sum(found.share), 6)
    (4, 1.0)
    >>> found.save_csv("quality.csv").name
    'quality.csv'
    """
    source, t = as_stack(stack), whole_number("t", t, least=0)
    measures = names_of_measures(measures)
    callback("progress", progress, "a Progress")
    callback("should_stop", should_stop)
    maps = _maps_of(result) if isinstance(result, FusionResult) else result
    factor = _check(source, maps, t)
    source = as_fused(source, maps.get("provenance") or {})
    meter = Meter(len(measures) + 2, progress)
    meter.enter("Counting", 0)
    counts, clear, low = _counted(source, maps, t)
    shares = [tuple((n / max(n.sum(), 1)).tolist()) for n in (counts, clear)]
    if maps.get("decision") is None:
        shares = [(), ()]

    meter.enter("Looking for detail", 1)
    rows, columns = _window(source, maps["fused"], t, factor)
    fused = _pixels(source, maps["fused"], t, rows, columns, factor)
    slices = slices_by_channel(source, t, rows, columns)
    values: dict[str, tuple[float, ...]] = {}
    for number, name in enumerate(measures, 2):
        meter.enter(f"Measuring {name}", number)
        if should_stop is not None and should_stop():
            raise Cancelled
        if source.n_slices > 1:
            if number == 2:
                prepared = [as_sources(channel) for channel in slices]
            values[name] = tuple(
                evaluate(image, channel, measures=[name])[name]
                for image, channel in zip(fused, prepared, strict=True)
            )
    fused_sharpness, slice_sharpness = _sharpness(fused, slices)
    meter.enter("Done", meter.total)
    clipped_ends = find_clipped_ends(clear)
    return Report(
        name=source.name,
        holds=stack_text(source, t),
        measures=values,
        measured_on=window_text(source, rows, columns, factor),
        sharpness=fused_sharpness,
        slice_sharpness=slice_sharpness,
        share=shares[0],
        clear_share=shares[1],
        low_confidence=low,
        verdict=tuple(verdict(counts, clear, low, clipped_ends, maps)),
        clipped_ends=clipped_ends,
        channels=channel_names(source),
        provenance=dict(maps.get("provenance") or {}),
    )


def _maps_of(result: FusionResult) -> dict[str, Any]:
    return {
        "fused": result.fused,
        "decision": result.decision,
        "confidence": result.confidence,
        "provenance": result.provenance,
    }


# Reading ------------------------------------------------------------------------------


def _check(stack: FocusStack, maps: Mapping[str, Any], t: int) -> int:
    """Raise if an image is not of the stack; the factor of super-resolution."""
    if not isinstance(maps, Mapping) or not hasattr(maps.get("fused"), "shape"):
        raise FocusFusionError(
            f"result={shown(maps)} is no result of a fusion; fuse() gives one, and "
            "load_result() opens one that was saved."
        )
    if not 0 <= t < stack.n_times:
        raise FocusFusionError(
            f"{stack.name!r} has {stack.n_times} time points, counted from 0; there is "
            f"no {t}."
        )
    fused = tuple(maps["fused"].shape)
    axes = stack.fused_axes
    expected = stack.fused_shape
    y, x = axes.index("Y"), axes.index("X")
    factor = fused[y] // expected[y] if len(fused) == len(expected) else 0
    finer = [n * factor if i in (y, x) else n for i, n in enumerate(expected)]
    if factor < 1 or list(fused) != finer:
        raise FocusFusionError(
            f"The fused image has the shape {fused}, and {stack.name!r} would give "
            f"{expected} (axes {axes}). Choose the image that was made of this stack."
        )
    for name in ("decision", "confidence"):
        given = maps.get(name)
        shape = tuple(getattr(given, "shape", ()))
        if given is not None and shape != stack.map_shape:
            raise FocusFusionError(
                f"The {name} map has the shape {shape}, and {stack.name!r} has "
                f"{stack.map_shape} (axes {stack.map_axes}). Choose the one that was "
                "made of this stack."
            )
    return factor


def _bands(stack: FocusStack, t: int) -> Iterator[tuple[Any, ...]]:
    """Places in a map, of some rows each."""
    step = max(_BAND // stack.width, 1)
    for start in range(0, stack.height, step):
        places = {"T": t, "Y": slice(start, min(start + step, stack.height))}
        yield tuple(places.get(axis, slice(None)) for axis in stack.map_axes)


def _counted(
    stack: FocusStack, maps: Mapping[str, Any], t: int
) -> tuple[NDArray[Any], NDArray[Any], float | None]:
    """Pixels and clear pixels of each slice, and the share of unclear ones."""
    counts, clear = (np.zeros(stack.n_slices, np.int64) for _ in range(2))
    decision, confidence = maps.get("decision"), maps.get("confidence")
    unclear = 0
    for place in _bands(stack, t):
        confident: Any = slice(None)
        if confidence is not None:
            confident = np.asarray(confidence[place]) >= LOW_CONFIDENCE
            unclear += int((~confident).sum())
        if decision is None:
            continue
        labels = np.asarray(decision[place])
        if labels.size and int(labels.max()) >= stack.n_slices:
            raise FocusFusionError(
                f"The decision map names slice {int(labels.max())}, and {stack.name!r} "
                f"has slices 0 to {stack.n_slices - 1}. Choose its own map."
            )
        counts += np.bincount(labels.ravel(), minlength=stack.n_slices)
        clear += np.bincount(labels[confident].ravel(), minlength=stack.n_slices)
    pixels = stack.height * stack.width
    return counts, clear, None if confidence is None else unclear / pixels


def _window(stack: FocusStack, fused: Any, t: int, factor: int) -> tuple[slice, slice]:
    """Rows and columns that are measured: those with the most detail of a few."""
    budget = MAX_PIXELS // (stack.n_slices * stack.n_components)
    if stack.height * stack.width <= min(budget, LARGEST_WINDOW**2):
        return slice(0, stack.height), slice(0, stack.width)
    side = int(np.clip(budget**0.5, SMALLEST_WINDOW, LARGEST_WINDOW))
    best, found = -1.0, (slice(0, 0), slice(0, 0))
    for y in _starts(stack.height, side):
        for x in _starts(stack.width, side):
            window = (
                slice(y, min(y + side, stack.height)),
                slice(x, min(x + side, stack.width)),
            )
            pixels = _pixels(stack, fused, t, *window, factor)
            detail = float(sum(sharpness(p, data_range=1.0) for p in pixels))
            if detail > best:
                best, found = detail, window
    return found


def _starts(length: int, side: int) -> list[int]:
    gap = max(length - side, 0)
    return sorted({0, gap // 2, gap})


def _pixels(
    stack: FocusStack, fused: Any, t: int, y: slice, x: slice, factor: int
) -> list[NDArray[Any]]:
    """The fused image, (h, w) or (h, w, 3) a channel, on the grid of the slices."""
    places = {
        "T": t,
        "Y": slice(y.start * factor, y.stop * factor),
        "X": slice(x.start * factor, x.stop * factor),
    }
    axes = stack.fused_axes
    block = np.asarray(fused[tuple(places.get(a, slice(None)) for a in axes)])
    axes = axes.replace("T", "")
    if "C" not in axes:
        block, axes = block[None], f"C{axes}"
    block = np.moveaxis(block, axes.index("C"), 0)
    if factor > 1:
        high, wide = y.stop - y.start, x.stop - x.start
        rest = block.shape[3:]
        blocks = block.reshape(len(block), high, factor, wide, factor, *rest)
        means = blocks.mean((2, 4))
        block = np.rint(means) if block.dtype.kind in "iu" else means
        block = block.astype(stack.dtype)
    return [channel[..., :3] if "S" in axes else channel for channel in block]


def slices_by_channel(
    stack: FocusStack, t: int, y: slice = slice(None), x: slice = slice(None)
) -> list[NDArray[Any]]:
    """The slices of a time point as measures take them.

    Returns
    -------
    list of ndarray
        (Z, Y, X), or (Z, Y, X, 3) of RGB and RGBA, a channel; in the stack's dtype.
    """
    block = stack.read(t, slice(None), y, x)
    if "S" not in stack.axes:
        return list(block)
    colours = block.reshape(stack.n_channels, stack.n_samples, *block.shape[1:])
    return [np.moveaxis(channel[:3], 0, -1) for channel in colours]


def _sharpness(
    fused: list[NDArray[Any]], slices: list[NDArray[Any]]
) -> tuple[float, tuple[float, ...]]:
    """Of the fused image and each slice, on one scale; means over the channels."""
    ours, theirs = [], []
    for image, planes in zip(fused, slices, strict=True):
        low, high = float(planes.min()), float(planes.max())
        span = (0.0, 255.0) if planes.dtype == np.uint8 else (low, max(high, low + 1))
        ours.append(sharpness(image, data_range=span))
        theirs.append([sharpness(plane, data_range=span) for plane in planes])
    return float(np.mean(ours)), tuple(np.mean(theirs, axis=0).tolist())


def load_result(path: str | Path, stack: FocusStack) -> dict[str, Any]:
    """Open what :meth:`napari_focus_fusion.FusionResult.save` wrote, for a report.

    Parameters
    ----------
    path
        The fused image: a TIFF, with the maps beside it where they are, or an OME-Zarr.
    stack
        What was fused.

    Returns
    -------
    dict
        ``"fused"``, the maps that are there, and ``"provenance"``; not read yet.

    Raises
    ------
    FocusFusionError
        If it cannot be opened.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_focus_fusion as ff
    >>> stack = ff.as_stack(np.random.default_rng(0).random((3, 32, 48)))
    >>> files = ff.fuse(stack, "sml").save("fused.ome.tif")
    >>> found = load_result("fused.ome.tif", stack)
    >>> sorted(found), found["provenance"]["model"]
    (['confidence', 'decision', 'fused', 'provenance'], 'sml')
    """
    stack, path = as_stack(stack), file_path("path", path)
    if path.suffix.lower() == ".zarr":
        from napari_focus_fusion.write.ome_zarr import open_output

        try:
            import zarr

            ours: Any = zarr.open_group(path, mode="r").attrs[METADATA_KEY]
            return {**open_output(path, stack), "provenance": ours["provenance"]}
        except FocusFusionError:
            raise
        except Exception as error:  # whatever Zarr makes of a file that is none
            raise FocusFusionError(
                f"{str(path)!r} is no result of a fusion ({error}). Choose the "
                ".ome.zarr that fuse wrote."
            ) from error
    found: dict[str, Any] = {
        "fused": as_stack(path).data,
        "provenance": provenance_in(str(path)),
    }
    _, *maps = result_files(path)
    for name, place in zip(("decision", "confidence"), maps, strict=False):
        if place.exists():
            found[name] = as_stack(place).data
    return found


@contextlib.contextmanager
def _written(path: str | Path, overwrite: bool) -> Iterator[Path]:
    """Give a temporary file, which is put in place if nothing fails."""
    target, overwrite = file_path("path", path), yes_or_no("overwrite", overwrite)
    check_targets([target], overwrite=overwrite)
    with written_whole([target], overwrite=overwrite) as (partial,):
        yield partial
