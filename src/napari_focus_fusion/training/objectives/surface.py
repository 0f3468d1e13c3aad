"""How the surface is trained: the true depth of scenes, on the coarse grid.

The network gives logits along Z for each cell; they are held against a narrow
distribution around the true depth. Slices are drawn from the scenes' in all numbers and
spacings, so that it works on stacks of 3 slices and of hundreds. Where a scene shows no
detail the nearest known depth counts a little: a surface goes on below the background.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from napari_focus_fusion.models.surface import (
    BLOCK,
    FOCUS_HALO,
    WIDE_RADIUS,
    WINDOW_RADIUS,
    cell_means,
    coarse_features,
    focus_of,
    trusts,
    vote,
)
from napari_focus_fusion.training.fit import Schedule
from napari_focus_fusion.training.recipe import Recipe
from napari_focus_fusion.training.rng import generator_of, random_integer
from napari_focus_fusion.training.scores import score_surface

if TYPE_CHECKING:
    from napari_focus_fusion.models.surface import Surface
    from napari_focus_fusion.training.data import Batch

#: Standard deviation in slices of the distribution around the true depth.
SPREAD = 0.6
#: Weight of cells without detail, and of those whose depth lies beyond the slices.
WEIGHT_WITHOUT_DETAIL, WEIGHT_BEYOND = 0.05, 0.03
#: Weight of the distance between expected and true depth.
DISTANCE = 0.5
#: Weight of telling background from detail.
PRESENCE = 0.5
#: Intensities that a third of the stacks are rounded to: cameras of 8 bit and fewer.
LEVELS = (32, 64, 128, 250)
#: How much neighbours count at least, in training. With less than in use the network
#: learns to do without them.
LEAST_TRUST = 0.7
#: Largest spacing of the slices that are drawn.
FARTHEST = 3
SEED = 20_000


class Cells(NamedTuple):
    """Slices and what is known of them on the coarse grid.

    Attributes
    ----------
    features
        Of :func:`coarse_features`.
    depth
        (stacks, h, w) in slices.
    weight
        (stacks, h, w), how much a cell counts.
    present
        (stacks, h, w), share of a cell's pixels that show detail.
    """

    features: Tensor
    depth: Tensor
    weight: Tensor
    present: Tensor


def training_loss(network: Surface, batch: Batch) -> dict[str, Tensor]:
    """Cross-entropy and distance along Z, of some of the slices of a batch."""
    return _losses(network, *_drawn(batch, generator_of(batch.step, SEED)))


def validation_error(network: Surface, batches: list[Batch]) -> float:
    """The training loss without gradients, on substacks that stay the same."""
    with torch.no_grad():
        losses = [
            _losses(network, *_drawn(batch, generator_of(number, SEED + 1)))
            for number, batch in enumerate(batches)
        ]
    return float(torch.stack([each["loss"] for each in losses]).mean())


def _losses(network: Surface, slices: Tensor, depth: Tensor) -> dict[str, Tensor]:
    cells = coarse(slices, depth)
    found = network(cells.features, whole=True)
    around = [WIDE_RADIUS] * 4
    bordered = F.pad(found.along_z, around, mode="replicate")
    log = vote(bordered, *trusts(found.trust, LEAST_TRUST)).log_softmax(1)
    z = torch.arange(log.shape[1], device=log.device)[None, :, None, None]
    target = torch.exp(-((z - cells.depth[:, None]) ** 2) / (2 * SPREAD**2))
    target = target / target.sum(1, keepdim=True)
    entropy = -(target * log).sum(1)
    distance = ((log.exp() * z).sum(1) - cells.depth).abs()
    # In many slices a step between two depths is a long way.
    distance = distance / max(log.shape[1] / 12, 1)
    each = (entropy + DISTANCE * distance) * cells.weight
    total = cells.weight.sum()
    presence = F.binary_cross_entropy_with_logits(found.presence, cells.present)
    return {
        "loss": each.sum() / total + PRESENCE * presence,
        "entropy": (entropy * cells.weight).sum() / total,
        "distance": (distance * cells.weight).sum() / total,
        "presence": presence,
    }


def draw_slices(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """3 to all slices of a batch, next to each other or some apart.

    Returns
    -------
    slices
        (stacks, N, h, w), noisy.
    depth
        (stacks, h, w), in the slices drawn; NaN where it is unknown.
    """
    there = batch.noisy.shape[1]
    few = random_integer(2, generator)
    most = min(there, 12) if few else there
    count = random_integer(most + 1, generator, low=3)
    farthest = min((there - 1) // (count - 1), FARTHEST)
    stride = random_integer(farthest + 1, generator, low=1)
    first = random_integer(there - (count - 1) * stride, generator)
    kept = slice(first, first + (count - 1) * stride + 1, stride)
    return batch.noisy[:, kept], (batch.depth - first) / stride


def _drawn(batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As :func:`draw_slices`, and some of them as cameras of few levels see them."""
    slices, depth = draw_slices(batch, generator)
    if random_integer(3, generator) == 0:
        levels = LEVELS[random_integer(len(LEVELS), generator)]
        slices = (slices * levels).round() / levels
    return slices, depth


def coarse(slices: Tensor, depth: Tensor) -> Cells:
    """Features of slices (stacks, N, h, w), and the depth on their grid."""
    stacks, count = slices.shape[:2]
    around = [FOCUS_HALO] * 4
    padded = F.pad(slices.flatten(0, 1)[:, None], around, mode="replicate")[:, 0]
    focus, intensity = (
        _mirrored(planes.unflatten(0, (stacks, count)), BLOCK * WINDOW_RADIUS)
        for planes in focus_of(padded)
    )
    features = coarse_features(focus, intensity)
    known = torch.isfinite(depth).float()
    share = cell_means(known)
    mean = cell_means(torch.nan_to_num(depth)) / share.clamp_min(1e-6)
    filled = torch.stack([_nearest(*pair) for pair in zip(mean, share, strict=True)])
    inside = (filled > -0.6) & (filled < count - 0.4)
    weight = share.clamp_min(WEIGHT_WITHOUT_DETAIL) * (inside.float() + WEIGHT_BEYOND)
    return Cells(features, filled.clamp(0, count - 1), weight, share)


def _mirrored(planes: Tensor, by: int) -> Tensor:
    """Planes (..., h, w), mirrored around their border as often as needed."""
    for axis in (-2, -1):
        index = np.pad(np.arange(planes.shape[axis]), by, mode="symmetric")
        planes = planes.index_select(axis, torch.from_numpy(index).to(planes.device))
    return planes


def _nearest(values: Tensor, share: Tensor) -> Tensor:
    """Values (h, w), those without a share from the nearest cell with one."""
    missing = (share == 0).cpu().numpy()
    if missing.all():
        return values
    places = ndimage.distance_transform_edt(
        missing, return_distances=False, return_indices=True
    )
    rows, columns = (torch.from_numpy(np.ascontiguousarray(p)) for p in places)
    return values[rows.to(values.device), columns.to(values.device)]


#: Kinds of scenes in turn; in every other turn the cells of those of waves are lenses.
KINDS = (
    *("grey", "coherent", "tissue", "grey", "refractile", "fluorescence"),
    *("coherent", "grey", "confocal", "coherent", "grey", "brightfield"),
    *("coherent", "tissue"),
)
LENSES = tuple("lenses" if kind == "coherent" else kind for kind in KINDS)

RECIPE = Recipe(
    training_loss=training_loss,
    self_supervised_loss=None,
    validate=validation_error,
    schedule=Schedule(steps=14_000, learning_rate=2e-3, validate_every=400),
    scenes=560,
    side=160,
    modalities=(*KINDS, *LENSES),
    slices=24,
    stacks=3,
    crop=160,
    scores=score_surface,
)
