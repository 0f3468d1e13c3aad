"""Charts of the benchmark: lines over logarithmic axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    _Box = tuple[float, float, float, float]

#: Of lines, in the order of their names; no two are alike in lightness and hue.
_COLOURS = (
    *("#000000", "#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b"),
    *("#17a3b8", "#e377c2", "#7f7f7f", "#9a9a00", "#3b3bb3", "#00695c", "#b36b00"),
)
#: Most names along a logarithmic axis, and what rounding leaves of a mark.
_MOST_TICKS, _EXACT = 12, 1 + 1e-9
_LEFT, _TOP, _BOTTOM, _LEGEND = 70, 30, 56, 250


class Axis(NamedTuple):
    """One axis of a chart.

    Attributes
    ----------
    title
        With the unit.
    logarithmic
        Whether equal ratios are equally long.
    """

    title: str
    logarithmic: bool = True


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x: Axis,
    y: Axis,
    *,
    size: tuple[int, int] = (560, 380),
    labelled: bool = False,
) -> NDArray[np.uint8]:
    """Draw lines with their points.

    Parameters
    ----------
    lines
        By name, points (x, y); above 0 where an axis is logarithmic.
    x, y
        The axes.
    size
        Width and height of the plot in pixels, without legend and titles.
    labelled
        Write each name beside the last point of its line, in place of a legend.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.

    Raises
    ------
    ValueError
        If there is no point.
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError("a chart needs a point")
    scales = [_Scale.of([p[i] for p in points], axis) for i, axis in enumerate((x, y))]
    width, height = size
    canvas = (_LEFT + width + _LEGEND, _TOP + height + _BOTTOM)
    sheet = Image.new("RGB", canvas, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across, up = (s.share(v) for s, v in zip(scales, point, strict=True))
        return _LEFT + across * width, _TOP + (1 - up) * height

    for tick in scales[0].ticks:
        place, _ = at((tick, scales[1].low))
        draw.line((place, _TOP, place, _TOP + height), fill="#e4e4e4")
        draw.text((place, _TOP + height + 6), f"{tick:g}", "black", font, "ma")
    for tick in scales[1].ticks:
        _, place = at((scales[0].low, tick))
        draw.line((_LEFT, place, _LEFT + width, place), fill="#e4e4e4")
        draw.text((_LEFT - 6, place), f"{tick:g}", "black", font, "rm")
    draw.rectangle((_LEFT, _TOP, _LEFT + width, _TOP + height), outline="black")
    draw.text((_LEFT + width / 2, canvas[1] - 26), x.title, "black", font, "ma")
    draw.text((_LEFT, 6), y.title, "black", font)
    written: list[_Box] = []
    for number, (name, line) in enumerate(lines.items()):
        if not line:
            continue
        colour = _COLOURS[number % len(_COLOURS)]
        places = [at(point) for point in sorted(line)]
        draw.line(places, fill=colour, width=2)
        for a, b in places:
            draw.ellipse((a - 3, b - 3, a + 3, b + 3), fill=colour)
        if labelled:
            a, b = places[-1]
            box = draw.textbbox((a + 7, b), name, font, "lm")
            while any(_overlap(box, other) for other in written):
                b += 1
                box = draw.textbbox((a + 7, b), name, font, "lm")
            written.append(box)
            draw.text((a + 7, b), name, colour, font, "lm")
        else:
            draw.text((_LEFT + width + 16, _TOP + 20 * number), name, colour, font)
    return np.asarray(sheet)


def _overlap(one: _Box, other: _Box) -> bool:
    """Whether two boxes (left, top, right, bottom) have pixels in common."""
    beside = one[2] <= other[0] or other[2] <= one[0]
    return not (beside or one[3] <= other[1] or other[3] <= one[1])


class _Scale(NamedTuple):
    """Where values lie along an axis."""

    low: float
    high: float
    ticks: list[float]
    logarithmic: bool

    @classmethod
    def of(cls, values: Sequence[float], axis: Axis) -> _Scale:
        low, high = min(values), max(values)
        if axis.logarithmic:
            first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
            marks = [a * 10.0**k for k in range(first, last + 1) for a in (1, 2, 5)]
            low = max(mark for mark in marks if mark <= low * _EXACT)
            high = min(mark for mark in marks if mark >= high / _EXACT and mark > low)
            ticks = [mark for mark in marks if low <= mark <= high]
            # Over many decades the names of these alone have room.
            tens = [10.0**k for k in range(first, last + 1) if low <= 10.0**k <= high]
            return cls(low, high, tens if len(ticks) > _MOST_TICKS else ticks, True)
        step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
        first, last = math.floor(low / step), math.ceil(high / step)
        last = max(last, first + 1)
        ticks = [step * k for k in range(first, last + 1)]
        return cls(step * first, step * last, ticks, False)

    def share(self, value: float) -> float:
        """0 at the low end to 1 at the high one."""
        ends: list[Any] = [self.low, self.high, value]
        if self.logarithmic:
            ends = [math.log(end) for end in ends]
        low, high, here = ends
        return float((here - low) / (high - low))
