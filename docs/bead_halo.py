"""Measure how far a bright bead out of focus spoils the texture beside it.

    python docs/bead_halo.py

prints the table of ``docs/how_it_works.md``: of the texture at each distance from the
edge of the bead, the share of pixels whose slice is right to within one.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

import napari_focus_fusion as ff
from napari_focus_fusion.simulation.drawing import texture
from napari_focus_fusion.simulation.optics import Layer, render_layers
from napari_focus_fusion.simulation.scenes import make_optics

SIDE, SLICES, RADIUS = 256, 10, 16
GROUND, BEAD = 7.0, 2.0
#: Brightness of the bead, of the texture and contrast of it; electrons at white.
BRIGHT, GREY, CONTRAST, ELECTRONS = 1.0, 0.25, 0.3, 4000.0
DISTANCES = ((0, 2), (2, 4), (4, 6), (6, 8), (8, 12), (12, 20), (20, 40))
RUNS = (("default", {}), ("sml", {"model": "sml"}))
RUNS += (("sml, surface 0", {"model": "sml", "surface": 0}),)


def beads(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Slices (N, h, w) uint16 of beads in front of texture, and the distance to them.

    Beads reflect light and hide what is behind them; distances are in pixels, at most
    0 on a bead.
    """
    rng = np.random.default_rng(seed)
    options = {"slices": SLICES, "psf": "disk", "blur_per_slice": 1.2}
    options |= {"focus_blur": 0.5, "max_blur": 16.0}
    optics, inner = make_optics((SIDE, SIDE), options)
    grain = texture(rng, optics.canvas, "granular")
    ground = GREY * (1 + CONTRAST * (grain - grain.mean()) / grain.std())
    y, x = np.mgrid[: optics.canvas[0], : optics.canvas[1]]
    outside = np.full(optics.canvas, np.inf)
    middle = [s.start + SIDE // 4 * k for s in inner[:1] for k in (1, 3)]
    for row in middle:
        for column in middle:
            outside = np.minimum(outside, np.hypot(y - row, x - column) - RADIUS)
    coverage = np.clip(0.5 - outside, 0, 1).astype(np.float32)
    shine = 0.9 + 0.1 * ndimage.gaussian_filter(rng.normal(size=y.shape), 1)
    layers = [
        Layer(ground[None].astype(np.float32), None, np.full(y.shape, GROUND)),
        Layer(
            (BRIGHT * shine)[None].astype(np.float32), coverage, np.full(y.shape, BEAD)
        ),
    ]
    image, _ = render_layers(layers, optics)
    light = image[:-1, 0, *inner].clip(0, 1.2) / 1.2
    counts = rng.poisson(light * ELECTRONS) / ELECTRONS
    return (counts * 60000).clip(0, 65535).astype(np.uint16), outside[inner]


def main() -> None:
    """Print the rows of the table."""
    scenes = [beads(seed) for seed in (1, 2)]
    print("| px from the bead |", " | ".join(name for name, _ in RUNS), "|")
    shares = {}
    for name, how in RUNS:
        off = [
            abs(np.asarray(ff.fuse(s, axes="ZYX", device="cpu", **how).decision) - 7.0)
            for s, _ in scenes
        ]
        shares[name] = [
            np.mean(
                [
                    (o <= 1)[(d > low) & (d <= high)].mean()
                    for o, (_, d) in zip(off, scenes, strict=True)
                ]
            )
            for low, high in DISTANCES
        ]
    for i, (low, high) in enumerate(DISTANCES):
        cells = (f"{100 * shares[name][i]:.0f} %" for name, _ in RUNS)
        print(f"| {low} to {high} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
