"""How the residual model is trained: super-resolution, and telling slices apart.

The paper's pretext is super-resolution: the network sees a picture that was made
smaller and larger again, and gives what it lacks. Of a network that saw clean pictures
only, noise would be the finest detail of all; here noise is added to what it sees and
not to what it should give. Scenes know the sharp slice of each pixel, and a ranking
loss on the activity itself makes use of it; a stack without truth is made into one
whose truth is known (``resynthesis``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_focus_fusion.filters import without_border
from napari_focus_fusion.models.residual import RADIUS
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import WINDOW, slice_ranking
from napari_focus_fusion.training.objectives.sesf import depth_error
from napari_focus_fusion.training.recipe import Recipe
from napari_focus_fusion.training.resynthesis import self_made_batch
from napari_focus_fusion.training.rng import generator_of

if TYPE_CHECKING:
    from torch import Tensor

    from napari_focus_fusion.models.residual import Residual
    from napari_focus_fusion.training.data import Batch

#: Pixels that the network needs around what it scores.
HALO = RADIUS + 1
#: How many times smaller the pictures of the pretext are made, at random.
FACTORS = (2, 3, 4)
#: Weight of the residual's gradient in the pretext; of the pretext beside the ranking.
GRADIENT = 0.1
RESOLUTION = 0.5
#: Power that turns ratios of scores into probabilities of slices.
SHARPNESS = 4.0


def objective(network: Residual, batch: Batch) -> dict[str, Tensor]:
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


def pretext(
    network: Residual, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The same losses on stacks made of slices whose truth nobody knows.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    generator
        Of what is drawn at random.
    """
    return objective(network, self_made_batch(slices, generator))


def super_resolution(
    network: Residual, sharp: Tensor, noise: Tensor, generator: torch.Generator
) -> Tensor:
    """The paper's pretext: give what a picture in low resolution lacks.

    ``(|R - R*| + 0.1 |grad R - grad R*|) / |R*|``, each a mean, for the residual ``R``
    that the network gives and the true one ``R*``. The second term is the residual
    gradient prior; the division makes pictures of any contrast count the same, and 1
    is what giving nothing scores.

    Parameters
    ----------
    sharp
        (B, 1, h, w), pictures.
    noise
        Of the same shape, added to what the network sees.
    generator
        Of the factors.
    """
    drawn = torch.randint(len(FACTORS), (len(sharp),), generator=generator)
    low = torch.cat(
        [
            down_and_up(picture[None], FACTORS[i])
            for picture, i in zip(sharp, drawn.tolist(), strict=True)
        ]
    )
    wanted = without_border(sharp - low, HALO)
    seen = (low + noise).contiguous(memory_format=torch.channels_last)
    given = network.restored(seen).float()
    error = (given - wanted).abs().mean()
    for axis in (-1, -2):
        gradient = (given - wanted).diff(dim=axis)
        error = error + GRADIENT * gradient.abs().mean()
    return error / wanted.abs().mean().clamp_min(1e-6)


def down_and_up(pictures: Tensor, factor: int) -> Tensor:
    """Pictures (B, 1, h, w) made smaller, antialiased, and larger again; both cubic."""
    height, width = pictures.shape[-2:]
    small = (-(-height // factor), -(-width // factor))
    for size in (small, (height, width)):
        pictures = F.interpolate(pictures, size, mode="bicubic", antialias=True)
    return pictures


RECIPE = Recipe(
    objective=objective,
    pretext=pretext,
    validate=depth_error,
    schedule=Schedule(steps=1400, learning_rate=2e-3),
)
