"""The widget *Retouch focus fusion*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Layer, Shapes
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.plugin.adapters.layers import chosen_layers, level_0
from napari_focus_fusion.plugin.adapters.maps import (
    about,
    begin,
    drawn_area,
    first_of,
    fused_of,
    maps_of,
)
from napari_focus_fusion.plugin.adapters.sources import stack_of
from napari_focus_fusion.plugin.common.choice import (
    Choice,
    form_layout,
    push_button,
    wrapped_label,
)
from napari_focus_fusion.plugin.common.job_widget import JobWidget
from napari_focus_fusion.plugin.common.stack_choice import StackChoice, title_of
from napari_focus_fusion.plugin.retouch.following import Follower

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import napari
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_focus_fusion.result import FusionResult, LayerData
    from napari_focus_fusion.stack import FocusStack

_OF_FLAT = (
    "Where each slice is a layer of its own, it is the topmost of those that are\n"
    "visible. Select one in the layer list, and it alone of them is visible."
)
_TIFF = "OME-TIFF (*.ome.tif *.ome.tiff *.tif *.tiff)"


class RetouchWidget(JobWidget):
    """Paint on a decision map while the fused image follows; docked by napari.

    From a script: set the ``value`` of ``layer`` and ``map``, call :meth:`start` and
    wait for ``ended``; paint on ``labels`` (label 1 is slice 0) or call
    :meth:`take_area`, and wait for ``followed``; then call :meth:`save_map` or
    :meth:`apply`.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen, and where results go.
    """

    #: The fused image has caught up with the map.
    followed = Signal()
    cancelled = "Cancelled; no layer was added."

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        #: What follows the brush; None before it begins.
        self.session: Follower | None = None

        layout = QVBoxLayout(self)
        for part in (self._make_begin(), self._make_paint(), self._make_use()):
            layout.addWidget(part)
        for widget in (self.progress, self.cancel_button, self.status):
            layout.addWidget(widget)
        layout.addStretch()

        self.layer.changed.connect(self._list_targets)
        self.layer.changed.connect(self._list_maps)
        napari_viewer.dims.events.current_step.connect(self._on_dims)
        napari_viewer.layers.selection.events.active.connect(self._on_selected)
        napari_viewer.layers.events.removed.connect(self._on_removed)
        self.reset_choices()
        self._on_dims()

    def _make_begin(self) -> QGroupBox:
        self.layer = StackChoice(
            "The focus stack that the map is of: a layer with slices, or the\n"
            "two-dimensional ones that are selected in the layer list, a slice each.",
            self._viewer,
        )
        self.map = Choice(
            "The decision map to correct: one that a fusion gave, or any labels or "
            "image that holds the index of a slice at each pixel."
        )
        self.first = Choice(
            "How the map calls the first slice. Maps of Focus Fusion count from 0.",
            [("Find out", None), ("Slice 0", 0), ("Slice 1", 1)],
        )
        self.start_button = push_button(
            "&Begin",
            "Add the map as labels to paint on, and the fused image that follows.",
            self.start,
        )
        self.load_button = push_button(
            "&Load map …",
            "Begin with a map from a file, or replace the one at hand by it.",
            self._ask_load,
        )
        self._begin = QGroupBox("Begin")
        self.advice = wrapped_label()
        form = form_layout(self._begin)
        form.addRow(self.advice)
        form.addRow("Stack", self.layer)
        form.addRow("Decision map", self.map)
        form.addRow("First slice is", self.first)
        form.addRow(_row(self.start_button, self.load_button))
        return self._begin

    def _make_paint(self) -> QGroupBox:
        self.on_screen = wrapped_label()
        self.brush_follows = QCheckBox("B&rush paints the slice on screen")
        self.brush_follows.setToolTip(
            "Moving the z slider also chooses the label: what is painted is taken from "
            "the slice that is shown.\n" + _OF_FLAT
        )
        self.show_slice = QCheckBox("S&how the slice, not the fused image")
        self.show_slice.setToolTip("To see what would be taken from it.")
        self.area = Choice(
            "Which area to take: the shapes that are drawn (the selected ones, if any "
            "are), or the pixels of one label around where the map was clicked last."
        )
        self.draw_button = push_button(
            "&Draw an area",
            "Add a layer of shapes, and draw with the mouse.",
            self.draw,
        )
        self.take_button = push_button(
            "&Take area from the slice on screen",
            "The fused image gets the pixels of the slice shown. Can be undone.\n"
            + _OF_FLAT,
            self._ask_take,
        )
        self.undo_button = push_button("&Undo", "As Ctrl+Z on the map.", self.undo)
        self.redo_button = push_button(
            "R&edo", "As Ctrl+Shift+Z on the map.", self.redo
        )
        self._paint = QGroupBox("Paint")
        form = form_layout(self._paint)
        for widget in (self.on_screen, self.brush_follows, self.show_slice):
            form.addRow(widget)
        form.addRow("Area", self.area)
        form.addRow(self.draw_button)
        form.addRow(self.take_button)
        form.addRow(_row(self.undo_button, self.redo_button))
        self.brush_follows.toggled.connect(self._on_dims)
        self.show_slice.toggled.connect(self._on_show_slice)
        return self._paint

    def _make_use(self) -> QGroupBox:
        self.save_button = push_button(
            "&Save map …",
            "As OME-TIFF, slices counted from 0, with the stack's pixel sizes.",
            self._ask_save,
        )
        self.target = Choice(
            "A stack of the same size, such as another channel, to fuse by this map."
        )
        self.one_time = QCheckBox("This time point's map for &all time points")
        self.one_time.setToolTip(
            "The map of the time point on screen decides for every one of the stack."
        )
        self.apply_button = push_button(
            "&Fuse by this map", "Add the stack fused by this map.", self.apply
        )
        self._use = QGroupBox("Use the map")
        form = form_layout(self._use)
        form.addRow(self.save_button)
        form.addRow("Other stack", self.target)
        form.addRow(self.one_time)
        form.addRow(self.apply_button)
        return self._use

    # What can be chosen

    @property
    def labels(self) -> Labels | None:
        """The map that is painted on; None before it begins."""
        return None if self.session is None else self.session.labels

    def reset_choices(self, event: Any = None) -> None:
        """List the layers anew; napari calls it whenever they change."""
        shapes = [one for one in self._viewer.layers if isinstance(one, Shapes)]
        self.layer.refresh()
        self.area.set_choices(
            [
                *((f"Drawn in {layer.name}", layer) for layer in shapes),
                ("Around the last click on the map", None),
            ]
        )
        self._list_targets()
        self._list_maps()
        self._on_dims()

    def _list_targets(self) -> None:
        targets = [one for one in self.layer.values if self._fits(one)]
        self.target.set_choices([(title_of(one), one) for one in targets])

    def _list_maps(self) -> None:
        maps: list[Layer] = []
        if self.layer.value is not None:
            stack, sources = stack_of(self.layer.value), self.layer.sources
            others = [one for one in self._viewer.layers if one not in sources]
            maps = [] if stack is None else maps_of(others, stack)
        self.map.set_choices([(layer.name, layer) for layer in maps])
        self.advice.setText(self._advice())
        self.advice.setVisible(bool(self.advice.text()))
        self._update_buttons()

    def _advice(self) -> str:
        if self.layer.value is not None and self.map.value is not None:
            return ""
        lost = self.layer.lost(self._viewer.layers)
        if lost:
            return lost
        if self.layer.value is None:
            return (
                "Open a focus stack: an image with slices along z. Or select the "
                "two-dimensional layers that are its slices."
            )
        return (
            "Fuse the stack first, with its decision map among the outputs, or load a "
            "map."
        )

    def _fits(self, source: Image | Sequence[Image]) -> bool:
        """Whether the map at hand can decide for a stack."""
        stack = stack_of(source)
        if self.session is None or stack is None:
            return False
        own = self.session.result.stack
        sizes = [(one.n_slices, one.height, one.width) for one in (own, stack)]
        return sizes[0] == sizes[1]

    def _update_buttons(self) -> None:
        super()._update_buttons()
        idle, session = self.idle, self.session
        self._begin.setEnabled(idle)
        self._paint.setEnabled(session is not None)
        self._use.setEnabled(idle and session is not None)
        self.start_button.setEnabled(self.map.value is not None)
        self.load_button.setEnabled(self.layer.value is not None)
        self.apply_button.setEnabled(self.target.value is not None)
        times = 1 if session is None else session.result.stack.n_times
        self.one_time.setVisible(times > 1)
        self.cancel_button.setVisible(not idle)

    # Runs

    def start(self) -> Any:
        """Begin to correct the chosen map.

        Returns
        -------
        FuseWorker
            Running; or None where that is not possible, which a notification says.
        """
        layer, map_layer = self.layer.value, self.map.value
        stack = None if layer is None else stack_of(layer, map_layer)
        if stack is None or map_layer is None:
            return self._complain(FocusFusionError(self._advice()))
        first = self.first.value
        first = first_of(map_layer) if first is None else first
        values = level_0(map_layer)
        fused = fused_of(self._viewer.layers, map_layer)
        pixels = None if fused is None else level_0(fused)
        options = _options_of(map_layer, stack)

        def job(progress: Any, should_stop: Any) -> Any:
            from napari_focus_fusion.retouch import as_decision

            decision = as_decision(values, stack, first=first)
            told = {"progress": progress, "should_stop": should_stop}
            return begin(stack, decision, pixels, **options, **told)

        def then(begun: tuple[FusionResult, list[LayerData]]) -> None:
            self._begin_with(layer, options, *begun)

        return self._run(job, then, f"Preparing {stack.name!r}")

    def load_map(self, path: str | Path) -> Any:
        """Begin with a map from a file; where one is at hand, replace what is in it.

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
        stack = None if layer is None else stack_of(layer)
        if session is not None:
            stack = session.result.stack
        if stack is None:
            return self._complain(FocusFusionError(self._advice()))

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
        """Fuse the chosen other stack by the map as it is now.

        Returns
        -------
        FuseWorker
            Running; or None where that is not possible, which a notification says.
        """
        layer, session = self.target.value, self.session
        stack = None if layer is None else stack_of(layer)
        if session is None or stack is None:
            text = "Begin with a map, and choose a stack of the same size."
            return self._complain(FocusFusionError(text))
        decision = session.decision()
        other_times = stack.n_times != session.result.stack.n_times
        if decision.ndim == 3 and (self.one_time.isChecked() or other_times):
            decision = decision[session.time()]
        blend = session.options.get("blend", "feather")

        def job(progress: Any, should_stop: Any) -> list[LayerData]:
            from napari_focus_fusion.fusion import fuse

            told = {"progress": progress, "should_stop": should_stop}
            result = fuse(stack, decision=decision, blend=blend, **told)
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
        # The new fused image takes the place of others of this stack.
        fused = {"output": "fused", "source": result.stack.source}
        for layer in self._viewer.layers:
            if fused.items() <= about(layer).items():
                layer.visible = False
        added = self._add(layers)
        session = Follower(self._viewer, source, result, added, options)
        session.followed.connect(self.followed)
        session.failed.connect(self._complain)
        session.unknown_label.connect(self._on_unknown_label)
        session.slice_shown.connect(self._on_dims)
        self.session = session
        self._list_targets()
        session.labels.mode = "paint"
        self._viewer.layers.selection.active = session.labels
        self._on_show_slice()
        self._on_dims()

    def finish(self) -> None:
        """Stop following; the layers stay as they are."""
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
        if self.brush_follows.isChecked():
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
        session, alone = self.session, self.show_slice.isChecked()
        if session is None:
            return
        for layer in session.fused:
            layer.visible = not alone
        if alone:
            session.show_slices()

    def draw(self) -> None:
        """Add a layer of shapes and choose it, ready to draw an area."""
        if self.labels is None:
            return
        shapes = Shapes(
            ndim=2,
            name="Area",
            scale=self.labels.scale[-2:],
            translate=self.labels.translate[-2:],
            units=self.labels.units[-2:],
            axis_labels=self.labels.axis_labels[-2:],
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
                self.take_area(drawn_area(shapes, session.labels))
        except FocusFusionError as error:
            self._complain(error)

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
        """Whether the fused image shows all that was painted."""
        return self.session is None or self.session.caught_up

    def undo(self) -> None:
        """Take back the last stroke or area."""
        if self.labels is not None:
            self.labels.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        if self.labels is not None:
            self.labels.redo()

    # Keeping

    def decision(self) -> NDArray[Any]:
        """The map as it is painted now, slices counted from 0, axes (T,) Y, X.

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

    def _begun(self) -> Follower:
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
            self._complain(error)

    def _ask_load(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Load map", "", _TIFF)
        if name:
            self.load_map(name)


def _options_of(map_layer: Layer, stack: FocusStack) -> dict[str, Any]:
    """What the fusion that the map came from was told."""
    parameters = about(map_layer).get("parameters", {})
    reference = parameters.get("reference")
    try:
        stack.reference_weights(reference)
    except FocusFusionError:  # another layer decided
        reference = None
    return {"blend": parameters.get("blend", "feather"), "reference": reference}


def _row(*widgets: QWidget) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return row
