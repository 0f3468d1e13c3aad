"""How well fusing keeps the light of fluorescent beads, and the mean of the image.

``python -m studies.flux [MODEL ...]``

Simulated beads at many depths; the light of a bead is the sum over its pixels and three
more on each side, less the background, against the same of the truth.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import ndimage

from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.simulation.scenes import make_scene

#: Seeds far above those of training.
SEEDS = range(7_400_000, 7_400_004)
ELECTRONS = (100_000.0, 2000.0)
#: A bead is what is brighter than this share of the brightest pixel; in pixels, the
#: least that counts, three more on each side included.
SHARE, LEAST = 0.25, 60


def errors_of_beads(fused: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Relative error of the light of each bead."""
    background = float(np.median(truth))
    bright = truth > background + SHARE * (truth.max() - background)
    beads, count = ndimage.label(bright)
    wide = ndimage.grey_dilation(beads, size=(7, 7))
    numbers = np.arange(1, count + 1)
    pixels = ndimage.sum(np.ones_like(truth), wide, numbers)
    found, true = (
        ndimage.sum(image - background, wide, numbers) for image in (fused, truth)
    )
    return (found / true - 1)[pixels > LEAST]


def main() -> None:
    """Print a table."""
    print("| model | electrons | beads | median | 90 % within | mean of the image |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model in sys.argv[1:] or ("sml", "mscnn"):
        for electrons in ELECTRONS:
            errors, shifts = [], []
            for seed in SEEDS:
                scene = make_scene(
                    seed,
                    shape=(256, 256),
                    slices=10,
                    content="beads",
                    modality="fluorescence",
                    electrons=electrons,
                )
                truth = np.asarray(scene.truth, float)
                fused = np.asarray(fuse(scene.stack, model, axes="ZYX").fused, float)
                errors.append(errors_of_beads(fused, truth))
                shifts.append(fused.mean() / truth.mean() - 1)
            found = np.concatenate(errors)
            print(
                f"| {model} | {electrons:g} | {len(found)} | {np.median(found):+.1%} | "
                f"{np.percentile(np.abs(found), 90):.1%} | "
                f"{min(shifts):+.1%} to {max(shifts):+.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
