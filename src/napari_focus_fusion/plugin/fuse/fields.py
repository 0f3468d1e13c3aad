"""The fields of the widget *Fuse focus stack*, and their layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_focus_fusion.plugin.adapters.preferences import preferences
from napari_focus_fusion.plugin.common.combo_boxes import (
    ModelComboBox,
    ValueComboBox,
    form_layout,
    more_button,
    wrapped_label,
)
from napari_focus_fusion.plugin.common.fields import CheckField, FloatField, IntField
from napari_focus_fusion.plugin.common.job_widget import JobWidget
from napari_focus_fusion.plugin.common.scroll_area import FitWidthScrollArea
from napari_focus_fusion.plugin.common.settings import recall_fields, remember_fields
from napari_focus_fusion.plugin.common.stack_fields import AxesFields, StackComboBox

if TYPE_CHECKING:
    import napari

    from napari_focus_fusion.plugin.common.fields import Field

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
        "projection",
        "Slab at the surface",
        "Slices around the surface that was found, as one image.",
    ),
    (
        "height",
        "Height map",
        "The depth map smoothed for measurement, in micrometres where the pixel size\n"
        "along z is known.",
    ),
    ("best slice", "Best slice", "The one slice that most pixels come from."),
    (
        "aligned",
        "Aligned slices",
        "The slices in register and levelled, as the fusion saw them.",
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
    (
        "beyond",
        "Beyond the slices",
        "Where the reconstructed image is brighter (green) or darker (pink) than all\n"
        "slices at that pixel, and by how much: what was not observed.",
    ),
)
_CHECKED = ("fused", "decision")
#: Outputs of a super-resolved fusion only.
OF_SUPER_RESOLUTION = ("unscaled", "consistency")
_BLENDS = (
    ("Feather: soft seams", "feather"),
    ("Bands: no seams of brightness", "bands"),
    ("Select: observed pixels", "select"),
)
ALIGNMENTS: tuple[tuple[str, str | None], ...] = (
    ("Off", None),
    ("Translation", "translation"),
    ("Similarity: shift, scale, rotation", "similarity"),
    ("Affine", "affine"),
)
_METHODS = (("Mean", "mean"), ("Maximum", "max"))
_PREFERENCES = (
    ("The sharper one", "sharpest"),
    ("The one nearer to the first slice", "front"),
    ("The one nearer to the last slice", "back"),
)
_PRECISIONS = (
    ("Full (float32)", "float32"),
    ("Half (bfloat16), faster", "bfloat16"),
)
_DESTINATIONS = (
    ("Memory; asks when it is large", "ask"),
    ("Memory", "memory"),
    ("OME-Zarr on disk", "zarr"),
)


class FuseFields(JobWidget):
    """Fields for stack, model and outputs, in a form that scrolls.

    Parameters
    ----------
    napari_viewer
        Whose layers can be chosen.
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._make_fields()
        self._form = self._scrolled_form()
        self.more.toggled.connect(self._unfold)

    def _make_fields(self) -> None:
        self._make_stack_fields()
        self._make_model_fields()
        self._make_outputs()
        self._make_rare_fields()

    def _make_stack_fields(self) -> None:
        self.layer = StackComboBox(
            "The image layer to fuse: slices along a z axis. Or select several\n"
            "two-dimensional layers of one size in the layer list: a slice each.",
            self._viewer,
        )
        self.layer.setMinimumContentsLength(8)  # the button beside it is wide too
        self.files_button = QPushButton("Files …")
        self.files_button.setToolTip(
            "Open the stacks of a file, or pictures of one slice each, of which the "
            "names say what is a slice, a channel or a time point."
        )
        self._axes = AxesFields()
        self.z_axis, self.other_axes = self._axes.z_axis, self._axes.other_axes
        self.time = ValueComboBox(
            "Which time points to fuse. Each is a stack of its own.",
            [("All of them", "all"), ("The one on screen", "shown")],
        )
        self.reference = ValueComboBox(
            "Where sharpness is looked for. The choice made there is applied to all "
            "channels."
        )
        self.holds = wrapped_label()

    def _make_model_fields(self) -> None:
        self.model = ModelComboBox("What judges how sharp each pixel of each slice is.")
        self.scale = ValueComboBox(
            "How many times the rows and columns of the fused image are those of the\n"
            "stack. What is finer than its pixels is inferred, not observed."
        )
        self.smoothness = FloatField()
        self.smoothness.setRange(0, 10)
        self.smoothness.setSingleStep(0.5)
        self.smoothness.setDecimals(1)
        self.smoothness.value = 1
        self.smoothness.setToolTip(
            "How much the surroundings of a pixel have a say in its decision,\n"
            "in pairs and where Surface is 0.\n"
            "0: the finest detail at different depths. 1: most stacks.\n"
            "More: where refraction makes rims look sharp out of focus."
        )
        self.surface = FloatField()
        self.surface.setRange(0, 4)
        self.surface.setSingleStep(0.5)
        self.surface.setDecimals(1)
        self.surface.value = 1
        self.surface.setToolTip(
            "How much neighbouring pixels and the order of the slices count.\n"
            "0: every pixel is decided for itself, as for pictures in no order.\n"
            "1: near the surface of the specimen that they agree on. More: nearer."
        )
        self.background = ValueComboBox(
            "What is shown where no slice has detail.",
            [("Nearest slice in focus", "nearest"), ("Mean of all slices", "mean")],
        )
        self.strength = FloatField()
        self.strength.setRange(0, 1)
        self.strength.setSingleStep(0.1)
        self.strength.setDecimals(2)
        self.strength.value = 1
        self.strength.setToolTip(
            "How much of what the model reconstructs is shown.\n"
            "1: all. 0: pixels as they were observed, to be measured."
        )
        self.align = ValueComboBox(
            "Brings the slices into register before they are fused.\n"
            "Translation: a stage or sample that drifts. Similarity: also focus\n"
            "breathing, which scales, and rotation. Affine: also shear and stretching.",
            ALIGNMENTS,
        )
        self.load_button = QPushButton("Load …")
        self.load_button.setToolTip("Use a registration that was saved.")
        self.save_button = QPushButton("Save …")
        self.save_button.setToolTip(
            "Keep the registration of the last run for other channels and stacks."
        )
        self.brightness = ValueComboBox(
            "Whether slices of different brightness (flicker, bleaching) are made\n"
            "equally bright.",
            [("As recorded", "keep"), ("Level the slices", "level")],
        )
        self.device = ValueComboBox("Where the model runs.", [("Automatic", "auto")])
        self.summary = wrapped_label()
        self.summary.setOpenExternalLinks(True)
        self.summary.setTextInteractionFlags(
            Qt.TextInteractionFlag.LinksAccessibleByMouse
            | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        )

    def _make_outputs(self) -> None:
        self.outputs: dict[str, CheckField] = {}
        for name, title, tip in _OUTPUTS:
            self.outputs[name] = box = CheckField(title)
            box.setToolTip(tip)
            box.value = name in _CHECKED

        self.slab_slices = IntField()
        self.slab_slices.setRange(1, 999)
        self.slab_slices.setSuffix(" slices")
        self.slab_slices.setToolTip("How thick the slab is.")
        self.slab_offset = FloatField()
        self.slab_offset.setRange(-999, 999)
        self.slab_offset.setSingleStep(0.5)
        self.slab_offset.setDecimals(2)
        self.slab_offset.setSuffix(" slices")
        self.slab_offset.setToolTip(
            "How far the middle of the slab lies from the surface, towards later\n"
            "slices where it is positive."
        )
        self.slab_method = ValueComboBox(
            "Mean: the slab exactly at the surface. Maximum: of whole slices.", _METHODS
        )
        self.slab_stack = ValueComboBox(
            "What is projected around the surface: this stack, or another layer."
        )
        self.smoothing = FloatField()
        self.smoothing.setRange(0.5, 1000)
        self.smoothing.setDecimals(1)
        self.smoothing.setSuffix(" px")
        self.smoothing.value = 8
        self.smoothing.setToolTip(
            "Standard deviation of the window: what is narrower than about twice this\n"
            "is smoothed away."
        )

    def _make_rare_fields(self) -> None:
        self.prefer = ValueComboBox(
            "What is shown where two depths are sharp, as of hairs over texture or in\n"
            "transparent specimens.",
            _PREFERENCES,
        )
        self.blend = ValueComboBox(
            "Feather: soft seams, and less noise where slices agree.\n"
            "Bands: also where slices are not equally bright; their brightness passes\n"
            "gradually from one to the next.\n"
            "Select: every pixel exactly as it was observed in its slice.",
            _BLENDS,
        )
        self.verify = CheckField("Verify the decision map")
        self.verify.value = True
        self.verify.setToolTip(
            "Islands and unsure pixels take the slice that their surroundings vote for."
        )
        self.joint = ValueComboBox(
            "Whether the slices are made finer and then fused, or the fused image is "
            "made finer.",
            [("The slices, then fuse", True), ("The fused image", False)],
        )
        self.destination = ValueComboBox("Where the result goes.", _DESTINATIONS)
        self.memory = _automatic(
            0,
            1_000_000,
            500,
            " MB",
            "Working memory beyond the result. Automatic: a quarter of what is free,\n"
            "at most 1 GB on the CPU.",
        )
        self.precision = ValueComboBox(
            "Of the networks. Half is faster on graphics cards and processors with\n"
            "instructions for it; up to a few pixels in a thousand, where two slices\n"
            "are nearly as sharp, are then decided otherwise.",
            _PRECISIONS,
        )
        self.tile = _automatic(
            0,
            8192,
            128,
            " px",
            "Largest side of what the model looks at at once. It does not change the\n"
            "result. Automatic: what suits the device.",
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
        )
        aligning = QHBoxLayout()
        aligning.addWidget(self.align, 1)
        aligning.addWidget(self.load_button)
        aligning.addWidget(self.save_button)
        self._labels[self.align] = label = QLabel("Ali&gn")
        label.setBuddy(self.align)
        form.addRow(label, aligning)
        self._add_rows(form, ("&Device", self.device))
        form.addRow(QLabel("Outputs"))
        form.addRow(grid)
        self._add_rows(
            form,
            ("Slab", self.slab_slices),
            ("Slab offset", self.slab_offset),
            ("Slab as", self.slab_method),
            ("Slab of", self.slab_stack),
            ("Height smoothing", self.smoothing),
        )
        self.more = more_button()
        self._folded = QWidget()
        folded = form_layout()
        folded.setContentsMargins(0, 0, 0, 0)
        self._folded.setLayout(folded)
        self._add_rows(
            folded,
            ("Surface", self.surface),
            ("Of two depths", self.prefer),
            ("Brightness", self.brightness),
            ("Background", self.background),
            ("&Blend", self.blend),
            ("Reconstructed", self.strength),
            ("", self.verify),
            ("Ma&ke finer", self.joint),
            ("Result i&n", self.destination),
            ("Precision", self.precision),
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
        return FitWidthScrollArea(page)

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

    def freeze(self, frozen: bool) -> None:
        """Disable all fields during a run."""
        buttons = (self.files_button, self.load_button)
        for field in (*self._labels, *self.outputs.values(), *buttons):
            field.setEnabled(not frozen)

    def recall_settings(self) -> None:
        """Restore the settings of the last session, as far as they are valid."""
        recall_fields("fuse", self._remembered())
        self.memory.value = int(getattr(preferences(), "memory", 0))

    def remember_settings(self) -> None:
        """Store the settings for the next session."""
        remember_fields("fuse", self._remembered())

    def _remembered(self) -> dict[str, Field]:
        return {
            "model": self.model,
            "smoothness": self.smoothness,
            "surface": self.surface,
            "prefer": self.prefer,
            "slab slices": self.slab_slices,
            "slab offset": self.slab_offset,
            "slab method": self.slab_method,
            "smoothing": self.smoothing,
            "align": self.align,
            "brightness": self.brightness,
            "background": self.background,
            "blend": self.blend,
            "strength": self.strength,
            "verify": self.verify,
            "joint": self.joint,
            "time": self.time,
            "destination": self.destination,
            "precision": self.precision,
            "tile": self.tile,
            "more": self.more,
            **{f"output {name}": box for name, box in self.outputs.items()},
        }


def _automatic(low: int, high: int, step: int, unit: str, tip: str) -> IntField:
    """A number whose lowest value stands for automatic."""
    field = IntField()
    field.setRange(low, high)
    field.setSingleStep(step)
    field.setSuffix(unit)
    field.setSpecialValueText("Automatic")
    field.setToolTip(tip)
    return field
