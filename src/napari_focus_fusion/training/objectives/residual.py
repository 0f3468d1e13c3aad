"""How the residual model is trained: super-resolution, and a ranking of the slices.

The paper's pretext task is super-resolution: the input is an image that was made
smaller and larger again, the output what it lacks. Trained on clean images only, a
network would take noise for the finest detail of all; here noise is added to the input
and not to the target. Scenes have a ground truth, the sharp slice of each pixel, and a
ranking loss on the activity itself uses it; without it, stacks are resynthesised, with
ground truth (``resynthesis``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_focus_fusion.filters import without_border
from napari_focus_fusion.models.residual import RADIUS
from napari_focus_fusion.training.data import WAVES_AND_HAZE
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import WINDOW, slice_ranking
from napari_focus_fusion.training.objectives.sesf import depth_error
from napari_focus_fusion.training.recipe import Recipe
from napari_focus_fusion.training.resynthesis import resynthesised_batch
from napari_focus_fusion.training.rng import generator_of

if TYPE_CHECKING:
    from torch import Tensor

    from napari_focus_fusion.models.residual import Residual
    from napari_focus_fusion.training.data import Batch

#: Pixels that the network needs around what it scores.
HALO = RADIUS + 1
#: Factors, drawn at random, by which super-resolution makes images smaller.
FACTORS = (2, 3, 4)
#: Weights of the residual's gradient in the super-resolution loss; of that loss beside
#: the ranking loss.
GRADIENT = 0.1
RESOLUTION = 0.5
#: Power that turns ratios of scores into probabilities of slices.
SHARPNESS = 4.0


def training_loss(network: Residual, batch: Batch) -> dict[str, Tensor]:
    """The losses of a batch of scenes."""
    stacks, slices, height, width = batch.noisy.shape
    flat = batch.noisy.reshape(stacks * slices, 1, height, width)
    score = network(flat.contiguous(memory_format=torch.channels_last), stacks)
    ranking = slice_ranking(
        score.unflatten(0, (stacks, slices)),
        without_border(batch.depth, HALO),
        radius=WINDOW,
        sharpness=SHARPNESS,
    )
    generator = generator_of(batch.step)
    noise = (batch.noisy - batch.clean)[:, :1]
    resolution = super_resolution(network, batch.truth[:, None], noise, generator)
    loss = ranking + RESOLUTION * resolution
    return {"loss": loss, "ranking": ranking, "resolution": resolution}


def self_supervised_loss(
    network: Residual, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The same losses on stacks resynthesised from slices without ground truth.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    generator
        Of what is drawn at random.
    """
    return training_loss(network, resynthesised_batch(slices, generator))


def super_resolution(
    network: Residual, sharp: Tensor, noise: Tensor, generator: torch.Generator
) -> Tensor:
    """The paper's loss: the residual that an image in low resolution lacks.

    ``(|R - R*| + 0.1 |grad R - grad R*|) / |R*|``, each a mean, for the residual ``R``
    that the network gives and the true one ``R*``. The second term is the residual
    gradient prior; the division makes images of any contrast count the same, and 1
    is what giving nothing scores.

    Parameters
    ----------
    sharp
        (B, 1, h, w), images.
    noise
        Of the same shape, added to the network's input.
    generator
        Of the factors.
    """
    drawn = torch.randint(len(FACTORS), (len(sharp),), generator=generator)
    low = torch.cat(
        [
            down_and_up(image[None], FACTORS[i])
            for image, i in zip(sharp, drawn.tolist(), strict=True)
        ]
    )
    target = without_border(sharp - low, HALO)
    inputs = (low + noise).contiguous(memory_format=torch.channels_last)
    output = network.restored(inputs).float()
    error = (output - target).abs().mean()
    for axis in (-1, -2):
        gradient = (output - target).diff(dim=axis)
        error = error + GRADIENT * gradient.abs().mean()
    return error / target.abs().mean().clamp_min(1e-6)


def down_and_up(images: Tensor, factor: int) -> Tensor:
    """Images (B, 1, h, w) made smaller, antialiased, and larger again; both cubic."""
    height, width = images.shape[-2:]
    small = (-(-height // factor), -(-width // factor))
    for size in (small, (height, width)):
        images = F.interpolate(images, size, mode="bicubic", antialias=True)
    return images


RECIPE = Recipe(
    training_loss=training_loss,
    self_supervised_loss=self_supervised_loss,
    validate=depth_error,
    modalities=WAVES_AND_HAZE,
    schedule=Schedule(steps=1400, learning_rate=2e-3),
)
