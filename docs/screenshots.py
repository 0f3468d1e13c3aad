"""Take the pictures of the widget that the documentation shows, from real windows.

Where there is no screen::

    xvfb-run -a -s "-screen 0 1600x1200x24" python docs/screenshots.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

STATIC = Path(__file__).parent / "_static"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="instead of the default model")
    parser.add_argument("--out", type=Path, default=STATIC, help="folder")
    choices = parser.parse_args()
    choices.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as settings:
        # The settings of whoever runs this must not show.
        os.environ["NAPARI_CONFIG"] = str(Path(settings) / "settings.yaml")
        fuse_widget(choices.out / "fuse_widget.png", choices.model)


def fuse_widget(path: Path, model: str | None) -> None:
    """The widget beside what it made of the brightfield sample."""
    import napari
    from qtpy.QtTest import QTest

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    viewer.open_sample("napari-focus-fusion", "brightfield")
    _, widget = viewer.window.add_plugin_dock_widget("napari-focus-fusion")
    while not widget.run_button.isEnabled():  # until torch is loaded
        QTest.qWait(50)
    if model is not None:
        widget.model.value = model
    widget.run()
    while not widget.run_button.isEnabled():
        QTest.qWait(50)
    if len(viewer.layers) == 1:
        raise SystemExit(widget.status.text())
    QTest.qWait(500)  # until all of it is drawn
    viewer.window.screenshot(str(path), canvas_only=False)
    viewer.close()
    print(path)


if __name__ == "__main__":
    main()
