"""A form that scrolls vertically."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QFrame,
    QLayout,
    QScrollArea,
    QWidget,
)

_WIDTH_MAY_CHANGE = (
    QEvent.Type.LayoutRequest,
    QEvent.Type.Resize,
    QEvent.Type.Show,
    QEvent.Type.StyleChange,
)


class FitWidthScrollArea(QScrollArea):
    """Scrolls vertically where the window is low, and is as wide as its content.

    The mouse wheel scrolls: it changes no field that has not been clicked.
    """

    def __init__(self, page: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(page)
        for kind in (QComboBox, QAbstractSpinBox):
            for field in page.findChildren(kind):
                field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                field.installEventFilter(self)

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Grow with the page: styles and rows that appear make it wider."""
        if isinstance(watched, QComboBox | QAbstractSpinBox):
            if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
                event.ignore()  # the scroll area gets it
                return True
            return super().eventFilter(watched, event)
        if event.type() == QEvent.Type.Show:
            # Lay out again: the style and font were not known before.
            for layout in watched.findChildren(QLayout):
                layout.invalidate()
        if event.type() in _WIDTH_MAY_CHANGE:
            bar = self.verticalScrollBar()
            beside = bar.sizeHint().width() if bar else 0
            self.setMinimumWidth(watched.minimumSizeHint().width() + beside)
        return super().eventFilter(watched, event)
