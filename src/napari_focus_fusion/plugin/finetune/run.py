"""Progress of a fine-tuning: loss plot, example images, verdict."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_focus_fusion.plugin.common.combo_boxes import wrapped_label
from napari_focus_fusion.plugin.finetune.compare import BeforeAfter
from napari_focus_fusion.progress import duration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from qtpy.QtGui import QPaintEvent

    from napari_focus_fusion.plugin.adapters.finetuning import FineTuneJob, Validation
    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.training.finetune import FineTuneResult

# Distinguishable on dark and light backgrounds, and with colour blindness.
_LOSS, _VALIDATION = QColor("#3b8bd0"), QColor("#e0883a")
_MARGIN = 8
# Most points to draw: more than a plot has columns take time for nothing.
_POINTS = 1000


class LossPlot(QWidget):
    """Loss and validation error against the step, each on a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Against the step, each on a scale of its own, lower is better.\n"
            "Blue: the loss that training minimises. It jumps, as each step sees\n"
            "other patches.\n"
            "Orange: the error on one half of the validation part. The state with the\n"
            "least of it is kept. The verdict is the error on the other half."
        )
        self.setAccessibleName("Loss and validation error against the step")
        self.rows: Sequence[dict[str, float]] = ()
        self.steps = 1

    def sizeHint(self) -> QSize:
        """Wide, and not high."""
        return QSize(260, 150)

    def show_rows(self, rows: Sequence[dict[str, float]], steps: int) -> None:
        """Draw a history; the axis ends at `steps`, or at the last row if later."""
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
            (
                "validation",
                "validation error",
                _VALIDATION,
                Qt.AlignmentFlag.AlignRight,
            ),
        ):
            values = [(r["step"], r[name]) for r in self.rows if name in r]
            number = f" {values[-1][1]:.3g}" if values else ""
            painter.setPen(colour)
            painter.drawText(above, side, title + number)
            points = _points(values[:: 1 + len(values) // _POINTS], last, area)
            width = 1.0 if name == "loss" else 2.0
            painter.setPen(QPen(colour, width))
            painter.drawPolyline(QPolygonF(points))
            if name == "validation":
                painter.setBrush(colour)
                for point in points:
                    painter.drawEllipse(point, 3, 3)
        painter.end()


def _points(
    values: Sequence[tuple[float, float]], last: int, area: QRectF
) -> list[QPointF]:
    """Points of a curve scaled to the height of an area."""
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


class TrainingPage(QWidget):
    """Progress and result of a training.

    Attributes
    ----------
    verdict, plot, images
        Its widgets.
    rows
        The history so far, a row a step.
    seconds_a_step
        Measured in this run; None before its second step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.verdict, self.plot = wrapped_label(), LossPlot()
        self.images = BeforeAfter()
        self.rows: list[dict[str, float]] = []
        self.seconds_a_step: float | None = None
        self._parent_name = ""
        self._steps = 0
        self._began: tuple[float, float] | None = None
        layout = QVBoxLayout(self)
        layout.addWidget(self.verdict)
        layout.addWidget(self.plot)
        layout.addWidget(self.images, 1)

    def clear(self) -> None:
        """Remove the history and images of the previous run."""
        self.rows = []
        self.images.clear()

    def begin(self, job: FineTuneJob) -> None:
        """Prepare to show the progress of a job."""
        self._parent_name = job.model
        self._steps = job.options.get("steps", 0)
        self._began = self.seconds_a_step = None
        self.verdict.clear()

    def show_row(self, row: dict[str, float]) -> None:
        """Show a step, and measure how long steps take."""
        self.rows.append(row)
        self.plot.show_rows(self.rows, self._steps)
        now, step = time.monotonic(), row["step"]
        if self._began is None:
            self._began = (now, step)
        elif step > self._began[1]:
            began, first = self._began
            self.seconds_a_step = (now - began) / (step - first)

    def show_validation(self, validation: Validation) -> None:
        """Show a field fused at a validation."""
        step = int(self.rows[-1]["step"]) + 1 if self.rows else 0
        titles = (f"Parent: {self._parent_name}", f"Step {step}")
        self.images.show_validation(validation, titles)

    def status_text(self, progress: Progress) -> str:
        """Progress in one line."""
        words = [progress.stage]
        if self.rows and progress.stage == "Training":
            of_steps = f" of {self._steps}" if self._steps else ""
            words.append(f"step {self.rows[-1]['step']:.0f}{of_steps}")
        if progress.seconds_left is not None:
            words.append(f"{duration_text(progress.seconds_left)} left")
        return ", ".join(words)

    def show_result(self, result: FineTuneResult, name: str) -> str:
        """Show the result, and return it as text.

        Parameters
        ----------
        result
            The result of the run.
        name
            Name of the tuned model.
        """
        self.plot.show_rows(result.history, int(result.history[-1]["step"]))
        text = result.verdict
        if result.better:
            text += f" It is in all lists of models as {name!r}."
        if result.stopped == "asked":
            text += " Resume goes on where it was stopped."
        self.verdict.setText(text)
        return text


def stoppable(job: FineTuneJob, stop: Event) -> Callable[..., FineTuneResult]:
    """A job that ends early once `stop` is set, with the best state so far."""

    def run(
        progress: Callable[[Any], None], should_stop: Callable[[], bool]
    ) -> FineTuneResult:
        return job(progress, lambda: stop.is_set() or should_stop())

    return run
