"""All measures of one fused image at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics.gradient import q_abf_plane, q_g_plane
from napari_focus_fusion.metrics.images import as_sources, thread_map
from napari_focus_fusion.metrics.information import q_mi_plane, q_ncie_plane
from napari_focus_fusion.metrics.perception import q_cb_plane, viff_plane
from napari_focus_fusion.metrics.phase import phase_features, q_p
from napari_focus_fusion.metrics.sharpness import sharpness_plane
from napari_focus_fusion.metrics.structure import q_s_plane, q_y_plane
from napari_focus_fusion.metrics.truth import depth_errors, psnr, ssim
from napari_focus_fusion.parameters import several, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import ArrayLike

    from napari_focus_fusion.metrics.images import DataRange, Plane, Sources

# Of one plane and its slices; Q_P, which can use prepared features, is apart.
_OF_PLANES: dict[str, Callable[[Plane, Sequence[Plane]], float]] = {
    "Q_MI": q_mi_plane,
    "Q_NCIE": q_ncie_plane,
    "Q_G": q_g_plane,
    "Q_S": q_s_plane,
    "Q_Y": q_y_plane,
    "Q_CB": q_cb_plane,
    "VIFF": viff_plane,
    "Q_AB/F": q_abf_plane,
    "sharpness": lambda fused, sources: sharpness_plane(fused),
}
SIX = ("Q_MI", "Q_NCIE", "Q_G", "Q_P", "Q_S", "Q_Y")
WITHOUT_TRUTH = (*SIX, "Q_CB", "VIFF", "Q_AB/F", "sharpness")
_WITH_TRUTH: dict[str, Callable[..., float]] = {"PSNR": psnr, "SSIM": ssim}
WITH_TRUTH = tuple(_WITH_TRUTH)


def prepare(
    sources: Sources | ArrayLike | Sequence[ArrayLike], data_range: DataRange = None
) -> Sources:
    """Check slices once and compute what Q_P needs of them, for many fused images.

    Parameters
    ----------
    sources : array (N, Y, X) or (N, Y, X, 3), or sequence of slices
        The registered slices, N >= 2.
    data_range : float or (float, float), optional
        The range of the values; see `as_sources`.

    Returns
    -------
    Sources
        To be passed to `evaluate` or any measure in place of the slices. Holds four
        float64 planes per slice and channel.

    Raises
    ------
    FocusFusionError
        If the slices are not fit to be measured against; see `as_sources`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_focus_fusion.metrics import evaluate
    >>> slices = np.random.default_rng(0).integers(0, 256, (2, 64, 64), np.uint8)
    >>> sources = prepare(slices)
    >>> scores = [evaluate(fused, sources, measures=["Q_P"]) for fused in slices]
    """
    checked = as_sources(sources, data_range)
    phase = tuple(tuple(map(phase_features, planes)) for planes in checked.planes)
    return replace(checked, phase=phase)


def names_of_measures(measures: Iterable[str]) -> tuple[str, ...]:
    """Names from one or several; whether they are known is not looked at."""
    if isinstance(measures, str):
        return (measures,)
    if isinstance(measures, Mapping):  # of figures by their names
        measures = list(measures)
    return tuple(text_of("measures", name) for name in several("measures", measures))


def evaluate(
    fused: ArrayLike,
    sources: Sources | ArrayLike | Sequence[ArrayLike],
    truth: ArrayLike | None = None,
    *,
    depth: ArrayLike | None = None,
    true_depth: ArrayLike | None = None,
    data_range: DataRange = None,
    measures: Iterable[str] | None = None,
) -> dict[str, float]:
    """Measure a fused image against the slices it was made from, and against the truth.

    Information measures (Q_MI, Q_NCIE) correlate negatively with true quality, and a
    copy of one slice scores high on them, on Q_Y and at times on Q_P: judge by the
    truth where there is one, and by the eye.

    Parameters
    ----------
    fused : array (Y, X) or (Y, X, 3)
        The fused image.
    sources : array (N, Y, X) or (N, Y, X, 3), sequence of slices, or Sources
        The registered slices, N >= 2; the result of `prepare` saves time when several
        fused images are measured against the same slices.
    truth : array (Y, X) or (Y, X, 3), optional
        The true all-in-focus image.
    depth, true_depth : array (Y, X), optional
        Depth found and true depth, both in slices; see `depth_errors`.
    data_range : float or (float, float), optional
        The range of the values: the largest possible value, or (lowest, highest). By
        default 8-bit data are taken as 0..255; of other types the darkest value in the
        slices becomes 0 and the brightest 255, rounded to whole grey levels (PSNR and
        SSIM: the same range, not rounded).
    measures : iterable of str, optional
        Names to compute. By default "Q_MI", "Q_NCIE", "Q_G", "Q_P", "Q_S", "Q_Y",
        "Q_CB", "VIFF", "Q_AB/F", "sharpness", and with `truth` "PSNR" and "SSIM".

    Returns
    -------
    dict of str to float
        Values in the order of the names asked for, then the errors of depth. Higher is
        better, except for these errors. PSNR is infinite for an image equal to the
        truth.

    Raises
    ------
    FocusFusionError
        If the inputs do not fit each other, contain NaN, or a name is not known.

    Examples
    --------
    >>> import numpy as np
    >>> slices = np.arange(2 * 64 * 64, dtype=np.uint8).reshape(2, 64, 64)
    >>> evaluate(slices[0], slices, measures=["Q_S"])
    {'Q_S': 1.0}
    """
    known = (*WITHOUT_TRUTH, *WITH_TRUTH)
    if measures is None:
        measures = known if truth is not None else WITHOUT_TRUTH
    names = names_of_measures(measures)
    if unknown := [name for name in names if name not in known]:
        raise FocusFusionError(
            f"There is no measure {', '.join(map(repr, unknown))}; choose from "
            f"{', '.join(known)}."
        )
    if truth is None and (missing := [name for name in names if name in WITH_TRUTH]):
        raise FocusFusionError(
            f"Without the true all-in-focus image there is no {' or '.join(missing)}; "
            "give it as truth."
        )
    if (depth is None) != (true_depth is None):
        raise FocusFusionError("Give both depth and true_depth, or neither.")

    checked = as_sources(sources, data_range)
    planes = checked.channels(fused, "The fused image")
    if truth is not None:
        checked.check(truth, "The true image")
    jobs: list[tuple[str, Callable[[], float]]] = []
    for name in dict.fromkeys(names):
        if name == "Q_P":
            # first, so that the others fill the gaps that its own threads leave
            jobs.insert(0, (name, partial(q_p, fused, checked)))
        elif name in _WITH_TRUTH:
            span = (checked.low, checked.high)
            measure = partial(_WITH_TRUTH[name], fused, truth, data_range=span)
            jobs.append((name, measure))
        else:
            pairs = zip(planes, checked.planes, strict=True)
            jobs += [(name, partial(_OF_PLANES[name], *pair)) for pair in pairs]
    scores: dict[str, list[float]] = {name: [] for name in names}
    results = thread_map(lambda job: job[1](), jobs)
    for (name, _), score in zip(jobs, results, strict=True):
        scores[name].append(score)
    values = {name: float(np.mean(channels)) for name, channels in scores.items()}
    if depth is not None and true_depth is not None:
        values |= depth_errors(depth, true_depth)
    return values
