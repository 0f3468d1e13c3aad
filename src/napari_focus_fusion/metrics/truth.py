"""Measures against a known truth: the all-in-focus image and the depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_dilation

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics.images import as_array, as_pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_focus_fusion.metrics.images import DataRange

EDGE_RADIUS = 5  # pixels on either side of a step in depth


def psnr(fused: ArrayLike, truth: ArrayLike, *, data_range: DataRange = None) -> float:
    r"""Return the peak signal-to-noise ratio in dB.

    .. math:: PSNR = 10 \log_{10} \frac{R^2}{\operatorname{mean} (F - T)^2}

    R is the width of the range. RGB: mean over the channels that differ at all, so that
    an empty channel does not make the mean infinite.

    Range: infinity for identical images, downwards.

    Blind to where and what the error is: a shift in brightness costs as much as lost
    detail, a pixel of misalignment more than blur.

    Parameters
    ----------
    fused, truth : array (Y, X) or (Y, X, 3)
        Two images of one shape and dtype.
    data_range : float or (float, float), optional
        The range of the values; by default 0..255 for 8-bit data, otherwise from the
        darkest to the brightest value of `truth`.

    Returns
    -------
    float

    Raises
    ------
    FocusFusionError
        If shapes or types do not match, or values are not finite.

    References
    ----------
    scikit-image, `skimage.metrics.peak_signal_noise_ratio`.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.full((32, 32), 100, np.uint8)
    >>> round(psnr(truth + 1, truth), 2), psnr(truth, truth)
    (48.13, inf)
    """
    from skimage.metrics import peak_signal_noise_ratio  # half a second

    scores = [
        float(peak_signal_noise_ratio(t, f, data_range=255))
        for f, t in as_pair(fused, truth, data_range)
        if not np.array_equal(f, t)
    ]
    return float(np.mean(scores)) if scores else float("inf")


def ssim(fused: ArrayLike, truth: ArrayLike, *, data_range: DataRange = None) -> float:
    """Return the structural similarity index, as published.

    Mean of the SSIM map under 11 x 11 Gaussian windows (sigma 1.5) within the image,
    K = (0.01, 0.03), in grey levels of 0..255. RGB: mean over the channels.

    Range -1..1; 1 for identical images, constant ones included.

    Depends on the range: state `data_range`. Blind to errors in windows that are much
    brighter than they are varied, and lenient with noise in textured ones.

    Parameters
    ----------
    fused, truth : array (Y, X) or (Y, X, 3)
        Two images of one shape and dtype, at least 11 pixels a side.
    data_range : float or (float, float), optional
        The range of the values; by default 0..255 for 8-bit data, otherwise from the
        darkest to the brightest value of `truth`.

    Returns
    -------
    float

    Raises
    ------
    FocusFusionError
        If shapes or types do not match, or values are not finite.

    References
    ----------
    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
    structural similarity", IEEE TIP 13(4), 2004. doi:10.1109/TIP.2003.819861

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    >>> ssim(truth, truth), round(ssim(255 - truth, truth), 2)
    (1.0, -0.97)
    """
    from skimage.metrics import structural_similarity  # half a second

    scores = [
        structural_similarity(
            t,
            f,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for f, t in as_pair(fused, truth, data_range)
    ]
    return float(np.mean(scores))


def depth_errors(depth: ArrayLike, true_depth: ArrayLike) -> dict[str, float]:
    """Return how far a depth map is from the true one, in slices.

    Parameters
    ----------
    depth : array (Y, X)
        Depth found, in slices (a decision map will do). Divide a depth map in
        micrometres by the distance between slices first.
    true_depth : array (Y, X)
        True depth in slices; NaN where it is not known.

    Returns
    -------
    dict of str to float
        ``"depth error"``, mean absolute error in slices; ``"depth >1"``, share (0..1)
        of pixels off by more than one slice; ``"depth edge"``, mean absolute error
        within 5 pixels of a step of more than one slice between neighbours of
        `true_depth`. The last is left out where there is no such step.

    Raises
    ------
    FocusFusionError
        If the shapes differ, `depth` is not finite or `true_depth` is nowhere known.

    Notes
    -----
    All are 0 for equal maps. The mean hides rare gross errors, which the share shows;
    in regions without texture no method can determine the depth, and the error there
    says nothing about the fused image. An integer decision map cannot go below about
    0.25 slices on a smooth relief.

    Examples
    --------
    >>> import numpy as np
    >>> true_depth = np.array([[0.0, 1.0, 2.0, np.nan]])
    >>> depth_errors([[0, 1, 4, 7]], true_depth)
    {'depth error': 0.66..., 'depth >1': 0.33...}
    """
    found = _as_depth(depth, "The depth map")
    true = _as_depth(true_depth, "The true depth")
    if found.ndim != 2 or found.shape != true.shape:
        raise FocusFusionError(
            f"The depth map has the shape {found.shape}, the true depth {true.shape}; "
            "both must be one plane (Y, X) of the same size."
        )
    if not np.isfinite(found).all():
        raise FocusFusionError("The depth map contains NaN or infinite values.")
    known = np.isfinite(true)
    if not known.any():
        raise FocusFusionError("The true depth is not known (NaN) at any pixel.")
    error = np.abs(found - np.where(known, true, 0))
    errors = {
        "depth error": float(error[known].mean()),
        "depth >1": float((error[known] > 1).mean()),
    }
    band = known & _near_steps(true)
    if band.any():
        errors["depth edge"] = float(error[band].mean())
    return errors


def _as_depth(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = as_array(values, name)
    if array.dtype.kind not in "uif":
        raise FocusFusionError(f"{name} holds {array.dtype} values, no numbers.")
    return array.astype(np.float64, copy=False)


def _near_steps(depth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where a step of over one slice is at most `EDGE_RADIUS` pixels away."""
    steps = np.zeros(depth.shape, dtype=bool)
    down = np.abs(np.diff(depth, axis=0)) > 1
    across = np.abs(np.diff(depth, axis=1)) > 1
    steps[1:] |= down
    steps[:-1] |= down
    steps[:, 1:] |= across
    steps[:, :-1] |= across
    square = np.ones((2 * EDGE_RADIUS - 1,) * 2, dtype=bool)
    return np.asarray(binary_dilation(steps, square), dtype=bool)
