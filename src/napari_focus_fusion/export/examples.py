"""What an exported network is fixed to, and what it is tested with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.engine.plan import plan_run
from napari_focus_fusion.engine.prepare import prepare
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from torch import Tensor

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.stack import FocusStack

#: Scenes of all kinds, for the statistics of networks that shall suit any stack.
SCENES = range(12)
SIDE, SLICES = 96, 6
#: The scene that networks are tested with, and how many of its slices.
TEST_SCENE, TEST_SLICES = 3, 3


def context_of_scenes(model: FusionModel) -> Any:
    """Statistics over the slices of twelve scenes of all kinds, for any stack."""
    sample = []
    for seed in SCENES:
        scene = make_scene(seed, shape=(SIDE, SIDE), slices=SLICES)
        planes = normalised(scene.stack.astype(np.float32))
        sample += [torch.from_numpy(plane)[None, None] for plane in planes]
    with torch.no_grad():
        return model.context(sample)


def context_of_stack(model: FusionModel, stack: FocusStack) -> Any:
    """Statistics of a stack, those that fusing its first time point uses."""
    plan = plan_run(stack, model, FusionSettings(device="cpu", surface=0.0))
    with torch.no_grad():
        return prepare(replace(plan, upscale=None), 0, Monitor()).context


def normalised(slices: np.ndarray) -> np.ndarray:
    """Slices with 0 and 1 where a run has them: quantiles of all together."""
    black, white = black_and_white([slices])
    return (slices - np.float32(black)) / np.float32(white - black)


def example_slices(height: int, width: int) -> Tensor:
    """Slices (N, 1, h, w) of a scene, float32 of 0 to 65535: not normalised."""
    scene = make_scene(TEST_SCENE, shape=(height, width), slices=TEST_SLICES)
    return torch.from_numpy(scene.stack.astype(np.float32))[:, None]
