"""A fusion in a thread of its own, which tells how far it is and can be stopped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from superqt.utils import WorkerBase
from superqt.utils._qthreading import WorkerBaseSignals

from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.plugin.adapters.layers import (
    OUTPUTS,
    fuse_decided,
    fuse_to_layers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import FusionResult
    from napari_focus_fusion.stack import FocusStack

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FuseJob:
    """Everything a run needs, taken down before it starts.

    Attributes
    ----------
    stack
        What is fused.
    judge
        Where sharpness is looked for, if not in `stack`.
    outputs
        Which layers the result gives.
    options
        Keyword arguments of :func:`napari_focus_fusion.fuse`.
    """

    stack: FocusStack
    judge: FocusStack | None = None
    outputs: tuple[str, ...] = OUTPUTS
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> FusionResult:
        """Run; raises `Cancelled` once `should_stop` says so."""
        return fuse_decided(
            self.stack,
            self.judge,
            progress=progress,
            should_stop=should_stop,
            **self.options,
        )


@dataclass(frozen=True)
class LayersJob(FuseJob):
    """A fusion whose layers are made in the thread too."""

    def __call__(
        self, progress: Callable[[Progress], None], should_stop: Callable[[], bool]
    ) -> Any:
        """Run; gives layer data as :func:`fuse_to_layers` does."""
        return fuse_to_layers(
            self.stack,
            self.judge,
            self.outputs,
            progress=progress,
            should_stop=should_stop,
            **self.options,
        )


class _Signals(WorkerBaseSignals):
    progressed = Signal(object)  # a Progress
    aborted = Signal()


class FuseWorker(WorkerBase):
    """Runs a job.

    Its signals come in the thread that made it: ``progressed(Progress)``, then one of
    ``returned`` (what the job gives), ``errored(Exception)`` or ``aborted()``, then
    ``finished()``; after a cancel that came too late, ``finished()`` alone.

    A generator would hide that memory ran out: what runs generators takes any
    RuntimeError, as torch.OutOfMemoryError is one, for the end of its thread.
    """

    def __init__(self, title: str, job: Any) -> None:
        super().__init__(SignalsClass=_Signals)
        self.title = title
        self.job = job

    def work(self) -> Any:
        """Run in the thread."""
        try:
            return self.job(self.progressed.emit, lambda: self.abort_requested)
        except Cancelled:
            self.quit()  # nothing is returned
            self.aborted.emit()
            return None


def job_worker(title: str, job: Callable[[Any, Any], Any]) -> Any:
    """A worker, not started, that napari knows of and asks about when it is closed.

    Parameters
    ----------
    title
        What napari shows.
    job
        Called with progress and should_stop, as they are given to
        :func:`napari_focus_fusion.fuse`.
    """
    return create_worker(
        title,  # in place of a function
        job,
        _worker_class=FuseWorker,
        _ignore_errors=True,
        _start_thread=False,
    )


def explain(error: Exception, name: str, done: str = "fused") -> str:
    """Say in words what went wrong with a stack, and what to do; log what is a bug.

    Parameters
    ----------
    error
        What the run raised.
    name
        Name of the stack.
    done
        What was to be done with it.

    Returns
    -------
    str
        A sentence or more, for the person at the microscope.
    """
    from napari_focus_fusion.device import is_out_of_memory

    if isinstance(error, FocusFusionError):
        return str(error)
    if is_out_of_memory(error):
        return (
            f"There is not enough memory to fuse {name!r}. Close other programs, "
            "choose the CPU as device, write the result to OME-Zarr instead of memory, "
            "or crop the stack."
        )
    if is_lost_device(error):
        return (
            f"The graphics card stopped answering while {name!r} was fused "
            f"({_first_line(error)}). Choose the CPU as device, or start napari again; "
            "if it comes back, update the card's driver."
        )
    _log.error("%r could not be %s", name, done, exc_info=error)
    return (
        f"{name!r} could not be {done} because of an error that was not foreseen "
        f"({type(error).__name__}: {error}). If it comes back, please report it; the "
        "log says where it happened."
    )


def is_lost_device(error: Exception) -> bool:
    """Whether an error says that the graphics card failed, rather than the program."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA error" in text or "CUDNN_STATUS" in text or "MPS backend" in text
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
