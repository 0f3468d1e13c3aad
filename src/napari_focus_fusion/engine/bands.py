"""Blending in two bands: brightness passes gradually from one slice to the next.

After Burt and Adelson, ACM Transactions on Graphics 2(4), 1983, with two bands: detail
comes from the slice of each pixel, and what is coarser than a window from slices mixed
over that window. Where slices are equally bright that changes nothing, as blur leaves
coarse structure alone; where they are not, no seam is left, and nothing is blurred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.composite import BAND_RADIUS, BANDS_HALO
from napari_focus_fusion.engine.normalise import is_wide
from napari_focus_fusion.engine.reading import prefetch, read_components
from napari_focus_fusion.engine.scoring import blocks_of
from napari_focus_fusion.filters import box_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.tiling import Rectangle

TINY = 1e-6


def coarse_change(
    point: Prepared, region: Rectangle, labels: NDArray[np.uint16], monitor: Monitor
) -> NDArray[np.float64]:
    """What the coarse band changes in the fused pixels of a region.

    Parameters
    ----------
    point
        The time point.
    region
        In the plane's pixels.
    labels
        The decision of the region and :data:`BANDS_HALO` pixels around it, mirrored at
        the border of the plane.
    monitor
        Asked whether to stop.

    Returns
    -------
    ndarray
        (components, h, w), to be added to pixels of the labelled slices.
    """
    stack, halo, device = point.plan.stack, BANDS_HALO, point.plan.device
    components = list(range(stack.n_components))
    changes = np.zeros((len(components), region.height, region.width))
    index = torch.from_numpy(labels.astype(np.int32)).to(device)
    precise = is_wide(stack.dtype) and device.type != "mps"
    kind = torch.float64 if precise else torch.float32
    for block in blocks_of(region, device):
        near = index[block.window(halo, offset=halo)]
        used = [int(z) for z in torch.unique(near)]
        if len(used) < 2:
            continue
        area = block.moved(region.y0, region.x0).grown(halo)

        def read(z: int, area: Rectangle = area) -> tuple[np.ndarray, ...]:
            values, present = read_components(
                stack, point.t, components, slice(z, z + 1), area.y, area.x
            )
            there = np.ones((), bool) if present is None else present[:, 0]
            return values[:, 0], there

        inner = near[halo:-halo, halo:-halo]
        shape = (len(components), block.height, block.width)
        own, mixed, total = (
            torch.zeros(shape, dtype=kind, device=device) for _ in range(3)
        )
        tasks = ((lambda z=z: read(z)) for z in used)
        for z, (values, there) in zip(used, prefetch(tasks), strict=True):
            monitor.check_cancelled()
            planes = torch.from_numpy(np.ascontiguousarray(values, np.float64))
            planes, seen = planes.to(device, kind), torch.from_numpy(there).to(device)
            coarse, known = _coarse(planes, seen)
            weight = _smooth((near == z).to(kind)) * (known > TINY)
            mixed += weight * coarse
            total += weight
            own = torch.where(inner == z, coarse, own)
        change = mixed / total.clamp_min(TINY) - own
        changes[:, *block.slices] = change.cpu().numpy()
    return changes


def _coarse(planes: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """The coarse band of planes (n, h, w), and how much of it is present."""
    if bool(seen.all()):
        coarse = _smooth(planes)
        return coarse, torch.ones_like(coarse)
    there = seen.to(planes.dtype).expand_as(planes)
    known = _smooth(there)
    filled = torch.where(there > 0, planes, torch.zeros_like(planes))
    return _smooth(filled) / known.clamp_min(TINY), known


def _smooth(planes: Tensor) -> Tensor:
    """Means over a window, twice: smaller by :data:`BANDS_HALO` on each side."""
    return box_mean(box_mean(planes, BAND_RADIUS), BAND_RADIUS)
