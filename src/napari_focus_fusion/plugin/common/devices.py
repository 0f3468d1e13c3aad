"""Which devices models can run on."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QThreadPool
from superqt.utils import create_worker

from napari_focus_fusion.plugin.adapters.preferences import preferences
from napari_focus_fusion.plugin.common.texts import device_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.plugin.common.choice import Choice


@dataclass(frozen=True)
class Machine:
    """What can be chosen here once torch is loaded.

    Attributes
    ----------
    devices
        Pairs of text and device name.
    """

    devices: list[tuple[str, str]]


def load_devices(then: Callable[[Machine], Any], *modules: str) -> None:
    """See in a thread which devices there are: loading torch takes seconds.

    Parameters
    ----------
    then
        Called in this thread with what is found; a notification says if it failed.
    modules
        Further ones to load first.
    """
    create_worker(
        look_at_machine,
        *modules,
        _connect={"returned": then, "errored": _say_not_loaded},
    )


def offer_devices(field: Choice, machine: Machine) -> None:
    """List devices, and choose the one of the preferences, if it is there."""
    field.set_choices(machine.devices)
    chosen = getattr(preferences(), "device", "auto")
    if chosen in field.values:
        field.value = chosen


def _say_not_loaded(error: Exception) -> None:
    show_error(f"Focus Fusion cannot load PyTorch ({error}). Install it again.")


def look_at_machine(*modules: str) -> Machine:
    """Load torch and further modules, and see which devices there are."""
    _wait_for_threads_at_exit()  # an import cannot be broken off
    for module in modules:
        import_module(module)
    from napari_focus_fusion.device import available_devices, choose_device, describe

    devices = [
        (device_text(describe(choose_device(name))), name)
        for name in available_devices()
    ]
    return Machine([(f"Automatic: {devices[0][0]}", "auto"), *devices])


@cache
def _wait_for_threads_at_exit() -> None:
    """Let Python end only when no thread is in the midst of something."""
    threads: Any = QThreadPool.globalInstance()
    atexit.register(threads.waitForDone, 30_000)
