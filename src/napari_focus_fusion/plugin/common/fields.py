"""Fields of a form: each has a ``value`` and a signal ``changed``."""

from __future__ import annotations

from typing import Any, Protocol

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QSpinBox,
    QToolButton,
    QWidget,
)


class Field(Protocol):
    """A field whose value is stored from one session to the next.

    Attributes
    ----------
    value
        The present value; setting an invalid one raises ValueError or TypeError.
    changed
        Qt signal without arguments.
    """

    value: Any
    changed: Any


class CheckField(QCheckBox):
    """A check box; its value is a bool."""

    changed = Signal()

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.toggled.connect(self.changed)

    @property
    def value(self) -> bool:
        """Whether it is ticked."""
        return self.isChecked()

    @value.setter
    def value(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"{value!r} is neither True nor False")
        self.setChecked(value)


class ToggleField(QToolButton):
    """A toggle button; its value is a bool."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.toggled.connect(self.changed)

    @property
    def value(self) -> bool:
        """Whether it is pressed."""
        return self.isChecked()

    @value.setter
    def value(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"{value!r} is neither True nor False")
        self.setChecked(value)


class IntField(QSpinBox):
    """An integer."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.valueChanged.connect(self.changed)

    @property  # type: ignore[override]
    def value(self) -> int:
        """The number, in the unit of the field."""
        return super().value()

    @value.setter
    def value(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{value!r} is no whole number")
        _check_range(self, value)
        self.setValue(value)


class FloatField(QDoubleSpinBox):
    """A number with decimals."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.valueChanged.connect(self.changed)

    @property  # type: ignore[override]
    def value(self) -> float:
        """The number, in the unit of the field."""
        return super().value()

    @value.setter
    def value(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
        _check_range(self, value)
        self.setValue(value)


def _check_range(field: QSpinBox | QDoubleSpinBox, value: float) -> None:
    low, high = field.minimum(), field.maximum()
    if not low <= value <= high:
        raise ValueError(f"{value!r} lies outside {low} to {high}")
