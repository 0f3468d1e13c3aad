"""Fields to choose a focus stack and its axes."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_focus_fusion.plugin.adapters.layers import (
    doubt_about_axes,
    guess_axes,
    layers_of,
    name_of,
)
from napari_focus_fusion.plugin.adapters.maps import result_metadata
from napari_focus_fusion.plugin.adapters.sources import are_slices, is_stack, slices_of
from napari_focus_fusion.plugin.common.combo_boxes import ValueComboBox
from napari_focus_fusion.plugin.common.texts import axis_text, reading_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import napari
    from napari.layers import Image, Layer


class StackComboBox(ValueComboBox):
    """A list of the focus stacks that a viewer holds.

    Its value is an image layer; or a tuple of two-dimensional ones, a slice each: those
    selected in the layer list, and those that a result names as its source.

    Parameters
    ----------
    tip
        Tooltip.
    viewer
        Whose layers can be chosen.
    """

    def __init__(self, tip: str, viewer: napari.Viewer) -> None:
        super().__init__(tip)
        self._viewer = viewer
        self._picked: tuple[Image, ...] = ()
        # By the text in the metadata of results, so that layers may be renamed.
        self._found: dict[str, tuple[Image, ...]] = {}
        self.refresh()
        self._pick()
        viewer.layers.selection.events.changed.connect(self._pick)

    @property
    def sources(self) -> tuple[Image, ...]:
        """The chosen layer, or the layers that are the slices; empty if there is none.

        To choose several, set ``value`` to a tuple that the list offers.
        """
        return () if self.value is None else layers_of(self.value)

    def refresh(self) -> None:
        """List the stacks in the viewer."""
        layers = self._viewer.layers
        for source in [result_metadata(layer).get("source", "") for layer in layers]:
            self._found[source] = slices_of(layers, source) or self._found.get(
                source, ()
            )
        self._found = {k: v for k, v in self._found.items() if _all_in(v, layers)}
        picked = [self._picked] if _all_in(self._picked, layers) else []
        single = [layer for layer in layers if is_stack(layer)]
        stacks = dict.fromkeys([*picked, *single, *self._found.values()])
        self.set_choices((title_of(stack), stack) for stack in stacks)

    def lost(self, results: Iterable[Layer | None]) -> str:
        """Advice on missing two-dimensional layers that are the source of a result.

        Empty where none is missing, or two-dimensional layers are chosen.
        """
        for result in results:
            source = result_metadata(result).get("source", "")
            flat = source.startswith("layers ") and source not in self._found
            if result is not None and flat and len(self.sources) < 2:
                names = shorten(source, 90, placeholder=" …")
                return (
                    f"{result.name!r} was made of the {names}. Not all of them are "
                    "there by these names. Open what is missing, and select all of "
                    "them in the layer list."
                )
        return ""

    def _pick(self, event: Any = None) -> None:
        """Choose the selected two-dimensional layers, if they make a stack."""
        layers = self._viewer.layers
        selected = tuple(layer for layer in layers if layer in layers.selection)
        if self.isEnabled() and are_slices(selected):
            self._picked = selected
            self.refresh()
            self.value = selected


class AxesFields(QObject):
    """Two fields for the axes of a layer; a form shows them.

    Attributes
    ----------
    z_axis, other_axes
        The fields.
    """

    #: The axes have changed, or the layer.
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._layer: Image | None = None
        self.z_axis = ValueComboBox(
            "The axis along which the focus changes. Guessed from the axis labels, or "
            "from the shape of the layer."
        )
        self.other_axes = ValueComboBox("What the remaining axes of the layer are.")
        self.z_axis.changed.connect(self._list_others)
        self.other_axes.changed.connect(self.changed)

    @property
    def value(self) -> str:
        """What the axes are, one letter each out of ``TCZYX``.

        Empty for no layer, and where they cannot be known and none is chosen yet.
        """
        if self._layer is None or self.z_axis.value is None:
            return ""
        letters = iter(f"{self.other_axes.value or ''}YX")
        return "".join(
            "Z" if axis == self.z_axis.value else next(letters)
            for axis in range(self._layer.ndim)
        )

    @property
    def doubt(self) -> str:
        """Why the axes cannot be known, until one is chosen; else empty."""
        if self._layer is None or self.z_axis.value is not None:
            return ""
        return doubt_about_axes(self._layer)

    def show_layer(self, layer: Image | None, axes: str | None = None) -> None:
        """List the possible axes of a layer.

        Parameters
        ----------
        layer
            A stack; None: no stack is chosen.
        axes
            The ones to select; None: :func:`guess_axes`, and none at all where they
            cannot be known.
        """
        self._layer = layer
        if layer is None:
            self.z_axis.set_choices([])
            self.other_axes.set_choices([])
            self.changed.emit()
            return
        choices = [(axis_text(layer, axis), axis) for axis in range(layer.ndim)]
        if axes is None and doubt_about_axes(layer):
            self.z_axis.set_choices([("Choose the axis", None), *choices], None)
            self.other_axes.set_choices([])
            self.changed.emit()
            return
        axes = guess_axes(layer) if axes is None else axes
        self.z_axis.set_choices(choices, axes.index("Z"))
        self._list_others(axes)

    def _list_others(self, axes: str | None = None) -> None:
        layer, z = self._layer, self.z_axis.value
        if layer is None or z is None:
            self.other_axes.set_choices([])
            self.changed.emit()
            return
        axes = guess_axes(layer, z) if axes is None else axes
        rest = [axis for axis in range(layer.ndim) if axis != z][:-2]
        readings = (("",), ("C", "T"), ("TC", "CT"))[len(rest)]
        self.other_axes.set_choices(
            [(reading_text(layer, rest, letters), letters) for letters in readings],
            "".join(axes[axis] for axis in rest),
        )
        self.changed.emit()


def title_of(source: Image | tuple[Image, ...]) -> str:
    """Title of a stack in a list."""
    count = len(layers_of(source))
    return name_of(source) if count == 1 else f"{count} layers: {name_of(source)}"


def _all_in(group: tuple[Image, ...], layers: Iterable[Layer]) -> bool:
    return bool(group) and all(layer in layers for layer in group)
