"""affinity-sr with random weights, small networks, and receptive fields; for tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from napari_focus_fusion.models.affinity_sr import LIGHT, AffinitySR, AffinitySRConfig

SMALL = AffinitySRConfig(
    path=(4,),
    branch=(3,),
    half_width=3,
    rows=2,
    near=(4, 6),
    far=(4, 5),
    refine=2,
    width=6,
    growth=4,
    dense=1,
    blocks=2,
    embed=(4,),
    fine=(5,),
)
#: The paper's tables II and IV, and our own choices: what is left out or changed.
VARIANTS = {
    "no affinity": {"affinity": False},
    "no attention": {"attention": ()},
    "no channel attention": {"attention": ("spatial",)},
    "no spatial attention": {"attention": ("channel",)},
    "channel attention first": {"attention": ("channel", "spatial")},
    "no refinement": {"refine": 0},
    "no shallow-deep attention": {"shallow_deep": False},
    "no gradient branch": {"gradient": False},
    "no interpolation": {"skip": False},
    "rectified": {"rectify": True},
}
OF_MASKS = list(VARIANTS)[:6]


def random_model(config: AffinitySRConfig = LIGHT, seed: int = 0) -> AffinitySR:
    """Random weights everywhere, and running statistics as training leaves them."""
    torch.manual_seed(seed)
    model = AffinitySR(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                if not module.weight.any():
                    nn.init.normal_(module.weight, 0, 0.1)
                assert module.bias is not None
                nn.init.uniform_(module.bias, -0.1, 0.1)
        if model.fapn.normalise is not None:
            model.fapn.normalise.running_mean.uniform_(0.4, 0.7)
            model.fapn.normalise.running_var.uniform_(0.05, 0.2)
    return model.eval().requires_grad_(False)


def images(count: int, height: int = 40, width: int = 44, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, height, width, generator=generator)


def changed_radius(changed: Tensor, y: int, x: int) -> int:
    """How far from (y, x) a map (h, w) has changed."""
    rows, columns = np.nonzero(changed.numpy())
    far = (y - rows.min(), rows.max() - y, x - columns.min(), columns.max() - x)
    return int(max(far))
