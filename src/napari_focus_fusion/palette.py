"""Colours of channels whose source names none: those that napari would choose."""

from __future__ import annotations

_RGB = {
    **{"gray": "FFFFFF", "magenta": "FF00FF", "green": "00FF00", "cyan": "00FFFF"},
    **{"yellow": "FFFF00", "red": "FF0000", "blue": "0000FF"},
}
_TWO = ("magenta", "green")
_MORE = ("cyan", "magenta", "yellow", "red", "green", "blue")


def channel_colours(count: int) -> list[str]:
    """Names of napari colormaps, one a channel: grey if there is one only."""
    palette = ("gray",) if count == 1 else _TWO if count == 2 else _MORE
    return [palette[i % len(palette)] for i in range(count)]


def hex_colours(count: int) -> list[str]:
    """The same colours as six hexadecimal digits each."""
    return [_RGB[name] for name in channel_colours(count)]
