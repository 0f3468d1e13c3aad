"""The mutable state of a run: progress, cancellation and notes."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from napari_focus_fusion.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from napari_focus_fusion.progress import Meter


class Found(NamedTuple):
    """What regions showed: warnings, and how many pixels are absent or beyond slices.

    Attributes
    ----------
    notes
        In sentences for the user.
    absent
        Pixels absent in some slices, and in all.
    beyond
        Pixels clearly beyond what any slice shows there.
    """

    notes: tuple[str, ...] = ()
    absent: tuple[int, int] = (0, 0)
    beyond: int = 0


#: Seconds after which a run is asked in the middle of a tile whether it is to stop.
PATIENCE = 0.25
#: Of a region that showed nothing.
NOTHING = Found()


class Monitor:
    """What the functions of a run report to.

    It stays in the process that called ``fuse``: a job on a cluster has its own, of
    which the notes come back.

    Parameters
    ----------
    meter
        Counts the work; None: progress is not reported.
    should_stop
        Asked between tiles, and inside those that take long; None: the run never
        stops.

    Attributes
    ----------
    notes
        Warnings about the run, in sentences for the user.
    smallest_failed
        Pixels of the smallest batch that ran out of memory, so that none like it is
        tried again.
    absent
        How many pixels were found absent: in some slices, and in all.
    beyond
        How many reconstructed pixels lie clearly beyond what any slice shows there.
    drift
        By how many pixels slices move from one to the next, at each time point so far.
    recut
        Whether an earlier run had finished a part in other regions.
    """

    def __init__(
        self,
        meter: Meter | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.smallest_failed = 1 << 62
        self.absent = (0, 0)
        self.beyond = 0
        self.drift: list[float | None] = []
        self.recut = False
        self._meter = meter
        self._should_stop = should_stop
        self._cost = 1.0
        self._asked = monotonic()

    def enter(self, stage: str, done: float, cost: float = 1.0) -> None:
        """Begin a stage.

        Parameters
        ----------
        stage
            What is being done, in words.
        done
            Work that is done by now.
        cost
            Work of a pixel of a slice from now on.
        """
        self._cost = cost
        if self._meter is not None:
            self._meter.enter(stage, done)

    def advance(self, pixels: float) -> None:
        """Count pixels x slices; a place where the run stops when it is asked to."""
        if self._meter is not None:
            self._meter.add(pixels * self._cost)
        self.check_cancelled()

    @contextmanager
    def counting(self, share: float) -> Iterator[None]:
        """Where pixels count only so much of what they do elsewhere in a stage."""
        whole = self._cost
        self._cost = whole * share
        try:
            yield
        finally:
            self._cost = whole

    def check_cancelled(self) -> None:
        """Raise Cancelled if the run is asked to stop."""
        self._asked = monotonic()
        if self._should_stop is not None and self._should_stop():
            raise Cancelled

    def check_now_and_then(self) -> None:
        """The same, for places that are passed too often to ask each time."""
        if monotonic() - self._asked > PATIENCE:
            self.check_cancelled()

    def count_absent(self, absent: Tensor | None, slices: int) -> None:
        """Count pixels by the number of slices (h, w) in which they are absent."""
        if absent is not None:
            everywhere = int((absent == slices).sum())
            some = int((absent > 0).sum()) - everywhere
            self.absent = (self.absent[0] + some, self.absent[1] + everywhere)

    def warn(self, note: str) -> None:
        """Keep a note, once."""
        if note not in self.notes:
            self.notes.append(note)

    @property
    def found(self) -> Found:
        """What was found so far."""
        return Found(tuple(self.notes), self.absent, self.beyond)

    def found_since(self, before: Found) -> Found:
        """What was found of a region, which began with `before`."""
        some, everywhere = before.absent
        absent = self.absent[0] - some, self.absent[1] - everywhere
        notes = tuple(self.notes[len(before.notes) :])
        return Found(notes, absent, self.beyond - before.beyond)

    def recall(self, found: Found) -> None:
        """Add what another process, or an earlier run, found in its regions."""
        for note in found.notes:
            self.warn(note)
        self.absent = (
            self.absent[0] + found.absent[0],
            self.absent[1] + found.absent[1],
        )
        self.beyond += found.beyond
