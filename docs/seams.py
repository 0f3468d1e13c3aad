"""Measure the seams that are left where slices are not equally bright.

    python docs/seams.py

prints the table of ``docs/how_it_works.md``: a relief whose slices are brighter and
darker in turn, fused by the decision map of the undisturbed stack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

import napari_focus_fusion as ff
from napari_focus_fusion.simulation.scenes import make_scene

SLICES, GAINS = 8, (0.05, 0.15)
RUNS: dict[str, dict[str, Any]] = {
    "`select`": {"blend": "select"},
    "`feather`": {"blend": "feather"},
    "`bands`": {"blend": "bands"},
    '`feather`, `brightness="level"`': {"brightness": "level"},
}


def decibels(image: np.ndarray, truth: np.ndarray) -> float:
    """PSNR at the gain that fits best."""
    gain = (image * truth).sum() / (image * image).sum()
    error = np.square(gain * image - truth).mean()
    return float(20 * np.log10(np.ptp(truth)) - 10 * np.log10(error))


def step_at_seams(image: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> float:
    """Median relative step of brightness within 4 pixels across changes of slice."""
    ratio = np.log(np.maximum(image, 1) / np.maximum(truth, 1))
    ratio = ndimage.median_filter(ratio, 5)
    steps = []
    for r, z in ((ratio, labels), (ratio.T, labels.T)):
        seams = z[2:-2] != z[1:-3]
        steps.append(abs(r[4:] - r[:-4])[seams])
    return float(np.median(np.concatenate(steps)))


def main() -> None:
    """Print the rows of the table."""
    scene = make_scene(
        9_300_001,
        shape=(256, 256),
        slices=SLICES,
        content="leaves",
        surface="relief",
        modality="grey",
        electrons=4000,
        blur_per_slice=1.2,
        vignetting=0,
        shading=0,
        offset=0,
    )
    truth = np.asarray(scene.truth, float)
    fuse: dict[str, Any] = {"axes": "ZYX", "device": "cpu"}
    undisturbed = ff.fuse(scene.stack, **fuse)
    labels = undisturbed.decision.astype(int)

    def words(image: np.ndarray) -> str:
        image = image.astype(float)
        step = step_at_seams(image, truth, labels)
        return f"{step:.1%}, {decibels(image, truth):.1f} dB"

    print("undisturbed:", words(undisturbed.fused))
    bands = ff.fuse(scene.stack, decision=labels, blend="bands", **fuse)
    print("undisturbed, `bands`:", words(bands.fused))
    print("| gains |", " | ".join(RUNS), "|")
    turns = 2 * (np.arange(SLICES) % 2) - 1
    for most in GAINS:
        drawn = np.random.default_rng(0).uniform(0.6, 1, SLICES)
        gains = 1 + most * turns * drawn
        gains /= gains[SLICES // 2]
        stack = (scene.stack * gains[:, None, None]).clip(0, 65535).astype(np.uint16)
        found = [
            words(ff.fuse(stack, decision=labels, **fuse, **options).fused)
            for options in RUNS.values()
        ]
        print(f"| {most:.0%} |", " | ".join(found), "|")


if __name__ == "__main__":
    main()
