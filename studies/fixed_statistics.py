"""What scorers lose whose statistics are fixed, as in exported packages.

``python -m studies.fixed_statistics [MODEL ...]``

Twelve scenes that no training has used, 128 x 128 pixels and 5 to 8 slices, decided
with ``surface=0``: with statistics of each stack, and with those of other scenes.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.export.examples import context_of_scenes
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.models.registry import load_model
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.simulation.scenes import TRAINING_SEEDS, Scene, make_scene
from napari_focus_fusion.training.scores import score_of

if TYPE_CHECKING:
    from napari_focus_fusion.models.base import FusionModel

FIRST_SEED = TRAINING_SEEDS.stop + 500_000


def scored(scene: Scene, model: FusionModel) -> tuple[float, float, np.ndarray]:
    """PSNR, depth error in slices, and decision map."""
    stack = as_stack(scene.stack, axes=scene.axes)
    result = fuse(stack, model, surface=0.0)
    depth = np.asarray(result.depth) / np.float32(stack.pixel_size("Z"))
    scores = score_of(scene, np.asarray(result.fused), depth)
    return scores["psnr"], scores["depth_error"], np.asarray(result.decision)


def main() -> None:
    """Print the means, and the worst loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["sesf", "residual"])
    for name in parser.parse_args().models:
        own, fixed = load_model(name), load_model(name)
        context = context_of_scenes(fixed)
        vars(fixed)["context"] = lambda sample, kept=context: kept
        rows = []
        for i in range(12):
            scene = make_scene(FIRST_SEED + i, shape=(128, 128), slices=5 + i % 4)
            first, second = scored(scene, own), scored(scene, fixed)
            agreement = float((first[2] == second[2]).mean())
            rows.append((*first[:2], *second[:2], agreement))
        table = np.array(rows)
        psnr, depth, fixed_psnr, fixed_depth, agreement = table.mean(0)
        worst = (table[:, 2] - table[:, 0]).min()
        print(
            f"{name}: own {psnr:.2f} dB, {depth:.3f} slices off; fixed "
            f"{fixed_psnr:.2f} dB, {fixed_depth:.3f}; at worst {worst:+.2f} dB; "
            f"{agreement:.1%} of pixels from the same slice"
        )


if __name__ == "__main__":
    main()
