"""How MSCNN is trained: on the truth of scenes; and the paper's loss, which needs none.

The paper trains without truth: the structural similarity between the picture and,
window by window, the slice that is sharpest there. That loss copies the noise of its
sources, so the picture cannot rise above them. The shipped weights are trained on
scenes with truth instead, from 2 to 16 slices, on the error in decibels, so that dim
stacks and bright ones count alike, with structural similarity beside it; the decision
map learns from the depth of the scenes by ranking. Without truth (fine-tuning on a
user's stack) the paper's loss stands, beside scenes made of the stack itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from napari_focus_fusion.filters import box_mean, without_border
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import slice_ranking, ssim
from napari_focus_fusion.training.recipe import Recipe, repeated
from napari_focus_fusion.training.resynthesis import self_made_batch
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
#: Weight of pixels whose sharp slice is not among those that are seen.
UNSEEN = 0.05
#: A pixel is seen if a slice lies within this many slices of the pool of its depth.
NEAR = 0.75
#: Pixels along the edge of a crop that the losses leave out: they saw half of what
#: they see in a stack.
RIM = 6

#: Sides of the windows of the paper's loss, and its weight of the mean absolute error.
WINDOWS = (7, 11)
INTENSITY = 0.1


class Seen(NamedTuple):
    """Some slices of a batch, with the truth they should give.

    Attributes
    ----------
    noisy
        (stacks, n, h, w).
    truth
        (stacks, h, w).
    depth
        (stacks, h, w) in these slices; NaN where unknown or outside of them.
    weight
        (stacks, h, w): :data:`UNSEEN` where the sharp slice is not among them.
    """

    noisy: Tensor
    truth: Tensor
    depth: Tensor
    weight: Tensor


def draw_weighted_substack(batch: Batch, generator: torch.Generator) -> Seen:
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
    weight = torch.where(outside, UNSEEN, 1.0)
    return Seen(batch.noisy[:, first : last + 1 : step], batch.truth, depth, weight)


def objective(network: MSCNN, batch: Batch) -> dict[str, Tensor]:
    """The losses of a batch of scenes, of which a random part of the slices is seen."""
    noisy, truth, depth, weight = draw_weighted_substack(
        batch, generator_of(batch.step)
    )
    pictures, encoded = network(noisy)
    error = log_error(pictures, truth, weight)
    inner = (without_border(image, RIM)[:, None] for image in (pictures, truth))
    structure = 1 - ssim(*inner)
    ranking = slice_ranking(encoded.largest[:, :, 0], depth, radius=0, sharpness=4.0)
    return {
        "loss": error.mean() + STRUCTURE * structure + RANKING * ranking,
        "error": error.mean(),
        "structure": structure,
        "ranking": ranking,
    }


def log_error(pictures: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Natural logarithm of each stack's root mean squared error: its PSNR, turned over.

    Parameters
    ----------
    pictures, truth, weight
        (stacks, h, w).

    Returns
    -------
    Tensor
        (stacks,).
    """
    pictures, truth, weight = (
        without_border(image, RIM) for image in (pictures, truth, weight)
    )
    squared = (pictures - truth).square() * weight
    mean = squared.sum((1, 2)) / weight.sum((1, 2))
    return 0.5 * torch.log(mean + LEAST_ERROR)


def unsupervised(
    network: MSCNN, slices: Tensor, sources: Tensor | None = None
) -> dict[str, Tensor]:
    """The paper's objective: like the sharpest slice, window by window.

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
        What the picture is compared with, of the same shape: the slices without their
        noise, where that is known; None for the slices as they are.
    """
    sources = slices if sources is None else sources
    pictures, _ = network(slices)
    similar, close = [], []
    for side in WINDOWS:
        index, similarity = best_window(pictures, sources, side)
        similar.append(similarity.mean())
        sharpest = without_border(sources, side // 2).gather(1, index)[:, 0]
        close.append(F.l1_loss(without_border(pictures, side // 2), sharpest))
    structure = 1 - torch.stack(similar).mean()
    intensity = torch.stack(close).mean()
    return {
        "loss": structure + INTENSITY * intensity,
        "structure": structure,
        "intensity": intensity,
    }


def best_window(pictures: Tensor, slices: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The slice with most contrast in each window, and the similarity to it there.

    Parameters
    ----------
    pictures
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
    means, picture = box_mean(slices, radius), box_mean(pictures, radius)[:, None]
    variances = box_mean(slices.square(), radius) - means.square()
    index = variances.argmax(1, keepdim=True)
    variance, mean = variances.gather(1, index), means.gather(1, index)
    both = box_mean(slices * pictures[:, None], radius).gather(1, index)
    own = box_mean(pictures.square(), radius)[:, None] - picture.square()
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * picture * mean + c1) / (picture.square() + mean.square() + c1)
    contrast = (2 * (both - picture * mean) + c2) / (own + variance + c2)
    return index, luminance * contrast


def pretext(
    network: MSCNN, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The paper's objective on stacks made of a user's own slices.

    Held against the slices as they are, the picture would learn their noise. Stacks
    that are made of them have noise like theirs, and sources without it.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    generator
        Of what is drawn at random.
    """
    batch = self_made_batch(slices, generator)
    return unsupervised(network, batch.noisy, batch.clean)


def shortfall(network: MSCNN, batches: list[Batch]) -> float:
    """How far pictures and decision maps are from the truth: lower is better.

    The root mean squared error of pictures as a share of the range, its geometric mean
    over stacks, times e to the power of the mean depth error in slices (each pixel's
    capped at 2), of two to all slices of each batch.
    """
    errors, distances = [], []
    for number, batch in enumerate(batches):
        noisy, truth, depth, weight = draw_weighted_substack(
            batch, generator_of(number)
        )
        for planes, sharp, at, counts in zip(noisy, truth, depth, weight, strict=True):
            picture, encoded = network(planes[None])
            errors.append(log_error(picture, sharp[None], counts[None]))
            best, winner = encoded.largest[0].max(0)
            votes = [network.vote(winner, best, z) for z in range(len(planes))]
            summed = box_mean(torch.stack(votes), network.window)
            distance = (summed.argmax(0) - without_border(at, network.window)).abs()
            distances.append(distance.clamp(max=2).nanmean())
    return float(torch.exp(torch.cat(errors).mean() + torch.stack(distances).nanmean()))


RECIPE = repeated(
    Recipe(
        objective=objective,
        pretext=pretext,
        validate=shortfall,
        schedule=Schedule(steps=3600, learning_rate=4e-3, validate_every=200),
        slices=16,
        stacks=2,
    ),
    Schedule(steps=2400, learning_rate=2e-3, validate_every=200),
)
