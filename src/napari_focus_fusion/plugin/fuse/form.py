"""The form of the widget *Fuse focus stack*: available and chosen settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Signal  # type: ignore[attr-defined]

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.plugin.adapters.jobs import LayersJob
from napari_focus_fusion.plugin.adapters.layers import level_0, stack_from_layers
from napari_focus_fusion.plugin.adapters.preferences import models_folder, preferences
from napari_focus_fusion.plugin.adapters.preview import index_on_screen
from napari_focus_fusion.plugin.adapters.projections import SlabOptions
from napari_focus_fusion.plugin.adapters.sources import alike, is_slice, is_stack
from napari_focus_fusion.plugin.common.combo_boxes import model_page
from napari_focus_fusion.plugin.common.devices import offer_devices
from napari_focus_fusion.plugin.common.texts import describe, unit_text
from napari_focus_fusion.plugin.fuse.fields import OF_SUPER_RESOLUTION, FuseFields

if TYPE_CHECKING:
    import napari

    from napari_focus_fusion.plugin.common.devices import DeviceList

_MB = 1_000_000
# Legible on dark and light backgrounds.
_LINK = "#3d8fd1"


class FuseForm(FuseFields):
    """Fields for stack, model and outputs; they make a job.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen.
    """

    #: The chosen stack or its axes have changed.
    chosen = Signal()

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__(napari_viewer)
        self._edits: list[Any] = []
        self._connect_fields()
        self.recall_settings()
        self._describe_model()
        self._list_axes()
        self._list_stacks()
        self._follow()

    def _connect_fields(self) -> None:
        self.layer.changed.connect(self._list_axes)
        self._axes.changed.connect(self._on_axes)
        self.model.changed.connect(self._describe_model)
        self.model.refreshed.connect(self._describe_model)
        self.scale.changed.connect(self._show_rows)
        self.blend.changed.connect(self._show_rows)
        for field in (self.align, self.brightness, self.surface, self.strength):
            field.changed.connect(self._show_rows)
        for name in ("projection", "height"):
            self.outputs[name].changed.connect(self._show_rows)
        self._viewer.layers.selection.events.active.connect(self._follow)

    # Available values

    @property
    def sources(self) -> tuple[Image, ...]:
        """As :attr:`StackComboBox.sources` of ``layer``."""
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
        """Choose the layer selected in the viewer, if it is a stack."""
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
            events = layer.events
            self._edits = [
                *(events.scale, events.units),
                *(events.axis_labels, events.data),
            ]
        for emitter in self._edits:
            emitter.connect(self._on_edited)
        self._axes.show_layer(layer)

    def _on_edited(self, event: Any) -> None:
        """Update after a change of scale, units, labels or data; Z stays if it can."""
        if len(self.sources) != 1:
            return
        (layer,) = self.sources
        axes = self._axes.value
        same = event.type != "axis_labels" and layer.ndim == len(axes)
        self._axes.show_layer(layer, axes if same else None)

    def _on_axes(self) -> None:
        self._list_references()
        self._show_chosen()

    def _show_chosen(self) -> None:
        if self._axes.doubt:
            self.holds.setText("Which axis is Z cannot be known here: choose it.")
            self.holds.setToolTip(self._axes.doubt)
        elif self.sources:
            self.holds.setToolTip("")
            text = describe(self.sources, self.axes)
            alone = text.startswith("1 slice,")
            self.holds.setText(f"{text}; nothing to fuse" if alone else text)
        unit = self._unit()
        self.outputs["depth"].setText(f"Depth map ({unit})" if unit else "Depth map")
        self.chosen.emit()

    def _unit(self) -> str:
        if len(self.sources) != 1 or self.z_axis.value is None:
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
        others = [one for one in choices if isinstance(one[1], Image)]
        self.slab_stack.set_choices([("This stack", None), *others])
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
                for s, by in self._upscaling_models().items()
            ]
        )
        self._show_rows()

    def _upscaling_models(self) -> dict[int, str]:
        """By upscaling factor the model that does it: the chosen one, if it can.

        Another model uses the decision map of the chosen one.
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
        """Show the fields that offer more than one value."""
        finer = (self.scale.value or 1) > 1
        one = len(self.sources) == 1
        slab = self.outputs["projection"].value
        for field, shown in (
            (self.z_axis, one),
            (self.other_axes, self.other_axes.count() > 1),
            (self.time, bool(self.sources) and "T" in self.axes),
            (self.reference, self.reference.count() > 1),
            (self.scale, self.scale.count() > 1),
            (self.joint, finer),
            (self.background, self.blend.value != "select"),
            (self.prefer, self.surface.value > 0),
            (self.strength, self._reconstructs()),
            (self.slab_slices, slab),
            (self.slab_offset, slab),
            (self.slab_method, slab),
            (self.slab_stack, slab and self.slab_stack.count() > 1),
            (self.smoothing, self.outputs["height"].value),
        ):
            field.setVisible(shown)
            self._labels[field].setVisible(shown)
        for name in OF_SUPER_RESOLUTION:
            self.outputs[name].setVisible(finer)
        self.outputs["aligned"].setVisible(self._moves_slices())
        self.outputs["beyond"].setVisible(self.shows_reconstructed())

    def show_devices(self, found: DeviceList) -> None:
        """List the available devices."""
        offer_devices(self.device, found)
        self.device.changed.connect(self._keep_preferences)
        self.memory.changed.connect(self._keep_preferences)

    def _keep_preferences(self) -> None:
        """Store device and memory in napari's preferences, where it has a section."""
        kept = preferences()
        if kept is not None:
            kept.device = self.device.value
            kept.memory = self.memory.value

    # Chosen values

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of :func:`napari_focus_fusion.fuse` as chosen."""
        reference = self.reference.value
        options = {
            "model": self.model.value,
            "reference": None if isinstance(reference, Image) else reference,
            "smoothness": self.smoothness.value,
            "surface": self.surface.value,
            "align": self.align.value,
            "brightness": self.brightness.value,
            "blend": self.blend.value,
            "verify": self.verify.value,
            "device": self.device.value,
            "precision": self.precision.value,
            "tile": self.tile.value or None,
            "memory": self.memory.value * _MB or None,
        }
        if self.surface.value:
            options["prefer"] = self.prefer.value
        if self.blend.value != "select":
            options["background"] = self.background.value
        if self._reconstructs():
            options["strength"] = self.strength.value
        if (self.scale.value or 1) > 1:
            finer = self._upscaling_models()[self.scale.value]
            options["scale"] = self.scale.value
            options["joint"] = self.joint.value
            if finer != self.model.value:
                options["decision"] = self.model.value
                options["model"] = finer
        return options

    def _reconstructs(self) -> bool:
        """Whether pixels are reconstructed, and not only taken from slices."""
        spec = self.model.spec
        finer = (self.scale.value or 1) > 1
        reconstructs = spec is not None and spec.reconstructs
        return reconstructs and self.blend.value == "feather" and not finer

    def shows_reconstructed(self) -> bool:
        """Whether anything of what is reconstructed is shown."""
        return self._reconstructs() and self.strength.value > 0

    def offered(self) -> list[str]:
        """Outputs that the chosen settings can give."""
        finer = (self.scale.value or 1) > 1
        missing = [] if finer else list(OF_SUPER_RESOLUTION)
        if not self._moves_slices():
            missing.append("aligned")
        if not self.shows_reconstructed():
            missing.append("beyond")
        return [name for name in self.outputs if name not in missing]

    def _moves_slices(self) -> bool:
        """Whether slices are aligned or levelled."""
        return self.align.value is not None or self.brightness.value == "level"

    @property
    def slab_options(self) -> SlabOptions:
        """What is projected around the surface, of the stack itself."""
        return SlabOptions(
            self.slab_slices.value,
            self.slab_offset.value,
            self.slab_method.value,
            smoothing=self.smoothing.value,
        )

    def wanted(self) -> tuple[str, ...]:
        """Outputs that are ticked."""
        return tuple(name for name in self.offered() if self.outputs[name].value)

    def job(self) -> LayersJob:
        """Make a job of the present settings.

        Raises
        ------
        FocusFusionError
            If the stack cannot be fused.
        """
        if not self.sources:
            raise FocusFusionError("There is no focus stack. Open one first.")
        if not self.wanted():
            raise FocusFusionError("No output is ticked. Tick at least one.")
        if self._axes.doubt:
            raise FocusFusionError(self._axes.doubt)
        axes, time = self.axes, None
        if "T" in axes and self.time.value == "shown":
            time = index_on_screen(self.sources[0], axes, self._viewer)["T"]
        stack = stack_from_layers(self.sources, axes=axes, time=time)
        options, reference = self.options, self.reference.value
        if isinstance(reference, Image):
            options["reference"] = stack_from_layers(reference, axes=axes, time=time)
        slab, other = self.slab_options, self.slab_stack.value
        if isinstance(other, Image) and "projection" in self.wanted():
            other = stack_from_layers(other, axes=axes, time=time)
            slab = replace(slab, stack=other)
        return LayersJob(stack, self.wanted(), options, models_folder(), slab)
