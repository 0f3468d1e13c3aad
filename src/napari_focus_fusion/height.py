"""A height map for measurement: the depth of a fusion, smoothed by its confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import correlate1d

from napari_focus_fusion._version import __version__
from napari_focus_fusion.axes import METRES
from napari_focus_fusion.decision import LOW_CONFIDENCE
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import SMOOTHING, file_path, real_number, yes_or_no
from napari_focus_fusion.read.names import stem
from napari_focus_fusion.result import FusionResult, pixel_sizes
from napari_focus_fusion.surface_map import surface_of
from napari_focus_fusion.write.places import places_of
from napari_focus_fusion.write.saving import check_targets, written_whole
from napari_focus_fusion.write.tiff import write_ome_tiff

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack

    Plane = NDArray[np.float64]

#: The window ends after so many standard deviations.
WINDOW_ENDS = 3.0
#: Where the weighted share of confident pixels in the window is lower, there is no
#: height: the nearest lie about two standard deviations away.
LEAST_SUPPORT = 0.02
#: Rounds of reweighting, and the least deviation, in slices, that counts as one.
ROUNDS, LEAST_DEVIATION = 6, 0.25
#: A place so many mean deviations away counts half.
TYPICAL_DEVIATIONS = 2.0
#: Least variance of positions as a share of that of the whole window: where pixels are
#: all on one side, or few, the slope is drawn towards 0.
LEAST_VARIANCE = 0.05
TINY = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class HeightMap:
    """A smooth height map, and how far it can be believed.

    Parameters
    ----------
    height
        float32, axes ``stack.map_axes``, in `unit`; NaN where no confident pixel is in
        reach.
    uncertainty
        float32, of the same shape and unit: how far single pixels of the depth map lie
        from `height` (root mean square over the window, weighted with confidence), and
        more where the plane is extrapolated, at borders and beside gaps.
    unit
        ``"micrometer"``, or ``"slice"`` where the pixel size along Z is not known.
    stack
        What the map belongs to.
    provenance
        Smoothing, surface, version and source.
    inputs
        Files and folders that were read, which :meth:`save` never overwrites.

    Examples
    --------
    >>> import numpy as np
    >>> stack = ff.as_stack(np.zeros((5, 40, 64), np.uint8), scale={"Z": 2}, units="um")
    >>> ff.height_map(np.full((40, 64), 3), stack=stack)
    <HeightMap 'stack': 40 x 64, 6 to 6 micrometer, on 100.0 % of the pixels>
    """

    height: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    unit: str
    stack: FocusStack
    provenance: dict[str, Any]
    inputs: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        name, known = self.stack.name, self.height[self.valid]
        ends = f"{known.min():.4g} to {known.max():.4g}" if known.size else "no"
        share = 100 * known.size / self.height.size
        return (
            f"<HeightMap {name!r}: {self.stack.height} x {self.stack.width}, {ends} "
            f"{self.unit}, on {share:.1f} % of the pixels>"
        )

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where there is a height: bool, of the same shape."""
        return np.isfinite(self.height)

    @property
    def notes(self) -> list[str]:
        """What was missing, guessed or doubtful; empty if nothing was."""
        return list(self.provenance.get("notes", ()))

    def save(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write the height as OME-TIFF, and ``NAME_uncertainty.ome.tif`` beside it.

        Parameters
        ----------
        path
            Ends in ``.ome.tif``, ``.ome.tiff``, ``.tif`` or ``.tiff``.
        overwrite
            Whether existing files may be replaced.

        Returns
        -------
        list of Path
            Both files, the height first.

        Raises
        ------
        FocusFusionError
            If the name has another ending, a file exists and `overwrite` is False, or
            writing fails; then nothing new is left behind.
        """
        targets = height_files(file_path("path", path))
        overwrite = yes_or_no("overwrite", overwrite)
        inputs = self.inputs | places_of(self.stack)
        check_targets(targets, overwrite=overwrite, inputs=inputs)
        with written_whole(targets, overwrite=overwrite) as partials:
            for name, partial in zip(("height", "uncertainty"), partials, strict=True):
                write_ome_tiff(
                    partial,
                    getattr(self, name),
                    self.stack.map_axes,
                    name=f"{self.stack.name} {name}",
                    pixel_sizes=pixel_sizes(self.stack),
                    channel_names=(f"{name} ({self.unit})",),
                    description={"output": name, "unit": self.unit, **self.provenance},
                )
        return targets


def height_files(path: Path) -> list[Path]:
    """The files that :meth:`HeightMap.save` writes for a name.

    Raises
    ------
    FocusFusionError
        If it is no name of a TIFF.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise FocusFusionError(
            f"{str(path)!r}: height maps are saved as .ome.tif. Choose a name with "
            "this ending."
        )
    return [path, path.with_name(f"{stem(path)}_uncertainty.ome.tif")]


def height_map(
    surface: Any,
    *,
    stack: Any = None,
    confidence: Any = None,
    smoothing: float = SMOOTHING,
) -> HeightMap:
    """Smooth the depth of a fusion into a height map for measurement.

    At every pixel a plane is fitted to the depths around it, weighted with their
    confidence and a Gaussian window (normalised convolution of first order), so that a
    slope keeps its height up to the border of the image and of what is known. Depths
    that lie far from the others count less, by how far (Cauchy weights). Pixels whose
    confidence is below 0.2 do not count. Working memory is some twenty planes of 8
    bytes a pixel.

    Parameters
    ----------
    surface
        A :class:`FusionResult`, or a map or file as :func:`project` takes them.
    stack
        What the map belongs to, for its pixel size along Z: anything that
        :func:`as_stack` opens; needed unless `surface` is a result.
    confidence
        Map (Y, X) or (T, Y, X) from 0 to 1; None: that of the result, if there is one.
    smoothing
        Standard deviation of the window in pixels, above 0. What is narrower than
        about twice this is smoothed away; a crest of radius of curvature R (in pixels,
        heights in pixels too) loses about ``smoothing**2 / (2 * R)``.

    Returns
    -------
    HeightMap

    Raises
    ------
    FocusFusionError
        If a parameter is wrong, or surface and stack do not belong together.

    Examples
    --------
    >>> import numpy as np
    >>> slope = np.tile(np.linspace(0, 4, 64, dtype=np.float32), (40, 1))
    >>> stack = ff.as_stack(np.zeros((5, 40, 64), np.uint8))
    >>> found = ff.height_map(slope, stack=stack)
    >>> found.unit, bool(np.abs(found.height - slope).max() < 1e-3)
    ('slice', True)
    """
    smoothing = real_number("smoothing", smoothing, above=0, most=1000)
    if stack is None:
        if not isinstance(surface, FusionResult):
            raise FocusFusionError(
                "A map does not say what it belongs to. Give its stack with stack=."
            )
        stack = surface.stack
    stack = as_stack(stack)
    found = surface_of(surface, stack, confidence=confidence)
    unit, size, notes = _unit_of(stack)
    shape = (stack.n_times, stack.height, stack.width)
    height, uncertainty = np.empty(shape, np.float32), np.empty(shape, np.float32)
    whole = slice(0, stack.height), slice(0, stack.width)
    for t in range(stack.n_times):
        weights = found.weights(t, *whole)
        weights[weights < LOW_CONFIDENCE] = 0
        places = np.nan_to_num(found.places(t, *whole))
        height[t], uncertainty[t] = smooth_surface(places, weights, smoothing)
    height *= np.float32(size)
    uncertainty *= np.float32(size)
    missing = int(np.isnan(height).sum())
    if missing:
        notes.append(
            f"{max(100 * missing / height.size, 0.1):.1f} % of the pixels have no "
            "height (NaN): no confident pixel is in reach."
        )
    provenance = {
        "software": "napari-focus-fusion",
        "version": __version__,
        "height_map": {"smoothing": smoothing, "unit": unit},
        "surface": found.provenance,
        "source": stack.source,
        "notes": notes,
    }
    return HeightMap(
        height.reshape(stack.map_shape),
        uncertainty.reshape(stack.map_shape),
        unit,
        stack,
        provenance,
        found.inputs | places_of(stack),
    )


def _unit_of(stack: FocusStack) -> tuple[str, float, list[str]]:
    """Unit of heights, how many a slice has, and notes."""
    metres = METRES.get(stack.unit("Z"))
    if metres is not None and "Z" in stack.scale:
        micrometres = stack.pixel_size("Z") * metres / METRES["micrometer"]
        return "micrometer", micrometres, list(stack.notes)
    note = (
        "The pixel size along Z is not known, so that heights are in slices. Give it: "
        "as_stack(..., scale={'Z': ...}, units='um'), or --pixel-size Z=... on the "
        "command line."
    )
    return "slice", 1.0, [*stack.notes, note]


def smooth_surface(
    places: Plane, weights: Plane, smoothing: float
) -> tuple[Plane, Plane]:
    """Robust local planes through weighted places.

    Parameters
    ----------
    places
        (h, w), in slices; any finite number where the weight is 0.
    weights
        (h, w), at least 0.
    smoothing
        Standard deviation of the window in pixels.

    Returns
    -------
    surface, deviation
        (h, w): the height of each plane at its middle, and how far single places lie
        from it; NaN where there are too few.
    """
    kernels = _kernels(smoothing)
    # Places are counted from their mean, so that little is cancelled.
    centre = float(np.average(places, weights=weights)) if weights.any() else 0.0
    offsets = np.where(weights > 0, places - centre, 0)
    used = weights
    for _ in range(ROUNDS):
        surface, _ = _planes(offsets, used, kernels)
        away = np.abs(offsets - surface)
        typical = _mean(away, used, kernels)
        scale = np.maximum(TYPICAL_DEVIATIONS * typical, LEAST_DEVIATION)
        used = weights / (1 + (away / scale) ** 2)
    surface, leverage = _planes(offsets, used, kernels)
    variance = _mean((offsets - surface) ** 2, weights, kernels)
    deviation = np.sqrt(variance * (1 + leverage))
    known = _windowed(weights, kernels[0], kernels[0]) >= LEAST_SUPPORT
    return np.where(known, surface + centre, np.nan), np.where(known, deviation, np.nan)


def _kernels(smoothing: float) -> tuple[Plane, Plane, Plane]:
    """The window along one axis, and that times the position and its square."""
    radius = max(round(WINDOW_ENDS * smoothing), 1)
    position = np.arange(-radius, radius + 1, dtype=np.float64)
    window = np.exp(-0.5 * (position / smoothing) ** 2)
    window /= window.sum()
    return window, window * position, window * position**2


def _windowed(values: Plane, along_y: Plane, along_x: Plane) -> Plane:
    """Sums over the window (h, w); there is nothing outside the image."""
    once = correlate1d(values, along_y, 0, mode="constant")
    return correlate1d(once, along_x, 1, mode="constant")


def _mean(values: Plane, weights: Plane, kernels: tuple[Plane, ...]) -> Plane:
    """Weighted mean in the window."""
    window = kernels[0]
    total = _windowed(weights, window, window)
    return _windowed(weights * values, window, window) / np.maximum(total, TINY)


def _planes(
    values: Plane, weights: Plane, kernels: tuple[Plane, Plane, Plane]
) -> tuple[Plane, Plane]:
    """The weighted plane of least squares in each window.

    Returns
    -------
    height, leverage
        (h, w): the plane at the middle of its window, and the variance that its slope
        adds there, in variances of a single value: 0 where values lie on all sides.
    """
    one, first, second = kernels
    total = np.maximum(_windowed(weights, one, one), TINY)
    y, x = (_windowed(weights, *k) / total for k in ((first, one), (one, first)))
    yy = _windowed(weights, second, one) / total - y**2
    xx = _windowed(weights, one, second) / total - x**2
    xy = _windowed(weights, first, first) / total - x * y
    weighted = weights * values
    mean = _windowed(weighted, one, one) / total
    along_y = _windowed(weighted, first, one) / total - mean * y
    along_x = _windowed(weighted, one, first) / total - mean * x
    smallest = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    missing = np.maximum(LEAST_VARIANCE * second.sum() - smallest, 0)
    yy, xx = yy + missing, xx + missing
    determinant = np.maximum(yy * xx - xy**2, TINY)
    slope_y = (xx * along_y - xy * along_x) / determinant
    slope_x = (yy * along_x - xy * along_y) / determinant
    leverage = (xx * y**2 - 2 * xy * x * y + yy * x**2) / determinant
    return mean - slope_y * y - slope_x * x, leverage
