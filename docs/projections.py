"""Measure height maps and projections of sheets of known form, and draw one picture.

    python docs/projections.py

prints the table of ``docs/projections.md`` and writes ``docs/_static/projections.jpg``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

import napari_focus_fusion as ff
from napari_focus_fusion.figure import grey_levels, sheet_of_panels, viridis
from napari_focus_fusion.metrics import psnr
from napari_focus_fusion.simulation.tissue import make_tissue

PICTURE = Path(__file__).parent / "_static" / "projections.jpg"
SHEETS, SEEDS = ("tilt", "dome", "wave"), (501, 502)
OPTIONS: dict[str, Any] = {
    "below": 0.5,
    "shape": (192, 192),
    "slices": 20,
    "section": 4.0,
    "haze": 0.3,
    "electrons": 1000.0,
}
#: Side of the window of the height maps without a fusion, in pixels.
WINDOW = 21
CAPTIONS = (
    "maximum of all slices",
    "3 around the surface",
    "true depth",
    "height map",
    "highest window mean",
)


def window_height(stack: np.ndarray, statistic: str) -> np.ndarray:
    """The slice with the highest mean or standard deviation in a window, median."""
    pixels = ndimage.gaussian_filter(stack.astype(np.float64), (0, 1, 1))
    size = (1, WINDOW, WINDOW)
    score = ndimage.uniform_filter(pixels, size)
    if statistic == "deviation":
        score = ndimage.uniform_filter(pixels**2, size) - score**2
    return ndimage.median_filter(score.argmax(0), 9).astype(float)


def grey(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, (1, 99.7))
    return grey_levels(image, low, high)


def measure(sheet: str, seed: int) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Errors and PSNR by name, and the panels of the picture."""
    scene = make_tissue(seed, sheet=sheet, **OPTIONS)
    stack = ff.as_stack(
        scene.stack, axes="ZYX", scale=scene.scale, units=scene.units, name=sheet
    )
    result = ff.fuse(stack, device="cpu")
    heights = ff.height_map(result)
    slice_ = stack.pixel_size("Z")
    maps = {
        "height map": heights.height / slice_,
        "depth of the fusion": result.depth / slice_,
        "highest mean in a window": window_height(scene.stack, "mean"),
        "highest deviation in a window": window_height(scene.stack, "deviation"),
        "brightest slice of each pixel": scene.stack.argmax(0).astype(float),
    }
    images = {
        "mean of 3 slices around the surface": ff.project(
            stack, result, slices=3
        ).image,
        "1 slice at the surface": ff.project(stack, result).image,
        "fused image": result.fused,
        "maximum projection": scene.stack.max(0),
        "mean projection": scene.stack.mean(0),
    }
    found: dict[str, Any] = {
        name: psnr(image.astype(np.float32), scene.truth, data_range=65535)
        for name, image in images.items()
    }
    found |= {name: depth - scene.depth for name, depth in maps.items()}
    found["uncertainty"] = heights.uncertainty / slice_
    last = stack.n_slices - 1
    panels = [
        grey(images["maximum projection"]),
        grey(images["mean of 3 slices around the surface"]),
        viridis(scene.depth / last),
        viridis(maps["height map"] / last),
        viridis(maps["highest mean in a window"] / last),
    ]
    return found, panels


def rows_of(found: list[dict[str, Any]]) -> list[str]:
    rows = []
    for name, value in found[0].items():
        values = [one[name] for one in found]
        if isinstance(value, float):
            rows.append(f"| {name} | {np.mean(values):.1f} dB |")
            continue
        every = np.stack(values)
        known = every[np.isfinite(every)]
        if name == "uncertainty":
            rows.append(f"uncertainty of the height map: median {np.median(known):.2f}")
            continue
        rows.append(
            f"| {name} | {100 * np.mean(np.abs(known) <= 1):.1f} % "
            f"| {np.sqrt(np.mean(known**2)):.2f} | {np.mean(known):+.2f} "
            f"| {100 * known.size / every.size:.0f} % |"
        )
    return rows


def main() -> None:
    pictures = []
    for sheet in SHEETS:
        found = []
        for seed in SEEDS:
            measured, panels = measure(sheet, seed)
            found.append(measured)
            if seed == SEEDS[0]:
                pictures += zip(CAPTIONS, panels, strict=True)
        print(sheet, *rows_of(found), sep="\n", flush=True)
    page = sheet_of_panels(pictures, columns=len(CAPTIONS), panel=192)
    Image.fromarray(page).save(PICTURE, quality=80)


if __name__ == "__main__":
    main()
