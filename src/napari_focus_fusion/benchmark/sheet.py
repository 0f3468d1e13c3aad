"""Contact sheets: the candidates' results of a stack, and where they disagree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter

from napari_focus_fusion.benchmark.images import split_images
from napari_focus_fusion.figure import grey_levels, sheet_of_panels, viridis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.data import Case

    Array = NDArray[Any]
    Place = tuple[slice, slice]

PANEL = 320
CROPS = 3
_FRAMES = ("red", "orange", "deepskyblue")


def worst_disagreements(
    case: Case, images: Mapping[str, Sequence[Array]], side: int | None = None
) -> tuple[float, list[Place]]:
    """Where the candidates differ the most.

    A single candidate is compared with the truth, or with the average of the slices
    where that is not known. Of several channels or time points the first is compared.

    Parameters
    ----------
    case
        The stack.
    images
        By candidate, its fused images.
    side
        Of the windows, in pixels; None for an eighth of the image.

    Returns
    -------
    worst : float
        Largest mean range of grey values in a window, as a share of the slices' range.
    places : list of (slice, slice)
        Rows and columns of up to three windows that do not overlap, the worst first.
    """
    slices = case.measured_against()[0]
    shown = [fused[0] for fused in images.values()]
    if len(shown) < 2:
        shown.append(_true_image(case) if case.truth else slices.mean(axis=0))
    grey = np.stack([_grey(image) for image in shown])
    height, width = grey.shape[1:]
    side = min(side or max(min(height, width) // 8, 32), height, width)
    spread = uniform_filter(np.ptp(grey, axis=0), side, mode="constant")
    half = side // 2
    # Windows inside the image only.
    inside = np.full_like(spread, -1)
    rows, columns = (slice(half, n - side + half + 1) for n in (height, width))
    inside[rows, columns] = spread[rows, columns]
    worst = float(inside.max()) / max(float(np.ptp(slices)), 1e-12)
    places: list[Place] = []
    while len(places) < CROPS and inside.max() >= 0:
        y, x = np.unravel_index(inside.argmax(), inside.shape)
        top, left = int(y) - half, int(x) - half
        places.append((slice(top, top + side), slice(left, left + side)))
        rows, columns = (slice(max(int(i) - side + 1, 0), i + side) for i in (y, x))
        inside[rows, columns] = -1
    return worst, places


def contact_sheet(
    case: Case,
    images: Mapping[str, Sequence[Array]],
    decisions: Mapping[str, Array],
    places: Sequence[Place],
) -> NDArray[np.uint8]:
    """Draw slices over a row a candidate: fused image, decision map, zoomed crops.

    Parameters
    ----------
    case
        The stack.
    images
        By candidate, its fused images.
    decisions
        By candidate that has one, its decision map, with the stack's ``map_axes``.
    places
        What to zoom in on.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.
    """
    slices = case.measured_against()[0]
    count = len(slices)
    # One window of grey levels for all, so that brightness can be compared.
    low, high = np.percentile(slices, (0.1, 99.9))

    def crops(image: Array) -> list[tuple[str, NDArray[np.uint8]]]:
        zoomed = []
        for place in places:
            crop = grey_levels(image[place], low, high)
            factor = max(PANEL // max(crop.shape[:2]), 1)
            zoomed.append(
                (f"x{factor}", crop.repeat(factor, axis=0).repeat(factor, axis=1))
            )
        return zoomed

    columns = 2 + len(places)
    shown = sorted({0, count // 2, count - 1})
    panels = [
        (f"slice {z + 1} of {count}", grey_levels(slices[z], low, high)) for z in shown
    ]
    panels += [_EMPTY] * (columns - len(panels))
    last = max(count - 1, 1)
    rows = [(name, fused[0], decisions.get(name)) for name, fused in images.items()]
    if case.truth:
        rows.append(("truth", _true_image(case), case.truth.depth))
    for name, image, decision in rows:
        panels.append((name, _framed(grey_levels(image, low, high), places)))
        if decision is None:
            panels.append(_EMPTY)
        else:
            plane = decision[0] if decision.ndim == 3 else decision
            colours = viridis(np.clip(plane / last, 0, 1))
            caption = "true depth" if name == "truth" else "decision map"
            panels.append((f"{caption}: dark = first slice", colours))
        panels += crops(image)
    return sheet_of_panels(panels, columns=columns, panel=PANEL)


_EMPTY = ("", np.full((1, 1), 255, np.uint8))


def _true_image(case: Case) -> Array:
    assert case.truth is not None
    return split_images(case.truth.image, case.stack.fused_axes)[0]


def _grey(image: Array) -> NDArray[np.float32]:
    values = image.astype(np.float32)
    return values if values.ndim == 2 else values.mean(axis=2)


def _framed(pixels: NDArray[np.uint8], places: Sequence[Place]) -> NDArray[np.uint8]:
    """The image with a coloured frame just outside of each place."""
    image = Image.fromarray(pixels).convert("RGB")
    draw = ImageDraw.Draw(image)
    for (y, x), colour in zip(places, _FRAMES, strict=False):
        draw.rectangle((x.start - 1, y.start - 1, x.stop, y.stop), outline=colour)
    return np.asarray(image)
