"""Super-resolving a region: slices made finer where they are used, then fused.

Features of the slices on the finer grid are added up, weighted by the decision
(eq. 15 of the paper that ``affinity_sr.py`` names); a slice is looked at only in the
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
from napari_focus_fusion.engine.back_off import within_memory
from napari_focus_fusion.engine.finishing import (
    FINISH_HALO,
    as_dtype,
    component_slices,
    finish_region,
)
from napari_focus_fusion.engine.work import moved
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.engine.work import Upscale, Work
    from napari_focus_fusion.models.base import SuperResolver


def finer_rim(upscale: Upscale) -> int:
    """Pixels around a region whose raw maps super-resolving it must see."""
    return FINISH_HALO + _reach(upscale)


def bytes_a_pixel(upscale: Upscale, component_bytes: int, components: int) -> int:
    """Memory of one pixel of the source while it is made finer."""
    sums = (upscale.resolver.feature_channels + 1 + 3 + 3) * 4
    return upscale.scale**2 * (sums + components * component_bytes)


def super_resolve_region(
    work: Work, region: Tile, raw: Maps, rim: Tile
) -> tuple[np.ndarray, Maps, np.ndarray]:
    """Verified maps and finer fused pixels of a region's core.

    Parameters
    ----------
    work
        The run, with ``work.upscale``.
    region
        Its core in the plane's pixels.
    raw
        Raw maps of ``rim``.
    rim
        The core and :func:`finer_rim` pixels around it, inside the plane.

    Returns
    -------
    fused : ndarray
        (components, scale * h, scale * w) in the stack's dtype.
    maps : Maps
        Of the core.
    consistency : ndarray
        (h, w) float32, mean distance of the finer pixels of each pixel, averaged, from
        the fused slices; a share of the normalised range.
    """
    upscale, stack = work.upscale, work.reference.stack
    assert upscale is not None
    reach, halo = _reach(upscale), upscale.resolver.upscale_halo
    wide = _inside_plane(region, reach, stack.height, stack.width)
    fused, maps = finish_region(work, wide, raw, rim)
    inside = (moved(region.y, -wide.y0), moved(region.x, -wide.x0))
    core = Maps(*(np.ascontiguousarray(a[inside]) for a in maps))
    # The image is mirrored at its border, and so is what was decided of it.
    missing = [
        (reach - (region.y0 - wide.y0), reach - (wide.y1 - region.y1)),
        (reach - (region.x0 - wide.x0), reach - (wide.x1 - region.x1)),
    ]
    labels = np.pad(maps.labels.astype(np.int32), missing, mode="symmetric")
    around = np.pad(fused, [(0, 0), *missing], mode="symmetric")
    guide = torch.from_numpy(work.reference.mixed(around)).to(work.device)
    index = torch.from_numpy(labels).to(work.device)
    slices: list[tuple[int, np.ndarray]]
    margin = reach - halo
    cut = (slice(None), *(slice(margin, n - margin) for n in around.shape[1:]))

    finer = np.empty(
        (stack.n_components, *(upscale.scale * n for n in core.labels.shape)),
        stack.dtype,
    )
    consistency = np.zeros(core.labels.shape, np.float32)
    used = [int(z) for z in np.unique(labels)]
    for channel, reference in enumerate(upscale.channels):
        first = channel * stack.n_samples
        colours = slice(first, first + (3 if stack.n_samples >= 3 else 1))
        if upscale.joint:
            sums = _fuse_features(
                work,
                region,
                colours,
                reference,
                component_slices(work, region, halo, used),
                index,
                guide,
            )
        else:
            slices = [(-1, around[cut])]
            sums = _fuse_features(work, region, colours, reference, slices, None, guide)
        picture = _resolved(work, sums, colours.stop - colours.start)
        coarse = F.avg_pool2d(picture, upscale.scale)
        expected = _normalised(fused[colours][:, *inside], reference)
        expected_there = torch.from_numpy(expected).to(work.device)
        consistency += (coarse - expected_there).abs().mean(0).cpu().numpy()
        finer[colours] = _denormalised(picture.cpu().numpy(), reference, stack.dtype)
        for other in range(colours.stop, first + stack.n_samples):
            # Transparency has no detail to be inferred.
            plain = fused[other][inside].repeat(upscale.scale, 0)
            finer[other] = plain.repeat(upscale.scale, 1)
    consistency /= len(upscale.channels)
    return finer, core, consistency


def _reach(upscale: Upscale) -> int:
    return upscale.resolver.upscale_halo + 2 * GUIDE_RADIUS


def _inside_plane(region: Tile, by: int, height: int, width: int) -> Tile:
    return Tile(
        max(region.y0 - by, 0),
        min(region.y1 + by, height),
        max(region.x0 - by, 0),
        min(region.x1 + by, width),
    )


def _fuse_features(
    work: Work,
    region: Tile,
    colours: slice,
    reference: Reference,
    slices: Iterable[tuple[int, np.ndarray]],
    index: Tensor | None,
    guide: Tensor,
) -> Tensor:
    """(F * scale^2, h, w): features of the slices, their weighted mean."""
    upscale = work.upscale
    assert upscale is not None
    scale, halo = upscale.scale, upscale.resolver.upscale_halo
    count = upscale.resolver.feature_channels * scale**2
    core = (region.height, region.width)
    total = torch.zeros(count, *core, device=work.device)
    weights = torch.zeros(scale**2, *core, device=work.device)
    features = partial(_features, upscale.resolver, scale, context=upscale.context)
    plan = TilePlan(*core, (work.tile, work.tile), halo)
    for z, values in slices:
        planes = torch.from_numpy(_normalised(values[colours], reference))
        planes = planes.to(work.device)
        for tile, window in _windows(plan, halo):
            here = (slice(None), tile.y, tile.x)
            if index is None:
                weight = None
            else:
                weight = _weights(index, guide, z, window, scale)
                if weight is None:
                    continue
            found = within_memory(work, features, planes[None, :, *window])[0]
            found = found[:, *tile.inside]
            if weight is None:
                total[here] += found
                weights[here] += 1
                continue
            weight = weight[:, *tile.inside]
            weights[here] += weight
            split = found.unflatten(0, (-1, scale**2))
            total[here] += (split * weight).flatten(0, 1)
            work.done(0)
        work.done(0)
    mean = total.unflatten(0, (-1, scale**2))
    return mean.div_(weights.clamp_min(1e-6)).flatten(0, 1)


def _windows(plan: TilePlan, halo: int) -> Iterator[tuple[Tile, tuple[slice, slice]]]:
    """Each tile, and what it must see in an array with ``halo`` around the plane."""
    for tile in plan:
        y, x = plan.window_of(tile)
        yield tile, (moved(y, halo), moved(x, halo))


def _weights(
    index: Tensor, guide: Tensor, z: int, window: tuple[slice, slice], scale: int
) -> Tensor | None:
    """(scale^2, h, w), the weights of a slice in a window; None where it has none.

    ``index`` and ``guide`` reach ``2 * GUIDE_RADIUS`` farther than the window's array.
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
    resolver: SuperResolver, scale: int, batch: Tensor, context: Any
) -> Tensor:
    """(1, 1, C, h, w) -> (1, F * scale^2, h, w)."""
    slices = batch[:, 0].contiguous(memory_format=torch.channels_last)
    return F.pixel_unshuffle(resolver.features(slices, scale, context), scale)


def _resolved(work: Work, features: Tensor, colours: int) -> Tensor:
    """(colours, scale * h, scale * w), normalised."""
    upscale = work.upscale
    assert upscale is not None
    high, wide = features.shape[1:]
    scale = upscale.scale
    picture = torch.empty(colours, scale * high, scale * wide, device=work.device)
    for tile in TilePlan(high, wide, (work.tile, work.tile)):
        finer = F.pixel_shuffle(features[None, :, tile.y, tile.x], scale)
        found = upscale.resolver.resolve(finer, scale, upscale.context)[0]
        if colours == 1:
            found = found.mean(0, keepdim=True)
        y, x = (slice(scale * s.start, scale * s.stop) for s in (tile.y, tile.x))
        picture[:, y, x] = found
        work.done(0)
    return picture


def _normalised(values: np.ndarray, reference: Reference) -> np.ndarray:
    gain = np.float32(1 / (reference.white - reference.black))
    return (values * gain - np.float32(reference.black) * gain).astype(
        np.float32, copy=False
    )


def _denormalised(
    picture: np.ndarray, reference: Reference, dtype: np.dtype
) -> np.ndarray:
    span = reference.white - reference.black
    return as_dtype(picture.astype(np.float64) * span + reference.black, dtype)
