"""The widget *Fine-tune focus model*."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari.layers import Image, Layer, Shapes
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QSpinBox,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import create_worker

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.fine_tuned import free_name, path_of_name, read_header
from napari_focus_fusion.models.registry import models, models_folder, our_models
from napari_focus_fusion.plugin.adapters.finetuning import (
    FineTuneJob,
    Look,
    Row,
    compare_job,
    explain,
    finetune_job,
    region_on_screen,
)
from napari_focus_fusion.plugin.adapters.layers import (
    guess_axes,
    layers_from_files,
    level_0,
)
from napari_focus_fusion.plugin.adapters.preferences import preferences
from napari_focus_fusion.plugin.adapters.preview import index_on_screen
from napari_focus_fusion.plugin.adapters.sources import is_slice, is_stack
from napari_focus_fusion.plugin.common.choice import (
    Choice,
    ModelChoice,
    form_layout,
    more_button,
    refresh_model_lists,
    wrapped_label,
)
from napari_focus_fusion.plugin.common.devices import Machine, look_at_machine
from napari_focus_fusion.plugin.common.job_widget import JobWidget
from napari_focus_fusion.plugin.common.scroll_area import Tall
from napari_focus_fusion.plugin.common.settings import recall, remember
from napari_focus_fusion.plugin.common.stack_choice import AxesChoice
from napari_focus_fusion.plugin.common.texts import describe, duration
from napari_focus_fusion.plugin.finetune.views import BeforeAfter, LossPlot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari

    from napari_focus_fusion.models.registry import ModelSpec
    from napari_focus_fusion.plugin.common.worker import FuseWorker
    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.result import LayerData
    from napari_focus_fusion.training.finetune import FineTuneResult

NAME = "finetune"
STEPS, MINUTES = 300, 5


class FineTuneWidget(JobWidget):
    """Fine-tune a model on image layers of the viewer; docked by napari.

    From a script: set ``chosen`` to a list of layers, the ``value`` of ``model``,
    ``where``, ``unit``, ``reference`` and ``device``, and, of a layer that alone is
    chosen, of ``z_axis`` and ``other_axes``, call ``length.setValue``,
    ``patch.setValue``, ``holdout.setValue``, ``rate.setValue``, ``seed.setValue`` and
    ``name.setText``, and call :meth:`start`.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen, and where pictures to compare go.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._machine: Machine | None = None
        self._stopped: FineTuneJob | None = None
        self._pair: tuple[Any, Any] | None = None
        self._known: dict[str, ModelSpec] = {}
        # How the axes of layers are read, where that is not as they are guessed.
        self._readings: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self._rows: list[dict[str, float]] = []
        self._seconds: dict[str, float] = recall(NAME).get("seconds_a_step", {})
        self._clock: tuple[float, float] | None = None
        #: What came of the last run.
        self.result: FineTuneResult | None = None

        self._make_fields()
        self._make_foot()
        self.tabs = QTabWidget()
        self.tabs.addTab(self._settings_page(), "Settings")
        self.tabs.addTab(self._progress_page(), "Progress")
        layout = QVBoxLayout(self)
        layout.addWidget(self.tabs, 1)
        layout.addLayout(self._foot)
        self._connect()
        self._on_models()
        self._change_unit()
        self._say_of_name("")
        self._unfold(False)
        self.reset_choices()
        self._follow()
        create_worker(
            get_ready,
            _connect={"returned": self._on_machine, "errored": self._on_no_machine},
        )

    # The form

    def _make_fields(self) -> None:
        self.model = ModelChoice(
            "What the tuned model begins as: those that learn without labels.",
            can_be_tuned,
        )
        self.summary = wrapped_label()
        self.stacks = QListWidget()
        self.stacks.setMaximumHeight(92)
        self.stacks.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.stacks.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.stacks.setToolTip(
            "The focus stacks to learn from: tick one or several, best those that you\n"
            "want to fuse, or a few like them. All time points count."
        )
        self.files_button = QPushButton("Open f&iles …")
        self.files_button.setToolTip(
            "Open a stack from a file, or from pictures of one slice each, in the "
            "order of the numbers in their names."
        )
        self.holds = wrapped_label()
        self.where = Choice(
            "Which part of the stacks it learns from, and is judged by. To choose\n"
            "regions, draw rectangles in a Shapes layer."
        )
        self.reference = Choice("Where sharpness is looked for.")
        self.length = QSpinBox()
        self.unit = Choice(
            "Steps: the same result every time. Minutes: as many steps as fit in.",
            [("steps", "steps"), ("minutes", "minutes")],
        )
        self.unit.setMinimumContentsLength(7)
        self.estimate = wrapped_label()
        self.name = QLineEdit()
        self.name.setMaxLength(64)
        self.name.setToolTip(
            "What the tuned model is called in all lists of models: letters, digits,\n"
            "- and _. No model is ever replaced."
        )
        self.hint = wrapped_label()
        self.device = Choice("Where it learns.", [("Automatic", "auto")])
        self._axes = AxesChoice()
        self.z_axis, self.other_axes = self._axes.z_axis, self._axes.other_axes
        self.patch = QSpinBox()
        self.patch.setRange(32, 512)
        self.patch.setSingleStep(16)
        self.patch.setSuffix(" px")
        self.patch.setSpecialValueText("Automatic")
        self.patch.setToolTip(
            "Side of the patches that it learns from. Automatic: 64, or 48 where the "
            "stacks are small."
        )
        self.holdout = QSpinBox()
        self.holdout.setRange(5, 50)
        self.holdout.setValue(20)
        self.holdout.setSuffix(" %")
        self.holdout.setToolTip(
            "Share of the stacks that it never learns from, and by which it is judged."
        )
        self.rate = QDoubleSpinBox()
        self.rate.setDecimals(5)
        self.rate.setRange(0, 1)
        self.rate.setSingleStep(0.0005)
        self.rate.setSpecialValueText("Automatic")
        self.rate.setToolTip(
            "Learning rate. Automatic: that which the model was trained with. Lower it "
            "if the held-back error jumps."
        )
        self.seed = QSpinBox()
        self.seed.setRange(0, 999_999)
        self.seed.setToolTip(
            "Of all that is chosen at random: the same seed gives the same model."
        )

    def _settings_page(self) -> QWidget:
        self._labels: dict[QWidget, QLabel] = {}
        stacks = QVBoxLayout()
        stacks.addWidget(self.stacks)
        stacks.addWidget(self.files_button, 0, Qt.AlignmentFlag.AlignRight)
        length = QHBoxLayout()
        length.addWidget(self.length, 1)
        length.addWidget(self.unit, 1)
        form = form_layout()
        self._add_row(form, "&Model", self.model)
        self._add_row(form, "", self.summary)
        self._add_row(form, "&Stacks", self.stacks, stacks)
        self._add_row(form, "", self.holds)
        self._add_row(form, "Learn &from", self.where)
        self._add_row(form, "Sh&arpness from", self.reference)
        self._add_row(form, "&Length", self.length, length)
        self._add_row(form, "", self.estimate)
        self._add_row(form, "&Name", self.name)
        self._add_row(form, "", self.hint)
        self._add_row(form, "&Device", self.device)
        self.more = more_button()
        self._folded = QWidget()
        folded = form_layout()
        folded.setContentsMargins(0, 0, 0, 0)
        self._folded.setLayout(folded)
        self._add_row(folded, "&Z axis", self.z_axis)
        self._add_row(folded, "Other a&xes", self.other_axes)
        self._add_row(folded, "Patc&h", self.patch)
        self._add_row(folded, "Hold &back", self.holdout)
        self._add_row(folded, "Learnin&g rate", self.rate)
        self._add_row(folded, "S&eed", self.seed)

        page = QWidget()
        layout = QVBoxLayout(page)
        layout.addLayout(form)
        layout.addWidget(self.more)
        layout.addWidget(self._folded)
        layout.addStretch()
        return Tall(page)

    def _add_row(
        self, form: QFormLayout, title: str, field: QWidget, content: Any = None
    ) -> None:
        self._labels[field] = label = QLabel(title)
        if title:
            label.setBuddy(field)
        form.addRow(label, field if content is None else content)

    def _progress_page(self) -> QWidget:
        self.plot, self.pictures = LossPlot(), BeforeAfter()
        self.verdict = wrapped_label()
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.addWidget(self.verdict)
        layout.addWidget(self.plot)
        layout.addWidget(self.pictures, 1)
        return Tall(page)

    def _make_foot(self) -> None:
        self.start_button = QPushButton("S&tart")
        self.start_button.setToolTip("Begin to learn.")
        self.cancel_button.setText("Sto&p")
        self.cancel_button.setToolTip(
            "End before the next step, and keep the best so far. It can be resumed."
        )
        self.resume_button = QPushButton("&Resume")
        self.resume_button.setToolTip(
            "Go on with the run that was stopped, as it was begun."
        )
        self.compare_button = QPushButton("&Compare on the view")
        self.compare_button.setToolTip(
            "Fuse what is in view with the parent and with the tuned model, and lay "
            "the pictures side by side."
        )
        buttons = QHBoxLayout()
        buttons.addWidget(self.start_button, 2)
        buttons.addWidget(self.cancel_button, 1)
        buttons.addWidget(self.resume_button, 1)
        self._foot = QVBoxLayout()
        self._foot.addLayout(buttons)
        self._foot.addWidget(self.compare_button)
        self._foot.addWidget(self.progress)
        self._foot.addWidget(self.status)

    def _connect(self) -> None:
        self.model.changed.connect(self._describe_model)
        self.model.refreshed.connect(self._on_models)
        self.stacks.itemChanged.connect(self._on_ticked)
        self._axes.changed.connect(self._on_axes)
        self.unit.changed.connect(self._change_unit)
        self.length.valueChanged.connect(self._estimate)
        self.device.changed.connect(self._estimate)
        self.name.textEdited.connect(self._on_named)
        self.more.toggled.connect(self._unfold)
        self.files_button.clicked.connect(self._choose_files)
        self.start_button.clicked.connect(self.start)
        self.resume_button.clicked.connect(self.resume)
        self.compare_button.clicked.connect(self.compare)
        self._viewer.layers.selection.events.active.connect(self._follow)

    # What can be chosen

    @property
    def chosen(self) -> list[Image]:
        """The layers that are ticked."""
        return [item.data(_LAYER) for item in self._items() if _is_ticked(item)]

    @chosen.setter
    def chosen(self, layers: Sequence[Image]) -> None:
        for item in self._items():
            item.setCheckState(_TICKED if item.data(_LAYER) in layers else _UNTICKED)

    def _items(self) -> list[QListWidgetItem]:
        found = (self.stacks.item(row) for row in range(self.stacks.count()))
        return [item for item in found if item is not None]

    def reset_choices(self, event: Any = None) -> None:
        """List the layers anew; napari calls it whenever they change."""
        stacks = [layer for layer in self._viewer.layers if is_stack(layer)]
        ticked = [layer for layer in self.chosen if layer in stacks] or stacks[-1:]
        self.stacks.blockSignals(True)
        self.stacks.clear()
        for layer in stacks:
            item = QListWidgetItem(layer.name)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setData(_LAYER, layer)
            item.setToolTip(describe([layer], self.axes_of(layer)))
            item.setCheckState(_TICKED if layer in ticked else _UNTICKED)
            self.stacks.addItem(item)
        self.stacks.blockSignals(False)
        self.where.set_choices(
            [
                ("Everything", "all"),
                ("What is in view", "view"),
                *(
                    (f"Shapes of {layer.name}", layer)
                    for layer in self._viewer.layers
                    if isinstance(layer, Shapes)
                ),
            ]
        )
        self._on_ticked()

    def _follow(self, event: Any = None) -> None:
        """Tick the stack that is selected in the viewer, unless several are ticked."""
        active = self._viewer.layers.selection.active
        if self.idle and is_stack(active) and len(self.chosen) < 2:
            self.reset_choices()
            self.chosen = [active]

    def _on_ticked(self) -> None:
        chosen = self.chosen
        alone = chosen[0] if len(chosen) == 1 else None
        self._axes.show_layer(alone, alone and self._readings.get(alone))
        self._suggest_name()
        self._update_buttons()

    def _on_axes(self) -> None:
        chosen = self.chosen
        if len(chosen) == 1:
            (layer,), axes = chosen, self._axes.value
            self._readings[layer] = axes
            if axes == guess_axes(layer):
                del self._readings[layer]
        self._show_row(self.z_axis, len(chosen) == 1)
        self._show_row(self.other_axes, self.other_axes.count() > 1)
        if not chosen:
            self.holds.setText(self._advice())
        elif len(chosen) == 1:
            self.holds.setText(describe(chosen, self._axes.value))
        else:
            self.holds.setText(f"{len(chosen)} stacks")
        count = min(map(self._channels, chosen), default=1)
        self.reference.set_choices(
            [
                ("All channels", None),
                *((f"Channel {number}", number) for number in range(count)),
            ]
        )
        self._show_row(self.reference, count > 1)

    def _advice(self) -> str:
        """What to do where no stack is ticked."""
        if self.stacks.count():
            return "Tick a stack."
        if sum(map(is_slice, self._viewer.layers)) > 1:
            return (
                "To learn from layers of one slice each, select them in the layer list "
                "and choose Merge to Stack in the menu of a right click."
            )
        return "Open a focus stack."

    def axes_of(self, layer: Image) -> str:
        """What the axes of a layer are: as was chosen while it alone was ticked."""
        return self._readings.get(layer) or guess_axes(layer)

    def _channels(self, layer: Image) -> int:
        axes = self.axes_of(layer)
        return level_0(layer).shape[axes.index("C")] if "C" in axes else 1

    def _show_row(self, field: QWidget, shown: bool) -> None:
        field.setVisible(shown)
        self._labels[field].setVisible(shown)

    def _unfold(self, on: bool) -> None:
        self._folded.setVisible(on)
        arrow = Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow
        self.more.setArrowType(arrow)

    def _on_models(self) -> None:
        """Note which models there are: looking for them takes time."""
        self._known = models()
        self._describe_model()

    def _describe_model(self) -> None:
        spec = self.model.spec
        self.summary.setText(spec.summary if spec else "")
        self._suggest_name()
        self._estimate()
        self._update_buttons()

    def _change_unit(self) -> None:
        by_steps = self.unit.value == "steps"
        self.length.setRange(1, 1_000_000 if by_steps else 10_000)
        self.length.setSingleStep(100 if by_steps else 1)
        self.length.setValue(STEPS if by_steps else MINUTES)
        self.length.setToolTip(
            "How many updates of the model."
            if by_steps
            else "How long it learns; reading and judging come on top."
        )
        self._estimate()

    def _estimate(self) -> None:
        """Say how long the steps take, or how many fit in, as seen in the last run."""
        seconds = self._seconds.get(self._kind_of_run())
        if seconds is None:
            self.estimate.setText("How long a step takes is measured in the first run.")
        elif self.unit.value == "steps":
            self.estimate.setText(
                f"About {duration(seconds * self.length.value())}, as measured here."
            )
        else:
            steps = max(round(60 * self.length.value() / seconds), 1)
            self.estimate.setText(f"About {steps} steps, as measured here.")

    def _kind_of_run(self) -> str:
        """What decides how long a step takes, in a word."""
        spec = self.model.spec
        return "" if spec is None else f"{spec.base or spec.name} {self.device.value}"

    # The name

    def _suggest_name(self) -> None:
        """A name that is free, until another one is typed."""
        spec, chosen = self.model.spec, self.chosen
        if self.idle and not self._is_named() and spec and chosen:
            wish = f"{chosen[0].name[:40]}-{spec.base or spec.name}"
            self._suggested = free_name(wish, self._known)
            self.name.setText(self._suggested)
            self._say_of_name("")

    def _is_named(self) -> bool:
        """Whether the name is one that was typed."""
        return bool(self.name.text()) and self.name.text() != self._suggested

    _suggested = ""

    def _on_named(self) -> None:
        """Say at once if a name cannot be had, or is that of a run that was stopped."""
        name = self.name.text()
        try:
            if (models_folder() / f"{name}.checkpoint").exists():
                self._find_left_over(name)
                return
            path_of_name(name, self._known)
            self._say_of_name("")
        except FocusFusionError as error:
            self._say_of_name(str(error))

    def _say_of_name(self, text: str) -> None:
        self.hint.setText(text)
        self._show_row(self.hint, bool(text))

    def _find_left_over(self, name: str) -> None:
        from napari_focus_fusion.training.finetune import stopped_at

        step, steps = stopped_at(models_folder() / f"{name}.checkpoint")
        self._say_of_name(
            f"A run of this name was stopped at step {step} of {steps}. Start goes on "
            "from there, if all else is chosen as it was."
        )
        if steps:
            self.unit.value = "steps"
            self.length.setValue(steps)

    # Running

    def _on_machine(self, machine: Machine) -> None:
        self._machine = machine
        self.device.set_choices(machine.devices)
        wanted = getattr(preferences(), "device", "auto")
        if wanted in self.device.values:
            self.device.value = wanted
        self._estimate()
        self._update_buttons()

    def _on_no_machine(self, error: Exception) -> None:
        show_error(f"Focus Fusion cannot load PyTorch ({error}). Install it again.")

    def _update_buttons(self) -> None:
        super()._update_buttons()
        idle = self.idle
        ready = idle and self._machine is not None
        for field in (*self._labels, self.unit, self.files_button):
            field.setEnabled(idle)
        self.start_button.setEnabled(
            ready and bool(self.chosen) and self.model.spec is not None
        )
        self.resume_button.setEnabled(ready and self._stopped is not None)
        self.compare_button.setEnabled(
            ready and bool(self.chosen) and self._to_compare() is not None
        )

    @property
    def _job(self) -> Any:
        return None if self._worker is None else self._worker.job

    def job(self) -> FineTuneJob:
        """Take down what is chosen now.

        Raises
        ------
        FocusFusionError
            If it cannot be fine-tuned on.
        """
        chosen, where, spec = self.chosen, self.where.value, self.model.spec
        if not chosen:
            raise FocusFusionError(
                "There is no focus stack to learn from. Open one, and tick it."
            )
        if not self.name.text():
            raise FocusFusionError("The tuned model has no name. Give it one.")
        if spec is not None and spec.base:
            read_header(Path(spec.weights))  # says so if it is damaged
        regions: Any = where
        if where == "all":
            regions = None
        elif where == "view":
            self._check_flat()
            regions = [
                [region_on_screen(layer, self.axes_of(layer))] for layer in chosen
            ]
        length: dict[str, Any] = {self.unit.value: self.length.value()}
        return finetune_job(
            chosen,
            self.model.value,
            axes=[self.axes_of(layer) for layer in chosen],
            regions=regions,
            around=self._middle_of_view(chosen[0]) if where != "all" else None,
            patch=self.patch.value() if self.patch.value() > 32 else None,
            reference=self.reference.value,
            device=self.device.value,
            name=self.name.text(),
            holdout=self.holdout.value() / 100,
            lr=self.rate.value() or None,
            seed=self.seed.value(),
            **length,
        )

    def start(self) -> Any:
        """Begin to learn from what is chosen.

        Returns
        -------
        FuseWorker
            Running; or None where what is chosen cannot be used, which a notification
            says, or a run is on already.
        """
        if not self.idle:
            return None
        try:
            job = self.job()
        except FocusFusionError as error:
            self._say(str(error))
            return None
        self._rows = []
        self.pictures.clear()
        return self._learn(job)

    def resume(self) -> Any:
        """Go on with the run that was stopped, as it was begun.

        Returns
        -------
        FuseWorker
            Running; or None where there is none, or a run is on already.
        """
        if not self.idle or self._stopped is None:
            return None
        return self._learn(replace(self._stopped, stop=threading.Event()))

    def _learn(self, job: FineTuneJob) -> FuseWorker | None:
        self._clock = self._stopped = None
        self.verdict.clear()
        self.tabs.setCurrentIndex(1)
        self.cancelled = "Stopped before the first step."
        return self._run(job, self._on_tuned, f"Fine-tuning on {job.names}")

    def cancel(self) -> None:
        """End before the next step; what is best so far is kept."""
        if not isinstance(self._job, FineTuneJob):
            super().cancel()
            return
        self._job.stop.set()
        self.cancel_button.setEnabled(False)
        self.status.setText("Stopping, and comparing it with its parent …")

    def _on_progressed(self, news: Progress | Row | Look) -> None:
        job = self._job
        if self._worker is None or self._worker.abort_requested:
            return
        if isinstance(news, Row):
            self._on_row(news.values)
        elif isinstance(news, Look):
            step = int(self._rows[-1]["step"]) + 1 if self._rows else 0
            self.pictures.show_look(news, (f"Parent: {job.model}", f"Step {step}"))
        else:
            self.progress.setRange(0, news.total)
            self.progress.setValue(news.done)
            if isinstance(job, FineTuneJob) and job.stop.is_set():
                return
            words = [news.stage]
            if self._rows and news.stage == "Training":
                words.append(f"step {self._rows[-1]['step']:.0f}{self._of_steps()}")
            if news.seconds_left is not None:
                words.append(f"{duration(news.seconds_left)} left")
            self.status.setText(", ".join(words))

    def _of_steps(self) -> str:
        steps = self._job.options.get("steps")
        return f" of {steps}" if steps else ""

    def _on_row(self, row: dict[str, float]) -> None:
        self._rows.append(row)
        self.plot.show_rows(self._rows, self._job.options.get("steps", 0))
        now, step = time.monotonic(), row["step"]
        if self._clock is None:
            self._clock = (now, step)
        elif step > self._clock[1]:
            began, first = self._clock
            self._seconds[self._kind_of_run()] = (now - began) / (step - first)
            self._estimate()

    def _on_tuned(self, result: FineTuneResult) -> None:
        self.result = result
        job = self._job
        if result.stopped == "asked":
            self._stopped = job
        name = job.options["name"]
        self.plot.show_rows(result.history, int(result.history[-1]["step"]))
        text = result.verdict
        if result.better:
            text += f" It is in all lists of models as {name!r}."
            self._pair = (job.model, name)
        if result.stopped == "asked":
            text += " Resume goes on where it was stopped."
        self.verdict.setText(text)
        self.status.setText("Done; the verdict is under Progress.")
        (show_info if result.better else show_warning)(text)
        refresh_model_lists()

    def _stack_name(self) -> str:
        return "" if self._job is None else self._job.names

    def _explain(self, error: Exception) -> str:
        return explain(error, self._stack_name())

    def _go_on(self) -> None:
        remember(NAME, {"seconds_a_step": self._seconds})
        if self._stopped is None and not self._keeps_name():
            self._suggest_name()
        super()._go_on()

    def _keeps_name(self) -> bool:
        """Whether the name can still be had."""
        with suppress(FocusFusionError):
            path_of_name(self.name.text(), self._known)
            return True
        self._suggested = self.name.text()  # taken now: suggest another one
        return False

    def _on_closed(self) -> None:
        self._stopped = None
        super().cancel()

    # The viewer

    def _choose_files(self) -> None:
        paths, _ = QFileDialog.getOpenFileNames(self, "Open a focus stack")
        if paths:
            self.open_files(paths)

    def open_files(self, paths: Sequence[str | Path]) -> None:
        """Open files as one stack, as a layer that is ticked."""
        try:
            added = [Layer.create(*data) for data in layers_from_files(paths)]
        except FocusFusionError as error:
            self._say(str(error))
            return
        ticked = self.chosen
        for layer in added:
            self._viewer.add_layer(layer)
        self.chosen = [*ticked, *added]

    def _check_flat(self) -> None:
        if self._viewer.dims.ndisplay != 2:
            raise FocusFusionError(
                "Go back from 3-D to the 2-D view, to choose a part."
            )

    def _middle_of_view(self, layer: Image) -> tuple[int, int, int] | None:
        axes = self.axes_of(layer)
        try:
            top, left, bottom, right = region_on_screen(layer, axes)
        except FocusFusionError:
            return None
        t = index_on_screen(layer, axes, self._viewer).get("T", 0)
        return t, (top + bottom) // 2, (left + right) // 2

    def _to_compare(self) -> tuple[Any, Any] | None:
        """Parent and child: of the last run, or else of the chosen model."""
        if self._pair is not None:
            return self._pair
        spec = self.model.spec
        if spec is None or not spec.base or not Path(spec.weights).is_file():
            return None
        with suppress(FocusFusionError):
            parent = read_header(Path(spec.weights)).get("parent", "")
            return (parent, spec.name) if parent in self._known else None
        return None

    def compare(self) -> Any:
        """Fuse what is in view with parent and child, side by side, as layers.

        Returns
        -------
        FuseWorker
            Running; or None where there is nothing to compare, which a notification
            says, or a run is on already.
        """
        pair, chosen = self._to_compare(), self.chosen
        if not self.idle or pair is None or not chosen:
            return None
        layer, axes = chosen[0], self.axes_of(chosen[0])
        try:
            self._check_flat()
            time_point = index_on_screen(layer, axes, self._viewer)
            job = compare_job(
                layer,
                *pair,
                axes=axes,
                region=region_on_screen(layer, axes),
                time=time_point.get("T"),
                reference=self.reference.value,
                device=self.device.value,
            )
        except FocusFusionError as error:
            self._say(str(error))
            return None
        self.cancelled = "Stopped; no layer was added."
        return self._run(job, self._on_compared, f"Comparing on {layer.name!r}")

    def _on_compared(self, layers: list[LayerData]) -> None:
        added = [Layer.create(*data) for data in layers]
        for layer in added:
            self._viewer.add_layer(layer)
        shown = [layer for layer in added if layer.visible]
        extents = [layer.extent.world[:, -2:] for layer in shown]
        middle = (extents[0][0] + extents[-1][1]) / 2
        camera = getattr(self._viewer, "scene", self._viewer).camera
        camera.center = (*camera.center[:-2], *middle)
        camera.zoom /= 2
        self._viewer.layers.selection.active = shown[-1]
        self.status.setText(
            f"Left: {self._job.parent}. Right: {self._job.child}. Their decision maps "
            "are in the layer list."
        )


_LAYER = Qt.ItemDataRole.UserRole
_TICKED, _UNTICKED = Qt.CheckState.Checked, Qt.CheckState.Unchecked


def can_be_tuned(spec: ModelSpec) -> bool:
    """Whether a model learns without labels; those of other packages do not here."""
    return spec.self_supervised and (spec.base or spec.name) in our_models()


def get_ready() -> Machine:
    """Load what takes seconds to load, and see which devices there are."""
    import_module("napari_focus_fusion.training.finetune")
    return look_at_machine()


def _is_ticked(item: QListWidgetItem) -> bool:
    return item.checkState() == _TICKED
