"""How affinity-sr is trained: in the paper's three stages.

FAPN learns masks (eq. 17 and 18), then SRN to make slices finer (19), then SRN and D2
together to fuse them (20), with FAPN's masks as they are. Pairs of slices are made as
the paper makes them, a sharp image blurred inside and outside of a random region
(21); the blur is drawn from a range. FAPN is trained on slices of scenes as well, each
paired with another and with the best of the others, as the engine pairs them; which is
sharp is known from the ground truth.

Coarse slices are made from fine ones in turn by plain cubic interpolation (the
paper's), by the same without aliasing, and by adding up pixels as a camera does, with
and without noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from napari_focus_fusion.decision import aggregate, aggregate_halo
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.filters import box_mean, without_border
from napari_focus_fusion.metrics.truth import psnr
from napari_focus_fusion.metrics.truth import ssim as ssim_of
from napari_focus_fusion.models.layers import interpolate, laplacian
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.simulation.scenes import benchmark_scenes
from napari_focus_fusion.training.data import WAVES_AND_HAZE
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.losses import WINDOW, ssim
from napari_focus_fusion.training.recipe import Recipe
from napari_focus_fusion.training.rng import (
    generator_of,
    random_integer,
    random_uniform,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.models.affinity_sr import AffinitySR
    from napari_focus_fusion.training.data import Batch

#: Weights of eq. 18: masks, gradients, structure.
MASKS, GRADIENTS, STRUCTURE = 0.8, 0.1, 0.1
#: Standard deviation in fine pixels of the blur of eq. 21.
BLUR = (0.8, 4.0)
#: Largest standard deviation of the noise of coarse slices; half of them have none.
NOISE = 0.03
#: Border of a crop, in coarse pixels, that losses leave out: part of the receptive
#: field lies outside.
BORDER = 2
#: Holes in a mask smaller than this share of the image are filled.
HOLE = 0.01

#: How a coarse image is sampled from a fine one.
Sampling = Literal["cubic", "smooth", "bins"]
SAMPLINGS: tuple[Sampling, ...] = ("cubic", "smooth", "bins")
#: The target of SRN: the slice itself, finer (the paper's text), or the sharp image
#: (what its authors released).
Target = Literal["source", "sharp"]


class Pairs(NamedTuple):
    """Two slices each of some images, fine and coarse.

    Attributes
    ----------
    truth
        (B, C, s h, s w), sharp everywhere.
    fine, coarse
        (B, 2, C, s h, s w) and (B, 2, C, h, w).
    """

    truth: Tensor
    fine: Tensor
    coarse: Tensor


# --- The three stages


def focus_training_loss(network: AffinitySR, batch: Batch) -> dict[str, Tensor]:
    """The first stage: FAPN on slices of scenes, and on pairs from ground truth."""
    generator = generator_of(batch.step)
    noisy, clean, wanted, known = scene_pairs(batch, generator)
    sharp, masks = blurred_pairs(batch.truth[:, None], generator)
    sharp = sharp[:, :, 0]
    noise = (batch.noisy - batch.clean)[:, :2]
    return focus_losses(
        network,
        torch.cat([noisy, sharp + noise]),
        torch.cat([clean, sharp]),
        torch.cat([wanted, masks]),
        torch.cat([known, torch.ones_like(masks)]),
    )


def finer_training_loss(
    network: AffinitySR,
    batch: Batch,
    scales: Sequence[int] = (),
    target: Target = "source",
) -> dict[str, Tensor]:
    """The second stage: SRN and D1 on single slices, eq. 19; one scale each step."""
    generator = generator_of(batch.step)
    scale = _scale_of(network, batch.step, scales)
    pairs = coarse_pairs(batch.truth, scale, generator)
    return finer_losses(network, pairs, scale, target)


def fusing_training_loss(
    network: AffinitySR, batch: Batch, scales: Sequence[int] = ()
) -> dict[str, Tensor]:
    """The third stage: SRN and D2 on pairs, eq. 20, with FAPN's masks as they are."""
    generator = generator_of(batch.step)
    scale = _scale_of(network, batch.step, scales)
    pairs = coarse_pairs(batch.truth, scale, generator)
    return fusing_losses(network, pairs, scale)


def self_supervised_loss(
    network: AffinitySR, slices: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """All three stages' losses on slices without ground truth.

    The image fused by the plain focus measure is taken as the sharp one.

    Parameters
    ----------
    network
        In training.
    slices
        (stacks, N, h, w) float32, normalised.
    generator
        Of what is drawn at random.
    """
    best = plain_measure(slices).argmax(1, keepdim=True)
    image = slices.gather(1, best)
    pair, masks = blurred_pairs(image, generator)
    pair = pair[:, :, 0]
    known = torch.ones_like(masks)
    focus = focus_losses(network, pair, pair, masks, known)
    scales = network.config.scales
    scale = scales[random_integer(len(scales), generator)]
    pairs = coarse_pairs(image[:, 0], scale, generator)
    finer = finer_losses(network, pairs, scale)
    fusing = fusing_losses(network, pairs, scale)
    losses = focus | finer | fusing
    losses["loss"] = focus["loss"] + finer["loss"] + fusing["loss"]
    return losses


# --- Their losses


def focus_losses(
    network: AffinitySR, noisy: Tensor, clean: Tensor, wanted: Tensor, known: Tensor
) -> dict[str, Tensor]:
    """Eq. 17 and 18.

    Parameters
    ----------
    network
        In training.
    noisy, clean
        (B, 2, h, w), the network's input, and what its masks fuse.
    wanted
        (B, h, w), the first mask; the second is what it lacks to 1.
    known
        (B, h, w), 1 where that is known, else 0.
    """
    masks = network.fapn(noisy[:, :1], noisy[:, 1:])
    target = torch.stack([wanted, 1 - wanted], 1)
    off = (masks - target).abs().sum(1)
    mask = (off * known).sum() / known.sum().clamp_min(1)
    fused, ideal = ((m * clean).sum(1, keepdim=True) for m in (masks, target))
    gradient = F.l1_loss(laplacian(fused), laplacian(ideal))
    structure = 1 - ssim(fused, ideal, window=11)
    return {
        "loss": MASKS * mask + GRADIENTS * gradient + STRUCTURE * structure,
        "mask": mask,
        "gradient": gradient,
        "structure": structure,
    }


def finer_losses(
    network: AffinitySR, pairs: Pairs, scale: int, target: Target = "source"
) -> dict[str, Tensor]:
    """Eq. 19: each slice made finer, compared with the fine or the sharp image."""
    found = network.enlarge(pairs.coarse.flatten(0, 1), scale)
    wanted = pairs.truth[:, None] if target == "sharp" else pairs.fine
    off = found.unflatten(0, (-1, 2)) - wanted
    finer = _inner(off, scale).abs().mean()
    return {"loss": finer, "finer": finer}


def fusing_losses(
    network: AffinitySR, pairs: Pairs, scale: int, *, fill: bool = True
) -> dict[str, Tensor]:
    """Eq. 20; ``fill=False`` leaves out eq. 14, as released."""
    masks = masks_of(network, pairs.coarse, fill=fill)
    fused = network.fuse(pairs.coarse, masks, scale)
    weights = F.interpolate(masks, scale_factor=scale, mode="bilinear")
    whole = _inner(fused - pairs.truth, scale).abs().mean()
    errors = weights[:, :, None] * (fused[:, None] - pairs.fine).abs()
    focused = _inner(errors, scale).mean((0, 2, 3, 4)).sum()
    return {"loss": whole + focused, "fused": whole, "focused": focused}


def masks_of(network: AffinitySR, slices: Tensor, *, fill: bool = True) -> Tensor:
    """FAPN's masks (B, 2, h, w) of pairs (B, 2, C, h, w), without gradients."""
    grey = slices.mean(2)
    training = network.fapn.training
    network.fapn.eval()
    with torch.no_grad():
        masks = network.fapn(grey[:, :1], grey[:, 1:])
    network.fapn.train(training)
    return fill_holes(masks) if fill else masks


def fill_holes(masks: Tensor) -> Tensor:
    """Eq. 14: holes of a mask become 1.

    A hole is a small region that the mask leaves out and does not reach the border.

    Parameters
    ----------
    masks
        (..., h, w) in [0, 1].
    """
    filled = masks.detach().cpu().numpy().copy()
    planes = filled.reshape(-1, *filled.shape[-2:])
    for plane in planes:
        regions, count = ndimage.label(plane < 0.5)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        holes = sizes < HOLE * plane.size
        border = (regions[0], regions[-1], regions[:, 0], regions[:, -1])
        holes[np.unique(np.concatenate(border))] = False
        holes[0] = False
        plane[holes[regions]] = 1
    return torch.from_numpy(filled).to(masks)


# --- Training data


def scene_pairs(
    batch: Batch, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A slice of each stack and another, or the best of the others at each pixel.

    Returns
    -------
    noisy, clean : Tensor
        (stacks, 2, h, w).
    wanted : Tensor
        (stacks, h, w), 1 where the first is the sharper, 0 where the second is, in
        between where they differ by less than half a slice.
    known : Tensor
        (stacks, h, w), 1 where the depth is known, else 0.
    """
    stacks, count, *shape = batch.noisy.shape
    first = torch.randint(count, (stacks,), generator=generator)
    other = (first + torch.randint(1, count, (stacks,), generator=generator)) % count
    best = torch.rand(stacks, generator=generator) < 0.5
    swap = torch.rand(stacks, generator=generator) < 0.5
    first, other, best, swap = (
        a[:, None, None].to(batch.noisy.device) for a in (first, other, best, swap)
    )
    rivals = best_of_others(batch.noisy).gather(
        1, first[:, None].expand(-1, 1, *shape)
    )[:, 0]
    mine, theirs = first.expand(-1, *shape), torch.where(best, rivals, other)
    mine, theirs = torch.where(swap, theirs, mine), torch.where(swap, mine, theirs)
    known = torch.isfinite(batch.depth)
    depth = torch.where(known, batch.depth, 0)
    nearer = (theirs - depth).abs() - (mine - depth).abs()
    wanted = torch.where(known, (0.5 + nearer).clamp(0, 1), 0.5)
    index = torch.stack([mine, theirs], 1)
    return (
        batch.noisy.gather(1, index),
        batch.clean.gather(1, index),
        wanted,
        known.to(wanted),
    )


def best_of_others(slices: Tensor) -> Tensor:
    """For each slice of (stacks, N, h, w) the best other by the plain focus measure.

    Indices (stacks, N, h, w).
    """
    best = plain_measure(slices).topk(2, 1).indices
    own = torch.arange(slices.shape[1], device=slices.device)[None, :, None, None]
    return torch.where(best[:, :1] == own, best[:, 1:], best[:, :1])


def plain_measure(slices: Tensor) -> Tensor:
    """The modified Laplacian of (stacks, N, h, w), added up over a window."""
    plain = SumModifiedLaplacian()
    energy = plain.score(slices.flatten(0, 1)[:, None])[:, None]
    around = F.pad(energy, [WINDOW] * 4, mode="reflect")
    return box_mean(around, WINDOW).reshape(slices.shape)


def blurred_pairs(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Eq. 21: two slices of each image, and where the first is the sharp one.

    Parameters
    ----------
    images
        (B, C, h, w).
    generator
        Of regions and blur.

    Returns
    -------
    slices : Tensor
        (B, 2, C, h, w).
    masks : Tensor
        (B, h, w), 0 and 1.
    """
    low, high = BLUR
    sigmas = low + (high - low) * torch.rand(len(images), generator=generator)
    blurred = torch.stack(
        [_blur(p, float(s)) for p, s in zip(images, sigmas, strict=True)]
    )
    regions = [_region(images.shape[-2:], generator) for _ in images]
    masks = torch.stack(regions).to(images)
    sharp = masks[:, None]
    one = sharp * images + (1 - sharp) * blurred
    two = sharp * blurred + (1 - sharp) * images
    return torch.stack([one, two], 1), masks


def _blur(image: Tensor, sigma: float) -> Tensor:
    """(C, h, w) under a Gaussian of so many pixels."""
    radius = min(int(3 * sigma + 1), min(image.shape[-2:]) - 1)
    x = torch.arange(-radius, radius + 1, device=image.device)
    line = torch.exp(-(x**2) / (2 * sigma**2))
    line = (line / line.sum())[None, None]
    around = F.pad(image, [radius] * 4, mode="reflect")[:, None]
    return F.conv2d(F.conv2d(around, line[..., None, :]), line[..., None])[:, 0]


def _region(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """(h, w), 0 and 1: where a smooth random field is above one of its values."""
    knots = 3 + random_integer(5, generator)
    field = torch.randn(1, 1, knots, knots, generator=generator)
    field = F.interpolate(field, tuple(shape), mode="bicubic", align_corners=True)
    share = random_uniform(generator, 0.25, 0.75)
    return (field > field.flatten().quantile(share))[0, 0].float()


def coarse_pairs(truth: Tensor, scale: int, generator: torch.Generator) -> Pairs:
    """Pairs of slices by eq. 21 of images (B, h, w), fine and coarse.

    Every other time in colour; one in three ways of sampling; half of them with noise.
    """
    height, width = (n - n % scale for n in truth.shape[1:])
    images = truth[:, None, :height, :width]
    if random_integer(2, generator):
        images = coloured(images[:, 0], generator)
    fine, _ = blurred_pairs(images, generator)
    sampling = SAMPLINGS[random_integer(len(SAMPLINGS), generator)]
    coarse = sampled(fine.flatten(0, 1), scale, sampling).unflatten(0, (-1, 2))
    spread = 2 * torch.rand(len(truth), 1, 1, 1, 1, generator=generator) - 1
    noise = torch.randn(coarse.shape, generator=generator)
    noise = NOISE * spread.clamp_min(0) * noise
    return Pairs(images, fine, coarse + noise.to(coarse))


def coloured(images: Tensor, generator: torch.Generator) -> Tensor:
    """(B, h, w) -> (B, 3, h, w): each colour its own mixture of two images.

    Colours are alike or unrelated at random, as stains and dyes are.
    """
    other = images.roll(1, 0).flip(-1)[:, None]
    shares = torch.rand(len(images), 3, 1, 1, generator=generator)
    shares = shares.square().to(images)
    return (1 - shares) * images[:, None] + shares * other


def sampled(fine: Tensor, scale: int, sampling: Sampling) -> Tensor:
    """Coarse images (B, C, h, w) of fine ones (B, C, scale * h, scale * w)."""
    if sampling == "bins":
        return F.avg_pool2d(fine, scale)
    size = [n // scale for n in fine.shape[-2:]]
    return F.interpolate(fine, size, mode="bicubic", antialias=sampling == "smooth")


# --- How checkpoints are chosen, and what is reported


def depth_error(network: AffinitySR, batches: list[Batch]) -> float:
    """Mean distance in slices between the best slice and the true depth; capped at 2.

    Scores are aggregated as the engine does, where the depth is known, on every third
    batch. The cap keeps a few outliers from outweighing the rest.
    """
    errors = []
    halo = aggregate_halo(network.window)
    for batch in batches[::3]:
        rivals = batch.noisy.gather(1, best_of_others(batch.noisy))
        for noisy, others, depth in zip(batch.noisy, rivals, batch.depth, strict=True):
            planes = noisy[:, None]
            context = network.context([plane[None] for plane in planes])
            score = network.mask(planes, others[:, None], context)
            score = F.pad(score, [halo] * 4, mode="reflect")
            summed = torch.stack([aggregate(s, network.window, 1.0) for s in score])
            errors.append((summed.argmax(0) - depth).abs().clamp(max=2).nanmean())
    return float(torch.stack(errors).mean())


def finer_error(
    network: AffinitySR, batches: list[Batch], scales: Sequence[int] = ()
) -> float:
    """Error of slices made finer, as a share of what interpolation leaves.

    The square root of the mean square, averaged over scales and ways of sampling.
    """

    def found(pairs: Pairs, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        coarse = pairs.coarse.flatten(0, 1)
        plain = interpolate(coarse, scale)
        return network.enlarge(coarse, scale), plain, pairs.fine.flatten(0, 1)

    return _share_of_error(found, batches, scales or network.config.scales)


def fusing_error(
    network: AffinitySR, batches: list[Batch], scales: Sequence[int] = ()
) -> float:
    """Error of pairs fused and made finer, as a share of what interpolation leaves.

    Interpolation is of the sharp image made coarse: a share below 1 is better than any
    selection of slices.
    """

    def found(pairs: Pairs, scale: int) -> tuple[Tensor, Tensor, Tensor]:
        masks = masks_of(network, pairs.coarse)
        fused = network.fuse(pairs.coarse, masks, scale)
        return fused, interpolate(sampled(pairs.truth, scale, "bins"), scale), pairs[0]

    return _share_of_error(found, batches, scales or network.config.scales)


def _share_of_error(found: Any, batches: list[Batch], scales: Sequence[int]) -> float:
    shares = []
    for number, batch in enumerate(batches):
        for scale in scales:
            pairs = coarse_pairs(batch.truth, scale, generator_of(number))
            ours, plain, wanted = found(pairs, scale)
            errors = [_inner(x - wanted, scale).square().mean() for x in (ours, plain)]
            shares.append((errors[0] / errors[1]).sqrt())
    return float(torch.stack(shares).mean())


#: How coarse images are made for the report: name, sampling, electrons at white.
REPORTED: tuple[tuple[str, Sampling, float | None], ...] = (
    ("cubic", "cubic", None),
    ("bins", "bins", None),
    ("bins, 4000 electrons", "bins", 4000.0),
)


def super_resolution_scores(
    candidates: Mapping[str, AffinitySR], count: int | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """PSNR and SSIM of the benchmark scenes' sharp images, made coarse and finer.

    Parameters
    ----------
    candidates
        Networks by their names in the result; cubic interpolation is added.
    count
        How many scenes; None for all.

    Returns
    -------
    dict
        ``{"x2, bins": {"cubic": {"psnr": ..., "ssim": ...}, name: ...}, ...}``, means,
        rounded to four digits.
    """
    rows: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for number, spec in enumerate(benchmark_scenes()[:count]):
        scene = spec.make()
        truth = scene.truth / (1.0 if scene.stack.dtype.kind == "f" else _white(scene))
        if scene.axes[0] == "C":
            truth = truth[0]
        planes = np.moveaxis(truth, -1, 0) if truth.ndim == 3 else truth[None]
        for scale in (2, 3, 4):
            for name, sampling, electrons in REPORTED:
                found = rows.setdefault(f"x{scale}, {name}", {})
                scores = _enlarged_scores(
                    candidates, planes, scale, sampling, electrons, number
                )
                for candidate, pair in scores.items():
                    found.setdefault(candidate, []).append(pair)
    return {
        title: {
            candidate: {
                measure: round(float(np.mean([pair[i] for pair in pairs])), 4)
                for i, measure in enumerate(("psnr", "ssim"))
            }
            for candidate, pairs in found.items()
        }
        for title, found in rows.items()
    }


def _white(scene: Any) -> float:
    return float(np.iinfo(scene.stack.dtype).max)


def _enlarged_scores(
    candidates: Mapping[str, AffinitySR],
    planes: NDArray[np.float32],
    scale: int,
    sampling: Sampling,
    electrons: float | None,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """PSNR and SSIM of (C, h, w) made coarse and enlarged by each candidate."""
    height, width = (n - n % scale for n in planes.shape[1:])
    truth = torch.from_numpy(np.ascontiguousarray(planes[:, :height, :width]))
    coarse = sampled(truth[None], scale, sampling)
    if electrons is not None:
        spread = (coarse.clamp_min(0) / electrons).sqrt()
        noise = torch.randn(coarse.shape, generator=generator_of(seed))
        coarse = coarse + spread * noise
    black, white = black_and_white([coarse.numpy()])
    normalised = (coarse - black) / (white - black)
    around = F.pad(normalised, [24] * 4, mode="reflect")
    cut = (..., slice(24 * scale, -24 * scale), slice(24 * scale, -24 * scale))
    with torch.inference_mode():
        finer = {"cubic": interpolate(around, scale)}
        for name, network in candidates.items():
            found = network.resolve(network.features(around, scale), scale)
            finer[name] = found if len(planes) == 3 else found.mean(1, keepdim=True)
    scores = {}
    wanted = _as_image(truth)
    for name, found in finer.items():
        image = _as_image(found[cut][0] * (white - black) + black)
        limits = (float(wanted.min()), float(wanted.max()))
        scores[name] = (
            psnr(image, wanted, data_range=limits),
            ssim_of(image, wanted, data_range=limits),
        )
    return scores


def _as_image(planes: Tensor) -> NDArray[np.float32]:
    """(C, h, w) as (h, w) or (h, w, 3)."""
    array = planes.numpy()
    return np.moveaxis(array, 0, -1) if len(array) == 3 else array[0]


# --- Helpers


def _scale_of(network: AffinitySR, step: int, scales: Sequence[int]) -> int:
    scales = scales or network.config.scales
    return scales[step % len(scales)]


def _inner(fine: Tensor, scale: int) -> Tensor:
    return without_border(fine, BORDER * scale)


# --- The recipe

RECIPE = Recipe(
    training_loss=focus_training_loss,
    self_supervised_loss=self_supervised_loss,
    validate=depth_error,
    schedule=Schedule(steps=4800, learning_rate=1e-3, validate_every=400),
    modalities=WAVES_AND_HAZE,
    trainable_prefix="fapn.",
    next_stages=(
        Recipe(
            training_loss=finer_training_loss,
            self_supervised_loss=self_supervised_loss,
            validate=finer_error,
            schedule=Schedule(steps=12000, learning_rate=1e-3, validate_every=1000),
            crop=96,
            trainable_prefix="srn.",
            by_scale=True,
        ),
        Recipe(
            training_loss=fusing_training_loss,
            self_supervised_loss=self_supervised_loss,
            validate=fusing_error,
            schedule=Schedule(steps=1800, learning_rate=5e-4, validate_every=300),
            crop=96,
            trainable_prefix="srn.",
            by_scale=True,
        ),
    ),
    measure=super_resolution_scores,
)
