"""The registration of a focus stack: estimated, applied, saved and used again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import (
    callback,
    checked_channel,
    file_path,
    one_of,
    several,
    shown,
    whole_number,
    yes_or_no,
)
from napari_focus_fusion.progress import Meter
from napari_focus_fusion.registration.aligned import AlignedSlices
from napari_focus_fusion.registration.estimate import estimate
from napari_focus_fusion.registration.transforms import KINDS, Kind, Plane
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.write.saving import check_targets, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.stack import FocusStack

_FORMAT = "napari-focus-fusion registration"
#: Digits after the point that are kept of transforms, so that estimates on the same
#: data are the same to the last bit.
_DIGITS = 9


@dataclass(frozen=True)
class Registration:
    """Where each slice of a stack shows what a reference slice shows.

    Parameters
    ----------
    kind
        ``"translation"``, ``"similarity"`` (with rotation and scale) or ``"affine"``.
    reference_slice
        The slice that stays in its place, counted from 0.
    shape
        Rows and columns of a slice.
    transforms
        Nested tuples (T, N, 2, 3): for each time point and slice the matrix that maps
        a pixel (row, column, 1) of the reference slice to the position (row, column)
        in that slice at which the same is seen, in pixels from the centre of the first.
    notes
        What of it is missing or doubtful, in sentences for the user.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import gaussian_filter
    >>> scene = gaussian_filter(np.random.default_rng(0).normal(size=(80, 90)), 1)
    >>> moved = np.stack([scene[8:72, 8:80], scene[8:72, 5:77]])  # by 3 columns
    >>> registration = ff.register(moved, "translation", axes="ZYX")
    >>> registration.reference_slice, np.round(registration.transforms[0][0], 1)[1]
    (1, array([ 0.,  1., -3.]))
    >>> registration.valid_area.width in (68, 69)
    True
    """

    kind: Kind
    reference_slice: int
    shape: tuple[int, int]
    transforms: tuple[Any, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        try:
            matrices = np.array(self.transforms, np.float64)
        except (TypeError, ValueError):
            matrices = np.empty(0)
        fits = matrices.ndim == 4 and matrices.shape[2:] == (2, 3) and matrices.size
        if not fits or not np.isfinite(matrices).all():
            raise FocusFusionError(
                f"transforms={shown(self.transforms)} are no matrices of 2 x 3 finite "
                "numbers for each time point and slice."
            )
        if (np.abs(np.linalg.det(matrices[..., :2]) - 1) > 0.9).any():
            raise FocusFusionError(
                "transforms: a matrix shrinks or enlarges a slice beyond recognition."
            )
        sides = [
            whole_number("shape", n, least=1) for n in several("shape", self.shape)
        ]
        if len(sides) != 2:
            raise FocusFusionError(
                f"shape={shown(self.shape)} is not rows and columns."
            )
        last = matrices.shape[1] - 1
        reference = whole_number(
            "reference_slice", self.reference_slice, least=0, most=last
        )
        object.__setattr__(self, "shape", tuple(sides))
        object.__setattr__(self, "reference_slice", reference)
        object.__setattr__(self, "transforms", _nested(matrices))
        object.__setattr__(self, "notes", tuple(map(str, several("notes", self.notes))))

    @property
    def matrices(self) -> np.ndarray:
        """The transforms as an array, (T, N, 2, 3) float64."""
        return np.array(self.transforms, np.float64)

    @property
    def valid_area(self) -> Rectangle:
        """Rows and columns of the result that every slice shows, at all time points.

        Empty (of no rows and columns) where there are none.
        """
        return _valid_area(self.matrices.reshape(-1, 2, 3), *self.shape)

    @property
    def largest_displacement(self) -> float:
        """By how many pixels the transforms move the corner that they move most."""
        plane = Plane(*self.shape)
        corners = plane.corners() + plane.centre
        moved = np.einsum("tnij,cj->tnci", self.matrices[..., :2], corners)
        moved += self.matrices[:, :, None, :, 2] - corners
        return float(np.hypot(moved[..., 0], moved[..., 1]).max())

    @property
    def drift(self) -> list[float]:
        """Pixels by which a slice is displaced against the one before it.

        For each time point the median over its slices, each on average over the corners
        and centre of the plane.
        """
        plane = Plane(*self.shape)
        places = np.concatenate([plane.corners() + plane.centre, [plane.centre]])
        at = np.einsum("tnij,cj->tnci", self.matrices[..., :2], places)
        steps = np.diff(at + self.matrices[:, :, None, :, 2], axis=1)
        sizes = np.hypot(steps[..., 0], steps[..., 1]).mean(2)
        return [float(np.median(one)) if one.size else 0.0 for one in sizes]

    def apply(self, stack: FocusStack) -> FocusStack:
        """A stack with its slices in register, which are resampled where they are read.

        Each pixel is interpolated once, by a windowed sinc; pixels that a slice
        does not show are absent (masked).

        Parameters
        ----------
        stack
            The stack it was estimated on, another channel of it, or another stack of
            as many slices, rows and columns. Where it was estimated on one time point
            only, it holds for all.

        Raises
        ------
        FocusFusionError
            If the sizes differ.
        """
        self.check(stack)
        if self.largest_displacement == 0:
            return stack
        record = {"registration": self.recorded()}
        slices = AlignedSlices(stack, self.matrices, None, record)
        return replace(stack, data=slices)

    def check(self, stack: FocusStack) -> None:
        """Raise FocusFusionError if it does not fit a stack."""
        times, count = self.matrices.shape[:2]
        here = count, *self.shape
        there = stack.n_slices, stack.height, stack.width
        if here != there or times not in (1, stack.n_times):
            of = "" if times == 1 else f"{times} time points of "
            raise FocusFusionError(
                f"The registration is one of {of}{count} slices of {self.shape[0]} x "
                f"{self.shape[1]} pixels; {stack.name!r} has {stack.n_slices} slices "
                f"of {stack.height} x {stack.width}"
                + (f" at {stack.n_times} time points" if stack.n_times > 1 else "")
                + ". Estimate one on it."
            )

    def recorded(self) -> dict[str, Any]:
        """What provenance keeps of it: what JSON can hold."""
        area = self.valid_area
        return {
            "kind": self.kind,
            "reference_slice": self.reference_slice,
            "shape": list(self.shape),
            "valid_area": [area.y0, area.y1, area.x0, area.x1],
            "transforms": self.matrices.tolist(),
        }

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Registration:
        """What :meth:`recorded` gave, as a registration again."""
        names = ("kind", "reference_slice", "shape", "transforms")
        return cls(**{name: record[name] for name in names})

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write it to a JSON file, for :func:`load_registration` and ``align=``.

        Raises
        ------
        FocusFusionError
            If the file exists and `overwrite` is False.
        """
        path = file_path("path", path)
        overwrite = yes_or_no("overwrite", overwrite)
        check_targets([path], overwrite=overwrite, inputs=frozenset())
        content = {"format": _FORMAT, **self.recorded(), "notes": list(self.notes)}
        with written_whole([path], overwrite=overwrite) as (partial,):
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return path


def load_registration(path: str | Path) -> Registration:
    """Read what :meth:`Registration.save` wrote.

    Raises
    ------
    FocusFusionError
        If the file cannot be read, or is no registration.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> kept = ((((1, 0, 0), (0, 1, 0)), ((1, 0, 2.5), (0, 1, 0))),)
    >>> registration = ff.Registration("translation", 0, (40, 64), kept)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = registration.save(Path(folder) / "drift.json")
    ...     ff.load_registration(Path(folder) / "drift.json").transforms[0][1][0]
    (1.0, 0.0, 2.5)
    """
    path = file_path("path", path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise KeyError(_FORMAT)
        names = ("kind", "reference_slice", "shape", "transforms", "notes")
        values = {name: content[name] for name in names}
    except OSError as error:
        reason = error.strerror or error
        raise FocusFusionError(f"{str(path)!r} cannot be read: {reason}.") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FocusFusionError(
            f"{str(path)!r} is no saved registration. Make one with "
            "register(stack).save(path), or --save-registration on the command line."
        ) from error
    return Registration(**values)


def register(
    stack: Any,
    kind: Kind = "similarity",
    *,
    axes: str | None = None,
    series: int | str | None = None,
    reference: int | str | None = None,
    align_to: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Registration:
    """Estimate where each slice shows what the others show.

    Neighbouring slices are compared from coarse to fine by what is sharp in both. Where
    that does not bring them nearer to each other, nothing is moved; slices without
    detail are placed between their neighbours. What could not be known is in the notes.

    Parameters
    ----------
    stack
        As :func:`fuse` takes it.
    kind
        ``"translation"``: a stage or sample that drifts; ``"similarity"``: also focus
        breathing, which scales, and rotation; ``"affine"``: also shear and stretching.
    axes, series
        As :func:`fuse` takes them.
    reference
        The channel that is looked at: its index or name, ``"luminance"`` or ``"mean"``;
        None: luminance on RGB, the mean of the channels otherwise.
    align_to
        The slice that stays in its place, from 0; None: the middle one, ``N // 2``.
    progress
        Called with a :class:`Progress`.
    should_stop
        Asked between slices; when it returns True the run ends with `Cancelled`.

    Returns
    -------
    Registration

    Raises
    ------
    FocusFusionError
        If the input or a parameter is wrong.
    Cancelled
        If `should_stop` returned True.

    Examples
    --------
    >>> import numpy as np
    >>> ff.register(np.zeros((3, 40, 64), np.uint8), axes="ZYX").notes[0][:41]
    'No slice has detail in common with anothe'
    """
    one_of("kind", kind, KINDS)
    callback("progress", progress, "a Progress")
    callback("should_stop", should_stop)
    source = as_stack(stack, axes=axes, series=series)
    reference = checked_channel("reference", reference)
    weights = [float(w) for w in source.reference_weights(reference)]
    meter = Meter(source.n_times * source.n_slices, progress)
    meter.enter("Registering slices", 0)

    def advance() -> None:
        meter.add(1)
        stop_if_asked(should_stop)

    return estimated(source, weights, kind, align_to, advance)


def stop_if_asked(should_stop: Callable[[], bool] | None) -> None:
    """Raise Cancelled if a caller wants to stop."""
    if should_stop is not None and should_stop():
        raise Cancelled


def estimated(
    stack: FocusStack,
    weights: list[float],
    kind: Kind,
    align_to: int | None,
    advance: Callable[[], None],
) -> Registration:
    """The registration of a stack by the components of these weights.

    `advance` is called after each slice.

    Raises
    ------
    FocusFusionError
        If the slice of `align_to` is not there.
    """
    last = stack.n_slices - 1
    middle = stack.n_slices // 2
    if align_to is not None:
        middle = whole_number("align_to", align_to, least=0, most=last)
    found, notes = [], []
    for t in range(stack.n_times):
        when = f" at time point {t}" if stack.n_times > 1 else ""
        matrices, lost, period = estimate(stack, t, weights, kind, middle, advance)
        found.append(np.round(matrices[:, :2], _DIGITS))
        still = not np.any(found[-1] - np.eye(3)[:2])
        if len(lost) == stack.n_slices:
            if stack.n_slices > 1:
                notes.append(
                    f"No slice has detail in common with another{when}: slices were "
                    "not aligned."
                )
        elif still:
            notes.append(
                f"Slices were in register already{when}, or could not be brought "
                "nearer to each other: they were left as they are."
            )
        if period is not None and len(lost) < stack.n_slices:
            notes.append(
                f"What the slices show repeats every {period:.0f} pixels{when}: a "
                "drift of more than half of that from one slice to the next cannot be "
                "told from a shorter one. Look whether the result is right."
            )
        if lost and len(lost) < stack.n_slices and not still:
            notes.append(
                f"{_numbers(lost)} no detail in common with the others{when}, and "
                "took the place that the others around suggest."
            )
    registration = Registration(
        kind, middle, (stack.height, stack.width), _nested(np.array(found))
    )
    area = registration.valid_area
    if area.height * area.width < stack.height * stack.width / 2:
        notes.append(
            "Aligned slices have less than half of the plane in common; beyond it the "
            "result comes from few of them. Is the registration right?"
        )
    return replace(registration, notes=tuple(notes))


def _numbers(slices: list[int]) -> str:
    """Slices in words, as the subject of a sentence."""
    if len(slices) == 1:
        return f"Slice {slices[0]} has"
    shown_ones = ", ".join(map(str, slices[:8])) + ", ..." * (len(slices) > 8)
    return f"Slices {shown_ones} have"


def _nested(matrices: np.ndarray) -> tuple[Any, ...]:
    """Matrices (T, N, 2, 3) as tuples."""
    return tuple(
        tuple(tuple(tuple(row) for row in one) for one in each)
        for each in (matrices + 0.0).tolist()
    )


def _valid_area(matrices: np.ndarray, height: int, width: int) -> Rectangle:
    """The rectangle whose corners every transform maps into the plane."""
    edges = [0, height - 1, 0, width - 1]
    most = np.array([height - 1, width - 1])
    for _ in range(height + width):
        y0, y1, x0, x1 = edges
        if y0 > y1 or x0 > x1:
            return Rectangle(0, 0, 0, 0)
        corners = np.array([[y, x, 1] for y in (y0, y1) for x in (x0, x1)])
        seen = np.einsum("nij,cj->nci", matrices, corners)
        outside = np.maximum(np.maximum(-seen, seen - most), 0).max(0)
        missing = np.ceil(outside - 1e-6).astype(int)  # (4 corners, y and x)
        if not missing.any():
            return Rectangle(y0, y1 + 1, x0, x1 + 1)
        rows, columns = missing[:, 0], missing[:, 1]
        edges = [
            y0 + int(max(rows[0], rows[1])),
            y1 - int(max(rows[2], rows[3])),
            x0 + int(max(columns[0], columns[2])),
            x1 - int(max(columns[1], columns[3])),
        ]
    return Rectangle(0, 0, 0, 0)
