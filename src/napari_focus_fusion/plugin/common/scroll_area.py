"""A form that scrolls up and down."""

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


class Tall(QScrollArea):
    """Scrolls up and down where the window is low, and is as wide as it must be.

    The wheel scrolls: it chooses nothing in a field that has not been clicked.
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
                event.ignore()  # then it goes on to what scrolls
                return True
            return super().eventFilter(watched, event)
        if event.type() == QEvent.Type.Show:
            # What was laid out before it had its style and font is laid out again.
            for layout in watched.findChildren(QLayout):
                layout.invalidate()
        if event.type() in _WIDTH_MAY_CHANGE:
            bar = self.verticalScrollBar()
            beside = bar.sizeHint().width() if bar else 0
            self.setMinimumWidth(watched.minimumSizeHint().width() + beside)
        return super().eventFilter(watched, event)
