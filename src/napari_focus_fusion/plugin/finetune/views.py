"""What is seen of a fine-tuning while it runs: a plot, and pictures side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from qtpy.QtGui import QPaintEvent

    from napari_focus_fusion.plugin.adapters.finetuning import Look

# Told apart on dark and on light, and by those who see no red or green.
_LOSS, _HELD_BACK = QColor("#3b8bd0"), QColor("#e0883a")
_MARGIN = 8
# More of them than a plot has columns only take time to draw.
_POINTS = 1000


class LossPlot(QWidget):
    """Loss and held-back error against the step, each on a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Against the step, each on a scale of its own, lower is better.\n"
            "Blue: the loss that training minimises. It jumps, as each step sees\n"
            "other patches.\n"
            "Orange: the error on one half of what is held back. The state with the\n"
            "least of it is kept. The verdict is the error on the other half."
        )
        self.setAccessibleName("Loss and held-back error against the step")
        self.rows: Sequence[dict[str, float]] = ()
        self.steps = 1

    def sizeHint(self) -> QSize:
        """Wide, and not high."""
        return QSize(260, 150)

    def show_rows(self, rows: Sequence[dict[str, float]], steps: int) -> None:
        """Draw a history; `steps` is where the axis ends, if rows do not go beyond."""
        self.rows, self.steps = rows, max(steps, 1)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        line = painter.fontMetrics().height()
        area = QRectF(self.rect()).adjusted(
            _MARGIN, line + _MARGIN, -_MARGIN, -line - _MARGIN
        )
        faint = QColor(text)
        faint.setAlphaF(0.3)
        painter.setPen(QPen(faint, 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        last = max([self.steps, *(int(row["step"]) for row in self.rows)])
        below = QRectF(area.left(), area.bottom() + 2, area.width(), line)
        painter.setPen(text)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "step 0")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, str(last))
        above = QRectF(area.left(), _MARGIN / 2, area.width(), line)
        for name, title, colour, side in (
            ("loss", "loss", _LOSS, Qt.AlignmentFlag.AlignLeft),
            ("held_back", "held-back error", _HELD_BACK, Qt.AlignmentFlag.AlignRight),
        ):
            values = [(r["step"], r[name]) for r in self.rows if name in r]
            number = f" {values[-1][1]:.3g}" if values else ""
            painter.setPen(colour)
            painter.drawText(above, side, title + number)
            points = _points(values[:: 1 + len(values) // _POINTS], last, area)
            width = 1.0 if name == "loss" else 2.0
            painter.setPen(QPen(colour, width))
            painter.drawPolyline(QPolygonF(points))
            if name == "held_back":
                painter.setBrush(colour)
                for point in points:
                    painter.drawEllipse(point, 3, 3)
        painter.end()


def _points(
    values: Sequence[tuple[float, float]], last: int, area: QRectF
) -> list[QPointF]:
    """Where values lie that fill an area from bottom to top."""
    if not values:
        return []
    low = min(value for _, value in values)
    span = max(value for _, value in values) - low
    return [
        QPointF(
            area.left() + area.width() * step / last,
            area.bottom() - area.height() * ((value - low) / span if span else 0.5),
        )
        for step, value in values
    ]


class BeforeAfter(QWidget):
    """A field, fused by the parent and by the tuned model, and their decision maps."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(160)
        self.setToolTip(
            "The middle of the view, fused.\n"
            "Left: by the parent. Right: by the model as it is now.\n"
            "Below: which slice each pixel came from, from the first (dark) to the\n"
            "last (bright)."
        )
        self.setAccessibleName("One field before and after fine-tuning")
        self.titles = ("", "")
        self._images: list[list[QImage]] = []

    def sizeHint(self) -> QSize:
        """Two by two squares and a line of text."""
        return QSize(260, 280)

    def clear(self) -> None:
        """Show nothing."""
        self._images = []
        self.update()

    def show_look(self, look: Look, titles: tuple[str, str]) -> None:
        """Show what is seen now, with a title over each column."""
        self.titles = titles
        self._images = [_as_images(look.fused, 0.3), _as_images(look.decisions, 0.0)]
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        metrics = painter.fontMetrics()
        line, gap = metrics.height() + 4, 4
        painter.setPen(self.palette().color(self.foregroundRole()))
        if not self._images:
            painter.drawText(
                self.rect(),
                int(Qt.AlignmentFlag.AlignCenter) | int(Qt.TextFlag.TextWordWrap),
                "Pictures of one field come here while it learns.",
            )
            painter.end()
            return
        width = (self.width() - gap) / 2
        height = (self.height() - line - gap) / 2
        first = self._images[0][0]
        zoom = min(width / first.width(), height / first.height())
        shown = QSize(int(first.width() * zoom), int(first.height() * zoom))
        left = (self.width() - 2 * shown.width() - gap) / 2
        for column, title in enumerate(self.titles):
            x = left + column * (shown.width() + gap)
            words = metrics.elidedText(
                title, Qt.TextElideMode.ElideMiddle, shown.width()
            )
            painter.drawText(QRectF(x, 0, shown.width(), line), 0, words)
            for row, images in enumerate(self._images):
                y = line + row * (shown.height() + gap)
                place = QRectF(x, y, shown.width(), shown.height())
                painter.drawImage(place, images[column])
        painter.end()


def _as_images(pictures: Sequence[NDArray[Any]], cut: float) -> list[QImage]:
    """Pictures in the greys or colours of one scale; percent `cut` at both its ends."""
    low, high = np.percentile(np.stack(pictures), (cut, 100 - cut))
    images = []
    for picture in pictures:
        share = (picture.astype(np.float32) - low) / max(high - low, 1e-9)
        levels = np.ascontiguousarray((share.clip(0, 1) * 255).astype(np.uint8))
        height, width = levels.shape[:2]
        kind = QImage.Format.Format_Grayscale8
        if levels.ndim == 3:
            kind = QImage.Format.Format_RGB888
        stride = levels.strides[0]
        image = QImage(levels.tobytes(), width, height, stride, kind)
        images.append(image.copy())  # it does not own those bytes
    return images
