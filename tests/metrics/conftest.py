"""The scenes whose measures were computed elsewhere, made from whole numbers alone.

Each scene has a sharp image, two slices that share its sharpness out along a zig-zag
line, and several fusions of them. Only integer arithmetic, so that the bytes (checked
by their SHA-256 in golden.json) are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import correlate, correlate1d

RGB_TO_GREY = (0.298936021293775390, 0.587043074451121360, 0.114020904255103250)


@dataclass(frozen=True)
class Scene:
    """Two slices, the truth, and named fusions."""

    slices: tuple[np.ndarray, np.ndarray]
    truth: np.ndarray
    fused: dict[str, np.ndarray]

    def map(self, function) -> Scene:
        return Scene(
            tuple(function(image) for image in self.slices),
            function(self.truth),
            {name: function(image) for name, image in self.fused.items()},
        )


def zigzag(phase, half_period, height):
    """Whole-numbered triangle wave, 0 at phase 0 and `height` half a period on."""
    away = np.abs((phase + half_period) % (2 * half_period) - half_period)
    return away * height // half_period


def sharp_image(height, width, seed):
    """Crossing triangle waves, a checkerboard, a ramp and hashed noise, uint8."""
    y, x = np.indices((height, width), dtype=np.int64)
    noise = (73856093 * (x + 1)) ^ (19349663 * (y + 1)) ^ (83492791 * (seed + 1))
    noise = ((noise % 2**31) * 1103515245 + 12345) % 2**31 // 2**16 % 32
    checker = (x // 8 + y // 8 + seed) % 2
    waves = (
        zigzag(3 * x + 2 * y + 5 * seed, 17, 60)
        + zigzag(1000 - 2 * x + 5 * y, 23, 50)
        + zigzag((seed + 2) * x + y, 41, 30)
    )
    ramp = 25 * x // width + 15 * y // height
    return (10 + waves + 35 * checker + ramp + noise).clip(0, 255).astype(np.uint8)


def defocused(image):
    """Four binomial blurs (5 x 5), each rounded to whole numbers."""
    levels = image.astype(np.int64)
    for _ in range(4):
        for axis in (1, 0):
            levels = correlate1d(levels, [1, 4, 6, 4, 1], axis=axis, mode="nearest")
        levels = (levels + 128) // 256
    return levels.astype(np.uint8)


def slices_of(image):
    """Two slices, the first sharp left of a zig-zag line, the other beyond it."""
    height, width = image.shape
    y, x = np.indices((height, width))
    left = 4 * x < 2 * width + zigzag(y, 16, 24) - 12
    blurred = defocused(image)
    return np.where(left, image, blurred), np.where(left, blurred, image)


def sharper_of(first, second):
    """Per pixel the slice with the larger |Laplacian| around it, the first on ties."""

    def energy(image):
        cross = [[0, -1, 0], [-1, 4, -1], [0, -1, 0]]
        detail = np.abs(correlate(image.astype(np.int64), cross, mode="nearest"))
        return correlate(detail, np.ones((3, 3), np.int64), mode="nearest")

    return np.where(energy(first) >= energy(second), first, second)


def rounded_mean(first, second):
    return ((first.astype(np.int64) + second + 1) // 2).astype(np.uint8)


def fusions_of(first, second, truth):
    return {
        "mean": rounded_mean(first, second),
        "lap": sharper_of(first, second),
        "srcA": first,
        "gt": truth,
        "meanfloat": (first.astype(np.float64) + second) / 2,
    }


def grey_scene(height, width, seed):
    truth = sharp_image(height, width, seed)
    first, second = slices_of(truth)
    return Scene((first, second), truth, fusions_of(first, second, truth))


def colour_scene(height, width, seeds):
    planes = [grey_scene(height, width, seed) for seed in seeds]

    def stack(images):
        return np.stack(list(images), axis=2)

    return Scene(
        tuple(stack(p.slices[i] for p in planes) for i in (0, 1)),
        stack(p.truth for p in planes),
        {name: stack(p.fused[name] for p in planes) for name in ("mean", "lap", "gt")},
    )


def half_empty_scene():
    """The first scene with its upper part constant, fused again."""
    scene = grey_scene(64, 64, 0)
    first, second, truth = (np.copy(i) for i in (*scene.slices, scene.truth))
    for image in (first, second, truth):
        image[:24] = 128
    return Scene((first, second), truth, fusions_of(first, second, truth))


@cache
def scene(name: str) -> Scene:
    match name:
        case "s64":
            return grey_scene(64, 64, 0)
        case "s64_unitfloat":
            return grey_scene(64, 64, 0).map(lambda image: image / 255.0)
        case "s128x96":
            return grey_scene(128, 96, 1)
        case "s97x75":
            return grey_scene(97, 75, 2)
        case "rgb80x96":
            return colour_scene(80, 96, (3, 4, 5))
        case "flat64":
            return half_empty_scene()
        case "ident64":
            truth = sharp_image(64, 64, 0)
            return Scene((truth, truth), truth, {"same": truth})
    raise KeyError(name)


def to_grey(image):
    """Rec. 601 luma rounded half up, as uint8."""
    return np.floor(image @ np.array(RGB_TO_GREY) + 0.5).astype(np.uint8)


@pytest.fixture(scope="session")
def make_scene():
    """Return the scene of a name in golden.json."""
    return scene


@pytest.fixture(scope="session")
def grey():
    """Return the function that turns RGB into grey levels."""
    return to_grey
