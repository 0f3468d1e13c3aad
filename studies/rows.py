"""Rows of a table that take long to make: kept in a file, made only once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path


def run_missing(
    path: Path, runs: Iterable[tuple[Mapping[str, Any], Callable[[], dict[str, Any]]]]
) -> list[dict[str, Any]]:
    """Make the rows that a file lacks, and write it after each.

    Parameters
    ----------
    path
        A JSON file; it need not be there.
    runs
        For each row the entries that identify it, and the function that makes it.

    Returns
    -------
    list of dict
        All rows of the file, those made now at the end.
    """
    rows = json.loads(path.read_text()) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    for known_by, make in runs:
        if not any(known_by.items() <= row.items() for row in rows):
            rows.append(make())
            path.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def markdown_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, its columns called by names."""
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write_table(path: Path, table: str) -> None:
    """Write a table beside the JSON file of its rows, and print it."""
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
