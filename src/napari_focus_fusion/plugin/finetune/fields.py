"""Fields of the settings of a fine-tuning: stacks, length and name."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QLineEdit, QListWidget, QListWidgetItem

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.fine_tuned import free_name, path_of_name
from napari_focus_fusion.plugin.adapters.layers import (
    doubt_about_axes,
    guess_axes,
    level_0,
)
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.plugin.adapters.sources import is_slice, is_stack
from napari_focus_fusion.plugin.common.combo_boxes import ValueComboBox, wrapped_label
from napari_focus_fusion.plugin.common.fields import IntField
from napari_focus_fusion.plugin.common.settings import recall, remember
from napari_focus_fusion.plugin.common.texts import describe
from napari_focus_fusion.progress import duration_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import napari
    from napari.layers import Image

    from napari_focus_fusion.models.registry import ModelSpec

_REMEMBERED_AS = "finetune"
STEPS, MINUTES = 300, 5
_LAYER = Qt.ItemDataRole.UserRole
_TICKED, _UNTICKED = Qt.CheckState.Checked, Qt.CheckState.Unchecked


class StacksField(QListWidget):
    """The focus stacks of a viewer, to be ticked; its value is a list of layers.

    Parameters
    ----------
    viewer
        Whose layers can be chosen.
    """

    #: The ticked layers have changed, or the list of layers.
    changed = Signal()

    def __init__(self, viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        # Axes of layers, where they were chosen.
        self._axes: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self.setMaximumHeight(92)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setToolTip(
            "The focus stacks to learn from: tick one or several, best those that you\n"
            "want to fuse, or a few like them. All time points count."
        )
        self.itemChanged.connect(self.changed)
        viewer.layers.selection.events.active.connect(self.follow)

    @property
    def value(self) -> list[Image]:
        """The layers that are ticked."""
        return [item.data(_LAYER) for item in self._items() if _is_ticked(item)]

    @value.setter
    def value(self, layers: Sequence[Image]) -> None:
        before = self.value
        self.blockSignals(True)
        for item in self._items():
            item.setCheckState(_TICKED if item.data(_LAYER) in layers else _UNTICKED)
        self.blockSignals(False)
        if self.value != before:
            self.changed.emit()

    def _items(self) -> list[QListWidgetItem]:
        found = (self.item(row) for row in range(self.count()))
        return [item for item in found if item is not None]

    def refresh(self) -> None:
        """List the stacks in the viewer; ticked ones stay ticked."""
        stacks = [layer for layer in self._viewer.layers if is_stack(layer)]
        ticked = [layer for layer in self.value if layer in stacks] or stacks[-1:]
        self.blockSignals(True)
        self.clear()
        for layer in stacks:
            item = QListWidgetItem(layer.name)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setData(_LAYER, layer)
            item.setToolTip(describe([layer], self.axes_of(layer)))
            item.setCheckState(_TICKED if layer in ticked else _UNTICKED)
            self.addItem(item)
        self.blockSignals(False)
        self.changed.emit()

    def follow(self, event: Any = None) -> None:
        """Tick the stack that is selected in the viewer, unless several are ticked."""
        active = self._viewer.layers.selection.active
        if is_stack(active) and self.isEnabled() and len(self.value) < 2:
            self.refresh()
            self.value = [active]

    def axes_of(self, layer: Image) -> str:
        """Axes of a layer: those chosen while only it was ticked, or guessed."""
        return self._axes.get(layer) or guess_axes(layer)

    def doubt_about(self, layer: Image) -> str:
        """Why axes of a layer cannot be known, until they are chosen; else empty."""
        return "" if layer in self._axes else doubt_about_axes(layer)

    def known_axes_of(self, layer: Image) -> str:
        """Axes of a layer.

        Raises
        ------
        FocusFusionError
            If they cannot be known and were not chosen.
        """
        doubt = self.doubt_about(layer)
        if doubt:
            raise FocusFusionError(f"{doubt} Or tick it alone, and choose under Z.")
        return self.axes_of(layer)

    def set_axes(self, layer: Image, axes: str) -> None:
        """Store the axes chosen for a layer; empty: none are."""
        self._axes.pop(layer, None)
        if axes and (axes != guess_axes(layer) or doubt_about_axes(layer)):
            self._axes[layer] = axes

    @property
    def channels(self) -> int:
        """How many channels all ticked stacks have at least; 1 where none is ticked."""
        return min(map(self._channels, self.value), default=1)

    def _channels(self, layer: Image) -> int:
        axes = self.axes_of(layer)
        return level_0(layer).shape[axes.index("C")] if "C" in axes else 1

    @property
    def summary(self) -> str:
        """Description of the ticked stacks; advice where none is ticked."""
        layers = self.value
        if len(layers) == 1 and self.doubt_about(layers[0]):
            return "Which axis are the slices? Choose it under Z."
        if len(layers) == 1:
            return describe(layers, self.axes_of(layers[0]))
        if layers:
            return f"{len(layers)} stacks"
        if self.count():
            return "Tick a stack."
        if sum(map(is_slice, self._viewer.layers)) > 1:
            return (
                "To learn from layers of one slice each, select them in the layer list "
                "and choose Merge to Stack in the menu of a right click."
            )
        return "Open a focus stack."


def _is_ticked(item: QListWidgetItem) -> bool:
    return item.checkState() == _TICKED


class LengthFields(QObject):
    """Two fields for the length of a training; a form shows them.

    Attributes
    ----------
    number, unit
        The fields.
    estimate
        A label: duration of the steps, or how many fit in, at the last run's speed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number = IntField()
        self.unit = ValueComboBox(
            "Steps: the same result every time. Minutes: as many steps as fit in.",
            [("steps", "steps"), ("minutes", "minutes")],
        )
        self.unit.setMinimumContentsLength(7)
        self.estimate = wrapped_label()
        self._kind = ""
        self._seconds: dict[str, float] = recall(_REMEMBERED_AS).get(
            "seconds_a_step", {}
        )
        self.unit.changed.connect(self._change_unit)
        self.number.changed.connect(self._show_estimate)
        self._change_unit()

    @property
    def value(self) -> dict[str, int]:
        """The keyword argument of :func:`napari_focus_fusion.finetune`."""
        return {self.unit.value: self.number.value}

    def set_steps(self, steps: int) -> None:
        """Choose a number of steps."""
        self.unit.value = "steps"
        self.number.value = steps

    def show_kind(self, kind: str) -> None:
        """Estimate for another kind of run: a key of the model and device."""
        self._kind = kind
        self._show_estimate()

    def note_speed(self, seconds: float) -> None:
        """Store the seconds a step of a run of this kind takes."""
        self._seconds[self._kind] = seconds
        self._show_estimate()

    def remember(self) -> None:
        """Store for the next session how long steps take."""
        remember(_REMEMBERED_AS, {"seconds_a_step": self._seconds})

    def _change_unit(self) -> None:
        by_steps = self.unit.value == "steps"
        self.number.setRange(1, 1_000_000 if by_steps else 10_000)
        self.number.setSingleStep(100 if by_steps else 1)
        self.number.setValue(STEPS if by_steps else MINUTES)
        self.number.setToolTip(
            "How many updates of the model."
            if by_steps
            else "How long it learns; reading and judging come on top."
        )
        self._show_estimate()

    def _show_estimate(self) -> None:
        seconds = self._seconds.get(self._kind)
        if seconds is None:
            self.estimate.setText("How long a step takes is measured in the first run.")
        elif self.unit.value == "steps":
            self.estimate.setText(
                f"About {duration_text(seconds * self.number.value)}, as measured here."
            )
        else:
            steps = max(round(60 * self.number.value / seconds), 1)
            self.estimate.setText(f"About {steps} steps, as measured here.")


class NameField(QLineEdit):
    """Name of the tuned model: suggested, until another name is typed.

    Attributes
    ----------
    hint
        Why a typed name cannot be used, or which stopped run has it; or empty.
    """

    #: The text has changed.
    changed = Signal()
    #: The hint has changed.
    hinted = Signal()
    #: The name is that of a stopped run, with its number of steps.
    stopped_run_named = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.hint = ""
        self._suggested = ""
        self._known: Mapping[str, ModelSpec] = {}
        self.setMaxLength(64)
        self.setToolTip(
            "What the tuned model is called in all lists of models: letters, digits,\n"
            "- and _. No model is ever replaced."
        )
        self.textChanged.connect(self.changed)
        self.textEdited.connect(self._check)

    @property
    def value(self) -> str:
        """The name."""
        return self.text()

    @value.setter
    def value(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{value!r} is no text")
        self.setText(value)

    def set_known(self, known: Mapping[str, ModelSpec]) -> None:
        """Set the existing models."""
        self._known = known

    def suggest(self, wish: str) -> None:
        """Suggest a name that is free, unless another one was typed."""
        if self.isEnabled() and self.value in ("", self._suggested):
            self._suggested = free_name(wish, self._known, models_folder())
            self.value = self._suggested
            self._show_hint("")

    def release_if_taken(self) -> None:
        """Let a suggestion replace the name if it is no longer free."""
        with suppress(FocusFusionError):
            path_of_name(self.value, self._known, models_folder())
            return
        self._suggested = self.value

    def _check(self) -> None:
        """Show a hint if a name cannot be used, or is that of a stopped run."""
        try:
            path = path_of_name(self.value, {}, models_folder())
            checkpoint = path.with_suffix(".checkpoint")
            if not checkpoint.exists():
                path_of_name(self.value, self._known, models_folder())
                self._show_hint("")
                return
        except FocusFusionError as error:
            self._show_hint(str(error))
            return
        from napari_focus_fusion.training.finetune import stopped_at

        step, steps = stopped_at(checkpoint)
        self._show_hint(
            f"A run of this name was stopped at step {step} of {steps}. Start goes on "
            "from there, if all else is chosen as it was."
        )
        if steps:
            self.stopped_run_named.emit(steps)

    def _show_hint(self, text: str) -> None:
        self.hint = text
        self.hinted.emit()
