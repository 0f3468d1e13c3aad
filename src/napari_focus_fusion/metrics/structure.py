"""Measures of how far the fused image resembles the slices within small windows."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.metrics.images import over_channels
from napari_focus_fusion.metrics.windows import gaussian, moments, similarity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from napari_focus_fusion.metrics.images import DataRange, Plane, Sources

_SSIM_WINDOW = gaussian(11, 1.5)
_SSIM_C1 = (0.01 * 255) ** 2
_SSIM_C2 = (0.03 * 255) ** 2
_YANG_WINDOW = gaussian(7, 1.5)
_YANG_C = 2e-16
_YANG_ALIKE = 0.75
_STRIP = 64  # rows


def _weighted_mean(values: Sequence[Plane], variances: Sequence[Plane]) -> Plane:
    """Return the mean of `values` weighted by variance, plain where all are flat."""
    total = sum(variances[1:], start=variances[0])
    weighted = sum(v * w for v, w in zip(values, variances, strict=True))
    plain = sum(values[1:], start=values[0]) / len(values)
    flat = total == 0
    return np.where(flat, plain, weighted / np.where(flat, 1, total))


def _similarities(
    fused: Plane, sources: Sequence[Plane], window: Plane, c1: float, c2: float
) -> tuple[list[Plane], list[tuple[Plane, Plane]]]:
    """Return the similarity map of the fused image to each slice, and their moments."""
    fused_moments = moments(fused, window)
    of_sources = [moments(source, window) for source in sources]
    maps = [
        similarity(fused, source, fused_moments, of_source, window, c1, c2)
        for source, of_source in zip(sources, of_sources, strict=True)
    ]
    return maps, of_sources


def _piella_map(fused: Plane, sources: Sequence[Plane]) -> Plane:
    maps, of_sources = _similarities(fused, sources, _SSIM_WINDOW, _SSIM_C1, _SSIM_C2)
    return _weighted_mean(maps, [variance for _, variance in of_sources])


def _yang_map(fused: Plane, sources: Sequence[Plane]) -> Plane:
    window, c = _YANG_WINDOW, _YANG_C
    maps, of_sources = _similarities(fused, sources, window, c, c)
    least_alike = np.full_like(maps[0], np.inf)
    for i, j in combinations(range(len(sources)), 2):
        pair = (sources[i], sources[j], of_sources[i], of_sources[j])
        np.minimum(least_alike, similarity(*pair, window, c, c), out=least_alike)
    mean = _weighted_mean(maps, [variance for _, variance in of_sources])
    return np.where(least_alike >= _YANG_ALIKE, mean, np.max(maps, axis=0))


def _mean_of_strips(
    window_map: Callable[[Plane, Sequence[Plane]], Plane],
    fused: Plane,
    sources: Sequence[Plane],
    window: Plane,
) -> float:
    """Return the mean of a map of windows, made strip by strip to bound the memory."""
    border = len(window) - 1
    height, width = fused.shape[0] - border, fused.shape[1] - border
    total = 0.0
    for top in range(0, height, _STRIP):
        strip = slice(top, top + _STRIP + border)
        total += window_map(fused[strip], [source[strip] for source in sources]).sum()
    return float(total / (height * width))


def q_s_plane(fused: Plane, sources: Sequence[Plane]) -> float:
    """Return Q_S of one plane; see `q_s`."""
    return _mean_of_strips(_piella_map, fused, sources, _SSIM_WINDOW)


def q_y_plane(fused: Plane, sources: Sequence[Plane]) -> float:
    """Return Q_Y of one plane; see `q_y`."""
    return _mean_of_strips(_yang_map, fused, sources, _YANG_WINDOW)


def q_s(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    *,
    data_range: DataRange = None,
) -> float:
    r"""Return Piella's measure Q_S: SSIM to the slices, weighted by their contrast.

    .. math:: Q_S = \operatorname{mean}_w \sum_n
              \frac{\sigma_n^2(w)}{\sum_m \sigma_m^2(w)}
              \operatorname{SSIM}(X_n, F; w)

    over 11 x 11 Gaussian windows (sigma 1.5) that lie within the image, with SSIM's
    constants for 0..255. Where no slice has any contrast they count alike. RGB: mean
    over the channels.

    Range -1..1; 1 where every slice equals the fused image, constant images included.

    Depends on the brightness scale (the same image as 0..1 taken for 0..255 scores
    0.9999): state `data_range`. The weights follow variance, whether it is detail or
    noise; blind to what is lost where all slices are nearly flat, and it asks for
    resemblance to blurred slices, too, so that the true all-in-focus image scores
    0.945.

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
    Piella, Heijmans, "A new quality metric for image fusion", ICIP 2003,
    doi:10.1109/ICIP.2003.1247209; SSIM: Wang et al., IEEE TIP 13(4), 2004,
    doi:10.1109/TIP.2003.819861

    Examples
    --------
    An image, and two slices that each lack one half of it:

    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> slices = np.stack([truth, truth])
    >>> slices[0, :, :32] = slices[1, :, 32:] = 128
    >>> round(q_s(truth, slices), 2)
    0.98
    >>> round(q_s(slices[0], slices), 2)
    0.51
    """
    return over_channels(q_s_plane, fused, sources, data_range)


def q_y(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    *,
    data_range: DataRange = None,
) -> float:
    r"""Return Yang's measure Q_Y: `q_s` where slices agree, else the best match.

    .. math:: Q_Y = \operatorname{mean}_w \begin{cases}
              \sum_n \lambda_n \operatorname{SSIM}(X_n, F; w) &
              \min_{n \ne m} \operatorname{SSIM}(X_n, X_m; w) \ge 0.75 \\
              \max_n \operatorname{SSIM}(X_n, F; w) & \text{otherwise}
              \end{cases}

    over 7 x 7 Gaussian windows (sigma 1.5) within the image, lambda the slices'
    shares of variance (equal where all are flat), SSIM's constants nearly zero (2e-16).
    A window is flat where its variance is below 1e-12 of its mean square, which is
    rounding; its variance and covariance then count exactly 0. RGB: mean over the
    channels.

    Range -1..1; 1 where every slice equals the fused image, constant images included.

    Where the slices differ, resembling any of them will do, a blurred one included: a
    copy of one of two slices scores 0.9999, a good fusion 0.993. The cost grows with
    the square of the number of slices.

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
    Yang, Zhang, Wang, Li, "A novel similarity based quality metric for image fusion",
    Information Fusion 9(2), 2008. doi:10.1016/j.inffus.2006.09.001

    Examples
    --------
    An image, and two slices that each lack one half of it:

    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> slices = np.stack([truth, truth])
    >>> slices[0, :, :32] = slices[1, :, 32:] = 128
    >>> round(q_y(truth, slices), 2)
    0.99
    >>> round(q_y(slices[0], slices), 2)
    1.0
    """
    return over_channels(q_y_plane, fused, sources, data_range)
