"""Fusing a region: its decision verified, its pixels taken from their slices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_focus_fusion.composite import (
    BANDS_HALO,
    COMPOSITE_HALO,
    GUIDE_RADIUS,
    SIMILARITY_RADIUS,
    RunningNoise,
    background_weight,
    colour_slopes,
    label_weights,
    similarity,
)
from napari_focus_fusion.decision import VERIFY_HALO, Maps, verify, without_specks
from napari_focus_fusion.engine.bands import coarse_change
from napari_focus_fusion.engine.beyond import RunningRange
from napari_focus_fusion.engine.normalise import is_wide
from napari_focus_fusion.engine.reading import prefetch, read_components
from napari_focus_fusion.engine.scoring import blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.tiling import Rectangle

#: Pixels around a region whose raw maps are needed to fuse it without bands.
FINISH_HALO = VERIFY_HALO + COMPOSITE_HALO
#: A region inside its halo.
_INNER = (slice(COMPOSITE_HALO, -COMPOSITE_HALO),) * 2


def finish_region(
    point: Prepared,
    region: Rectangle,
    raw: Maps,
    area: Rectangle,
    monitor: Monitor,
    reconstructions: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, Maps, np.ndarray | None]:
    """Verified maps and fused pixels of a region.

    Parameters
    ----------
    point
        The time point.
    region
        In the plane's pixels.
    raw
        Raw maps of ``area``.
    area
        The region and ``plan.finishing_halo`` pixels around it, inside the plane.
    monitor
        Counts pixels x slices.
    reconstructions
        The reconstruction of each channel (h, w), normalised as ``point.channels``;
        none where pixels are only taken from slices.

    Returns
    -------
    fused : ndarray
        (components, h, w) in the stack's dtype.
    maps : Maps
        Of the region.
    beyond : ndarray or None
        How far the pixels lie beyond all slices, as :meth:`RunningRange.beyond` has it;
        None where they are only taken from slices.
    """
    plan = point.plan
    verified = raw
    if plan.settings.verify:
        if plan.surface is None:
            verified = verify(raw, plan.low_confidence)
        else:
            verified = without_specks(raw)
    inside = region.moved(-area.y0, -area.x0).slices
    maps = Maps(*(np.ascontiguousarray(values[inside]) for values in verified))
    background = None
    if plan.settings.background == "mean":
        background = background_weight(maps.confidence)
    fused, labels, beyond = _compose(
        point,
        region,
        verified.labels,
        area,
        monitor,
        reconstructions,
        raw.labels,
        background,
    )
    moved = labels != maps.labels
    if moved.any():
        maps = Maps(labels, maps.confidence, np.where(moved, labels, maps.depth))
    return fused, maps, beyond


def compose_region(
    point: Prepared,
    region: Rectangle,
    labels: np.ndarray,
    area: Rectangle,
    monitor: Monitor,
    reconstructions: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Fused pixels of a region, by a final decision map.

    Parameters
    ----------
    labels
        The decision map of ``area``, uint16.
    area
        The region and :func:`composing_halo` pixels around it, inside the plane; it
        may be larger.
    point, region, monitor, reconstructions
        As :func:`finish_region` takes them.

    Returns
    -------
    ndarray
        (components, h, w) in the stack's dtype. A pixel that its slice does not have is
        taken from the nearest that has it; where none has, it is NaN, or 0 in integers.
    """
    return _compose(point, region, labels, area, monitor, reconstructions, labels)[0]


def _compose(
    point: Prepared,
    region: Rectangle,
    labels: np.ndarray,
    area: Rectangle,
    monitor: Monitor,
    reconstructions: Sequence[np.ndarray],
    instead: np.ndarray,
    background: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """What :func:`compose_region` gives; the slices that were taken, (h, w); beyond.

    The last as :func:`finish_region` has it. ``instead`` is the decision map for pixels
    that the slice of ``labels`` lacks; ``background`` (h, w) is the weight that every
    slice has at least.
    """
    stack = point.plan.stack
    inside = region.moved(-area.y0, -area.x0)
    if point.plan.settings.blend == "select":
        fused, index = _select(
            point, region, labels[inside.slices], instead[inside.slices], monitor
        )
        return fused, index, None
    index, otherwise = (
        _with_halo(a, inside, area, COMPOSITE_HALO) for a in (labels, instead)
    )
    shown = None
    if reconstructions:
        shown = RunningRange(point.channels, region, point.plan.device)
    fused, chosen = _feather(
        point, region, index, otherwise, monitor, background, shown
    )
    if point.plan.settings.blend == "bands":
        around = _with_halo(labels, inside, area, BANDS_HALO)
        fused += coarse_change(point, region, around, monitor)
    for channel, reconstruction in zip(point.channels, reconstructions, strict=False):
        _apply_luminance(
            fused, channel, reconstruction, point.plan.settings.strength, chosen
        )
    pixels = as_dtype(fused, stack.dtype)
    if chosen.nowhere is not None:
        nowhere = chosen.nowhere[:, *_INNER]
        pixels[nowhere] = _nothing(stack.dtype)
        if point.plan.model is None:  # nothing was scored, and nothing counted
            lacking = torch.from_numpy(nowhere.any(0)) * stack.n_slices
            monitor.count_absent(lacking, stack.n_slices)
    beyond = None
    if shown is not None:
        beyond = shown.beyond(pixels)
        monitor.beyond += int(shown.is_clear(beyond).sum())
    return pixels, np.ascontiguousarray(chosen.labels[_INNER]), beyond


def _with_halo(
    labels: np.ndarray, inside: Rectangle, area: Rectangle, halo: int
) -> np.ndarray:
    """Of a map of an area what lies inside and a halo, mirrored where the area ends.

    The image is mirrored at its border, and so is its decision map.
    """
    missing = [
        (max(halo - before, 0), max(halo - after, 0))
        for before, after in (
            (inside.y0, area.height - inside.y1),
            (inside.x0, area.width - inside.x1),
        )
    ]
    surrounded = inside.moved(missing[0][0], missing[1][0]).grown(halo)
    padded = np.pad(labels, missing, mode="symmetric")
    return np.ascontiguousarray(padded[surrounded.slices])


def _nothing(dtype: np.dtype) -> float:
    """What a fused pixel is that no slice has."""
    return np.nan if dtype.kind == "f" else 0


def _apply_luminance(
    fused: np.ndarray,
    channel: Reference,
    reconstruction: np.ndarray,
    strength: float,
    chosen: _Chosen,
) -> None:
    """Give fused components the brightness of a reconstruction, in place.

    Or so much of the difference, ``strength``. Of RGB each colour changes as it does
    around the pixel where the brightness changes: a cell stays as red as its
    surroundings where it gets darker.
    """
    missing = (reconstruction - channel.mixed(fused)).astype(fused.dtype, copy=False)
    missing *= strength * (channel.white - channel.black)
    used = [c for c, weight in enumerate(channel.weights) if weight]
    if len(used) == 1:
        fused[used[0]] += missing
        return
    colours = chosen.pixels[used].astype(fused.dtype) - channel.black
    colours = (colours / (channel.white - channel.black)).astype(np.float32)
    weights = [channel.weights[c] for c in used]
    slopes = colour_slopes(
        torch.from_numpy(colours).to(chosen.noise.device), weights, chosen.noise
    )
    for c, slope in zip(used, slopes.cpu().numpy(), strict=True):
        fused[c] += missing * slope


def _select(
    point: Prepared,
    region: Rectangle,
    labels: np.ndarray,
    instead: np.ndarray,
    monitor: Monitor,
) -> tuple[np.ndarray, np.ndarray]:
    """(components, h, w): every pixel as observed in its slice; and these slices."""
    stack = point.plan.stack
    fused = np.zeros((stack.n_components, *labels.shape), stack.dtype)
    missing: np.ndarray | None = None
    used = [int(z) for z in np.unique(labels)]
    for z, values, present in component_slices(point, region, used):
        here = labels == z
        np.copyto(fused, values, where=here)
        missing = _with_missing(missing, present, here)
        monitor.advance(labels.size)
    monitor.advance(labels.size * (stack.n_slices - len(used)))
    if missing is not None:
        labels = _take_nearest(point, region, labels, instead, fused, missing)
        fused[missing] = _nothing(stack.dtype)
    return fused, labels


def _with_missing(
    missing: np.ndarray | None, present: np.ndarray | None, here: np.ndarray
) -> np.ndarray | None:
    """What is missing, and what a slice does not have of the pixels taken from it."""
    if present is None or (present | ~here).all():
        return missing
    lacking = ~present & here
    return lacking if missing is None else missing | lacking


def _take_nearest(
    point: Prepared,
    area: Rectangle,
    index: np.ndarray,
    instead: np.ndarray,
    selected: np.ndarray,
    missing: np.ndarray,
) -> np.ndarray:
    """Pixels that their slice does not have, from the nearest slice that has them.

    Nearest to that of ``instead``, the map before verification, which names no absent
    pixel where there is another.

    Parameters
    ----------
    area
        Where; it may extend outside the image.
    index
        (h, w), the decision map.
    selected
        (components, h, w), filled in place.
    missing
        (components, h, w) bool; True is left where no slice has the pixel.

    Returns
    -------
    ndarray
        The decision map, with the slice that the reference plane is taken from.
    """
    far = np.iinfo(np.int32).max
    distance = np.where(missing, far, -1)
    nearest, wanted = index.copy(), instead.astype(np.int32)
    own = point.guide.stack is point.plan.stack
    leading = point.guide.used[0] if own else 0
    slices = range(point.plan.stack.n_slices)
    for z, values, present in component_slices(point, area, slices):
        away = np.abs(wanted - z)
        closer = away < distance
        if present is not None:
            closer &= present
        np.copyto(selected, values, where=closer)
        np.copyto(distance, away, where=closer)
        np.copyto(nearest, z, where=closer[leading])
    np.equal(distance, far, out=missing)
    return nearest


def component_slices(
    point: Prepared, area: Rectangle, slices: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Each of some slices with all its components (components, h, w), prefetched.

    And where they are present, bool of the same shape; None: everywhere.
    """
    read = partial(_read_components, point, area)
    for z, found in zip(
        slices, prefetch(partial(read, z) for z in slices), strict=True
    ):
        yield z, *found


def _read_components(
    point: Prepared, area: Rectangle, z: int
) -> tuple[np.ndarray, np.ndarray | None]:
    stack = point.plan.stack
    components = list(range(stack.n_components))
    values, present = read_components(
        stack, point.t, components, slice(z, z + 1), area.y, area.x
    )
    return values[:, 0], None if present is None else present[:, 0]


class _Slice(NamedTuple):
    """A slice of an area: its components, and its reference plane.

    Attributes
    ----------
    z
        Which.
    values
        (components, h, w).
    present
        Where these are present, bool; None: everywhere.
    plane
        (h, w), normalised, on the device.
    seen
        (h, w) bool, on the device, where the plane has a pixel; None: everywhere.
    """

    z: int
    values: np.ndarray
    present: np.ndarray | None
    plane: Tensor
    seen: Tensor | None


def _slices_and_planes(point: Prepared, area: Rectangle) -> Iterator[_Slice]:
    """Every slice of an area."""
    reference, device = point.guide, point.plan.device
    own = reference.stack is point.plan.stack

    def read(z: int) -> tuple[np.ndarray | None, ...]:
        values, present = _read_components(point, area, z)
        if own:
            seen = (
                None if present is None else np.asarray(present[reference.used].all(0))
            )
            return values, present, None, seen
        planes, seen = reference.observed(slice(z, z + 1), area.y, area.x)
        return values, present, planes[0], None if seen is None else seen[0]

    slices = range(point.plan.stack.n_slices)
    for z, (values, present, plane, seen) in zip(
        slices, prefetch(partial(read, z) for z in slices), strict=True
    ):
        assert values is not None
        plane = reference.mixed(values) if plane is None else plane
        yield _Slice(
            z,
            values,
            present,
            torch.from_numpy(plane).to(device),
            None if seen is None else torch.from_numpy(seen).to(device),
        )


def _feather(
    point: Prepared,
    region: Rectangle,
    index: np.ndarray,
    instead: np.ndarray,
    monitor: Monitor,
    background: np.ndarray | None,
    shown: RunningRange | None,
) -> tuple[np.ndarray, _Chosen]:
    """Selected, softened at seams, averaged where slices agree and in the background.

    ``index`` and ``instead``, the decision for pixels that a slice of the first lacks,
    have :data:`COMPOSITE_HALO` pixels around the region. The fused image is
    the selected one plus a weighted mean of differences to it, so that equal slices
    give exactly themselves. ``shown`` takes in what the slices show.

    Returns
    -------
    fused : ndarray
        (components, h, w), floating point numbers on the scale of the stack.
    chosen : _Chosen
        What was selected, with a halo.
    """
    chosen = _selected_and_noise(point, region, index, instead, monitor)
    guide, noise = chosen.guide, chosen.noise
    stack, device, halo = point.plan.stack, point.plan.device, COMPOSITE_HALO
    labels = torch.from_numpy(chosen.labels.astype(np.int32)).to(device)
    blocks = blocks_of(region, device)
    # Where numbers have twice the precision of float32: not on Apple's cards.
    place = torch.device("cpu") if device.type == "mps" else device
    exact = np.float64 if is_wide(stack.dtype) else np.float32

    def pixels_of(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(exact)).to(place)

    selected = pixels_of(chosen.pixels[:, *_INNER])
    behind = None if background is None else torch.from_numpy(background).to(place)
    near_labels = [
        set(np.unique(chosen.labels[window]).tolist())
        for window in (block.window(2 * GUIDE_RADIUS, offset=halo) for block in blocks)
    ]
    # Twice as precise as what is added up, so that the sums do not depend on the order
    # of the slices.
    total = torch.zeros(selected.shape[1:], dtype=torch.float64, device=place)
    added = torch.zeros(selected.shape, dtype=torch.float64, device=place)
    # What components have less weight than that, because they are absent.
    lacking: Tensor | None = None
    for z, values, present, plane, seen in _slices_and_planes(
        point, region.grown(halo)
    ):
        if shown is not None:
            shown.update(values, present)
        both = chosen.seen if seen is None else seen
        if seen is not None and chosen.seen is not None:
            both = seen & chosen.seen
        pixels = pixels_of(values)
        there = None if present is None else torch.from_numpy(present).to(place)
        if there is not None and lacking is None:
            lacking = torch.zeros_like(added)
        for block, labels_near in zip(blocks, near_labels, strict=True):
            window = block.window(SIMILARITY_RADIUS, offset=halo)
            weight = similarity(
                plane[window],
                guide[window],
                noise[block.slices],
                None if both is None else both[window],
            )
            if z in labels_near:
                window = block.window(2 * GUIDE_RADIUS, offset=halo)
                own_weight = label_weights(labels[window], z, guide[window])
                weight = torch.maximum(weight, own_weight)
            share = weight.to(place)
            if behind is not None:
                share = torch.maximum(share, behind[block.slices])
            inside, here = block.window(0, offset=halo), (..., *block.slices)
            difference = pixels[:, *inside] - selected[here]
            difference *= share
            if there is not None and lacking is not None:
                shows = there[:, *inside]
                difference *= shows
                lacking[here] += share * ~shows
            total[here] += share
            added[here] += difference
        monitor.advance(region.area / 2)
    weights = total if lacking is None else total - lacking
    added /= weights.clamp_min(1e-6)
    added += selected
    return added.cpu().numpy(), chosen


class _Chosen(NamedTuple):
    """What the decision selects of an area, and the noise of the region inside.

    Attributes
    ----------
    pixels
        (components, h, w), in the stack's dtype, with a halo.
    nowhere
        (components, h, w) bool, pixels that no slice has; None: there are none.
    labels
        (h, w), the slices that were taken.
    guide
        (h, w), the selected reference plane, normalised, with a halo.
    seen
        (h, w) bool, where the guide has a pixel; None: everywhere.
    noise
        (h, w), variance of the noise of one slice, without a halo.
    """

    pixels: np.ndarray
    nowhere: np.ndarray | None
    labels: np.ndarray
    guide: Tensor
    seen: Tensor | None
    noise: Tensor


def _selected_and_noise(
    point: Prepared,
    region: Rectangle,
    index: np.ndarray,
    instead: np.ndarray,
    monitor: Monitor,
) -> _Chosen:
    """One pass over the slices: the pixels that the decision selects, and the noise."""
    reference, stack = point.guide, point.plan.stack
    device, area = point.plan.device, region.grown(COMPOSITE_HALO)
    own = reference.stack is stack
    values = np.zeros((stack.n_components, *index.shape), stack.dtype)
    guide = None if own else np.zeros(index.shape, np.float32)
    unseen: np.ndarray | None = None
    missing: np.ndarray | None = None
    noise = RunningNoise(region, device)
    for one in _slices_and_planes(point, area):
        here = index == one.z
        np.copyto(values, one.values, where=here)
        missing = _with_missing(missing, one.present, here)
        if guide is not None:
            np.copyto(guide, one.plane.cpu().numpy(), where=here)
            if one.seen is not None:
                unseen = _with_missing(unseen, one.seen.cpu().numpy(), here)
        noise.update(one.plane, COMPOSITE_HALO, one.seen)
        monitor.advance(region.area / 2)
    if missing is not None:
        index = _take_nearest(point, area, index, instead, values, missing)
        if own and missing[reference.used].any():
            unseen = np.asarray(missing[reference.used].any(0))
        missing = missing if missing.any() else None
    if guide is None:
        guide = reference.mixed(values)
    return _Chosen(
        values,
        missing,
        index,
        torch.from_numpy(guide).to(device),
        None if unseen is None else torch.from_numpy(~unseen).to(device),
        noise.variance(),
    )


def as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded and clipped to an integer type, or cast to a float one."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        np.rint(values, out=values)
        return values.clip(limits.min, limits.max, out=values).astype(dtype)
    return values.astype(dtype)
