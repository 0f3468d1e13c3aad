"""Recomposition of the fused image while its decision map is painted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal  # type: ignore[attr-defined]

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.placement import displayed_axes
from napari_focus_fusion.plugin.adapters.layers import layers_of
from napari_focus_fusion.plugin.adapters.maps import axes_of_result, in_stack_order
from napari_focus_fusion.plugin.common.worker import job_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari
    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray

    from napari_focus_fusion.result import FusionResult
    from napari_focus_fusion.tiling import Rectangle

#: Milliseconds of painting that are recomposed together.
_PAUSE = 15


class LiveRecomposer(QObject):
    """Watches labels (label 1 is slice 0), and recomposes where they change.

    All changes of the labels count: brush, fill, eraser, undo, a script. Erased pixels
    get their initial slice.

    Parameters
    ----------
    viewer
        Its sliders, or visible layers, give the time point and slice on screen.
    source
        The layer of the stack, or a two-dimensional one a slice.
    result
        Its pixels and decision are changed in place.
    layers
        Of :func:`~napari_focus_fusion.plugin.adapters.maps.retouch_layers`: the pixels
        of `result`, the last one is the map.
    options
        ``blend`` and ``reference`` of :func:`napari_focus_fusion.retouch.recompose`.
    """

    #: The fused image is up to date with the map.
    followed = Signal()
    #: The exception of a failed recomposition.
    failed = Signal(object)
    #: Where slices are layers, their visibility has changed.
    slice_shown = Signal()
    #: A label was painted that stands for no slice.
    unknown_label = Signal()

    def __init__(
        self,
        viewer: napari.Viewer,
        source: Image | Sequence[Image],
        result: FusionResult,
        layers: Sequence[Any],
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self.sources = layers_of(source)
        self.result = result
        self.options = options
        self.labels: Labels = layers[-1]
        self.fused: list[Layer] = list(layers[:-1])
        #: Axes of the labels, one letter each; Z and C have the length 1.
        self.axes = axes_of_result(result.stack, self.labels.ndim)
        self.clicked: tuple[int, int] | None = None
        self._initial = self._by_time(result.decision).copy()
        self._dirty: dict[int, Rectangle | None] = {}  # None: the whole plane
        self._intensities: dict[int, tuple[float, float]] = {}
        self._worker: Any = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self._recompose)
        self.labels.events.labels_update.connect(self._on_painted)
        self.labels.events.set_data.connect(self._on_refreshed)
        self.labels.mouse_drag_callbacks.append(self._on_click)
        if self.flat:
            for layer in self.sources:
                layer.events.visible.connect(self._on_visible)

    def stop(self) -> None:
        """Stop watching the labels; the layers stay."""
        self.labels.events.labels_update.disconnect(self._on_painted)
        self.labels.events.set_data.disconnect(self._on_refreshed)
        self.labels.mouse_drag_callbacks.remove(self._on_click)
        if self.flat:
            for layer in self.sources:
                layer.events.visible.disconnect(self._on_visible)
        self._timer.stop()
        if self._worker is not None:
            self._worker.quit()

    @property
    def caught_up(self) -> bool:
        """Whether the fused image is up to date with the map."""
        return self._worker is None and not self._dirty

    # Time point and slice on screen

    def time(self) -> int:
        """Time point of the map on screen."""
        count = self.result.stack.n_times
        if count == 1:
            return 0
        position = self.labels.world_to_data(self._viewer.dims.point)
        time = position[self.axes.index("T")]
        return int(np.clip(round(time), 0, count - 1))

    @property
    def flat(self) -> bool:
        """Whether each slice is a layer of its own."""
        return len(self.sources) > 1

    def slice_on_screen(self) -> int:
        """Index of the slice on screen, from 0.

        That of the z slider; or, where slices are layers, of the topmost visible one.

        Raises
        ------
        FocusFusionError
            If the stack was removed, z has no slider, or no slice is visible.
        """
        here = [layer for layer in self._viewer.layers if layer in self.sources]
        if not here:
            raise FocusFusionError("The stack is no longer there. Open it again.")
        if self.flat:
            shown = [layer for layer in here if layer.visible]
            if not shown:
                raise FocusFusionError(
                    "No slice is visible. Select the layer of one in the layer list."
                )
            return self.sources.index(shown[-1])
        (layer,), dims, stack = self.sources, self._viewer.dims, self.result.stack
        axis = displayed_axes(stack).index("Z")
        if dims.ndim - layer.ndim + axis in dims.displayed:
            raise FocusFusionError(
                "The z axis has no slider now. Show the image in 2D, with y and x as "
                "rows and columns."
            )
        z = round(layer.world_to_data(dims.point)[axis])
        return int(np.clip(z, 0, stack.n_slices - 1))

    def show_slices(self) -> None:
        """Make the stack visible; where slices are layers, the one on screen."""
        here = [layer for layer in self._viewer.layers if layer in self.sources]
        shown = [layer for layer in here if layer.visible] or here
        if shown:
            shown[-1].visible = True
            self.show_alone(shown[-1])

    def show_alone(self, layer: Any) -> None:
        """Where slices are layers, show only this one; ignore other layers."""
        if self.flat and layer in self.sources:
            layer.visible = True
            for other in self.sources:
                other.visible = other == layer  # napari may hand out proxies

    def _on_visible(self, event: Any) -> None:
        self.slice_shown.emit()

    # The map

    def decision(self) -> NDArray[np.uint16]:
        """The map as painted, slices counted from 0, axes (T,) Y, X."""
        current = self._by_time(self.result.decision)
        decision = _slices_of_labels(
            self._planes(), self._initial, current, self.result.stack.n_slices
        )
        return decision.reshape(self.result.stack.map_shape)

    def take(self, mask: NDArray[np.bool_], z: int) -> None:
        """Take an area (Y, X) of the time point on screen from a slice."""
        self._set_labels(mask, self.time(), z + 1)

    def replace(self, decision: NDArray[np.uint16]) -> None:
        """Replace the map by another one, as one step that can be undone."""
        planes = self._planes()
        wanted = self._by_time(decision) + np.uint16(1)
        with self.labels.block_history():
            for t, plane in enumerate(planes):
                changed = plane != wanted[t]
                self._set_labels(changed, t, wanted[t][changed].astype(planes.dtype))
        self._dirty = dict.fromkeys(range(len(planes)), None)
        self.labels.refresh()
        self._timer.start()

    def label_at_click(self) -> NDArray[np.bool_]:
        """The connected area of one label around the last click on the map.

        Raises
        ------
        FocusFusionError
            If there was no click yet, or outside of the image.
        """
        from napari_focus_fusion.plugin.adapters.maps import connected_area

        if self.clicked is None:
            raise FocusFusionError("Click on the area in the map first.")
        return connected_area(self._planes()[self.time()], *self.clicked)

    def _by_time(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(-1, *values.shape[-2:])

    def _planes(self) -> NDArray[Any]:
        """The labels, (T, Y, X); writing to it writes to the layer."""
        planes = in_stack_order(np.asarray(self.labels.data), self.result.stack)
        return planes if planes.ndim == 3 else planes[None]

    def _set_labels(self, mask: NDArray[np.bool_], t: int, value: Any) -> None:
        rows, columns = np.nonzero(mask)
        places = {"T": np.full_like(rows, t), "Y": rows, "X": columns}
        one = np.zeros_like(rows)
        index = tuple(places.get(axis, one) for axis in self.axes)
        self.labels.data_setitem(index, value)

    # Recomposition

    def _on_click(self, layer: Labels, event: Any) -> None:
        position = layer.world_to_data(event.position)
        y, x = (position[self.axes.index(axis)] for axis in "YX")
        self.clicked = (round(y), round(x))

    def _on_painted(self, event: Any) -> None:
        """Store the rectangle that napari has updated."""
        from napari_focus_fusion.tiling import Rectangle

        dims = self._viewer.dims
        before = dims.ndim - self.labels.ndim
        if list(dims.displayed) != [before + self.axes.index(a) for a in "YX"]:
            self._on_refreshed()  # rows and columns are swapped
            return
        y, x = event.offset
        height, width = event.data.shape[:2]
        area = Rectangle(y, y + height, x, x + width)
        t = self.time()
        before = self._dirty.get(t, area)
        self._dirty[t] = before and before.joined(area)
        self._timer.start()

    def _on_refreshed(self, event: Any = None) -> None:
        """After undo, redo and other changes the whole plane may have changed."""
        self._dirty[self.time()] = None
        self._timer.start()

    def _take_changes(self) -> list[tuple[int, Rectangle]]:
        """Update the decision map from the labels; return the changed rectangles."""
        from napari_focus_fusion.retouch import bounds
        from napari_focus_fusion.tiling import Rectangle

        stack = self.result.stack
        whole = Rectangle(0, stack.height, 0, stack.width)
        dirty, self._dirty = self._dirty, {}
        decisions = self._by_time(self.result.decision)
        changes, repaired = [], False
        for t, noted in dirty.items():
            outer = noted or whole
            planes, here = self._planes(), outer.slices
            differs = bounds(planes[t][here] != decisions[t][here] + np.uint16(1))
            if differs is None:
                continue
            area = differs.moved(outer.y0, outer.x0)
            painted, decision = planes[t][area.slices], decisions[t][area.slices]
            if (painted > stack.n_slices).any():
                self.unknown_label.emit()
            wanted = _slices_of_labels(
                painted, self._initial[t][area.slices], decision, stack.n_slices
            )
            if (wanted + 1 != painted).any():
                painted[...] = wanted + 1
                repaired = True
            if (wanted != decision).any():
                decision[...] = wanted
                changes.append((t, area))
        if repaired:
            with self.labels.events.set_data.blocker(self._on_refreshed):
                self.labels.refresh()
        return changes

    def _recompose(self) -> None:
        """Recompose the changed rectangles in a thread; later changes come next."""
        if self._worker is not None:
            return
        changes = self._take_changes()
        if not changes:
            self.followed.emit()
            return
        result, known, options = self.result, self._intensities, self.options

        def job(progress: Any, should_stop: Callable[[], bool]) -> None:
            from napari_focus_fusion.retouch import intensities, recompose

            for t, area in changes:
                if t not in known:
                    reference = options.get("reference")
                    known[t] = intensities(result.stack, t=t, reference=reference)
                recompose(
                    result.stack,
                    result.decision,
                    result.fused,
                    area,
                    t=t,
                    black_and_white=known[t],
                    should_stop=should_stop,
                    **options,
                )

        self._worker = worker = job_worker(f"Retouching {result.stack.name!r}", job)
        worker.errored.connect(self.failed)
        worker.finished.connect(self._on_recomposed)
        worker.start()

    def _on_recomposed(self) -> None:
        stopped = self._worker.abort_requested
        del self._worker.job  # napari keeps workers: the pixels must not stay with them
        self._worker = None
        for layer in self.fused:
            layer.refresh(thumbnail=False, highlight=False, extent=False)
        if not stopped:
            self._recompose()


def _slices_of_labels(
    painted: NDArray[Any], initial: Any, current: NDArray[Any], count: int
) -> NDArray[np.uint16]:
    """Indices of slices, from 0, of labels.

    Erased pixels get their initial slice; labels of slices that do not exist leave the
    current one.
    """
    slices = painted.astype(np.uint16) - np.uint16(1)
    np.copyto(slices, initial, where=painted == 0)
    np.copyto(slices, current, where=painted > count)
    return slices
