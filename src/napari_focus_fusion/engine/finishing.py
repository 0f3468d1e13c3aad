"""Fusing a region: its decision verified, its pixels taken from their slices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.composite import (
    COMPOSITE_HALO,
    GUIDE_RADIUS,
    NOISE_RADIUS,
    SIMILARITY_RADIUS,
    label_weights,
    least_noise_bias,
    noise_energy,
    similarity,
)
from napari_focus_fusion.decision import VERIFY_HALO, Maps, verify
from napari_focus_fusion.engine.normalise import is_wide
from napari_focus_fusion.engine.reading import prefetch, read_components
from napari_focus_fusion.engine.scoring import BLOCK_SIDE
from napari_focus_fusion.tiling import TilePlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.tiling import Rectangle

#: Pixels around a region whose raw maps are needed to fuse it.
FINISH_HALO = VERIFY_HALO + COMPOSITE_HALO


def finish_region(
    point: Prepared,
    region: Rectangle,
    raw: Maps,
    area: Rectangle,
    monitor: Monitor,
    reconstructions: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, Maps]:
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
        The region and :data:`FINISH_HALO` pixels around it, inside the plane.
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
    """
    verified = verify(raw) if point.plan.settings.verify else raw
    inside = region.moved(-area.y0, -area.x0).slices
    maps = Maps(*(np.ascontiguousarray(values[inside]) for values in verified))
    fused = compose_region(
        point, region, verified.labels, area, monitor, reconstructions
    )
    return fused, maps


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
        The region and :data:`~napari_focus_fusion.composite.COMPOSITE_HALO` pixels
        around it, inside the plane; it may be larger.
    point, region, monitor, reconstructions
        As :func:`finish_region` takes them.

    Returns
    -------
    ndarray
        (components, h, w) in the stack's dtype.
    """
    stack = point.plan.stack
    inside = region.moved(-area.y0, -area.x0)
    if point.plan.settings.blend == "select":
        return _select(point, region, labels[inside.slices], monitor)
    # The image is mirrored at its border, and so is its decision map.
    missing = [
        (max(COMPOSITE_HALO - before, 0), max(COMPOSITE_HALO - after, 0))
        for before, after in (
            (inside.y0, area.height - inside.y1),
            (inside.x0, area.width - inside.x1),
        )
    ]
    padded = np.pad(labels, missing, mode="symmetric")
    surrounded = inside.moved(missing[0][0], missing[1][0]).grown(COMPOSITE_HALO)
    fused = _feather(
        point, region, np.ascontiguousarray(padded[surrounded.slices]), monitor
    )
    for channel, reconstruction in zip(point.channels, reconstructions, strict=False):
        _apply_luminance(fused, channel, reconstruction)
    return as_dtype(fused, stack.dtype)


def _apply_luminance(
    fused: np.ndarray, channel: Reference, reconstruction: np.ndarray
) -> None:
    """Give fused components the brightness of a reconstruction, in place.

    Hues stay: all samples of a pixel change by the difference of its luminance.
    """
    missing = (reconstruction - channel.mixed(fused)).astype(fused.dtype, copy=False)
    missing *= channel.white - channel.black
    for component, weight in zip(fused, channel.weights, strict=True):
        if weight:
            component += missing


def _select(
    point: Prepared, region: Rectangle, labels: np.ndarray, monitor: Monitor
) -> np.ndarray:
    """(components, h, w): every pixel as observed in its slice."""
    stack = point.plan.stack
    fused = np.zeros((stack.n_components, *labels.shape), stack.dtype)
    used = [int(z) for z in np.unique(labels)]
    for z, values in component_slices(point, region, used):
        np.copyto(fused, values, where=labels == z)
        monitor.advance(labels.size)
    monitor.advance(labels.size * (stack.n_slices - len(used)))
    return fused


def component_slices(
    point: Prepared, area: Rectangle, slices: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Each of some slices with all its components (components, h, w), prefetched."""
    read = partial(_read_components, point, area)
    yield from zip(slices, prefetch(partial(read, z) for z in slices), strict=True)


def _read_components(point: Prepared, area: Rectangle, z: int) -> np.ndarray:
    stack = point.plan.stack
    components = list(range(stack.n_components))
    z_slice = slice(z, z + 1)
    return read_components(stack, point.t, components, z_slice, area.y, area.x)[:, 0]


def _slices_and_planes(
    point: Prepared, area: Rectangle
) -> Iterator[tuple[int, np.ndarray, Tensor]]:
    """Every slice: its components (components, h, w), and its reference plane."""
    reference, device = point.reference, point.plan.device
    own = reference.stack is point.plan.stack

    def read(z: int) -> tuple[np.ndarray, np.ndarray | None]:
        values = _read_components(point, area, z)
        if own:
            return values, None
        return values, reference.planes(slice(z, z + 1), area.y, area.x)[0]

    slices = range(point.plan.stack.n_slices)
    for z, (values, plane) in zip(
        slices, prefetch(partial(read, z) for z in slices), strict=True
    ):
        plane = reference.mixed(values) if plane is None else plane
        yield z, values, torch.from_numpy(plane).to(device)


def _feather(
    point: Prepared, region: Rectangle, index: np.ndarray, monitor: Monitor
) -> np.ndarray:
    """(components, h, w): selected, softened at seams, averaged where slices agree.

    Floating point numbers on the scale of the stack.

    ``index`` has :data:`COMPOSITE_HALO` pixels around the region. The fused image is
    the selected one plus a weighted mean of differences to it, so that equal slices
    give exactly themselves.
    """
    selected_planes, guide, noise = _selected_and_noise(point, region, index, monitor)
    stack, device, halo = point.plan.stack, point.plan.device, COMPOSITE_HALO
    labels = torch.from_numpy(index.astype(np.int32)).to(device)
    blocks = list(TilePlan(region.height, region.width, (BLOCK_SIDE, BLOCK_SIDE)))
    inner = (slice(None), slice(halo, -halo), slice(halo, -halo))
    selected = selected_planes[inner].astype(
        np.float64 if is_wide(stack.dtype) else np.float32
    )
    present = [
        set(labels[block.window(2 * GUIDE_RADIUS, offset=halo)].unique().tolist())
        for block in blocks
    ]
    # Twice as precise as what is added up, so that the sums do not depend on the order
    # of the slices.
    total = np.zeros((region.height, region.width))
    added = np.zeros(selected.shape)
    for z, values, plane in _slices_and_planes(point, region.grown(halo)):
        for block, labels_near in zip(blocks, present, strict=True):
            window = block.window(SIMILARITY_RADIUS, offset=halo)
            weight = similarity(plane[window], guide[window], noise[block.slices])
            if z in labels_near:
                window = block.window(2 * GUIDE_RADIUS, offset=halo)
                own = label_weights(labels[window], z, guide[window])
                weight = torch.maximum(weight, own)
            share = weight.cpu().numpy()
            total[block.slices] += share
            for c, component in enumerate(values):
                observed = component[block.window(0, offset=halo)]
                difference = observed - selected[c][block.slices]
                added[c][block.slices] += share * difference
        monitor.advance(region.area / 2)
    added /= np.maximum(total, 1e-6)
    return np.add(added, selected, out=added)


def _selected_and_noise(
    point: Prepared, region: Rectangle, index: np.ndarray, monitor: Monitor
) -> tuple[np.ndarray, Tensor, Tensor]:
    """One pass over the slices: the pixels that the decision selects, and the noise.

    Returns
    -------
    selected_planes : ndarray
        (components, h, w), like ``index`` with a halo, in the stack's dtype.
    guide : Tensor
        (h, w), the selected reference plane, normalised, with a halo.
    noise : Tensor
        (h, w), variance of the noise of one slice, without a halo.
    """
    reference, stack = point.reference, point.plan.stack
    device, halo = point.plan.device, COMPOSITE_HALO
    own = reference.stack is stack
    selected_planes = np.zeros((stack.n_components, *index.shape), stack.dtype)
    guide = None if own else np.zeros(index.shape, np.float32)
    noise = torch.full((region.height, region.width), torch.inf, device=device)
    for z, values, plane in _slices_and_planes(point, region.grown(halo)):
        np.copyto(selected_planes, values, where=index == z)
        if guide is not None:
            np.copyto(guide, plane.cpu().numpy(), where=index == z)
        for block in TilePlan(region.height, region.width, (BLOCK_SIDE, BLOCK_SIDE)):
            least = noise[block.slices]
            energy = noise_energy(plane[block.window(NOISE_RADIUS + 1, offset=halo)])
            torch.minimum(least, energy, out=least)
        monitor.advance(region.area / 2)
    noise /= least_noise_bias(stack.n_slices)
    if guide is None:
        guide = reference.mixed(selected_planes)
    return selected_planes, torch.from_numpy(guide).to(device), noise


def as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded and clipped to an integer type, or cast to a float one."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        np.rint(values, out=values)
        return values.clip(limits.min, limits.max, out=values).astype(dtype)
    return values.astype(dtype)
