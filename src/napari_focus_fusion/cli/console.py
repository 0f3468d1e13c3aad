"""Console output of the commands: progress, errors, JSON."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError, in_one_line
from napari_focus_fusion.progress import byte_text, duration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

    from napari_focus_fusion.progress import Progress

#: Seconds from which on a run is long.
LONG = 20
OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """The command line is not valid."""


class Bar:
    """A progress callback that draws a bar, where there is a terminal to draw on.

    Of a long run it says once what that takes, also without a terminal.
    """

    def __init__(self, title: str) -> None:
        self._title, self._told = title, False

    def __enter__(self) -> Bar:
        from tqdm import tqdm

        # tqdm's own estimate counts the first, slow tiles as much as the others.
        self._bar = tqdm(
            desc=self._title,
            bar_format="{percentage:3.0f}%|{bar:30}| {desc}",
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Draw how far the run has come."""
        left = progress.seconds_left
        extra = "" if left is None else f", {duration_text(left)} left"
        if progress.memory:
            memory = f"about {byte_text(progress.memory)} of working memory"
            extra += f", {memory}"
            if left is not None and left > LONG and not self._told:
                print(
                    f"{self._title}: {memory} and {duration_text(left)}",
                    file=sys.stderr,
                    flush=True,
                )
                self._told = True
        self._bar.total = progress.total
        self._bar.n = progress.done
        self._bar.set_description_str(f"{self._title}: {progress.stage}{extra}")


def training_log(
    title: str, total: int, bar: Bar
) -> Callable[[dict[str, float]], None]:
    """Log the progress of a training on a bar or, without a terminal, at validations.

    Parameters
    ----------
    title
        Name of the model that is trained.
    total
        Steps to take.
    bar
        Shows the progress.

    Returns
    -------
    callable
        Takes the rows that ``train`` and ``finetune`` give to ``on_step``.
    """
    from napari_focus_fusion.progress import Meter

    steps = Meter(total, bar)

    def log(row: dict[str, float]) -> None:
        validation = row.get("validation")
        extra = "" if validation is None else f", validation {validation:.4f}"
        text = f"step {row['step']:.0f}{extra}"
        steps.enter(text, row["step"])
        steps.add(1)
        if extra and not sys.stderr.isatty():
            print(f"{title}: {text}", file=sys.stderr, flush=True)

    return log


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Turn Ctrl-C into a flag that the run polls; a second Ctrl-C ends it at once."""
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, previous)
        stop.set()
        # Not through sys.stderr, which may be in the middle of writing the bar.
        os.write(2, b"\nstopping; press Ctrl-C again to stop at once\n")

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


def print_error(text: str) -> None:
    """One line on standard error."""
    print(f"napari-focus-fusion: error: {text}", file=sys.stderr)


def print_json(value: Any) -> None:
    """JSON for scripts, on standard output."""
    print(json.dumps(value, indent=2, default=str))


def error_text(error: BaseException) -> str:
    """An error in one line; that of a bug with its type and how to see more."""
    if isinstance(error, FocusFusionError):
        return in_one_line(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{in_one_line(error)} (--debug shows where)"


def path_texts(paths: Iterable[Path | str]) -> list[str]:
    """Paths as they are printed."""
    return [str(path) for path in paths]
