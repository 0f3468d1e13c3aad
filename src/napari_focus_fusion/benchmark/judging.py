"""Results of families and real stacks, measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_focus_fusion.benchmark.images import slices_of
from napari_focus_fusion.benchmark.maps import map_values, patchwork, reliability
from napari_focus_fusion.benchmark.measuring import references_of, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.data import Case
    from napari_focus_fusion.benchmark.families import Outcome, Results, StackSet

    Array = NDArray[Any]

BEST_SLICE = "best single slice"
MIDDLE_SLICE = "middle slice"
MAXIMUM = "maximum projection"
MEAN = "mean of the slices"

#: Measures that say nothing of a pair, of which every depth is right to one slice.
OF_MORE_THAN_TWO = (
    "depth >1",
    "depth >1 at steps",
    "depth >1 away from steps",
    "coverage",
    "sure of nothing",
)


@dataclass(frozen=True)
class Judgement:
    """One method on one stack.

    Attributes
    ----------
    data, stack, method
        The set of stacks, the stack in it, and the method.
    values
        By measure; empty where it failed.
    bins
        What `reliability` counted; None without a truth, a depth map, or more than two
        slices.
    seconds
        Processor seconds a million pixels and slice; None for slices and projections.
    error
        Why it failed, or empty.
    """

    data: str
    stack: str
    method: str
    values: dict[str, float] = field(default_factory=dict)
    bins: Array | None = None
    seconds: float | None = None
    error: str = ""


def judge(results: Results, log: Callable[[str], None]) -> list[Judgement]:
    """Measure every result, and the slices and projections beside them.

    Parameters
    ----------
    results
        What `run_families` returned.
    log
        Called with a line of progress.
    """
    return [
        judgement
        for of in results.sets
        for case in of.cases
        for judgement in _judge_case(results, of, case, log)
    ]


def _judge_case(
    results: Results, of: StackSet, case: Case, log: Callable[[str], None]
) -> Iterator[Judgement]:
    log(f"measuring {of.name}: {case.name}")
    if case.truth:
        for name, images in plain_images(case).items():
            yield Judgement(of.name, case.name, name, _psnr(case, images))
    for method in results.methods:
        outcome = results.outcome(of, case, method)
        about = of.name, case.name, method.name
        if outcome.error:
            yield Judgement(*about, error=outcome.error)
            continue
        values = _psnr(case, outcome.images) if case.truth else {}
        bins = None
        if outcome.maps:
            found, bins = _maps_judged(case, outcome)
            values |= found
        seconds = outcome.seconds / case.megapixel_slices()
        yield Judgement(*about, values, bins, seconds)


def _maps_judged(case: Case, outcome: Outcome) -> tuple[dict[str, float], Array | None]:
    """Measures of the maps, and how often their confidence is right."""
    maps = outcome.maps
    if case.truth is None:
        return patchwork(maps["decision"]), None
    values = map_values(maps["depth"], maps["confidence"], case.truth)
    if case.stack.n_slices > 2:
        return values, reliability(maps["depth"], maps["confidence"], case.truth)
    kept = {n: value for n, value in values.items() if n not in OF_MORE_THAN_TWO}
    return kept, None


def _psnr(case: Case, images: list[Array]) -> dict[str, float]:
    return values_of(case, images, references_of(case, False), ("PSNR",))


def plain_images(case: Case) -> dict[str, list[Array]]:
    """Single slices and projections, one image a time point and channel."""
    planes = slices_of(case.stack)
    dtype = case.stack.dtype
    mean = [plane.mean(axis=0) for plane in planes]
    if dtype.kind in "iu":
        mean = [np.rint(image) for image in mean]
    best, middle = best_slice(case), case.stack.n_slices // 2
    return {
        BEST_SLICE: [plane[best] for plane in planes],
        MIDDLE_SLICE: [plane[middle] for plane in planes],
        MAXIMUM: [plane.max(axis=0) for plane in planes],
        MEAN: [image.astype(dtype) for image in mean],
    }


def best_slice(case: Case) -> int:
    """The slice of the highest PSNR, or the sharpest where the truth is not known."""
    planes = slices_of(case.stack)
    count = case.stack.n_slices
    if case.truth is None:
        return int(np.argmax([_sharpness(planes[0][z]) for z in range(count)]))
    found = [_psnr(case, [plane[z] for plane in planes]) for z in range(count)]
    return int(np.argmax([values["PSNR"] for values in found]))


def _sharpness(image: Array) -> float:
    """Energy of the details that are larger than the noise of single pixels."""
    grey = image.astype(np.float32)
    grey = grey if grey.ndim == 2 else grey.mean(axis=2)
    return float(np.square(ndimage.gaussian_laplace(grey, 2.0)).mean())
