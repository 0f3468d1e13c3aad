"""The widget *Fine-tune focus model*."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QTabWidget,
    QVBoxLayout,
)

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.plugin.adapters.finetuning import (
    CompareJob,
    FineTuneJob,
    Row,
    Validation,
    explain,
)
from napari_focus_fusion.plugin.adapters.layers import layers_from_files
from napari_focus_fusion.plugin.common.combo_boxes import (
    push_button,
    refresh_model_lists,
)
from napari_focus_fusion.plugin.common.devices import load_devices, offer_devices
from napari_focus_fusion.plugin.common.job_widget import JobWidget
from napari_focus_fusion.plugin.common.scroll_area import FitWidthScrollArea
from napari_focus_fusion.plugin.finetune.compare import (
    compare_in_view,
    parent_and_child,
    show_side_by_side,
)
from napari_focus_fusion.plugin.finetune.run import TrainingPage, stoppable
from napari_focus_fusion.plugin.finetune.settings import FineTuneSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import napari

    from napari_focus_fusion.plugin.common.devices import DeviceList
    from napari_focus_fusion.plugin.common.worker import FuseWorker
    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import LayerData
    from napari_focus_fusion.training.finetune import FineTuneResult


class FineTuneWidget(JobWidget):
    """Fine-tune a model on image layers of the viewer; docked by napari.

    From a script: set the ``value`` of the fields of ``settings``, of ``stacks`` to a
    list of layers, of ``model``, ``where``, ``reference``, ``unit``, ``length``,
    ``name``, ``device``, ``patch``, ``holdout``, ``rate`` and ``seed``, and, of a layer
    that alone is ticked, of ``z_axis`` and ``other_axes``; and call :meth:`start`.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen, and where the images of a comparison are added.

    Attributes
    ----------
    settings
        The form with all settings.
    training
        Progress and result of the run.
    result
        Result of the last run; None before it.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._device_list: DeviceList | None = None
        self._running: FineTuneJob | CompareJob | None = None
        self._stopped: FineTuneJob | None = None
        self._stop = Event()
        self._pair: tuple[str, str] | None = None
        self.result: FineTuneResult | None = None
        self.settings = FineTuneSettings(napari_viewer)
        self.training = TrainingPage()
        self.tabs = QTabWidget()
        self.tabs.addTab(FitWidthScrollArea(self.settings), "Settings")
        self.tabs.addTab(FitWidthScrollArea(self.training), "Progress")
        layout = QVBoxLayout(self)
        layout.addWidget(self.tabs, 1)
        layout.addLayout(self._foot())
        self.settings.changed.connect(self._update_buttons)
        self.settings.files_button.clicked.connect(self._choose_files)
        self._update_buttons()
        load_devices(self._on_devices, "napari_focus_fusion.training.finetune")

    def _foot(self) -> QVBoxLayout:
        self.start_button = push_button("S&tart", "Begin to learn.", self.start)
        self.cancel_button.setText("Sto&p")
        self.cancel_button.setToolTip(
            "End before the next step, and keep the best so far. It can be resumed."
        )
        self.resume_button = push_button(
            "&Resume",
            "Go on with the run that was stopped, as it was begun.",
            self.resume,
        )
        self.compare_button = push_button(
            "&Compare on the view",
            "Fuse what is in view with the parent and with the tuned model, and lay "
            "the pictures side by side.",
            self.compare,
        )
        buttons = QHBoxLayout()
        buttons.addWidget(self.start_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        buttons.addWidget(self.resume_button, 1)
        foot = QVBoxLayout()
        foot.addLayout(buttons)
        foot.addWidget(self.compare_button)
        foot.addWidget(self.progress)
        foot.addWidget(self.status)
        return foot

    # Available actions

    def reset_choices(self, event: Any = None) -> None:
        """List the layers again; napari calls it whenever they change."""
        self.settings.reset_choices()

    def _on_devices(self, found: DeviceList) -> None:
        self._device_list = found
        offer_devices(self.settings.device, found)
        self._update_buttons()

    def _update_buttons(self) -> None:
        super()._update_buttons()
        self.settings.freeze(not self.idle)
        able = self.idle and self._device_list is not None
        ticked = bool(self.settings.stacks.value)
        self.start_button.setEnabled(
            able and ticked and self.settings.model.spec is not None
        )
        self.resume_button.setEnabled(able and self._stopped is not None)
        self.compare_button.setEnabled(
            able and ticked and self._to_compare() is not None
        )

    def _to_compare(self) -> tuple[str, str] | None:
        """Parent and child: of the last run, or else of the chosen model."""
        return self._pair or parent_and_child(
            self.settings.model.spec, self.settings.known
        )

    def _choose_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open a focus stack")
        if paths:
            self.open_files(paths)

    def open_files(self, paths: Sequence[str | Path]) -> None:
        """Open files as one stack, as a layer that is ticked."""
        try:
            added = [Layer.create(*data) for data in layers_from_files(paths)]
        except FocusFusionError as error:
            self._show_error_text(str(error))
            return
        ticked = self.settings.stacks.value
        for layer in added:
            self._viewer.add_layer(layer)
        self.settings.stacks.value = [*ticked, *added]

    # Training

    def start(self) -> FuseWorker | None:
        """Start a training with the present settings.

        Returns
        -------
        FuseWorker
            Running; or None where the settings are invalid, with a notification, or
            during another run.
        """
        if not self.idle:
            return None
        try:
            job = self.settings.job()
        except FocusFusionError as error:
            self._show_error_text(str(error))
            return None
        self.training.clear()
        return self._learn(job)

    def resume(self) -> FuseWorker | None:
        """Continue the stopped run with its settings.

        Returns
        -------
        FuseWorker
            Running; or None where there is none, or a run is on already.
        """
        if not self.idle or self._stopped is None:
            return None
        return self._learn(self._stopped)

    def _learn(self, job: FineTuneJob) -> FuseWorker | None:
        self._running, self._stopped, self._stop = job, None, Event()
        self.training.begin(job)
        self.tabs.setCurrentIndex(1)
        self.cancelled = "Stopped before the first step."
        title = f"Fine-tuning on {job.names}"
        return self._run(stoppable(job, self._stop), self._on_tuned, title)

    def cancel(self) -> None:
        """End before the next step; the best state so far is kept."""
        if not isinstance(self._running, FineTuneJob):
            super().cancel()
            return
        self._stop.set()
        self.cancel_button.setEnabled(False)
        self.status.setText("Stopping, and comparing it with its parent …")

    def _on_progressed(self, update: Progress | Row | Validation) -> None:
        if self._worker is None or self._worker.abort_requested:
            return
        if isinstance(update, Row):
            self.training.show_row(update.values)
            if self.training.seconds_a_step is not None:
                self.settings.note_speed(self.training.seconds_a_step)
        elif isinstance(update, Validation):
            self.training.show_validation(update)
        else:
            self.progress.setRange(0, update.total)
            self.progress.setValue(update.done)
            if not self._stop.is_set():
                self.status.setText(self.training.status_text(update))

    def _on_tuned(self, result: FineTuneResult) -> None:
        job, self.result = self._running, result
        assert isinstance(job, FineTuneJob)
        name = job.options["name"]
        if result.stopped == "asked":
            self._stopped = job
        if result.better:
            self._pair = (job.model, name)
        text = self.training.show_result(result, name)
        self.status.setText("Done; the verdict is under Progress.")
        (show_info if result.better else show_warning)(text)
        refresh_model_lists()

    # Comparing

    def compare(self) -> FuseWorker | None:
        """Fuse the region in view with parent and child, side by side, as layers.

        Returns
        -------
        FuseWorker
            Running; or None where there is nothing to compare, with a notification, or
            during another run.
        """
        pair = self._to_compare()
        if not self.idle or pair is None or not self.settings.stacks.value:
            return None
        try:
            job = compare_in_view(self._viewer, self.settings, pair)
        except FocusFusionError as error:
            self._show_error_text(str(error))
            return None
        self._running, self._stop = job, Event()
        self.cancelled = "Stopped; no layer was added."
        return self._run(job, self._on_compared, f"Comparing on {job.names}")

    def _on_compared(self, layers: list[LayerData]) -> None:
        assert isinstance(self._running, CompareJob)
        show_side_by_side(self._viewer, layers)
        self.status.setText(
            f"Left: {self._running.parent}. Right: {self._running.child}. Their "
            "decision maps are in the layer list."
        )

    # End of a run

    def _stack_name(self) -> str:
        return "" if self._running is None else self._running.names

    def _explain(self, error: Exception) -> str:
        return explain(error, self._stack_name())

    def _go_on(self) -> None:
        self._running = None
        self.settings.remember()
        self.settings.freeze(False)
        if self._stopped is None:
            self.settings.name.release_if_taken()
            self.settings.suggest_name()
        super()._go_on()

    def _on_closed(self) -> None:
        self._stopped = None
        super().cancel()
