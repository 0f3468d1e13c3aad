"""Take the screenshots of the documentation from real windows.

Where there is no screen::

    xvfb-run -a -s "-screen 0 1600x1200x24" python docs/screenshots.py

Each is a function below that prepares a window with a sample, and an entry of
:data:`SCREENSHOTS`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

STATIC = Path(__file__).parent / "_static"
PLUGIN = "napari-focus-fusion"
#: Longest wait, in seconds.
TIMEOUT = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SCREENSHOTS)}; or all")
    parser.add_argument("--out", type=Path, default=STATIC, help="folder")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # The settings and models of the user must not show.
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "settings.yaml")
        os.environ["NAPARI_FOCUS_FUSION_MODELS"] = str(Path(folder) / "models")
        for name in options.names or SCREENSHOTS:
            take_screenshot(options.out / f"{name}.png", *SCREENSHOTS[name])


def take_screenshot(
    path: Path, sample: str, prepare: Callable[[napari.Viewer], None]
) -> None:
    """Open a window with a sample, prepare it, and save a screenshot."""
    import napari

    from napari_focus_fusion.plugin.common.settings import settings_file

    remembered = settings_file()
    if remembered:  # each starts with the default settings
        remembered.unlink(missing_ok=True)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 860)
    viewer.open_sample(PLUGIN, sample)
    prepare(viewer)
    wait(1)  # until all of it is drawn
    viewer.window.screenshot(str(path), canvas_only=False, flash=False)
    viewer.close()
    print(path)


def fuse_widget(viewer: napari.Viewer) -> None:
    """The widget, and the sample fused by the default model."""
    widget = ready(dock(viewer, "Fuse focus stack"))
    widget.outputs["depth"].setChecked(True)
    run(widget)


def preview(viewer: napari.Viewer) -> None:
    """A preview of a part of the sample."""
    widget = ready(dock(viewer, "Fuse focus stack"))
    widget.model.value = "sml"
    camera = viewer.scene.camera
    camera.center, camera.zoom = (0, 50, 85), 2.2 * camera.zoom
    widget.more.setChecked(True)
    widget.preview_button.click()
    until(lambda: widget.preview.layer is not None)


def queue(viewer: napari.Viewer) -> None:
    """Two channels waiting in the queue, the first one being fused."""
    widget = ready(dock(viewer, "Fuse focus stack"))
    for name in ("Nuclei", "Microtubules"):
        viewer.layers.selection.active = viewer.layers[name]
        widget.add_button.click()
    widget.run_queue()
    until(lambda: "left" in widget.status.text())


def surface(viewer: napari.Viewer) -> None:
    """The depth map as a surface textured with the fused image."""
    widget = ready(dock(viewer, "Fuse focus stack"))
    widget.outputs["surface"].setChecked(True)
    widget.smoothness.setValue(3)
    run(widget)
    for layer in viewer.layers:
        layer.visible = "surface" in layer.name
    viewer.dims.ndisplay = 3
    wait(0.5)
    camera = viewer.scene.camera
    camera.angles = (15, -30, 40)
    camera.zoom *= 1.3


def retouch_widget(viewer: napari.Viewer) -> None:
    """An area of the decision map painted over."""
    fuse_with_focus_measure(viewer)
    widget = dock(viewer, "Retouch focus fusion")
    widget.start()
    until(lambda: widget.session is not None)
    viewer.dims.set_current_step(0, 9)
    widget.brush_follows.setChecked(True)
    widget.labels.brush_size = 60
    for column in range(200, 300, 20):
        widget.labels.paint((250, column), widget.labels.selected_label)
    until(lambda: widget.caught_up)


def report_widget(viewer: napari.Viewer) -> None:
    """The report on the sample."""
    fuse_with_focus_measure(viewer)
    widget = dock(viewer, "Focus fusion quality")
    widget.run()
    until(lambda: widget.report is not None)


def finetune_widget(viewer: napari.Viewer) -> None:
    """Half a minute of training on the sample."""
    widget = dock(viewer, "Fine-tune focus model")
    until(widget.start_button.isEnabled)
    widget.settings.name.value = "my-pollen"
    widget.settings.length.value = 20
    widget.tabs.setCurrentIndex(1)
    widget.start()
    until(widget.start_button.isEnabled)


#: By name of the file: the sample, and the function that prepares the window.
SCREENSHOTS: dict[str, tuple[str, Callable[[napari.Viewer], None]]] = {
    "fuse_widget": ("brightfield", fuse_widget),
    "preview": ("brightfield", preview),
    "queue": ("fluorescence", queue),
    "surface": ("fluorescence", surface),
    "retouch_widget": ("brightfield", retouch_widget),
    "report_widget": ("brightfield", report_widget),
    "finetune_widget": ("fluorescence", finetune_widget),
}


def dock(viewer: napari.Viewer, name: str) -> Any:
    """A widget of the plugin, docked."""
    return viewer.window.add_plugin_dock_widget(PLUGIN, name)[1]


def ready(widget: Any) -> Any:
    """Wait until torch is loaded and the widget can run."""
    until(widget.run_button.isEnabled)
    return widget


def run(widget: Any) -> None:
    """Run, and wait for the end."""
    if widget.run() is None:
        raise SystemExit(widget.status.text())
    until(widget.run_button.isEnabled)


def fuse_with_focus_measure(viewer: napari.Viewer) -> None:
    """Add the first layer fused by the focus measure ``sml``."""
    from napari.layers import Layer

    from napari_focus_fusion.plugin.adapters.layers import fuse_layer

    for data in fuse_layer(viewer.layers[0], model="sml", device="cpu"):
        viewer.add_layer(Layer.create(*data))


def until(condition: Callable[[], bool]) -> None:
    """Process events of the window until a condition holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > TIMEOUT:
            raise SystemExit(f"timeout after {TIMEOUT} s")
        wait(0.05)


def wait(seconds: float) -> None:
    """Process events of the window."""
    from qtpy.QtTest import QTest

    QTest.qWait(int(1000 * seconds))


if __name__ == "__main__":
    main()
