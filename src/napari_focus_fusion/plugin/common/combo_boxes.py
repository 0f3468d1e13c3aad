"""Combo boxes and form fields shared by the widgets."""

from __future__ import annotations

from importlib.metadata import metadata
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from napari_focus_fusion.models.registry import DEFAULT_MODEL, models
from napari_focus_fusion.plugin.adapters.preferences import models_folder
from napari_focus_fusion.plugin.common.fields import ToggleField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qtpy.QtGui import QFocusEvent

    from napari_focus_fusion.models.registry import ModelSpec

_KEEP = object()
_OUR_MODELS = "napari_focus_fusion.models."


class ValueComboBox(QComboBox):
    """A drop-down list whose entries stand for values.

    Parameters
    ----------
    tip
        Tooltip.
    choices
        Pairs of text and value.
    """

    #: The value has changed.
    changed = Signal()

    def __init__(self, tip: str, choices: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        self.setToolTip(tip)
        self._values: list[Any] = []
        # Long names must not widen the dock.
        self.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.setMinimumContentsLength(16)
        self.set_choices(choices)
        self.currentIndexChanged.connect(self.changed)

    def set_choices(
        self, choices: Iterable[tuple[str, Any]], value: Any = _KEEP
    ) -> None:
        """Replace the entries, and select one.

        Parameters
        ----------
        choices
            Pairs of text and value.
        value
            The one to select; by default the one selected so far, or else the first.
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
    def values(self) -> list[Any]:
        """Values of all entries."""
        return list(self._values)

    @property
    def value(self) -> Any:
        """Value of the selected entry; None where there is no entry."""
        index = self.currentIndex()
        return self._values[index] if 0 <= index < len(self._values) else None

    @value.setter
    def value(self, value: Any) -> None:
        if value not in self._values:
            raise ValueError(f"{value!r} cannot be chosen here; choose {self._values}.")
        self.setCurrentIndex(self._values.index(value))


class _ModelNotifier(QObject):
    """Source of the signal that all lists of models are connected to."""

    #: A model has been saved or removed.
    models_changed = Signal()


# It lives as long as the program. Qt drops a connection when its list is deleted, and
# keeps no list alive.
_notifier = _ModelNotifier()


class ModelComboBox(ValueComboBox):
    """A list of models, refreshed whenever it is opened.

    Parameters
    ----------
    tip
        Tooltip.
    wanted
        Which models are listed; by default all.
    first
        The one that is chosen at first, if it is listed.
    """

    #: The list has been read again.
    refreshed = Signal()

    def __init__(
        self,
        tip: str,
        wanted: Callable[[ModelSpec], bool] = lambda spec: True,
        first: str = DEFAULT_MODEL,
    ) -> None:
        super().__init__(tip)
        self._wanted = wanted
        self._specs: dict[str, ModelSpec] = {}
        _notifier.models_changed.connect(self.refresh)
        self.refresh()
        if first in self.values:
            self.value = first

    def refresh(self) -> None:
        """List the models that there are now; the selected one stays if it can."""
        found = models(models_folder())
        self._specs = {name: spec for name, spec in found.items() if self._wanted(spec)}
        self.set_choices([(_label(spec), name) for name, spec in self._specs.items()])
        for index, spec in enumerate(self._specs.values()):
            about = f"{spec.summary}\n{spec.paper}".strip()
            self.setItemData(index, about, Qt.ItemDataRole.ToolTipRole)
        self.refreshed.emit()

    @property
    def spec(self) -> ModelSpec | None:
        """The chosen model's entry in the registry; None where there is no model."""
        return self._specs.get(self.value)

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """The models that are listed, by name."""
        return dict(self._specs)

    def showPopup(self) -> None:
        """Refresh and open the list."""
        self.refresh()
        super().showPopup()

    def focusInEvent(self, event: QFocusEvent | None) -> None:
        """Refresh the list for users who choose by keyboard."""
        self.refresh()
        super().focusInEvent(event)


def _label(spec: ModelSpec) -> str:
    return f"{spec.suits} ({spec.title})" if spec.suits else spec.title


def refresh_model_lists() -> None:
    """Refresh all lists of models; to be called after a model is saved or removed."""
    _notifier.models_changed.emit()


def model_page(spec: ModelSpec) -> str:
    """Address of the page about a model: ours, or the paper of other packages' models.

    Parameters
    ----------
    spec
        Entry in the registry; fine-tuned weights have the page of their model.

    Returns
    -------
    str
        Empty where nothing is known.
    """
    module = spec.target.partition(":")[0]
    if module.startswith(_OUR_MODELS):
        page = module.removeprefix(_OUR_MODELS).replace("_", "-")
        return project_page(f"models/{page}")
    return f"https://doi.org/{spec.doi}" if spec.doi else ""


def project_page(page: str) -> str:
    """Address of a page of the documentation, such as ``"widgets/fuse"``."""
    entries = metadata("napari-focus-fusion").get_all("Project-URL") or []
    urls = dict(entry.split(", ", 1) for entry in entries)
    if "Documentation" in urls:
        return f"{urls['Documentation'].rstrip('/')}/{page}.html"
    return f"{urls['Source']}/blob/main/docs/{page}.md"


def wrapped_label() -> QLabel:
    """A label that wraps its text and does not widen its parent."""
    label = QLabel()
    label.setWordWrap(True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


def form_layout(parent: QWidget | None = None) -> QFormLayout:
    """Rows of labels and fields, which take the available width."""
    form = QFormLayout(parent)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def side_by_side(*widgets: QWidget) -> QHBoxLayout:
    """A row of widgets."""
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row


def push_button(
    text: str, tip: str, action: Callable[[], Any] | None = None
) -> QPushButton:
    """A button with its tooltip and action."""
    button = QPushButton(text)
    button.setToolTip(tip)
    if action is not None:
        button.clicked.connect(action)
    return button


def more_button() -> ToggleField:
    """The button that unfolds the advanced fields of a form."""
    more = ToggleField()
    more.setText("M&ore")
    more.setToolTip("What is rarely changed.")
    more.setAutoRaise(True)
    more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    return more
