"""Measure what is found where two depths show.

    python docs/two_depths.py

prints the table of ``docs/how_it_works.md``.
"""

from __future__ import annotations

import numpy as np

import napari_focus_fusion as ff
from napari_focus_fusion.simulation.two_depths import KINDS, TwoDepths, make_two_depths

SEEDS = (9_200_001, 9_200_002)
#: Slices, blur in pixels a slice, electrons at white.
STACKS = ((6, 2.0, None), (12, 1.0, 4000.0))


def shares(scene: TwoDepths, prefer: str) -> list[float]:
    """Of pixels that show both depths those in front, those behind; others right."""
    stack = ff.as_stack(scene.scene.stack, axes="ZYX")
    decision = np.asarray(ff.fuse(stack, prefer=prefer, device="cpu").decision, float)
    front, back = (abs(decision - d) <= 1.5 for d in (scene.front, scene.back))
    rest = front[~scene.both].mean() if scene.scene.parameters["kind"] == "hairs" else 1
    return [
        float(front[scene.both].mean()),
        float(back[scene.both].mean()),
        float(rest),
    ]


def main() -> None:
    """Print the rows of the table."""
    for kind in KINDS:
        for prefer in ("sharpest", "front", "back"):
            found = [
                shares(
                    make_two_depths(
                        seed,
                        kind,
                        shape=(192, 192),
                        slices=slices,
                        blur_per_slice=blur,
                        electrons=electrons,
                    ),
                    prefer,
                )
                for seed in SEEDS
                for slices, blur, electrons in STACKS
            ]
            front, back, rest = 100 * np.mean(found, 0)
            other = f"{rest:.0f} %" if kind == "hairs" else ""
            print(
                f"| {kind} | `{prefer}` | {front:.0f} % | {back:.0f} % | {other} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
