"""What a file holds, before it is known to be a focus stack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_focus_fusion.lazy import Pixels


@dataclass(frozen=True, eq=False)
class Source:
    """Pixels of one file or Zarr, and their metadata.

    Parameters
    ----------
    data
        Read by region; axes in the order of the file.
    axes
        One letter a dimension out of ``TCZYXS``; None where the metadata have none.
    scale
        Pixel size by axis letter, in `units`; absent where unknown.
    units
        Unit by axis letter, spelled as OME-Zarr does.
    name
        Of the image, else of the file.
    path
        Path or address as it was given.
    channel_names
        One a channel, or empty.
    display
        napari layer state that the metadata hold: colormap, contrast_limits, translate.
    valid
        Where the pixels are valid, True, in the axes Z, Y and X. None, the only value
        that readers give so far: everywhere.
    notes
        What was missing, wrong or guessed, in sentences for the user.
    files
        Of a data set of several files: each one's path as ``"file"``, and which index
        it has along the axes that vary from file to file.
    """

    data: Pixels
    axes: str | None
    name: str
    path: str
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()
    display: Mapping[str, Any] = field(default_factory=dict)
    valid: Pixels | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Mapping[str, Any], ...] = ()
