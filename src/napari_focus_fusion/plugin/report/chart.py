"""A histogram of the decision map of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent
from qtpy.QtGui import QImage, QPainter, QPalette
from qtpy.QtWidgets import QToolTip, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QHelpEvent, QPaintEvent

    from napari_focus_fusion.report import Report


class Chart(QWidget):
    """Histogram of the decision map, in the colours of the window."""

    def __init__(self) -> None:
        super().__init__()
        self._report: Report | None = None
        self.setMinimumHeight(150)
        self.setAccessibleName("Histogram of the decision map")
        self.setVisible(False)

    def show_report(self, found: Report) -> None:
        """Draw the histogram of a report; nothing where it has no decision map."""
        self._report = found
        self.setVisible(bool(found.share))
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw at the screen's resolution."""
        if self._report is None:
            return
        from napari_focus_fusion.report import histogram

        ratio = self.devicePixelRatioF()
        palette = self.palette()
        ink, paper = (
            palette.color(role).getRgb()[:3]
            for role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Window)
        )
        pixels = histogram(
            self._report,
            max(round(self.width() * ratio), 1),
            max(round(self.height() * ratio), 1),
            ink=ink,
            paper=paper,
            size=round(12 * ratio),
        )
        height, width = pixels.shape[:2]
        image = QImage(
            pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888
        )
        image.setDevicePixelRatio(ratio)
        painter = QPainter(self)
        painter.drawImage(0, 0, image)
        painter.end()

    def event(self, event: QEvent | None) -> bool:
        """Show the numbers of the slice under the mouse."""
        if (
            event is not None
            and event.type() == QEvent.Type.ToolTip
            and self._report is not None
        ):
            self._show_tooltip(event)  # type: ignore[arg-type]
            return True
        return super().event(event)

    def _show_tooltip(self, event: QHelpEvent) -> None:
        from napari_focus_fusion.report import slice_at

        assert self._report is not None
        z = slice_at(self._report, event.pos().x(), self.width(), size=12)
        text = ""
        if z is not None:
            found = self._report
            text = (
                f"Slice {z}: {found.share[z]:.1%} of all pixels, "
                f"{found.clear_share[z]:.1%} of the clear ones"
            )
        QToolTip.showText(event.globalPos(), text, self)
