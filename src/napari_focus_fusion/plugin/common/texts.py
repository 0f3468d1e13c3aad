"""Texts for the user: stacks, axes, bytes, devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import psutil

from napari_focus_fusion.plugin.adapters.layers import level_0
from napari_focus_fusion.progress import byte_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image

_SYMBOLS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "px"}


def describe(layers: Sequence[Image], axes: str) -> str:
    """Size and type of a stack in one line.

    Parameters
    ----------
    layers
        One image layer, or a two-dimensional one a slice.
    axes
        What the axes of the stack are, one letter each.
    """
    shape = level_0(layers[0]).shape
    if len(layers) > 1:
        shape = (len(layers), *shape)
    size = dict(zip(axes, shape, strict=False))
    parts = [_counted(size["Z"], "slice"), f"{size['X']} × {size['Y']} px"]
    if "C" in size:
        parts.append(_counted(size["C"], "channel"))
    if "T" in size:
        parts.append(_counted(size["T"], "time point"))
    dtype = np.dtype(level_0(layers[0]).dtype)
    parts.append("RGB" if layers[0].rgb else str(dtype))
    return ", ".join(parts)


def memory_in_use(device: str) -> str:
    """Memory in use by the process, on the graphics card or in RAM."""
    import torch

    if torch.cuda.is_available() and device != "cpu":
        index = torch.device(device).index if device.startswith("cuda") else None
        return f"{byte_text(torch.cuda.memory_allocated(index))} on the card"
    return f"{byte_text(psutil.Process().memory_info().rss)} of memory"


def device_text(name: str) -> str:
    """Name of a device for the user."""
    return "CPU" if name.startswith("cpu") else name


def unit_text(unit: str) -> str:
    """Symbol of a unit: ``"µm"``."""
    return _SYMBOLS.get(unit, unit)


def axis_text(layer: Image, axis: int) -> str:
    """``"z: 12 slices, 2 µm apart"``."""
    count, size = level_0(layer).shape[axis], abs(float(layer.scale[axis]))
    unit = str(layer.units[axis])
    apart = "" if unit == "pixel" else f", {size:g} {unit_text(unit)} apart"
    return f"{_axis_name(layer, axis)}: {_counted(count, 'slice')}{apart}"


def reading_text(layer: Image, axes: list[int], letters: str) -> str:
    """``"axis 0: 5 time points, axis 1: 2 channels"``."""
    shape = level_0(layer).shape
    words = {"C": "channel", "T": "time point"}
    return ", ".join(
        f"{_axis_name(layer, axis)}: {_counted(shape[axis], words[letter])}"
        for axis, letter in zip(axes, letters, strict=True)
    )


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _axis_name(layer: Image, axis: int) -> str:
    label = str(layer.axis_labels[axis])
    return f"axis {axis}" if label.lstrip("-").isdigit() or not label else label
