"""Which regions a plane is cut into, so that their state fits into the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_focus_fusion.engine import reconstruction, superresolving
from napari_focus_fusion.engine.store import CHUNK
from napari_focus_fusion.models.base import Reconstructor, SetMasker
from napari_focus_fusion.tiling import TilePlan

if TYPE_CHECKING:
    from napari_focus_fusion.engine.work import Upscale
    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.stack import FocusStack

#: Working memory of a region's pixel in bytes, measured: state and temporaries, and
#: what each component adds to them, the second for each of its own bytes.
BYTES_A_PIXEL, BYTES_A_COMPONENT = 96, (16, 6)
#: A band of whole rows is as high as this, or it would mostly read its surroundings.
LEAST_ROWS = 256


def plan_regions(
    stack: FocusStack,
    model: FusionModel,
    upscale: Upscale | None,
    budget: int,
    stored: bool,
    jobs: int,
) -> TilePlan:
    """Regions whose state fits the budget, at least as many as jobs are wanted.

    Bands of whole rows where those fit.
    """
    align = (CHUNK, CHUNK) if stored else (1, 1)
    if not stored and stack.chunk_yx is not None:
        align = stack.chunk_yx
    align = (min(align[0], stack.height), min(align[1], stack.width))
    fixed, each = BYTES_A_COMPONENT
    component = fixed + each * stack.dtype.itemsize
    state = BYTES_A_PIXEL + component * stack.n_components
    if isinstance(model, Reconstructor):
        state += reconstruction.bytes_a_pixel(model)
    if upscale is not None:
        state += superresolving.bytes_a_pixel(
            upscale, stack.dtype.itemsize, stack.n_components
        )
    if isinstance(model, SetMasker):
        # The planes of all slices and their weights.
        state += 8 * stack.n_slices
    pixels = budget // state
    pixels = min(pixels, max(stack.height * stack.width // jobs, CHUNK * CHUNK))
    rows = pixels // stack.width
    if rows >= min(max(align[0], LEAST_ROWS), stack.height):
        core = (int(rows), stack.width)
    elif stored:
        core, align = (CHUNK, max(pixels // CHUNK, CHUNK)), (CHUNK, CHUNK)
    else:
        # Chunks larger than this are read more than once.
        side = max(int(pixels**0.5), 64)
        core, align = (side, side), (min(align[0], side), min(align[1], side))
    return TilePlan(stack.height, stack.width, core, align=align)
