"""What all regions of a run share, and how their pixels are read.

A region is a part of the plane whose running state fits into the working memory (often
the whole plane). Slices stream through it one after the other, so that each stored
chunk is read once and memory does not grow with their number; inside it, models work on
tiles. A region is scored (``scoring.py``), then fused (``finishing.py``): both read it
and what lies around it and give back arrays, anywhere and in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion.decision import aggregate
from napari_focus_fusion.engine.reading import ahead
from napari_focus_fusion.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from torch import Tensor

    from napari_focus_fusion.composite import Blend
    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.models.base import FusionModel, SuperResolver
    from napari_focus_fusion.tiling import Tile

#: Side of the blocks in which planes are swept: a few of them fit into a core's cache.
SWEEP = 512


@dataclass(frozen=True, slots=True)
class Upscale:
    """How a run super-resolves.

    Attributes
    ----------
    resolver
        The network.
    scale
        2, 3 or 4.
    joint
        Whether slices are made finer and then fused; else the fused image is made
        finer.
    context
        The network's statistics of the stack.
    channels
        The grey plane of each channel, for its normalisation.
    """

    resolver: SuperResolver
    scale: int
    joint: bool
    context: Any = None
    channels: tuple[Reference, ...] = ()


@dataclass(slots=True)
class Work:
    """What all regions of a run share.

    Attributes
    ----------
    reference
        The plane that decides.
    model, halo, context
        Who scores, how far it sees, and its statistics of the stack.
    device
        Where scores are computed.
    tile
        Largest side of a model's tile, in pixels.
    slab
        Slices that are read and scored together.
    pictures
        For each channel the plane that a :class:`Reconstructor` makes its picture of;
        empty if pixels are only taken from slices.
    given
        A decision map that need not be found, (T, Y, X) uint16; None: it is found.
    upscale
        How the result is made finer; None: it is not.
    blend
        ``"feather"`` or ``"select"``.
    verified
        Whether the decision is verified for consistency.
    smoothness
        Weight of the surroundings in the decision.
    tick
        Called with the pixels x slices just done.
    should_stop
        Asked between batches.
    notes
        What the user should know of the run, in plain words.
    """

    reference: Reference
    model: FusionModel
    halo: int
    context: Any
    device: torch.device
    tile: int
    slab: int = 1
    pictures: tuple[Reference, ...] = ()
    given: np.ndarray | None = None
    upscale: Upscale | None = None
    blend: Blend = "feather"
    verified: bool = True
    smoothness: float = 1.0
    tick: Callable[[float], None] = lambda done: None
    should_stop: Callable[[], bool] = lambda: False
    notes: list[str] = field(default_factory=list)
    most_pixels: int = 1 << 62

    def aggregate(self, score: Tensor) -> Tensor:
        """Scores (h, w) added up as the decision needs them; smaller by the halo."""
        return aggregate(score, self.model.window, self.smoothness)

    def done(self, count: float) -> None:
        """Count pixels x slices; the place where a run stops when it is asked to."""
        self.tick(count)
        if self.should_stop():
            raise Cancelled


def slabs(
    work: Work, reference: Reference, region: Tile, rim: int
) -> Iterator[tuple[int, Tensor]]:
    """First slice and planes (n, h, w) of each slab, on the device, read ahead."""
    y = slice(region.y0 - rim, region.y1 + rim)
    x = slice(region.x0 - rim, region.x1 + rim)
    count = reference.stack.n_slices
    starts = range(0, count, work.slab)

    def read(z: int) -> Tensor:
        planes = reference.planes(slice(z, min(z + work.slab, count)), y, x)
        tensor = torch.from_numpy(planes)
        return tensor.pin_memory() if work.device.type == "cuda" else tensor

    for z, planes in zip(starts, ahead(partial(read, z) for z in starts), strict=True):
        yield z, planes.to(work.device, non_blocking=True)


def around(tile: Tile, rim: int, reach: int) -> tuple[slice, slice]:
    """A core and ``reach`` pixels around it, in an array with a rim of its own."""
    return (
        slice(tile.y0 + rim - reach, tile.y1 + rim + reach),
        slice(tile.x0 + rim - reach, tile.x1 + rim + reach),
    )


def moved(window: slice, by: int) -> slice:
    """A window in coordinates that begin ``by`` pixels earlier."""
    return slice(window.start + by, window.stop + by)


def shifted(window: tuple[slice, slice], by: int) -> tuple[slice, slice]:
    """A window of a plane, in an array that has ``by`` more pixels on each side."""
    return moved(window[0], by), moved(window[1], by)
