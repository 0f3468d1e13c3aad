"""What is done to one region of a plane: scored slice by slice, then fused.

A region is a part of the plane whose running state fits into the working memory (often
the whole plane). Slices stream through it one after the other, so that each stored
chunk is read once and memory does not grow with their number; inside it, models work on
tiles. Both functions read their region and what lies around it and give back arrays:
they can run anywhere, in any order.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_focus_fusion.composite import (
    ALIKE_RADIUS,
    COMPOSITE_HALO,
    GUIDE_RADIUS,
    NOISE_RADIUS,
    Blend,
    label_weights,
    least_noise_bias,
    likeness,
    noise_energy,
)
from napari_focus_fusion.decision import (
    VERIFY_HALO,
    Maps,
    RunningDecision,
    aggregate,
    aggregate_halo,
    verify,
)
from napari_focus_fusion.device import is_out_of_memory
from napari_focus_fusion.engine.reading import Reference, ahead, read_components
from napari_focus_fusion.errors import Cancelled
from napari_focus_fusion.models.base import PairMasker, SetMasker, SliceScorer, as_batch
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_focus_fusion.models.base import FusionModel

#: Side of the blocks in which planes are swept: a few of them fit into a core's cache.
SWEEP = 512
#: Around a region, the maps that fusing it must see.
FINISH_HALO = VERIFY_HALO + COMPOSITE_HALO


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


def score_region(work: Work, region: Tile) -> Maps:
    """Raw maps of a region's core: scores of all slices, best one at each pixel.

    Parameters
    ----------
    work
        The run.
    region
        Its core in the plane's pixels.

    Returns
    -------
    Maps
        Of the core's shape, not verified.
    """
    running = RunningDecision((region.height, region.width), work.device)
    if isinstance(work.model, SetMasker):
        _score_sets(work, region, running)
        return running.maps()
    rim = aggregate_halo(work.model.window)
    blocks = list(TilePlan(region.height, region.width, (SWEEP, SWEEP)))
    for z, scores in _score_planes(work, region, rim):
        for i, score in enumerate(scores):
            for block in blocks:
                summed = work.aggregate(score[_around(block, rim, rim)])
                running.update(z + i, summed, block.y, block.x)
    return running.maps()


def _score_planes(work: Work, region: Tile, rim: int) -> Iterator[tuple[int, Tensor]]:
    """Slab by slab: first slice, and scores (n, h, w) of the region and its rim."""
    high, wide = region.height + 2 * rim, region.width + 2 * rim
    if isinstance(work.model, SliceScorer):
        score = partial(work.model.score, context=work.context)
        rivals = None
    else:
        assert isinstance(work.model, PairMasker)
        score = partial(_against, work.model, context=work.context)
        rivals = _rivals(work, region, rim + work.halo)
    plan = TilePlan(high, wide, (work.tile, work.tile), work.halo)
    scores = torch.empty(work.slab, high, wide, device=work.device)
    # The rim is work too, but none that the run has planned.
    share = region.height * region.width / (high * wide)
    for z, planes in _slabs(work, region, rim + work.halo):
        for tile in plan:
            y, x = _shifted(plan.window_of(tile), work.halo)
            batch = planes[:, y, x]
            if rivals is not None:
                batch = torch.stack([batch, rivals.against(z, len(batch), y, x)], 1)
            found = _within_memory(work, score, batch)
            scores[: len(batch), tile.y, tile.x] = found[:, *tile.inside]
            work.done(len(batch) * tile.height * tile.width * share)
        yield z, scores[: len(planes)]


def _score_sets(work: Work, region: Tile, running: RunningDecision) -> None:
    """Tile by tile, all slices of a tile at once."""
    rim = work.halo + aggregate_halo(work.model.window)
    plan = TilePlan(region.height, region.width, (work.tile, work.tile), rim)
    assert isinstance(work.model, SetMasker)
    masks = partial(_masks, work.model, context=work.context)
    everything = slice(0, work.reference.stack.n_slices)

    def read(tile: Tile) -> np.ndarray:
        y, x = plan.window_of(tile)
        return work.reference.planes(
            everything, _moved(y, region.y0), _moved(x, region.x0)
        )

    for tile, planes in zip(
        plan, ahead(partial(read, tile) for tile in plan), strict=True
    ):
        on_device = torch.from_numpy(planes).to(work.device)
        weights = _within_memory(work, masks, on_device[None])[0]
        seen = slice(work.halo, -work.halo or None)
        for z, weight in enumerate(weights[:, seen, seen]):
            score = work.aggregate(weight)
            core = _shifted(tile.inside, -rim)
            running.update(z, score[core], tile.y, tile.x)
        work.done(len(planes) * tile.height * tile.width)


def _slabs(work: Work, region: Tile, rim: int) -> Iterator[tuple[int, Tensor]]:
    """First slice and planes (n, h, w) of each slab, on the device, read ahead."""
    y = slice(region.y0 - rim, region.y1 + rim)
    x = slice(region.x0 - rim, region.x1 + rim)
    count = work.reference.stack.n_slices
    starts = range(0, count, work.slab)

    def read(z: int) -> Tensor:
        planes = work.reference.planes(slice(z, min(z + work.slab, count)), y, x)
        tensor = torch.from_numpy(planes)
        return tensor.pin_memory() if work.device.type == "cuda" else tensor

    for z, planes in zip(starts, ahead(partial(read, z) for z in starts), strict=True):
        yield z, planes.to(work.device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class _Rivals:
    """At each pixel the best slice and the second best, by the plain focus measure."""

    index: Tensor
    best: Tensor
    second: Tensor

    def against(self, z: int, count: int, y: slice, x: slice) -> Tensor:
        """(count, h, w): for slices from ``z`` on, the best of the others."""
        index, best, second = (a[y, x] for a in (self.index, self.best, self.second))
        return torch.stack(
            [torch.where(index == z + i, second, best) for i in range(count)]
        )


def _rivals(work: Work, region: Tile, rim: int) -> _Rivals:
    """One pass of the plain focus measure over a region and its rim."""
    plain = SumModifiedLaplacian()
    reach = rim + 1 + aggregate_halo(plain.window)
    rest = aggregate_halo(plain.window)
    shape = (region.height + 2 * rim, region.width + 2 * rim)
    top, runner_up = (torch.full(shape, -1.0, device=work.device) for _ in "12")
    best, second = (torch.zeros(shape, device=work.device) for _ in "12")
    index = torch.zeros(shape, dtype=torch.int16, device=work.device)
    for z, planes in _slabs(work, region, reach):
        work.done(0)
        for i, plane in enumerate(planes):
            score = plain.score(plane[None, None])[0, 1:-1, 1:-1]
            score = aggregate(score, plain.window, work.smoothness)
            shown = plane[1 + rest : -1 - rest, 1 + rest : -1 - rest]
            first, close = score > top, score > runner_up
            second = torch.where(first, best, torch.where(close, shown, second))
            runner_up = torch.where(first, top, torch.where(close, score, runner_up))
            best = torch.where(first, shown, best)
            top = torch.where(first, score, top)
            index.masked_fill_(first, z + i)
    return _Rivals(index, best, second)


def _against(model: PairMasker, batch: Tensor, context: Any) -> Tensor:
    """(n, 2, h, w): slices and their rivals -> (n, h, w)."""
    a, b = as_batch(batch[:, 0, 0]), as_batch(batch[:, 0, 1])
    return model.mask(a, b, context)


def _masks(model: SetMasker, batch: Tensor, context: Any) -> Tensor:
    """(1, 1, N, h, w) -> (1, N, h, w)."""
    return model.masks(as_batch(batch[0, 0]), context)[None]


def _within_memory(
    work: Work, function: Callable[[Tensor], Tensor], batch: Tensor
) -> Tensor:
    """Apply a model to (n, ..., h, w); halve the batch when memory runs out.

    First the slices are halved, then the tile, down to what is no longer worth it;
    then the tile is computed on the CPU. What has once been too large is not tried
    again.
    """
    pixels = batch.shape[0] * batch.shape[-2] * batch.shape[-1]
    if pixels < work.most_pixels:
        try:
            with torch.inference_mode():
                return function(batch[:, None])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        work.most_pixels = pixels
        if work.device.type == "cuda":
            torch.cuda.empty_cache()
    if batch.shape[0] > 1:
        return torch.cat(
            [_within_memory(work, function, half) for half in batch.tensor_split(2)]
        )
    axis = -1 if batch.shape[-1] >= batch.shape[-2] else -2
    length = batch.shape[axis]
    if length >= 4 * work.halo + 64:
        middle = length // 2
        low = batch.narrow(axis, 0, middle + work.halo)
        high = batch.narrow(axis, middle - work.halo, length - middle + work.halo)
        parts = [
            _within_memory(work, function, low).narrow(axis, 0, middle),
            _within_memory(work, function, high).narrow(
                axis, work.halo, length - middle
            ),
        ]
        return torch.cat(parts, axis)
    if work.device.type == "cpu":
        raise MemoryError(
            "There is not enough memory even for the smallest tile. Close other "
            "programs, or crop the stack."
        )
    return _on_cpu(work, function, batch)


def _on_cpu(work: Work, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """The last resort when the device has no room even for a small tile."""
    note = (
        f"{work.device} ran out of memory even for small tiles; the CPU took over, "
        "which is slower. Close what else uses the graphics card."
    )
    if note not in work.notes:
        work.notes.append(note)
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    assert isinstance(function, partial)
    context = function.keywords["context"]
    keywords = {"context": moved_to(context, torch.device("cpu"))}
    work.model.to("cpu")
    try:
        with torch.inference_mode():
            found = function.func(*function.args, batch[:, None].cpu(), **keywords)
    finally:
        work.model.to(work.device)
    return found.to(work.device)


def moved_to(value: Any, device: torch.device) -> Any:
    """Tensors, in whatever tuples, on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        moved = [moved_to(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    return value


def finish_region(
    work: Work, region: Tile, raw: Maps, rim: Tile
) -> tuple[np.ndarray, Maps]:
    """Verified maps and fused pixels of a region's core.

    Parameters
    ----------
    work
        The run.
    region
        Its core in the plane's pixels.
    raw
        Raw maps of ``rim``.
    rim
        The core and :data:`FINISH_HALO` pixels around it, inside the plane.

    Returns
    -------
    fused : ndarray
        (components, h, w) in the stack's dtype.
    maps : Maps
        Of the core.
    """
    verified = verify(raw) if work.verified else raw
    inside = (
        slice(region.y0 - rim.y0, region.y1 - rim.y0),
        slice(region.x0 - rim.x0, region.x1 - rim.x0),
    )
    maps = Maps(*(np.ascontiguousarray(a[inside]) for a in verified))
    if work.blend == "select":
        return _select(work, region, maps.labels), maps
    # The image is mirrored at its border, and so is what was decided of it.
    missing = [
        (max(COMPOSITE_HALO - before, 0), max(COMPOSITE_HALO - after, 0))
        for before, after in (
            (region.y0 - rim.y0, rim.y1 - region.y1),
            (region.x0 - rim.x0, rim.x1 - region.x1),
        )
    ]
    padded = np.pad(verified.labels, missing, mode="symmetric")
    y = region.y0 - rim.y0 + missing[0][0] - COMPOSITE_HALO
    x = region.x0 - rim.x0 + missing[1][0] - COMPOSITE_HALO
    around = padded[
        y : y + region.height + 2 * COMPOSITE_HALO,
        x : x + region.width + 2 * COMPOSITE_HALO,
    ]
    return _feather(work, region, np.ascontiguousarray(around)), maps


def _select(work: Work, region: Tile, index: np.ndarray) -> np.ndarray:
    """(components, h, w): every pixel as observed in its slice."""
    stack = work.reference.stack
    fused = np.zeros((stack.n_components, *index.shape), stack.dtype)
    used = [int(z) for z in np.unique(index)]
    for z, block in _component_slices(work, region, 0, used):
        np.copyto(fused, block, where=index == z)
        work.done(index.size)
    work.tick(index.size * (stack.n_slices - len(used)))
    return fused


def _component_slices(
    work: Work, region: Tile, rim: int, slices: list[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Each slice with all components (components, h, w) of a region, read ahead."""
    stack = work.reference.stack
    y = slice(region.y0 - rim, region.y1 + rim)
    x = slice(region.x0 - rim, region.x1 + rim)
    components = list(range(stack.n_components))

    def read(z: int) -> np.ndarray:
        z_slice = slice(z, z + 1)
        t = work.reference.t
        return read_components(stack, t, components, z_slice, y, x)[:, 0]

    yield from zip(slices, ahead(partial(read, z) for z in slices), strict=True)


def _feather(work: Work, region: Tile, index: np.ndarray) -> np.ndarray:
    """(components, h, w): selected, softened at seams, averaged where slices agree.

    ``index`` has :data:`COMPOSITE_HALO` pixels around the region. The fused image is
    the selected one plus a weighted mean of differences to it, so that equal slices
    give exactly themselves.
    """
    reference, stack, rim = work.reference, work.reference.stack, COMPOSITE_HALO
    device, core = work.device, (region.height, region.width)
    blocks = list(TilePlan(*core, (SWEEP, SWEEP)))
    everything = list(range(stack.n_slices))

    chosen = np.zeros((stack.n_components, *index.shape), stack.dtype)
    noise = torch.full(core, torch.inf, device=device)
    for z, values in _component_slices(work, region, rim, everything):
        np.copyto(chosen, values, where=index == z)
        plane = torch.from_numpy(reference.mixed(values)).to(device)
        for block in blocks:
            least = noise[block.y, block.x]
            energy = noise_energy(plane[_around(block, rim, NOISE_RADIUS + 1)])
            torch.minimum(least, energy, out=least)
        work.done(region.height * region.width)
    noise /= least_noise_bias(stack.n_slices)

    labels = torch.from_numpy(index.astype(np.int32)).to(device)
    guide = torch.from_numpy(reference.mixed(chosen)).to(device)
    precise = stack.dtype.itemsize > 2 and stack.dtype != np.float32
    inner = (slice(None), slice(rim, -rim), slice(rim, -rim))
    selected = chosen[inner].astype(np.float64 if precise else np.float32)
    near = [torch.unique(labels[_around(b, rim, 2 * GUIDE_RADIUS)]) for b in blocks]
    present = [set(found.tolist()) for found in near]
    # Twice as precise as what is added up, so that the sums do not tell in which order
    # the slices came.
    total = np.zeros(core)
    added = np.zeros(selected.shape)
    for z, values in _component_slices(work, region, rim, everything):
        plane = torch.from_numpy(reference.mixed(values)).to(device)
        for block, labels_near in zip(blocks, present, strict=True):
            place = (block.y, block.x)
            window = _around(block, rim, ALIKE_RADIUS)
            weight = likeness(plane[window], guide[window], noise[place])
            if z in labels_near:
                window = _around(block, rim, 2 * GUIDE_RADIUS)
                own = label_weights(labels[window], z, guide[window])
                weight = torch.maximum(weight, own)
            share = weight.cpu().numpy()
            total[place] += share
            for c, component in enumerate(values):
                observed = component[_around(block, rim, 0)]
                difference = observed - selected[c][place]
                added[c][place] += share * difference.astype(np.float32, copy=False)
        work.done(region.height * region.width)
    added /= np.maximum(total, 1e-6)
    np.add(added, selected, out=added)
    return _as_dtype(added, stack.dtype)


def _as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded and clipped to an integer type, or cast to a float one."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        np.rint(values, out=values)
        return values.clip(limits.min, limits.max, out=values).astype(dtype)
    return values.astype(dtype)


def _around(tile: Tile, rim: int, reach: int) -> tuple[slice, slice]:
    """A core and ``reach`` pixels around it, in an array with a rim of its own."""
    return (
        slice(tile.y0 + rim - reach, tile.y1 + rim + reach),
        slice(tile.x0 + rim - reach, tile.x1 + rim + reach),
    )


def _moved(window: slice, by: int) -> slice:
    return slice(window.start + by, window.stop + by)


def _shifted(window: tuple[slice, slice], by: int) -> tuple[slice, slice]:
    """A window of a plane, in an array that has ``by`` more pixels on each side."""
    return _moved(window[0], by), _moved(window[1], by)
