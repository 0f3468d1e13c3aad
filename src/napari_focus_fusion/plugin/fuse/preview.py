"""A live preview of the fusion in the field of view."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]
from superqt.utils import create_worker

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.registry import models
from napari_focus_fusion.plugin.adapters.errors import explain
from napari_focus_fusion.plugin.adapters.preview import camera_of, preview_job, view_of
from napari_focus_fusion.plugin.common.worker import FuseWorker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari
    from qtpy.QtWidgets import QWidget

    from napari_focus_fusion.result import LayerData

#: Milliseconds without a change before a preview is begun.
DELAY = 150
#: Target duration of a preview in seconds.
TARGET_SECONDS = 1.0
#: Assumed pixels x slices a second of the fastest focus measure, before the first run;
#: and its cost in multiply-adds of a network.
FIRST_RATE, COST_OF_FOCUS_MEASURE = 2_500_000, 2500
#: Attributes of the layer that differ between fields of view.
_CHANGING = (
    *("data", "scale", "translate", "rotate", "shear", "affine"),
    *("colormap", "contrast_limits", "gamma", "metadata"),
)


class Preview(QObject):
    """Keeps a layer with the fusion of the field of view up to date.

    Parameters
    ----------
    viewer
        Whose camera is followed, and which gets the layer.
    get_arguments
        Returns the arguments of :func:`preview_job` except the view, or None where no
        stack is chosen.
    parent
        The widget; the preview ends with it.
    """

    #: Status text; empty for none.
    status_changed = Signal(str)
    #: A preview is shown.
    shown = Signal()
    #: It has been turned on or off, also by removing its layer.
    toggled = Signal(bool)

    def __init__(
        self,
        viewer: napari.Viewer,
        get_arguments: Callable[[], dict[str, Any] | None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.on = False
        self.layer: Layer | None = None
        self._viewer = viewer
        self._get_arguments = get_arguments
        self._worker: Any = None
        self._key: Any = None
        self._started = 0.0
        self._rates: dict[Any, float] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY)
        self._timer.timeout.connect(self._update_preview)
        if parent is not None:
            parent.destroyed.connect(self._disconnect)

    def start(self) -> None:
        """Show a preview, and keep it up to date."""
        if self.on:
            return
        self.on, self._key = True, None
        for emitter in self._emitters():
            emitter.connect(self.request)
        self._viewer.layers.events.removed.connect(self._on_removed)
        self.toggled.emit(True)
        self.request()

    def stop(self) -> None:
        """Remove the preview."""
        if not self.on:
            return
        self._disconnect()
        self._timer.stop()
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self.status_changed.emit("")
        self.toggled.emit(False)

    def _disconnect(self) -> None:
        """Stop following the viewer; the layer stays."""
        if not self.on:
            return
        self.on, self._key = False, None  # the key holds the layers
        for emitter in self._emitters():
            emitter.disconnect(self.request)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        if self._worker is not None:
            self._worker.quit()

    def request(self, event: Any = None) -> None:
        """Update the preview once nothing has changed for a moment."""
        if self.on:
            self._timer.start()

    def _emitters(self) -> list[Any]:
        camera = camera_of(self._viewer)
        dims = self._viewer.dims.events
        return [
            *(camera.events.zoom, camera.events.center),
            *(dims.current_step, dims.ndisplay, dims.order),
        ]

    def _update_preview(self) -> None:
        """Start a run if the view or the settings have changed."""
        if not self.on:
            return
        arguments = self._get_arguments()
        if arguments is None:
            self.stop()
            return
        arguments = dict(arguments)
        kind = (arguments["model"], arguments["device"])
        try:
            view_arguments = (arguments["layers"], arguments["axes"], self._viewer)
            # The measured speed sets the resolution of the next run, but starts none.
            key = (view_of(*view_arguments, inf), arguments)
            rate = self._rates.get(kind) or _first_rate(
                kind[0], arguments.get("folder")
            )
            view = view_of(*view_arguments, TARGET_SECONDS * rate)
            if key == self._key:
                return
            if self._worker is not None:
                self._worker.quit()  # its end starts the next update
                return
            job = preview_job(view=view, **arguments)
        except FocusFusionError as error:
            self._key = None  # the last preview is out of date
            self.status_changed.emit(str(error))
            return
        self._key = key
        self._started = time.monotonic()
        # Not a worker of napari, which would ask before closing during a run.
        make: Any = create_worker
        worker = make(
            "Preview",
            job,
            _worker_class=FuseWorker,
            _ignore_errors=True,
            _start_thread=False,
        )
        self._worker = worker
        worker.kind = kind
        worker.returned.connect(self._on_returned)
        worker.errored.connect(self._on_errored)
        worker.finished.connect(self._on_finished)
        self.destroyed.connect(worker.quit)
        self.status_changed.emit("Preview …")
        worker.start()

    def _on_returned(self, data: LayerData) -> None:
        if not self.on:
            return
        spent = max(time.monotonic() - self._started, 0.01)
        kind, job = self._worker.kind, self._worker.job
        rate = job.work / spent
        known = self._rates.get(kind)
        # The first run also loads the model, and underestimates the speed.
        first = max(rate, _first_rate(kind[0], job.folder))
        self._rates[kind] = first if known is None else (known + rate) / 2
        self._show(data)
        self.status_changed.emit(f"Preview in {spent:.1f} s.")
        self.shown.emit()

    def _show(self, data: LayerData) -> None:
        """Update the layer, or add it to the viewer."""
        layers = self._viewer.layers
        new = Layer.create(*data)
        old = self.layer
        if old is not None and (old.rgb, old.ndim) == (new.rgb, new.ndim):
            # A new layer would block the window for 0.2 s.
            for name in _CHANGING:
                setattr(old, name, getattr(new, name))
            return
        self.layer = new
        selected = set(layers.selection)
        active = layers.selection.active
        if old is not None:
            layers.remove(old)
        layers.append(new)
        layers.selection = selected & set(layers)
        if active in layers:
            layers.selection.active = active

    def _on_errored(self, error: Exception) -> None:
        if self.on:
            name = self._worker.job.stack.name
            self.status_changed.emit("No preview: " + explain(error, name))

    def _on_finished(self) -> None:
        stale = self._worker.abort_requested
        self.destroyed.disconnect(self._worker.quit)
        del self._worker.job
        self._worker = None
        if stale:
            self._key = None
        self._update_preview()

    def _on_removed(self, event: Any) -> None:
        """Turn the preview off when its layer is deleted."""
        if event.value is self.layer:
            self.stop()


def _first_rate(model: str, folder: Path | None) -> float:
    spec = models(folder).get(model)
    return FIRST_RATE / (1 + (spec.cost if spec else 0) / COST_OF_FOCUS_MEASURE)
