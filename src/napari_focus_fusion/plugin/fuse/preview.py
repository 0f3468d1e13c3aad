"""What a fusion would look like, of the field of view alone, at once."""

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
#: Seconds that a preview should take.
AIM = 1.0
#: Pixels x slices a second of the plain measure, until it has been seen how many it is;
#: and the multiply-adds of a network that take as long.
FIRST_RATE, COST_OF_THE_PLAIN = 2_500_000, 2500
#: What of the layer is not as it was when another field is shown.
_CHANGING = (
    *("data", "scale", "translate", "rotate", "shear", "affine"),
    *("colormap", "contrast_limits", "gamma", "metadata"),
)


class Preview(QObject):
    """Keeps a layer that shows what a fusion of the field of view would be.

    Parameters
    ----------
    viewer
        Whose camera is followed, and where the layer goes.
    ask
        Gives the arguments of :func:`preview_job` but for the view, or None where
        nothing is chosen.
    parent
        The widget with which it ends.
    """

    #: What there is to say, in words; empty for nothing.
    told = Signal(str)
    #: A preview is shown.
    shown = Signal()
    #: It has been turned on or off, be it by removing its layer.
    toggled = Signal(bool)

    def __init__(
        self,
        viewer: napari.Viewer,
        ask: Callable[[], dict[str, Any] | None],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.on = False
        self.layer: Layer | None = None
        self._viewer = viewer
        self._ask = ask
        self._worker: Any = None
        self._key: Any = None
        self._began = 0.0
        self._rates: dict[Any, float] = {}
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY)
        self._timer.timeout.connect(self._look)
        if parent is not None:
            parent.destroyed.connect(self._let_go)

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
        """Take the preview away."""
        if not self.on:
            return
        self._let_go()
        self._timer.stop()
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self.told.emit("")
        self.toggled.emit(False)

    def _let_go(self) -> None:
        """Follow nothing any more, with what there is left as it is."""
        if not self.on:
            return
        self.on, self._key = False, None  # the key holds the layers
        for emitter in self._emitters():
            emitter.disconnect(self.request)
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        if self._worker is not None:
            self._worker.quit()

    def request(self, event: Any = None) -> None:
        """Something has changed: look again once it stays as it is."""
        if self.on:
            self._timer.start()

    def _emitters(self) -> list[Any]:
        camera = camera_of(self._viewer)
        dims = self._viewer.dims.events
        return [
            *(camera.events.zoom, camera.events.center),
            *(dims.current_step, dims.ndisplay, dims.order),
        ]

    def _look(self) -> None:
        """Begin anew if something else is to be shown."""
        if not self.on:
            return
        asked = self._ask()
        if asked is None:
            self.stop()
            return
        asked = dict(asked)
        kind = (asked["model"], asked["device"])
        try:
            seen = (asked["layers"], asked["axes"], self._viewer)
            # What a run took changes how coarse the next one is, but begins none.
            key = (view_of(*seen, inf), asked)
            rate = self._rates.get(kind) or _first_rate(kind[0], asked.get("folder"))
            view = view_of(*seen, AIM * rate)
            if key == self._key:
                return
            if self._worker is not None:
                self._worker.quit()  # then it is looked again
                return
            job = preview_job(view=view, **asked)
        except FocusFusionError as error:
            self._key = None  # the last preview no longer shows what is in view
            self.told.emit(str(error))
            return
        self._key = key
        self._began = time.monotonic()
        # No worker of napari's: it would ask for leave to close in its midst.
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
        self.told.emit("Preview …")
        worker.start()

    def _on_returned(self, data: LayerData) -> None:
        if not self.on:
            return
        spent = max(time.monotonic() - self._began, 0.01)
        kind, job = self._worker.kind, self._worker.job
        rate = job.work / spent
        known = self._rates.get(kind)
        # The first run also loads the model, and says little of the speed.
        first = max(rate, _first_rate(kind[0], job.folder))
        self._rates[kind] = first if known is None else (known + rate) / 2
        self._show(data)
        self.told.emit(f"Preview in {spent:.1f} s.")
        self.shown.emit()

    def _show(self, data: LayerData) -> None:
        """Put pixels into the layer, or a layer into the viewer."""
        layers = self._viewer.layers
        new = Layer.create(*data)
        old = self.layer
        if old is not None and (old.rgb, old.ndim) == (new.rgb, new.ndim):
            # A new layer would keep the window busy for a fifth of a second.
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
            self.told.emit("No preview: " + explain(error, name))

    def _on_finished(self) -> None:
        stale = self._worker.abort_requested
        self.destroyed.disconnect(self._worker.quit)
        del self._worker.job
        self._worker = None
        if stale:
            self._key = None
        self._look()

    def _on_removed(self, event: Any) -> None:
        """Who deletes the layer wants no preview."""
        if event.value is self.layer:
            self.stop()


def _first_rate(model: str, folder: Path | None) -> float:
    spec = models(folder).get(model)
    return FIRST_RATE / (1 + (spec.cost if spec else 0) / COST_OF_THE_PLAIN)
