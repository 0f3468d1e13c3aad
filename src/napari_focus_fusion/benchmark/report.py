"""The report of a benchmark: Markdown, CSV, JSON and contact sheets."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion._version import __version__
from napari_focus_fusion.benchmark.candidates import UNTRAINED_SUFFIX
from napari_focus_fusion.benchmark.published import PUBLISHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_focus_fusion.benchmark.table import Run, Score, Table

DEPTH = ("depth error", "depth >1", "depth edge")
COST = (
    "seconds per stack",
    "CPU seconds per stack",
    "megapixel slices per second",
    "peak MB",
)
_SHORT = {
    "seconds per stack": "s / stack",
    "CPU seconds per stack": "CPU s / stack",
    "megapixel slices per second": "MP·slices / s",
    "depth error": "depth error (slices)",
    "depth >1": "off by > 1",
    "depth edge": "depth error at edges",
}
#: Measures of which every stack has its row in the Markdown.
BY_STACK = ("PSNR", "depth error")

_ABOUT = """\
Each row is a mean over the stacks of the data set. Q_MI and Q_NCIE run against true
quality, and a copy of one slice scores high on them, on Q_Y and at times on Q_P:
compare every row with the copy's. "Untrained" is the same network with random weights.
Seconds are those of fusing, without starting Python and loading weights, reading
included; programs that are run as commands count with their start and their files. Peak
memory is the most that the whole process, or one that it ran, has held. Seconds and
memory change from run to run, everything else does not.
"""


def summaries(table: Table) -> list[dict[str, Any]]:
    """Means over each data set, each group of its stacks and each stack.

    Returns
    -------
    list of dict
        ``origin`` (``"measured"`` or ``"published"``), ``data``, ``scope`` (``"all"``,
        ``"group: ..."`` or ``"stack: ..."``), ``candidate``, ``kind``, ``stacks``, the
        measures, the cost, ``device``, ``version``, ``note``. A candidate that failed
        on a stack of the scope has no measures there: means over other stacks are not
        to be compared.
    """
    rows = []
    for data in table.data_sets:
        stacks = data["stacks"]
        scopes = {"all": [stack["name"] for stack in stacks]}
        for group in groups_of(data):
            scopes[f"group: {group}"] = [
                stack["name"] for stack in stacks if group in stack["groups"]
            ]
        scopes |= {f"stack: {stack['name']}": [stack["name"]] for stack in stacks}
        size = {stack["name"]: stack["megapixel_slices"] for stack in stacks}
        runs = [run for run in table.runs if run.data == data["name"]]
        scores = {
            (score.candidate, score.stack): score
            for score in table.scores
            if score.data == data["name"]
        }
        for scope, names in scopes.items():
            for run in runs:
                found = [scores[run.candidate, name] for name in names]
                rows.append(_summary(run, scope, found, sum(size[n] for n in names)))
    return rows + _published(table)


def groups_of(data: dict[str, Any]) -> list[str]:
    """The groups of a data set, those by number of slices first."""
    groups = [group for stack in data["stacks"] for group in stack["groups"]]
    return sorted(
        dict.fromkeys(groups), key=lambda group: not group.endswith(" slices")
    )


def _summary(
    run: Run, scope: str, scores: Sequence[Score], megapixel_slices: float
) -> dict[str, Any]:
    row = {
        "origin": "measured",
        "data": run.data,
        "scope": scope,
        "candidate": run.candidate,
        "kind": run.kind,
        "stacks": len(scores),
    }
    errors = [f"{score.stack}: {score.error}" for score in scores if score.error]
    if not errors:
        # Not every scene has jumps of depth; but all candidates have the same scenes.
        names = dict.fromkeys(name for score in scores for name in score.values)
        for name in names:
            values = [score.values[name] for score in scores if name in score.values]
            row[name] = float(np.mean(values))
        if seconds := sum(score.cost.get("seconds", 0) for score in scores):
            cpu = sum(score.cost["cpu_seconds"] for score in scores)
            row["seconds per stack"] = seconds / len(scores)
            row["CPU seconds per stack"] = cpu / len(scores)
            row["megapixel slices per second"] = megapixel_slices / seconds
            if scope == "all":
                row["peak MB"] = run.peak_mb
    row["enlarged by"] = run.enlarged_by
    row["device"], row["version"] = run.device, run.version
    row["note"] = ""
    if run.error:
        row["note"] = f"failed: {run.error}"
    elif errors:
        row["note"] = f"failed on {len(errors)} of {len(scores)} stacks: {errors[0]}"
    return row


def _published(table: Table) -> list[dict[str, Any]]:
    names = {data["name"] for data in table.data_sets}
    return [
        {
            "origin": "published",
            "data": reference.data,
            "scope": "all",
            "candidate": reference.method,
            **reference.values,
            "note": reference.origin,
        }
        for reference in PUBLISHED
        if reference.data in names
    ]


# Writing ------------------------------------------------------------------------------


def write_report(table: Table, folder: Path, command: str = "") -> list[Path]:
    """Write ``benchmark.md``, ``.csv``, ``.json`` and the contact sheets.

    Parameters
    ----------
    table
        What `run_benchmark` returned.
    folder
        Made where it is not there; files of the same names are replaced.
    command
        What to type to get the same again.

    Returns
    -------
    list of Path
        What was written, the Markdown first.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rows = summaries(table)
    sheets = {}
    for data, images in table.sheets.items():
        for stack, pixels in images.items():
            name = re.sub(r"[^\w.-]+", "_", f"{data}-{stack}") + ".png"
            sheets[data, stack] = folder / name
            Image.fromarray(pixels).save(folder / name, optimize=True)
    texts = {
        "benchmark.md": to_markdown(table, rows, sheets, command),
        "benchmark.csv": to_csv(rows),
        "benchmark.json": to_json(table, rows, command),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*(folder / name for name in texts), *sheets.values()]


def to_json(table: Table, rows: list[dict[str, Any]], command: str) -> str:
    """Everything, stack by stack, with the hash of every stack."""
    whole = {
        "software": "napari-focus-fusion",
        "version": __version__,
        "command": command,
        "machine": machine(),
        "settings": table.settings,
        "data": table.data_sets,
        "runs": [asdict(run) for run in table.runs],
        "scores": [asdict(score) for score in table.scores],
        "published": [row for row in rows if row["origin"] == "published"],
        "not_installed": table.missing,
    }
    return json.dumps(whole, indent=1) + "\n"


def to_csv(rows: list[dict[str, Any]]) -> str:
    """One line a data set, scope and candidate."""
    found = dict.fromkeys(name for row in rows for name in row)
    # What is known of the rows goes last, however late a measure first comes.
    last = ("enlarged by", "device", "version", "note")
    names = [name for name in found if name not in (*COST, *last)]
    names += [*COST, *last]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def machine() -> str:
    """The computer in a few words."""
    cores = os.cpu_count() or 1
    return (
        f"{platform.system()} {platform.machine()}, {cores} "
        f"core{'s' if cores > 1 else ''}, Python {platform.python_version()}"
    )


def made_by(command: str) -> str:
    """On what a page was made, and what to type to get it again."""
    return (
        f"napari-focus-fusion {__version__} on {machine()}.\n\n"
        f"```console\n{command}\n```"
    )


def not_installed(missing: Mapping[str, str]) -> str:
    """Which programs were not measured, and how to install them; empty for none."""
    lines = [f"- {title}: {how}" for title, how in missing.items()]
    return "Not installed, and so not measured:\n\n" + "\n".join(lines) if lines else ""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def to_markdown(
    table: Table,
    rows: list[dict[str, Any]],
    sheets: dict[tuple[str, str], Path],
    command: str,
) -> str:
    """The tables, to be read."""
    parts = [
        "# Benchmark",
        f"napari-focus-fusion {__version__} on {machine()}.",
        f"```console\n{command}\n```" if command else "",
        _ABOUT,
    ]
    parts.append(not_installed(table.missing))
    for data in table.data_sets:
        own = [row for row in rows if row["data"] == data["name"]]
        parts += _section(data, own)
        for (name, stack), path in sheets.items():
            if name == data["name"]:
                parts.append(
                    f"Where the candidates disagree the most ({stack}):\n\n"
                    f"![{stack}]({path.name})"
                )
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _section(data: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    measured = [row for row in rows if row["origin"] == "measured"]
    published = [row for row in rows if row["origin"] == "published"]
    everything = [row for row in measured if row["scope"] == "all"]
    stacks = data["stacks"]
    slices = sorted({stack["slices"] for stack in stacks})
    names = _measures_in(everything, (*data["measures"], *DEPTH))
    columns = ["candidate", *names, *COST, "device", "version"]
    if any(row["enlarged by"] for row in everything):
        columns.insert(1, "enlarged by")
    parts = [
        f"## {data['name']}",
        data["about"],
        f"{_count(len(stacks), 'stack')} of {_listed(slices)} slices; SHA-256 of the "
        f"source files or pixels of all: `{hash_of_all(stacks)}`.",
        _table_of_columns(columns, everything),
    ]
    parts.append(
        "\n".join(
            f"- {row['candidate']}: {row['note']}" for row in everything if row["note"]
        )
    )
    for name in BY_STACK:
        if name in names and len(stacks) > 1:
            parts.append(f"{name} by group and stack:\n\n" + _crosstab(name, measured))
    if gains := _gains(measured):
        parts += [
            "What training adds, the trained network less the untrained one: PSNR in "
            "dB (more is better) / depth error in slices (less is better).",
            gains,
        ]
    if published:
        names = _measures_in(published, data["measures"])
        notes = list(dict.fromkeys(row["note"] for row in published))
        numbered = [
            row | {"note": f"({notes.index(row['note']) + 1})"} for row in published
        ]
        parts += [
            "**Not measured here**: figures that others obtained. Compare only as far "
            "as the note goes.",
            _table_of_columns(
                ["candidate", *names, "note"], [row for row in numbered if names]
            ),
            "\n".join(f"- ({i}) {note}" for i, note in enumerate(notes, start=1)),
        ]
    return parts


def hash_of_all(stacks: Iterable[dict[str, Any]]) -> str:
    """SHA-256 of the stacks' own, one after the other; its first 16 digits."""
    return hashlib.sha256(
        "".join(stack["sha256"] for stack in stacks).encode()
    ).hexdigest()[:16]


def _measures_in(rows: list[dict[str, Any]], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(name in row for row in rows)]


def _crosstab(name: str, rows: list[dict[str, Any]]) -> str:
    """One measure: scopes down, candidates across."""
    scopes = dict.fromkeys(row["scope"] for row in rows)
    having = [row for row in rows if name in row]
    candidates = dict.fromkeys(row["candidate"] for row in having)
    values = {(row["scope"], row["candidate"]): row[name] for row in having}
    lines = []
    for scope in scopes:
        cells = {
            candidate: _cell(name, values.get((scope, candidate)))
            for candidate in candidates
        }
        lines.append({"": scope.partition(": ")[2] or scope} | cells)
    return _table_of_columns(["", *candidates], lines)


def _gains(rows: list[dict[str, Any]]) -> str:
    """Trained less untrained by group, where the truth is known."""
    found = {
        (row["scope"], row["candidate"]): row
        for row in rows
        if "PSNR" in row and not row["scope"].startswith("stack")
    }
    trained_names = [
        name.removesuffix(UNTRAINED_SUFFIX)
        for scope, name in found
        if scope == "all" and name.endswith(UNTRAINED_SUFFIX)
    ]
    trained_names = [name for name in trained_names if ("all", name) in found]
    lines = []
    for scope in dict.fromkeys(scope for scope, _ in found):
        line = {"": scope.partition(": ")[2] or scope}
        for name in trained_names:
            trained, not_trained = (
                found[scope, name],
                found[scope, name + UNTRAINED_SUFFIX],
            )
            line[name] = f"{trained['PSNR'] - not_trained['PSNR']:+.2f}"
            if "depth error" in trained:
                gain = trained["depth error"] - not_trained["depth error"]
                line[name] += f" / {gain:+.3f}"
        lines.append(line)
    return _table_of_columns(["", *trained_names], lines) if trained_names else ""


def _table_of_columns(columns: list[str], rows: Iterable[dict[str, Any]]) -> str:
    lines = ([_cell(name, row.get(name)) for name in columns] for row in rows)
    return markdown_table([_SHORT.get(name, name) for name in columns], lines)


def _cell(name: str, value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if not np.isfinite(value):
        return "∞" if value > 0 else "–"
    if name in COST:
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    digits = {"PSNR": 2, "sharpness": 2} | dict.fromkeys(DEPTH, 3)
    return f"{value:.{digits.get(name, 4)}f}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number != 1 else ''}"


def _listed(numbers: Sequence[int]) -> str:
    texts = [str(number) for number in numbers]
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if texts[1:] else texts)
