"""Prepares a time point: normalisation and the statistics of its networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_focus_fusion.engine.normalise import black_and_white, check_span, is_wide
from napari_focus_fusion.engine.reading import (
    Reference,
    filled_from_slices,
    sample,
    sample_places,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.stack import FocusStack


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A time point, ready for its regions, with fixed statistics.

    Attributes
    ----------
    plan
        The run.
    t
        The time point.
    reference
        The normalised reference plane.
    context
        The scoring model's statistics of the stack.
    channels
        The normalised plane of each channel, where pixels are reconstructed or
        super-resolved; else empty.
    upscale_context
        The super-resolving network's statistics of the stack.
    windows
        The sample of the reference, (windows, h, w) for each slice; empty where none
        was needed.
    """

    plan: RunPlan
    t: int
    reference: Reference
    context: Any = None
    channels: tuple[Reference, ...] = ()
    upscale_context: Any = None
    windows: tuple[np.ndarray, ...] = ()

    @property
    def guide(self) -> Reference:
        """The reference plane that seams and noise are judged by.

        Of 8 and 16 bits always the whole range of the type, whatever the model, so that
        the same decision map gives the same pixels, and no sample is read for them.
        """
        if _needs_sample(self.reference.stack):
            return self.reference
        white = _white(self.reference.stack)
        return replace(self.reference, black=0.0, white=white)

    def to(self, device: torch.device) -> Prepared:
        """The same with its networks and their statistics on another device."""
        # Moved in inference mode, a network could never be trained again.
        with torch.inference_mode(False):
            for network in self.plan.networks:
                network.to(device)
        return replace(
            self,
            plan=replace(self.plan, device=device),
            context=moved_to(self.context, device),
            upscale_context=moved_to(self.upscale_context, device),
        )

    def without_sample(self) -> Prepared:
        """The same without the sample, which regions do not need, for workers."""
        return replace(self, windows=())


def prepare(plan: RunPlan, t: int, monitor: Monitor) -> Prepared:
    """Normalise a time point, and compute the models' statistics from a sample.

    Parameters
    ----------
    plan
        The run.
    t
        The time point.
    monitor
        Asked whether to stop once the sample is read.

    Returns
    -------
    Prepared
    """
    model, upscale = plan.model, plan.upscale
    needed = plan.surface is not None or (model is not None and model.needs_sample)
    if not (needed or upscale or plan.reconstructs or _needs_sample(plan.reference)):
        white = _white(plan.reference)
        return Prepared(plan, t, Reference(plan.reference, t, plan.weights, 0.0, white))
    reference, windows = _normalised(Reference(plan.reference, t, plan.weights))
    monitor.check_cancelled()
    context = _context(model, windows, plan.device)
    channels: tuple[Reference, ...] = ()
    upscale_context = None
    if plan.reconstructs or upscale is not None:
        channels = tuple(
            reference
            if plan.is_reference(weights)
            else _normalised(Reference(plan.stack, t, weights))[0]
            for weights in plan.channel_weights
        )
    if upscale is not None:
        upscale_context = (
            context
            if upscale.resolver is model
            else _context(upscale.resolver, windows, plan.device)
        )
    planes = tuple(planes[:, 0].numpy() for planes in windows)
    return Prepared(plan, t, reference, context, channels, upscale_context, planes)


def with_first_range(reference: Reference) -> Reference:
    """The same with intensities of 0 and 1 at which its sample can be read as float32.

    Integers are brought to 0..1, floats left alone. Of numbers with more digits than
    float32 the darkest and brightest in the sample's windows, which are read twice.

    Raises
    ------
    FocusFusionError
        If these are too far apart to compute with.
    """
    stack = reference.stack
    if not is_wide(stack.dtype):
        return replace(reference, black=0.0, white=_white(stack))
    size = stack.height, stack.width
    lowest, highest = np.inf, -np.inf
    for z in range(stack.n_slices):
        for window in sample_places(stack):
            y, x = (
                slice(max(s.start, 0), min(s.stop, n))
                for s, n in zip(window, size, strict=True)
            )
            values = stack.read(reference.t, slice(z, z + 1), y, x)
            values = values[np.flatnonzero(reference.weights)]
            present = values[np.isfinite(values)]
            if present.size:
                lowest = min(lowest, float(present.min()))
                highest = max(highest, float(present.max()))
    if lowest > highest:
        return replace(reference, black=0.0, white=1.0)
    if highest == lowest:
        highest = lowest + max(1.0, abs(lowest) * 1e-6)
    check_span(lowest, highest, stack.dtype, stack.name)
    return replace(reference, black=lowest, white=highest)


def _needs_sample(stack: FocusStack) -> bool:
    """Whether the range is not given by the type, as with 8- and 16-bit integers."""
    return stack.dtype not in (np.uint8, np.int8, np.uint16, np.int16)


def _white(stack: FocusStack) -> float:
    return float(np.iinfo(stack.dtype).max) if stack.dtype.kind in "iu" else 1.0


def _normalised(reference: Reference) -> tuple[Reference, list[Tensor]]:
    """A plane with the intensities of its sample, and that, (windows, 1, h, w) each."""
    first = with_first_range(reference)
    windows, present = zip(*sample(first), strict=True)
    low, high = black_and_white(windows, present)
    span = first.white - first.black
    black, white = first.black + low * span, first.black + high * span
    check_span(black, white, reference.stack.dtype, reference.stack.name)
    planes = filled_from_slices(windows, present)
    for slices in planes:
        slices -= np.float32(low)
        slices /= np.float32(high - low)
    return (
        replace(reference, black=black, white=white),
        [torch.from_numpy(slices)[:, None] for slices in planes],
    )


def _context(
    model: FusionModel | None, windows: Sequence[Tensor], device: torch.device
) -> Any:
    if model is None:
        return None
    return model.context([planes.to(device) for planes in windows])


def moved_to(value: Any, device: torch.device) -> Any:
    """Tensors, in whatever tuples, on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        moved = [moved_to(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    return value
