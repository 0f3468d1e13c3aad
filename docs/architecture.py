"""Draw ``docs/_static/architecture.svg``: pipeline, engine, and layers.

The layers are those of the import contract in ``pyproject.toml``.

    python docs/architecture.py
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIAGRAM = ROOT / "docs" / "_static" / "architecture.svg"

#: Steps from a stack to its result, and their modules; in brackets: optional.
PIPELINE = (
    ("open", "opening, read"),
    ("(register)", "registration"),
    ("score", "engine, models"),
    ("decide", "decision"),
    ("compose", "composite"),
    ("(super-resolve)", "engine"),
    ("result", "result, write"),
)
#: Objects of the engine: name, file, and what it holds or does.
ENGINE = (
    ("FusionSettings", "settings.py", "what the user asked for; recorded, compared"),
    ("RunPlan", "plan.py", "models, regions, tiles, halo"),
    ("Prepared", "prepare.py", "what one time point needs"),
    ("Step", "steps.py", "key, title, cost, run: what is done"),
    ("executors", "executors.py", "a step over regions: locally or on dask"),
)
MONITOR = (
    "Monitor",
    "monitor.py",
    "advance, check_cancelled, warn: stays in this process",
)

#: Boxes are filled, and what lies between them is grey: readable on white and on black.
COLOURS = {
    "pipeline": "#cfe3f7",
    "engine": "#d8edd2",
    "layer": "#efe6d0",
    "mutable": "#f7d9cf",
}
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 14px; fill: #1b1f24; }
.small { font-size: 12px; }
.head { font-weight: 600; fill: #808891; }
.name { font-weight: 600; font-size: 13px; }
rect { stroke: #808891; }
path { stroke: #808891; stroke-width: 1.5; fill: #808891; }
.optional { stroke-dasharray: 5 4; }
"""
WIDTH, MARGIN = 1000, 20
LAYER_HEIGHT, LAYER_GAP, TOP = 28, 7, 136


def layers() -> list[str]:
    """Rows of the import contract, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    rows = next(each["layers"] for each in contracts if each["id"] == "layers")
    return [row.replace(" |", ",") for row in rows if not row.startswith("__")]


def box(
    x: float, y: float, width: float, height: float, colour: str, kind: str = ""
) -> str:
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" '
        f'height="{height:g}" rx="6" fill="{COLOURS[colour]}"/>'
    )


def text(
    x: float, y: float, content: str, kind: str = "", anchor: str = "middle"
) -> str:
    return (
        f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
        f"{escape(content)}</text>"
    )


def arrow(x0: float, y0: float, x1: float, y1: float) -> str:
    """From left to right, or downwards."""
    across, along = (0, 1) if x0 == x1 else (1, 0)
    tip = f"M{x1:g} {y1:g} l{-6 * across - 4 * along:g} {-4 * across - 6 * along:g} "
    tip += f"l{8 * along:g} {8 * across:g} z"
    return f'<path d="M{x0:g} {y0:g} L{x1:g} {y1:g} {tip}"/>'


def draw_pipeline(y: float) -> list[str]:
    gap = 18
    width = (WIDTH - 2 * MARGIN - gap * (len(PIPELINE) - 1)) / len(PIPELINE)
    elements = [text(MARGIN, y, "The pipeline: fusion.py", "head", "start")]
    for number, (name, place) in enumerate(PIPELINE):
        x = MARGIN + number * (width + gap)
        kind = "optional" if name.startswith("(") else ""
        elements += [
            box(x, y + 12, width, 56, "pipeline", kind),
            text(x + width / 2, y + 36, name, "name"),
            text(x + width / 2, y + 56, place, "small"),
        ]
        if number:
            elements.append(arrow(x - gap + 3, y + 40, x - 4, y + 40))
    return elements


def draw_engine(x: float, y: float, width: float) -> list[str]:
    height, gap = 56, 22
    elements = [text(x, y, "The engine: one run", "head", "start")]
    for number, (name, file, description) in enumerate(ENGINE):
        top = y + 12 + number * (height + gap)
        elements += [
            box(x, top, width, height, "engine"),
            text(x + 14, top + 23, name, "name", "start"),
            text(x + width - 14, top + 23, file, "small", "end"),
            text(x + 14, top + 43, description, "small", "start"),
        ]
        if number:
            elements.append(arrow(x + width / 2, top - gap + 2, x + width / 2, top - 4))
    name, file, description = MONITOR
    top = y + 12 + len(ENGINE) * (height + gap)
    elements += [
        box(x, top, width, height, "mutable"),
        text(x + 14, top + 23, name, "name", "start"),
        text(x + width - 14, top + 23, f"{file}; mutable", "small", "end"),
        text(x + 14, top + 43, description, "small", "start"),
        arrow(x + width / 2, top - gap + 2, x + width / 2, top - 4),
    ]
    return elements


def draw_layers(x: float, y: float, width: float) -> list[str]:
    elements = [text(x, y, "Layers: each imports only from below", "head", "start")]
    for number, row in enumerate(layers()):
        top = y + 12 + number * (LAYER_HEIGHT + LAYER_GAP)
        elements += [
            box(x, top, width, LAYER_HEIGHT, "layer"),
            text(x + width / 2, top + 19, row, "small"),
        ]
    return elements


def diagram() -> str:
    """The whole diagram as SVG."""
    half = (WIDTH - 3 * MARGIN) / 2
    height = TOP + 12 + len(layers()) * (LAYER_HEIGHT + LAYER_GAP) + MARGIN
    elements = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="The pipeline, the engine, and the layers">',
        f"<style>{STYLE}</style>",
        *draw_pipeline(24),
        *draw_engine(MARGIN, TOP, half),
        *draw_layers(2 * MARGIN + half, TOP, half),
        "</svg>",
    ]
    return "\n".join(elements) + "\n"


if __name__ == "__main__":
    DIAGRAM.write_text(diagram(), encoding="utf-8")
