"""Measures modelled on human vision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics.images import over_channels
from napari_focus_fusion.metrics.information import stretch
from napari_focus_fusion.metrics.windows import gaussian, smooth_same, smooth_valid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from napari_focus_fusion.metrics.images import DataRange, Plane, Sources

_VIFF_NOISE = 0.005 * 255**2
_VIFF_SIDES = (17, 9, 5, 3)
_VIFF_SCALES = (1 / 2.15, 0.0, 0.15 / 2.15, 1 / 2.15)
_VIFF_SMALLEST = 41  # below, the 3 x 3 window does not fit the fourth scale


def _contrast_sensitivity(shape: tuple[int, ...]) -> Plane:
    """Return the eye's response to the frequencies of `scipy.fft.rfft2`."""
    height, width = shape
    across = 2 * fft.fftfreq(height)[:, np.newaxis] * height / 30
    along = 2 * fft.rfftfreq(width) * width / 30
    square = across**2 + along**2
    return np.exp(-square / 15.3870**2) - 0.7622 * np.exp(-square / 1.3456**2)


def _blurred(plane: Plane, sigma: float) -> Plane:
    offsets = np.arange(-15, 16)
    weights = np.exp(-(offsets**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    return smooth_same(plane, weights)


def _masked_contrast(plane: Plane, sensitivity: Plane) -> Plane:
    filtered = fft.irfft2(fft.rfft2(stretch(plane)) * sensitivity, s=plane.shape)
    wide = _blurred(filtered, 4)
    dark = wide == 0  # a constant plane shows no contrast
    ratio = _blurred(filtered, 2) / np.where(dark, 1, wide)
    contrast = np.where(dark, 0, np.abs(ratio - 1))
    return contrast**3 / (contrast**2 + 1e-4)


def q_cb_plane(fused: Plane, sources: Sequence[Plane]) -> float:
    """Return Q_CB of one plane; see `q_cb`."""
    sensitivity = _contrast_sensitivity(fused.shape)
    of_fused = _masked_contrast(fused, sensitivity)
    total = np.zeros_like(fused)
    weighted = np.zeros_like(fused)
    plain = np.zeros_like(fused)
    for source in sources:
        of_source = _masked_contrast(source, sensitivity)
        higher = np.maximum(of_source, of_fused)
        lower = np.minimum(of_source, of_fused)
        preserved = np.where(higher == 0, 1, lower / np.where(higher == 0, 1, higher))
        saliency = of_source * of_source
        weighted += saliency * preserved
        total += saliency
        plain += preserved / len(sources)
    flat = total == 0
    return float(np.where(flat, plain, weighted / np.where(flat, 1, total)).mean())


def _visual_information(
    source: Plane, fused: Plane, window: Plane
) -> tuple[Plane, Plane, Plane]:
    """Return gain, distorted and reference visual information of two planes."""
    source_mean, fused_mean = smooth_valid(source, window), smooth_valid(fused, window)
    source_var = smooth_valid(source * source, window) - source_mean**2
    fused_var = smooth_valid(fused * fused, window) - fused_mean**2
    source_var, fused_var = np.maximum(source_var, 0), np.maximum(fused_var, 0)
    covariance = smooth_valid(source * fused, window) - source_mean * fused_mean
    gain = covariance / (source_var + 1e-10)
    residual = fused_var - gain * covariance
    without_source = source_var < 1e-10
    gain[without_source] = 0
    residual[without_source] = fused_var[without_source]
    source_var[without_source] = 0
    without_fused = fused_var < 1e-10
    gain[without_fused] = 0
    residual[without_fused] = 0
    negative = gain < 0
    residual[negative] = fused_var[negative]
    gain[negative] = 0
    residual = np.maximum(residual, 1e-10)
    kept = np.log10(1 + gain * gain * source_var / (residual + _VIFF_NOISE))
    return gain, kept, np.log10(1 + source_var / _VIFF_NOISE)


def viff_plane(fused: Plane, sources: Sequence[Plane]) -> float:
    """Return VIFF of one plane; see `viff`."""
    if min(fused.shape) < _VIFF_SMALLEST:
        raise FocusFusionError(
            f"VIFF halves pictures three times and needs {_VIFF_SMALLEST} pixels a "
            f"side, this one has {fused.shape[1]} x {fused.shape[0]}; ask for the "
            "other measures by name."
        )
    planes = [*sources, fused]
    score = 0.0
    for level, (side, share) in enumerate(zip(_VIFF_SIDES, _VIFF_SCALES, strict=True)):
        window = gaussian(side, side / 5)
        if level:
            planes = [smooth_valid(plane, window)[::2, ::2].copy() for plane in planes]
        if not share:
            continue
        least, kept, reference = _visual_information(planes[0], planes[-1], window)
        for source in planes[1:-1]:
            gain, kept_here, reference_here = _visual_information(
                source, planes[-1], window
            )
            replace = gain <= least
            least = np.where(replace, gain, least)
            kept = np.where(replace, kept_here, kept)
            reference = np.where(replace, reference_here, reference)
        score += share * float((kept + 1e-7).sum() / (reference + 1e-7).sum())
    return score


def q_cb(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    *,
    data_range: DataRange = None,
) -> float:
    r"""Return the Chen-Blum measure Q_CB: contrast kept, as the eye perceives it.

    .. math:: Q_{CB} = \operatorname{mean}_x \sum_n
              \frac{C_n'^2}{\sum_m C_m'^2}
              \frac{\min(C_n', C_F')}{\max(C_n', C_F')}

    C' = C^3 / (C^2 + 1e-4), C the local contrast (Gaussians of sigma 2 and 4) after the
    eye's contrast sensitivity. Every plane is spread over 0..255 first. RGB: mean over
    the channels.

    Range 0..1; 1 where every slice equals the fused image, constant images included. A
    constant fused image of varied slices scores nearly 0.

    Blind to overall brightness and contrast (every plane is stretched) and to detail
    finer than its blur; barely correlated with a known truth (Spearman 0.14 with PSNR,
    0.02 with SSIM).

    Parameters
    ----------
    fused : array (Y, X) or (Y, X, 3)
        The fused image, of the slices' shape and dtype.
    sources : array (N, Y, X) or (N, Y, X, 3), sequence of slices, or Sources
        The registered slices, N >= 2.
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
    Chen, Blum, "A new automated quality assessment algorithm for image fusion", Image
    and Vision Computing 27(10), 2009. doi:10.1016/j.imavis.2007.12.002

    Examples
    --------
    An image, and two slices that each lack one half of it:

    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> slices = np.stack([truth, truth])
    >>> slices[0, :, :32] = slices[1, :, 32:] = 128
    >>> round(q_cb(truth, slices), 2)
    0.84
    >>> round(q_cb(slices[0], slices), 2)
    0.66
    """
    return over_channels(q_cb_plane, fused, sources, data_range)


def viff(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    *,
    data_range: DataRange = None,
) -> float:
    r"""Return the visual information fidelity for fusion, VIFF.

    .. math:: VIFF = \frac{F_1 + 0.15 F_3 + F_4}{2.15}, \quad
              F_k = \frac{\sum \log_{10}(1 + g^2 \sigma^2 / (\sigma_v^2 + \nu))}
                         {\sum \log_{10}(1 + \sigma^2 / \nu)}

    F_k at the k-th of four scales, nu = 0.005 * 255^2; g is the gain from a slice to
    the fused image within a Gaussian window, sigma_v what is left unexplained. Each
    pixel is taken from the slice with the smallest gain, of equal ones the last. RGB:
    mean over the channels (the paper has the luminance only).

    Range 0..about 1; above 1 where the fused image has more contrast than the slices,
    as sharpening and noise bring it. 1 where every slice equals the fused image and
    where the slices are constant; 0 (below 1e-5) for a constant fused image of varied
    slices.

    Depends on the brightness scale: state `data_range`. Blind to brightness, and it
    rewards sharpening. Spearman correlation with PSNR and SSIM to a known truth 0.40
    and 0.45, among the better ones.

    Parameters
    ----------
    fused : array (Y, X) or (Y, X, 3)
        The fused image, of the slices' shape and dtype, at least 41 pixels a side.
    sources : array (N, Y, X) or (N, Y, X, 3), sequence of slices, or Sources
        The registered slices, N >= 2.
    data_range : float or (float, float), optional
        The range of the values; see `as_sources`.

    Returns
    -------
    float

    Raises
    ------
    FocusFusionError
        If shapes or types do not match, values are not finite, or the image is
        smaller than 41 pixels.

    References
    ----------
    Han, Cai, Cao, Xu, "A new image fusion performance metric based on visual
    information fidelity", Information Fusion 14(2), 2013.
    doi:10.1016/j.inffus.2011.08.002

    Examples
    --------
    An image, and two slices that each lack one half of it:

    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> slices = np.stack([truth, truth])
    >>> slices[0, :, :32] = slices[1, :, 32:] = 128
    >>> round(viff(truth, slices), 2)
    0.73
    >>> round(viff(slices[0], slices), 2)
    0.01
    """
    return over_channels(viff_plane, fused, sources, data_range)
