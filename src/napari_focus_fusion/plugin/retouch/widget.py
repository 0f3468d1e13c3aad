"""The widget *Retouch focus fusion*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.components.overlays import BrushCircleOverlay
from napari.layers import Layer, Shapes
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QFileDialog

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.plugin.adapters.layers import chosen_layers, level_0
from napari_focus_fusion.plugin.adapters.maps import (
    alignment_for,
    begin,
    drawn_area,
    first_of,
    fused_of,
    in_stack_order,
    result_metadata,
)
from napari_focus_fusion.plugin.adapters.sources import stack_of
from napari_focus_fusion.plugin.retouch.form import RetouchForm
from napari_focus_fusion.plugin.retouch.live_recomposer import LiveRecomposer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import napari
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_focus_fusion.result import FusionResult, LayerData
    from napari_focus_fusion.stack import FocusStack

_OTHER_STACK = (
    "The slices that this map is of were aligned or levelled, and they are not those "
    "of the chosen stack. Choose the stack that was fused."
)
_TIFF = "OME-TIFF (*.ome.tif *.ome.tiff *.tif *.tiff)"


class RetouchWidget(RetouchForm):
    """Paint on a decision map with live recomposition; docked by napari.

    From a script: set the ``value`` of ``layer`` and ``map``, call :meth:`start` and
    wait for ``ended``; paint on ``labels`` (label 1 is slice 0) or call
    :meth:`take_area`, and wait for ``followed``; then call :meth:`save_map` or
    :meth:`apply`.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen, and which gets the results.
    """

    #: The fused image is up to date with the map.
    followed = Signal()
    cancelled = "Cancelled; no layer was added."

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        for button, action in (
            (self.start_button, self.start),
            (self.load_button, self._ask_load),
            (self.draw_button, self.draw),
            (self.take_button, self._ask_take),
            (self.undo_button, self.undo),
            (self.redo_button, self.redo),
            (self.save_button, self._ask_save),
            (self.apply_button, self.apply),
        ):
            button.clicked.connect(action)
        self.brush_follows.changed.connect(self._on_dims)
        self.show_slice.changed.connect(self._on_show_slice)
        napari_viewer.dims.events.current_step.connect(self._on_dims)
        napari_viewer.layers.selection.events.active.connect(self._on_selected)
        napari_viewer.layers.events.removed.connect(self._on_removed)
        self.reset_choices()

    def reset_choices(self, event: Any = None) -> None:
        """List the layers again; napari calls it whenever they change."""
        super().reset_choices(event)
        self._on_dims()

    # Runs

    def start(self) -> Any:
        """Begin to retouch the chosen map.

        Returns
        -------
        FuseWorker
            Running; or None where that is not possible, with a notification.
        """
        layer, map_layer = self.layer.value, self.map.value
        stack = None if layer is None else stack_of(layer, map_layer)
        if stack is None or map_layer is None:
            return self._show_error(FocusFusionError(self._advice() or _OTHER_STACK))
        first = self.first.value
        first = first_of(map_layer) if first is None else first
        values = in_stack_order(level_0(map_layer), stack)
        fused = fused_of(self._viewer.layers, map_layer)
        pixels = None if fused is None else level_0(fused)
        options = _options_of(map_layer, stack)

        def job(progress: Any, should_stop: Any) -> Any:
            from napari_focus_fusion.retouch import as_decision

            decision = as_decision(values, stack, first=first)
            callbacks = {"progress": progress, "should_stop": should_stop}
            return begin(stack, decision, pixels, **options, **callbacks)

        def then(begun: tuple[FusionResult, list[LayerData]]) -> None:
            self._begin_with(layer, options, *begun)

        return self._run(job, then, f"Preparing {stack.name!r}")

    def load_map(self, path: str | Path) -> Any:
        """Begin with a map from a file, or replace the content of the current one.

        Parameters
        ----------
        path
            Anything that :func:`napari_focus_fusion.retouch.load_decision` reads.

        Returns
        -------
        FuseWorker
            Running; or None where there is no stack.
        """
        session, layer, first = self.session, self.layer.value, self.first.value
        stack = None if layer is None else stack_of(layer, self.map.value)
        if session is not None:
            stack = session.result.stack
        if stack is None:
            return self._show_error(FocusFusionError(self._advice() or _OTHER_STACK))

        def job(progress: Any, should_stop: Any) -> Any:
            from napari_focus_fusion.retouch import load_decision

            decision = load_decision(path, stack, first=first)
            if session is not None:
                return decision
            return begin(stack, decision, progress=progress, should_stop=should_stop)

        def then(loaded: Any) -> None:
            if session is None:
                self._begin_with(layer, {}, *loaded)
            elif session is self.session:
                session.replace(loaded)

        return self._run(job, then, f"Loading {str(path)!r}")

    def apply(self) -> Any:
        """Fuse the chosen other stack by the current map.

        Returns
        -------
        FuseWorker
            Running; or None where that is not possible, with a notification.
        """
        layer, session = self.target.value, self.session
        stack = None if layer is None else stack_of(layer)
        if session is None or stack is None:
            text = "Begin with a map, and choose a stack of the same size."
            return self._show_error(FocusFusionError(text))
        decision = session.decision()
        other_times = stack.n_times != session.result.stack.n_times
        one_time = None
        if decision.ndim == 3 and (self.one_time.value or other_times):
            one_time = session.time()
            decision = decision[one_time]
        record = session.result.provenance
        blend = session.options.get("blend", "feather")

        def job(progress: Any, should_stop: Any) -> list[LayerData]:
            from napari_focus_fusion.fusion import fuse

            callbacks = {"progress": progress, "should_stop": should_stop}
            align = alignment_for(record, stack, one_time)
            result = fuse(
                stack, decision=decision, align=align, blend=blend, **callbacks
            )
            return chosen_layers(result, ("fused",))

        return self._run(job, self._add, f"Fusing {stack.name!r}")

    def _stack_name(self) -> str:
        return "" if self.session is None else self.session.result.stack.name

    def _add(self, layers: list[LayerData]) -> list[Layer]:
        added = [Layer.create(*data) for data in layers]
        for layer in added:
            self._viewer.add_layer(layer)
        return added

    def _begin_with(
        self,
        source: Image | Sequence[Image],
        options: dict[str, Any],
        result: FusionResult,
        layers: list[LayerData],
    ) -> None:
        self.finish()
        # The new fused image replaces others of this stack.
        fused = {"output": "fused", "source": result.stack.source}
        for layer in self._viewer.layers:
            if fused.items() <= result_metadata(layer).items():
                layer.visible = False
        added = self._add(layers)
        session = LiveRecomposer(self._viewer, source, result, added, options)
        session.followed.connect(self.followed)
        session.failed.connect(self._show_error)
        session.unknown_label.connect(self._on_unknown_label)
        session.slice_shown.connect(self._on_dims)
        self.session = session
        self._list_targets()
        _hide_brush_box(self._viewer)
        session.labels.mode = "paint"
        self._viewer.layers.selection.active = session.labels
        self._on_show_slice()
        self._on_dims()

    def finish(self) -> None:
        """Stop recomposing; the layers stay."""
        if self.session is not None:
            self.session.stop()
            self.session = None

    def _on_removed(self, event: Any) -> None:
        session, gone = self.session, event.value
        if session is not None and gone in (session.labels, *session.fused):
            self.finish()
            self.status.setText(f"{gone.name!r} was removed; begin again to go on.")
            self._update_buttons()

    def _on_closed(self) -> None:
        super()._on_closed()
        self.finish()

    # Painting

    def _on_dims(self, event: Any = None) -> None:
        session = self.session
        if session is None:
            self.on_screen.setText(
                "Label 1 is slice 0; the eraser brings back the map."
            )
            return
        try:
            z = session.slice_on_screen()
        except FocusFusionError as error:
            self.on_screen.setText(str(error))
            return
        last = session.result.stack.n_slices - 1
        layer = f", layer {session.sources[z].name!r}" if session.flat else ""
        self.on_screen.setText(
            f"On screen: slice {z} of 0 to {last}{layer}, label {z + 1}."
        )
        if self.brush_follows.value:
            session.labels.selected_label = z + 1

    def _on_selected(self, event: Any = None) -> None:
        if self.session is not None:
            self.session.show_alone(self._viewer.layers.selection.active)

    def _on_unknown_label(self) -> None:
        assert self.session is not None
        count = self.session.result.stack.n_slices
        self.status.setText(
            f"There are {count} slices, so labels go from 1 to {count}; others are "
            "not kept."
        )

    def _on_show_slice(self) -> None:
        session, alone = self.session, self.show_slice.value
        if session is None:
            return
        for layer in session.fused:
            layer.visible = not alone
        if alone:
            session.show_slices()

    def draw(self) -> None:
        """Add a layer of shapes and choose it, in drawing mode."""
        if self.session is None or self.labels is None:
            return
        # In a plane, so that it is seen at every z; napari lays it on the last axes.
        ndim = 2 if self.session.axes.endswith("YX") else self.labels.ndim
        shapes = Shapes(
            ndim=ndim,
            name="Area",
            scale=self.labels.scale[-ndim:],
            translate=self.labels.translate[-ndim:],
            units=self.labels.units[-ndim:],
            axis_labels=self.labels.axis_labels[-ndim:],
            face_color="transparent",
            edge_color="white",
            edge_width=2,
        )
        self._viewer.add_layer(shapes)
        shapes.mode = "add_polygon_lasso"
        self._viewer.layers.selection.active = shapes
        self.area.value = shapes

    def _ask_take(self) -> None:
        session, shapes = self.session, self.area.value
        if session is None:
            return
        try:
            if shapes is None:
                self.take_area(session.label_at_click())
            else:
                self.take_area(drawn_area(shapes, session.labels, session.axes))
        except FocusFusionError as error:
            self._show_error(error)

    def take_area(self, mask: NDArray[Any], z: int | None = None) -> None:
        """Take an area of the time point on screen from one slice; can be undone.

        Parameters
        ----------
        mask
            bool (Y, X).
        z
            Slice, from 0; None: the one on screen.

        Raises
        ------
        FocusFusionError
            If none is on screen, or nothing has begun.
        """
        session = self._begun()
        session.take(mask, session.slice_on_screen() if z is None else z)

    @property
    def caught_up(self) -> bool:
        """Whether the fused image is up to date with the map."""
        return self.session is None or self.session.caught_up

    def undo(self) -> None:
        """Undo the last stroke or area."""
        if self.labels is not None:
            self.labels.undo()

    def redo(self) -> None:
        """Redo the last undone step."""
        if self.labels is not None:
            self.labels.redo()

    # Saving

    def decision(self) -> NDArray[Any]:
        """The map as painted, slices counted from 0, axes (T,) Y, X.

        Raises
        ------
        FocusFusionError
            If nothing has begun.
        """
        return self._begun().decision()

    def save_map(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Save the map; see :func:`napari_focus_fusion.retouch.save_decision`."""
        from napari_focus_fusion.retouch import save_decision

        session = self._begun()
        stack = session.result.stack
        return save_decision(path, session.decision(), stack, overwrite=overwrite)

    def _begun(self) -> LiveRecomposer:
        if self.session is None:
            raise FocusFusionError("Begin to retouch a map first.")
        return self.session

    def _ask_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(self, "Save map", "", _TIFF)
        if not name:
            return
        if not name.lower().endswith((".tif", ".tiff")):
            name += ".ome.tif"
        try:
            self.status.setText(f"Saved {self.save_map(name, overwrite=True)}.")
        except FocusFusionError as error:
            self._show_error(error)

    def _ask_load(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Load map", "", _TIFF)
        if name:
            self.load_map(name)


def _hide_brush_box(viewer: napari.Viewer) -> None:
    """Keep napari from drawing the background of the circle that shows the brush.

    napari 0.9 adds it when a layer is shown or hidden while painting, and never takes
    it away. Where it was drawn first when all layers were gone, Mesa ended the process.
    """
    canvas = getattr(viewer, "canvas", None)  # not in napari 0.8
    for overlay in () if canvas is None else canvas.overlays.values():
        if isinstance(overlay, BrushCircleOverlay):
            overlay.box = False


def _options_of(map_layer: Layer, stack: FocusStack) -> dict[str, Any]:
    """Options of the fusion that the map came from."""
    parameters = result_metadata(map_layer).get("parameters", {})
    reference = parameters.get("reference")
    try:
        stack.reference_weights(reference)
    except FocusFusionError:  # the reference was another layer
        reference = None
    return {"blend": parameters.get("blend", "feather"), "reference": reference}
