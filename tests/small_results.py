"""Results with values of their own everywhere, and what they are compared by."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.result import FusionResult

if TYPE_CHECKING:
    from napari_focus_fusion.stack import FocusStack

ALL = slice(None)
SIZES = {"T": 2, "C": 3, "Z": 5, "Y": 30, "X": 35, "S": 3}
PIXEL = {"T": 60.0, "C": 1.0, "Z": 0.5, "Y": 0.1, "X": 0.2}
UNITS = {**dict.fromkeys("ZYX", "micrometer"), "T": "second"}
PROVENANCE = {"model": "sesf", "version": "0", "where": np.float32(0.5)}


def result_for(axes: str, scale: int = 1, **fields) -> FusionResult:
    """A result with values of its own everywhere, for a stack of these axes.

    With ``reconstructed=True`` it has a map of what lies beyond the slices.
    """
    reconstructed = fields.pop("reconstructed", False)
    rng = np.random.default_rng(3)
    sizes = {**SIZES, **fields.pop("sizes", {})}
    dtype = fields.pop("dtype", "uint8" if "S" in axes else "uint16")
    data = np.zeros([sizes[axis] for axis in axes], dtype)
    stack = as_stack(data, axes=axes, scale=PIXEL, units=UNITS, name="cells", **fields)
    shape = [
        n * scale if axis in "YX" else n
        for axis, n in zip(stack.fused_axes, stack.fused_shape, strict=True)
    ]
    fused = (rng.random(shape) * 250).astype(dtype)
    decision = rng.integers(0, stack.n_slices, stack.map_shape, np.uint16)
    confidence = rng.random(stack.map_shape).astype(np.float32)
    depth = (decision * 0.5).astype(np.float32)
    maps = (decision, confidence, depth)
    consistency = None if scale == 1 else confidence / 10
    beyond = None
    if reconstructed:
        beyond = rng.normal(0, 20, stack.channel_shape).astype(np.float32)
    return FusionResult(
        fused, *maps, stack, PROVENANCE, scale, consistency, beyond=beyond
    )


def corners(layer) -> np.ndarray:
    """World coordinates of the outer corners of the corner pixels."""
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    ends = [(-0.5, n - 0.5) for n in shape[: layer.ndim]]
    return np.array([layer._data_to_world(p) for p in itertools.product(*ends)])


def pixels_of(stack: FocusStack) -> np.ndarray:
    """(t, component, y, x) of a result read back as a stack of one slice."""
    assert stack.n_slices == 1
    planes = [stack.read(t, [0], ALL, ALL)[:, 0] for t in range(stack.n_times)]
    return np.stack(planes)
