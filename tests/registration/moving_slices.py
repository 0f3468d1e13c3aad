"""Slices of one scene, moved by known transforms."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_focus_fusion.registration.transforms import Plane

SHAPE = (160, 192)
ROOM = 40


def grain(seed: int = 0, sigma: float = 1.5) -> np.ndarray:
    """A textured plane with room around what slices show, 0 to 200."""
    rng = np.random.default_rng(seed)
    size = [n + 2 * ROOM for n in SHAPE]
    plane = sum(
        ndimage.gaussian_filter(rng.normal(size=size), s) * s
        for s in (sigma, 4 * sigma)
    )
    return 100 + 45 * (plane - plane.mean()) / plane.std()


def moves(steps: list[tuple[float, float, float, float]]) -> np.ndarray:
    """(N, 2, 3) transforms of (shift y, x, scale, degrees), about the centre."""
    found = []
    for y, x, scale, degrees in steps:
        angle = np.deg2rad(degrees)
        c, s = scale * np.cos(angle), scale * np.sin(angle)
        found.append([[c, -s, y], [s, c, x], [0, 0, 1]])
    return Plane(*SHAPE).to_pixels(np.array(found, float))[:, :2]


def seen(plane: np.ndarray, matrix: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """What a slice shows of a plane: output position M p is the plane's position p."""
    whole = np.vstack([matrix, [0, 0, 1]])
    inverse = np.linalg.inv(whole)
    offset = inverse[:2, 2] + ROOM
    sharp = ndimage.gaussian_filter(plane, blur) if blur else plane
    return ndimage.affine_transform(sharp, inverse[:2, :2], offset, SHAPE, order=5)


def focus_stack(matrices: np.ndarray, seed: int = 0, noise: float = 1.0) -> np.ndarray:
    """Slices of a scene that is tilted from left to right, uint8."""
    plane = grain(seed)
    count = len(matrices)
    column = np.linspace(0, count - 1, plane.shape[1])
    levels = [ndimage.gaussian_filter(plane, s) if s else plane for s in range(count)]
    rng = np.random.default_rng(seed + 1)
    slices = []
    for z, matrix in enumerate(matrices):
        off = np.abs(column - z)
        low = np.clip(off.astype(int), 0, count - 2)
        part = np.clip(off - low, 0, 1)
        columns = np.arange(plane.shape[1])
        stack = np.array(levels)
        blurred = stack[low, :, columns].T * (1 - part)
        blurred = blurred + stack[low + 1, :, columns].T * part
        slices.append(seen(blurred, matrix) + rng.normal(0, noise, SHAPE))
    return np.clip(np.round(slices), 0, 255).astype(np.uint8)


def errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(N, points): distances in pixels between two sets of transforms."""
    y, x = np.mgrid[: SHAPE[0] - 1 : 5j, : SHAPE[1] - 1 : 5j].reshape(2, -1)
    points = np.stack([y, x, np.ones_like(y)], 1)
    return np.hypot(*np.moveaxis(points @ np.swapaxes(found - true, 1, 2), -1, 0))
