"""The form of the widget *Retouch focus fusion*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Shapes
from qtpy.QtWidgets import QGroupBox, QVBoxLayout

from napari_focus_fusion.plugin.adapters.maps import maps_of
from napari_focus_fusion.plugin.adapters.sources import stack_of
from napari_focus_fusion.plugin.common.combo_boxes import (
    ValueComboBox,
    form_layout,
    push_button,
    side_by_side,
    wrapped_label,
)
from napari_focus_fusion.plugin.common.fields import CheckField
from napari_focus_fusion.plugin.common.job_widget import JobWidget
from napari_focus_fusion.plugin.common.stack_fields import StackComboBox, title_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Image, Labels, Layer

    from napari_focus_fusion.plugin.retouch.live_recomposer import LiveRecomposer

_OF_FLAT = (
    "Where each slice is a layer of its own, it is the topmost of those that are\n"
    "visible. Select one in the layer list, and it alone of them is visible."
)


class RetouchForm(JobWidget):
    """Fields for stack, map and area, and buttons without their actions.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        #: Updates the fused image while painting; None before retouching begins.
        self.session: LiveRecomposer | None = None
        layout = QVBoxLayout(self)
        for box in (self._make_begin(), self._make_paint(), self._make_use()):
            layout.addWidget(box)
        for widget in (self.progress, self.cancel_button, self.status):
            layout.addWidget(widget)
        layout.addStretch()
        self.layer.changed.connect(self._list_targets)
        self.layer.changed.connect(self._list_maps)

    def _make_begin(self) -> QGroupBox:
        self.layer = StackComboBox(
            "The focus stack that the map is of: a layer with slices, or the\n"
            "two-dimensional ones that are selected in the layer list, a slice each.",
            self._viewer,
        )
        self.map = ValueComboBox(
            "The decision map to correct: one that a fusion gave, or any labels or "
            "image that holds the index of a slice at each pixel."
        )
        self.first = ValueComboBox(
            "How the map calls the first slice. Maps of Focus Fusion count from 0.",
            [("Find out", None), ("Slice 0", 0), ("Slice 1", 1)],
        )
        self.start_button = push_button(
            "&Begin",
            "Add the map as labels to paint on, and the fused image that follows.",
        )
        self.load_button = push_button(
            "&Load map …",
            "Begin with a map from a file, or replace the one at hand by it.",
        )
        self._begin = QGroupBox("Begin")
        self.advice = wrapped_label()
        form = form_layout(self._begin)
        form.addRow(self.advice)
        form.addRow("Stack", self.layer)
        form.addRow("Decision map", self.map)
        form.addRow("First slice is", self.first)
        form.addRow(side_by_side(self.start_button, self.load_button))
        return self._begin

    def _make_paint(self) -> QGroupBox:
        self.on_screen = wrapped_label()
        self.brush_follows = CheckField("B&rush paints the slice on screen")
        self.brush_follows.setToolTip(
            "Moving the z slider also chooses the label: what is painted is taken from "
            "the slice that is shown.\n" + _OF_FLAT
        )
        self.show_slice = CheckField("S&how the slice, not the fused image")
        self.show_slice.setToolTip("To see what would be taken from it.")
        self.area = ValueComboBox(
            "Which area to take: the shapes that are drawn (the selected ones, if any "
            "are), or the pixels of one label around where the map was clicked last."
        )
        self.draw_button = push_button(
            "&Draw an area", "Add a layer of shapes, and draw with the mouse."
        )
        self.take_button = push_button(
            "&Take area from the slice on screen",
            "The fused image gets the pixels of the slice shown. Can be undone.\n"
            + _OF_FLAT,
        )
        self.undo_button = push_button("&Undo", "As Ctrl+Z on the map.")
        self.redo_button = push_button("R&edo", "As Ctrl+Shift+Z on the map.")
        self._paint = QGroupBox("Paint")
        form = form_layout(self._paint)
        for widget in (self.on_screen, self.brush_follows, self.show_slice):
            form.addRow(widget)
        form.addRow("Area", self.area)
        form.addRow(self.draw_button)
        form.addRow(self.take_button)
        form.addRow(side_by_side(self.undo_button, self.redo_button))
        return self._paint

    def _make_use(self) -> QGroupBox:
        self.save_button = push_button(
            "&Save map …",
            "As OME-TIFF, slices counted from 0, with the stack's pixel sizes.",
        )
        self.target = ValueComboBox(
            "A stack of the same size, such as another channel, to fuse by this map."
        )
        self.one_time = CheckField("This time point's map for &all time points")
        self.one_time.setToolTip(
            "The map of the time point on screen decides for every one of the stack."
        )
        self.apply_button = push_button(
            "&Fuse by this map", "Add the stack fused by this map."
        )
        self._use = QGroupBox("Use the map")
        form = form_layout(self._use)
        form.addRow(self.save_button)
        form.addRow("Other stack", self.target)
        form.addRow(self.one_time)
        form.addRow(self.apply_button)
        return self._use

    # Available values

    @property
    def labels(self) -> Labels | None:
        """The map that is painted on; None before retouching begins."""
        return None if self.session is None else self.session.labels

    def reset_choices(self, event: Any = None) -> None:
        """List the layers again; napari calls it whenever they change."""
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

    def _list_targets(self) -> None:
        targets = [one for one in self.layer.values if self._fits(one)]
        self.target.set_choices([(title_of(one), one) for one in targets])

    def _list_maps(self) -> None:
        maps: list[Layer] = []
        if self.layer.value is not None:
            stack, sources = stack_of(self.layer.value), self.layer.sources
            others = [one for one in self._viewer.layers if one not in sources]
            if stack is None:  # it does not say which axis is which; its results do
                known = {one: stack_of(self.layer.value, one) for one in others}
                others = [one for one in others if known[one] is not None]
                stack = known[others[-1]] if others else None
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
        """Whether the current map fits a stack."""
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
