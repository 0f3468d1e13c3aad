"""Measure the response time of the window while a fusion runs.

A timer of the window ticks every 5 ms; its delay is how long a click would wait.
On a machine with a screen and nothing else to do::

    python docs/responsiveness.py --size 2048 --slices 32
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

TICK = 0.005
#: Delay in seconds below which the window responds at once.
LIMIT = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048, help="rows and columns")
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--model", default="sml")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as settings:
        os.environ["NAPARI_CONFIG"] = str(Path(settings) / "settings.yaml")
        late, seconds = measure(**vars(options))
    report(late, seconds, options)


def measure(
    size: int, slices: int, model: str, device: str
) -> tuple[list[float], float]:
    """Delay of each tick in seconds, and duration of the run in seconds."""
    import napari
    import numpy as np
    from qtpy.QtCore import QTimer
    from qtpy.QtTest import QTest

    viewer = napari.Viewer()
    rng = np.random.default_rng(0)
    shape = (slices, size, size)
    viewer.add_image(rng.integers(0, 60_000, shape, np.uint16), name="stack")
    _, widget = viewer.window.add_plugin_dock_widget("napari-focus-fusion")
    while not widget.run_button.isEnabled():  # until torch is loaded
        QTest.qWait(50)
    widget.model.value = model
    widget.device.value = device
    widget.destination.value = "memory"
    QTest.qWait(1000)

    late: list[float] = []
    last = time.perf_counter()

    def tick() -> None:
        nonlocal last
        now = time.perf_counter()
        late.append(max(0.0, now - last - TICK))
        last = now

    timer = QTimer(interval=int(TICK * 1000))
    timer.timeout.connect(tick)
    began = last = time.perf_counter()
    timer.start()
    widget.run()
    while not widget.run_button.isEnabled():
        QTest.qWait(20)
    seconds = time.perf_counter() - began
    timer.stop()
    print(widget.status.text())
    viewer.close()
    return late, seconds


def report(late: list[float], seconds: float, options: argparse.Namespace) -> None:
    import numpy as np

    milliseconds = np.array(late) * 1000
    shares = (50, 99, 99.9, 100)
    found = ", ".join(
        f"{share} %: {value:.0f} ms"
        for share, value in zip(
            shares, np.percentile(milliseconds, shares), strict=True
        )
    )
    over = int((milliseconds > LIMIT * 1000).sum())
    print(
        f"{options.size} x {options.size} x {options.slices}, {options.model}: "
        f"{seconds:.0f} s, {len(late)} ticks"
    )
    print(
        f"late by at most ({found}); {over} of them by more than {LIMIT * 1000:.0f} ms"
    )


if __name__ == "__main__":
    main()
