"""One image that shows a fusion: slices, fused image, decision map, confidence.

Its functions also draw the contact sheets of the benchmark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .result import FusionResult

# matplotlib's viridis at nine equal steps: lightness rises with the value.
_VIRIDIS = np.array(
    [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ]
)
_GAP = 12
_CAPTION = 26


def side_by_side(result: FusionResult, *, panel: int = 512) -> NDArray[np.uint8]:
    """Draw three slices over the fused image, the decision map and the confidence.

    Of a time series the first time point is drawn.

    Parameters
    ----------
    result
        What ``fuse`` returned.
    panel
        Largest width and height of one panel in pixels; larger images are reduced.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.
    """
    stack = result.stack
    shown = [0, stack.n_slices // 2, stack.n_slices - 1]
    whole = slice(None)
    slices = stack.read(0, shown, whole, whole)
    fused = np.asarray(result.fused[0] if "T" in stack.axes else result.fused)
    if "S" in stack.axes:
        fused = np.moveaxis(fused, -1, -3)
    fused = fused.reshape(stack.n_components, *fused.shape[-2:])
    decision, confidence = (
        np.asarray(plane[0] if "T" in stack.axes else plane)
        for plane in (result.decision, result.confidence)
    )
    # One window for all, so that brightness can be compared between the panels.
    low, high = np.percentile(slices, (0.1, 99.9))

    def to_rgb(components: NDArray[Any]) -> NDArray[np.uint8]:
        grey = grey_levels(components, low, high)
        if stack.n_samples >= 3:
            return np.moveaxis(grey[:3], 0, -1)
        return grey.mean(axis=0).astype(np.uint8)

    last = max(stack.n_slices - 1, 1)
    panels = [
        *(
            (f"slice {z + 1} of {stack.n_slices}", to_rgb(slices[:, i]))
            for i, z in enumerate(shown)
        ),
        (f"fused ({result.provenance.get('model', 'all in focus')})", to_rgb(fused)),
        ("decision map: dark = first slice", viridis(decision / last)),
        ("confidence: white = sure", (confidence * 255).astype(np.uint8)),
    ]
    return sheet_of_panels(panels, columns=3, panel=panel)


def grey_levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Grey levels of an image: black at `low` and below, white at `high` and above."""
    scaled = (values.astype(np.float32) - low) / max(high - low, 1e-12)
    return (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8)


def viridis(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Viridis colours, (..., 3) uint8, of values in [0, 1]."""
    steps = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(values, steps, _VIRIDIS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def sheet_of_panels(
    panels: list[tuple[str, NDArray[np.uint8]]], *, columns: int, panel: int
) -> NDArray[np.uint8]:
    """Arrange images in rows, each with its caption below it.

    Parameters
    ----------
    panels
        Caption and pixels, (h, w) or (h, w, 3) uint8, of each image.
    columns
        Images in a row.
    panel
        Largest width and height of one in pixels; larger ones are reduced.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.
    """
    thumbnails = []
    for _, pixels in panels:
        thumbnail = Image.fromarray(pixels).convert("RGB")
        thumbnail.thumbnail((panel, panel))
        thumbnails.append(thumbnail)
    wide = max(thumbnail.width for thumbnail in thumbnails) + _GAP
    high = max(thumbnail.height for thumbnail in thumbnails) + _CAPTION + _GAP
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * wide + _GAP, rows * high + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=16)
    for number, (thumbnail, (caption, _)) in enumerate(
        zip(thumbnails, panels, strict=True)
    ):
        x = _GAP + number % columns * wide
        y = _GAP + number // columns * high
        sheet.paste(thumbnail, (x, y))
        draw.text((x, y + thumbnail.height + 4), caption, fill="black", font=font)
    return np.asarray(sheet)
