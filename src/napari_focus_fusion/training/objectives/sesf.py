"""How SESF-Fuse is trained: an auto-encoder, and a ranking of the slices.

The paper's loss is an auto-encoder's: ``L = L_p + lambda * (1 - SSIM)``. On clean
images noise is learnt as detail, so the input is noisy here and the target is clean.
Scenes have a ground truth, the sharp slice of each pixel, and a ranking loss on the
focus measure itself uses it; without it (fine-tuning on a user's stack) the ranking
loss is taken on resynthesised stacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_focus_fusion.filters import box_mean, without_border
from napari_focus_fusion.models.sesf import WIDTH, spatial_frequency
from napari_focus_fusion.training.data import WAVES_AND_HAZE
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import WINDOW, slice_ranking, ssim
from napari_focus_fusion.training.recipe import Recipe
from napari_focus_fusion.training.resynthesis import resynthesised_stack

if TYPE_CHECKING:
    from torch import Tensor

    from napari_focus_fusion.models.sesf import SESF
    from napari_focus_fusion.training.data import Batch

#: Weight of ``1 - SSIM`` beside the mean absolute error, and of the ranking loss.
STRUCTURE = 1.0
RANKING = 1.0
#: Power that turns ratios of scores into probabilities of slices.
SHARPNESS = 4.0


def training_loss(
    network: SESF, batch: Batch, ranking: float = RANKING
) -> dict[str, Tensor]:
    """The losses of a batch; ``ranking=0`` leaves the paper's loss alone."""
    stacks, slices, height, width = batch.noisy.shape
    flat = batch.noisy.reshape(stacks * slices, 1, height, width)
    target = batch.clean.reshape(flat.shape)
    reconstruction, score = network(
        flat.contiguous(memory_format=torch.channels_last), stacks
    )
    pixel = F.l1_loss(reconstruction, target)
    structure = 1 - ssim(reconstruction, target, data_range=1.0)
    loss = pixel + STRUCTURE * structure
    losses = {"pixel": pixel, "structure": structure}
    if ranking:
        rank = slice_ranking(
            score.reshape(stacks, slices, height, width).float(),
            batch.depth,
            radius=WINDOW,
            sharpness=SHARPNESS,
        )
        losses["ranking"] = rank
        loss = loss + ranking * rank
    return {"loss": loss, **losses}


def self_supervised_loss(
    network: SESF, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The ranking loss on stacks resynthesised from slices without ground truth.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    generator
        Of what is drawn at random.
    """
    noisy, depth = resynthesised_stack(slices, generator)
    stacks, count, height, width = noisy.shape
    flat = noisy.reshape(stacks * count, 1, height, width)
    dense = network.features(flat.contiguous(memory_format=torch.channels_last), stacks)
    score = spatial_frequency(dense, [flat.new_ones(WIDTH)] * len(dense))
    loss = slice_ranking(
        score.reshape(noisy.shape).float(),
        depth,
        radius=WINDOW,
        sharpness=SHARPNESS,
    )
    return {"loss": loss}


def depth_error(network: SESF, batches: list[Batch]) -> float:
    """Mean distance in slices between the best slice and the true depth; capped at 2.

    Scored as the engine does: gates from the stack, scores added up over
    :data:`WINDOW`, arg-max, where the depth is known. The cap keeps a few outliers
    from outweighing the rest.
    """
    errors = []
    for batch in batches:
        for noisy, depth in zip(batch.noisy, batch.depth, strict=True):
            planes = noisy[:, None]
            context = network.context([plane[None] for plane in planes])
            score = box_mean(network.score(planes, context), WINDOW)
            error = (score.argmax(0) - without_border(depth, WINDOW)).abs()
            errors.append(error.clamp(max=2).nanmean())
    return float(torch.stack(errors).mean())


RECIPE = Recipe(
    training_loss=training_loss,
    self_supervised_loss=self_supervised_loss,
    validate=depth_error,
    modalities=WAVES_AND_HAZE,
    schedule=Schedule(steps=1600, learning_rate=2e-3),
)
