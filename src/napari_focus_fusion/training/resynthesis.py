"""Resynthesised stacks: known depth from a user's own slices, without labels.

A stack without ground truth still has the detail and the noise that a scorer must
learn to tell apart. The sharpest content of each place is taken, denoised, laid on a
random depth map, blurred by amounts that are known, and given noise of the strength
that the stack itself has. Which slice is the sharpest is then known, however sharp the
content was to begin with.

Blur, refraction and noise follow the model in ``optics``.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.composite import NOISE_RADIUS, least_noise_bias, noise_energy
from napari_focus_fusion.filters import box_mean
from napari_focus_fusion.simulation.optics import disk_transfer, gaussian_transfer
from napari_focus_fusion.training.data import Batch
from napari_focus_fusion.training.rng import random_integer, random_uniform

#: Slices of a resynthesised stack.
COUNT = 6
#: Pixels of blur a slice, drawn log-uniformly, as scenes have it.
BLUR_PER_SLICE = (0.4, 2.5)
#: Blurs that are computed, in pixels; those in between are interpolated.
BLURS = (0.0, 0.5, 1.0, 1.6, 2.4, 3.6, 5.4, 8.0)
#: Largest strength of refraction, of which half of the stacks have none.
REFRACTION = 0.5
#: Least variance over 7 x 7 pixels of what counts as detail.
LEAST_DETAIL = 2e-4


def resynthesised_stack(
    slices: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Resynthesise stacks with noise like that of the given ones and a known depth.

    Parameters
    ----------
    slices
        (stacks, N, h, w) float32, normalised; N of 1 or more, h and w of 24 or more.
    generator
        On the CPU; of all that is drawn at random.

    Returns
    -------
    noisy : Tensor
        (stacks, M, h, w) float32, M = :data:`COUNT`, normalised like the slices.
    depth : Tensor
        (stacks, h, w) float32, in slices from 0 to M - 1; NaN where there is too little
        detail.
    """
    batch = resynthesised_batch(slices, generator)
    return batch.noisy, batch.depth


def resynthesised_batch(slices: Tensor, generator: torch.Generator) -> Batch:
    """What :func:`resynthesised_stack` gives, with noise-free slices and ground truth.

    A training loss for scenes can be computed on this batch as well.
    """
    stacks = [_resynthesise(planes.float(), generator) for planes in slices.detach()]
    noisy, clean, truth, depth = (
        torch.stack(tensors) for tensors in zip(*stacks, strict=True)
    )
    step = random_integer(1 << 31, generator)
    return Batch(noisy, clean, truth, depth, step=step)


def _resynthesise(
    planes: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy and clean (M, h, w), truth and depth (h, w), of (N, h, w)."""
    uniform = partial(random_uniform, generator)
    gain, floor = noise_of(planes)
    truth = denoised(sharpest(planes), gain, floor)
    height, width = truth.shape
    if uniform() < 0.5:
        # At half the size detail is finer and noise less: mirrored to fill the place.
        truth = F.avg_pool2d(truth[None], 2, ceil_mode=True)[0]
        truth = torch.cat([truth, truth.flip(-1)], -1)[:, :width]
        truth = torch.cat([truth, truth.flip(-2)], -2)[:height]
    level = uniform(-0.4, 0.4)
    gain, floor = gain * 2**level, floor * 2**level
    depth = _random_depth(height, width, generator).to(planes.device)
    low, high = (torch.tensor(edge).log() for edge in BLUR_PER_SLICE)
    per_slice = float(torch.exp(low + (high - low) * uniform()))
    refraction = max(uniform(-REFRACTION, REFRACTION), 0.0)
    clean = _focal_stack(truth, depth, per_slice, refraction, disk=uniform() < 0.5)
    spread = (floor + gain * clean.clamp_min(0)).sqrt()
    noise = torch.randn(clean.shape, generator=generator).to(planes.device)
    noisy = clean + spread * noise
    known = _is_detail(truth, gain, floor)
    return noisy, clean, truth, torch.where(known, depth, torch.nan)


def noise_of(planes: Tensor) -> tuple[float, float]:
    """Variance of the noise as a function of the intensity: ``floor + gain * I``.

    Estimated where the image is most out of focus: at each place in the slice with the
    least fine detail; and of these places those with least variance at each brightness.

    Parameters
    ----------
    planes
        (N, h, w), normalised.

    Returns
    -------
    gain, floor
        At least 0 and above 0.
    """
    radius = NOISE_RADIUS
    least = intensity = torch.empty(0)
    for plane in planes:
        energy = noise_energy(plane)
        mean = box_mean(plane[1:-1, 1:-1], radius)
        if len(least):
            mean = torch.where(energy < least, mean, intensity)
            energy = torch.minimum(energy, least)
        least, intensity = energy, mean
    order = intensity.flatten().argsort()
    bins = least.flatten()[order].tensor_split(8)
    level = torch.stack([values.quantile(0.25) for values in bins])
    bright = torch.stack([p.mean() for p in intensity.flatten()[order].tensor_split(8)])
    level = level / least_noise_bias(len(planes))
    from_mean = bright - bright.mean()
    slope = (from_mean * level).sum() / from_mean.square().sum().clamp_min(1e-12)
    gain = float(slope.clamp_min(0))
    floor = float(level.mean()) - gain * float(bright.mean().clamp_min(0))
    return gain, max(floor, 1e-7)


def sharpest(planes: Tensor) -> Tensor:
    """(N, h, w) -> (h, w): each pixel from the slice with most detail around it.

    Detail coarser than noise: the gradient of planes smoothed by a binomial.
    """
    line = planes.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    smooth = F.pad(planes[:, None], [7] * 4, mode="reflect")
    smooth = F.conv2d(smooth, line[None, None, None, :])
    smooth = F.conv2d(smooth, line[None, None, :, None])[:, 0]
    across = smooth[:, 1:-1, 2:] - smooth[:, 1:-1, :-2]
    down = smooth[:, 2:, 1:-1] - smooth[:, :-2, 1:-1]
    energy = box_mean(across.square() + down.square(), 4)
    return planes.gather(0, energy.argmax(0, keepdim=True))[0]


def denoised(image: Tensor, gain: float, floor: float) -> Tensor:
    """Local Wiener filter (Lee, IEEE TPAMI 2(2), 1980) over 5 x 5 pixels, (h, w)."""
    padded = F.pad(image[None], [2] * 4, mode="reflect")[0]
    mean = box_mean(padded, 2)
    variance = (box_mean(padded.square(), 2) - mean.square()).clamp_min(1e-12)
    noise = floor + gain * mean.clamp_min(0)
    return mean + (1 - noise / variance).clamp_min(0) * (image - mean)


def _is_detail(truth: Tensor, gain: float, floor: float) -> Tensor:
    padded = F.pad(truth[None], [3] * 4, mode="reflect")[0]
    mean = box_mean(padded, 3)
    variance = box_mean(padded.square(), 3) - mean.square()
    noise = floor + gain * mean.clamp_min(0)
    return variance > (0.5 * noise).clamp_min(LEAST_DETAIL)


def _random_depth(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A hilly surface (h, w) over part of the slices; every other one in terraces."""
    hills = random_integer(6, generator, low=2)
    field = torch.rand(1, 1, hills, hills, generator=generator)
    size = (height, width)
    field = F.interpolate(field, size, mode="bicubic", align_corners=True)[0, 0]
    field = (field - field.min()) / (field.max() - field.min()).clamp_min(1e-6)
    if random_uniform(generator) < 0.5:
        terraces = random_integer(5, generator, low=2)
        field = (field * terraces).floor().clamp(max=terraces - 1) / (terraces - 1)
    ends = torch.rand(2, generator=generator) * (COUNT - 1) / 3
    return ends[0] + field * (COUNT - 1 - ends.sum())


def _focal_stack(
    truth: Tensor, depth: Tensor, per_slice: float, refraction: float, *, disk: bool
) -> Tensor:
    """The slices (M, h, w) of an image that lies at a depth, without noise."""
    height, width = truth.shape
    halo = min(int(BLURS[-1]) * 2, height - 1, width - 1)
    canvas = F.pad(truth[None], [halo] * 4, mode="reflect")[0]
    spectrum = torch.fft.rfft2(canvas)
    make = disk_transfer if disk else gaussian_transfer
    size = (height + 2 * halo, width + 2 * halo)
    inner = (slice(halo, halo + height), slice(halo, halo + width))
    bank = [truth]
    for width_of_blur in BLURS[1:]:
        transfer = torch.from_numpy(make(size, width_of_blur)).to(truth)
        bank.append(torch.fft.irfft2(spectrum * transfer, s=size)[inner])
    blurred = torch.stack(bank)
    away = torch.arange(COUNT, device=truth.device)[:, None, None] - depth
    blur = (away.abs() * per_slice).clamp(max=BLURS[-1])
    steps = torch.tensor(BLURS, device=truth.device)
    above = torch.searchsorted(steps, blur).clamp(1, len(BLURS) - 1)
    share = (blur - steps[above - 1]) / (steps[above] - steps[above - 1])
    stack = torch.lerp(blurred.gather(0, above - 1), blurred.gather(0, above), share)
    if refraction:
        # Transport of intensity: bright on one side of focus, dark on the other.
        padded = F.pad(stack[None], [1] * 4, mode="reflect")[0]
        curvature = padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] - 4 * stack
        curvature = curvature + padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1]
        stack = stack + refraction * away * curvature
    return stack
