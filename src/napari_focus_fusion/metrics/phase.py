"""Q_P: features that do not depend on contrast (phase congruency), kept by the fusion.

The filter bank has 24 log-Gabor filters (4 scales x 6 orientations), and every plane is
transformed back once for each, which is what the measure costs. The filters are
products of a radial and an angular part, so that 10 arrays hold them; they are kept for
the last picture size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from napari_focus_fusion.metrics.images import as_sources, thread_map
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
_STRIP = 32  # rows of all scales that stay in the cache


@dataclass(frozen=True, eq=False)
class PhaseFeatures:
    """Features of one plane, each float64 (Y, X).

    Attributes
    ----------
    congruency : array
        Phase congruency, 0..1.
    strongest, weakest : array
        Its largest and smallest moment over the orientations (edges and corners).
    """

    congruency: Plane
    strongest: Plane
    weakest: Plane

    @property
    def maps(self) -> tuple[Plane, Plane, Plane]:
        """Return the three features in the order in which Q_P compares them."""
        return self.congruency, self.strongest, self.weakest


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
        turned = angle - number * np.pi / _ORIENTATIONS
        distance = np.abs(np.arctan2(np.sin(turned), np.cos(turned)))
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
) -> tuple[Plane, Plane]:
    """Return the noise-free energy and the summed amplitude at one orientation."""
    height, width = spectrum.shape
    oriented = spectrum * bank.angular[number]
    responses = np.empty((_SCALES, height, width), dtype=np.complex128)
    for response, radial in zip(responses, bank.radial, strict=True):
        np.multiply(oriented, radial, out=response)
    # overwrite_x: the result lies where the filtered spectra were
    responses = fft.ifft(responses, axis=1, overwrite_x=True)
    energy, amplitude, smallest, weight = np.empty((4, height, width))
    for start in range(0, height, _STRIP):
        strip = slice(start, start + _STRIP)
        response = fft.ifft(responses[:, strip], axis=2, overwrite_x=True)
        amplitudes = np.abs(response)
        smallest[strip] = amplitudes[0]
        summed = np.sum(amplitudes, axis=0, out=amplitude[strip])
        spread = summed / (amplitudes.max(axis=0) + _SMALL)
        weight[strip] = 1 / (1 + np.exp(10 * (0.5 - spread / _SCALES)))
        # Even and odd responses along their mean direction, less those across it
        total = response.sum(axis=0)
        response *= total.conj()
        square = total.real**2 + total.imag**2
        across = np.abs(response.imag).sum(axis=0)
        energy[strip] = (square - across) / (np.sqrt(square) + _SMALL)
    energy -= bank.noise_gain[number] * np.sqrt(_median_square(smallest))
    np.maximum(energy, 0, out=energy)
    energy *= weight
    return energy, amplitude


def _median_square(values: Plane) -> float:
    """Return the median of the squares of values >= 0, by a single partition."""
    middle = values.size // 2
    parted = np.partition(values.ravel(), middle)
    upper = parted[middle] ** 2
    return float(upper if values.size % 2 else (upper + parted[:middle].max() ** 2) / 2)


def phase_features(plane: Plane) -> PhaseFeatures:
    """Return the phase congruency of one plane and its moments.

    Parameters
    ----------
    plane : float64 array (Y, X)
        Grey levels 0..255.

    Returns
    -------
    PhaseFeatures
        All zero for a constant plane.

    References
    ----------
    Kovesi, "Image features from phase congruency", Videre 1(3), 1999.
    """
    if plane.min() == plane.max():
        nothing = np.zeros_like(plane)
        return PhaseFeatures(nothing, nothing, nothing)
    height, width = plane.shape
    bank = _filter_bank((height, width))
    spectrum = fft.fft2(plane)
    results = thread_map(
        lambda number: _orientation_energy(spectrum, bank, number), range(_ORIENTATIONS)
    )
    total_energy = np.zeros_like(plane)
    total_amplitude = np.zeros_like(plane)
    along_x, along_y, mixed = (np.zeros_like(plane) for _ in range(3))
    for number, (energy, amplitude) in enumerate(results):
        angle = number * np.pi / _ORIENTATIONS
        total_energy += energy
        total_amplitude += amplitude
        np.divide(energy, amplitude, out=energy, where=amplitude > 0)
        energy *= energy
        along_x += np.cos(angle) ** 2 * energy
        along_y += np.sin(angle) ** 2 * energy
        mixed += np.cos(angle) * np.sin(angle) * energy
    along_x /= _ORIENTATIONS / 2
    along_y /= _ORIENTATIONS / 2
    mixed /= _ORIENTATIONS
    apart = np.sqrt(mixed * mixed + (along_x - along_y) ** 2) + _SMALL
    both = along_x + along_y
    return PhaseFeatures(
        total_energy / (total_amplitude + _SMALL),
        (both + apart) / 2,
        (both - apart) / 2,
    )


def _local_correlation(
    source: Plane,
    feature: NDArray[np.bool_],
    fused: Plane,
    fused_moments: tuple[Plane, Plane],
) -> Plane:
    """Return the correlation with the fused map where the source has a feature."""
    masked = np.where(feature, source, 0)
    mean_fused, variance_fused = fused_moments
    mean = smooth_same(masked, _WINDOW)
    variance = smooth_same(masked * masked, _WINDOW) - mean * mean
    covariance = smooth_same(masked * fused, _WINDOW) - mean * mean_fused
    scale = np.sqrt(np.abs(variance * variance_fused)) + _SMALL
    return np.where(feature, (covariance + _SMALL) / scale, 0)


def q_p_features(fused: PhaseFeatures, sources: Iterable[PhaseFeatures]) -> float:
    """Return Q_P of one plane from the features of the fused plane and the slices.

    The slices' features are used one after the other, so they may come from a
    generator.
    """
    fused_moments = []
    for plane in fused.maps:
        mean = smooth_same(plane, _WINDOW)
        fused_moments.append((mean, smooth_same(plane * plane, _WINDOW) - mean * mean))

    def compare(source: PhaseFeatures) -> list[Plane]:
        feature = source.congruency > _FEATURE
        return list(
            thread_map(
                lambda s, f, m: _local_correlation(s, feature, f, m),
                source.maps,
                fused.maps,
                fused_moments,
            )
        )

    best: list[Plane] = []
    strongest: PhaseFeatures | None = None
    for source in sources:
        correlations = compare(source)
        if strongest is None:
            best, strongest = correlations, source
            continue
        best = [np.maximum(b, c) for b, c in zip(best, correlations, strict=True)]
        keep = strongest.congruency > source.congruency
        strongest = PhaseFeatures(
            *(
                np.where(keep, s, n)
                for s, n in zip(strongest.maps, source.maps, strict=True)
            )
        )
    assert strongest is not None
    features = np.count_nonzero(strongest.congruency > _FEATURE)
    if features == 0:
        return float(not (fused.congruency > _FEATURE).any())
    if not fused.congruency.any():
        return 0.0
    best = [np.maximum(b, c) for b, c in zip(best, compare(strongest), strict=True)]
    return float(np.prod([plane.sum() / features for plane in best]))


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
    on a textured picture). If no slice has a feature, 1 where the fused image has none
    either, else 0. A constant fused image of slices with features scores 0 (the formula
    alone would say nearly 1, c over c).

    Blind to contrast and brightness by design, and to how strongly a feature was kept.
    A copy of one of two slices can score higher than a good fusion (0.851 and 0.844 on
    one test picture).

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
    """
    checked = as_sources(sources, data_range)
    scores = []
    for channel, plane in enumerate(checked.channels(fused, "The fused image")):
        slices = (
            map(phase_features, checked.planes[channel])
            if checked.phase is None
            else checked.phase[channel]
        )
        scores.append(q_p_features(phase_features(plane), slices))
    return float(np.mean(scores))
