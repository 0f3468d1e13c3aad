"""Settings of a fusion: checked once, recorded, compared when a run is resumed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_focus_fusion.composite import Background, Blend
from napari_focus_fusion.engine.preference import Prefer
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import (
    LEAST_MEMORY,
    checked_channel,
    memory_bytes,
    one_of,
    real_number,
    shown,
    text_of,
    whole_number,
    yes_or_no,
)
from napari_focus_fusion.registration.registration import (
    Registration,
    load_registration,
)
from napari_focus_fusion.registration.transforms import KINDS, Kind
from napari_focus_fusion.stack import FocusStack

if TYPE_CHECKING:
    from collections.abc import Callable

Brightness = Literal["keep", "level"]
Precision = Literal["float32", "bfloat16"]

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
    align, align_to
        Whether and how slices are brought into register: a kind of transform, a
        registration (which may be given as the path of its file), or None; and the
        slice that stays in its place.
    brightness
        Whether the slices are made equally bright.
    blend, smoothness, surface, prefer, background, strength, verify
        How the decision map and the fused pixels are made.
    precision
        Of the networks' convolutions.
    tile, device, memory
        Device, tile size and memory in bytes, which may be given as text like
        ``"2GB"``; the result does not depend on them.

    Raises
    ------
    FocusFusionError
        If a value is wrong whatever the stack and the model.
    """

    reference: int | str | FocusStack | None = None
    scale: int = 1
    joint: bool = True
    align: Kind | Registration | None = None
    align_to: int | None = None
    brightness: Brightness = "keep"
    blend: Blend = "feather"
    smoothness: float = 1.0
    surface: float = 1.0
    prefer: Prefer = "sharpest"
    background: Background = "nearest"
    strength: float = 1.0
    verify: bool = True
    precision: Precision = "float32"
    tile: int | None = None
    device: str = "auto"
    memory: int | None = None

    def __post_init__(self) -> None:
        for name, checked in _CHECKS.items():
            object.__setattr__(self, name, checked(name, getattr(self, name)))
        if self.background == "mean" and self.blend == "select":
            raise FocusFusionError(
                "blend='select' takes every pixel from one slice, so that the mean of "
                "all slices cannot be the background. Use blend='feather'."
            )
        if self.blend == "bands" and self.scale > 1:
            raise FocusFusionError(
                "blend='bands' goes without super-resolution. Use blend='feather', and "
                "brightness='level' where slices are not equally bright."
            )
        if self.prefer != "sharpest" and self.surface == 0:
            raise FocusFusionError(
                f"prefer={self.prefer!r} needs the surface, in which two depths are "
                "told from noise. Leave surface= at 1."
            )
        if self.align_to is not None and align_kind(self.align) is None:
            raise FocusFusionError(
                f"align_to={self.align_to} says which slice stays in its place where "
                "slices are aligned; say how with align='translation', 'similarity' or "
                "'affine'."
            )

    def recorded(self) -> dict[str, Any]:
        """Those that make the result what it is, as provenance records them."""
        return {
            "reference": getattr(self.reference, "name", self.reference),
            "scale": self.scale,
            "align": _recorded_align(self.align),
            "align_to": self.align_to,
            "brightness": self.brightness,
            "blend": self.blend,
            "smoothness": self.smoothness,
            "surface": self.surface,
            "prefer": self.prefer,
            "background": self.background,
            "strength": self.strength,
            "verify": self.verify,
            "precision": self.precision,
        }


def _recorded_align(align: Kind | Registration | None) -> str | None:
    """A kind, or what tells a registration that was given from all others."""
    if not isinstance(align, Registration):
        return align
    content = json.dumps(align.recorded(), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return f"given, sha256 {digest}"


def align_kind(align: Any) -> Kind | None:
    """The kind of transform that is to be estimated; None where none is."""
    return next((kind for kind in KINDS if kind == align), None)


def _reference(name: str, value: Any) -> int | str | FocusStack | None:
    return value if isinstance(value, FocusStack) else checked_channel(name, value)


def checked_align(name: str, value: Any) -> Kind | Registration | None:
    """A kind of transform, a registration, also from its file, or None.

    Raises
    ------
    FocusFusionError
        If it is none of these.
    """
    if value is None or (isinstance(value, str) and value == "none"):
        return None
    if isinstance(value, Registration):
        return value
    if isinstance(value, str) and value in KINDS:
        return value
    if isinstance(value, str | Path) and Path(value).suffix:
        return load_registration(value)
    raise FocusFusionError(
        f"{name}={shown(value)} is no way to align slices: use 'translation', "
        "'similarity', 'affine', a Registration or the path of a saved one (.json), or "
        "None."
    )


def _slice(name: str, value: Any) -> int | None:
    return None if value is None else whole_number(name, value, least=0)


def _memory(name: str, value: Any) -> int | None:
    if value is None:
        return None
    size = memory_bytes(name, value)
    if size < LEAST_MEMORY:
        raise FocusFusionError(
            f"{name}={shown(value)}: {size} bytes of working memory are too few; give "
            f"at least {LEAST_MEMORY} (16 MB), or leave it out."
        )
    return size


def _tile(name: str, value: Any) -> int | None:
    return None if value is None else whole_number(name, value, least=SMALLEST_TILE)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "reference": _reference,
    "scale": lambda name, value: whole_number(name, value, least=1),
    "joint": yes_or_no,
    "align": checked_align,
    "align_to": _slice,
    "brightness": lambda name, value: one_of(name, value, get_args(Brightness)),
    "blend": lambda name, value: one_of(name, value, get_args(Blend)),
    "smoothness": lambda name, value: real_number(name, value, least=0, most=10),
    "surface": lambda name, value: real_number(name, value, least=0, most=4),
    "prefer": lambda name, value: one_of(name, value, get_args(Prefer)),
    "background": lambda name, value: one_of(name, value, get_args(Background)),
    "strength": lambda name, value: real_number(name, value, least=0, most=1),
    "verify": yes_or_no,
    "precision": lambda name, value: one_of(name, value, get_args(Precision)),
    "tile": _tile,
    "device": text_of,
    "memory": _memory,
}
