"""From scores to a decision map: arg-max while slices stream by, then verification.

Slices are categories here, not positions: labels and confidence do not depend on the
order of the slices, so that permuting them permutes the map and leaves the fused image
unchanged. Only the depth map, which is interpolated along Z, uses neighbouring slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from skimage.measure import label
from torch import Tensor

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.filters import box_sum, line_sum, without_border
from napari_focus_fusion.parameters import shown, whole_number
from napari_focus_fusion.stack import FocusStack

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

#: Guards divisions of scores; far below any score of an image with detail.
TINY = 1e-30

#: Near a surface the scores beside the best one count as at least this share of it.
LEAST_NEIGHBOUR = 0.02

#: Scores are added up over windows inside one another: the model's own, one three times
#: as wide (this is its weight, of the mean), and one nine times as wide (weighted by
#: the smoothness that the user chooses). Where the small window holds detail its
#: sum dominates; where it holds none, or only the weak fringes that refraction makes
#: out of focus, the sums over the surroundings do.
SURROUNDINGS_WEIGHT = 0.5

#: Scores that are none: of a pixel that is absent, and of one beside it that sees it.
ABSENT_SCORE, DOUBTFUL_SCORE = -torch.inf, -1.0

#: Below this confidence a pixel takes the label that its neighbours vote for.
LOW_CONFIDENCE = 0.2
VOTE_RADIUS = 12
#: Of two slices what is blurred in one is sharp in the other, and small differences
#: decide: the least confidence of pairs, and the share of the smoothness that counts.
PAIR_LOW_CONFIDENCE, PAIR_SMOOTHNESS = 0.05, 0.3
#: Connected regions with fewer pixels are taken for mistakes.
SMALLEST_REGION = 32
#: The same near a surface, which has looked at the surroundings already (with 32, half
#: a decibel is lost where filaments cross or layers overlap), and the radius in which
#: their neighbours vote.
SMALLEST_NEAR_SURFACE, SPECK_RADIUS = 8, 4
#: Pixels around a region that its verification depends on: no connected region extends
#: further than its own number of pixels.
VERIFY_HALO = VOTE_RADIUS + SMALLEST_REGION


class Maps(NamedTuple):
    """Decision, confidence and depth at each pixel of a region, (h, w) each.

    Attributes
    ----------
    labels
        uint16, the best slice.
    confidence
        float32 in [0, 1].
    depth
        float32, in slices.
    """

    labels: np.ndarray
    confidence: np.ndarray
    depth: np.ndarray


def weighted(score: Tensor, weight: Tensor, *, complete: bool = False) -> Tensor:
    """Scores multiplied by weights; flags below 0, where it is not complete, stay."""
    found = score * weight
    return found if complete else torch.where(score > 0, found, score)


def aggregate_halo(radius: int, smoothness: float = 1.0) -> int:
    """Pixels of halo that :func:`aggregate` needs: half the widest window."""
    return ((9 if smoothness else 3) * (2 * radius + 1) - 1) // 2


def aggregate(
    score: Tensor, radius: int, smoothness: float, *, complete: bool = False
) -> Tensor:
    """Scores added up over a window and, with less weight, over its surroundings.

    Parameters
    ----------
    score
        (h, w), with :func:`aggregate_halo` pixels of halo. Those below 0 do not count:
        of what is left in a window its mean is taken.
    radius
        Of the model's window, which has ``2 * radius + 1`` pixels a side.
    smoothness
        Weight of the mean over a window nine times as wide; 0 for none, which needs
        less halo.
    complete
        Whether it is known that no score is below 0.

    Returns
    -------
    Tensor
        (h, w) less the halo; ABSENT_SCORE where the score is that.
    """
    weights = (1.0, SURROUNDINGS_WEIGHT, *([smoothness] if smoothness else []))
    if complete or score.amin() >= 0:
        return _weighted(_window_sums(score, radius, len(weights)), weights)
    counts = score >= 0
    sums = _window_sums(torch.where(counts, score, 0), radius, len(weights))
    numbers = _window_sums(counts.to(score.dtype), radius, len(weights))
    for scale, (total, number) in enumerate(zip(sums, numbers, strict=True)):
        total *= (3**scale * (2 * radius + 1)) ** 2 / number.clamp_min(1)
    total = _weighted(sums, weights)
    absent = without_border(score, aggregate_halo(radius, smoothness)) == ABSENT_SCORE
    return total.masked_fill_(absent, ABSENT_SCORE)


def _weighted(sums: list[Tensor], weights: tuple[float, ...]) -> Tensor:
    total = sums[0].add(sums[1], alpha=weights[1] / 9)
    for i in range(2, len(sums)):
        total.add_(sums[i], alpha=weights[i] / 9**i)
    return total


def _window_sums(score: Tensor, radius: int, count: int) -> list[Tensor]:
    """Sums over a window, one three times as wide, and so on."""
    side = 2 * radius + 1
    sums = [box_sum(score, radius)]
    for i in range(1, count):
        # Nine windows side by side are the window three times as wide.
        apart = 3 ** (i - 1) * side
        sums.append(line_sum(line_sum(sums[-1], 3, -1, apart), 3, -2, apart))
    inside = [
        without_border(total, (3 ** (count - 1) - 3**i) * side // 2)
        for i, total in enumerate(sums[:-1])
    ]
    return [*inside, sums[-1]]


class RunningDecision:
    """The best slice at each pixel so far, fed one slice after the other.

    Its size does not depend on the number of slices.

    Parameters
    ----------
    shape
        Height and width of the region.
    device
        Where scores come from.
    """

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.count = 0
        self.best = torch.full(shape, -1.0, device=device)
        self.index = torch.zeros(shape, dtype=torch.int16, device=device)
        # The sum of the scores, where there is no surface. Twice as precise as they
        # are, so that it does not depend on the order in which they were added.
        precise = torch.float32 if device.type == "mps" else torch.float64
        self.total = torch.zeros(shape, dtype=precise, device=device)
        # Scores of the slices before and after the best one, for the parabola.
        self.before = torch.zeros(shape, device=device)
        self.after = torch.zeros(shape, device=device)
        self.previous = torch.zeros(shape, device=device)
        # Of a surface: its weight at the best slice and that slice's neighbours, and
        # what makes a confidence of that.
        self.weight: Tensor | None = None
        self.last: Tensor | None = None
        self.certainty: Tensor | None = None
        # In how many slices a pixel is absent, once there is one that is.
        self.absent: Tensor | None = None

    def update(
        self,
        z: int,
        score: Tensor,
        y: slice,
        x: slice,
        weight: Tensor | None = None,
        *,
        complete: bool = False,
    ) -> None:
        """Take in the scores (h, w) of slice ``z`` for one tile.

        ``weight`` is how near the surface passes, which scores are multiplied by. Where
        the score is ABSENT_SCORE the slice has no pixel, and does not count;
        ``complete``: it is known to have all.

        Slices come in order for each tile. The first of equal scores stays.
        """
        self.count = max(self.count, z + 1)
        best, index = self.best[y, x], self.index[y, x]
        before, after = self.before[y, x], self.after[y, x]
        previous = self.previous[y, x]
        if weight is not None:
            score = weighted(score, weight, complete=complete)
        torch.where(index == z - 1, score, after, out=after)
        better = score > best
        if weight is not None:
            if self.weight is None or self.last is None:
                self.weight = torch.zeros_like(self.best)
                self.last = torch.zeros_like(self.best)
            found, last = self.weight[y, x], self.last[y, x]
            found += torch.where((index == z - 1) & (z > 0), weight, 0)
            torch.where(better, weight + last, found, out=found)
            last.copy_(weight)
        torch.where(better, previous, before, out=before)
        index.masked_fill_(better, z)
        torch.maximum(best, score, out=best)
        if not complete and score.amin() < 0:
            if self.absent is None:
                self.absent = torch.zeros_like(self.index)
            self.absent[y, x] += score < 0
            if weight is None:
                self.total[y, x] += score.clamp_min(0)
        elif weight is None:
            self.total[y, x] += score
        previous.copy_(score)

    def maps(self) -> Maps:
        """Decision, confidence and depth from the slices so far."""
        return Maps(
            self.index.cpu().numpy().astype(np.uint16),
            self.confidence().cpu().numpy(),
            self.depth().cpu().numpy(),
        )

    def confidence(self) -> Tensor:
        """How far the best slice stands above the mean of the others, in [0, 1].

        ``1 - mean of the others / best``: 0 where all slices are alike, towards 1
        where one alone is sharp. The runner-up would not do: in a finely sampled stack
        it is the next slice, and nearly as sharp wherever the focus is right. Slices
        that have no pixel there do not count; 0 where none has one.

        With a surface: how probable it is that there is detail, and that it is in the
        best slice or a neighbour of it.
        """
        if self.weight is not None:
            certainty = 1 if self.certainty is None else self.certainty
            confidence = (self.weight * certainty).clamp(0, 1)
        elif self.count < 2:
            confidence = torch.ones_like(self.best)
        else:
            others = self.total - self.best
            if self.absent is None:
                others = (others / (self.count - 1)).float()
            else:
                number = self.count - 1 - self.absent
                others = (others / number.clamp_min(1)).float()
            confidence = (1 - (others + TINY) / (self.best + TINY)).clamp(0, 1)
        if self.absent is not None:
            confidence.masked_fill_(self.best < 0, 0)
        return confidence

    def depth(self) -> Tensor:
        """Depth in slices, refined below one slice.

        The vertex of the parabola through the logarithms of three scores; exact for
        scores that fall off as a Gaussian. At the first and last slice the index
        itself.
        """
        # Far from a surface scores are zero, which says nothing of the vertex.
        share = 0.0 if self.weight is None else LEAST_NEIGHBOUR
        least = (self.best * share).clamp_min(TINY)
        low, middle, high = (
            torch.maximum(values, least).log()
            for values in (self.before, self.best, self.after)
        )
        curvature = low + high - 2 * middle
        offset = 0.5 * (low - high) / curvature.clamp_max(-1e-6)
        inner = (self.index > 0) & (self.index < self.count - 1)
        if self.absent is not None:
            inner &= (self.before >= 0) & (self.after >= 0)
        return self.index + torch.where(inner, offset, 0).clamp(-0.5, 0.5)


def verify(maps: Maps, least: float = LOW_CONFIDENCE) -> Maps:
    """Consistency verification: no islands, and no guesses where nothing is sharp.

    Pixels of regions smaller than :data:`SMALLEST_REGION`, and pixels less confident
    than ``least``, take the label with most votes around them; a
    pixel's vote is weighted with the fourth power of its confidence. Their depth
    becomes the weighted mean of the pixels that voted for that label. Pixels without a
    confident neighbour stay as they are.

    Parameters
    ----------
    maps
        Raw maps of a region and :data:`VERIFY_HALO` pixels around it (fewer only where
        the image ends).
    least
        Confidence, 0 to 1.

    Returns
    -------
    Maps
        Of the same shape; exact where the halo was complete.
    """
    islands = _islands(maps.labels, SMALLEST_REGION)
    uncertain = islands | (maps.confidence < least)
    if not uncertain.any():
        return maps
    votes = torch.from_numpy(np.where(islands, 0, maps.confidence) ** 4)
    index = torch.from_numpy(maps.labels.astype(np.int32))
    most = torch.zeros_like(votes)
    winner = index.clone()
    depth = torch.from_numpy(maps.depth)
    winning_depth = depth.clone()
    around = [VOTE_RADIUS] * 4
    for z in np.unique(maps.labels[~islands]):
        own = torch.where(index == int(z), votes, 0)
        total = box_sum(F.pad(own, around), VOTE_RADIUS)
        more = total > most
        winner.masked_fill_(more, int(z))
        heights = box_sum(F.pad(own * depth, around), VOTE_RADIUS)
        mean = heights / total.clamp_min(TINY)
        torch.where(more, mean, winning_depth, out=winning_depth)
        torch.maximum(most, total, out=most)
    return Maps(
        np.where(uncertain, winner.numpy(), maps.labels).astype(np.uint16),
        maps.confidence,
        np.where(uncertain, winning_depth.numpy(), maps.depth).astype(np.float32),
    )


def _islands(labels: NDArray[np.uint16], smallest: int) -> NDArray[np.bool_]:
    """Pixels of connected regions of one label with fewer pixels than `smallest`."""
    components = label(labels.astype(np.int32) + 1, connectivity=1, background=0)
    few: NDArray[np.bool_] = np.bincount(components.ravel())[components] < smallest
    return few


def without_specks(maps: Maps) -> Maps:
    """Verification near a surface: islands take the label that most around them have.

    Of less than :data:`SMALLEST_NEAR_SURFACE` pixels; their depth becomes the mean of
    those that voted for it. A pixel's vote is weighted with its confidence; where two
    labels have as many votes nothing changes, as their order must not matter.

    Parameters
    ----------
    maps
        Raw maps of a region and pixels around it, as :func:`verify` takes them.

    Returns
    -------
    Maps
        Of the same shape.
    """
    specks = _islands(maps.labels, SMALLEST_NEAR_SURFACE)
    y, x = np.nonzero(specks)
    if not len(y):
        return maps
    around = np.arange(2 * SPECK_RADIUS + 1)
    window = (y[:, None, None] + around[:, None], x[:, None, None] + around)
    votes, labels, depth = (
        np.pad(values, SPECK_RADIUS)[window].reshape(len(y), -1)
        for values in (np.where(specks, 0, maps.confidence), maps.labels, maps.depth)
    )
    most, winner, mean = np.zeros(len(y)), maps.labels[y, x], maps.depth[y, x]
    elected = np.zeros(len(y), bool)
    for z in np.unique(labels[votes > 0]):
        own = np.where(labels == z, votes, 0)
        total = own.sum(1, dtype=np.float64)
        more = total > most
        elected = more | (elected & (total != most))
        winner[more], most[more] = z, total[more]
        heights = (own * depth).sum(1, dtype=np.float64)
        mean[more] = heights[more] / total[more]
    found = Maps(maps.labels.copy(), maps.confidence, maps.depth.copy())
    y, x = y[elected], x[elected]
    found.labels[y, x], found.depth[y, x] = winner[elected], mean[elected]
    return found


def as_decision(
    values: ArrayLike, stack: FocusStack, *, first: int | None = None
) -> NDArray[np.uint16]:
    """Take a map of slices, made by whatever program, for a decision map of a stack.

    Parameters
    ----------
    values
        Whole numbers, of any type, at each pixel of (Y, X) or (T, Y, X); further axes
        of length 1 do not matter. One plane serves all time points.
    stack
        The stack that the map belongs to.
    first
        Number of the first slice in the map, 0 or 1; None: 1 if it goes up to the
        number of slices, which no map that counts from 0 does, else 0.

    Returns
    -------
    ndarray
        uint16, axes ``stack.map_axes``, slices counted from 0; an array of its own.

    Raises
    ------
    FocusFusionError
        If it is of another size, holds fractions, or names slices that do not exist.

    Examples
    --------
    >>> import napari_focus_fusion as ff
    >>> import numpy as np
    >>> stack = ff.as_stack(np.zeros((3, 40, 64), np.uint8))
    >>> as_decision(np.full((40, 64), 3), stack)[0, 0]  # one that counts from 1
    np.uint16(2)
    """
    if not isinstance(stack, FocusStack):
        raise FocusFusionError(
            f"stack={shown(stack)} is no FocusStack; as_stack() makes one."
        )
    first = None if first is None else whole_number("first", first, least=0, most=1)
    try:
        given = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise FocusFusionError(
            f"The decision map is no array, but {shown(values)}."
        ) from error
    plane = (stack.height, stack.width)
    shape = tuple(n for n in given.shape if n != 1)
    whole = tuple(n for n in stack.map_shape if n != 1)
    if shape not in (whole, tuple(n for n in plane if n != 1)):
        raise FocusFusionError(
            f"The decision map has the shape {given.shape}, and {stack.name!r} is "
            f"{plane[0]} x {plane[1]} pixels. It must be a map of the same pixels."
        )
    if given.dtype.kind not in "iuf" or (
        given.dtype.kind == "f"
        and not (np.isfinite(given) & (given == np.rint(given))).all()
    ):
        raise FocusFusionError(
            f"The decision map holds {given.dtype} numbers that are no indices of "
            "slices. Choose a map of whole numbers, counted from 0."
        )
    lowest, highest = int(given.min()), int(given.max())
    if first is None:
        first = 1 if highest == stack.n_slices else 0
    if lowest < first or highest >= first + stack.n_slices:
        raise FocusFusionError(
            f"The decision map names slices {lowest} to {highest}, and "
            f"{stack.name!r} has slices {first} to {first + stack.n_slices - 1}, "
            f"counted from {first}. "
            "Choose its own map, or say from which number the map counts."
        )
    planes = given.reshape(stack.map_shape if shape == whole else plane)
    decision = np.empty(stack.map_shape, np.uint16)
    decision[...] = planes - first if first else planes
    return decision
