"""Immutable plan of a run, from the settings, the stack and the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.composite import composing_halo
from napari_focus_fusion.decision import (
    LOW_CONFIDENCE,
    PAIR_LOW_CONFIDENCE,
    PAIR_SMOOTHNESS,
    VERIFY_HALO,
)
from napari_focus_fusion.device import choose_device, memory_budget
from napari_focus_fusion.engine.memory import (
    memory_beside_regions,
    memory_of_region,
    tile_that_fits,
)
from napari_focus_fusion.engine.store import CHUNK
from napari_focus_fusion.engine.upscale import Upscale
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.base import Reconstructor, SuperResolver
from napari_focus_fusion.models.registry import load_surface
from napari_focus_fusion.stack import FocusStack
from napari_focus_fusion.tiling import TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from napari_focus_fusion.engine.settings import FusionSettings
    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.models.surface import Surface
    from napari_focus_fusion.registration.brightness import Levels
    from napari_focus_fusion.registration.registration import Registration

#: Side of a model's tile in pixels: larger ones only miss the CPU's caches.
TILE = {"cpu": 256, "cuda": 1024, "mps": 512}
#: Slices that are scored together.
SLAB = {"cpu": 1, "cuda": 4, "mps": 2}
#: Working memory of a region's pixel in bytes, measured: state and temporaries, and
#: what each component adds to them, the second for each of its own bytes.
BYTES_A_PIXEL, BYTES_A_COMPONENT = 96, (16, 6)
#: The same of each channel that is reconstructed: the range of its slices, their noise,
#: and how far the result lies beyond them.
BYTES_OF_RANGE = 40
#: The same of each component of a slice that is aligned or levelled.
BYTES_TO_ALIGN = 32
#: Aligned slices are kept in memory if they take at most this share of it.
KEPT_SHARE = 0.5
#: A band of whole rows is as high as this, or it would mostly read its halo.
MIN_ROWS = 256
#: Memory that regions may take whatever else there is, unless less is allowed.
LEAST_ROOM = 32 << 20
#: Pixels of the smallest region.
SMALLEST_REGION = 64 * 64
#: Default working memory of a job on a cluster.
JOB_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, eq=False)
class RunPlan:
    """Plan of a run, made before pixels are read.

    Attributes
    ----------
    stack
        What is fused.
    settings
        What the user asked for.
    model
        Makes the decision map; None where one was given.
    decision
        The given map, (T, Y, X) uint16; None where it is to be found.
    upscale
        How the result is made finer; None: it is not.
    surface
        The network that finds the surface near which pixels are decided; None: each
        pixel is decided for itself.
    reference
        The stack whose sharpness is measured: `stack`, or another of the same slices.
    weights
        How much each component of `reference` counts, adding up to 1.
    device
        Where scores are computed.
    tile
        Largest side of a model's tile, in pixels.
    slab
        Slices that are read and scored together.
    regions
        What the plane is cut into, so that their state fits into the memory.
    memory
        Working memory that the run may take beyond the result, in bytes.
    working_memory
        What it is estimated to take; more than `memory` where that is too little for
        the smallest region.
    keeps_aligned
        Whether aligned and levelled slices stay in memory, as they are read in each
        pass.
    registration, levels
        How the slices of `stack` were brought into register and to one brightness;
        None: they were not.
    """

    stack: FocusStack
    settings: FusionSettings
    model: FusionModel | None
    decision: NDArray[np.uint16] | None
    upscale: Upscale | None
    surface: Surface | None
    reference: FocusStack
    weights: tuple[float, ...]
    device: torch.device
    tile: int
    slab: int
    regions: TilePlan
    memory: int
    working_memory: int
    keeps_aligned: bool = False
    registration: Registration | None = None
    levels: Levels | None = None

    @property
    def halo(self) -> int:
        """Pixels around a tile that the scoring model needs: its receptive field."""
        spec = None if self.model is None else self.model.spec
        return 0 if spec is None else spec.halo

    @property
    def smoothness(self) -> float:
        """Weight of a pixel's wider surroundings: a surface knows more of them."""
        if self.surface is not None:
            return 0.0
        share = PAIR_SMOOTHNESS if self.stack.n_slices == 2 else 1.0
        return share * self.settings.smoothness

    @property
    def finishing_halo(self) -> int:
        """Pixels around a region whose raw maps are needed to fuse it."""
        return _finishing_halo(self.settings)

    @property
    def low_confidence(self) -> float:
        """Pixels that are less confident take the decision of their neighbours."""
        return PAIR_LOW_CONFIDENCE if self.stack.n_slices == 2 else LOW_CONFIDENCE

    @property
    def reconstructs(self) -> bool:
        """Whether pixels are made by the model rather than taken from slices.

        With ``blend="select"`` every pixel is an observed one. One slice passes
        through.
        """
        return is_reconstructed(self.stack, self.model, self.settings)

    @property
    def channel_weights(self) -> tuple[tuple[float, ...], ...]:
        """The weights of the grey plane of each channel of `stack`."""
        channels = range(self.stack.n_channels)
        return tuple(weights_of(self.stack, channel) for channel in channels)

    def is_reference(self, weights: tuple[float, ...]) -> bool:
        """Whether a plane of `stack` is the reference plane."""
        return self.reference is self.stack and weights == self.weights

    @property
    def networks(self) -> tuple[FusionModel, ...]:
        """All that runs on the device."""
        resolver = () if self.upscale is None else (self.upscale.resolver,)
        surface = () if self.surface is None else (self.surface,)
        model = () if self.model is None else (self.model,)
        return (*model, *resolver, *surface)


def plan_run(
    stack: FocusStack,
    model: FusionModel | None,
    settings: FusionSettings,
    *,
    decision: FusionModel | NDArray[np.uint16] | None = None,
    stored: bool = False,
    jobs: int | None = None,
) -> RunPlan:
    """Plan the fusion of a stack.

    Parameters
    ----------
    stack
        What is fused.
    model
        Scores or super-resolves; None where a decision map is given.
    settings
        What the user asked for.
    decision
        Another model for the decision map, or a decision map itself, axes
        ``stack.map_axes``; None: `model` makes it.
    stored
        Whether the result is written by region into an OME-Zarr.
    jobs
        How many regions there shall be at least, for the workers of a cluster, which
        select their own devices; None: the run stays in this process.

    Returns
    -------
    RunPlan

    Raises
    ------
    FocusFusionError
        If stack, model and settings do not fit together, or there is no such device.
    """
    _check(stack, model, settings.scale)
    upscale = None
    if settings.scale > 1:
        assert isinstance(model, SuperResolver)
        upscale = Upscale(model, settings.scale, settings.joint)
    scoring_model = model
    given = None
    if isinstance(decision, np.ndarray):
        scoring_model = None
        given = decision.reshape(stack.n_times, stack.height, stack.width)
        settings = replace(settings, verify=False)
    elif decision is not None:
        scoring_model = decision
    reference = settings.reference
    if isinstance(reference, FocusStack):
        check_reference(stack, reference)
        guide, weights = reference, weights_of(reference, None)
    else:
        guide, weights = stack, weights_of(stack, reference)
    device = choose_device(settings.device if jobs is None else "cpu")
    if jobs is None:
        budget = memory_budget(device, settings.memory)
    else:
        budget = settings.memory or JOB_BYTES
    surface = _surface_of(stack, scoring_model, settings.surface)
    state, kept = bytes_a_pixel(stack, scoring_model, upscale, guide), 0
    if settings.align is not None or settings.brightness != "keep":
        state += BYTES_TO_ALIGN * (stack.n_components + 2)
        kept = sum(
            one.height
            * one.width
            * one.n_slices
            * one.n_components
            * (one.dtype.itemsize + 1)
            for one in {id(one): one for one in (stack, guide)}.values()
        )
        if jobs is not None or kept > KEPT_SHARE * budget:
            kept = 0
    tile, slab = settings.tile or TILE[device.type], SLAB[device.type]
    if settings.tile is None:
        tile = tile_that_fits(
            scoring_model, upscale, slab=slab, memory=budget - kept, most=tile
        )
    reconstructs = is_reconstructed(stack, scoring_model, settings)
    beside = kept + memory_beside_regions(
        stack, stored=stored, reconstructions=stack.n_channels * reconstructs
    )
    # Regions are not made tiny for what they cannot change.
    room = max(budget - beside, min(budget, LEAST_ROOM))

    def taken_by(size: tuple[int, int]) -> int:
        return memory_of_region(
            stack,
            scoring_model,
            upscale,
            surface=surface is not None,
            finishing=_finishing_halo(settings),
            state=state,
            tile=tile,
            slab=slab,
            memory=budget - kept,
            size=size,
        )

    regions = _regions_that_fit(stack, room, taken_by, stored=stored, jobs=jobs or 1)
    return RunPlan(
        stack=stack,
        settings=settings,
        model=scoring_model,
        decision=given,
        upscale=upscale,
        surface=surface,
        reference=guide,
        weights=weights,
        device=device,
        tile=tile,
        slab=slab,
        regions=regions,
        memory=budget,
        working_memory=beside + taken_by(regions.window),
        keeps_aligned=kept > 0,
    )


def _finishing_halo(settings: FusionSettings) -> int:
    """What :attr:`RunPlan.finishing_halo` says, before there is a plan."""
    return VERIFY_HALO + composing_halo(settings.blend)


def is_reconstructed(
    stack: FocusStack, model: FusionModel | None, settings: FusionSettings
) -> bool:
    """What :attr:`RunPlan.reconstructs` says, before there is a plan."""
    return (
        isinstance(model, Reconstructor)
        and settings.scale == 1
        and settings.blend == "feather"
        and settings.strength > 0
        and stack.n_slices > 1
    )


def _regions_that_fit(
    stack: FocusStack,
    room: int,
    taken_by: Callable[[tuple[int, int]], int],
    *,
    stored: bool,
    jobs: int,
) -> TilePlan:
    """The largest regions that take no more than there is room; else the smallest."""
    pixels = stack.height * stack.width
    while True:
        regions = plan_regions(stack, pixels, stored=stored, jobs=jobs)
        if taken_by(regions.window) <= room or pixels <= SMALLEST_REGION:
            return regions
        pixels = pixels * 7 // 8


def _surface_of(
    stack: FocusStack, model: FusionModel | None, strength: float
) -> Surface | None:
    """The network that finds the surface; of two slices there is none to find."""
    return load_surface() if model and strength and stack.n_slices > 2 else None


def weights_of(stack: FocusStack, reference: int | str | None) -> tuple[float, ...]:
    """Weights of a stack's components in the one grey plane of `reference`."""
    return tuple(float(weight) for weight in stack.reference_weights(reference))


def check_reference(stack: FocusStack, reference: FocusStack) -> None:
    """Raise if one stack cannot be the reference of another.

    Raises
    ------
    FocusFusionError
        If they differ in time points, slices, rows or columns.
    """
    sizes = [
        (one.n_times, one.n_slices, one.height, one.width) for one in (reference, stack)
    ]
    if sizes[0] != sizes[1]:
        here, there = (
            f"{t} x {z} slices of {y} x {x} pixels"
            if t > 1
            else f"{z} slices of {y} x {x} pixels"
            for t, z, y, x in sizes
        )
        raise FocusFusionError(
            f"{reference.name!r} cannot decide for {stack.name!r}: its size is {here}, "
            f"not {there}. Choose a channel of the same image."
        )


def bytes_a_pixel(
    stack: FocusStack,
    model: FusionModel | None,
    upscale: Upscale | None,
    reference: FocusStack,
) -> int:
    """Working memory of a pixel of a region, while the run goes through its slices."""
    fixed, each = BYTES_A_COMPONENT
    state = BYTES_A_PIXEL
    for one in {id(one): one for one in (stack, reference)}.values():
        state += (fixed + each * one.dtype.itemsize) * one.n_components
    if model is not None:
        state += model.bytes_a_pixel(stack.n_slices)
    if isinstance(model, Reconstructor) and upscale is None:
        state += BYTES_OF_RANGE * stack.n_channels
    if upscale is not None:
        state += upscale.bytes_a_pixel(stack)
    return state


def plan_regions(
    stack: FocusStack, pixels: int, *, stored: bool, jobs: int
) -> TilePlan:
    """Regions of at most so many pixels, at least as many as jobs are wanted.

    Bands of whole rows where those fit.
    """
    align = (CHUNK, CHUNK) if stored else (1, 1)
    if not stored and stack.chunk_yx is not None:
        align = stack.chunk_yx
    align = (min(align[0], stack.height), min(align[1], stack.width))
    pixels = min(pixels, max(stack.height * stack.width // jobs, CHUNK * CHUNK))
    rows = pixels // stack.width
    if rows >= min(max(align[0], MIN_ROWS), stack.height):
        core = (int(rows), stack.width)
    elif stored:
        core, align = (CHUNK, max(pixels // CHUNK, CHUNK)), (CHUNK, CHUNK)
    else:
        # Chunks larger than this are read more than once.
        side = max(math.isqrt(pixels), 64)
        core, align = (side, side), (min(align[0], side), min(align[1], side))
    return TilePlan(stack.height, stack.width, core, align=align)


def _check(stack: FocusStack, model: FusionModel | None, scale: int) -> None:
    spec = None if model is None else model.spec
    if spec is not None and scale not in spec.upscale:
        offered = ", ".join(str(factor) for factor in spec.upscale)
        raise FocusFusionError(
            f"{spec.title} cannot super-resolve by {scale}; it offers scale {offered}."
        )
    if stack.n_slices > np.iinfo(np.int16).max:
        raise FocusFusionError(
            f"{stack.name!r} has {stack.n_slices} slices; more than "
            f"{np.iinfo(np.int16).max} cannot be told apart. Is the axis Z right?"
        )
