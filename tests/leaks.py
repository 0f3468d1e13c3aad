"""Which windows and widgets of ours are alive."""

from __future__ import annotations

import gc
import inspect
import sys
from typing import Any


def qt_objects() -> list[Any]:
    """Windows that are open, and every Qt object of our own that is alive."""
    if "qtpy" not in sys.modules:
        return []
    from qtpy.QtCore import QEvent, QObject
    from qtpy.QtWidgets import QApplication

    if QApplication.instance() is None:
        return []
    for _ in range(2):  # what deleted objects were connected to goes after them
        QApplication.processEvents()
        QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    gc.collect()
    found = [each for each in gc.get_objects() if is_ours(type(each), QObject)]
    ours = [each for each in found if not is_global(each)]
    windows = [w for w in QApplication.topLevelWidgets() if w.isVisible()]
    return ours + [window for window in windows if window not in ours]


def is_ours(kind: type, base: type) -> bool:
    """Signals of workers apart: napari keeps workers, without their job."""
    ours = "napari_focus_fusion.plugin"
    return (
        issubclass(kind, base)
        and kind.__module__.startswith(ours)
        and kind.__name__ != "_Signals"
    )


def is_global(thing: Any) -> bool:
    """Whether a module keeps an object for as long as the program runs."""
    kept = vars(sys.modules[type(thing).__module__]).values()
    return any(each is thing for each in kept)


def holders(thing: Any) -> str:
    """What refers to an object, in short."""
    found = [each for each in gc.get_referrers(thing) if not inspect.isframe(each)]
    return "; ".join(sorted({repr(each)[:200] for each in found}))
