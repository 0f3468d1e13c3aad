"""The widget *Fuse focus stack*."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from napari.layers import Image, Layer
from napari.utils.notifications import show_error, show_warning
from qtpy.QtCore import QEvent, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import create_worker

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models import DEFAULT_MODEL
from napari_focus_fusion.plugin.choice import (
    Choice,
    ModelChoice,
    model_page,
    wrapped_label,
)
from napari_focus_fusion.plugin.layers import (
    METADATA,
    covers,
    guess_axes,
    layers_from_files,
    level_0,
    stack_from_layers,
)
from napari_focus_fusion.plugin.preview import Preview, index_on_screen
from napari_focus_fusion.plugin.settings import preferences, recall, remember
from napari_focus_fusion.plugin.worker import LayersJob, explain, make_worker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import napari

    from napari_focus_fusion.plugin.worker import FuseWorker
    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import LayerData
    from napari_focus_fusion.stack import FocusStack

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
#: A result that would take more than this share of the free memory is large.
LARGE = 0.25
_SYMBOLS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "px"}
_MB = 1_000_000


class FuseWidget(QWidget):
    """Fuse an image layer of the viewer; docked by napari.

    From a script: set the ``value`` of ``layer``, ``z_axis``, ``other_axes``, ``time``,
    ``reference``, ``model``, ``scale``, ``blend``, ``joint``, ``device`` and
    ``destination``, call ``smoothness.setValue``, tick ``outputs["depth"]`` and so on,
    and call :meth:`run`.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen, and where results go.
    """

    #: A run has ended, in whatever way, and its layers are in; of a queue the last one.
    ended = Signal()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._machine: Machine | None = None
        self._worker: FuseWorker | None = None
        self._sources: tuple[Image, ...] = ()
        self._picked: tuple[Image, ...] = ()
        self._queue: list[tuple[LayersJob, tuple[Image, ...]]] = []
        self._left: deque[tuple[LayersJob, tuple[Image, ...]]] = deque()
        self._started = 0.0
        self.preview = Preview(napari_viewer, self._preview_arguments)
        self._make_fields()
        self._make_buttons()
        layout = QVBoxLayout(self)
        layout.addWidget(self._scrolled_form(), 1)
        layout.addLayout(self._foot())

        self._connect()
        self._recall()
        self._describe_model()
        self._list_axes()
        self.reset_choices()
        self._follow()
        # Finding the graphics cards means loading torch, which takes seconds.
        create_worker(
            look_at_machine,
            _connect={"returned": self._on_machine, "errored": self._on_no_machine},
        )

    # The form

    def _make_fields(self) -> None:
        self.layer = Choice(
            "The image layer to fuse: slices along a z axis. Or select several\n"
            "two-dimensional layers of one size in the layer list: a slice each."
        )
        self.files_button = QPushButton("Open &files …")
        self.files_button.setToolTip(
            "Open a stack from a file, or from pictures of one slice each, in the "
            "order of the numbers in their names."
        )
        self.z_axis = Choice(
            "The axis along which the focus changes. Guessed from the axis labels, or "
            "from the shape of the layer."
        )
        self.other_axes = Choice("What the remaining axes of the layer are.")
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
        form = _form()
        self._labels[self.layer] = label = QLabel("&Stack")
        label.setBuddy(self.layer)
        form.addRow(label, stack)
        self._add_rows(
            form,
            ("", self.holds),
            ("&Z axis", self.z_axis),
            ("Other &axes", self.other_axes),
            ("T&ime points", self.time),
            ("Sharpness &from", self.reference),
            ("&Model", self.model),
            ("", self.summary),
            ("S&uper-resolution", self.scale),
            ("Smoo&thness", self.smoothness),
            ("&Device", self.device),
        )
        form.addRow("Outputs", grid)
        self.more = QToolButton()
        self.more.setText("M&ore")
        self.more.setToolTip("What is rarely changed.")
        self.more.setCheckable(True)
        self.more.setAutoRaise(True)
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._folded = QWidget()
        folded = _form()
        folded.setContentsMargins(0, 0, 0, 0)
        self._folded.setLayout(folded)
        self._add_rows(
            folded,
            ("&Blend", self.blend),
            ("", self.verify),
            ("Make &finer", self.joint),
            ("Res&ult in", self.destination),
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
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(page)
        scroll.setMinimumWidth(page.minimumSizeHint().width())
        return scroll

    def _add_rows(self, form: QFormLayout, *rows: tuple[str, QWidget]) -> None:
        for title, field in rows:
            self._labels[field] = label = QLabel(title)
            if title:
                label.setBuddy(field)
            form.addRow(label, field)

    def _make_buttons(self) -> None:
        self.run_button = QPushButton("&Run")
        self.run_button.setToolTip("Fuse the stack.")
        self.cancel_button = QPushButton("&Cancel")
        self.cancel_button.setToolTip("Stop the run; no layer is added.")
        self.preview_button = QPushButton("&Preview")
        self.preview_button.setCheckable(True)
        self.preview_button.setToolTip(
            "Show what is in view fused, at the resolution of the screen, and follow "
            "the camera and the choices made here."
        )
        self.add_button = QPushButton("Add to &queue")
        self.add_button.setToolTip(
            "Keep the stack with what is chosen now, to be fused later, one by one."
        )
        self.queue_list = QListWidget()
        self.queue_list.setMaximumHeight(80)
        self.queue_list.setToolTip("What Run queue fuses, from top to bottom.")
        self.queue_button = QPushButton("Run queue")
        self.queue_button.setToolTip("Fuse all stacks of the queue, one by one.")
        self.remove_button = QPushButton("Remove")
        self.remove_button.setToolTip("Take what is marked out of the queue.")
        self.progress = QProgressBar()
        self.status = wrapped_label()

    def _foot(self) -> QVBoxLayout:
        foot = QVBoxLayout()
        upper, middle, lower = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        upper.addWidget(self.run_button, 2)
        upper.addWidget(self.cancel_button, 1)
        middle.addWidget(self.preview_button)
        middle.addWidget(self.add_button)
        lower.addWidget(self.queue_button, 2)
        lower.addWidget(self.remove_button, 1)
        foot.addLayout(upper)
        foot.addLayout(middle)
        foot.addWidget(self.queue_list)
        foot.addLayout(lower)
        foot.addWidget(self.progress)
        foot.addWidget(self.status)
        return foot

    def _connect(self) -> None:
        self.layer.changed.connect(self._list_axes)
        self.z_axis.changed.connect(self._list_other_axes)
        self.other_axes.changed.connect(self._list_references)
        self.model.changed.connect(self._describe_model)
        self.model.refreshed.connect(self._describe_model)
        self.scale.changed.connect(self._show_rows)
        self.more.toggled.connect(self._unfold)
        for box in self.outputs.values():
            box.toggled.connect(self._update_buttons)
        self.files_button.clicked.connect(self._choose_files)
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        self.add_button.clicked.connect(self.add_to_queue)
        self.queue_button.clicked.connect(self.run_queue)
        self.remove_button.clicked.connect(self._remove_from_queue)
        self.preview_button.toggled.connect(self._toggle_preview)
        self.preview.toggled.connect(self.preview_button.setChecked)
        self.preview.told.connect(self.status.setText)
        for field in (
            *(self.layer, self.z_axis, self.other_axes, self.reference),
            *(self.model, self.blend, self.device, self.scale),
        ):
            field.changed.connect(self.preview.request)
        self.smoothness.valueChanged.connect(self.preview.request)
        self.verify.toggled.connect(self.preview.request)
        selection = self._viewer.layers.selection.events
        selection.active.connect(self._follow)
        selection.changed.connect(self._follow)

    # What can be chosen

    @property
    def sources(self) -> tuple[Image, ...]:
        """The chosen layer, or the layers that are the slices; empty if there is none.

        To choose several, set ``layer.value`` to a tuple that the list offers.
        """
        chosen = self.layer.value
        if chosen is None:
            return ()
        return chosen if isinstance(chosen, tuple) else (chosen,)

    def reset_choices(self, event: Any = None) -> None:
        """List the layers anew; napari calls it whenever they change."""
        stacks = [layer for layer in self._viewer.layers if is_stack(layer)]
        choices: list[tuple[str, Any]] = [(layer.name, layer) for layer in stacks]
        if self._picked and all(layer in self._viewer.layers for layer in self._picked):
            names = f"{self._picked[0].name} to {self._picked[-1].name}"
            choices.insert(0, (f"{len(self._picked)} layers: {names}", self._picked))
        self.layer.set_choices(choices)
        if not choices:
            self.holds.setText("Open a focus stack: an image with slices along z.")
        self._list_references()
        self._update_buttons()

    def _follow(self, event: Any = None) -> None:
        """Choose what is selected in the viewer, if it is a stack."""
        if self._worker is not None:
            return
        selection = self._viewer.layers.selection
        selected = tuple(layer for layer in self._viewer.layers if layer in selection)
        if are_slices(selected):
            self._picked = selected
            self.reset_choices()
            self.layer.value = selected
        elif is_stack(selection.active):
            self.reset_choices()
            self.layer.value = selection.active

    def _list_axes(self) -> None:
        if len(self.sources) != 1:
            self.z_axis.set_choices([])
            self.other_axes.set_choices([])
            self._list_references()
            self._show_chosen()
            return
        (layer,) = self.sources
        self.z_axis.set_choices(
            [(_axis_text(layer, axis), axis) for axis in range(layer.ndim)],
            guess_axes(layer).index("Z"),
        )
        self._list_other_axes()

    def _list_other_axes(self) -> None:
        if len(self.sources) != 1:
            return
        (layer,), z = self.sources, self.z_axis.value
        rest = [axis for axis in range(layer.ndim) if axis != z][:-2]
        readings = (("",), ("C", "T"), ("TC", "CT"))[len(rest)]
        guess = guess_axes(layer, z)
        self.other_axes.set_choices(
            [(_reading_text(layer, rest, letters), letters) for letters in readings],
            "".join(guess[axis] for axis in rest),
        )
        self._list_references()
        self._show_chosen()

    def _show_chosen(self) -> None:
        if self.sources:
            self.holds.setText(describe(self.sources, self.axes))
        unit = self._unit()
        self.outputs["depth"].setText(f"Depth map ({unit})" if unit else "Depth map")
        if self._worker is None:
            self.status.clear()  # it spoke of what was chosen before

    def _unit(self) -> str:
        if len(self.sources) != 1:
            return ""
        unit = str(self.sources[0].units[self.z_axis.value])
        return "" if unit == "pixel" else _SYMBOLS.get(unit, unit)

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
        link = f' <a href="{page}">About {spec.base or spec.name}</a>' if page else ""
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

    def _unfold(self, shown: bool) -> None:
        self._folded.setVisible(shown)
        self.more.setArrowType(
            Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow
        )

    def _on_machine(self, machine: Machine) -> None:
        self._machine = machine
        self.device.set_choices(machine.devices)
        chosen = getattr(preferences(), "device", "auto")
        if chosen in self.device.values:
            self.device.value = chosen
        self.device.changed.connect(self._keep_device)
        self._update_buttons()

    def _on_no_machine(self, error: Exception) -> None:
        show_error(f"Focus Fusion cannot load PyTorch ({error}). Install it again.")

    def _keep_device(self) -> None:
        """The device is one of napari's preferences, where napari has them."""
        kept = preferences()
        if kept is not None:
            kept.device = self.device.value

    def _choose_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open a focus stack")
        if paths:
            self.open_files(paths)

    def open_files(self, paths: Sequence[str | Path]) -> None:
        """Open files as one stack, which is then chosen; a notification says if not.

        Parameters
        ----------
        paths
            As in :func:`layers_from_files`.
        """
        self.status.setText("Opening …")
        create_worker(
            layers_from_files,
            [str(path) for path in paths],
            _connect={"returned": self._on_opened, "errored": self._on_errored},
        )

    def _on_opened(self, layers: list[LayerData]) -> None:
        self.status.clear()
        for data in layers:
            self._viewer.add_layer(Layer.create(*data))

    def _update_buttons(self) -> None:
        idle = self._worker is None
        for field in (*self._labels, *self.outputs.values(), self.files_button):
            field.setEnabled(idle)
        wanted = any(self.outputs[name].isChecked() for name in self._offered())
        ready = idle and self._machine is not None
        can = ready and wanted and bool(self.sources)
        self.run_button.setEnabled(can)
        self.add_button.setEnabled(can)
        self.preview_button.setEnabled(ready and bool(self.sources))
        self.cancel_button.setEnabled(not idle)
        self.progress.setVisible(not idle)
        for widget in (self.queue_list, self.queue_button, self.remove_button):
            widget.setVisible(bool(self._queue))
            widget.setEnabled(ready)

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

    def _remember(self) -> None:
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

    # Running

    @property
    def axes(self) -> str:
        """What the axes of the chosen stack are, one letter each out of ``TCZYX``."""
        if len(self.sources) != 1:
            return "ZYX"
        count, z = self.sources[0].ndim, self.z_axis.value
        letters = iter(f"{self.other_axes.value or ''}YX")
        return "".join("Z" if axis == z else next(letters) for axis in range(count))

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

    def job(self) -> LayersJob:
        """Take down what is chosen now.

        Raises
        ------
        FocusFusionError
            If it cannot be fused.
        """
        if not self.sources:
            raise FocusFusionError("There is no focus stack. Open one first.")
        axes, moment = self.axes, None
        if "T" in axes and self.time.value == "shown":
            moment = index_on_screen(self.sources[0], axes, self._viewer)["T"]
        stack = stack_from_layers(self.sources, axes=axes, time=moment)
        judge = None
        if isinstance(self.reference.value, Image):
            judge = stack_from_layers(self.reference.value, axes=axes, time=moment)
        return LayersJob(
            stack,
            judge,
            tuple(n for n in self._offered() if self.outputs[n].isChecked()),
            self.options,
        )

    def _offered(self) -> list[str]:
        finer = (self.scale.value or 1) > 1
        return [n for n in self.outputs if finer or n not in _OF_SUPER_RESOLUTION]

    def _ready_job(self) -> LayersJob | None:
        """What is chosen now and where it goes; None if not, which has been said."""
        try:
            job = self.job()
        except FocusFusionError as error:
            self._on_errored(error)
            return None
        size = result_bytes(job.stack, job.options.get("scale", 1))
        where = self.destination.value
        if where == "ask":
            large = size > LARGE * psutil.virtual_memory().available
            where = ask_where(self, job.stack.name, size) if large else "memory"
        if where == "zarr":
            path = ask_path(self, job.stack.name)
            if path:
                job.options["out"] = path
                return job
        return job if where == "memory" else None

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
        job = self._ready_job()
        return None if job is None else self._start([(job, self.sources)])

    def add_to_queue(self) -> None:
        """Keep what is chosen now, to be fused by :meth:`run_queue`."""
        job = self._ready_job()
        if job is None:
            return
        self._queue.append((job, self.sources))
        self._list_queue()
        self._remember()

    def run_queue(self) -> FuseWorker | None:
        """Fuse the stacks of the queue one by one; what is done leaves it.

        Returns
        -------
        FuseWorker
            The first one, running; None where there is none, or a run is on already.
        """
        if self._worker is not None or not self._queue:
            return None
        return self._start(list(self._queue))

    def _remove_from_queue(self) -> None:
        rows = {index.row() for index in self.queue_list.selectedIndexes()}
        self._queue = [one for i, one in enumerate(self._queue) if i not in rows]
        self._list_queue()

    def _list_queue(self) -> None:
        self.queue_list.clear()
        for job, _ in self._queue:
            by = job.options.get("decision", job.options["model"])
            self.queue_list.addItem(f"{job.stack.name}, by {by}")
        self._update_buttons()

    def _start(self, jobs: list[tuple[LayersJob, tuple[Image, ...]]]) -> FuseWorker:
        self.preview.stop()
        self._remember()
        self._left = deque(jobs)
        return self._next()

    def _next(self) -> FuseWorker:
        job, self._sources = self._left.popleft()
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
        """Ask the run to stop, which it does within a tile; the queue stays."""
        if self._worker is not None:
            self._left.clear()
            self._worker.quit()
            self.cancel_button.setEnabled(False)
            self.status.setText("Stopping …")

    def changeEvent(self, event: QEvent | None) -> None:
        """Stop the run when the dock is closed: napari takes its widget out."""
        super().changeEvent(event)
        if event and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.preview.stop()
            self.cancel()

    def _toggle_preview(self, on: bool) -> None:
        (self.preview.start if on else self.preview.stop)()

    def _preview_arguments(self) -> dict[str, Any] | None:
        if not self.sources or self._worker is not None:
            return None
        judge = self.reference.value
        return {
            "layers": self.sources,
            "axes": self.axes,
            "decided_by": judge if isinstance(judge, Image) else None,
            **self.options,
        }

    def _on_progressed(self, progress: Progress) -> None:
        if self._worker is None or self._worker.abort_requested:
            return
        self.progress.setRange(0, progress.total)
        self.progress.setValue(progress.done)
        job = self._worker.job
        parts = [progress.stage]
        if progress.seconds_left is not None:
            parts.append(f"{duration(progress.seconds_left)} left")
        spent = time.monotonic() - self._started
        if progress.done and spent > 1:
            pixels = job.stack.n_times * job.stack.n_slices
            pixels *= job.stack.height * job.stack.width
            speed = pixels * progress.done / progress.total / spent
            parts.append(f"{speed / _MB:.2g} Mpx/s")
        parts.append(memory_in_use(job.options["device"]))
        if self._left:
            parts.append(f"{len(self._left)} more in the queue")
        self.status.setText(", ".join(parts))

    def _on_returned(self, layers: list[LayerData]) -> None:
        added = [Layer.create(*data) for data in layers]
        for layer in added:
            self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = added[0]
        for source in self._sources:
            if source in self._viewer.layers and not covers(source.blending):
                source.visible = False  # or the two would add up
        provenance = added[0].metadata[METADATA]
        for note in provenance.get("notes", ()):
            show_warning(note)
        spent = duration(time.monotonic() - self._started)
        device = _device_text(provenance["device"])
        self.status.setText(f"Done in {spent} on {device}.")
        assert self._worker is not None
        self._queue = [one for one in self._queue if one[0] is not self._worker.job]

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
        self._worker, self._sources = None, ()
        if self._left:
            self._next()
            return
        self._list_queue()
        self.ended.emit()


def _form() -> QFormLayout:
    form = QFormLayout()
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def _automatic(low: int, high: int, step: int, unit: str, tip: str) -> QSpinBox:
    """A number whose lowest value stands for automatic."""
    field = QSpinBox()
    field.setRange(low, high)
    field.setSingleStep(step)
    field.setSuffix(unit)
    field.setSpecialValueText("Automatic")
    field.setToolTip(tip)
    return field


def ask_where(parent: QWidget, name: str, size: int) -> str:
    """Ask where a large result shall go.

    Parameters
    ----------
    parent
        The window that waits.
    name
        Name of the stack.
    size
        Bytes of its result.

    Returns
    -------
    str
        ``"zarr"``, ``"memory"``, or ``""`` for nowhere.
    """
    free = psutil.virtual_memory().available
    box = QMessageBox(parent)
    box.setWindowTitle("Large result")
    box.setText(
        f"The result of {name!r} takes {byte_text(size)}, and {byte_text(free)} of "
        "memory are free."
    )
    box.setInformativeText(
        "Written to an OME-Zarr, it is shown from disk and takes hardly any memory."
    )
    written: Any = box.addButton(
        "Write to OME-Zarr …", QMessageBox.ButtonRole.AcceptRole
    )
    held: Any = box.addButton("Keep in memory", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(written)
    box.exec()
    clicked: Any = box.clickedButton()
    return {written: "zarr", held: "memory"}.get(clicked, "")


def ask_path(parent: QWidget, name: str) -> str:
    """Ask for the name of a new OME-Zarr; empty if there is to be none."""
    usual = "".join(c if c.isalnum() or c in "-_ " else "_" for c in name)
    path, _ = QFileDialog.getSaveFileName(
        parent, "Write the result to", f"{usual}_fused.ome.zarr", "OME-Zarr (*.zarr)"
    )
    if path and not path.endswith(".zarr"):
        path += ".ome.zarr"
    return path


def result_bytes(stack: FocusStack, scale: int = 1) -> int:
    """Bytes of the fused image and all maps of a stack."""
    plane = stack.n_times * stack.height * stack.width
    fused = stack.n_components * stack.dtype.itemsize * scale**2
    maps = 2 + 4 + 4 + (4 if scale > 1 else 0)
    return plane * (fused + maps)


def byte_text(size: float) -> str:
    """Bytes in words: ``"3.2 GB"``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def memory_in_use(device: str) -> str:
    """How much memory the process holds, and of which device."""
    import torch

    if torch.cuda.is_available() and device != "cpu":
        index = torch.device(device).index if device.startswith("cuda") else None
        return f"{byte_text(torch.cuda.memory_allocated(index))} on the card"
    return f"{byte_text(psutil.Process().memory_info().rss)} of memory"


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


def are_slices(layers: Sequence[Any]) -> bool:
    """Whether layers can be the slices of one stack: two or more flat ones alike."""
    return len(layers) > 1 and all(
        isinstance(layer, Image)
        and layer.ndim == 2
        and METADATA not in layer.metadata
        and alike(layer, layers[0])
        for layer in layers
    )


def alike(one: Image, other: Image) -> bool:
    """Whether two layers may be channels of one image."""
    a, b = level_0(one), level_0(other)
    return (one.rgb, a.shape, a.dtype) == (other.rgb, b.shape, b.dtype)


def describe(layers: Sequence[Image], axes: str) -> str:
    """Say in a line what a stack holds.

    Parameters
    ----------
    layers
        One image layer, or a flat one a slice.
    axes
        What the axes of the stack are, one letter each.
    """
    shape = level_0(layers[0]).shape
    if len(layers) > 1:
        shape = (len(layers), *shape)
    size = dict(zip(axes, shape, strict=False))
    parts = [f"{size['Z']} slices", f"{size['X']} × {size['Y']} px"]
    if "C" in size:
        parts.append(f"{size['C']} channels")
    if "T" in size:
        parts.append(f"{size['T']} time points")
    dtype = np.dtype(level_0(layers[0]).dtype)
    parts.append("RGB" if layers[0].rgb else str(dtype))
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Words for a length of time, as exact as anyone wants to know."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


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
