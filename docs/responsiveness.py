"""Measure how napari's window feels while a stack is fused.

A sample is fused for the first time. Then a timer of the window ticks every 5 ms; its
delay is how long a click would wait. The slider along Z is moved all the time, first
without a fusion and then during one. Last, a fusion is cancelled. On a machine with
nothing else to do::

    python docs/responsiveness.py --size 2048 --slices 16
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

TICK, SLIDE = 0.005, 0.1
#: Delay in seconds below which the window responds at once.
LIMIT = 0.1
#: Seconds for which the slider is moved without a fusion, and after which one is
#: cancelled.
BASELINE, CANCEL_AFTER = 10.0, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048, help="rows and columns")
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--models", default="sml", help="names, with commas between")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as settings:
        os.environ["NAPARI_CONFIG"] = str(Path(settings) / "settings.yaml")
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Print seconds of a first picture and of cancelling, and the delays of ticks."""
    import napari
    import numpy as np
    from qtpy.QtTest import QTest

    viewer = napari.Viewer()
    _, widget = viewer.window.add_plugin_dock_widget("napari-focus-fusion")

    viewer.open_sample("napari-focus-fusion", "brightfield")
    wait_until(widget.run_button.isEnabled)
    widget.device.value = options.device
    began, layers = time.perf_counter(), len(viewer.layers)
    widget.run()
    wait_until(lambda: len(viewer.layers) > layers)
    print(f"first picture of the sample: {time.perf_counter() - began:.1f} s after Run")
    wait_until(widget.run_button.isEnabled)
    viewer.layers.clear()

    rng = np.random.default_rng(0)
    shape = (options.slices, options.size, options.size)
    viewer.add_image(rng.integers(0, 60_000, shape, np.uint16), name="stack")
    wait_until(widget.run_button.isEnabled)
    widget.destination.value = "memory"
    QTest.qWait(1000)
    end = time.perf_counter() + BASELINE
    report("not fusing", delays(viewer, lambda: time.perf_counter() > end))
    for model in options.models.split(","):
        widget.model.value = model
        widget.run()
        late = delays(viewer, widget.run_button.isEnabled)
        report(f"fusing with {model}", late)
        print(f"  {widget.status.text()}")
        widget.run()
        QTest.qWait(int(CANCEL_AFTER * 1000))
        began = time.perf_counter()
        widget.cancel_button.click()
        wait_until(widget.run_button.isEnabled)
        print(f"  cancelled in {time.perf_counter() - began:.2f} s")
    viewer.close()


def wait_until(reached: Callable[[], bool]) -> None:
    """Let the window work until something is so."""
    from qtpy.QtTest import QTest

    while not reached():
        QTest.qWait(5)


def delays(viewer: Any, ended: Callable[[], bool]) -> list[float]:
    """Delay of each tick in seconds, the slider along Z moving."""
    from qtpy.QtCore import QTimer
    from qtpy.QtTest import QTest

    late: list[float] = []
    last = time.perf_counter()

    def tick() -> None:
        nonlocal last
        now = time.perf_counter()
        late.append(max(0.0, now - last - TICK))
        last = now

    def slide() -> None:
        steps = viewer.dims.nsteps[0]
        viewer.dims.set_current_step(0, (viewer.dims.current_step[0] + 1) % steps)

    timers = []
    for call, interval in ((tick, TICK), (slide, SLIDE)):
        timer = QTimer(interval=int(interval * 1000))
        timer.timeout.connect(call)
        timer.start()
        timers.append(timer)
    while not ended():
        QTest.qWait(20)
    for timer in timers:
        timer.stop()
    return late


def report(what: str, late: list[float]) -> None:
    """Print how late ticks were."""
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
    print(f"{what}: {len(late)} ticks late by at most ({found});")
    print(f"  {over} of them by more than {LIMIT * 1000:.0f} ms")


if __name__ == "__main__":
    main()
