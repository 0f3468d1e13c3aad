"""Draw the picture of ``docs/registration.md``: a stack fused as it is, and aligned.

    python docs/registration.py pcb_001.jpg pcb_002.jpg ...

with the slices of a stack of a circuit board, of which crops are shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import napari_focus_fusion as ff

PICTURE = Path(__file__).parent / "_static" / "registration.jpg"
#: Rows and columns of the crops: letters, and the upper right corner.
CROPS = (
    (slice(820, 1000), slice(780, 1160)),
    (slice(0, 180), slice(1668, 2048)),
)


def page(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Crops of both beside each other, a row each."""
    rows = [
        np.hstack([np.pad(a[crop], ((2, 2), (2, 2), (0, 0))) for a in (before, after)])
        for crop in CROPS
    ]
    return np.vstack(rows)


def main() -> None:
    """Fuse twice, and write the picture."""
    files = sorted(sys.argv[1:])
    before, after = (
        np.asarray(ff.fuse(files, "sml", align=align).fused)
        for align in (None, "similarity")
    )
    Image.fromarray(page(before, after)).save(PICTURE, quality=80)


if __name__ == "__main__":
    main()
