"""How far a run has come, in words and seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two reports.
INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes
    ----------
    done, total
        Work done and to do, in units of its own; ``done <= total``.
    stage
        What is being done, in words.
    seconds_left
        Estimate from the speed so far; None at the very beginning.
    memory
        Working memory in bytes that the run is estimated to take beyond its result;
        known from the first report on. 0: it is not known.

    Reports of one run never go backwards, and the last one is complete.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_focus_fusion as ff
    >>> reports = []
    >>> stack = np.zeros((2, 32, 32), np.uint8)
    >>> result = ff.fuse(stack, "sml", progress=reports.append)
    >>> reports[-1].done == reports[-1].total
    True
    """

    done: int
    total: int
    stage: str
    seconds_left: float | None
    memory: int = 0


class Meter:
    """Counts work and reports it, at most ten times a second.

    Parameters
    ----------
    total
        Work to do.
    report
        Called with a :class:`Progress`; None: nothing is reported.
    memory
        Working memory that the run is estimated to take, in bytes.
    """

    def __init__(
        self,
        total: float,
        report: Callable[[Progress], None] | None,
        memory: int = 0,
    ) -> None:
        self.memory = memory
        self.total = max(total, 1.0)
        self.stage = ""
        self._done = 0.0
        self._worked = 0.0
        self._share = 0.0
        self._began = time.monotonic()
        self._reported = 0.0
        self._report = report

    def enter(self, stage: str, done: float) -> None:
        """Begin a stage; work so far is set to ``done``."""
        self.stage = stage
        self._done = done
        self._send_report(force=True)

    def add(self, work: float) -> None:
        """Count work."""
        self._done += work
        self._worked += work
        self._send_report()

    def _send_report(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._report is None or (not force and now - self._reported < INTERVAL):
            return
        self._reported = now
        self._share = max(self._share, min(self._done / self.total, 1.0))
        spent = now - self._began
        # What an earlier, interrupted run did counts as done, but not for the speed.
        known = self._worked > 0 and spent > 0.5
        left = spent * (1 - self._share) * self.total / self._worked if known else None
        steps = 1000
        done = int(self._share * steps)
        self._report(Progress(done, steps, self.stage, left, self.memory))


def byte_text(size: float) -> str:
    """Bytes in words: ``"3.2 GB"``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def duration_text(seconds: float) -> str:
    """A duration in words, with about two digits: ``"3.1 s"``, ``"12 min"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
