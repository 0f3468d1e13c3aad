"""Parent and tuned model side by side: during training, and as layers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QImage, QPainter
from qtpy.QtWidgets import QWidget

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.fine_tuned import read_header
from napari_focus_fusion.plugin.adapters.finetuning import (
    CompareJob,
    compare_job,
    region_in_view,
)
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.plugin.adapters.preview import camera_of, index_on_screen

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import napari
    from numpy.typing import NDArray
    from qtpy.QtGui import QPaintEvent

    from napari_focus_fusion.models.registry import ModelSpec
    from napari_focus_fusion.plugin.adapters.finetuning import Validation
    from napari_focus_fusion.plugin.finetune.settings import FineTuneSettings
    from napari_focus_fusion.result import LayerData


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

    def show_validation(self, validation: Validation, titles: tuple[str, str]) -> None:
        """Show the images of a validation, with a title over each column."""
        self.titles = titles
        self._images = [
            _as_qimages(validation.fused, 0.3),
            _as_qimages(validation.decisions, 0.0),
        ]
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


def _as_qimages(arrays: Sequence[NDArray[Any]], clip: float) -> list[QImage]:
    """Images on one intensity scale; `clip` percent saturate at each end."""
    low, high = np.percentile(np.stack(arrays), (clip, 100 - clip))
    images = []
    for array in arrays:
        share = (array.astype(np.float32) - low) / max(high - low, 1e-9)
        levels = np.ascontiguousarray((share.clip(0, 1) * 255).astype(np.uint8))
        height, width = levels.shape[:2]
        kind = QImage.Format.Format_Grayscale8
        if levels.ndim == 3:
            kind = QImage.Format.Format_RGB888
        stride = levels.strides[0]
        image = QImage(levels.tobytes(), width, height, stride, kind)
        images.append(image.copy())  # it does not own those bytes
    return images


def parent_and_child(
    spec: ModelSpec | None, known: Container[str]
) -> tuple[str, str] | None:
    """Names of a tuned model's parent and of itself, if both are there.

    Parameters
    ----------
    spec
        Entry of the model; None: no model is chosen.
    known
        Names of the available models.
    """
    if spec is None or not spec.base or not Path(spec.weights).is_file():
        return None
    with suppress(FocusFusionError):
        parent = read_header(Path(spec.weights)).get("parent", "")
        return (parent, spec.name) if parent in known else None
    return None


def compare_in_view(
    viewer: napari.Viewer, settings: FineTuneSettings, pair: tuple[str, str]
) -> CompareJob:
    """Comparison of two models on the region in view of the first ticked stack.

    Raises
    ------
    FocusFusionError
        If the view is in 3-D, nothing of the stack is in it, or it cannot be fused.
    """
    layer = settings.stacks.value[0]
    axes = settings.stacks.known_axes_of(layer)
    return compare_job(
        layer,
        *pair,
        axes=axes,
        region=region_in_view(viewer, layer, axes),
        time=index_on_screen(layer, axes, viewer).get("T"),
        folder=models_folder(),
        reference=settings.reference.value,
        device=settings.device.value,
    )


def show_side_by_side(viewer: napari.Viewer, layers: Sequence[LayerData]) -> None:
    """Add the layers of a comparison, and move the camera to show both images."""
    added = [Layer.create(*data) for data in layers]
    for layer in added:
        viewer.add_layer(layer)
    shown = [layer for layer in added if layer.visible]
    extents = [layer.extent.world[:, -2:] for layer in shown]
    middle = (extents[0][0] + extents[-1][1]) / 2
    camera = camera_of(viewer)
    camera.center = (*camera.center[:-2], *middle)
    camera.zoom /= 2
    viewer.layers.selection.active = shown[-1]
