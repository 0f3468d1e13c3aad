"""Dual-Path: an unrolled image fuser supervised by a self-supervised mask predictor.

Y. Quan, X. Wan, T. Zheng, Y. Huang, H. Ji, "Dual-Path Deep Unsupervised Learning for
Multi-Focus Image Fusion", IEEE Transactions on Multimedia 27, 2025, 1165-1176. Two
networks are trained without ground truth: an *image fuser*, unrolled from an energy,
and a *mask predictor*, a denoiser of imperfect masks trained by masking, which
supervises the fuser's mask at every step. Only the fuser is needed to fuse.

Of the paper the abstract alone is known to us: the two paths, how each is trained, and
what ties them are the paper's; every layer below is ours. So is the form for any number
of slices: masks on a simplex, features pooled over the slices by mean and maximum.

The energy of masks M and the fused image X is::

    1/2 |X - sum_n M_n I_n|^2 + phi(X) + psi(M),    M_n >= 0, sum_n M_n = 1

Each stage takes a step on X (the proximal map of phi: a small network), a gradient step
on M that keeps to the simplex (mirror descent: it adds to the logits of M), and a step
for psi (a network on every slice beside what is pooled over all of them).
Nothing has a stride and nothing is pooled over an image, so that tiles are exact.
Intensities enter as differences divided by the local contrast: an offset or a gain of
the whole stack changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.filters import box_mean
from napari_focus_fusion.models.base import SetMasker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Unrolled stages, and the channels of their networks.
STAGES = 3
WIDTH = 16
#: Channels of the mask predictor at full resolution.
PREDICTOR_WIDTH = 8
#: Radius over which the gradient energy is taken that starts the masks.
START_RADIUS = 4
#: Input channels of a stage for a slice.
INPUTS = 4
#: Logits of masks farther below the best are clamped to this distance.
DEEPEST = 8.0
#: Guards divisions by a contrast; of the range, black to white, of a stack.
LEAST_CONTRAST = 1e-4
SLOPE = 0.1


class Estimate(NamedTuple):
    """The estimate of a stage.

    Attributes
    ----------
    logits
        Of the masks: chunks (stacks, n, h, w), all slices together.
    fused
        (stacks, 1, h, w), the slices weighted by the masks that the stage began with.
    reconstruction
        (stacks, 1, h, w), the variable X of the energy: a sharp image.
    """

    logits: list[Tensor]
    fused: Tensor
    reconstruction: Tensor

    def masks(self) -> Tensor:
        """(stacks, N, h, w), at least 0, adding up to 1 over N."""
        return torch.cat(self.logits, 1).softmax(1)


class StackStatistics(NamedTuple):
    """Images of a stack that all stages use, (stacks, 1, h, w) each.

    Attributes
    ----------
    mean
        Of all slices.
    contrast
        Gradient of the slice with the strongest around a pixel.
    initial
        Slices fused by the initial masks, those of the gradient energy.
    """

    mean: Tensor
    contrast: Tensor
    initial: Tensor


class Stage(nn.Module):
    """One step of the unrolled minimisation, with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.restore = nn.Sequential(
            nn.Conv2d(2, WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(WIDTH, 1, 3, padding=1),
        )
        self.features = nn.Sequential(
            nn.Conv2d(INPUTS, WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
        )
        self.own = nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2)
        self.shared = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=2, dilation=2, bias=False)
        self.logit = nn.Conv2d(WIDTH, 1, 3, padding=1)
        self.step = nn.Parameter(torch.tensor(0.1))
        self.keep = nn.Parameter(torch.tensor(1.0))

    def reconstruct(self, fused: Tensor, statistics: StackStatistics) -> Tensor:
        """The step on X: the fused slices and what the network adds to them."""
        detail = torch.cat(
            [fused - statistics.mean, statistics.initial - statistics.mean], 1
        )
        return fused + statistics.contrast * self.restore(
            F.softsign(detail / statistics.contrast)
        )

    def descend(
        self,
        logits: Tensor,
        slices: Tensor,
        fused: Tensor,
        reconstruction: Tensor,
        statistics: StackStatistics,
    ) -> Tensor:
        """The gradient step on the masks, in their logits.

        The gradient of ``1/2 |X - sum M I|^2`` along the simplex is
        ``(sum M I - X) (I_n - sum M I)``.
        """
        gradient = (
            (fused - reconstruction) * (slices - fused) / statistics.contrast.square()
        )
        return logits - self.step * gradient.clamp(-DEEPEST, DEEPEST)

    def slice_features(
        self,
        logits: Tensor,
        highest: Tensor,
        slices: Tensor,
        reconstruction: Tensor,
        statistics: StackStatistics,
    ) -> Tensor:
        """Features (stacks * n, WIDTH, h, w) of some slices (stacks, n, h, w)."""
        inputs = torch.stack(
            [
                (logits - highest).clamp_min(-DEEPEST) / 4 + 1,
                F.softsign((slices - reconstruction) / statistics.contrast),
                F.softsign((slices - statistics.mean) / statistics.contrast),
                gradient_energy(slices).sqrt() / statistics.contrast - 0.5,
            ],
            2,
        ).flatten(0, 1)
        return self.features(inputs.contiguous(memory_format=torch.channels_last))

    def logit_update(self, features: Tensor, shared: Tensor) -> Tensor:
        """What the network adds to the logits, (stacks * n, 1, h, w)."""
        each = by_stack(self.own(features), len(shared))
        together = each.add_(shared[:, None]).flatten(0, 1)
        return self.logit(F.leaky_relu_(together, SLOPE))


class Double(nn.Sequential):
    """Two 3x3 convolutions with their activations."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
        )


class MaskPredictor(nn.Module):
    """A U-Net that predicts a mask where it is hidden; for training alone.

    One network for all slices of a stack, which exchange pooled features at the lowest
    resolution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = Double(4, PREDICTOR_WIDTH)
        self.middle = Double(PREDICTOR_WIDTH, 2 * PREDICTOR_WIDTH)
        self.coarse = Double(2 * PREDICTOR_WIDTH, 2 * PREDICTOR_WIDTH)
        self.together = Double(6 * PREDICTOR_WIDTH, 2 * PREDICTOR_WIDTH)
        self.up_middle = Double(4 * PREDICTOR_WIDTH, 2 * PREDICTOR_WIDTH)
        self.up_fine = Double(3 * PREDICTOR_WIDTH, PREDICTOR_WIDTH)
        self.logit = nn.Conv2d(PREDICTOR_WIDTH, 1, 1)

    def forward(self, slices: Tensor, mask: Tensor, visible: Tensor) -> Tensor:
        """Logits (stacks, N, h, w) of a mask that is partly hidden.

        Parameters
        ----------
        slices
            (stacks, N, h, w) float32, normalised.
        mask
            (stacks, N, h, w), imperfect; hidden pixels have no influence.
        visible
            (stacks, 1, h, w), 1 where the mask is visible and 0 where it is hidden.
        """
        stacks, count, height, width = slices.shape
        energy = gradient_energy(slices)
        smooth = box_mean(F.pad(energy, [START_RADIUS] * 4), START_RADIUS)
        contrast = maximum([smooth]).sqrt() + LEAST_CONTRAST
        inputs = torch.stack(
            [
                mask * visible,
                visible.expand_as(mask),
                F.softsign((slices - slices.mean(1, keepdim=True)) / contrast),
                energy.sqrt() / contrast - 0.5,
            ],
            2,
        ).flatten(0, 1)
        missing = [0, -width % 4, 0, -height % 4]
        inputs = F.pad(inputs, missing, mode="replicate")
        fine = self.fine(inputs.contiguous(memory_format=torch.channels_last))
        middle = self.middle(F.avg_pool2d(fine, 2))
        coarse = self.coarse(F.avg_pool2d(middle, 2))
        each = coarse.unflatten(0, (stacks, count))
        others = torch.cat([each.mean(1), each.amax(1)], 1).repeat_interleave(count, 0)
        coarse = self.together(torch.cat([coarse, others], 1))
        middle = self.up_middle(torch.cat([middle, doubled(coarse)], 1))
        fine = self.up_fine(torch.cat([fine, doubled(middle)], 1))
        logits = self.logit(fine)[:, 0, :height, :width]
        return logits.unflatten(0, (stacks, count))


class DualPath(SetMasker):
    """The image fuser, and the mask predictor that fine-tuning needs."""

    window: ClassVar[int] = 1
    bytes_a_tile_pixel: ClassVar[float] = 1240
    needs_sample: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        self.stages = nn.ModuleList(Stage() for _ in range(STAGES))
        self.predictor = MaskPredictor()

    def masks(self, slices: Tensor, context: Any = None) -> Tensor:
        """See :meth:`SetMasker.masks`; features of one slice live at a time."""
        chunk: int | None = 1 if slices.device.type == "cpu" else 4
        if is_tracing():  # a loop would fix the number of slices
            chunk = None
        stages = self.unroll(slices[:, 0][None], chunk)
        for _ in self.stages[:-1]:
            next(stages)
        logits = torch.cat(next(stages).logits, 1)[0]
        del stages
        if logits.requires_grad or is_tracing():
            return logits.softmax(0)
        return torch.softmax(logits, 0, out=logits)

    def unroll(self, stacks: Tensor, chunk: int | None = None) -> Iterator[Estimate]:
        """Stage by stage, the estimates of the fuser for stacks of slices.

        Parameters
        ----------
        stacks
            (stacks, N, h, w) float32, normalised.
        chunk
            Slices whose features are computed together: twice, first to be pooled. None
            for all, once. The numbers are the same.
        """
        count = stacks.shape[1]
        slices = [stacks] if chunk is None else list(stacks.split(chunk, 1))
        logits, statistics = self._start(slices)
        for stage in self.stages:
            assert isinstance(stage, Stage)
            fused = weighted(logits, slices)
            reconstruction = stage.reconstruct(fused, statistics)
            logits = list(logits)  # each is let go as soon as the next one is there
            for i, image in enumerate(slices):
                logits[i] = stage.descend(
                    logits[i], image, fused, reconstruction, statistics
                )
            highest = maximum(logits)
            features: Tensor | None = None
            total: Tensor | None = None
            largest: Tensor | None = None
            for own, image in zip(logits, slices, strict=True):
                features = stage.slice_features(
                    own, highest, image, reconstruction, statistics
                )
                each = by_stack(features, len(stacks))
                total, largest = pooled(each, total, largest)
            assert total is not None and largest is not None
            shared = stage.shared(torch.cat([total / count, largest], 1))
            for i, image in enumerate(slices):
                if features is None or len(slices) > 1:
                    features = stage.slice_features(
                        logits[i], highest, image, reconstruction, statistics
                    )
                update = stage.logit_update(features, shared).reshape(image.shape)
                logits[i] = stage.keep * logits[i] + update
            yield Estimate(logits, fused, reconstruction)

    def _start(self, slices: Sequence[Tensor]) -> tuple[list[Tensor], StackStatistics]:
        """Initial masks by the gradient energy, and the statistics of the stacks."""
        around = [START_RADIUS] * 4
        energies = [
            box_mean(F.pad(gradient_energy(image), around), START_RADIUS)
            for image in slices
        ]
        contrast = maximum(energies).sqrt() + LEAST_CONTRAST
        count = sum(image.shape[1] for image in slices)
        mean = torch.stack([image.sum(1, keepdim=True) for image in slices]).sum(0)
        logits = [
            self.sharpness * (energy / contrast.square() + 1e-6).log()
            for energy in energies
        ]
        return logits, StackStatistics(mean / count, contrast, weighted(logits, slices))


def is_tracing() -> bool:
    """Whether the network is being written as TorchScript."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined]


def by_stack(maps: Tensor, stacks: int) -> Tensor:
    """Maps (stacks * n, C, h, w) as (stacks, n, C, h, w)."""
    return maps.reshape(stacks, -1, *maps.shape[1:])


def pooled(
    each: Tensor, total: Tensor | None, largest: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum and maximum over slices (stacks, n, C, h, w), onto those of earlier ones."""
    if is_tracing():  # all slices at once, however many they will be
        return each.sum(1), each.amax(1)
    for one in each.unbind(1):
        total = one if total is None else total + one
        largest = one if largest is None else torch.maximum(largest, one)
    assert total is not None and largest is not None
    return total, largest


def doubled(maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) at twice the size."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def gradient_energy(images: Tensor) -> Tensor:
    """Squared gradient (..., h, w) by Sobel's differences, zero on the border."""
    across = images[..., :, 2:] - images[..., :, :-2]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = images[..., 2:, :] - images[..., :-2, :]
    down = down[..., :, :-2] + 2 * down[..., :, 1:-1] + down[..., :, 2:]
    inner = (across.square() + down.square()) / 64
    return F.pad(inner, [1] * 4)


def maximum(chunks: Sequence[Tensor]) -> Tensor:
    """Largest over the slices of all chunks (stacks, n, h, w), (stacks, 1, h, w)."""
    largest = chunks[0].amax(1, keepdim=True)
    for chunk in chunks[1:]:
        largest = torch.maximum(largest, chunk.amax(1, keepdim=True))
    return largest


def weighted(logits: Sequence[Tensor], slices: Sequence[Tensor]) -> Tensor:
    """Slices weighted by the soft-max of logits, (stacks, 1, h, w)."""
    highest = maximum(logits)
    total = added = None
    for logit, image in zip(logits, slices, strict=True):
        weight = (logit - highest).exp()
        share = weight.sum(1, keepdim=True)
        weighted_sum = (weight * image).sum(1, keepdim=True)
        total = share if total is None else total + share
        added = weighted_sum if added is None else added + weighted_sum
    assert total is not None and added is not None
    return added / total
