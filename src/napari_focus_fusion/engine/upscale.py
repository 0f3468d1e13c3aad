"""How a run super-resolves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_focus_fusion.models.base import SuperResolver
    from napari_focus_fusion.stack import FocusStack


@dataclass(frozen=True, slots=True)
class Upscale:
    """How a run super-resolves.

    Attributes
    ----------
    resolver
        The network.
    scale
        2, 3 or 4.
    joint
        Whether slices are made finer and then fused; else the fused image is made
        finer.
    """

    resolver: SuperResolver
    scale: int
    joint: bool

    def bytes_a_pixel(self, stack: FocusStack) -> int:
        """Memory of one pixel of the source while it is made finer."""
        sums = (self.resolver.feature_channels + 1 + 3 + 3) * 4
        return self.scale**2 * (sums + stack.n_components * stack.dtype.itemsize)
