"""Super-resolving a region: slices made finer where they are used, then fused.

Features of the slices on the finer grid are added up, weighted by the decision
(eq. 15 of the paper that ``affinity_sr.py`` names); a slice is processed only in the
tiles where some pixel came from it, so that the cost hardly grows with their number.
All sums lie on the source's grid, the pixels of the finer one side by side.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.composite import GUIDE_RADIUS, label_weights
from napari_focus_fusion.decision import Maps
from napari_focus_fusion.engine.costs import share_of_finer
from napari_focus_fusion.engine.fallback import NetworkCall, run_with_fallback
from napari_focus_fusion.engine.finishing import (
    FINISH_HALO,
    as_dtype,
    component_slices,
    finish_region,
)
from napari_focus_fusion.engine.normalise import is_wide, relative
from napari_focus_fusion.tiling import TilePlan, shifted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.engine.upscale import Upscale
    from napari_focus_fusion.models.base import SuperResolver
    from napari_focus_fusion.tiling import Rectangle, Tile


def super_resolving_halo(upscale: Upscale) -> int:
    """Pixels around a region whose raw maps are needed to super-resolve it."""
    return FINISH_HALO + _pixels_halo(upscale)


def super_resolve_region(
    point: Prepared, region: Rectangle, raw: Maps, area: Rectangle, monitor: Monitor
) -> tuple[np.ndarray, Maps, np.ndarray]:
    """Verified maps and finer fused pixels of a region.

    Parameters
    ----------
    point
        The time point, with ``point.plan.upscale``.
    region
        In the plane's pixels.
    raw
        Raw maps of ``area``.
    area
        The region and :func:`super_resolving_halo` pixels around it, inside the plane.
    monitor
        Counts pixels x slices.

    Returns
    -------
    fused : ndarray
        (components, scale * h, scale * w) in the stack's dtype.
    maps : Maps
        Of the region.
    consistency : ndarray
        (h, w) float32, mean distance of the finer pixels of each pixel, averaged, from
        the fused slices; a share of the normalised range.
    """
    plan, stack, upscale = point.plan, point.plan.stack, point.plan.upscale
    assert upscale is not None
    halo = _pixels_halo(upscale)
    wide = region.grown(halo).inside_plane(stack.height, stack.width)
    finer_share = share_of_finer(plan)
    # Progress counts the region only, not its halo.
    with monitor.counting((1 - finer_share) * region.area / wide.area):
        fused, maps, _ = finish_region(point, wide, raw, area, monitor)
    inside = region.moved(-wide.y0, -wide.x0).slices
    core = Maps(*(np.ascontiguousarray(values[inside]) for values in maps))
    # The image is mirrored at its border, and so is its decision map.
    full = region.grown(halo)
    missing = [
        (wide.y0 - full.y0, full.y1 - wide.y1),
        (wide.x0 - full.x0, full.x1 - wide.x1),
    ]
    labels = np.pad(maps.labels.astype(np.int32), missing, mode="symmetric")
    around = np.pad(fused, [(0, 0), *missing], mode="symmetric")
    nowhere = np.isnan(around) if stack.dtype.kind == "f" else None
    if nowhere is not None and nowhere.any():
        around[nowhere] = 0
    else:
        nowhere = None
    index = torch.from_numpy(labels).to(plan.device)
    guide = torch.from_numpy(_guide_of(point).mixed(around)).to(plan.device)

    finer = np.empty(
        (stack.n_components, *(upscale.scale * n for n in core.labels.shape)),
        stack.dtype,
    )
    consistency = np.zeros(core.labels.shape, np.float32)
    inner = (slice(halo, -halo), slice(halo, -halo))
    crop = 2 * GUIDE_RADIUS
    near = around[:, crop:-crop, crop:-crop]
    for channel, reference in enumerate(point.channels):
        first = channel * stack.n_samples
        colours = slice(first, first + (3 if stack.n_samples >= 3 else 1))
        if upscale.joint:
            used = [int(z) for z in np.unique(labels)]
            # Absent pixels are filled with the fused ones.
            slices: Iterable[tuple[int, np.ndarray]] = (
                (z, values if present is None else np.where(present, values, near))
                for z, values, present in component_slices(
                    point, region.grown(upscale.resolver.upscale_halo), used
                )
            )
            weights = (index, guide)
        else:
            slices = [(-1, near)]
            weights = None
        with monitor.counting(finer_share / len(point.channels)):
            features = _fuse_features(
                point, region, colours, reference, slices, weights, monitor
            )
        found = _resolve(point, features, colours.stop - colours.start, monitor)
        coarse = F.avg_pool2d(found, upscale.scale)
        expected = _normalised(around[colours][:, *inner], reference)
        expected_there = torch.from_numpy(expected).to(plan.device)
        consistency += (coarse - expected_there).abs().mean(0).cpu().numpy()
        finer[colours] = _denormalised(found.cpu().numpy(), reference, stack.dtype)
        for other in range(colours.stop, first + stack.n_samples):
            # Alpha is not super-resolved but repeated.
            plain = around[other][inner].repeat(upscale.scale, 0)
            finer[other] = plain.repeat(upscale.scale, 1)
    consistency /= len(point.channels)
    if nowhere is not None:
        missing = nowhere[:, *inner].repeat(upscale.scale, 1).repeat(upscale.scale, 2)
        finer[missing] = np.nan
    return finer, core, consistency


def _pixels_halo(upscale: Upscale) -> int:
    """Pixels around a region whose final labels and pixels are needed."""
    return upscale.resolver.upscale_halo + 2 * GUIDE_RADIUS


def _guide_of(point: Prepared) -> Reference:
    """The plane along whose edges labels are softened; of the stack itself."""
    own = point.reference.stack is point.plan.stack
    return point.reference if own else point.channels[0]


def _fuse_features(
    point: Prepared,
    region: Rectangle,
    colours: slice,
    reference: Reference,
    slices: Iterable[tuple[int, np.ndarray]],
    labels_and_guide: tuple[Tensor, Tensor] | None,
    monitor: Monitor,
) -> Tensor:
    """(F * scale^2, h, w): features of the slices, their weighted mean.

    ``labels_and_guide`` is None where the only slice has all the weight.
    """
    plan, upscale = point.plan, point.plan.upscale
    assert upscale is not None
    scale, halo = upscale.scale, upscale.resolver.upscale_halo
    count = upscale.resolver.feature_channels * scale**2
    core = (region.height, region.width)
    total = torch.zeros(count, *core, device=plan.device)
    weights = torch.zeros(scale**2, *core, device=plan.device)
    call = NetworkCall(
        partial(_features, scale=scale),
        upscale.resolver,
        point.upscale_context,
        halo,
        plan.settings.precision,
    )
    tiles = TilePlan(*core, (plan.tile, plan.tile), halo)
    # Progress counts all slices: the only one as all of them, unused ones at the end.
    left = plan.stack.n_slices
    counts = left if labels_and_guide is None else 1
    for z, values in slices:
        planes = torch.from_numpy(_normalised(values[colours], reference))
        planes = planes.to(plan.device)
        for tile, window in _windows(tiles, halo):
            monitor.advance(tile.area * counts)
            here = (slice(None), tile.y, tile.x)
            weight = None
            if labels_and_guide is not None:
                weight = _weights(*labels_and_guide, z, window, scale)
                if weight is None:
                    continue
            found = run_with_fallback(call, planes[None, :, *window], monitor)[0]
            found = found[:, *tile.inside]
            if weight is None:
                total[here] += found
                weights[here] += 1
                continue
            weight = weight[:, *tile.inside]
            weights[here] += weight
            split = found.unflatten(0, (-1, scale**2))
            total[here] += (split * weight).flatten(0, 1)
        left -= counts
    monitor.advance(left * region.area)
    mean = total.unflatten(0, (-1, scale**2))
    return mean.div_(weights.clamp_min(1e-6)).flatten(0, 1)


def _windows(tiles: TilePlan, halo: int) -> Iterator[tuple[Tile, tuple[slice, slice]]]:
    """Each tile, and its window in an array with ``halo`` around the plane."""
    for tile in tiles:
        yield tile, shifted(tiles.window_of(tile), halo)


def _weights(
    index: Tensor, guide: Tensor, z: int, window: tuple[slice, slice], scale: int
) -> Tensor | None:
    """(scale^2, h, w), the weights of a slice in a window; None where it has none.

    ``index`` and ``guide`` have ``2 * GUIDE_RADIUS`` more pixels on each side than the
    window's array.
    """
    more = 4 * GUIDE_RADIUS
    wider = tuple(slice(w.start, w.stop + more) for w in window)
    labels = index[wider]
    if not (labels == z).any():
        return None
    weight = label_weights(labels, z, guide[wider])
    finer = F.interpolate(weight[None, None], scale_factor=scale, mode="bilinear")
    return F.pixel_unshuffle(finer, scale)[0]


def _features(
    resolver: SuperResolver, batch: Tensor, context: Any, scale: int
) -> Tensor:
    """(1, 1, C, h, w) -> (1, F * scale^2, h, w)."""
    slices = batch[:, 0].contiguous(memory_format=torch.channels_last)
    return F.pixel_unshuffle(resolver.features(slices, scale, context), scale)


def _resolve(
    point: Prepared, features: Tensor, colours: int, monitor: Monitor
) -> Tensor:
    """(colours, scale * h, scale * w), normalised."""
    plan, upscale = point.plan, point.plan.upscale
    assert upscale is not None
    high, wide = features.shape[1:]
    scale = upscale.scale
    resolved = torch.empty(colours, scale * high, scale * wide, device=plan.device)
    for tile in TilePlan(high, wide, (plan.tile, plan.tile)):
        finer = F.pixel_shuffle(features[None, :, tile.y, tile.x], scale)
        found = upscale.resolver.resolve(finer, scale, point.upscale_context)[0]
        if colours == 1:
            found = found.mean(0, keepdim=True)
        y, x = (slice(scale * s.start, scale * s.stop) for s in tile.slices)
        resolved[:, y, x] = found
        monitor.check_cancelled()
    return resolved


def _normalised(values: np.ndarray, reference: Reference) -> np.ndarray:
    if is_wide(reference.stack.dtype):
        return relative(values, reference.black, reference.white).astype(np.float32)
    gain = np.float32(1 / (reference.white - reference.black))
    return (values * gain - np.float32(reference.black) * gain).astype(
        np.float32, copy=False
    )


def _denormalised(
    values: np.ndarray, reference: Reference, dtype: np.dtype
) -> np.ndarray:
    span = reference.white - reference.black
    return as_dtype(values.astype(np.float64) * span + reference.black, dtype)
