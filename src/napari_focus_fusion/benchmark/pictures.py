"""Pictures of the pages on families: crops at full size, and how far to trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.families import DEFAULT
from napari_focus_fusion.benchmark.images import slices_of, split_images
from napari_focus_fusion.benchmark.judging import best_slice
from napari_focus_fusion.benchmark.sheet import worst_disagreements
from napari_focus_fusion.figure import grey_levels, sheet_of_panels, viridis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.candidates import Candidate
    from napari_focus_fusion.benchmark.data import Case
    from napari_focus_fusion.benchmark.families import Outcome, Results, StackSet

    Array = NDArray[Any]
    Panel = tuple[str, NDArray[np.uint8]]

CROP = 288
"""Side in pixels of what is shown of a larger image."""

PLACES = 2
_BLANK = np.full((1, 1), 255, np.uint8)
_COLOURS = ("black", "red", "blue", "green", "orange", "purple")


def shown_methods(methods: Sequence[Candidate]) -> list[Candidate]:
    """The methods that pictures show: the default and the plain measure, if there."""
    wanted = [
        method
        for method in methods
        if method.name.startswith(DEFAULT) or method.target == "sml"
    ]
    return wanted or list(methods[:3])


def set_sheet(results: Results, of: StackSet) -> tuple[str, NDArray[np.uint8]] | None:
    """Draw the stack of a set on which the shown methods differ the most.

    Returns
    -------
    name : str
        Of the stack.
    sheet : ndarray
        (height, width, 3) uint8; None where no method has a result.
    """
    shown = shown_methods(results.methods)
    found = []
    for case in of.cases:
        outcomes = {m.name: results.outcome(of, case, m) for m in shown}
        outcomes = {n: o for n, o in outcomes.items() if not o.error}
        if not outcomes:
            continue
        images = {name: outcome.images for name, outcome in outcomes.items()}
        worst, places = worst_disagreements(case, images, CROP)
        found.append((worst, case, outcomes, places[:PLACES]))
    if not found:
        return None
    _, case, outcomes, places = max(found, key=lambda item: item[0])
    return case.name, crop_sheet(case, outcomes, places)


def crop_sheet(
    case: Case,
    outcomes: Mapping[str, Outcome],
    places: Sequence[tuple[slice, slice]],
) -> NDArray[np.uint8]:
    """Draw crops at full size: images, decision maps and confidence, one below another.

    Parameters
    ----------
    case
        The stack.
    outcomes
        By method, what it made.
    places
        Rows and columns of each crop.

    Returns
    -------
    ndarray
        (height, width, 3) uint8. From left to right the best slice, the methods, and
        the truth where it is known.
    """
    slices = slices_of(case.stack)[0]
    low, high = np.percentile(slices, (0.1, 99.9))
    last = max(case.stack.n_slices - 1, 1)
    best = best_slice(case)
    columns: list[tuple[str, Array, Array | None, Array | None]] = [
        (f"slice {best + 1} of {last + 1}", slices[best], None, None)
    ]
    for name, outcome in outcomes.items():
        maps = outcome.maps
        pair = maps.get("decision"), maps.get("confidence")
        columns.append((name, outcome.images[0], *pair))
    if case.truth:
        image = split_images(case.truth.image, case.stack.fused_axes)[0]
        columns.append(("truth", image, case.truth.depth, None))

    def of_depth(plane: Array) -> NDArray[np.uint8]:
        return viridis(np.clip(plane / last, 0, 1))

    def of_confidence(plane: Array) -> NDArray[np.uint8]:
        return (plane * 255).astype(np.uint8)

    panels: list[Panel] = []
    for place in places:
        panels += [
            (n, grey_levels(image[place], low, high)) for n, image, *_ in columns
        ]
        for caption, at, draw in (
            ("slice: dark = first", 2, of_depth),
            ("confidence: white = sure", 3, of_confidence),
        ):
            planes = [column[at] for column in columns]
            panels += [
                ("", _BLANK) if p is None else (caption, draw(np.asarray(p)[place]))
                for p in planes
            ]
    return sheet_of_panels(panels, columns=len(columns), panel=CROP)


def reliability_chart(
    bins: Mapping[str, Array], *, side: int = 420
) -> NDArray[np.uint8]:
    """Draw the share of pixels that is right over the confidence.

    Parameters
    ----------
    bins
        By method, counts of `reliability`. On the diagonal confidence means what it
        says; above it, a method is more often right than it thinks.
    side
        Of the axes, in pixels.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.
    """
    from PIL import Image, ImageDraw, ImageFont

    left, top = 50, 20
    sheet = Image.new("RGB", (left + side + 240, top + side + 50), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=14)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * side, top + (1 - y) * side

    draw.rectangle((*at(0, 1), *at(1, 0)), outline="black")
    draw.line((*at(0, 0), *at(1, 1)), fill="grey")
    for tick in (0, 0.5, 1):
        x, y = at(tick, 0)
        draw.text((x, y + 6), f"{tick:g}", fill="black", font=font, anchor="ma")
        x, y = at(0, tick)
        draw.text((x - 6, y), f"{tick:g}", fill="black", font=font, anchor="rm")
    draw.text((left + side / 2, top + side + 26), "confidence", "black", font, "ma")
    draw.text((left, 2), "share right to one slice", "black", font)
    for number, (name, (count, right, sure)) in enumerate(bins.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        # Bins with one pixel in a thousand say something.
        full = count > count.sum() / 1000
        points = [
            at(x, y)
            for x, y in zip(
                sure[full] / count[full], right[full] / count[full], strict=True
            )
        ]
        draw.line(points, fill=colour, width=2)
        for x, y in points:
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
        place = (left + side + 16, top + 20 * number)
        draw.text(place, name, fill=colour, font=font)
    return np.asarray(sheet)
