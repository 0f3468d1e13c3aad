"""Draw ``docs/_static/registration.png``: a drifting stack, fused with and without.

python docs/registration_picture.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from napari_focus_fusion import fuse
from napari_focus_fusion.simulation.drift import disturb
from napari_focus_fusion.simulation.scenes import make_scene

PICTURE = Path(__file__).parent / "_static" / "registration.png"
SIDE, ROOM, SLICES = 192, 48, 6


def picture() -> np.ndarray:
    """(h, w) uint8: fused as it is, aligned, and the truth, side by side."""
    size = SIDE + 2 * ROOM
    scene = make_scene(
        7_100_010,
        shape=(size, size),
        slices=SLICES,
        content="leaves",
        surface="tilt",
        electrons=None,
    )
    moved = disturb(scene.stack, 1, "all", room=ROOM, electrons=8000)
    plain = fuse(moved.stack, "sml", axes="ZYX").fused
    aligned = fuse(moved.stack, "sml", axes="ZYX", align="similarity").fused
    truth = scene.truth[ROOM:-ROOM, ROOM:-ROOM]
    low, high = np.percentile(truth, [0.5, 99.5])
    shown = [(one - low) / (high - low) for one in (plain, aligned, truth)]
    gap = np.ones((SIDE, 4))
    joined = np.concatenate([shown[0], gap, shown[1], gap, shown[2]], axis=1)
    return (joined.clip(0, 1) * 255).round().astype(np.uint8)


if __name__ == "__main__":
    drawn = Image.fromarray(picture())
    drawn.resize((drawn.width * 2, drawn.height * 2), Image.Resampling.NEAREST).save(
        PICTURE, optimize=True
    )
