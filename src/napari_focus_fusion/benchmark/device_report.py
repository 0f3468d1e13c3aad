"""What checks on a device found: rows, sections, and the files they are written to."""

from __future__ import annotations

import json
import os
import time
import traceback
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Last lines of a traceback that are kept.
TRACEBACK_LINES = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One check or measurement.

    Attributes
    ----------
    what
        In words.
    passed
        Whether the check passed; None of a measurement, and of what was skipped.
    figures
        What was found, by name.
    error
        Last lines of the traceback; empty where nothing was raised.
    skipped
        Why there is nothing, in words; empty where there is something.
    seconds
        How long it took.
    """

    what: str
    passed: bool | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    error: tuple[str, ...] = ()
    skipped: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """The outcome in a word or two."""
        if self.skipped:
            return "skipped"
        if self.error:
            return "ERROR"
        return {True: "pass", False: "FAIL", None: ""}[self.passed]


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one subject, and how long they took together."""

    title: str
    rows: tuple[Row, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found on one device.

    Attributes
    ----------
    about
        Device, versions, date and command.
    sections
        In the order in which they ran.
    """

    about: dict[str, Any]
    sections: tuple[Section, ...]

    @property
    def failures(self) -> list[Row]:
        """Rows whose check failed, or that raised."""
        return [
            row
            for section in self.sections
            for row in section.rows
            if row.error or row.passed is False
        ]

    @property
    def count_of_checks(self) -> int:
        """Rows that were checks and ran to their end."""
        rows = [row for section in self.sections for row in section.rows]
        return sum(row.passed is not None for row in rows)

    @property
    def passed(self) -> bool:
        """Whether there was a check, and none failed."""
        return self.count_of_checks > 0 and not self.failures

    def write(self, folder: Path, name: str) -> None:
        """Write ``name.json`` and ``name.md``; each is whole at any time."""
        found = {**self.about, "passed": self.passed}
        found["sections"] = [asdict(section) for section in self.sections]
        for suffix, text in (
            (".json", json.dumps(found, indent=1, default=str) + "\n"),
            (".md", self.as_markdown()),
        ):
            partial = folder / f"{name}{suffix}.partial"
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, folder / f"{name}{suffix}")

    def as_markdown(self) -> str:
        """A page with what ran where, and one table of all rows."""
        lines = [f"# Checks on {self.about['device']}", ""]
        lines += [f"- {name}: {value}" for name, value in self.about.items()]
        lines += [f"- checks: {self.count_of_checks}, failed: {len(self.failures)}", ""]
        lines += ["| what | result | found | s |", "|---|---|---|---|"]
        for section in self.sections:
            lines.append(f"| **{section.title}** | | | {section.seconds:.1f} |")
            lines += [
                f"| {_cell(row.what)} | {row.verdict} | {_cell(_found(row))} | "
                f"{row.seconds:.1f} |"
                for row in section.rows
            ]
        return "\n".join(lines) + "\n"


def run_row(what: str, run: Callable[[], Row | dict[str, Any]], deadline: float) -> Row:
    """Run one check or measurement, whatever it raises.

    Parameters
    ----------
    what
        In words.
    run
        Gives a row, or the figures of one that is no check.
    deadline
        On the clock of :func:`time.monotonic`; after it the row is skipped.
    """
    if time.monotonic() >= deadline:
        return Row(what, skipped="no time was left for it; give more with --minutes")
    began = time.monotonic()
    try:
        found = run()
    except Exception as error:  # whatever a device or its driver may raise
        return Row(what, error=last_lines(error), seconds=time.monotonic() - began)
    row = found if isinstance(found, Row) else Row(what, figures=found)
    seconds = time.monotonic() - began
    return Row(what, row.passed, row.figures, row.error, row.skipped, seconds)


def last_lines(error: BaseException) -> tuple[str, ...]:
    """The last lines of an error's traceback."""
    text = "".join(traceback.format_exception(error))
    return tuple(text.strip().splitlines()[-TRACEBACK_LINES:])


def _found(row: Row) -> str:
    if row.skipped:
        return row.skipped
    if row.error:
        return row.error[-1]
    return ", ".join(f"{name} {_shown(value)}" for name, value in row.figures.items())


def _shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
