"""When memory runs out: halve the batch, then the tile, then take the CPU."""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_focus_fusion.device import is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.engine.work import Work


def within_memory(
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
            [within_memory(work, function, half) for half in batch.tensor_split(2)]
        )
    axis = -1 if batch.shape[-1] >= batch.shape[-2] else -2
    length = batch.shape[axis]
    if length >= 4 * work.halo + 64:
        middle = length // 2
        low = batch.narrow(axis, 0, middle + work.halo)
        high = batch.narrow(axis, middle - work.halo, length - middle + work.halo)
        parts = [
            within_memory(work, function, low).narrow(axis, 0, middle),
            within_memory(work, function, high).narrow(
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
    networks = [work.model]
    if work.upscale is not None:
        networks.append(work.upscale.resolver)
    for network in networks:
        network.to("cpu")
    try:
        with torch.inference_mode():
            found = function.func(*function.args, batch[:, None].cpu(), **keywords)
    finally:
        for network in networks:
            network.to(work.device)
    return found.to(work.device)


def moved_to(value: Any, device: torch.device) -> Any:
    """Tensors, in whatever tuples, on another device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        moved = [moved_to(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    return value
