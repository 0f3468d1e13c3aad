"""Draw ``docs/_static/architecture.svg``: the road, the engine, and the layers.

The layers are those of the import contract in ``pyproject.toml``.

    python docs/architecture.py
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "_static" / "architecture.svg"

#: What happens to a stack, and where that is written; None: only where asked for.
ROAD = (
    ("open", "opening, read"),
    ("(align)", "to come"),
    ("scan", "engine, models"),
    ("decide", "decision"),
    ("compose", "composite"),
    ("(super-resolve)", "engine"),
    ("result", "result, write"),
)
#: What the engine works with: name, file, and what it is.
ENGINE = (
    ("FusionSettings", "settings.py", "what was asked; recorded, compared"),
    ("RunPlan", "plan.py", "what follows from it and the stack"),
    ("Prepared", "prepare.py", "what one time point needs"),
    ("Step", "steps.py", "key, title, cost, run: what is done"),
    ("executors", "executors.py", "steps over regions, here or on dask"),
)
MONITOR = ("Monitor", "monitor.py", "advance, check_cancelled, warn: never sent away")

#: Boxes bring their own paper, and what stands between them is grey: readable on white
#: and on black.
COLOURS = {"road": "#cfe3f7", "engine": "#d8edd2", "layer": "#efe6d0", "one": "#f7d9cf"}
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 14px; fill: #1b1f24; }
.small { font-size: 12px; }
.head { font-weight: 600; fill: #808891; }
.name { font-weight: 600; }
rect { stroke: #808891; }
path { stroke: #808891; stroke-width: 1.5; fill: #808891; }
.maybe { stroke-dasharray: 5 4; }
"""
WIDTH, HEIGHT, MARGIN = 1000, 640, 20


def layers() -> list[str]:
    """Rows of the import contract, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    rows = next(each["layers"] for each in contracts if each["id"] == "layers")
    return [row.replace(" |", ",") for row in rows if not row.startswith("__")]


def box(
    x: float, y: float, wide: float, high: float, colour: str, kind: str = ""
) -> str:
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" '
        f'rx="6" fill="{COLOURS[colour]}"/>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    return (
        f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    """From left to right, or downwards."""
    across, along = (0, 1) if x0 == x1 else (1, 0)
    tip = f"M{x1:g} {y1:g} l{-6 * across - 4 * along:g} {-4 * across - 6 * along:g} "
    tip += f"l{8 * along:g} {8 * across:g} z"
    return f'<path d="M{x0:g} {y0:g} L{x1:g} {y1:g} {tip}"/>'


def road(y: float) -> list[str]:
    gap = 24
    wide = (WIDTH - 2 * MARGIN - gap * (len(ROAD) - 1)) / len(ROAD)
    parts = [text(MARGIN, y, "The road of a stack: fusion.py", "head", "start")]
    for number, (name, place) in enumerate(ROAD):
        x = MARGIN + number * (wide + gap)
        kind = "maybe" if name.startswith("(") else ""
        parts += [
            box(x, y + 12, wide, 56, "road", kind),
            text(x + wide / 2, y + 36, name, "name"),
            text(x + wide / 2, y + 56, place, "small"),
        ]
        if number:
            parts.append(arrow(x - gap + 3, y + 40, x - 4, y + 40))
    return parts


def engine(x: float, y: float, wide: float) -> list[str]:
    high, gap = 56, 22
    parts = [text(x, y, "The engine: one run", "head", "start")]
    for number, (name, file, words) in enumerate(ENGINE):
        top = y + 12 + number * (high + gap)
        parts += [
            box(x, top, wide, high, "engine"),
            text(x + 14, top + 23, name, "name", "start"),
            text(x + wide - 14, top + 23, file, "small", "end"),
            text(x + 14, top + 43, words, "small", "start"),
        ]
        if number:
            parts.append(arrow(x + wide / 2, top - gap + 2, x + wide / 2, top - 4))
    name, file, words = MONITOR
    top = y + 12 + len(ENGINE) * (high + gap)
    parts += [
        box(x, top, wide, high, "one"),
        text(x + 14, top + 23, name, "name", "start"),
        text(x + wide - 14, top + 23, f"{file}; the one that changes", "small", "end"),
        text(x + 14, top + 43, words, "small", "start"),
        arrow(x + wide / 2, top - gap + 2, x + wide / 2, top - 4),
    ]
    return parts


def rooms(x: float, y: float, wide: float) -> list[str]:
    high, gap = 28, 7
    parts = [text(x, y, "Layers: each imports only from below", "head", "start")]
    for number, row in enumerate(layers()):
        top = y + 12 + number * (high + gap)
        parts += [
            box(x, top, wide, high, "layer"),
            text(x + wide / 2, top + 19, row, "small"),
        ]
    return parts


def picture() -> str:
    """The whole picture as SVG."""
    half = (WIDTH - 3 * MARGIN) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="The road of a stack, the engine, and the layers">',
        f"<style>{STYLE}</style>",
        *road(24),
        *engine(MARGIN, 136, half),
        *rooms(2 * MARGIN + half, 136, half),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
