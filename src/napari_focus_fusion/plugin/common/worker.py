"""A job in a thread of its own, which reports progress and can be cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.qt.threading import create_worker
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from superqt.utils import WorkerBase
from superqt.utils._qthreading import WorkerBaseSignals

from napari_focus_fusion.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable


class _Signals(WorkerBaseSignals):
    progressed = Signal(object)  # a Progress
    aborted = Signal()


class FuseWorker(WorkerBase):
    """Runs a job.

    Its signals are received in the thread that made it: ``progressed(Progress)``, then
    one of ``returned`` (the result of the job), ``errored(Exception)`` or
    ``aborted()``, then ``finished()``; if it was cancelled too late, ``finished()``
    only.

    A generator worker would hide that memory ran out: it takes any RuntimeError, such
    as torch.OutOfMemoryError, for the end of its thread.
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
    """A worker, not started, registered with napari, which asks about it on closing.

    Parameters
    ----------
    title
        Title that napari shows.
    job
        Called with progress and should_stop, as for :func:`napari_focus_fusion.fuse`.
    """
    return create_worker(
        title,  # in place of a function
        job,
        _worker_class=FuseWorker,
        _ignore_errors=True,
        _start_thread=False,
    )
