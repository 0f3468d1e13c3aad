"""Where two depths show, the one in front or the one behind.

Of each cell the focus measure is followed along Z from the preferred side, to the first
maximum that stands out of noise and is not much weaker than the strongest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from napari_focus_fusion.filters import box_mean, without_border
from napari_focus_fusion.models.surface import (
    BLOCK,
    CHANGE_BY_NOISE,
    SCALES,
    TINY,
    halved,
)

if TYPE_CHECKING:
    from torch import Tensor

Prefer = Literal["sharpest", "front", "back"]

#: A maximum of a smaller share of the strongest, above the least, does not count.
LEAST_HEIGHT = 0.1
#: Least change along Z, in logarithms, between a maximum and what parts it from others.
LEAST_CHANGE = 0.25
#: Scales and radii in blocks of the windows, from small to large. What is seen in any
#: of them counts: texture may be fine or coarse, and noise hides it from small ones.
WINDOWS = ((1, 0), (1, 1), (2, 2), (4, 2))
#: By more slices than this a window must find one nearer to replace that of another.
CLEARLY = 1
#: As CHANGE_BY_NOISE, of the smallest window: 3 x 3 cells.
SMALLEST_CHANGE_BY_NOISE = 0.5
#: Weight of all other slices: a pixel that is so much less sharp at the preferred depth
#: does not belong to what its cell shows there.
OTHERS = 0.25


def preferred(focus: Tensor, prefer: Prefer, border: int) -> Tensor:
    """How near a slice is to the preferred depth, (N, h, w) in cells, from 0 to 1.

    Parameters
    ----------
    focus
        (N, scales, h, w), as ``focus_of`` has it, of whole blocks.
    prefer
        ``"front"``: nearer to the first slice; ``"back"``: to the last.
    border
        Cells that the result has less on each side, at least those of the largest
        window.
    """
    if prefer == "back":
        return preferred(focus.flip(0), "front", border).flip(0)
    found: Tensor | None = None
    for scale, radius in WINDOWS:
        means = _window_means(focus[:, SCALES.index(scale)], radius, border)
        noise = CHANGE_BY_NOISE[scale, radius] if radius else SMALLEST_CHANGE_BY_NOISE
        near, place = _first_maximum(means, max(noise, LEAST_CHANGE))
        if found is None:
            found, first = near, place
            continue
        nearer = place + CLEARLY < first
        found = torch.where(nearer, near, found)
        first = torch.where(nearer, place, first)
    assert found is not None
    return found


def _window_means(focus: Tensor, radius: int, border: int) -> Tensor:
    if radius == 0:
        return box_mean(without_border(focus, border - 1), 1)
    inner = border // BLOCK - radius
    blocks = without_border(halved(focus), inner - 1) if inner > 1 else halved(focus)
    means = box_mean(blocks, radius)
    cells = F.interpolate(means[:, None], scale_factor=BLOCK, mode="bilinear")[:, 0]
    return without_border(cells, BLOCK)


def _first_maximum(means: Tensor, change: float) -> tuple[Tensor, Tensor]:
    """Nearness (N, h, w) to the first maximum that counts, and its place (h, w)."""
    lowest, highest = means.amin(0), means.amax(0)
    enough = (lowest + LEAST_HEIGHT * (highest - lowest)).clamp_min(TINY).log()
    logs = means.clamp_min(TINY).log()
    peak = logs[0].clone()
    place = torch.zeros_like(peak, dtype=torch.int16)
    start, stop = place.clone(), torch.full_like(place, len(means))
    valley = torch.full_like(peak, -torch.inf)
    looking = torch.ones_like(peak, dtype=torch.bool)
    for z, values in enumerate(logs):
        fallen = looking & (values < peak - change)
        done = fallen & (peak > valley + change) & (peak >= enough)
        stop = torch.where(done, z, stop)
        looking &= ~done
        # Lower than before: what came before it does not matter any more.
        again = looking & (fallen | (values < valley))
        valley = torch.where(again, values, valley)
        start = torch.where(again, z, start)
        higher = looking & (again | (values > peak))
        peak = torch.where(higher, values, peak)
        place = torch.where(higher, z, place)
    index = torch.arange(len(means), device=means.device)[:, None, None]
    near = ((logs - peak) / change + 1).clamp(0, 1)
    return near * ((index >= start) & (index < stop)), place
