"""The settings of a fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Shapes
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.fine_tuned import read_header
from napari_focus_fusion.models.registry import models, our_models
from napari_focus_fusion.plugin.adapters.finetuning import (
    FineTuneJob,
    finetune_job,
    region_in_view,
    region_on_screen,
)
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.plugin.adapters.preview import index_on_screen
from napari_focus_fusion.plugin.common.combo_boxes import (
    ModelComboBox,
    ValueComboBox,
    form_layout,
    more_button,
    push_button,
    wrapped_label,
)
from napari_focus_fusion.plugin.common.fields import FloatField, IntField
from napari_focus_fusion.plugin.common.stack_fields import AxesFields
from napari_focus_fusion.plugin.finetune.fields import (
    LengthFields,
    NameField,
    StacksField,
)

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_focus_fusion.models.registry import ModelSpec


class FineTuneSettings(QWidget):
    """Fields for stacks, model and training; they make a job.

    Parameters
    ----------
    viewer
        Whose layers can be chosen.

    Attributes
    ----------
    known
        All available models, by name.
    """

    #: A setting has changed, or the available models or layers.
    changed = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.known: dict[str, ModelSpec] = {}
        self._labels: dict[QWidget, QLabel] = {}
        self._make_fields()
        self._make_rare_fields()
        layout = QVBoxLayout(self)
        layout.addLayout(self._form())
        layout.addWidget(self.more)
        layout.addWidget(self._folded)
        layout.addStretch()
        self._connect()
        self._on_models()
        self._show_hint()
        self._unfold(False)
        self.reset_choices()
        self.stacks.follow()

    # Layout

    def _make_fields(self) -> None:
        self.model = ModelComboBox(
            "What the tuned model begins as: those that learn without labels.",
            can_be_tuned,
            first="sesf",  # the quickest to tune
        )
        self.summary = wrapped_label()
        self.stacks = StacksField(self._viewer)
        self.files_button = push_button(
            "Open f&iles …",
            "Open a stack from a file, or from pictures of one slice each, of which "
            "the names say what is a slice, a channel or a time point.",
        )
        self.holds = wrapped_label()
        self.where = ValueComboBox(
            "Which part of the stacks it learns from, and is judged by. To choose\n"
            "regions, draw rectangles in a Shapes layer."
        )
        self.reference = ValueComboBox("Where sharpness is looked for.")
        self._length = LengthFields()
        self.length, self.unit = self._length.number, self._length.unit
        self.estimate = self._length.estimate
        self.name = NameField()
        self.hint = wrapped_label()
        self.device = ValueComboBox("Where it learns.", [("Automatic", "auto")])

    def _make_rare_fields(self) -> None:
        self._axes = AxesFields()
        self.z_axis, self.other_axes = self._axes.z_axis, self._axes.other_axes
        self.patch = IntField()
        self.patch.setRange(32, 512)
        self.patch.setSingleStep(16)
        self.patch.setSuffix(" px")
        self.patch.setSpecialValueText("Automatic")
        self.patch.setToolTip(
            "Side of the patches that it learns from. Automatic: 64, or 48 where the "
            "stacks are small."
        )
        self.holdout = IntField()
        self.holdout.setRange(5, 50)
        self.holdout.setValue(20)
        self.holdout.setSuffix(" %")
        self.holdout.setToolTip(
            "Share of the stacks that it never learns from, and by which it is judged."
        )
        self.rate = FloatField()
        self.rate.setDecimals(5)
        self.rate.setRange(0, 1)
        self.rate.setSingleStep(0.0005)
        self.rate.setSpecialValueText("Automatic")
        self.rate.setToolTip(
            "Learning rate. Automatic: that which the model was trained with. Lower it "
            "if the validation error jumps."
        )
        self.seed = IntField()
        self.seed.setRange(0, 999_999)
        self.seed.setToolTip(
            "Of all that is chosen at random: the same seed gives the same model."
        )

    def _form(self) -> QFormLayout:
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
        self._add_row(folded, "Validation", self.holdout)
        self._add_row(folded, "Learnin&g rate", self.rate)
        self._add_row(folded, "S&eed", self.seed)
        return form

    def _add_row(
        self, form: QFormLayout, title: str, field: QWidget, content: Any = None
    ) -> None:
        self._labels[field] = label = QLabel(title)
        if title:
            label.setBuddy(field)
        form.addRow(label, field if content is None else content)

    def _show_row(self, field: QWidget, shown: bool) -> None:
        field.setVisible(shown)
        self._labels[field].setVisible(shown)

    def _unfold(self, on: bool) -> None:
        self._folded.setVisible(on)
        arrow = Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow
        self.more.setArrowType(arrow)

    def _connect(self) -> None:
        self.model.changed.connect(self._describe_model)
        self.model.refreshed.connect(self._on_models)
        self.stacks.changed.connect(self._on_stacks)
        self._axes.changed.connect(self._on_axes)
        self.device.changed.connect(self._show_kind)
        self.name.hinted.connect(self._show_hint)
        self.name.stopped_run_named.connect(self._length.set_steps)
        self.more.toggled.connect(self._unfold)

    def freeze(self, frozen: bool) -> None:
        """Disable all fields during a run."""
        for field in (*self._labels, self.unit, self.files_button):
            field.setEnabled(not frozen)

    # Available values

    def reset_choices(self) -> None:
        """List the layers of the viewer."""
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
        self.stacks.refresh()

    def _on_stacks(self) -> None:
        chosen = self.stacks.value
        alone = chosen[0] if len(chosen) == 1 else None
        doubt = alone is not None and self.stacks.doubt_about(alone)
        axes = None if alone is None or doubt else self.stacks.axes_of(alone)
        self._axes.show_layer(alone, axes)
        self.suggest_name()
        self.changed.emit()

    def _on_axes(self) -> None:
        chosen = self.stacks.value
        if len(chosen) == 1:
            self.stacks.set_axes(chosen[0], self._axes.value)
        self._show_row(self.z_axis, len(chosen) == 1)
        self._show_row(self.other_axes, self.other_axes.count() > 1)
        self.holds.setText(self.stacks.summary)
        count = self.stacks.channels
        self.reference.set_choices(
            [
                ("All channels", None),
                *((f"Channel {number}", number) for number in range(count)),
            ]
        )
        self._show_row(self.reference, count > 1)

    def _on_models(self) -> None:
        """Read the available models once: searching for them takes time."""
        self.known = models(models_folder())
        self.name.set_known(self.known)
        self._describe_model()

    def _describe_model(self) -> None:
        spec = self.model.spec
        self.summary.setText(spec.summary if spec else "")
        self.suggest_name()
        self._show_kind()
        self.changed.emit()

    def _show_kind(self) -> None:
        """The duration of a step depends on the model and the device."""
        spec = self.model.spec
        kind = f"{spec.base or spec.name} {self.device.value}" if spec else ""
        self._length.show_kind(kind)

    def suggest_name(self) -> None:
        """Name the tuned model after stack and model, unless a name was typed."""
        spec, chosen = self.model.spec, self.stacks.value
        if spec and chosen:
            self.name.suggest(f"{chosen[0].name[:40]}-{spec.base or spec.name}")

    def _show_hint(self) -> None:
        self.hint.setText(self.name.hint)
        self._show_row(self.hint, bool(self.name.hint))

    def note_speed(self, seconds: float) -> None:
        """Store the seconds a step of the current run takes."""
        self._length.note_speed(seconds)

    def remember(self) -> None:
        """Store the measured speeds for the next session."""
        self._length.remember()

    # Chosen values

    def job(self) -> FineTuneJob:
        """Make a job of the present settings.

        Raises
        ------
        FocusFusionError
            If it cannot be fine-tuned on.
        """
        chosen, where, spec = self.stacks.value, self.where.value, self.model.spec
        if not chosen:
            raise FocusFusionError(
                "There is no focus stack to learn from. Open one, and tick it."
            )
        if not self.name.value:
            raise FocusFusionError("The tuned model has no name. Give it one.")
        if spec is not None and spec.base:
            read_header(Path(spec.weights))  # raises if the file is damaged
        length: dict[str, Any] = self._length.value
        return finetune_job(
            chosen,
            self.model.value,
            axes=[self.stacks.known_axes_of(layer) for layer in chosen],
            regions=self._regions(),
            around=self._middle_of_view(chosen[0]) if where != "all" else None,
            patch=self.patch.value if self.patch.value > 32 else None,
            reference=self.reference.value,
            device=self.device.value,
            folder=models_folder(),
            name=self.name.value,
            holdout=self.holdout.value / 100,
            lr=self.rate.value or None,
            seed=self.seed.value,
            **length,
        )

    def _regions(self) -> Any:
        """The regions to train on, as :func:`finetune_job` takes them."""
        if self.where.value == "all":
            return None
        if self.where.value == "view":
            return [
                [region_in_view(self._viewer, layer, self.stacks.known_axes_of(layer))]
                for layer in self.stacks.value
            ]
        return self.where.value

    def _middle_of_view(self, layer: Image) -> tuple[int, int, int] | None:
        axes = self.stacks.known_axes_of(layer)
        try:
            y, x = region_on_screen(layer, axes).centre
        except FocusFusionError:
            return None
        t = index_on_screen(layer, axes, self._viewer).get("T", 0)
        return t, y, x


def can_be_tuned(spec: ModelSpec) -> bool:
    """Whether a model of this package has self-supervised training."""
    return spec.self_supervised and (spec.base or spec.name) in our_models()
