"""How one slice is displaced against another: estimated coarse to fine, with weights.

Small blocks of two slices are compared at every level of a pyramid. Each block gives a
displacement and how well it knows it: much where both slices are sharp, little where
one is blurred, nothing where there is nothing to see. One transform is fitted to all of
them; blocks that contradict it (what moves, chance) lose their weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, rfft2

from napari_focus_fusion.registration.transforms import (
    Plane,
    displacements,
    largest_displacement,
    matrix_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Image = NDArray[np.float32]

#: Side of a block in pixels of its level: large enough that what grows and shrinks with
#: the blur does so to all sides within it; small where there would be few of them.
BLOCK, SMALL_BLOCK, BLOCKS = 32, 16, 5
#: The coarsest level has no side shorter than this.
COARSEST = 40
#: Standard deviations of the band of each level in its pixels.
FINE, COARSE = 0.8, 3.0
#: The same of what is left out before a level is binned.
SMOOTH = 1.0
#: Iterations at a level; fewer where the last step was shorter than :data:`STEP`.
ITERATIONS, STEP = 6, 0.02
#: No step is longer than this many pixels of the level.
FARTHEST = 4.0
#: A block is used if at least this share of its gradients is common to both slices.
LEAST_COMMON = 0.2
#: With fewer useful blocks, or a less certain transform (in pixels of the finest
#: level), nothing is known.
LEAST_BLOCKS, MOST_UNCERTAIN = 6, 1.0
#: Noise, once the best place for it is found, does not correlate as well as this.
LEAST_CORRELATION = 0.4
#: Finer levels are not looked at where corners are as certain as this, in pixels.
CERTAIN = 0.03
#: Neighbouring pixels are not independent: as many count as one.
CORRELATED_PIXELS = 12.0
#: How far, in pixels of a level, a block may be off a perfect fit.
BLOCK_ERROR = 0.05
#: Standard deviations of what is expected before anything is seen, as a share of half
#: the diagonal: of a shift, and of the displacement of a corner.
EXPECTED_SHIFT, EXPECTED_CHANGE = 0.2, 0.05
#: Another place is preferred to the nearest only if its blocks correlate so much more.
CLEARLY_BETTER = 0.1
#: and no less than this.
CLEAR = 0.6
#: How often blocks are weighted anew.
REWEIGHTED = 5
#: Blocks must be off their transform by less than this share of what they are off
#: without, or by less than so many pixels.
MOST_SCATTERED, LEAST_SCATTER = 0.75, 0.3
#: Fits further apart than so many pixels of the coarsest level are different ones.
APART = 1.5
#: Cut-off of Tukey's biweight in standard deviations.
CUTOFF = 4.7


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a slice's pyramid.

    Attributes
    ----------
    band
        (h, w) float32, band-passed; 0 where a pixel is absent.
    present
        (h, w) bool; None: all are.
    step
        Pixels of the slice along a side of a pixel of the level.
    """

    band: Image
    present: NDArray[np.bool_] | None
    step: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a pair of slices.

    Attributes
    ----------
    matrix
        (3, 3): positions of the first slice to those of the second, from the centre.
    information
        (k, k): inverse of the covariance of its parameters, in pixels.
    positions
        (n, 2): centres of the blocks, from the centre of the plane, in pixels.
    moved
        (n, 2): where the second slice shows them.
    weights
        (n,): how much each counts.
    """

    matrix: Array
    information: Array
    positions: Array
    moved: Array
    weights: Array

    def misalignment(self, matrix: Array) -> float:
        """Weighted mean distance of blocks from a transform, in pixels."""
        found = self.positions @ matrix[:2, :2].T + matrix[:2, 2]
        distances = np.hypot(*(found - self.moved).T)
        return float(np.average(distances, weights=self.weights))


def pyramid(plane: Image, present: NDArray[np.bool_] | None, step: int) -> list[Level]:
    """Levels of a slice, finest first.

    Parameters
    ----------
    plane
        (h, w) float32.
    present
        (h, w) bool, where it has pixels; None: everywhere.
    step
        Pixels of the slice along a side of a pixel of the plane.
    """
    levels = []
    while True:
        levels.append(Level(_band(plane, present), present, step))
        if min(plane.shape) // 2 < COARSEST:
            return levels
        height, width = (n // 2 * 2 for n in plane.shape)
        # Means of 2 x 2 alone would show fine repeated detail as coarse detail that
        # moves elsewhere.
        smooth = ndimage.gaussian_filter(plane, SMOOTH, truncate=3)
        quarters = smooth[:height, :width].reshape(height // 2, 2, width // 2, 2)
        plane = quarters.mean((1, 3))
        if present is not None:
            kept = present[:height, :width].reshape(height // 2, 2, width // 2, 2)
            present = np.asarray(kept.all((1, 3)))
        step *= 2


def _band(plane: Image, present: NDArray[np.bool_] | None) -> Image:
    """What is neither noise nor background; smoothed once more as the spline does."""
    if present is None:
        fine = ndimage.gaussian_filter(plane, FINE, truncate=3)
        return fine - ndimage.gaussian_filter(plane, COARSE, truncate=3)
    there = present.astype(np.float32)
    inside = ndimage.binary_erosion(present, iterations=3, border_value=1)
    fine, coarse = (
        ndimage.gaussian_filter(plane * there, sigma, truncate=3)
        / np.maximum(ndimage.gaussian_filter(there, sigma, truncate=3), 1e-3)
        for sigma in (FINE, COARSE)
    )
    return np.where(inside, fine - coarse, np.float32(0))


def measure_pair(
    first: Sequence[Level],
    second: Sequence[Level],
    kind: str,
    plane: Plane,
    guess: Array | None = None,
) -> Measured | None:
    """The transform from one slice to another.

    Parameters
    ----------
    first, second
        Their pyramids.
    kind
        One of ``KINDS``.
    plane
        The plane of the slices.
    guess
        (3, 3), where to begin beside no displacement; None: nowhere else.

    Returns
    -------
    Measured or None
        None where the slices have too little in common.
    """
    coarsest = first[-1], second[-1]
    best = _descend(first, second, kind, plane, np.eye(3))
    tried = [np.eye(3) if best is None else best.measured.matrix]
    for start in _other_starts(*coarsest, guess):
        begun = _fit(*coarsest, kind, plane, start)
        new = [
            largest_displacement(np.linalg.inv(one) @ begun.measured.matrix, plane)
            > APART * coarsest[0].step
            for one in tried
        ]
        if not begun.usable or not all(new):
            continue
        other = _descend(first, second, kind, plane, begun.measured.matrix)
        tried.append(begun.measured.matrix)
        least = CLEAR if best is None else max(CLEAR, best.correlation + CLEARLY_BETTER)
        if other is not None and other.correlation > least:
            best = other
    if best is None:
        return None
    step = first[0].step
    if _spread(best.measured, plane, kind) > MOST_UNCERTAIN * step:
        return None
    # Where blocks do not go the same way they are things that differ between slices.
    still, moved = (
        best.measured.misalignment(m) for m in (np.eye(3), best.measured.matrix)
    )
    if moved > max(MOST_SCATTERED * still, LEAST_SCATTER * step):
        return replace(best.measured, matrix=np.eye(3))
    return best.measured


def _descend(
    first: Sequence[Level],
    second: Sequence[Level],
    kind: str,
    plane: Plane,
    start: Array,
) -> _Fit | None:
    """Fit from the coarsest level to the finest that makes it more certain."""
    found: _Fit | None = None
    for pair in zip(reversed(first), reversed(second), strict=True):
        fit = _fit(*pair, kind, plane, start)
        if not fit.usable:
            continue
        if found is not None and _spread(fit.measured, plane, kind) > _spread(
            found.measured, plane, kind
        ):
            break  # noise: the finer level knows less
        found, start = fit, fit.measured.matrix
        if _spread(fit.measured, plane, kind) < CERTAIN:
            break
    return found


def _other_starts(first: Level, second: Level, guess: Array | None) -> list[Array]:
    """The guess, and the shift at which two planes correlate best."""
    starts = [] if guess is None else [guess]
    a, b = first.band, second.band
    size = tuple(2 * n for n in a.shape)
    spectrum = rfft2(a, size).conj() * rfft2(b, size)
    spectrum /= np.maximum(np.abs(spectrum), 1e-12 * np.abs(spectrum).max() + 1e-30)
    peaks = ndimage.gaussian_filter(irfft2(spectrum, size), 1, mode="wrap")
    place = np.unravel_index(int(np.argmax(peaks)), peaks.shape)
    shift = [
        int(at) if at < n // 2 else int(at) - n
        for at, n in zip(place, size, strict=True)
    ]
    if all(2 * abs(by) < n for by, n in zip(shift, a.shape, strict=True)):
        start = np.eye(3)
        start[:2, 2] = np.array(shift) * first.step
        starts.append(start)
    return starts


def _spread(measured: Measured, plane: Plane, kind: str) -> float:
    """Standard deviation of the displacement in the corners, in pixels."""
    covariance = np.linalg.inv(measured.information)
    at = displacements(kind, plane.corners(), plane)
    variance = np.einsum("nik,kl,nil->n", at, covariance, at) / 2
    return float(np.sqrt(variance.mean()))


@dataclass(frozen=True, slots=True)
class _Fit:
    measured: Measured
    correlation: float
    usable: bool


@dataclass(frozen=True, slots=True)
class _Blocks:
    """What the blocks of two slices say, one row a block.

    Attributes
    ----------
    slope
        (n, 2): gradient of the mismatch.
    common
        (n, 2, 2): products of the gradients of both.
    own
        (n, 2, 2): products of the gradients of each, on average.
    share
        (n,): how much of the gradients is common to both, 0 to 1.
    variance
        (n,): of the mean of a block's mismatch, of blocks of variance 1.
    correlation
        (n,): of both.
    """

    slope: Array
    common: Array
    own: Array
    share: Array
    variance: Array
    correlation: Array


def _fit(first: Level, second: Level, kind: str, plane: Plane, start: Array) -> _Fit:
    """Fit a transform at one level."""
    step = first.step
    positions = _centres(first, plane)
    at = displacements(kind, positions, plane)
    still = _sampled(first, np.eye(3), plane)
    matrix = start
    for _ in range(ITERATIONS):
        before = matrix
        blocks = _compare(still, _sampled(second, before, plane))
        solved = _solve(blocks, at, kind, plane, step)
        change = matrix_of(kind, solved.parameters, plane)
        limit = FARTHEST * step
        size = largest_displacement(change, plane)
        if size > limit:  # too far to believe: go there in steps
            change = matrix_of(kind, solved.parameters * limit / size, plane)
        matrix = before @ change
        if size < STEP * step:
            break
    where = positions + solved.distances
    moved = where @ before[:2, :2].T + before[:2, 2]
    measured = Measured(matrix, solved.information, positions, moved, solved.weights)
    used = solved.weights > 0
    correlation = (
        float(np.average(blocks.correlation, weights=solved.weights))
        if used.any()
        else 0.0
    )
    usable = int(used.sum()) >= LEAST_BLOCKS and correlation > LEAST_CORRELATION
    return _Fit(measured, correlation, usable)


def _centres(level: Level, plane: Plane) -> Array:
    """(n, 2): positions of the blocks of a level from the centre, in pixels."""
    side = _side(level.band.shape)
    rows, columns = (n // side for n in level.band.shape)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    places = np.stack([y, x], 1) * side + (side - 1) / 2
    return places * level.step + (level.step - 1) / 2 - plane.centre


def _side(shape: tuple[int, ...]) -> int:
    """Side of the blocks of a level."""
    return BLOCK if min(shape) >= BLOCKS * BLOCK else SMALL_BLOCK


def _sampled(level: Level, matrix: Array, plane: Plane) -> tuple[Image, Image]:
    """A level seen through a transform, and where it has pixels, 0 to 1.

    Smoothed by the cubic spline whatever the transform, so that a shift by a fraction
    of a pixel is no blur that another has not.
    """
    step = level.step
    offset = plane.centre - (step - 1) / 2
    linear = matrix[:2, :2]
    # Pixel k of the level lies step * k - offset from the centre.
    shift = (matrix[:2, 2] - linear @ offset + offset) / step
    how = {"matrix": linear, "offset": shift, "mode": "constant", "cval": 0.0}
    seen = ndimage.affine_transform(
        level.band, **how, order=3, prefilter=False, output=np.float32
    )
    there = _inside(level.band.shape, linear, shift)
    if level.present is not None:
        present = level.present.astype(np.float32)
        there *= ndimage.affine_transform(present, **how, order=1) > 0.999
    return seen, there


def likeness(
    first: Level, second: Level, matrix: Array, other: Array, plane: Plane
) -> float:
    """Correlation, -1 to 1, of two slices, each seen through its transform."""
    a, b = _sampled(first, matrix, plane), _sampled(second, other, plane)
    mask = a[1] * b[1]
    one, two = a[0] * mask, b[0] * mask
    size = float(np.sqrt((one * one).sum() * (two * two).sum()))
    return float((one * two).sum()) / max(size, 1e-30)


def _inside(shape: tuple[int, ...], linear: Array, shift: Array) -> Image:
    """1 where a transform stays inside an image, else 0."""
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])
    found = np.ones(shape, bool)
    for (a, b), c, n in zip(linear, shift, shape, strict=True):
        at = (a * y + c) + b * x
        found &= (at >= 0) & (at <= n - 1)
    return found.astype(np.float32)


def _compare(first: tuple[Image, Image], second: tuple[Image, Image]) -> _Blocks:
    """Compare two slices block by block, each block scaled to variance 1."""
    mask = first[1] * second[1]
    a, b = first[0] * mask, second[0] * mask
    side = _side(a.shape)
    rows, columns = (n // side for n in a.shape)

    def split(image: Image) -> Image:
        cut = image[: rows * side, : columns * side]
        return cut.reshape(rows, side, columns, side)

    def total(one: Image, other: Image) -> Array:
        return np.einsum("abcd,abcd->ac", split(one), split(other)).ravel()

    def scaled(image: Image) -> tuple[Image, Image]:
        deviation = np.sqrt(
            np.einsum("abcd,abcd->ac", split(image), split(image)) / side**2
        )
        gain = 1 / np.maximum(deviation, 1e-20)
        return gain.astype(np.float32), deviation

    gains = [scaled(image)[0] for image in (a, b)]
    gradients = [_gradient(image) for image in (a, b)]
    a, b = (
        _times(split(image), gain) for image, gain in zip((a, b), gains, strict=True)
    )
    (ay, ax), (by, bx) = (
        (_times(split(g), gain) for g in pair)
        for pair, gain in zip(gradients, gains, strict=True)
    )
    inside = np.einsum("abcd->ac", split(mask)).ravel() >= 0.75 * side**2

    def mean(one: NDArray[Any], other: NDArray[Any]) -> Array:
        found = np.einsum("abcd,abcd->ac", one, other, dtype=np.float64)
        return np.where(inside, found.ravel() / side**2, 0.0)

    mismatch = b - a
    slope = np.stack([mean((ay + by) / 2, mismatch), mean((ax + bx) / 2, mismatch)], 1)
    yy, xx = (np.maximum(mean(*pair), 0) for pair in ((ay, by), (ax, bx)))
    most = 0.95 * np.sqrt(yy * xx)  # noise alone can give any value
    yx = np.clip((mean(ay, bx) + mean(ax, by)) / 2, -most, most)
    common = _tensors(yy, yx, xx)
    own = _tensors(
        (mean(ay, ay) + mean(by, by)) / 2,
        (mean(ay, ax) + mean(by, bx)) / 2,
        (mean(ax, ax) + mean(bx, bx)) / 2,
    )
    amount = np.maximum(np.trace(own, axis1=1, axis2=2), 1e-20)
    share = np.clip((yy + xx) / amount, 0, 1)
    variance = mean(mismatch, mismatch) / side**2
    return _Blocks(slope, common, own, share, variance, mean(a, b))


def _tensors(yy: Array, yx: Array, xx: Array) -> Array:
    """(n, 2, 2) symmetric matrices."""
    return np.stack([np.stack([yy, yx], 1), np.stack([yx, xx], 1)], 1)


def _times(blocks: Image, gain: Image) -> Image:
    return blocks * gain[:, None, :, None]


def _gradient(image: Image) -> tuple[Image, Image]:
    y, x = (np.asarray(slope, np.float32) for slope in np.gradient(image))
    return y, x


@dataclass(frozen=True, slots=True)
class _Solution:
    """Parameters, their information, and of each block its displacement and weight."""

    parameters: Array
    information: Array
    distances: Array
    weights: Array


def _solve(blocks: _Blocks, at: Array, kind: str, plane: Plane, step: int) -> _Solution:
    """Parameters that bring the second slice onto the first, robustly."""
    count = at.shape[2]
    prior = np.full(count, (EXPECTED_CHANGE * plane.radius) ** -2)
    prior[:2] = (EXPECTED_SHIFT * plane.radius) ** -2
    useful = blocks.share > LEAST_COMMON
    identity = np.eye(2)
    common = blocks.common + 1e-3 * identity
    # Far apart, and in noise, little is common: a step by that alone would go too far.
    # Of pixels of the level; those of the slice are `step` times smaller.
    both = (common + blocks.own) / 2
    distances = -np.linalg.solve(both, blocks.slope[..., None])[..., 0] * step
    distances = np.where(useful[:, None], distances, 0.0)
    variance = np.maximum(blocks.variance, 1e-7) * CORRELATED_PIXELS
    information = common * (blocks.share / variance)[:, None, None] / step**2
    error = (BLOCK_ERROR * step) ** 2
    spread = np.linalg.inv(information + 1e-12 * identity) + error * identity
    information = np.where(useful[:, None, None], np.linalg.inv(spread), 0.0)
    weights = useful.astype(float)
    parameters = np.zeros(count)
    scale = np.inf
    for _ in range(REWEIGHTED):
        weighted = information * weights[:, None, None]
        normal = np.einsum("nik,nij,njl->kl", at, weighted, at) + np.diag(prior)
        right = np.einsum("nik,nij,nj->k", at, weighted, distances)
        parameters = np.linalg.solve(normal, right)
        off = distances - at @ parameters
        relative = np.sqrt(
            np.maximum(np.einsum("ni,nij,nj->n", off, information, off), 0) / 2
        )
        if not useful.any():
            break
        amount = np.trace(information, axis1=1, axis2=2)
        scale = max(1.2 * _weighted_median(relative[useful], amount[useful]), 0.3)
        ratio = np.minimum(relative / (CUTOFF * scale), 1)
        weights = np.where(useful, (1 - ratio**2) ** 2, 0.0)
    normal /= max(scale, 1.0) ** 2 if np.isfinite(scale) else 1.0
    amount = weights * np.trace(information, axis1=1, axis2=2)
    return _Solution(parameters, normal, distances.astype(np.float64), amount)


def _weighted_median(values: Array, weights: Array) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
