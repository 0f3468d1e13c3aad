"""What a benchmark finds, before it is written down."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.candidates import Kind

    Array = NDArray[Any]


@dataclass
class Score:
    """One candidate on one stack.

    Attributes
    ----------
    values
        By measure; empty where it failed.
    cost
        ``seconds`` and ``cpu_seconds``; empty for baselines.
    error
        Why it failed, or empty.
    """

    data: str
    stack: str
    candidate: str
    values: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass
class Run:
    """One candidate on one data set.

    Attributes
    ----------
    device, version
        What it ran on, and what it was.
    enlarged_by
        ``"model"`` or ``"cubic"`` where an enlarged image was wanted.
    peak_mb
        Most memory of the whole process, in millions of bytes.
    error
        Why all of it failed, or empty.
    """

    data: str
    candidate: str
    kind: Kind
    device: str = ""
    version: str = ""
    enlarged_by: str = ""
    peak_mb: float | None = None
    error: str = ""


@dataclass
class Table:
    """All that a benchmark found, before it is written down.

    Attributes
    ----------
    settings
        What was asked for.
    data_sets
        Name, ``about``, ``measures`` and ``stacks`` (name, groups, sha256, slices,
        megapixel_slices) of each.
    runs, scores
        What was measured.
    missing
        Peers that are not installed, and how to install them.
    sheets
        By data set, the stack's name and its contact sheet.
    """

    settings: dict[str, Any]
    data_sets: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    sheets: dict[str, dict[str, Array]] = field(default_factory=dict)

    def scores_of(self, data: str, stack: str) -> list[Score]:
        """The scores on one stack, in the order of the candidates."""
        return [
            score for score in self.scores if (score.data, score.stack) == (data, stack)
        ]

    def run_of(self, data: str, candidate: str) -> Run:
        """The run of one candidate on one data set."""
        return next(
            run for run in self.runs if (run.data, run.candidate) == (data, candidate)
        )
