"""A widget that runs one job at a time, with progress bar and cancel button."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_focus_fusion.plugin.adapters.errors import explain
from napari_focus_fusion.plugin.common.combo_boxes import push_button, wrapped_label
from napari_focus_fusion.plugin.common.worker import job_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.plugin.common.worker import FuseWorker
    from napari_focus_fusion.progress import Progress


class JobWidget(QWidget):
    """Base class of widgets that run jobs in a thread; subclasses lay it out.

    Attributes
    ----------
    cancel_button, progress, status
        Controls of a run.
    """

    #: A run has ended, successfully or not, and its results have been added.
    ended = Signal()
    #: Status text after a run was cancelled.
    cancelled = "Cancelled."

    def __init__(self) -> None:
        super().__init__()
        self._worker: FuseWorker | None = None
        self._then: Callable[[Any], Any] | None = None
        self.cancel_button = push_button("&Cancel", "Stop the run.", self.cancel)
        self.progress = QProgressBar()
        self.status = wrapped_label()

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return self._worker is None

    def cancel(self) -> None:
        """Ask the run to stop."""
        if self._worker is not None:
            self._worker.quit()
            self.cancel_button.setEnabled(False)
            self.status.setText("Stopping …")

    def changeEvent(self, event: QEvent | None) -> None:
        """Notice when the dock is closed: napari removes its widget from it."""
        super().changeEvent(event)
        if event and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self._on_closed()

    def _on_closed(self) -> None:
        self.cancel()

    def _update_buttons(self) -> None:
        """Enable the buttons that apply now."""
        self.cancel_button.setEnabled(not self.idle)
        self.progress.setVisible(not self.idle)

    def _run(
        self, job: Callable[[Any, Any], Any], then: Callable[[Any], Any], title: str
    ) -> FuseWorker | None:
        """Start a job and give its worker, or None while another one runs.

        Parameters
        ----------
        job, title
            As for :func:`job_worker`.
        then
            Called with the result of the job.
        """
        if not self.idle:
            return None
        worker: Any = job_worker(title, job)
        self._worker, self._then = worker, then
        worker.progressed.connect(self._on_progressed)
        worker.returned.connect(self._on_returned)
        worker.errored.connect(self._show_error)
        worker.finished.connect(self._on_finished)
        self.destroyed.connect(worker.quit)
        self.progress.reset()
        self.status.setText("Starting …")
        self._update_buttons()
        worker.start()
        return worker

    def _on_progressed(self, progress: Progress) -> None:
        if self._worker is not None and not self._worker.abort_requested:
            self.progress.setRange(0, progress.total)
            self.progress.setValue(progress.done)
            self.status.setText(progress.stage)

    def _on_returned(self, outcome: Any) -> None:
        self.status.clear()
        assert self._then is not None
        self._then(outcome)

    def _stack_name(self) -> str:
        """Name of the stack in error messages."""
        raise NotImplementedError

    def _explain(self, error: Exception) -> str:
        return explain(error, self._stack_name())

    def _show_error(self, error: Exception) -> None:
        self._show_error_text(self._explain(error))

    def _show_error_text(self, text: str) -> None:
        """Show an error in the status line and as a notification."""
        self.status.setText(text)
        show_error(text)

    def _on_finished(self) -> None:
        assert self._worker is not None
        if self._worker.abort_requested:
            self.status.setText(self.cancelled)
        self.destroyed.disconnect(self._worker.quit)
        del self._worker.job  # napari keeps workers: the pixels must not stay with them
        self._worker = self._then = None
        self._go_on()

    def _go_on(self) -> None:
        """Update the widget after a run."""
        self._update_buttons()
        self.ended.emit()
