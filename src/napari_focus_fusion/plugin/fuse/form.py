"""The form of the widget *Fuse focus stack*: what can be chosen, and what is."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, Qt, QThreadPool, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.registry import DEFAULT_MODEL
from napari_focus_fusion.plugin.adapters.layers import level_0, stack_from_layers
from napari_focus_fusion.plugin.adapters.sources import alike, is_slice, is_stack
from napari_focus_fusion.plugin.common.choice import (
    Choice,
    ModelChoice,
    form_layout,
    model_page,
    more_button,
    wrapped_label,
)
from napari_focus_fusion.plugin.common.job_widget import JobWidget
from napari_focus_fusion.plugin.common.settings import preferences, recall, remember
from napari_focus_fusion.plugin.common.stack_choice import AxesChoice, StackChoice
from napari_focus_fusion.plugin.common.texts import describe, device_text, unit_text
from napari_focus_fusion.plugin.common.worker import LayersJob
from napari_focus_fusion.plugin.fuse.preview import index_on_screen

if TYPE_CHECKING:
    import napari

_OUTPUTS = (
    ("fused", "Fused image", "All in focus: each pixel from its sharpest slice."),
    ("decision", "Decision map", "The slice that each pixel came from, from 0."),
    ("depth", "Depth map", "Height of each pixel, in the unit of the z axis."),
    ("confidence", "Confidence", "How clear the choice of the slice was, 0 to 1."),
    (
        "surface",
        "3-D surface",
        "The depth map in space, wearing the fused image.\n"
        "Show its layer, and switch the viewer to 3-D.",
    ),
    (
        "unscaled",
        "Fused, not enlarged",
        "Also the fused image with the pixels of the stack.",
    ),
    (
        "consistency",
        "Consistency",
        "How far the finer pixels, brought back to those of the stack, differ from\n"
        "the slices, as a share of the range: what is finer is inferred, not observed.",
    ),
)
_CHECKED = ("fused", "decision")
_OF_SUPER_RESOLUTION = ("unscaled", "consistency")
_BLENDS = (
    ("Feather: soft seams", "feather"),
    ("Select: observed pixels", "select"),
)
_DESTINATIONS = (
    ("Memory; asks when it is large", "ask"),
    ("Memory", "memory"),
    ("OME-Zarr on disk", "zarr"),
)
_MB = 1_000_000
# Legible on dark and on light.
_LINK = "#3d8fd1"


class FuseForm(JobWidget):
    """Fields to choose a stack, a model and outputs; they make a job.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen.
    """

    #: Another stack is chosen, or its axes are read in another way.
    chosen = Signal()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._edits: list[Any] = []
        self._make_fields()
        self._form = self._scrolled_form()
        self._connect_fields()
        self._recall()
        self._describe_model()
        self._list_axes()
        self._list_stacks()
        self._follow()

    # What it looks like

    def _make_fields(self) -> None:
        self.layer = StackChoice(
            "The image layer to fuse: slices along a z axis. Or select several\n"
            "two-dimensional layers of one size in the layer list: a slice each.",
            self._viewer,
        )
        self.layer.setMinimumContentsLength(8)  # the button beside it is wide too
        self.files_button = QPushButton("Files …")
        self.files_button.setToolTip(
            "Open a stack from a file, or from pictures of one slice each, in the "
            "order of the numbers in their names."
        )
        self._axes = AxesChoice()
        self.z_axis, self.other_axes = self._axes.z_axis, self._axes.other_axes
        self.time = Choice(
            "Which time points to fuse. Each is a stack of its own.",
            [("All of them", "all"), ("The one on screen", "shown")],
        )
        self.reference = Choice(
            "Where sharpness is looked for. The choice made there is applied to all "
            "channels."
        )
        self.model = ModelChoice("What judges how sharp each pixel of each slice is.")
        self.scale = Choice(
            "How many times the rows and columns of the fused image are those of the\n"
            "stack. What is finer than its pixels is inferred, not observed."
        )
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
        self.device = Choice("Where the model runs.", [("Automatic", "auto")])
        self.outputs = {}
        for name, title, tip in _OUTPUTS:
            self.outputs[name] = box = QCheckBox(title)
            box.setToolTip(tip)
            box.setChecked(name in _CHECKED)

        self.blend = Choice(
            "Feather: soft seams, and less noise where slices agree.\n"
            "Select: every pixel exactly as it was observed in its slice.",
            _BLENDS,
        )
        self.verify = QCheckBox("Verify the decision map")
        self.verify.setChecked(True)
        self.verify.setToolTip(
            "Islands and unsure pixels take the slice that their surroundings vote for."
        )
        self.joint = Choice(
            "Whether the slices are made finer and then fused, or the fused image is "
            "made finer.",
            [("The slices, then fuse", True), ("The fused image", False)],
        )
        self.destination = Choice("Where the result goes.", _DESTINATIONS)
        self.memory = _automatic(
            0,
            1_000_000,
            500,
            " MB",
            "Working memory beyond the result. Automatic: a quarter of what is free,\n"
            "at most 1 GB on the CPU.",
        )
        self.tile = _automatic(
            0,
            8192,
            128,
            " px",
            "Largest side of what the model looks at at once. It does not change the\n"
            "result. Automatic: what suits the device.",
        )
        self.holds, self.summary = wrapped_label(), wrapped_label()
        self.summary.setOpenExternalLinks(True)
        self.summary.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse
            | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )

    def _scrolled_form(self) -> QWidget:
        self._labels: dict[QWidget, QLabel] = {}
        stack = QHBoxLayout()
        stack.addWidget(self.layer, 1)
        stack.addWidget(self.files_button)
        grid = QGridLayout()
        for i, box in enumerate(self.outputs.values()):
            grid.addWidget(box, i // 2, i % 2)
        form = form_layout()
        self._labels[self.layer] = label = QLabel("&Stack")
        label.setBuddy(self.layer)
        form.addRow(label, stack)
        self._add_rows(
            form,
            ("", self.holds),
            ("&Z axis", self.z_axis),
            ("Other &axes", self.other_axes),
            ("T&ime points", self.time),
            ("Sharpness from", self.reference),
            ("&Model", self.model),
            ("", self.summary),
            ("S&uper-resolution", self.scale),
            ("Smoo&thness", self.smoothness),
            ("&Device", self.device),
        )
        form.addRow(QLabel("Outputs"))
        form.addRow(grid)
        self.more = more_button()
        self._folded = QWidget()
        folded = form_layout()
        folded.setContentsMargins(0, 0, 0, 0)
        self._folded.setLayout(folded)
        self._add_rows(
            folded,
            ("&Blend", self.blend),
            ("", self.verify),
            ("Ma&ke finer", self.joint),
            ("Result i&n", self.destination),
            ("Working memory", self.memory),
            ("Tile", self.tile),
        )
        self._unfold(False)

        page = QWidget()
        layout = QVBoxLayout(page)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.more)
        layout.addWidget(self._folded)
        layout.addStretch()
        return Tall(page)

    def _add_rows(self, form: QFormLayout, *rows: tuple[str, QWidget]) -> None:
        for title, field in rows:
            self._labels[field] = label = QLabel(title)
            if title:
                label.setBuddy(field)
            form.addRow(label, field)

    def _unfold(self, shown: bool) -> None:
        self._folded.setVisible(shown)
        self.more.setArrowType(
            Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow
        )

    def _connect_fields(self) -> None:
        self.layer.changed.connect(self._list_axes)
        self._axes.changed.connect(self._on_axes)
        self.model.changed.connect(self._describe_model)
        self.model.refreshed.connect(self._describe_model)
        self.scale.changed.connect(self._show_rows)
        self.more.toggled.connect(self._unfold)
        self._viewer.layers.selection.events.active.connect(self._follow)

    # What can be chosen

    @property
    def sources(self) -> tuple[Image, ...]:
        """As :attr:`StackChoice.sources` of ``layer``."""
        return self.layer.sources

    @property
    def axes(self) -> str:
        """What the axes of the chosen stack are, one letter each out of ``TCZYX``."""
        return self._axes.value or "ZYX"

    def _list_stacks(self) -> None:
        self.layer.refresh()
        if not self.layer.values:
            flat = [one for one in self._viewer.layers if is_slice(one)]
            self.holds.setText(
                "Select in the layer list what the slices are: two-dimensional layers "
                "of one size and type."
                if flat
                else "Open a focus stack: an image with slices along z."
            )
        self._list_references()

    def _follow(self, event: Any = None) -> None:
        """Choose what is selected in the viewer, if it is a stack."""
        active = self._viewer.layers.selection.active
        if self.layer.isEnabled() and is_stack(active):
            self._list_stacks()
            self.layer.value = active

    def _list_axes(self) -> None:
        layer = self.sources[0] if len(self.sources) == 1 else None
        for emitter in self._edits:
            emitter.disconnect(self._on_edited)
        self._edits = []
        if layer is not None:
            told = layer.events
            self._edits = [told.scale, told.units, told.axis_labels, told.data]
        for emitter in self._edits:
            emitter.connect(self._on_edited)
        self._axes.show_layer(layer)

    def _on_edited(self, event: Any) -> None:
        """The layer is measured, named or filled anew; what Z is need not change."""
        if len(self.sources) != 1:
            return
        (layer,) = self.sources
        same = event.type != "axis_labels" and layer.ndim == len(self.axes)
        self._axes.show_layer(layer, self.axes if same else None)

    def _on_axes(self) -> None:
        self._list_references()
        self._show_chosen()

    def _show_chosen(self) -> None:
        if self.sources:
            text = describe(self.sources, self.axes)
            alone = text.startswith("1 slice,")
            self.holds.setText(f"{text}; nothing to fuse" if alone else text)
        unit = self._unit()
        self.outputs["depth"].setText(f"Depth map ({unit})" if unit else "Depth map")
        self.chosen.emit()

    def _unit(self) -> str:
        if len(self.sources) != 1:
            return ""
        unit = str(self.sources[0].units[self.z_axis.value])
        return "" if unit == "pixel" else unit_text(unit)

    def _list_references(self) -> None:
        choices: list[tuple[str, Any]] = []
        if not self.sources:
            pass
        elif "C" in self.axes:
            count = level_0(self.sources[0]).shape[self.axes.index("C")]
            choices = [("Mean of all channels", None)]
            choices += [(f"Channel {i}", i) for i in range(count)]
        else:
            layer = self.sources[0]
            choices = [("Luminance", None), ("Mean of red, green and blue", "mean")]
            if not layer.rgb:
                choices = [("This layer", None)]
            if len(self.sources) == 1:
                choices += [
                    (f"Layer {other.name}", other)
                    for other in self._viewer.layers
                    if other is not layer and is_stack(other) and alike(other, layer)
                ]
        self.reference.set_choices(choices)
        self._show_rows()

    def _describe_model(self) -> None:
        spec = self.model.spec
        if spec is None:
            self.summary.setText("No model is installed.")
            return
        page = model_page(spec)
        about = f"About {spec.base or spec.name}"
        link = f' <a href="{page}" style="color: {_LINK}">{about}</a>' if page else ""
        self.summary.setText(spec.summary + link)
        self.summary.setToolTip(page)
        self.scale.set_choices(
            [("Off", 1)]
            + [
                (f"× {s}" + ("" if by == spec.name else f", by {by}"), s)
                for s, by in self._finer().items()
            ]
        )
        self._show_rows()

    def _finer(self) -> dict[int, str]:
        """Which model makes the image so many times finer: the chosen one, if it can.

        Another one does it by the chosen one's decision.
        """
        others = self.model.specs.values()
        return {
            factor: spec.name
            for spec in (*others, self.model.spec)
            if spec is not None
            for factor in spec.upscale
            if factor > 1
        }

    def _show_rows(self) -> None:
        """Show the fields that there is something to choose in."""
        finer = (self.scale.value or 1) > 1
        one = len(self.sources) == 1
        for field, shown in (
            (self.z_axis, one),
            (self.other_axes, self.other_axes.count() > 1),
            (self.time, bool(self.sources) and "T" in self.axes),
            (self.reference, self.reference.count() > 1),
            (self.scale, self.scale.count() > 1),
            (self.joint, finer),
        ):
            field.setVisible(shown)
            self._labels[field].setVisible(shown)
        for name in _OF_SUPER_RESOLUTION:
            self.outputs[name].setVisible(finer)

    def show_machine(self, machine: Machine) -> None:
        """List the devices that there are."""
        self.device.set_choices(machine.devices)
        chosen = getattr(preferences(), "device", "auto")
        if chosen in self.device.values:
            self.device.value = chosen
        self.device.changed.connect(self._keep_preferences)
        self.memory.valueChanged.connect(self._keep_preferences)

    def _keep_preferences(self) -> None:
        """These two are napari's preferences, where napari has such of plugins."""
        kept = preferences()
        if kept is not None:
            kept.device = self.device.value
            kept.memory = self.memory.value()

    def freeze(self, frozen: bool) -> None:
        """Let nothing be chosen while a run is on."""
        for field in (*self._labels, *self.outputs.values(), self.files_button):
            field.setEnabled(not frozen)

    # What is chosen

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`napari_focus_fusion.fuse` as chosen now."""
        reference = self.reference.value
        options = {
            "model": self.model.value,
            "reference": None if isinstance(reference, Image) else reference,
            "smoothness": self.smoothness.value(),
            "blend": self.blend.value,
            "verify": self.verify.isChecked(),
            "device": self.device.value,
            "tile": self.tile.value() or None,
            "memory": self.memory.value() * _MB or None,
        }
        if (self.scale.value or 1) > 1:
            finer = self._finer()[self.scale.value]
            options["scale"] = self.scale.value
            options["joint"] = self.joint.value
            if finer != self.model.value:
                options["decision"] = self.model.value
                options["model"] = finer
        return options

    def offered(self) -> list[str]:
        """Outputs that can be had of what is chosen."""
        finer = (self.scale.value or 1) > 1
        return [n for n in self.outputs if finer or n not in _OF_SUPER_RESOLUTION]

    def wanted(self) -> tuple[str, ...]:
        """Outputs that are ticked."""
        return tuple(name for name in self.offered() if self.outputs[name].isChecked())

    def job(self) -> LayersJob:
        """Take down what is chosen now.

        Raises
        ------
        FocusFusionError
            If it cannot be fused.
        """
        if not self.sources:
            raise FocusFusionError("There is no focus stack. Open one first.")
        if not self.wanted():
            raise FocusFusionError("No output is ticked. Tick at least one.")
        axes, moment = self.axes, None
        if "T" in axes and self.time.value == "shown":
            moment = index_on_screen(self.sources[0], axes, self._viewer)["T"]
        stack = stack_from_layers(self.sources, axes=axes, time=moment)
        judge = None
        if isinstance(self.reference.value, Image):
            judge = stack_from_layers(self.reference.value, axes=axes, time=moment)
        return LayersJob(stack, judge, self.wanted(), self.options)

    # What was chosen before

    def _recall(self) -> None:
        """Choose what was chosen in the last session, as far as it is there."""
        kept = recall("fuse")
        for name, field in self._remembered().items():
            value = kept.get(name)
            if isinstance(field, Choice) and value in field.values:
                field.value = value
            elif isinstance(field, (QCheckBox, QToolButton)) and value in (True, False):
                field.setChecked(value)
            elif isinstance(field, QSpinBox) and isinstance(value, int):
                field.setValue(value)
            elif isinstance(field, QDoubleSpinBox) and isinstance(value, float):
                field.setValue(value)
        memory = getattr(preferences(), "memory", 0)
        self.memory.setValue(int(memory))

    def remember_choices(self) -> None:
        """Keep what is chosen for the next session."""
        values: dict[str, Any] = {}
        for name, field in self._remembered().items():
            if isinstance(field, Choice):
                values[name] = field.value
            elif isinstance(field, (QCheckBox, QToolButton)):
                values[name] = field.isChecked()
            elif isinstance(field, (QSpinBox, QDoubleSpinBox)):
                values[name] = field.value()
        remember("fuse", values)

    def _remembered(self) -> dict[str, QWidget]:
        return {
            "model": self.model,
            "smoothness": self.smoothness,
            "blend": self.blend,
            "verify": self.verify,
            "joint": self.joint,
            "time": self.time,
            "destination": self.destination,
            "tile": self.tile,
            "more": self.more,
            **{f"output {name}": box for name, box in self.outputs.items()},
        }


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


def _automatic(low: int, high: int, step: int, unit: str, tip: str) -> QSpinBox:
    """A number whose lowest value stands for automatic."""
    field = QSpinBox()
    field.setRange(low, high)
    field.setSingleStep(step)
    field.setSuffix(unit)
    field.setSpecialValueText("Automatic")
    field.setToolTip(tip)
    return field


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
    _wait_for_threads_at_exit()  # an import cannot be broken off
    from napari_focus_fusion.device import available_devices, choose_device, describe

    devices = [
        (device_text(describe(choose_device(name))), name)
        for name in available_devices()
    ]
    return Machine(DEFAULT_MODEL, [(f"Automatic: {devices[0][0]}", "auto"), *devices])


@cache
def _wait_for_threads_at_exit() -> None:
    """Let Python end only when no thread is in the midst of something."""
    threads: Any = QThreadPool.globalInstance()
    atexit.register(threads.waitForDone, 30_000)
