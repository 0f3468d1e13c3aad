"""The widget *Fuse focus stack*: form, runs, queue and results."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from napari.layers import Image, Layer
from napari.utils.notifications import show_warning
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QListWidget,
    QPushButton,
    QVBoxLayout,
)
from superqt.utils import create_worker

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.plugin.adapters.errors import explain
from napari_focus_fusion.plugin.adapters.layers import covers, layers_from_files
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.plugin.adapters.sources import is_stack
from napari_focus_fusion.plugin.common.devices import load_devices
from napari_focus_fusion.plugin.common.texts import device_text, memory_in_use
from napari_focus_fusion.plugin.fuse.destination import (
    ask_path,
    ask_where,
    is_large,
)
from napari_focus_fusion.plugin.fuse.fields import ALIGNMENTS
from napari_focus_fusion.plugin.fuse.form import FuseForm
from napari_focus_fusion.plugin.fuse.preview import Preview
from napari_focus_fusion.progress import byte_text, duration_text
from napari_focus_fusion.registration.registration import (
    Registration,
    load_registration,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

    from napari_focus_fusion.plugin.adapters.jobs import LayersJob
    from napari_focus_fusion.plugin.common.devices import DeviceList
    from napari_focus_fusion.plugin.common.worker import FuseWorker
    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import LayerData

_MB = 1_000_000


class FuseWidget(FuseForm):
    """Fuse an image layer of the viewer; docked by napari.

    From a script: set the ``value`` of ``layer``, ``z_axis``, ``other_axes``, ``time``,
    ``reference``, ``model``, ``scale``, ``smoothness``, ``surface``, ``background``,
    ``align``, ``brightness``, ``prefer``, ``blend``, ``strength``, ``joint``,
    ``device``, ``precision``, ``destination``, ``outputs["depth"]``, ``slab_slices``
    and so on, and call :meth:`run`.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen, and which gets the results.
    """

    cancelled = "Cancelled; no layer was added."

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._device_list: DeviceList | None = None
        self._sources: tuple[Image, ...] = ()
        self._queue: list[tuple[LayersJob, tuple[Image, ...]]] = []
        self._pending: deque[tuple[LayersJob, tuple[Image, ...]]] = deque()
        self._results: WeakKeyDictionary[Image, WeakSet[Layer]] = WeakKeyDictionary()
        self._started = 0.0
        self._registration: dict[str, Any] | None = None
        self.preview = Preview(napari_viewer, self._preview_arguments, self)
        self._make_buttons()
        layout = QVBoxLayout(self)
        layout.addWidget(self._form, 1)
        layout.addLayout(self._foot())
        self._connect()
        self._update_buttons()
        load_devices(self._on_devices)

    def _make_buttons(self) -> None:
        self.run_button = QPushButton("&Run")
        self.run_button.setToolTip("Fuse the stack.")
        self.preview_button = QPushButton("Pr&eview")
        self.preview_button.setCheckable(True)
        self.preview_button.setToolTip(
            "Show what is in view fused, at the resolution of the screen, and follow "
            "the camera and the choices made here."
        )
        self.add_button = QPushButton("Add to &queue")
        self.add_button.setToolTip(
            "Keep the stack with what is chosen now, to be fused later, one by one."
        )
        self.queue_list = QListWidget()
        self.queue_list.setMaximumHeight(80)
        self.queue_list.setToolTip("What Run queue fuses, from top to bottom.")
        self.queue_button = QPushButton("Run queue")
        self.queue_button.setToolTip("Fuse all stacks of the queue, one by one.")
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Take what is marked out of the queue.")

    def _foot(self) -> QVBoxLayout:
        foot = QVBoxLayout()
        upper, middle, lower = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        upper.addWidget(self.run_button, 2)
        upper.addWidget(self.cancel_button, 1)
        middle.addWidget(self.preview_button)
        middle.addWidget(self.add_button)
        lower.addWidget(self.queue_button, 2)
        lower.addWidget(self.remove_button, 1)
        foot.addLayout(upper)
        foot.addLayout(middle)
        foot.addWidget(self.queue_list)
        foot.addLayout(lower)
        foot.addWidget(self.progress)
        foot.addWidget(self.status)
        return foot

    def _connect(self) -> None:
        self.chosen.connect(self._on_chosen)
        for box in self.outputs.values():
            box.changed.connect(self._update_buttons)
            box.changed.connect(self.preview.request)
        self.files_button.clicked.connect(self._choose_files)
        self.load_button.clicked.connect(self._choose_registration)
        self.save_button.clicked.connect(self._keep_registration)
        self.run_button.clicked.connect(self.run)
        self.add_button.clicked.connect(self.add_to_queue)
        self.queue_button.clicked.connect(self.run_queue)
        self.remove_button.clicked.connect(self._remove_from_queue)
        self.preview_button.toggled.connect(self._toggle_preview)
        self.preview.toggled.connect(self.preview_button.setChecked)
        self.preview.status_changed.connect(self.status.setText)
        for field in (
            *(self.layer, self.z_axis, self.other_axes, self.reference),
            *(self.model, self.blend, self.device, self.scale),
            *(self.smoothness, self.surface, self.background, self.verify),
            *(self.align, self.brightness, self.prefer, self.strength),
            *(self.slab_slices, self.slab_offset, self.slab_method, self.slab_stack),
            self.smoothing,
        ):
            field.changed.connect(self.preview.request)

    def reset_choices(self, event: Any = None) -> None:
        """List the layers again; napari calls it whenever they change."""
        self._list_stacks()
        self._update_buttons()

    def _on_chosen(self) -> None:
        if self.idle:
            self.status.clear()  # it is about the previous stack
        self._update_buttons()

    def _on_devices(self, found: DeviceList) -> None:
        self._device_list = found
        self.show_devices(found)
        self._update_buttons()

    def _choose_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open a focus stack")
        if paths:
            self.open_files(paths)

    def open_files(self, paths: Sequence[str | Path]) -> None:
        """Open files as one stack and choose it; a failure shows as a notification.

        Parameters
        ----------
        paths
            As in :func:`layers_from_files`.
        """
        self.status.setText("Opening …")
        create_worker(
            layers_from_files,
            [str(path) for path in paths],
            _connect={"returned": self._on_opened, "errored": self._on_not_opened},
        )

    def _choose_registration(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Open a registration", "", "Registrations (*.json)"
        )
        if path:
            self.load_registration(path)

    def load_registration(self, path: str | Path) -> None:
        """Offer a saved registration under *Align*, and choose it.

        A file that is none shows as a notification.
        """
        try:
            load_registration(path)
        except FocusFusionError as error:
            self._show_error(error)
            return
        self.align.set_choices(
            [*ALIGNMENTS, (f"As in {Path(path).name}", str(path))], str(path)
        )

    def _keep_registration(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Save the registration", "registration.json", "Registrations (*.json)"
        )
        if path:
            self.save_registration(path)

    def save_registration(self, path: str | Path) -> None:
        """Write the registration of the last run to a file, which the dialog asked for.

        A failure shows as a notification.
        """
        if self._registration is None:
            return
        try:
            found = Registration.of_record(self._registration)
            found.save(Path(path).with_suffix(".json"), overwrite=True)
        except (FocusFusionError, OSError) as error:
            self._show_error_text(explain(error, str(path), "saved"))

    def _on_opened(self, layers: list[LayerData]) -> None:
        self.status.clear()
        try:
            added = [self._viewer.add_layer(Layer.create(*data)) for data in layers]
        except Exception as error:  # napari reads a slice to show it
            self._on_not_opened(error)
            return
        flat = [layer.name for layer in added if not is_stack(layer)]
        if flat:
            self.status.setText(
                f"{flat[0]!r} is a single slice. Open the files of all slices "
                "together, or select their layers in the layer list."
            )

    def _on_not_opened(self, error: Exception) -> None:
        self._show_error_text(explain(error, "What was chosen", "opened"))

    def _update_buttons(self) -> None:
        super()._update_buttons()
        self.freeze(not self.idle)
        ready = self.idle and self._device_list is not None
        stack = bool(self.sources) and not self._axes.doubt
        can = ready and bool(self.wanted()) and stack
        self.run_button.setEnabled(can)
        self.add_button.setEnabled(can)
        self.preview_button.setEnabled(ready and stack)
        self.save_button.setEnabled(self.idle and self._registration is not None)
        for widget in (self.queue_list, self.queue_button, self.remove_button):
            widget.setVisible(bool(self._queue))
            widget.setEnabled(ready)

    # Running

    def _ready_job(self) -> LayersJob | None:
        """Job of the present settings; None if cancelled, or invalid with a message."""
        try:
            job = self.job()
        except FocusFusionError as error:
            self._show_error(error)
            return None
        from napari_focus_fusion.engine.memory import result_bytes  # loads torch

        scale = job.options.get("scale", 1)
        size = result_bytes(job.stack, scale, self.shows_reconstructed())
        where = self.destination.value
        if where == "ask":
            large = is_large(size)
            where = ask_where(self, job.stack.name, size) if large else "memory"
        if where == "zarr":
            path = ask_path(self, job.stack.name)
            if not path:
                return None
            if Path(path).exists() or path in self._queued_paths():
                self._show_error(
                    FocusFusionError(
                        f"{path!r} exists already, or is to be written by the queue. "
                        "Choose another name, or delete it first."
                    )
                )
                return None
            return replace(job, options={**job.options, "out": path})
        return job if where == "memory" else None

    def _queued_paths(self) -> list[str]:
        """The OME-Zarrs that the queue will write."""
        return [str(job.options.get("out", "")) for job, _ in self._queue]

    def run(self) -> FuseWorker | None:
        """Start fusing the chosen stack; the layers are added at the end.

        Returns
        -------
        FuseWorker
            Running; or None where the stack cannot be fused, with a notification, or a
            run is on already.
        """
        if not self.idle:
            return None
        job = self._ready_job()
        return None if job is None else self._start([(job, self.sources)])

    def add_to_queue(self) -> None:
        """Add the stack with the present settings, for :meth:`run_queue`."""
        job = self._ready_job()
        if job is None:
            return
        self._queue.append((job, self.sources))
        self._list_queue()
        self.remember_settings()

    def run_queue(self) -> FuseWorker | None:
        """Fuse the stacks of the queue one by one; finished ones are removed from it.

        Returns
        -------
        FuseWorker
            The first one, running; None where there is none, or a run is on already.
        """
        if not self.idle or not self._queue:
            return None
        return self._start(list(self._queue))

    def _remove_from_queue(self) -> None:
        rows = {index.row() for index in self.queue_list.selectedIndexes()}
        self._queue = [one for i, one in enumerate(self._queue) if i not in rows]
        self._list_queue()

    def _list_queue(self) -> None:
        self.queue_list.clear()
        for job, _ in self._queue:
            by = job.options.get("decision", job.options["model"])
            self.queue_list.addItem(f"{job.stack.name}, by {by}")
        self._update_buttons()

    def _start(
        self, jobs: list[tuple[LayersJob, tuple[Image, ...]]]
    ) -> FuseWorker | None:
        self.preview.stop()
        self.remember_settings()
        self._pending = deque(jobs)
        return self._next()

    def _next(self) -> FuseWorker | None:
        job, self._sources = self._pending.popleft()
        self._started = time.monotonic()
        return self._run(job, self._add_layers, f"Fusing {job.stack.name!r}")

    def cancel(self) -> None:
        """Ask the run to stop, which it does within a tile; the queue stays."""
        self._pending.clear()
        super().cancel()

    def _on_closed(self) -> None:
        self.preview.stop()
        super()._on_closed()

    def _toggle_preview(self, on: bool) -> None:
        (self.preview.start if on else self.preview.stop)()

    def _preview_arguments(self) -> dict[str, Any] | None:
        if not self.sources or not self.idle or self._axes.doubt:
            return None
        reference = self.reference.value
        return {
            "layers": self.sources,
            "axes": self.axes,
            "reference_layer": reference if isinstance(reference, Image) else None,
            "folder": models_folder(),
            "outputs": self.wanted(),
            "slab_layer": self.slab_stack.value,
            "slab": self.slab_options,
            **self.options,
        }

    def _on_progressed(self, progress: Progress) -> None:
        if self._worker is None or self._worker.abort_requested:
            return
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        job = self._worker.job
        parts = [progress.stage]
        if progress.seconds_left is not None:
            parts.append(f"{duration_text(progress.seconds_left)} left")
        spent = time.monotonic() - self._started
        if progress.done and spent > 0.3:
            pixels = job.stack.n_times * job.stack.n_slices
            pixels *= job.stack.height * job.stack.width
            speed = pixels * progress.done / progress.total / spent
            parts.append(f"{speed / _MB:.2g} Mpx/s")
        if progress.memory:
            parts.append(f"about {byte_text(progress.memory)} of working memory")
        parts.append(f"{memory_in_use(job.options['device'])} in use")
        if self._pending:
            parts.append(f"{len(self._pending)} more in the queue")
        self.status.setText(", ".join(parts))

    def _add_layers(self, layers: list[LayerData]) -> None:
        added = [Layer.create(*data) for data in layers]
        self._hide_additive_layers(added[0])
        for layer in added:
            self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = added[0]
        self._results.setdefault(self._sources[0], WeakSet()).update(added)
        provenance = added[0].metadata[METADATA_KEY]
        for note in provenance.get("notes", ()):
            show_warning(note)
        spent = duration_text(time.monotonic() - self._started)
        done = f"Done in {spent}"
        if "device" in provenance:
            done += f" on {device_text(provenance['device'])}"
            self._registration = provenance.get("registration")
        self.status.setText(f"{done}.")
        assert self._worker is not None
        self._queue = [one for one in self._queue if one[0] is not self._worker.job]

    def _hide_additive_layers(self, shown: Layer) -> None:
        """Hide slices and other results that would add up with a new result."""
        earlier = self._results.get(self._sources[0], ())
        for layer in (*self._sources, *earlier):
            adds = not (covers(layer.blending) and covers(shown.blending))
            if adds and layer in self._viewer.layers:
                layer.visible = False

    def _stack_name(self) -> str:
        return self._worker.job.stack.name if self._worker else ""

    def _go_on(self) -> None:
        self._sources = ()
        if self._pending:
            self._next()
            return
        self._list_queue()
        self.ended.emit()
