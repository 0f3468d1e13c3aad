"""Which devices models can run on."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from functools import cache
from typing import Any

from qtpy.QtCore import QThreadPool

from napari_focus_fusion.models.registry import DEFAULT_MODEL
from napari_focus_fusion.plugin.common.texts import device_text


@dataclass(frozen=True)
class Machine:
    """What can be chosen here once torch is loaded.

    Attributes
    ----------
    model
        Name of the default model.
    devices
        Pairs of text and device name.
    """

    model: str
    devices: list[tuple[str, str]]


def look_at_machine() -> Machine:
    """Load torch, and see which devices there are."""
    _wait_for_threads_at_exit()  # an import cannot be broken off
    from napari_focus_fusion.device import available_devices, choose_device, describe

    devices = [
        (device_text(describe(choose_device(name))), name)
        for name in available_devices()
    ]
    return Machine(DEFAULT_MODEL, [(f"Automatic: {devices[0][0]}", "auto"), *devices])


@cache
def _wait_for_threads_at_exit() -> None:
    """Let Python end only when no thread is in the midst of something."""
    threads: Any = QThreadPool.globalInstance()
    atexit.register(threads.waitForDone, 30_000)
