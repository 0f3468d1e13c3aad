"""Settings of a fusion: checked once, recorded, compared when a run is resumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from napari_focus_fusion.composite import Background, Blend
from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from napari_focus_fusion.stack import FocusStack

#: The least side of a model's tile, in pixels.
SMALLEST_TILE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionSettings:
    """The parameters of :func:`napari_focus_fusion.fuse` that are plain values.

    Attributes
    ----------
    reference
        Reference for all channels: a channel, ``"luminance"``, ``"mean"``, another
        stack, or None for the default.
    scale, joint
        Factor of super-resolution, and whether slices are made finer before they are
        fused.
    blend, smoothness, surface, background, verify
        How the decision map and the fused pixels are made.
    tile, device, memory
        Device, tile size and memory; the result does not depend on them.

    Raises
    ------
    FocusFusionError
        If a value is wrong whatever the stack and the model.
    """

    reference: int | str | FocusStack | None = None
    scale: int = 1
    joint: bool = True
    blend: Blend = "feather"
    smoothness: float = 1.0
    surface: float = 1.0
    background: Background = "nearest"
    verify: bool = True
    tile: int | None = None
    device: str = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.blend not in get_args(Blend):
            raise FocusFusionError(
                f"blend={self.blend!r} is unknown; use 'feather' or 'select'."
            )
        if self.background not in get_args(Background):
            raise FocusFusionError(
                f"background={self.background!r} is unknown; use 'nearest' or 'mean'."
            )
        if self.background == "mean" and self.blend == "select":
            raise FocusFusionError(
                "blend='select' takes every pixel from one slice, so that the mean of "
                "all slices cannot be the background. Use blend='feather'."
            )
        if not 0 <= self.smoothness <= 10:
            raise FocusFusionError(
                f"smoothness={self.smoothness} must lie between 0 and 10."
            )
        if not 0 <= self.surface <= 4:
            raise FocusFusionError(f"surface={self.surface} must lie between 0 and 4.")
        if self.tile is not None and self.tile < SMALLEST_TILE:
            raise FocusFusionError(
                f"tile={self.tile} is too small; use at least {SMALLEST_TILE} pixels."
            )

    def recorded(self) -> dict[str, Any]:
        """Those that make the result what it is, as provenance records them."""
        return {
            "reference": getattr(self.reference, "name", self.reference),
            "scale": self.scale,
            "blend": self.blend,
            "smoothness": self.smoothness,
            "surface": self.surface,
            "background": self.background,
            "verify": self.verify,
        }
