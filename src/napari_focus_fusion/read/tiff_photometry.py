"""TIFF images as viewers show them, by their tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.read.photometry import (
    Converted,
    Inverted,
    Palette,
    Turned,
    rgb_of_cmyk,
    rgba_of_grey,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_focus_fusion.lazy import Pixels

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_JPEG = (6, 7, 33007, 34892)  # decoded to RGB
_NOT_READ = {
    4: "is a mask of transparency, not an image",
    8: "has colours as CIE L*a*b*",
    9: "has colours as ICC L*a*b*",
    10: "has colours as ITU L*a*b*",
    32803: "holds the raw values of a camera's colour filter",
    32844: "has logarithmic values",
    32845: "has logarithmic colours",
    34892: "holds the raw values of a camera",
    6: "has colours as luminance and chrominance (YCbCr)",
}


class Meaning(NamedTuple):
    """An image as it is shown: its pixels, axes, colour if it is one, and notes."""

    data: Pixels
    axes: str
    colour: str | None = None
    notes: tuple[str, ...] = ()


def as_shown(data: Pixels, axes: str, page: Any, path: str) -> Meaning:
    """An image of a TIFF as its tags say that it is to be shown.

    Parameters
    ----------
    data
        As it is stored.
    axes
        tifffile's letters, one a dimension.
    page
        ``tifffile.TiffPage`` of the image.
    path
        Of the file, for messages.

    Raises
    ------
    FocusFusionError
        If the pixels are of a kind that is not read here.
    """
    meaning = _converted(data, axes, page, path)
    orientation = int(page.tags.valueof(274, 1) or 1)
    y = meaning.axes.find("YX")
    if y < 0 or not 2 <= orientation <= 8:
        return meaning
    return meaning._replace(data=Turned(meaning.data, y, orientation))


def _converted(data: Pixels, axes: str, page: Any, path: str) -> Meaning:
    photometric = int(page.photometric)
    if photometric in _NOT_READ and not (
        photometric == _YCBCR and int(page.compression) in _JPEG
    ):
        raise FocusFusionError(
            f"{path!r} {_NOT_READ[photometric]}, which is not read here. Save it as "
            "grey or RGB."
        )
    if photometric == _PALETTE and page.colormap is not None:
        return _of_palette(data, axes, np.asarray(page.colormap))
    samples = axes.endswith("S") and data.shape[-1]
    integer = np.dtype(data.dtype).kind == "u"
    if photometric == _CMYK and samples in (4, 5) and integer:
        count = samples - 1
        shown = Converted(data, rgb_of_cmyk, data.dtype, count, replaces=True)
        return Meaning(shown, axes)
    if photometric == _WHITE_IS_ZERO and integer:
        white = 2 ** int(page.bitspersample) - 1
        note = (
            "The file stores white as 0 (MinIsWhite); the values are inverted "
            f"({white} minus the value), so that the result looks as the slices do."
        )
        data = Converted(data, Inverted(white), data.dtype)
        return _of_grey_samples(data, axes, page)._replace(notes=(note,))
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        return _of_grey_samples(data, axes, page)
    return Meaning(data, axes)


def _of_grey_samples(data: Pixels, axes: str, page: Any) -> Meaning:
    """Several grey values a pixel: with an alpha they are colour, else channels."""
    if not axes.endswith("S") or "C" in axes:
        return Meaning(data, axes)
    alpha = any(int(kind) in (1, 2) for kind in page.extrasamples)
    if data.shape[-1] == 2 and alpha:
        shown = Converted(data, rgba_of_grey, data.dtype, 4, replaces=True)
        return Meaning(shown, axes)
    return Meaning(data, axes.replace("S", "C"))


def _of_palette(data: Pixels, axes: str, table: NDArray[Any]) -> Meaning:
    """Colours of a picture, or intensities that are only shown in colour.

    Parameters
    ----------
    data, axes
        Indices.
    table
        (3, n) uint16, black is 0.
    """
    brightness = table.astype(np.int64).sum(0)
    steps = np.diff(brightness)
    spread = brightness[-1] - brightness[0]
    if spread > 0 and (steps >= 0).all():
        return _of_look_up_table(data, axes, table)
    if spread < 0 and (table[0] == table).all() and (steps <= 0).all():
        white = table.shape[1] - 1
        note = (
            "The file shows 0 as white (inverting look-up table); the values are "
            f"inverted ({white} minus the value), so that the result looks as the "
            "slices do."
        )
        return Meaning(
            Converted(data, Inverted(white), data.dtype), axes, notes=(note,)
        )
    colours = table.T
    if (colours % 257 == 0).all() or (colours & 255 == 0).all():
        colours = (colours >> 8).astype(np.uint8)
    return Meaning(
        Converted(data, Palette(colours), colours.dtype, len(table)), axes + "S"
    )


def _of_look_up_table(data: Pixels, axes: str, table: NDArray[Any]) -> Meaning:
    """Intensities, and the colour of the brightest if the others are shades of it."""
    ramp = np.linspace(0, 1, table.shape[1])
    shades = np.outer(table[:, -1], ramp)
    if np.abs(shades - table).max() < 0.02 * 65535:
        colour = "#" + "".join(f"{value >> 8:02x}" for value in table[:, -1])
        return Meaning(data, axes, None if colour == "#ffffff" else colour)
    note = (
        "The file shows its intensities in false colours; the result has the "
        "intensities."
    )
    return Meaning(data, axes, notes=(note,))
