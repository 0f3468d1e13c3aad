"""The devices that models can run on."""

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

    from napari_focus_fusion.plugin.common.combo_boxes import ValueComboBox


@dataclass(frozen=True)
class DeviceList:
    """The devices that torch finds.

    Attributes
    ----------
    devices
        Pairs of text and device name.
    """

    devices: list[tuple[str, str]]


def load_devices(then: Callable[[DeviceList], Any], *modules: str) -> None:
    """Find the devices in a thread: loading torch takes seconds.

    Parameters
    ----------
    then
        Called in this thread with the result; a failure is shown as a notification.
    modules
        Further modules to load first.
    """
    create_worker(
        find_devices,
        *modules,
        _connect={"returned": then, "errored": _show_not_loaded},
    )


def offer_devices(field: ValueComboBox, found: DeviceList) -> None:
    """List devices, and select the one of the preferences, if it is there."""
    field.set_choices(found.devices)
    chosen = getattr(preferences(), "device", "auto")
    if chosen in field.values:
        field.value = chosen


def _show_not_loaded(error: Exception) -> None:
    show_error(f"Focus Fusion cannot load PyTorch ({error}). Install it again.")


def find_devices(*modules: str) -> DeviceList:
    """Load torch and further modules, and list the devices."""
    _wait_for_threads_at_exit()  # an import cannot be interrupted
    for module in modules:
        import_module(module)
    from napari_focus_fusion.device import available_devices, choose_device, describe

    devices = [
        (device_text(describe(choose_device(name))), name)
        for name in available_devices()
    ]
    return DeviceList([(f"Automatic: {devices[0][0]}", "auto"), *devices])


@cache
def _wait_for_threads_at_exit() -> None:
    """Let Python exit only after the threads of the pool have finished."""
    threads: Any = QThreadPool.globalInstance()
    atexit.register(threads.waitForDone, 30_000)
