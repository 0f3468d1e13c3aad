"""Fused images measured against the truth, or against their slices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.candidates import (
    AVERAGE,
    COPY,
    ORACLE,
    baselines,
)
from napari_focus_fusion.benchmark.images import bicubic, slices_of, split_images
from napari_focus_fusion.benchmark.table import Score
from napari_focus_fusion.errors import FocusFusionError, in_one_line
from napari_focus_fusion.metrics import (
    WITH_TRUTH,
    Sources,
    as_sources,
    depth_errors,
    evaluate,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.data import Case
    from napari_focus_fusion.benchmark.table import Table

    Array = NDArray[Any]


def measure_case(
    table: Table,
    data: str,
    case: Case,
    outputs: Sequence[Path],
    measures: Sequence[str],
) -> dict[str, list[Array]]:
    """Measure all that was made of one stack, and the baselines without any method.

    Parameters
    ----------
    table
        Has the scores of the candidates, whose values are filled in; those of the
        baselines are added.
    data
        Name of the data set.
    case
        The stack.
    outputs
        Where the worker wrote what each candidate made, without the endings.
    measures
        Names; those that need a truth are left out where there is none.

    Returns
    -------
    dict
        By candidate the images that were measured; of those that could be.
    """
    names = tuple(name for name in measures if case.truth or name not in WITH_TRUTH)
    scores = table.scores_of(data, case.name)
    baseline_scores = [Score(data, case.name, item.name) for item in baselines([case])]
    table.scores += baseline_scores
    try:
        references = references_of(case, "Q_P" in names)
    except FocusFusionError as error:
        for score in (*scores, *baseline_scores):
            score.error = score.error or f"cannot be measured: {in_one_line(error)}"
        return {}
    images: dict[str, list[Array]] = {}
    for score, output in zip(scores, outputs, strict=True):
        if score.error:
            continue
        fused = list(np.load(f"{output}-fused.npy"))
        if case.enlarge > 1:
            by_model = fused[0].shape[:2] == _wanted_shape(case)
            run = table.run_of(data, score.candidate)
            run.enlarged_by = "model" if by_model else "cubic"
        try:
            images[score.candidate] = _measure(
                score, case, fused, output, names, references
            )
        except FocusFusionError as error:
            score.error = f"could not be measured: {in_one_line(error)}"
    for score, planes in zip(
        baseline_scores, _baseline_images(case).values(), strict=True
    ):
        score.values = values_of(case, finished(case, planes), references, names)
        if score.candidate == ORACLE and case.truth:
            nearest = np.rint(case.truth.depth).clip(0, case.stack.n_slices - 1)
            score.values |= depth_values(case, nearest)
    return images


def _measure(
    score: Score,
    case: Case,
    fused: list[Array],
    output: Path,
    names: tuple[str, ...],
    references: list[Sources],
) -> list[Array]:
    """Fill in what one candidate scores; its images as they were measured."""
    images = finished(case, fused)
    score.values = values_of(case, images, references, names)
    depth = Path(f"{output}-depth.npy")
    if case.truth and depth.exists():
        score.values |= depth_values(case, np.load(depth))
    return images


def _baseline_images(case: Case) -> dict[str, list[Array]]:
    """The baselines without any method, as `split_images` splits images."""
    stack = case.stack
    slices = slices_of(stack)
    images = {
        COPY: [planes[0] for planes in slices],
        AVERAGE: [_rounded(planes.mean(axis=0), stack.dtype) for planes in slices],
    }
    if case.truth:
        nearest = np.rint(case.truth.depth).clip(0, stack.n_slices - 1).astype(int)
        y, x = np.indices(nearest.shape)
        images[ORACLE] = [planes[nearest, y, x] for planes in slices]
    return images


def _rounded(image: Array, dtype: np.dtype[Any]) -> Array:
    return (np.rint(image) if dtype.kind in "iu" else image).astype(dtype)


def references_of(case: Case, with_phase: bool) -> list[Sources]:
    """What each time point and channel is measured against, checked once.

    With a truth its range counts, one for all channels, so that a dim one does not
    count more.
    """
    span = None
    if case.truth:
        span = (float(case.truth.image.min()), float(case.truth.image.max()))
    check = prepare if with_phase else as_sources
    return [check(slices, span) for slices in case.measured_against()]


def finished(case: Case, fused: list[Array]) -> list[Array]:
    """Fused images as they are measured: of full size, of the references' type."""
    if case.enlarge == 1:
        return fused
    wanted = _wanted_shape(case)
    images = []
    for image in fused:
        large = image
        if image.shape[:2] != wanted:
            large = bicubic(image[np.newaxis], wanted)[0]
        images.append(np.rint(large.clip(0, 1) * 255).astype(np.uint8))
    return images


def _wanted_shape(case: Case) -> tuple[int, int]:
    return case.stack.height * case.enlarge, case.stack.width * case.enlarge


def values_of(
    case: Case,
    images: list[Array],
    references: list[Sources],
    names: tuple[str, ...],
) -> dict[str, float]:
    """Means over time points and channels."""
    truths: list[Any] = [None] * len(images)
    if case.truth:
        truths = split_images(case.truth.image, case.stack.fused_axes)
    found = [
        evaluate(image, slices, truth, measures=names)
        for image, slices, truth in zip(images, references, truths, strict=True)
    ]
    return {name: float(np.mean([values[name] for values in found])) for name in names}


def depth_values(case: Case, depth: Array) -> dict[str, float]:
    """Errors of a depth map (in slices) of a scene, where its truth has texture."""
    truth = case.truth
    assert truth is not None
    errors = depth_errors(depth, np.where(truth.textured, truth.depth, np.nan))
    values = {name: errors[name] for name in ("depth error", "depth >1")}
    band = truth.edges & truth.textured
    if band.any():
        edge = depth_errors(depth, np.where(band, truth.depth, np.nan))
        values["depth edge"] = edge["depth error"]
    return values
