"""Q_P: features that do not depend on contrast (phase congruency), kept by the fusion.

The filter bank has 24 log-Gabor filters (4 scales x 6 orientations), and every plane is
transformed back once for each, which is what the measure costs. The filters are
products of a radial and an angular part, so that 10 arrays hold them; they are kept for
the last image size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics.images import (
    PhaseFeatures,
    as_array,
    as_sources,
    thread_map,
)
from napari_focus_fusion.metrics.windows import gaussian, smooth_same

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_focus_fusion.metrics.images import DataRange, Plane, Sources

_SCALES = 4
_ORIENTATIONS = 6
_SHORTEST_WAVE = 3.0
_WAVE_RATIO = 2.1
_BANDWIDTH = 0.55
_ANGULAR_SIGMA = np.pi / _ORIENTATIONS / 1.2
_NOISE_SIGMAS = 2.0
_NOISE_SHRINK = 1.7
_SMALL = 1e-4  # of the toolbox, in every quotient
_FEATURE = 0.1  # least phase congruency of a feature
_WINDOW = gaussian(11, 1.5)
_STRIP = 32  # rows; of all scales they about fit into the cache


@dataclass(frozen=True, eq=False)
class _FilterBank:
    radial: NDArray[np.float64]  # (scales, Y, X), in the order of fft2
    angular: NDArray[np.float64]  # (orientations, Y, X)
    noise_gain: NDArray[np.float64]  # (orientations,): threshold per root median energy


def _frequencies(length: int, *, odd_divisor: int) -> Plane:
    return (np.arange(length) - length // 2) / (length - (length % 2) * odd_divisor)


@lru_cache(maxsize=1)
def _filter_bank(shape: tuple[int, int]) -> _FilterBank:
    height, width = shape
    across = _frequencies(height, odd_divisor=1)[:, np.newaxis]
    along = _frequencies(width, odd_divisor=1)
    radius = np.hypot(across, along)
    radius[height // 2, width // 2] = 1
    angle = np.arctan2(-across, along)
    # The public toolbox shifts its low-pass the wrong way round on odd sides. The
    # figures in the literature were made with it, so it stays.
    low_pass_radius = np.hypot(
        _frequencies(height, odd_divisor=0)[:, np.newaxis],
        _frequencies(width, odd_divisor=0),
    )
    low_pass = fft.fftshift(1 / (1 + (low_pass_radius / 0.45) ** 30))
    waves = _SHORTEST_WAVE * _WAVE_RATIO ** np.arange(_SCALES)
    radial = np.empty((_SCALES, height, width))
    for scale, wave in enumerate(waves):
        log_gabor = np.exp(
            -(np.log(radius * wave) ** 2) / (2 * np.log(_BANDWIDTH) ** 2)
        )
        radial[scale] = fft.ifftshift(log_gabor) * low_pass
    radial[:, 0, 0] = 0
    angular = np.empty((_ORIENTATIONS, height, width))
    noise_gain = np.empty(_ORIENTATIONS)
    all_scales = radial.sum(axis=0)
    quantile = (
        np.sqrt(np.pi / 2) + _NOISE_SIGMAS * np.sqrt(2 - np.pi / 2)
    ) / _NOISE_SHRINK
    for number in range(_ORIENTATIONS):
        distance = np.abs(angle - number * np.pi / _ORIENTATIONS)
        np.minimum(distance, 2 * np.pi - distance, out=distance)
        angular[number] = fft.ifftshift(
            np.exp(-(distance**2) / (2 * _ANGULAR_SIGMA**2))
        )
        # Energy of the real part of the summed filters in space, from their spectrum
        summed = all_scales * angular[number]
        even = (summed + np.roll(summed[::-1, ::-1], 1, axis=(0, 1))) / 2
        smallest = radial[0] * angular[number]
        energy = (even * even).sum() / (smallest * smallest).sum()
        noise_gain[number] = np.sqrt(energy / np.log(2)) * quantile
    return _FilterBank(radial, angular, noise_gain)


def _orientation_energy(
    spectrum: NDArray[np.complex128], bank: _FilterBank, number: int
) -> tuple[Plane, Plane, Plane]:
    """Return noise-free energy and amplitude at one orientation, and (ratio)^2."""
    height, width = spectrum.shape
    oriented = spectrum * bank.angular[number]
    responses = [_filtered(oriented, radial) for radial in bank.radial]
    energy, amplitude, smallest, weight = np.empty((4, height, width))
    for start in range(0, height, _STRIP):
        strip = slice(start, start + _STRIP)
        _measure(
            [response[strip] for response in responses],
            energy[strip],
            amplitude[strip],
            smallest[strip],
            weight[strip],
        )
    energy -= bank.noise_gain[number] * np.sqrt(_median_square(smallest))
    np.maximum(energy, 0, out=energy)
    energy *= weight
    # without amplitude there is no energy, so that any divisor > 0 will do
    share = np.maximum(amplitude, np.finfo(np.float64).tiny, out=weight)
    np.divide(energy, share, out=share)
    share *= share
    return energy, amplitude, share


def _filtered(spectrum: NDArray[np.complex128], gain: Plane) -> NDArray[np.complex128]:
    """Return the image of a spectrum times `gain`: its real part even, its other odd.

    By PyTorch, whose Fourier transform is twice as fast as scipy's on most processors.
    """
    import torch

    product = torch.empty(spectrum.shape, dtype=torch.complex128)
    np.multiply(spectrum, gain, out=product.numpy())
    image: NDArray[np.complex128] = torch.fft.ifft2(product).numpy()
    return image


def _measure(
    responses: Sequence[NDArray[np.complex128]],
    energy: Plane,
    amplitude: Plane,
    smallest: Plane,
    weight: Plane,
) -> None:
    """Fill in what is needed of the responses at all scales, each (Y, X).

    The real part of a response is that of the even filter, the imaginary that of the
    odd one. Sums are written out, and done in place: this is half of what Q_P costs.
    """
    np.abs(responses[0], out=smallest)
    amplitude[...] = smallest
    largest = smallest.copy()
    total = responses[0].copy()
    for response in responses[1:]:
        one = np.abs(response, out=weight)
        amplitude += one
        np.maximum(largest, one, out=largest)
        total += response
    # weight = 1 / (1 + exp(10 (0.5 - spread / scales))), spread = amplitude / largest
    largest += _SMALL
    np.divide(amplitude, largest, out=weight)
    weight *= -10 / _SCALES
    weight += 5
    np.exp(weight, out=weight)
    weight += 1
    np.reciprocal(weight, out=weight)
    # Energy: along the mean direction, |total|^2, less what lies across it
    np.square(total.real, out=energy)
    energy += np.square(total.imag)
    size = np.sqrt(energy)
    across = largest
    turned_back = np.conj(total, out=total)
    for response in responses:
        energy -= np.abs((response * turned_back).imag, out=across)
    size += _SMALL
    energy /= size


def _median_square(values: Plane) -> float:
    """Return the median of the squares of values >= 0, by a single partition."""
    middle = values.size // 2
    parted = np.partition(values.ravel(), middle)
    upper = parted[middle] ** 2
    return float(upper if values.size % 2 else (upper + parted[:middle].max() ** 2) / 2)


def _as_plane(values: ArrayLike) -> Plane:
    plane = as_array(values, "The plane")
    if plane.dtype.kind not in "uif" or plane.ndim != 2 or not plane.size:
        raise FocusFusionError(
            f"Phase congruency is that of one plane (Y, X) of numbers, and this is "
            f"{plane.dtype} of shape {plane.shape}."
        )
    if not np.isfinite(plane).all():
        raise FocusFusionError("The plane contains NaN or infinite values.")
    return plane.astype(np.float64, copy=False)


def phase_features(plane: ArrayLike) -> PhaseFeatures:
    """Return the phase congruency of one plane and its moments.

    Parameters
    ----------
    plane : array (Y, X)
        Grey levels 0..255.

    Returns
    -------
    PhaseFeatures
        All zero for a constant plane.

    Raises
    ------
    FocusFusionError
        If it is no plane of finite numbers.

    References
    ----------
    Kovesi, "Image features from phase congruency", Videre 1(3), 1999.

    Examples
    --------
    An edge is found where it is, whatever its contrast.

    >>> import numpy as np
    >>> edge = np.zeros((64, 64))
    >>> edge[:, 32:] = 20
    >>> faint, strong = phase_features(edge), phase_features(10 * edge)
    >>> bool(np.allclose(faint.congruency, strong.congruency, atol=1e-3))
    True
    """
    plane = _as_plane(plane)
    if plane.min() == plane.max():
        zeros = np.zeros_like(plane)
        return PhaseFeatures(zeros, zeros, zeros)
    height, width = plane.shape
    import torch  # noqa: F401 (before `thread_map` starts its threads)

    bank = _filter_bank((height, width))
    spectrum = fft.fft2(plane)
    results = thread_map(
        lambda number: _orientation_energy(spectrum, bank, number), range(_ORIENTATIONS)
    )
    total_energy, total_amplitude, both, apart, mixed = np.zeros((5, height, width))
    for number, (energy, amplitude, share) in enumerate(results):
        # cos^2 and sin^2 of the orientation, summed and subtracted, and cos * sin
        angle = 2 * np.pi * number / _ORIENTATIONS
        total_energy += energy
        total_amplitude += amplitude
        both += share
        apart += np.multiply(share, np.cos(angle), out=energy)
        mixed += np.multiply(share, np.sin(angle) / 2, out=share)
    both /= _ORIENTATIONS / 2
    apart /= _ORIENTATIONS / 2
    mixed /= _ORIENTATIONS
    distance = np.sqrt(mixed * mixed + apart * apart) + _SMALL
    total_amplitude += _SMALL
    return PhaseFeatures(
        total_energy / total_amplitude, (both + distance) / 2, (both - distance) / 2
    )


class _Kept:
    """How much of one feature of the slices the fused plane keeps, slice by slice."""

    def __init__(self, fused: Plane) -> None:
        self.fused = fused
        self.mean = smooth_same(fused, _WINDOW)
        self.variance = smooth_same(fused * fused, _WINDOW) - self.mean * self.mean
        self.best = np.full_like(fused, -np.inf)

    def compare(self, source: Plane, mask: NDArray[np.bool_]) -> None:
        """Take in the local correlation with a slice where it has a feature."""
        masked = source * mask
        mean = smooth_same(masked, _WINDOW)
        kept = smooth_same(masked * self.fused, _WINDOW)
        kept -= mean * self.mean
        kept += _SMALL
        masked *= masked
        scale = smooth_same(masked, _WINDOW)
        mean *= mean
        scale -= mean
        scale *= self.variance
        np.abs(scale, out=scale)
        np.sqrt(scale, out=scale)
        scale += _SMALL
        kept /= scale
        kept *= mask
        np.maximum(self.best, kept, out=self.best)


def _stronger(first: PhaseFeatures, second: PhaseFeatures) -> PhaseFeatures:
    """Return at each pixel the features of the larger phase congruency."""
    keep = first.congruency > second.congruency
    maps = zip(first.maps, second.maps, strict=True)
    return PhaseFeatures(*(np.where(keep, one, other) for one, other in maps))


def _q_p_of_channels(
    fused: Sequence[PhaseFeatures], slices: Iterable[Sequence[PhaseFeatures]]
) -> list[float]:
    """Return Q_P of each channel, from slices given one after the other."""
    kept = list(thread_map(_Kept, [plane for of in fused for plane in of.maps]))

    def compare(channels: Sequence[PhaseFeatures]) -> None:
        maps = [plane for of in channels for plane in of.maps]
        masks = [of.congruency > _FEATURE for of in channels for _ in of.maps]
        for _ in thread_map(_Kept.compare, kept, maps, masks):
            pass

    strongest: Sequence[PhaseFeatures] = ()
    for channels in slices:
        compare(channels)
        strongest = list(map(_stronger, strongest or channels, channels))
    compare(strongest)
    scores = []
    for channel, (of_fused, of_slices) in enumerate(zip(fused, strongest, strict=True)):
        features = np.count_nonzero(of_slices.congruency > _FEATURE)
        if features == 0:
            scores.append(float(not (of_fused.congruency > _FEATURE).any()))
        elif not of_fused.congruency.any():
            scores.append(0.0)
        else:
            sums = [np.sum(one.best) for one in kept[3 * channel : 3 * channel + 3]]
            scores.append(float(np.prod(sums) / features**3))
    return scores


def q_p(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    *,
    data_range: DataRange = None,
) -> float:
    r"""Return Q_P: correlation of phase congruency between the slices and the fusion.

    .. math:: Q_P = P_{PC} P_M P_m, \quad P_\phi = \frac{1}{|K|} \sum_x
              \max_{S \in \{X_1..X_N, \max\}} \frac{\operatorname{cov}_w(\phi_S,
              \phi_F) + c}{\sigma_w(\phi_S)\, \sigma_w(\phi_F) + c}

    for phase congruency PC and its largest and smallest moment M, m (log-Gabor filters
    of 4 scales and 6 orientations); w is an 11 x 11 Gaussian window, c = 1e-4, "max"
    the pixelwise strongest slice, K the pixels with PC > 0.1 in any slice; a slice
    counts only where its own PC > 0.1. RGB: mean over the channels.

    Range about 0..1 (a single factor can turn negative); not quite 1 for identical
    images, because features near the 0.1 threshold are masked in the slices only (0.979
    on a textured image). If no slice has a feature, 1 where the fused image has none
    either, else 0. A constant fused image of slices with features scores 0 (the formula
    alone would say nearly 1, c over c).

    Blind to contrast and brightness by design, and to how strongly a feature was kept.
    A copy of one of two slices can score higher than a good fusion (0.851 and 0.844 on
    one test image).

    Parameters
    ----------
    fused : array (Y, X) or (Y, X, 3)
        The fused image, of the slices' shape and dtype.
    sources : array (N, Y, X) or (N, Y, X, 3), sequence of slices, or Sources
        The registered slices, N >= 2. By far the slowest measure: give it the result of
        `prepare` when several fused images are compared.
    data_range : float or (float, float), optional
        The range of the values; see `as_sources`.

    Returns
    -------
    float

    Raises
    ------
    FocusFusionError
        If shapes or types do not match, or values are not finite.

    References
    ----------
    Zhao, Laganiere, Liu, "Performance assessment of combinative pixel-level image
    fusion based on an absolute feature measurement", IJICIC 3(6A), 2007; Liu et al.,
    IEEE TPAMI 34(1), 2012. doi:10.1109/TPAMI.2011.109

    Examples
    --------
    An image, and two slices that each lack one half of it:

    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> slices = np.stack([truth, truth])
    >>> slices[0, :, :32] = slices[1, :, 32:] = 128
    >>> round(q_p(truth, slices), 2)
    0.46
    >>> round(q_p(slices[0], slices), 2)
    0.7
    """
    checked = as_sources(sources, data_range)
    # One plane after the other: each is spread over the cores by its orientations.
    of_fused = [*map(phase_features, checked.channels(fused, "The fused image"))]
    slices: Iterable[Sequence[PhaseFeatures]]
    if checked.phase is not None:
        slices = zip(*checked.phase, strict=True)
    else:  # one slice at a time, so that memory does not grow with their number
        by_slice = zip(*checked.planes, strict=True)
        slices = ([*map(phase_features, channels)] for channels in by_slice)
    return float(np.mean(_q_p_of_channels(of_fused, slices)))
