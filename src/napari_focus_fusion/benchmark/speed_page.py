"""The page on time and memory: Markdown, CSV and charts."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from PIL import Image

from napari_focus_fusion.benchmark.chart import Axis, line_chart
from napari_focus_fusion.benchmark.report import (
    machine,
    made_by,
    markdown_table,
    not_installed,
)
from napari_focus_fusion.benchmark.speed import ELECTRONS, LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from napari_focus_fusion.benchmark.speed import Cost

_ABOUT = f"""\
One scene with ground truth (grey, 16 bits, {ELECTRONS:g} electrons, relief), fused in a
process of its own each time, from memory into memory. Seconds are elapsed ones, with
as many threads as the program takes; a processor's seconds are those of all its
threads. Memory is the most that the whole process held, Python and libraries included.
Where the run before it says that one would take more than {LONGEST:g} s it is left out.
"""

#: Of each sweep: heading, what the table and the chart go along, and what is said.
_SWEEPS = {
    "slices": (
        "Number of slices",
        "slices",
        lambda cost: cost.slices,
        "Slices of .26 megapixels.",
    ),
    "area": (
        "Area",
        "megapixels",
        lambda cost: float(f"{cost.megapixels:.3g}"),
        "Stacks of 4 slices; from 1 megapixel on the scene is mirrored.",
    ),
    "tile": (
        "Tile",
        "tile, pixels",
        lambda cost: cost.tile,
        "The side of the tiles of networks, 8 slices of 1 megapixel.",
    ),
}
#: Tables of each sweep: heading, what is measured, digits.
_MEASURES: tuple[tuple[str, Callable[[Cost], float], int], ...] = (
    ("Seconds", lambda cost: cost.seconds, 2),
    (
        "Processor seconds a megapixel and slice",
        lambda cost: cost.cpu_seconds / cost.work,
        3,
    ),
    ("Peak memory, MB", lambda cost: cost.peak_mb, 0),
)


def write_speed_page(
    costs: Sequence[Cost], missing: dict[str, str], folder: Path, command: str
) -> list[Path]:
    """Write ``speed.md``, ``speed.csv`` and a chart of each sweep.

    Parameters
    ----------
    costs, missing
        What `measure_speed` returned.
    folder
        Made where it is not there; files of the same names are replaced.
    command
        What to type to get the same again.

    Returns
    -------
    list of Path
        What was written, the page first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# Benchmark: time and memory", made_by(command), _ABOUT]
    written = []
    for sweep, (heading, title, along, about) in _SWEEPS.items():
        own = [cost for cost in costs if cost.sweep == sweep]
        if not any(not cost.error for cost in own):
            continue
        parts += [f"## {heading}", about]
        for name, value, digits in _MEASURES:
            parts += [f"### {name}", _table(own, title, along, value, digits)]
        for name, value, _ in (_MEASURES[0], _MEASURES[2]):
            kind = "seconds" if value is _MEASURES[0][1] else "memory"
            path = folder / f"speed-{sweep}-{kind}.png"
            chart = line_chart(
                {
                    method: [(along(c), value(c)) for c in of if not c.error]
                    for method, of in _by_method(own).items()
                },
                Axis(title),
                Axis(name),
            )
            Image.fromarray(chart).save(path, optimize=True)
            parts.append(f"![{name} over {title}]({path.name})")
            written.append(path)
    failed = [
        f"- {c.method}, {c.slices} x {c.side} x {c.side}: {c.error}"
        for c in costs
        if c.error
    ]
    if failed:
        parts += ["## Left out", "\n".join(failed)]
    parts.append(not_installed(missing))
    page, table = folder / "speed.md", folder / "speed.csv"
    page.write_text("\n\n".join(p.strip() for p in parts if p) + "\n", encoding="utf-8")
    table.write_text(to_csv(costs), encoding="utf-8")
    return [page, table, *written]


def _by_method(costs: Iterable[Cost]) -> dict[str, list[Cost]]:
    found: dict[str, list[Cost]] = {}
    for cost in costs:
        found.setdefault(cost.method, []).append(cost)
    return found


def _table(
    costs: Sequence[Cost],
    title: str,
    along: Callable[[Cost], float],
    value: Callable[[Cost], float],
    digits: int,
) -> str:
    """Methods down, what grows across."""
    columns = list(dict.fromkeys(along(cost) for cost in costs))
    rows = []
    for method, own in _by_method(costs).items():
        there = {along(c): f"{value(c):.{digits}f}" for c in own if not c.error}
        rows.append([method, *(there.get(column, "–") for column in columns)])
    return markdown_table([title, *(f"{column:g}" for column in columns)], rows)


def to_csv(costs: Iterable[Cost]) -> str:
    """One line a measurement."""
    text = io.StringIO()
    names = ("sweep", "method", "slices", "side", "tile")
    measured = ("seconds", "cpu_seconds", "peak_mb", "error")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *measured, "machine"])
    for cost in costs:
        writer.writerow(
            [getattr(cost, name) for name in (*names, *measured)] + [machine()]
        )
    return text.getvalue()
