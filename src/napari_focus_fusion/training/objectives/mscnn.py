"""How MSCNN is trained: on ground truth; and the paper's loss, which needs none.

The paper trains without ground truth: the structural similarity between the
reconstruction and, window by window, the slice that is sharpest there. That loss copies
the noise of its sources, so the reconstruction cannot be better than they are. The
shipped weights are trained on scenes with ground truth instead, from 2 to 16 slices, on
the error in decibels, so that dim stacks and bright ones count alike, with structural
similarity beside it; the decision map learns from the depth of the scenes by ranking.
Without ground truth (fine-tuning on a user's stack) the paper's loss is taken, on
resynthesised stacks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from napari_focus_fusion.filters import box_mean, without_border
from napari_focus_fusion.training.data import WAVES_AND_HAZE
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import slice_ranking, ssim
from napari_focus_fusion.training.recipe import Recipe, repeated
from napari_focus_fusion.training.resynthesis import resynthesised_batch
from napari_focus_fusion.training.rng import generator_of, random_uniform

if TYPE_CHECKING:
    from torch import Tensor

    from napari_focus_fusion.models.mscnn import MSCNN
    from napari_focus_fusion.training.data import Batch

#: Weights of ``1 - SSIM`` and of the ranking loss beside half the logarithm of the mean
#: squared error.
STRUCTURE = 0.5
RANKING = 0.2
#: Smallest mean squared error that counts: 60 dB.
LEAST_ERROR = 1e-6
#: Weight of pixels whose sharp slice is not in the substack.
OUTSIDE_WEIGHT = 0.05
#: A pixel counts as in the substack if a slice lies within this many slices of the pool
#: of its depth.
NEAR = 0.75
#: Pixels along the edge of a crop that the losses leave out: part of their receptive
#: field lies outside.
BORDER = 6

#: Sides of the windows of the paper's loss, and its weight of the mean absolute error.
WINDOWS = (7, 11)
INTENSITY = 0.1


class Substack(NamedTuple):
    """Some slices of a batch, with the ground truth of their reconstruction.

    Attributes
    ----------
    noisy
        (stacks, n, h, w).
    truth
        (stacks, h, w).
    depth
        (stacks, h, w) in these slices; NaN where unknown or outside of them.
    weight
        (stacks, h, w): :data:`OUTSIDE_WEIGHT` where the sharp slice is not among them.
    """

    noisy: Tensor
    truth: Tensor
    depth: Tensor
    weight: Tensor


def draw_weighted_substack(batch: Batch, generator: torch.Generator) -> Substack:
    """Two to all slices of a batch, few as often as many; next to each other, or not.

    Stacks of every size are cut out of deep ones: a run of slices, or of every second
    or third slice.
    """
    uniform = partial(random_uniform, generator)
    total = batch.noisy.shape[1]
    count = min(max(round(2 * (total / 2) ** uniform()), 2), total)
    widest = min(3, (total - 1) // max(count - 1, 1))
    step = 1 + int(uniform() * widest) if uniform() < 0.4 else 1
    first = int(uniform() * (total - (count - 1) * step))
    last = first + (count - 1) * step
    outside = (batch.depth - batch.depth.clamp(first, last)).abs() > NEAR
    depth = ((batch.depth - first) / step).masked_fill(outside, torch.nan)
    weight = torch.where(outside, OUTSIDE_WEIGHT, 1.0)
    return Substack(batch.noisy[:, first : last + 1 : step], batch.truth, depth, weight)


def training_loss(network: MSCNN, batch: Batch) -> dict[str, Tensor]:
    """The losses of a batch of scenes, of random substacks."""
    noisy, truth, depth, weight = draw_weighted_substack(
        batch, generator_of(batch.step)
    )
    reconstructions, encoded = network(noisy)
    error = log_error(reconstructions, truth, weight)
    inner = (
        without_border(image, BORDER)[:, None] for image in (reconstructions, truth)
    )
    structure = 1 - ssim(*inner)
    ranking = slice_ranking(encoded.largest[:, :, 0], depth, radius=0, sharpness=4.0)
    return {
        "loss": error.mean() + STRUCTURE * structure + RANKING * ranking,
        "error": error.mean(),
        "structure": structure,
        "ranking": ranking,
    }


def log_error(reconstructions: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Natural logarithm of each stack's root mean squared error: a PSNR, negated.

    Parameters
    ----------
    reconstructions, truth, weight
        (stacks, h, w).

    Returns
    -------
    Tensor
        (stacks,).
    """
    reconstructions, truth, weight = (
        without_border(image, BORDER) for image in (reconstructions, truth, weight)
    )
    squared = (reconstructions - truth).square() * weight
    mean = squared.sum((1, 2)) / weight.sum((1, 2))
    return 0.5 * torch.log(mean + LEAST_ERROR)


def unsupervised(
    network: MSCNN, slices: Tensor, sources: Tensor | None = None
) -> dict[str, Tensor]:
    """The paper's loss: similarity to the sharpest slice, window by window.

    In each window the slice with the largest standard deviation is the reference of
    the structural similarity (Yan et al., "Unsupervised deep multi-focus image fusion",
    arXiv:1806.07272); similarity alone would leave the mean intensity free.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    sources
        What the reconstruction is compared with, of the same shape: the slices without
        noise, where that is known; None for the slices as they are.
    """
    sources = slices if sources is None else sources
    reconstructions, _ = network(slices)
    similar, close = [], []
    for side in WINDOWS:
        index, similarity = best_window(reconstructions, sources, side)
        similar.append(similarity.mean())
        sharpest = without_border(sources, side // 2).gather(1, index)[:, 0]
        close.append(F.l1_loss(without_border(reconstructions, side // 2), sharpest))
    structure = 1 - torch.stack(similar).mean()
    intensity = torch.stack(close).mean()
    return {
        "loss": structure + INTENSITY * intensity,
        "structure": structure,
        "intensity": intensity,
    }


def best_window(
    reconstructions: Tensor, slices: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    """The slice with most contrast in each window, and the similarity to it there.

    Parameters
    ----------
    reconstructions
        (stacks, h, w).
    slices
        (stacks, N, h, w), of a range of about 1.
    side
        Of the square windows; those that lie inside count.

    Returns
    -------
    index, similarity
        (stacks, 1, h - side + 1, w - side + 1): slice, and SSIM in [-1, 1].
    """
    radius = side // 2
    means, reconstruction = (
        box_mean(slices, radius),
        box_mean(reconstructions, radius)[:, None],
    )
    variances = box_mean(slices.square(), radius) - means.square()
    index = variances.argmax(1, keepdim=True)
    variance, mean = variances.gather(1, index), means.gather(1, index)
    both = box_mean(slices * reconstructions[:, None], radius).gather(1, index)
    own = box_mean(reconstructions.square(), radius)[:, None] - reconstruction.square()
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * reconstruction * mean + c1) / (
        reconstruction.square() + mean.square() + c1
    )
    contrast = (2 * (both - reconstruction * mean) + c2) / (own + variance + c2)
    return index, luminance * contrast


def self_supervised_loss(
    network: MSCNN, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The paper's loss on stacks resynthesised from a user's own slices.

    Compared with the slices as they are, the reconstruction would learn their noise.
    Resynthesised stacks have noise like theirs, and noise-free sources.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    generator
        Of what is drawn at random.
    """
    batch = resynthesised_batch(slices, generator)
    return unsupervised(network, batch.noisy, batch.clean)


def validation_error(network: MSCNN, batches: list[Batch]) -> float:
    """Error of reconstructions and decision maps: lower is better.

    The root mean squared error of reconstructions as a share of the range, its
    geometric mean over stacks, times e to the power of the mean depth error in slices
    (each pixel's capped at 2), of two to all slices of each batch.
    """
    errors, distances = [], []
    for number, batch in enumerate(batches):
        noisy, truth, depth, weight = draw_weighted_substack(
            batch, generator_of(number)
        )
        for planes, sharp, at, counts in zip(noisy, truth, depth, weight, strict=True):
            reconstruction, encoded = network(planes[None])
            errors.append(log_error(reconstruction, sharp[None], counts[None]))
            best, winner = encoded.largest[0].max(0)
            votes = [network.vote(winner, best, z) for z in range(len(planes))]
            summed = box_mean(torch.stack(votes), network.window)
            distance = (summed.argmax(0) - without_border(at, network.window)).abs()
            distances.append(distance.clamp(max=2).nanmean())
    return float(torch.exp(torch.cat(errors).mean() + torch.stack(distances).nanmean()))


#: The last stage is on larger crops.
RECIPE = repeated(
    Recipe(
        training_loss=training_loss,
        self_supervised_loss=self_supervised_loss,
        validate=validation_error,
        schedule=Schedule(steps=3600, learning_rate=4e-3, validate_every=200),
        modalities=(*WAVES_AND_HAZE, "refractile"),
        slices=16,
        stacks=2,
    ),
    {"schedule": Schedule(steps=2400, learning_rate=2e-3, validate_every=200)},
    {
        "schedule": Schedule(steps=3200, learning_rate=1.5e-3, validate_every=400),
        "crop": 96,
    },
)
