"""How Dual-Path is trained: a predictor that supervises a fuser, and ground truth.

The paper's losses: imperfect masks are denoised by a predictor that is trained with
parts of them hidden; the predictor's masks supervise the fuser's at every stage; and a
consistency loss ties what the two fuse. Which imperfect masks, how they are hidden and
every weight is ours.

Losses are taken of aggregated masks: the decision sums masks over windows and takes the
best slice, so that masks between 0 and 1 where there is little detail are better than
masks that are 0 or 1 everywhere. See :func:`selection_probability`.

Scenes have a ground truth, the sharp slice. The shipped weights were trained with that
as well: cross-entropy of each stage's masks, the error of the slices that they select,
and the error of each stage's reconstruction. Without ground truth (fine-tuning on a
user's stack) they are taken on stacks resynthesised from it, whose truth is known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.decision import SURROUNDINGS_WEIGHT
from napari_focus_fusion.filters import box_mean, without_border
from napari_focus_fusion.models.dual_path import STAGES, DualPath, gradient_energy
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.simulation.scenes import refractile_scenes
from napari_focus_fusion.training.data import MODALITIES
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import slice_ranking, ssim
from napari_focus_fusion.training.recipe import Recipe, repeated
from napari_focus_fusion.training.resynthesis import resynthesised_batch
from napari_focus_fusion.training.rng import generator_of, random_integer
from napari_focus_fusion.training.scores import score_on_scenes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_focus_fusion.models.dual_path import Estimate
    from napari_focus_fusion.training.data import Batch

#: Radii of the windows over which imperfect masks sum a plain focus measure.
RADII = (1, 2, 4, 7)
#: Standard deviation of the noise that each imperfect mask's slices are given.
MASK_NOISE = 0.02
#: Side in pixels of the squares in which a mask is hidden, drawn anew each time.
HIDDEN = (8, 16)
#: Weights of the losses.
SUPERVISION, CONSISTENCY, ROUGHNESS = 1.0, 1.0, 0.01
TRUE_SLICE, TRUE_IMAGE, RISK = 1.0, 0.5, 0.75
#: Power that turns aggregated masks into probabilities; it leaves the best the best.
SHARPNESS = 6.0
#: Squared error, of the range, that counts as zero.
LEAST_ERROR = 1e-5
#: Weight of the losses of masks before aggregation, as a share of those after.
PIXEL = 0.2
#: Steps over which the weight of the predictor rises from zero; its weight beside
#: ground truth.
WARM_UP = 200
WEIGHT_BESIDE_TRUTH = 0.02
#: Border of a crop, in pixels, that losses with ground truth leave out: part of the
#: receptive field lies outside.
BORDER = 8
#: Windows over which the decision adds masks up: weight and radius, from the model's.
_SIDE = 2 * DualPath.window + 1
WINDOWS = (
    (1.0, DualPath.window),
    (SURROUNDINGS_WEIGHT, (3 * _SIDE - 1) // 2),
    (1.0, (9 * _SIDE - 1) // 2),
)
WIDEST = WINDOWS[-1][1]
#: Most slices of a stack of most steps, and how far apart they can be.
MOST, FARTHEST = 6, 5


def training_loss(
    network: DualPath, batch: Batch, truth: float = 1.0
) -> dict[str, Tensor]:
    """The losses of a batch of scenes; ``truth=0`` leaves the paper's losses alone.

    Stacks of 2 to all slices, neighbours in depth.
    """
    trust = min(batch.step / WARM_UP, 1.0) * (WEIGHT_BESIDE_TRUTH if truth else 1.0)
    return _losses(network, batch, generator_of(batch.step), trust, truth)


def _losses(
    network: DualPath,
    batch: Batch,
    generator: torch.Generator,
    trust: float,
    truth: float = 1.0,
) -> dict[str, Tensor]:
    """The paper's losses, and those with ground truth, of a part of the slices."""
    batch = draw_substack(batch, generator)
    estimates = list(network.unroll(batch.noisy))
    losses = dual_losses(network, batch.noisy, estimates, generator, trust)
    if truth:
        losses |= true_losses(estimates, batch)
        losses["loss"] = losses["loss"] + truth * losses["truth"]
    return losses


def self_supervised_loss(
    network: DualPath, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The same losses on stacks resynthesised from slices without ground truth.

    Of a user's slices themselves the paper's losses alone could be taken: masks of
    classical measures then supervise the network, and mislead it where noise or
    refraction misleads them.

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
    return _losses(network, batch, generator, WEIGHT_BESIDE_TRUTH)


def dual_losses(
    network: DualPath,
    slices: Tensor,
    estimates: list[Estimate],
    generator: torch.Generator,
    trust: float = 1.0,
) -> dict[str, Tensor]:
    """Predictor, supervision of the fuser at every stage, consistency, roughness.

    ``trust`` is the weight of the losses that supervise the fuser by the predictor.
    """
    mask, target = (imperfect_masks(slices, generator) for _ in range(2))
    predicted = predict_masks(network, slices, mask, checkerboard(slices, generator))
    predicting = -(target * predicted.log_softmax(1)).sum(1).mean()
    target_masks = without_border(predicted.detach().softmax(1), WIDEST)
    inner = without_border(slices, WIDEST)
    target_image = (target_masks * inner).sum(1, keepdim=True)
    supervision = consistency = slices.new_zeros(())
    for k, estimate in enumerate(estimates):
        masks = selection_probability(aggregate_masks(estimate.masks()))
        off = (masks - target_masks).abs().sum(1).mean()
        supervision = supervision + off / (STAGES - k)
        reconstruction = without_border(estimate.reconstruction, WIDEST)
        consistency = consistency + F.l1_loss(reconstruction, target_image)
    fused = (masks * inner).sum(1, keepdim=True)
    consistency = (
        consistency + F.l1_loss(fused, target_image) + 1 - ssim(fused, target_image)
    )
    roughness = masks.diff(dim=-1).abs().sum(1).mean()
    roughness = roughness + masks.diff(dim=-2).abs().sum(1).mean()
    learning = (
        SUPERVISION * supervision + CONSISTENCY * consistency + ROUGHNESS * roughness
    )
    return {
        "loss": predicting + trust * learning,
        "predicting": predicting,
        "supervision": supervision,
        "consistency": consistency,
        "roughness": roughness,
    }


def predict_masks(
    network: DualPath, slices: Tensor, mask: Tensor, hidden: Tensor
) -> Tensor:
    """Logits (stacks, N, h, w) of a mask, each pixel predicted while it is hidden.

    Two passes, each of which hides the pixels visible in the other.
    """
    first = network.predictor(slices, mask, 1 - hidden)
    second = network.predictor(slices, mask, hidden)
    return torch.where(hidden > 0, first, second)


def true_losses(estimates: list[Estimate], batch: Batch) -> dict[str, Tensor]:
    """Losses with ground truth: the sharp slice, and the image without blur and noise.

    Masks enter aggregated over windows, as in the decision, and with less weight as
    they are: by the true slice, and by the error of the slices that they select
    (which is defined for transparent matter, too): the logarithm of each stack's error,
    as in PSNR. Each stage's reconstruction is compared with the true image. Masks are
    not constrained where the depth is unknown.
    """
    ranking = risk = reconstruction = batch.noisy.new_zeros(())
    off = (batch.clean - batch.truth[:, None]).square()
    for k, estimate in enumerate(estimates):
        share = 1 / (STAGES - k)
        masks = estimate.masks()
        for weight, radius, aggregated in (
            (1.0, WIDEST, aggregate_masks(masks)),
            (PIXEL, BORDER, None),
        ):
            probability = selection_probability(
                without_border(masks, radius) if aggregated is None else aggregated
            )
            depth = without_border(batch.depth, radius)
            own = slice_ranking(probability, depth, radius=0)
            ranking = ranking + share * weight * own
            expected = (probability * without_border(off, radius)).sum(1)
            error = mean_where_known(expected, depth)
            risk = risk + share * weight * (error + LEAST_ERROR).log().mean()
        wrong = F.l1_loss(estimate.reconstruction[:, 0], batch.truth)
        reconstruction = reconstruction + share * wrong
    return {
        "truth": TRUE_SLICE * ranking + RISK * risk + TRUE_IMAGE * reconstruction,
        "ranking": ranking,
        "risk": risk,
        "picture": reconstruction,
    }


def aggregate_masks(masks: Tensor) -> Tensor:
    """Masks aggregated over windows as the decision does, still adding up to 1.

    (stacks, N, h, w), smaller by :data:`WIDEST` on each side.
    """
    height, width = masks.shape[-2:]
    total = masks.new_zeros(())
    for weight, radius in WINDOWS:
        border = WIDEST - radius
        inner = masks[..., border : height - border, border : width - border]
        total = total + weight * box_mean(inner, radius)
    return total / sum(weight for weight, _ in WINDOWS)


def selection_probability(aggregated: Tensor) -> Tensor:
    """Probability (stacks, N, h, w) of each slice to be selected, of aggregated masks.

    Were masks themselves taken as probabilities, they would be driven to 0 and 1, and
    the sum over a window would count pixels instead of weighing their evidence.
    """
    return (SHARPNESS * aggregated.clamp_min(1e-12).log()).softmax(1)


def mean_where_known(values: Tensor, depth: Tensor) -> Tensor:
    """Mean of each stack's values (stacks, h, w) where its depth is known, else 0."""
    known = torch.isfinite(depth)
    total = torch.where(known, values, 0.0).sum((-2, -1))
    return total / known.sum((-2, -1)).clamp_min(1)


def draw_substack(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with 2 to :data:`MOST` of its slices; every fourth time up to all.

    Neighbours or, every other time, up to :data:`FARTHEST` apart; the depth is known
    among them.
    """
    there = batch.noisy.shape[1]
    most = there if random_integer(4, generator) == 3 else min(MOST, there)
    count = random_integer(most + 1, generator, low=2)
    farthest = min((there - 1) // (count - 1), FARTHEST)
    apart = random_integer(2, generator)
    stride = random_integer(farthest + 1, generator, low=1) if apart else 1
    first = random_integer(there - (count - 1) * stride, generator)
    kept = slice(first, first + (count - 1) * stride + 1, stride)
    depth = (batch.depth - first) / stride
    inside = (depth > -0.5) & (depth < count - 0.5)
    depth = torch.where(inside, depth.clamp(0, count - 1), torch.nan)
    return replace(
        batch, noisy=batch.noisy[:, kept], clean=batch.clean[:, kept], depth=depth
    )


def imperfect_masks(slices: Tensor, generator: torch.Generator) -> Tensor:
    """One-hot masks (stacks, N, h, w) of a focus measure and a window drawn at random.

    The slices are given a little noise first, so that no two masks err alike.
    """
    noise = torch.randn(slices.shape, generator=generator).to(slices)
    noisy = slices + MASK_NOISE * noise
    energy = MEASURES[random_integer(len(MEASURES), generator)](noisy)
    radius = RADII[random_integer(len(RADII), generator)]
    around = F.pad(energy, [radius] * 4, mode="reflect")
    best = box_mean(around, radius).argmax(1, keepdim=True)
    return torch.zeros_like(slices).scatter_(1, best, 1.0)


def modified_laplacian(slices: Tensor) -> Tensor:
    """Nayar and Nakagawa, IEEE TPAMI 16(8), 1994; (stacks, N, h, w), as all here."""
    flat = slices.flatten(0, 1)[:, None]
    return SumModifiedLaplacian().score(flat).reshape(slices.shape)


def variance(slices: Tensor) -> Tensor:
    """Squared difference from the mean over 5 x 5 pixels."""
    mean = box_mean(F.pad(slices, [2] * 4, mode="reflect"), 2)
    return (slices - mean).square()


def spatial_frequency(slices: Tensor) -> Tensor:
    """Squared differences to the left and to the upper neighbour."""
    padded = F.pad(slices, [1, 0, 1, 0], mode="reflect")
    across = slices - padded[..., 1:, :-1]
    down = slices - padded[..., :-1, 1:]
    return across.square() + down.square()


def laplacian_of_gaussian(slices: Tensor) -> Tensor:
    """Squared difference of a narrow and a wide blur."""
    once = box_mean(F.pad(slices, [1] * 4, mode="reflect"), 1)
    again = box_mean(F.pad(once, [2] * 4, mode="reflect"), 2)
    return (once - again).square()


MEASURES = (
    modified_laplacian,
    gradient_energy,
    variance,
    spatial_frequency,
    laplacian_of_gaussian,
)


def checkerboard(slices: Tensor, generator: torch.Generator) -> Tensor:
    """(stacks, 1, h, w), 0 and 1 in squares of a side and an offset drawn at random."""
    stacks, _, height, width = slices.shape
    boards = []
    for _ in range(stacks):
        side = random_integer(HIDDEN[1] + 1, generator, low=HIDDEN[0])
        y, x = torch.randint(2 * side, (2,), generator=generator).tolist()
        rows = (torch.arange(height) + y) // side
        columns = (torch.arange(width) + x) // side
        boards.append((rows[:, None] + columns[None, :]) % 2)
    return torch.stack(boards)[:, None].to(slices)


def validation_error(network: DualPath, batches: list[Batch]) -> float:
    """Error of the selected slices: lower is better.

    The root mean squared error of the selected slices, noise-free, as a share of the
    range, its geometric mean over stacks, times e to the power of the mean depth error
    in slices (each pixel's capped at 2, so that a few outliers do not outweigh the
    rest). Masks are aggregated as the engine does, where the depth is known, of two to
    all slices of each batch.
    """
    errors, distances = [], []
    for number, batch in enumerate(batches):
        substack = draw_substack(batch, generator_of(number))
        for noisy, clean, truth, depth in zip(
            substack.noisy, substack.clean, substack.truth, substack.depth, strict=True
        ):
            masks = F.pad(network.masks(noisy[:, None]), [WIDEST] * 4, mode="reflect")
            best = aggregate_masks(masks[None])[0].argmax(0, keepdim=True)
            off = (clean.gather(0, best) - truth).square()
            errors.append((mean_where_known(off, depth[None]) + LEAST_ERROR).log() / 2)
            distances.append((best[0] - depth).abs().clamp(max=2).nanmean())
    return float(torch.exp(torch.cat(errors).mean() + torch.stack(distances).nanmean()))


def refractile_scores(
    candidates: Mapping[str, DualPath],
) -> dict[str, dict[str, dict[str, float]]]:
    """``{"refractile": ...}``: scores of networks on scenes of refractile cells."""
    return {"refractile": score_on_scenes(candidates, refractile_scenes())}


RECIPE = Recipe(
    training_loss=training_loss,
    self_supervised_loss=self_supervised_loss,
    validate=validation_error,
    schedule=Schedule(steps=2000, learning_rate=2e-3, validate_every=200),
    scenes=320,
    slices=12,
    stacks=2,
)

BRIGHTFIELD_RECIPE = repeated(
    replace(
        RECIPE,
        scenes=400,
        modalities=(*MODALITIES, "refractile"),
        measure=refractile_scores,
    ),
    {"schedule": Schedule(steps=3000, learning_rate=2e-3, validate_every=200)},
)
