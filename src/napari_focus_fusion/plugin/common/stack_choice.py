"""Fields to choose a focus stack, and to say what its axes are."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal  # type: ignore[attr-defined]

from napari_focus_fusion.plugin.adapters.layers import guess_axes, layers_of, name_of
from napari_focus_fusion.plugin.adapters.maps import about
from napari_focus_fusion.plugin.adapters.sources import are_slices, is_stack, slices_of
from napari_focus_fusion.plugin.common.choice import Choice
from napari_focus_fusion.plugin.common.texts import axis_text, reading_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import napari
    from napari.layers import Image, Layer


class StackChoice(Choice):
    """A list of the focus stacks that a viewer holds.

    Its value is an image layer; or a tuple of flat ones, a slice each: those that are
    selected in the layer list, and those that a result says it was made of.

    Parameters
    ----------
    tip
        What hovering over it says.
    viewer
        Whose layers can be chosen.
    """

    def __init__(self, tip: str, viewer: napari.Viewer) -> None:
        super().__init__(tip)
        self._viewer = viewer
        self._picked: tuple[Image, ...] = ()
        # By what results call them: they stay known when they are renamed.
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
        """List the stacks that there are now."""
        layers = self._viewer.layers
        for source in [about(layer).get("source", "") for layer in layers]:
            self._found[source] = slices_of(layers, source) or self._found.get(
                source, ()
            )
        self._found = {k: v for k, v in self._found.items() if _all_in(v, layers)}
        picked = [self._picked] if _all_in(self._picked, layers) else []
        single = [layer for layer in layers if is_stack(layer)]
        stacks = dict.fromkeys([*picked, *single, *self._found.values()])
        self.set_choices((title_of(stack), stack) for stack in stacks)

    def lost(self, results: Iterable[Layer | None]) -> str:
        """What to do about flat layers that a result was made of and that are gone.

        Empty where there are none, or flat layers are chosen.
        """
        for result in results:
            source = about(result).get("source", "")
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
        """Choose the flat layers that are selected, if they make a stack."""
        layers = self._viewer.layers
        selected = tuple(layer for layer in layers if layer in layers.selection)
        if self.isEnabled() and are_slices(selected):
            self._picked = selected
            self.refresh()
            self.value = selected


class AxesChoice(QObject):
    """Two fields that say what the axes of a layer are; a form shows them.

    Attributes
    ----------
    z_axis, other_axes
        The fields.
    """

    #: The axes are read in another way, or another layer's are.
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._layer: Image | None = None
        self.z_axis = Choice(
            "The axis along which the focus changes. Guessed from the axis labels, or "
            "from the shape of the layer."
        )
        self.other_axes = Choice("What the remaining axes of the layer are.")
        self.z_axis.changed.connect(self._list_others)
        self.other_axes.changed.connect(self.changed)

    @property
    def value(self) -> str:
        """What the axes are, one letter each out of ``TCZYX``; empty for no layer."""
        if self._layer is None:
            return ""
        letters = iter(f"{self.other_axes.value or ''}YX")
        return "".join(
            "Z" if axis == self.z_axis.value else next(letters)
            for axis in range(self._layer.ndim)
        )

    def show_layer(self, layer: Image | None, axes: str | None = None) -> None:
        """Offer the readings of a layer's axes.

        Parameters
        ----------
        layer
            A stack; None: there is nothing to choose.
        axes
            How they are read; None: :func:`guess_axes`.
        """
        self._layer = layer
        if layer is None:
            self.z_axis.set_choices([])
            self.other_axes.set_choices([])
            self.changed.emit()
            return
        axes = guess_axes(layer) if axes is None else axes
        self.z_axis.set_choices(
            [(axis_text(layer, axis), axis) for axis in range(layer.ndim)],
            axes.index("Z"),
        )
        self._list_others(axes)

    def _list_others(self, axes: str | None = None) -> None:
        layer, z = self._layer, self.z_axis.value
        if layer is None or z is None:
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
    """How a list calls a stack."""
    count = len(layers_of(source))
    return name_of(source) if count == 1 else f"{count} layers: {name_of(source)}"


def _all_in(group: tuple[Image, ...], layers: Iterable[Layer]) -> bool:
    return bool(group) and all(layer in layers for layer in group)
