"""Measures of how well the fused image keeps the slices' edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.metrics.images import over_channels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from napari_focus_fusion.metrics.images import DataRange, Plane, Sources

_TINY = 1e-5  # stands for a gradient of zero where one divides by it
_STRIP = 64  # rows


def _strips(planes: Sequence[Plane]) -> Iterator[list[tuple[Plane, Plane]]]:
    """Yield the edges of the planes, strip by strip: small enough for the cache."""
    padded = [np.pad(plane, 1) for plane in planes]
    for top in range(0, planes[0].shape[0], _STRIP):
        yield [_edges(plane[top : top + _STRIP + 2]) for plane in padded]


def _edges(padded: Plane) -> tuple[Plane, Plane]:
    """Return strength and direction (-pi/2..pi/2) of the Sobel gradient inside."""
    across = padded[:, 2:] - padded[:, :-2]
    along_x = across[:-2] + 2 * across[1:-1] + across[2:]
    down = padded[2:] - padded[:-2]
    along_y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    strength = np.sqrt(along_x * along_x + along_y * along_y)
    along_x[along_x == 0] = _TINY
    return strength, np.arctan(along_y / along_x)


def _strength_kept(source: Plane, fused: Plane, number: int) -> Plane:
    """Return the ratio of the weaker to the stronger gradient, 1 if both are zero.

    The public toolbox, whose figures the literature quotes, lets a vanished gradient of
    the first source count 0 and of the others 1e-5 / source; it is kept as it is.
    """
    source_safe = np.where(source == 0, _TINY, source)
    fused_safe = np.where(fused == 0, _TINY, fused)
    weaker = fused if number == 0 else fused_safe
    return np.where(source > fused, weaker / source_safe, source_safe / fused_safe)


def _sigmoid(x: Plane, slope: float, middle: float) -> Plane:
    return 1 / (1 + np.exp(-slope * (x - middle)))


def q_g_plane(fused: Plane, sources: Sequence[Plane]) -> float:
    """Return Q_G of one plane; see `q_g`."""
    score = 0.0
    for (fused_strength, fused_angle), *edges in _strips([fused, *sources]):
        kept = np.zeros_like(fused_strength)
        total = np.zeros_like(fused_strength)
        for number, (strength, angle) in enumerate(edges):
            turned = np.abs(np.abs(angle - fused_angle) - np.pi / 2) * (2 / np.pi)
            ratio = _strength_kept(strength, fused_strength, number)
            weight = np.where(strength == 0, _TINY, strength)
            kept += _sigmoid(ratio, 10, 0.5) * _sigmoid(turned, 20, 0.75) * weight
            total += weight
        score += float((kept / total).sum())
    return score / fused.size


def q_abf_plane(fused: Plane, sources: Sequence[Plane]) -> float:
    """Return Q_AB/F of one plane; see `q_abf`."""
    kept = total = 0.0
    for (fused_strength, fused_angle), *edges in _strips([fused, *sources]):
        for number, (strength, angle) in enumerate(edges):
            turned = 1 - np.abs(angle - fused_angle) * (2 / np.pi)
            ratio = _strength_kept(strength, fused_strength, number)
            strengths = 0.9994 * _sigmoid(ratio, 15, 0.5)
            directions = 0.9879 * _sigmoid(turned, 22, 0.8)
            weight = np.where(strength == 0, _TINY, strength)
            kept += float((strengths * directions * weight).sum())
            total += float(weight.sum())
    return kept / total


def q_g(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    *,
    data_range: DataRange = None,
) -> float:
    r"""Return the gradient measure Q_G: the mean over pixels of the edges kept.

    .. math:: Q_G = \operatorname{mean}_{x} \frac{\sum_n g_n q_n}{\sum_n g_n}, \quad
              q_n = \frac{1}{1 + e^{-10 (G_n - 0.5)}}
                    \frac{1}{1 + e^{-20 (D_n - 0.75)}}

    g_n is the Sobel gradient of slice n, G_n the ratio of the weaker to the stronger of
    g_n and the fused gradient, D_n = 1 for equal (or opposite) directions and 0 at
    right angles. RGB: mean over the channels.

    Range 0..0.98666; the upper end where every slice equals the fused image, constant
    images included.

    Every pixel counts alike, so that noise in the background weighs as much as the
    object; noise carried over from a slice is rewarded, noise removed is punished.
    `q_abf` weighs by strength over the whole image; the two differ by 0.03 to 0.07
    and must not be mixed in a table. Blind to brightness and to halos without edges.

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
    Xydeas, Petrovic, "Objective image fusion performance measure", Electronics Letters
    36(4), 2000, doi:10.1049/el:20000267, with the constants of Liu et al., IEEE TPAMI
    34(1), 2012. doi:10.1109/TPAMI.2011.109

    Examples
    --------
    An image, and two slices that each lack one half of it:

    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> slices = np.stack([truth, truth])
    >>> slices[0, :, :32] = slices[1, :, 32:] = 128
    >>> round(q_g(truth, slices), 2)
    0.95
    >>> round(q_g(slices[0], slices), 2)
    0.51
    """
    return over_channels(q_g_plane, fused, sources, data_range)


def q_abf(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    *,
    data_range: DataRange = None,
) -> float:
    r"""Return Q_AB/F: edges kept, weighted by their strength over the whole image.

    .. math:: Q_{AB/F} = \frac{\sum_x \sum_n g_n q_n}{\sum_x \sum_n g_n}, \quad
              q_n = \frac{0.9994}{1 + e^{-15 (G_n - 0.5)}}
                    \frac{0.9879}{1 + e^{-22 (D_n - 0.8)}}

    g_n and G_n as in `q_g`; D_n = 1 - 2 a / pi with the angle a between the gradients,
    which takes opposite slopes for different. RGB: mean over the channels.

    Range 0..0.9748; the upper end where every slice equals the fused image, constant
    images included.

    Blind to weak detail beside strong edges, to brightness, and to noise carried over
    from a slice. Spearman correlation with PSNR and SSIM to a known truth 0.36 and
    0.26.

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
    Xydeas, Petrovic, "Objective image fusion performance measure", Electronics Letters
    36(4), 2000. doi:10.1049/el:20000267

    Examples
    --------
    An image, and two slices that each lack one half of it:

    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> slices = np.stack([truth, truth])
    >>> slices[0, :, :32] = slices[1, :, 32:] = 128
    >>> round(q_abf(truth, slices), 2)
    0.9
    >>> round(q_abf(slices[0], slices), 2)
    0.52
    """
    return over_channels(q_abf_plane, fused, sources, data_range)
