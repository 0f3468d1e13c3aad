"""Fusing a region: its decision verified, its pixels taken from their slices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.composite import (
    ALIKE_RADIUS,
    COMPOSITE_HALO,
    GUIDE_RADIUS,
    NOISE_RADIUS,
    label_weights,
    least_noise_bias,
    likeness,
    noise_energy,
)
from napari_focus_fusion.decision import VERIFY_HALO, Maps, verify
from napari_focus_fusion.engine.reading import ahead, read_components
from napari_focus_fusion.engine.work import SWEEP, Work, around
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_focus_fusion.engine.reading import Reference

#: Around a region, the maps that fusing it must see.
FINISH_HALO = VERIFY_HALO + COMPOSITE_HALO


def finish_region(
    work: Work,
    region: Tile,
    raw: Maps,
    rim: Tile,
    pictures: Sequence[np.ndarray] = (),
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
    pictures
        For each of ``work.pictures`` the reconstructed core (h, w), normalised.

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
    surrounded = padded[
        y : y + region.height + 2 * COMPOSITE_HALO,
        x : x + region.width + 2 * COMPOSITE_HALO,
    ]
    fused = _feather(work, region, np.ascontiguousarray(surrounded))
    for reference, picture in zip(work.pictures, pictures, strict=True):
        _repaint(fused, reference, picture)
    return as_dtype(fused, work.reference.stack.dtype), maps


def _repaint(fused: np.ndarray, reference: Reference, picture: np.ndarray) -> None:
    """Give fused components the brightness of a reconstructed picture, in place.

    Colours stay: all samples of a pixel change by what its luminance lacks.
    """
    missing = picture - reference.mixed(fused)
    missing *= reference.white - reference.black
    for component, weight in zip(fused, reference.weights, strict=True):
        if weight:
            component += missing


def _select(work: Work, region: Tile, index: np.ndarray) -> np.ndarray:
    """(components, h, w): every pixel as observed in its slice."""
    stack = work.reference.stack
    fused = np.zeros((stack.n_components, *index.shape), stack.dtype)
    used = [int(z) for z in np.unique(index)]
    for z, block in component_slices(work, region, 0, used):
        np.copyto(fused, block, where=index == z)
        work.done(index.size)
    work.tick(index.size * (stack.n_slices - len(used)))
    return fused


def component_slices(
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

    Floating point numbers on the scale of the stack.

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
    for z, values in component_slices(work, region, rim, everything):
        np.copyto(chosen, values, where=index == z)
        plane = torch.from_numpy(reference.mixed(values)).to(device)
        for block in blocks:
            least = noise[block.y, block.x]
            energy = noise_energy(plane[around(block, rim, NOISE_RADIUS + 1)])
            torch.minimum(least, energy, out=least)
        work.done(region.height * region.width)
    noise /= least_noise_bias(stack.n_slices)

    labels = torch.from_numpy(index.astype(np.int32)).to(device)
    guide = torch.from_numpy(reference.mixed(chosen)).to(device)
    precise = stack.dtype.itemsize > 2 and stack.dtype != np.float32
    inner = (slice(None), slice(rim, -rim), slice(rim, -rim))
    selected = chosen[inner].astype(np.float64 if precise else np.float32)
    near = [torch.unique(labels[around(b, rim, 2 * GUIDE_RADIUS)]) for b in blocks]
    present = [set(found.tolist()) for found in near]
    # Twice as precise as what is added up, so that the sums do not tell in which order
    # the slices came.
    total = np.zeros(core)
    added = np.zeros(selected.shape)
    for z, values in component_slices(work, region, rim, everything):
        plane = torch.from_numpy(reference.mixed(values)).to(device)
        for block, labels_near in zip(blocks, present, strict=True):
            place = (block.y, block.x)
            window = around(block, rim, ALIKE_RADIUS)
            weight = likeness(plane[window], guide[window], noise[place])
            if z in labels_near:
                window = around(block, rim, 2 * GUIDE_RADIUS)
                own = label_weights(labels[window], z, guide[window])
                weight = torch.maximum(weight, own)
            share = weight.cpu().numpy()
            total[place] += share
            for c, component in enumerate(values):
                observed = component[around(block, rim, 0)]
                difference = observed - selected[c][place]
                added[c][place] += share * difference.astype(np.float32, copy=False)
        work.done(region.height * region.width)
    added /= np.maximum(total, 1e-6)
    return np.add(added, selected, out=added)


def as_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded and clipped to an integer type, or cast to a float one."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        np.rint(values, out=values)
        return values.clip(limits.min, limits.max, out=values).astype(dtype)
    return values.astype(dtype)
