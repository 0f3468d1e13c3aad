"""The widget *Focus fusion quality*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QFileDialog,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
)

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.plugin.adapters.layers import name_of
from napari_focus_fusion.plugin.adapters.maps import maps_of
from napari_focus_fusion.plugin.adapters.quality import (
    fused_images,
    map_of,
    report_job,
    stack_fused_as,
    stack_like,
    time_shown,
)
from napari_focus_fusion.plugin.common.combo_boxes import (
    ValueComboBox,
    form_layout,
    push_button,
    side_by_side,
    wrapped_label,
)
from napari_focus_fusion.plugin.common.job_widget import JobWidget
from napari_focus_fusion.plugin.common.stack_fields import StackComboBox
from napari_focus_fusion.plugin.report.chart import Chart

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari

    from napari_focus_fusion.report import Report

_ADVICE = "Open a focus stack and fuse it first."


class ReportWidget(JobWidget):
    """Measure the quality of a fused image against its stack; docked by napari.

    From a script: set the ``value`` of ``fused``, ``layer`` and ``decision``, call
    :meth:`run` and wait for ``ended``; then read ``report``, or call
    ``report.save_csv`` and ``report.save_png``.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        #: Report of the last run; None before it.
        self.report: Report | None = None

        self.fused = ValueComboBox("The fused image to be judged.")
        self.layer = StackComboBox(
            "The focus stack that it was made of: a layer with slices, or the\n"
            "two-dimensional ones that are selected in the layer list, a slice each.",
            napari_viewer,
        )
        self.decision = ValueComboBox(
            "The decision map that belongs to it: from which slice each pixel came."
        )
        form = form_layout()
        form.addRow("Fused image", self.fused)
        form.addRow("Stack", self.layer)
        form.addRow("Decision map", self.decision)
        self.run_button = push_button(
            "&Measure",
            "Takes some seconds; large images are measured in part.",
            self.run,
        )
        self.chart = Chart()
        self.verdict = wrapped_label()
        self.table = QTreeWidget()
        self.table.setHeaderLabels(["", "Value"])
        self.table.setToolTip(
            "Without a true image no number tells the quality for sure: compare fused "
            "images of one stack, and look at them."
        )
        self.csv_button = push_button("Save CS&V …", "All numbers.", self._ask_csv)
        self.png_button = push_button(
            "Save &PNG …", "Histogram and text.", self._ask_png
        )

        self.advice = wrapped_label()
        layout = QVBoxLayout(self)
        layout.addWidget(self.advice)
        layout.addLayout(form)
        layout.addLayout(side_by_side(self.run_button, self.cancel_button))
        for widget in (self.progress, self.status, self.chart, self.verdict):
            layout.addWidget(widget)
        layout.addWidget(self.table, 1)
        layout.addLayout(side_by_side(self.csv_button, self.png_button))

        self.fused.changed.connect(self._follow)
        self.layer.changed.connect(self._list_maps)
        self.reset_choices()

    # Available values

    def reset_choices(self, event: Any = None) -> None:
        """List the layers again; napari calls it whenever they change."""
        layers = self._viewer.layers
        self.fused.set_choices([(one.name, one) for one in fused_images(layers)])
        self.layer.refresh()
        self._follow()

    def _follow(self) -> None:
        """Choose the stack and the map that belong to the fused image."""
        fused = self.fused.value
        stack = None if fused is None else stack_like(self.layer.values, fused)
        if stack is not None:
            self.layer.value = stack
        self._list_maps()

    def _list_maps(self) -> None:
        fused, layer, layers = self.fused.value, self.layer.value, self._viewer.layers
        stack = None
        if fused is not None and layer is not None:
            stack = stack_fused_as(layer, fused)
        others = [one for one in layers if one not in self.layer.sources]
        maps = [] if stack is None else maps_of(others, stack)
        own = None if fused is None else map_of(layers, fused, "decision")
        self.decision.set_choices(
            [*((one.name, one) for one in maps), ("None", None)],
            own if own in maps else None,
        )
        self._update_buttons()

    def _update_buttons(self) -> None:
        super()._update_buttons()
        fused = self.fused.value
        ready = fused is not None and self.layer.value is not None
        for field in (self.fused, self.layer, self.decision):
            field.setEnabled(self.idle)
        self.run_button.setEnabled(self.idle and ready)
        for button in (self.csv_button, self.png_button):
            button.setEnabled(self.report is not None)
        lost = self.layer.lost([fused])
        self.advice.setText(lost or ("" if ready else _ADVICE))
        self.advice.setVisible(bool(self.advice.text()))

    # Running

    def run(self) -> Any:
        """Measure the chosen fused image.

        Returns
        -------
        FuseWorker
            Running; or None where that is not possible, with a notification.
        """
        if not self.idle:
            return None
        fused, layer, layers = self.fused.value, self.layer.value, self._viewer.layers
        try:
            if fused is None or layer is None:
                raise FocusFusionError(_ADVICE)
            confidence = map_of(layers, fused, "confidence")
            t = time_shown(layer, fused, self._viewer.dims.point)
            job = report_job(layer, fused, self.decision.value, confidence, t=t)
        except FocusFusionError as error:
            return self._show_error(error)
        return self._run(job, self._show, f"Measuring {fused.name!r}")

    def _stack_name(self) -> str:
        return "" if self.layer.value is None else name_of(self.layer.value)

    def _show(self, found: Report) -> None:
        self.report = found
        self.status.setText(f"{found.name}: {found.holds}")
        self.chart.show_report(found)
        self.verdict.setText("\n\n".join(found.verdict))
        self.table.clear()
        sections: dict[str, QTreeWidgetItem] = {}
        for section, name, value in found.rows():
            if section in ("stack", "verdict"):
                continue
            if section not in sections:
                top = QTreeWidgetItem(self.table, [section.capitalize()])
                top.setExpanded(section == "measures")
                sections[section] = top
            row = QTreeWidgetItem(sections[section], [name, value])
            row.setToolTip(1, value)
        self.table.resizeColumnToContents(0)

    def _ask_csv(self) -> None:
        self._ask("Save numbers", ".csv", "CSV (*.csv)")

    def _ask_png(self) -> None:
        self._ask("Save report", ".png", "PNG (*.png)")

    def _ask(self, title: str, ending: str, kinds: str) -> None:
        name, _ = QFileDialog.getSaveFileName(self, title, "", kinds)
        if not name or self.report is None:
            return
        if not name.lower().endswith(ending):
            name += ending
        save: Callable[..., Path] = self.report.save_csv
        if ending == ".png":
            save = self.report.save_png
        try:
            self.status.setText(f"Saved {save(name, overwrite=True)}.")
        except FocusFusionError as error:
            self._show_error(error)
