"""A textured plane whose sharp slice rises from the left to the right."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

HEIGHT, WIDTH, SLICES = 130, 150, 7
DEPTH = np.broadcast_to(np.arange(WIDTH) * SLICES // WIDTH, (HEIGHT, WIDTH))


def scene(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, h, w) uint16 whose sharp one rises from left to right; truth."""
    rng = np.random.default_rng(3)
    texture = ndimage.gaussian_filter(rng.random((HEIGHT, WIDTH)), 0.8)
    truth = 200 + 2800 * (texture - texture.min()) / np.ptp(texture)
    blurred = [truth] + [
        ndimage.gaussian_filter(truth, 1.1 * d) for d in range(1, SLICES)
    ]
    slices = np.stack([np.choose(abs(DEPTH - k), blurred) for k in range(SLICES)])
    slices += rng.normal(0, noise, slices.shape)
    return slices.clip(0, 65535).round().astype(np.uint16), truth
