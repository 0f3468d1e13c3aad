"""How Dual-Path is trained: two networks that teach each other, and truth if there is.

The paper's part: imperfect masks are denoised by a predictor that is trained by hiding
parts of them; the predictor's masks supervise the fuser's at every stage; and a
consistency loss ties what the two fuse. Which imperfect masks, how they are hidden and
every weight is ours.

Scenes know which slice is sharp. The shipped weights were trained with that as well:
cross-entropy of each stage's masks, and the distance of each stage's picture from the
truth. Without truth (fine-tuning on a user's stack) the paper's part stands alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.decision import SURROUNDINGS_WEIGHT
from napari_focus_fusion.models.dual_path import STAGES, DualPath, gradient_energy
from napari_focus_fusion.models.layers import box_mean
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.training.losses import slice_ranking, ssim

if TYPE_CHECKING:
    from napari_focus_fusion.models.dual_path import Estimate
    from napari_focus_fusion.training.data import Batch

#: Radii of the windows over which imperfect masks add up a plain measure.
RADII = (1, 2, 4, 7)
#: Standard deviation of the noise that each imperfect mask's slices are given.
MASK_NOISE = 0.02
#: Side in pixels of the squares in which a mask is hidden, drawn anew each time.
HIDDEN = (8, 16)
#: Weights of the losses.
SUPERVISION, CONSISTENCY, ROUGHNESS = 1.0, 1.0, 0.01
TRUE_SLICE, TRUE_PICTURE, RISK = 1.0, 0.5, 10.0
#: Weight of the true slice before masks are added up, as a share of that after.
PIXEL = 0.2
#: Steps over which the predictor's say rises from nothing; how much of it is left where
#: truth is known.
WARM_UP = 200
TRUST_BESIDE_TRUTH = 0.1
#: Pixels at the rim of a crop, where a network sees its end, that truth leaves out.
RIM = 8
#: Windows over which the decision adds masks up: weight and radius, from the model's.
_SIDE = 2 * DualPath.window + 1
WINDOWS = (
    (1.0, DualPath.window),
    (SURROUNDINGS_WEIGHT, (3 * _SIDE - 1) // 2),
    (1.0, (9 * _SIDE - 1) // 2),
)
WIDEST = WINDOWS[-1][1]
#: Most slices of a stack of most steps.
MOST = 6


def objective(network: DualPath, batch: Batch, truth: float = 1.0) -> dict[str, Tensor]:
    """The losses of a batch of scenes; ``truth=0`` leaves the paper's part alone.

    Stacks of 2 to all slices, neighbours in depth.
    """
    generator = torch.Generator().manual_seed(batch.step)
    batch = some_slices(batch, generator)
    estimates = list(network.unroll(batch.noisy))
    trust = min(batch.step / WARM_UP, 1.0) * (TRUST_BESIDE_TRUTH if truth else 1.0)
    losses = dual_losses(network, batch.noisy, estimates, generator, trust)
    if truth:
        losses |= true_losses(estimates, batch)
        losses["loss"] = losses["loss"] + truth * losses["truth"]
    return losses


def pretext(
    network: DualPath, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """The paper's objective on slices whose truth nobody knows.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    generator
        Of what is drawn at random.
    """
    return dual_losses(network, slices, list(network.unroll(slices)), generator)


def dual_losses(
    network: DualPath,
    slices: Tensor,
    estimates: list[Estimate],
    generator: torch.Generator,
    trust: float = 1.0,
) -> dict[str, Tensor]:
    """Predictor, supervision of the fuser at every stage, consistency, roughness.

    ``trust`` in the predictor weighs what the fuser learns of it.
    """
    mask, target = (imperfect_masks(slices, generator) for _ in range(2))
    guess = guessed(network, slices, mask, checkerboard(slices, generator))
    predicting = -(target * guess.log_softmax(1)).sum(1).mean()
    taught = guess.detach().softmax(1)
    supervision = slices.new_zeros(())
    for k, estimate in enumerate(estimates):
        off = (estimate.masks() - taught).abs().sum(1).mean()
        supervision = supervision + off / (STAGES - k)
    masks = estimates[-1].masks()
    fused = (masks * slices).sum(1, keepdim=True)
    wanted = (taught * slices).sum(1, keepdim=True)
    consistency = F.l1_loss(fused, wanted) + 1 - ssim(fused, wanted)
    for estimate in estimates:
        consistency = consistency + F.l1_loss(estimate.picture, wanted)
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


def guessed(network: DualPath, slices: Tensor, mask: Tensor, hidden: Tensor) -> Tensor:
    """Logits (stacks, N, h, w) of a mask, each pixel guessed while it is hidden.

    Two passes, each of which hides what the other shows.
    """
    first = network.predictor(slices, mask, 1 - hidden)
    second = network.predictor(slices, mask, hidden)
    return torch.where(hidden > 0, first, second)


def true_losses(estimates: list[Estimate], batch: Batch) -> dict[str, Tensor]:
    """What scenes know: the sharp slice, and the picture without blur and noise.

    Masks are judged as the decision uses them, added up over windows, and with less
    weight as they are: by the true slice, and by how far each slice is from the true
    picture there (which says something of transparent matter, too). Each stage's
    picture shall be the true one.
    """
    ranking = risk = picture = batch.noisy.new_zeros(())
    off = (batch.clean - batch.truth[:, None]).abs()
    for k, estimate in enumerate(estimates):
        share = 1 / (STAGES - k)
        masks = estimate.masks()
        for weight, radius, seen in ((1.0, WIDEST, decided(masks)), (PIXEL, RIM, None)):
            inner = (..., slice(radius, -radius), slice(radius, -radius))
            seen = masks[inner] if seen is None else seen
            own = slice_ranking(seen, batch.depth[inner], radius=0)
            ranking = ranking + share * weight * own
            risk = risk + share * weight * (seen * off[inner]).sum(1).mean()
        wrong = F.l1_loss(estimate.picture[:, 0], batch.truth)
        picture = picture + share * wrong
    return {
        "truth": TRUE_SLICE * ranking + RISK * risk + TRUE_PICTURE * picture,
        "ranking": ranking,
        "risk": risk,
        "picture": picture,
    }


def decided(masks: Tensor) -> Tensor:
    """Masks added up over windows as the decision does, still adding up to 1.

    (stacks, N, h, w), smaller by :data:`WIDEST` at each rim.
    """
    height, width = masks.shape[-2:]
    total = masks.new_zeros(())
    for weight, radius in WINDOWS:
        rim = WIDEST - radius
        part = masks[..., rim : height - rim, rim : width - rim]
        total = total + weight * box_mean(part, radius)
    return total / sum(weight for weight, _ in WINDOWS)


def some_slices(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with 2 to :data:`MOST` of its slices; every fourth time up to all.

    Neighbours or, every other time, every second slice; the depth is known among them.
    """

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    there = batch.noisy.shape[1]
    count = integer(2, there if integer(1, 4) == 4 else min(MOST, there))
    stride = integer(1, 2) if 2 * count <= there + 1 else 1
    first = integer(0, there - 1 - (count - 1) * stride)
    kept = slice(first, first + (count - 1) * stride + 1, stride)
    depth = (batch.depth - first) / stride
    inside = (depth > -0.5) & (depth < count - 0.5)
    depth = torch.where(inside, depth.clamp(0, count - 1), torch.nan)
    return replace(
        batch, noisy=batch.noisy[:, kept], clean=batch.clean[:, kept], depth=depth
    )


def imperfect_masks(slices: Tensor, generator: torch.Generator) -> Tensor:
    """One-hot masks (stacks, N, h, w) of a plain measure and a window drawn at random.

    The slices are given a little noise first, so that no two masks err alike.
    """

    def pick(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    noise = torch.randn(slices.shape, generator=generator).to(slices)
    noisy = slices + MASK_NOISE * noise
    energy = MEASURES[pick(len(MEASURES))](noisy)
    radius = RADII[pick(len(RADII))]
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
        side = int(torch.randint(HIDDEN[0], HIDDEN[1] + 1, (), generator=generator))
        y, x = torch.randint(2 * side, (2,), generator=generator).tolist()
        rows = (torch.arange(height) + y) // side
        columns = (torch.arange(width) + x) // side
        boards.append((rows[:, None] + columns[None, :]) % 2)
    return torch.stack(boards)[:, None].to(slices)


def depth_error(network: DualPath, batches: list[Batch]) -> float:
    """Mean distance in slices between the best slice and the true depth; capped at 2.

    Decided as the engine does, where the depth is known. The cap keeps a few wild
    pixels from outweighing the rest.
    """
    errors = []
    for batch in batches:
        for noisy, depth in zip(batch.noisy, batch.depth, strict=True):
            masks = F.pad(network.masks(noisy[:, None]), [WIDEST] * 4, mode="reflect")
            best = decided(masks[None])[0].argmax(0)
            errors.append((best - depth).abs().clamp(max=2).nanmean())
    return float(torch.stack(errors).nanmean())
