"""A report drawn: which slices the pixels came from, over its text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class Shares(Protocol):
    """What is drawn of a :class:`~napari_focus_fusion.report.Report`."""

    @property
    def share(self) -> tuple[float, ...]:
        """Of the pixels that were taken from each slice."""

    @property
    def clear_share(self) -> tuple[float, ...]:
        """The same, of the pixels whose confidence is not low."""

    @property
    def clipped_ends(self) -> tuple[int, ...]:
        """Slices at the ends where the stack may be too short."""


def histogram(
    found: Shares,
    width: int,
    height: int,
    *,
    ink: tuple[int, int, int] = (0, 0, 0),
    paper: tuple[int, int, int] = (255, 255, 255),
    size: int = 13,
) -> NDArray[np.uint8]:
    """Draw which share of the pixels came from which slice.

    Parameters
    ----------
    found
        With a decision; without one an empty chart is drawn.
    width, height
        In pixels.
    ink, paper
        Colours of the letters and of what lies behind.
    size
        Of the letters, in pixels.

    Returns
    -------
    ndarray
        (height, width, 3) uint8: of each slice all pixels (wide, pale) and clear ones
        (narrow; orange where the stack may be too short).
    """
    from PIL import Image, ImageDraw, ImageFont

    sheet = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=size)
    pale = tuple((2 * p + i) // 3 for p, i in zip(paper, ink, strict=True))
    left, step = _columns(found, width, size)
    top, bottom = 2 * size, height - 3 * size
    most = max((*found.share, *found.clear_share), default=0) or 1
    draw.text((left, 2), "share of pixels; narrow: clear ones", fill=ink, font=font)
    draw.text((4, top - size // 2), f"{most:.0%}", fill=ink, font=font)
    draw.text((4, bottom - size // 2), "0%", fill=ink, font=font)
    draw.line((left, bottom, width - size, bottom), fill=ink)
    every = max(round(4 * size / step), 1)
    for z, (whole, clear) in enumerate(
        zip(found.share, found.clear_share, strict=True)
    ):
        colour = (224, 122, 31) if z in found.clipped_ends else (42, 120, 190)
        for value, inset, fill in ((whole, 0.08, pale), (clear, 0.3, colour)):
            box = (
                left + (z + inset) * step,
                bottom - value / most * (bottom - top),
                max(left + (z + 1 - inset) * step, left + (z + inset) * step + 1),
                bottom,
            )
            draw.rectangle(box, fill=fill)
        if z % every == 0:
            place = (left + (z + 0.5) * step, bottom + 4)
            draw.text(place, str(z), fill=ink, font=font, anchor="ma")
    middle = (left + (width - size - left) / 2, height - size - 4)
    draw.text(middle, "slice, from 0", fill=ink, font=font, anchor="ma")
    return np.asarray(sheet)


def slice_at(found: Shares, x: float, width: int, *, size: int = 13) -> int | None:
    """The slice whose bars stand at a column of :func:`histogram`; None outside."""
    left, step = _columns(found, width, size)
    z = int((x - left) // step)
    return z if 0 <= z < len(found.share) else None


def page(found: Shares, text: str, width: int) -> NDArray[np.uint8]:
    """Draw the histogram over a text: (height, width, 3) uint8, on white."""
    from PIL import Image, ImageDraw, ImageFont

    chart = histogram(found, width, 260)
    font = ImageFont.load_default(size=14)
    lines = list(_wrapped(text, font, width - 24))
    height = chart.shape[0] + 20 * len(lines) + 24
    sheet = Image.new("RGB", (width, height), "white")
    sheet.paste(Image.fromarray(chart), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        place = (12, chart.shape[0] + 12 + 20 * number)
        draw.text(place, line, fill="black", font=font)
    return np.asarray(sheet)


def _columns(found: Shares, width: int, size: int) -> tuple[int, float]:
    """Where the bars begin, and how wide each one's place is."""
    left = 4 * size
    return left, (width - size - left) / max(len(found.share), 1)


def _wrapped(text: str, font: Any, width: int) -> Iterator[str]:
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        now = indent
        for word in line.split():
            longer = f"{now} {word}" if now.strip() else f"{indent}{word}"
            if font.getlength(longer) > width and now.strip():
                yield now
                now = f"{indent}    {word}"
            else:
                now = longer
        yield now
