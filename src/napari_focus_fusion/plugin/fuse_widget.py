"""The widget *Fuse focus stack*."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Layer
from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QEvent, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import create_worker

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models import DEFAULT_MODEL, models
from napari_focus_fusion.plugin.layers import (
    METADATA,
    chosen_layers,
    covers,
    guess_axes,
    level_0,
    stack_from_layer,
)
from napari_focus_fusion.plugin.worker import FuseJob, explain, make_worker

if TYPE_CHECKING:
    from collections.abc import Iterable

    import napari

    from napari_focus_fusion.plugin.worker import FuseWorker
    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import FusionResult

_OUTPUTS = (
    ("fused", "Fused image", "All in focus: each pixel from its sharpest slice."),
    ("decision", "Decision map", "The slice that each pixel came from, from 0."),
    ("depth", "Depth map", "Height of each pixel, in the unit of the z axis."),
    ("confidence", "Confidence", "How clear the choice of the slice was, 0 to 1."),
)
_CHECKED = ("fused", "decision")
_BLENDS = (
    ("Feather: soft seams", "feather"),
    ("Select: observed pixels", "select"),
)
_KEEP = object()
_SYMBOLS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "px"}


class FuseWidget(QWidget):
    """Fuse an image layer of the viewer; docked by napari.

    From a script: set the ``value`` of ``layer``, ``z_axis``, ``other_axes``,
    ``reference``, ``model``, ``blend`` and ``device``, call ``smoothness.setValue``,
    tick ``outputs["depth"]`` and so on, and call :meth:`run`.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen, and where results go.
    """

    #: A run has ended, in whatever way, and its layers are in.
    ended = Signal()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._machine: Machine | None = None
        self._worker: FuseWorker | None = None
        self._source: Any = None
        self._started = 0.0
        self._make_form()
        self._make_foot()
        layout = QVBoxLayout(self)
        layout.addLayout(self._form)
        layout.addSpacing(4)
        layout.addLayout(self._foot)
        layout.addStretch()

        self.layer.changed.connect(self._list_axes)
        self.z_axis.changed.connect(self._list_other_axes)
        self.other_axes.changed.connect(self._list_references)
        self.model.changed.connect(self._describe_model)
        for box in self.outputs.values():
            box.toggled.connect(self._update_buttons)
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        napari_viewer.layers.selection.events.active.connect(self._follow)

        self._describe_model()
        self._list_axes()
        self.reset_choices()
        self._follow()
        # Finding the graphics cards means loading torch, which takes seconds.
        create_worker(
            look_at_machine,
            _connect={"returned": self._on_machine, "errored": self._on_no_machine},
        )

    def _make_form(self) -> None:
        self.layer = Choice("The image layer to fuse: slices along a z axis.")
        self.z_axis = Choice(
            "The axis along which the focus changes. Guessed from the axis labels, or "
            "from the shape of the layer."
        )
        self.other_axes = Choice("What the remaining axes of the layer are.")
        self.reference = Choice(
            "Where sharpness is looked for. The choice made there is applied to all "
            "channels."
        )
        self.model = Choice("What judges how sharp each pixel of each slice is.")
        self.smoothness = QDoubleSpinBox()
        self.smoothness.setRange(0, 10)
        self.smoothness.setSingleStep(0.5)
        self.smoothness.setDecimals(1)
        self.smoothness.setValue(1)
        self.smoothness.setToolTip(
            "How much the surroundings of a pixel have a say in its decision.\n"
            "0: the finest detail at different depths. 1: most stacks.\n"
            "More: where refraction makes rims look sharp out of focus."
        )
        self.blend = Choice(
            "Feather: soft seams, and less noise where slices agree.\n"
            "Select: every pixel exactly as it was observed in its slice.",
            _BLENDS,
        )
        self.device = Choice("Where the model runs.", [("Automatic", "auto")])
        self._models = models()
        specs = list(self._models.values())
        self.model.set_choices([(spec.title, spec.name) for spec in specs])
        for index, spec in enumerate(specs):
            about = f"{spec.summary}\n{spec.paper}".strip()
            self.model.setItemData(index, about, Qt.ItemDataRole.ToolTipRole)
        self.holds, self.summary = _wrapped_label(), _wrapped_label()
        self.outputs = {}
        grid = QGridLayout()
        for i, (name, title, tip) in enumerate(_OUTPUTS):
            self.outputs[name] = box = QCheckBox(title)
            box.setToolTip(tip)
            box.setChecked(name in _CHECKED)
            grid.addWidget(box, i // 2, i % 2)

        self._form = QFormLayout()
        self._form.setFieldGrowthPolicy(
            QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow
        )
        self._labels: dict[QWidget, QLabel] = {}
        for title, field in (
            ("Stack", self.layer),
            ("", self.holds),
            ("Z axis", self.z_axis),
            ("Other axes", self.other_axes),
            ("Sharpness from", self.reference),
            ("Model", self.model),
            ("", self.summary),
            ("Smoothness", self.smoothness),
            ("Blend", self.blend),
            ("Device", self.device),
        ):
            self._labels[field] = QLabel(title)
            self._form.addRow(self._labels[field], field)
        self._form.addRow("Outputs", grid)

    def _make_foot(self) -> None:
        self.run_button = QPushButton("Run")
        self.run_button.setToolTip("Fuse the stack.")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Stop the run; no layer is added.")
        self.progress = QProgressBar()
        self.progress.setVisible(False)
        self.status = _wrapped_label()
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        self._foot = QVBoxLayout()
        self._foot.addLayout(buttons)
        self._foot.addWidget(self.progress)
        self._foot.addWidget(self.status)

    # What can be chosen

    def reset_choices(self, event: Any = None) -> None:
        """List the layers anew; napari calls it whenever they change."""
        stacks = [layer for layer in self._viewer.layers if is_stack(layer)]
        self.layer.set_choices([(layer.name, layer) for layer in stacks])
        if not stacks:
            self.holds.setText("Open a focus stack: an image with slices along z.")
        self._list_references()
        self._update_buttons()

    def _follow(self, event: Any = None) -> None:
        """Choose the layer that is selected in the viewer, if it is a stack."""
        active = self._viewer.layers.selection.active
        if self._worker is None and is_stack(active):
            self.reset_choices()
            self.layer.value = active

    def _list_axes(self) -> None:
        layer = self.layer.value
        if layer is None:
            self.z_axis.set_choices([])
            self.other_axes.set_choices([])
            self._show_row(self.other_axes, False)
            return
        self.z_axis.set_choices(
            [(_axis_text(layer, axis), axis) for axis in range(layer.ndim)],
            guess_axes(layer).index("Z"),
        )
        self._list_other_axes()

    def _list_other_axes(self) -> None:
        layer, z = self.layer.value, self.z_axis.value
        if layer is None:
            return
        rest = [axis for axis in range(layer.ndim) if axis != z][:-2]
        readings = (("",), ("C", "T"), ("TC", "CT"))[len(rest)]
        guess = guess_axes(layer, z)
        self.other_axes.set_choices(
            [(_reading_text(layer, rest, letters), letters) for letters in readings],
            "".join(guess[axis] for axis in rest),
        )
        self._show_row(self.other_axes, len(readings) > 1)
        self._list_references()
        self.holds.setText(describe(layer, self.axes))
        if self._worker is None:
            self.status.clear()  # it spoke of what was chosen before

    def _list_references(self) -> None:
        layer = self.layer.value
        choices: list[tuple[str, Any]] = []
        if layer is not None and "C" in self.axes:
            count = level_0(layer).shape[self.axes.index("C")]
            choices = [("Mean of all channels", None)]
            choices += [(f"Channel {i}", i) for i in range(count)]
        elif layer is not None:
            choices = [("Luminance", None), ("Mean of red, green and blue", "mean")]
            if not layer.rgb:
                choices = [("This layer", None)]
            choices += [
                (f"Layer {other.name}", other)
                for other in self._viewer.layers
                if other is not layer and is_stack(other) and alike(other, layer)
            ]
        self.reference.set_choices(choices)
        self._show_row(self.reference, len(choices) > 1)

    def _show_row(self, field: QWidget, shown: bool) -> None:
        field.setVisible(shown)
        self._labels[field].setVisible(shown)

    def _describe_model(self) -> None:
        self.summary.setText(self._models[self.model.value].summary)

    def _on_machine(self, machine: Machine) -> None:
        self._machine = machine
        self.device.set_choices(machine.devices)
        self.model.value = machine.model
        self._update_buttons()

    def _on_no_machine(self, error: Exception) -> None:
        show_error(f"Focus Fusion cannot load PyTorch ({error}). Install it again.")

    def _update_buttons(self) -> None:
        idle = self._worker is None
        for field in (*self._labels, *self.outputs.values()):
            field.setEnabled(idle)
        wanted = any(box.isChecked() for box in self.outputs.values())
        self.run_button.setEnabled(
            idle
            and wanted
            and self._machine is not None
            and self.layer.value is not None
        )
        self.cancel_button.setEnabled(not idle)
        self.progress.setVisible(not idle)

    # Running

    @property
    def axes(self) -> str:
        """What the axes of the chosen layer are, one letter each out of ``TCZYX``."""
        count, z = self.layer.value.ndim, self.z_axis.value
        letters = iter(f"{self.other_axes.value}YX")
        return "".join("Z" if axis == z else next(letters) for axis in range(count))

    def job(self) -> FuseJob:
        """Take down what is chosen now.

        Raises
        ------
        FocusFusionError
            If it cannot be fused.
        """
        if self.layer.value is None:
            raise FocusFusionError("There is no focus stack. Open one first.")
        stack = stack_from_layer(self.layer.value, axes=self.axes)
        reference, judge = self.reference.value, None
        if isinstance(reference, Image):
            reference, judge = None, stack_from_layer(reference, axes=self.axes)
        return FuseJob(
            stack,
            judge,
            tuple(name for name, box in self.outputs.items() if box.isChecked()),
            {
                "model": self.model.value,
                "reference": reference,
                "smoothness": self.smoothness.value(),
                "blend": self.blend.value,
                "device": self.device.value,
            },
        )

    def run(self) -> FuseWorker | None:
        """Start fusing what is chosen; the layers come in when it is done.

        Returns
        -------
        FuseWorker
            Running; or None where what is chosen cannot be fused, which a notification
            says, or a run is on already.
        """
        if self._worker is not None:
            return None
        try:
            job = self.job()
        except FocusFusionError as error:
            self._on_errored(error)
            return None
        self._source = self.layer.value
        worker: Any = make_worker(job)
        self._worker = worker
        worker.progressed.connect(self._on_progressed)
        worker.returned.connect(self._on_returned)
        worker.errored.connect(self._on_errored)
        worker.finished.connect(self._on_finished)
        self.destroyed.connect(worker.quit)
        self._started = time.monotonic()
        self.progress.reset()
        self.status.setText("Starting …")
        self._update_buttons()
        worker.start()
        return worker

    def cancel(self) -> None:
        """Ask the run to stop, which it does within a tile."""
        if self._worker is not None:
            self._worker.quit()
            self.cancel_button.setEnabled(False)
            self.status.setText("Stopping …")

    def changeEvent(self, event: QEvent | None) -> None:
        """Stop the run when the dock is closed: napari takes its widget out."""
        super().changeEvent(event)
        if event and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.cancel()

    def _on_progressed(self, progress: Progress) -> None:
        if self._worker is None or self._worker.abort_requested:
            return
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        left = progress.seconds_left
        self.status.setText(
            progress.stage + ("" if left is None else f", {duration(left)} left")
        )

    def _on_returned(self, result: FusionResult) -> None:
        assert self._worker is not None
        outputs = self._worker.job.outputs
        layers = [Layer.create(*data) for data in chosen_layers(result, outputs)]
        for layer in layers:
            self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = layers[0]
        source = self._source
        if source in self._viewer.layers and not covers(source.blending):
            source.visible = False  # or the two would add up
        for note in result.provenance.get("notes", ()):
            show_warning(note)
        spent = duration(time.monotonic() - self._started)
        device = _device_text(result.provenance["device"])
        self.status.setText(f"Done in {spent} on {device}.")

    def _on_errored(self, error: Exception) -> None:
        text = explain(error, self._worker.job.stack.name if self._worker else "")
        self.status.setText(text)
        show_error(text)

    def _on_finished(self) -> None:
        assert self._worker is not None
        if self._worker.abort_requested:
            self.status.setText("Cancelled; no layer was added.")
        self.destroyed.disconnect(self._worker.quit)
        del self._worker.job  # napari keeps workers: the pixels must not stay with them
        self._worker = self._source = None
        self._update_buttons()
        self.ended.emit()


class Choice(QComboBox):
    """A drop-down list whose entries stand for values.

    Parameters
    ----------
    tip
        What hovering over it says.
    choices
        Pairs of text and value.
    """

    #: The value is another one.
    changed = Signal()

    def __init__(self, tip: str, choices: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self.setToolTip(tip)
        self._values: list[Any] = []
        # However long a name, it does not widen the dock.
        self.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.setMinimumContentsLength(20)
        self.set_choices(choices)
        self.currentIndexChanged.connect(self.changed)

    def set_choices(
        self, choices: Iterable[tuple[str, Any]], value: Any = _KEEP
    ) -> None:
        """Replace the entries, and choose one.

        Parameters
        ----------
        choices
            Pairs of text and value.
        value
            The one to choose; by default the one chosen so far, or else the first.
        """
        pairs = list(choices)
        before = self.value
        wanted = before if value is _KEEP else value
        self.blockSignals(True)
        self.clear()
        self.addItems([text for text, _ in pairs])
        self._values = [one for _, one in pairs]
        for index, (text, _) in enumerate(pairs):
            self.setItemData(index, text, Qt.ItemDataRole.ToolTipRole)
        if wanted in self._values:
            self.setCurrentIndex(self._values.index(wanted))
        self.blockSignals(False)
        if self.value != before:
            self.changed.emit()

    @property
    def value(self) -> Any:
        """What the chosen entry stands for; None where there is no entry."""
        index = self.currentIndex()
        return self._values[index] if 0 <= index < len(self._values) else None

    @value.setter
    def value(self, value: Any) -> None:
        if value not in self._values:
            raise ValueError(f"{value!r} cannot be chosen here; choose {self._values}.")
        self.setCurrentIndex(self._values.index(value))


@dataclass(frozen=True)
class Machine:
    """What can be chosen here once torch is loaded.

    Attributes
    ----------
    model
        Name of the default model.
    devices
        Pairs of text and device name.
    """

    model: str
    devices: list[tuple[str, str]]


def look_at_machine() -> Machine:
    """Load torch, and see which devices there are."""
    from napari_focus_fusion.device import available_devices, choose_device, describe

    devices = [
        (_device_text(describe(choose_device(name))), name)
        for name in available_devices()
    ]
    return Machine(DEFAULT_MODEL, [(f"Automatic: {devices[0][0]}", "auto"), *devices])


def _device_text(name: str) -> str:
    return "CPU" if name.startswith("cpu") else name


def is_stack(layer: Any) -> bool:
    """Whether a layer can be a focus stack, and is no result of ours."""
    return (
        isinstance(layer, Image)
        and 3 <= layer.ndim <= 5
        and METADATA not in layer.metadata
    )


def alike(one: Image, other: Image) -> bool:
    """Whether two layers may be channels of one image."""
    a, b = level_0(one), level_0(other)
    return (one.rgb, a.shape, a.dtype) == (other.rgb, b.shape, b.dtype)


def describe(layer: Image, axes: str) -> str:
    """Say in a line what a layer holds.

    Parameters
    ----------
    layer
        An image layer.
    axes
        What its axes are, one letter each.
    """
    pixels = level_0(layer)
    size = dict(zip(axes, pixels.shape, strict=False))
    parts = [f"{size['Z']} slices", f"{size['X']} × {size['Y']} px"]
    if "C" in size:
        parts.append(f"{size['C']} channels")
    if "T" in size:
        parts.append(f"{size['T']} time points")
    parts.append("RGB" if layer.rgb else str(pixels.dtype))
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Words for a length of time, as exact as anyone wants to know."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _wrapped_label() -> QLabel:
    """A label whose text takes as many lines as it needs, and widens nothing."""
    label = QLabel()
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def _axis_text(layer: Image, axis: int) -> str:
    """``"z: 12 slices, 2 µm apart"``."""
    count, size = level_0(layer).shape[axis], abs(float(layer.scale[axis]))
    unit = str(layer.units[axis])
    apart = "" if unit == "pixel" else f", {size:g} {_SYMBOLS.get(unit, unit)} apart"
    return f"{_axis_name(layer, axis)}: {count} slices{apart}"


def _axis_name(layer: Image, axis: int) -> str:
    label = str(layer.axis_labels[axis])
    return f"axis {axis}" if label.lstrip("-").isdigit() or not label else label


def _reading_text(layer: Image, axes: list[int], letters: str) -> str:
    """``"axis 0: 5 time points, axis 1: 2 channels"``."""
    shape = level_0(layer).shape
    words = {"C": "channels", "T": "time points"}
    return ", ".join(
        f"{_axis_name(layer, axis)}: {shape[axis]} {words[letter]}"
        for axis, letter in zip(axes, letters, strict=True)
    )
