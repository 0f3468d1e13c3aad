"""The pages on families of scenes and on real stacks: Markdown, CSV and pictures."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.chart import Axis, line_chart
from napari_focus_fusion.benchmark.judging import BEST_SLICE, Judgement
from napari_focus_fusion.benchmark.maps import (
    BINS,
    CONFIDENT,
    WINDOW,
    calibration_error,
    pooled,
)
from napari_focus_fusion.benchmark.pictures import (
    reliability_chart,
    set_sheet,
    shown_methods,
)
from napari_focus_fusion.benchmark.report import made_by, markdown_table, not_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from napari_focus_fusion.benchmark.families import Results, StackSet

PLAIN = "sml, surface 0"
"""What every method should be as good as, beside the best slice."""

TOLERANCE = 0.05  # dB
COST = "CPU s / MP·slice"
CALIBRATION = "calibration error"

#: Column heads and digits of measures.
_COLUMNS = {
    "PSNR": ("PSNR, dB", 2),
    "depth error": ("depth error, slices", 2),
    "depth >1": ("off by > 1", 3),
    "depth error at steps": ("error at steps", 2),
    "depth >1 at steps": ("off by > 1 at steps", 3),
    "depth error away from steps": ("error away from steps", 2),
    "depth >1 away from steps": ("off by > 1 away from steps", 3),
    "coverage": ("coverage", 3),
    CALIBRATION: ("calibration error", 3),
    "sure of nothing": ("sure without texture", 3),
    "off the median": ("off the median", 3),
    "pieces": ("pieces / MP", 0),
    COST: (COST, 2),
}

_ABOUT = f"""\
PSNR is against the noise-free image with everything in focus, its range being that of
the true image. Depth is measured where the truth has texture: the mean error in slices,
and the share of the pixels that are off by more than one slice, also within 4 pixels of
a jump in depth ("at steps") and elsewhere. Coverage is the share that is right to one
slice at a confidence of {CONFIDENT:g} or more. Calibration error is how far confidence
is from the share that is right to one slice, on average over the pixels. "Sure without
texture" is the share of the other pixels at a confidence of {CONFIDENT:g} or more.
Pairs do not count in these three, nor in "off by > 1": each of their depths is right to
one slice. The best single slice is the one of the highest PSNR, which only the truth
tells.
"""

_ABOUT_REAL = f"""\
The truth of these stacks is not known. A map that is patchwork differs from its own
median: "off the median" is the share of the pixels more than one slice off the median
of {WINDOW} x {WINDOW} pixels, "pieces" is the number of connected pieces of one slice a
megapixel. Neither says that a map is right. The pictures are crops at full size where
the methods differ the most; the slice is the sharpest.
"""


def write_pages(
    results: Results,
    judged: Sequence[Judgement],
    folder: Path,
    command: str,
    log: Callable[[str], None],
) -> list[Path]:
    """Write ``families.md``, a page a family, ``real-stacks.md`` and a CSV file.

    Parameters
    ----------
    results
        What `run_families` returned.
    judged
        What `judge` measured.
    folder
        Made where it is not there; files of the same names are replaced.
    command
        What to type to get the same again.
    log
        Called with a line of progress.

    Returns
    -------
    list of Path
        What was written, the overview first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    families = [of for of in results.sets if of.cases[0].truth]
    real = [of for of in results.sets if not of.cases[0].truth]
    texts: dict[str, str] = {}
    written: list[Path] = []
    if families:
        texts["families.md"] = _overview(results, judged, families, folder, command)
        written += [folder / f"families-{name}.png" for name in ("reliability", "cost")]
    pictures = {}
    for of in results.sets:
        log(f"drawing {of.name}")
        if (path := _write_sheet(results, of, folder)) is not None:
            pictures[of.name] = path
            written.append(path[1])
    for of in families:
        texts[f"families-{of.name}.md"] = _family_page(of, judged, pictures)
    if real or results.skipped:
        texts["real-stacks.md"] = _real_page(results, real, judged, pictures, command)
    texts["families.csv"] = to_csv(judged)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*(folder / name for name in texts), *written]


def _write_sheet(
    results: Results, of: StackSet, folder: Path
) -> tuple[str, Path] | None:
    """Draw a set; the name of the stack and the file."""
    from PIL import Image

    found = set_sheet(results, of) if of.drawn else None
    if found is None:
        return None
    kind = "families" if of.cases[0].truth else "real"
    path = folder / f"{kind}-{of.name}.jpg"
    # Noise makes PNG files of megabytes.
    Image.fromarray(found[1]).save(path, quality=90, subsampling=0)
    return found[0], path


def to_csv(judged: Iterable[Judgement]) -> str:
    """One line a stack and method, with every measure."""
    text = io.StringIO()
    measures = [name for name in _COLUMNS if name != CALIBRATION]
    writer = csv.DictWriter(
        text,
        ["set", "stack", "method", *measures, CALIBRATION, "note"],
        restval="",
        lineterminator="\n",
    )
    writer.writeheader()
    for one in judged:
        row: dict[str, Any] = {"set": one.data, "stack": one.stack}
        row |= {"method": one.method, "note": one.error, **_values(one)}
        writer.writerow(row)
    return text.getvalue()


def _values(one: Judgement) -> dict[str, float]:
    values = dict(one.values)
    if one.seconds is not None:
        values[COST] = one.seconds
    if one.bins is not None:
        values[CALIBRATION] = calibration_error(one.bins)
    return values


# Tables -------------------------------------------------------------------------------


def mean_of(judged: Iterable[Judgement], measure: str) -> float | None:
    """Mean of a measure over stacks; None where one failed or none has it.

    Stacks that do not have the measure (steps, where there are none) are left out; all
    methods are measured on the same.
    """
    found = list(judged)
    if any(one.error for one in found):
        return None
    if measure == CALIBRATION:
        bins = [one.bins for one in found if one.bins is not None]
        return calibration_error(pooled(bins)) if bins else None
    values = [v[measure] for one in found if measure in (v := _values(one))]
    return float(np.mean(values)) if values else None


def _cell(measure: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.{_COLUMNS[measure][1]}f}"


def _methods(judged: Iterable[Judgement]) -> list[str]:
    return list(dict.fromkeys(one.method for one in judged))


def _by_method(judged: Sequence[Judgement], measures: Sequence[str]) -> str:
    """Methods down, measures across; those that no method has are left out."""
    rows = {
        method: [mean_of(_of(judged, method), measure) for measure in measures]
        for method in _methods(judged)
    }
    there = [
        place
        for place in range(len(measures))
        if any(row[place] is not None for row in rows.values())
    ]
    head = ["", *(_COLUMNS[measures[place]][0] for place in there)]
    return markdown_table(
        head,
        (
            [method, *(_cell(measures[place], row[place]) for place in there)]
            for method, row in rows.items()
        ),
    )


def _of(judged: Iterable[Judgement], method: str) -> list[Judgement]:
    return [one for one in judged if one.method == method]


def _across(
    judged: Sequence[Judgement], measure: str, group: Callable[[Judgement], str]
) -> str:
    """Methods down, groups of stacks across, of one measure."""
    groups = list(dict.fromkeys(map(group, judged)))
    rows = []
    for method in _methods(judged):
        own = _of(judged, method)
        values = [
            mean_of([one for one in own if group(one) == g], measure) for g in groups
        ]
        if any(value is not None for value in values):
            rows.append([method, *(_cell(measure, value) for value in values)])
    return markdown_table(["", *groups], rows)


def _failures(judged: Iterable[Judgement]) -> str:
    lines = [
        f"- {one.method} on {one.data}, {one.stack}: {one.error}"
        for one in judged
        if one.error
    ]
    return "Failed:\n\n" + "\n".join(lines) if lines else ""


def behind(judged: Sequence[Judgement], references: Sequence[str]) -> str:
    """On how many stacks each method is behind one of the references, and the worst.

    Parameters
    ----------
    judged
        Of stacks whose truth is known.
    references
        Methods that should be reached.
    """
    least: dict[tuple[str, str], float] = {}
    for one in judged:
        if one.method in references and "PSNR" in one.values:
            key = one.data, one.stack
            least[key] = max(least.get(key, -np.inf), one.values["PSNR"])
    rows = []
    for method in _methods(judged):
        short = [
            (one.values["PSNR"] - least[one.data, one.stack], one)
            for one in _of(judged, method)
            if "PSNR" in one.values and (one.data, one.stack) in least
        ]
        if method in references or not short:
            continue
        worst, where = min(short, key=lambda item: item[0])
        count = sum(difference < -TOLERANCE for difference, _ in short)
        place = f"{worst:+.2f} ({where.data}: {where.stack})"
        rows.append([method, f"{count} of {len(short)}", place])
    return markdown_table(["", "stacks behind", "smallest difference, dB"], rows)


def _reliability_table(judged: Sequence[Judgement]) -> str:
    """Share right to one slice by confidence: methods down, bins across."""
    rows = []
    for method in _methods(judged):
        bins = [one.bins for one in _of(judged, method) if one.bins is not None]
        if not bins:
            continue
        count, right, _ = pooled(bins)
        total = count.sum()
        cells = [
            f"{r / c:.2f} ({c / total:.0%})" if c > 0 else "–"
            for c, r in zip(count, right, strict=True)
        ]
        rows.append([method, *cells])
    head = [f"{low / BINS:.1f} to {(low + 1) / BINS:.1f}" for low in range(BINS)]
    return markdown_table(["", *head], rows)


# Pages --------------------------------------------------------------------------------


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _overview(
    results: Results,
    judged: Sequence[Judgement],
    families: Sequence[StackSet],
    folder: Path,
    command: str,
) -> str:
    from PIL import Image

    names = [of.name for of in families]
    own = [one for one in judged if one.data in names]
    shown = {method.name for method in shown_methods(results.methods)}
    chart = {
        name: pooled(bins)
        for name in _methods(own)
        if name in shown
        and (bins := [one.bins for one in _of(own, name) if one.bins is not None])
    }
    path = folder / "families-reliability.png"
    Image.fromarray(reliability_chart(chart)).save(path, optimize=True)
    parts = ["# Benchmark: families of scenes", made_by(command), _ABOUT]
    links = [f"- [{of.name}](families-{of.name}.md): {of.about}" for of in families]
    parts.append("\n".join(links))
    for measure in ("PSNR", "depth error", "depth >1", "coverage", CALIBRATION, COST):
        parts += [
            f"## {_COLUMNS[measure][0]}",
            _across(own, measure, lambda one: one.data),
        ]
    parts += [
        f"## Behind {PLAIN} or the best slice",
        f"Stacks on which a method's PSNR is more than {TOLERANCE:g} dB below the "
        "better of the two.",
        behind(own, (PLAIN, BEST_SLICE)),
        "## How far to trust the confidence",
        "Share of the pixels of a confidence that is right to one slice (and how many "
        "pixels have it), every stack counting the same.",
        _reliability_table(own),
        f"![Share right over confidence]({path.name})",
        "## Quality beside cost",
        "Mean PSNR over all stacks and mean processor seconds, of methods that fused "
        "all of them: further up is better, further left is cheaper.",
        f"![PSNR over processor seconds]({_write_costs(own, folder).name})",
        "## What was run",
        _versions(results),
        not_installed(results.missing),
        _failures(own),
    ]
    return _page(parts)


def _write_costs(judged: Sequence[Judgement], folder: Path) -> Path:
    """Draw what methods reach, and what it takes; the file."""
    from PIL import Image

    points = {}
    for method in _methods(judged):
        own = _of(judged, method)
        cost, quality = mean_of(own, COST), mean_of(own, "PSNR")
        if cost and quality is not None:
            points[method] = [(cost, quality)]
    path = folder / "families-cost.png"
    axes = Axis(COST), Axis("PSNR, dB", logarithmic=False)
    Image.fromarray(line_chart(points, *axes, labelled=True)).save(path, optimize=True)
    return path


def _versions(results: Results) -> str:
    rows = ([name, version] for name, version in results.versions.items())
    return markdown_table(["", "code and weights, or version"], rows)


def _family_page(
    of: StackSet, judged: Sequence[Judgement], pictures: dict[str, tuple[str, Path]]
) -> str:
    own = [one for one in judged if one.data == of.name]
    measures = [name for name in _COLUMNS if name not in ("off the median", "pieces")]
    parts = [
        f"# Family: {of.name}",
        of.about,
        "See the [overview](families.md) for the measures.",
    ]
    parts.append(_by_method(own, measures))
    for measure in ("PSNR", "depth error"):
        parts += [
            f"## {_COLUMNS[measure][0]} by stack",
            _across(own, measure, lambda one: one.stack),
        ]
    parts += [*_picture(of, pictures), _failures(own)]
    return _page(parts)


def _picture(of: StackSet, pictures: dict[str, tuple[str, Path]]) -> list[str]:
    if of.name not in pictures:
        return []
    stack, path = pictures[of.name]
    where = "" if stack == of.name else f" ({stack})"
    ends = ("best", " and the truth") if of.cases[0].truth else ("sharpest", "")
    return [
        f"Where the methods shown differ the most{where}, at full size: the {ends[0]} "
        f"slice, the methods{ends[1]}; below them decision maps and confidence.",
        f"![{stack}]({path.name})",
    ]


def _real_page(
    results: Results,
    real: Sequence[StackSet],
    judged: Sequence[Judgement],
    pictures: dict[str, tuple[str, Path]],
    command: str,
) -> str:
    parts = ["# Benchmark: real stacks", made_by(command), _ABOUT_REAL]
    for of in real:
        own = [one for one in judged if one.data == of.name]
        parts += [
            f"## {of.name}",
            of.about,
            _by_method(own, ("off the median", "pieces", COST)),
            *_picture(of, pictures),
            _failures(own),
        ]
    skipped = [f"- {name}: {why}" for name, why in results.skipped.items()]
    if skipped:
        parts += ["## Left out", "\n".join(skipped)]
    return _page(
        [*parts, "## What was run", _versions(results), not_installed(results.missing)]
    )
