"""How much memory a run takes beyond its result, estimated before it begins.

Each stage of a region holds what is listed here; one lets go of its own before the
next begins. Numbers are bytes, measured (``python -m studies.memory``).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_focus_fusion.composite import GUIDE_RADIUS
from napari_focus_fusion.decision import aggregate_halo
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.models.base import Reconstructor, SetMasker
from napari_focus_fusion.models.surface import (
    BLOCK,
    CELL,
    NETWORK_HALO,
    SURFACE_HALO,
    WINDOW_RADIUS,
)

if TYPE_CHECKING:
    from napari_focus_fusion.engine.upscale import Upscale
    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.stack import FocusStack

#: Whatever is fused: threads, buffers of libraries, what is kept for later.
BASE = 16 << 20
#: What dask's threads keep beside.
DASK = 16 << 20
#: How much more is held than what arrays take together: the allocator leaves gaps.
GAPS = 1.12
#: A pixel of the plane, of maps that are kept beside the result in memory.
RAW_BYTES = 10
#: A pixel of a slice while a surface is found: focus measure at three scales and
#: intensity, in cells, then shares of several kinds.
SURFACE_BYTES = 1.25
#: A pixel of a slice whose surface has been found: weights, and what is near.
SHARES_BYTES = 0.35
#: A block of a slice in the network that finds the surface: what it sees of cells, and
#: its layers.
BLOCK_BYTES = 80, 320
#: A pixel of a slice that is read, two more of which are under way.
READ_BYTES = 16
#: A pixel of a slice of a :class:`SetMasker`: its plane, and masks twice.
SET_BYTES = 12
#: Share of the memory that a network may take with one tile, and its smallest tile.
TILE_SHARE, SMALLEST_TILE = 0.4, 64
#: Blocks x slices that the network of the surface looks at together, and the sides of
#: its windows: fewer would mostly be halo.
BLOCKS_AT_ONCE, USUAL_SIDE, SMALLEST_SIDE = 1 << 19, 32, 8
#: What a part of a plane takes at most of which all slices are weighed together,
#: however many, and its smallest side.
SET_AT_ONCE, SMALLEST_SET = 160 << 20, 64


def tile_that_fits(
    model: FusionModel | None,
    upscale: Upscale | None,
    *,
    slab: int,
    memory: int,
    most: int,
) -> int:
    """Side of the model's tiles in pixels, at most ``most``.

    ``slab`` is how many slices are scored together.
    """
    side = most
    together = 1 if isinstance(model, SetMasker) else slab
    for each, halo in _networks(model, upscale, together):
        if each:
            fits = math.isqrt(int(TILE_SHARE * memory / each)) - 2 * halo
            side = min(side, max(fits, SMALLEST_TILE))
    return side


def _networks(
    model: FusionModel | None, upscale: Upscale | None, slab: int = 1
) -> list[tuple[float, int]]:
    """What a pixel of a tile takes in each network, and its halo."""
    found: list[tuple[float, int]] = []
    if model is not None and model.spec is not None:
        found.append((slab * model.bytes_a_tile_pixel, model.spec.halo))
    if upscale is not None:
        resolver = upscale.resolver
        each = resolver.bytes_a_finer_pixel * upscale.scale**2
        found.append((each + resolver.bytes_a_tile_pixel, resolver.upscale_halo))
    return found


def surface_side(memory: int, slices: int) -> int:
    """Side in blocks of what the network of the surface looks at together."""
    at_once = math.isqrt(BLOCKS_AT_ONCE // slices) - 2 * NETWORK_HALO
    side = max(at_once, USUAL_SIDE)
    while side > SMALLEST_SIDE and _surface_network(side, slices) > memory / 4:
        side -= 4
    return max(side, SMALLEST_SIDE)


def _surface_network(side: int, slices: int) -> float:
    seen, layers = BLOCK_BYTES
    wide = side + 2 * NETWORK_HALO
    inner = wide - 2 * WINDOW_RADIUS
    return slices * (seen * wide**2 + layers * inner**2)


def set_side(model: FusionModel, memory: int, halo: int, slices: int) -> int:
    """Side of the part of a region of which all slices are weighed together.

    ``halo`` is what is read around it.
    """
    each = slices * SET_BYTES + model.bytes_a_tile_pixel
    fits = math.isqrt(int(min(SET_AT_ONCE, TILE_SHARE * memory) / each))
    return max(fits - 2 * halo, SMALLEST_SET)


def memory_of_region(
    stack: FocusStack,
    model: FusionModel | None,
    upscale: Upscale | None,
    *,
    surface: bool,
    finishing: int,
    state: float,
    tile: int,
    slab: int,
    memory: int,
    size: tuple[int, int],
) -> int:
    """What a region of ``size`` rows and columns takes while it is fused.

    Parameters
    ----------
    state
        Of a pixel, as :func:`~napari_focus_fusion.engine.plan.bytes_a_pixel` has it.
    surface
        Whether a surface is found.
    finishing
        Pixels around the region whose raw maps are needed to fuse it.
    memory
        What may be taken.
    """
    count, read = stack.n_slices, READ_BYTES + 2 * stack.n_components * _item(stack)

    def area(halo: int) -> int:
        high = min(size[0] + 2 * halo, stack.height + min(2 * halo, 64))
        wide = min(size[1] + 2 * halo, stack.width + min(2 * halo, 64))
        return high * wide

    halo = 0 if model is None or model.spec is None else model.spec.halo
    window = 0 if model is None else aggregate_halo(model.window)
    if isinstance(model, Reconstructor):
        window = max(window, model.decoder_halo)
    stages = []
    kept = 0.0
    if surface:
        seen = area(CELL * (SURFACE_HALO + 2 * BLOCK))
        network = _surface_network(
            min(surface_side(memory, count), -(-max(size) // (BLOCK * CELL)) + 8), count
        )
        stages.append(seen * count * SURFACE_BYTES + max(read * slab * seen, network))
        kept = SHARES_BYTES * count * area(2 * BLOCK * CELL)
    if model is not None:
        each = model.bytes_a_tile_pixel
        scored = kept + state * area(window)
        if isinstance(model, SetMasker):
            part = set_side(model, memory, halo + window, count) + 2 * (halo + window)
            part = min(part, max(size) + 2 * (halo + window))
            scored += part**2 * (SET_BYTES * count + each)
        else:
            scored += read * (slab - 1) * area(window + halo)
            scored += each * slab * (min(tile, max(size)) + 2 * halo) ** 2
        stages.append(scored)
    around = finishing
    if upscale is not None:
        around += upscale.resolver.upscale_halo + 2 * GUIDE_RADIUS
    finished = state * area(around)
    if upscale is not None:
        each, more = _networks(None, upscale)[0]
        finished += upscale.bytes_a_pixel(stack) * size[0] * size[1]
        finished += each * (min(tile, max(size)) + 2 * more) ** 2
    stages.append(finished)
    return int(GAPS * max(stages))


def memory_beside_regions(
    stack: FocusStack, *, stored: bool, reconstructions: int
) -> int:
    """What a run takes however small its regions are."""
    chunk = stack.chunk_yx or (0, 0)
    # Compressed, decoded, copied; three at a time.
    reading = 4 * chunk[0] * chunk[1] * _item(stack) * stack.n_samples
    raw = 0
    if not stored:
        raw = stack.height * stack.width * (RAW_BYTES + 4 * reconstructions)
    return BASE + reading + raw + DASK * _is_dask(stack.data)


def _is_dask(data: object) -> bool:
    while isinstance(data, LazyArray):
        data = getattr(data, "data", None)
    return hasattr(data, "dask")


def _item(stack: FocusStack) -> int:
    return int(stack.dtype.itemsize)


def result_bytes(stack: FocusStack, scale: int = 1, reconstructed: bool = False) -> int:
    """Bytes of the fused image and all maps of a stack."""
    plane = stack.n_times * stack.height * stack.width
    fused = stack.n_components * stack.dtype.itemsize * scale**2
    maps = 2 + 4 + 4 + (4 if scale > 1 else 0)
    maps += 4 * stack.n_channels if reconstructed else 0
    return plane * (fused + maps)
