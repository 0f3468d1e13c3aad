from __future__ import annotations

import gc
from functools import cache
from threading import Event
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import dask.array as da
import numpy as np
import pytest

from leaks import holders, qt_objects
from napari_focus_fusion.plugin.adapters.samples import (
    brightfield_sample,
    fluorescence_sample,
)
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def remembered(tmp_path, monkeypatch):
    """The file of stored settings: each test has its own."""
    path = tmp_path / "remembered" / "napari-focus-fusion.json"
    monkeypatch.setattr(
        "napari_focus_fusion.plugin.common.settings.settings_file", lambda: path
    )
    return path


#: Objects left by earlier tests, so that each is reported once.
_left_before: WeakSet[Any] = WeakSet()


@pytest.fixture(autouse=True)
def no_widget_outlives_its_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a window, or a widget of ours, is still there.

    A closed widget that is still referenced keeps its layers, and with them the
    user's stack, in memory.
    """
    failed = request.session.testsfailed
    yield
    if "qapp" not in request.fixturenames:
        return  # it opens no window
    request.node.funcargs.clear()  # pytest would keep fixtures until we return
    left = [each for each in qt_objects() if each not in _left_before]
    _left_before.update(left)
    freeze_what_is_imported()
    if left and request.session.testsfailed == failed:  # else the traceback holds them
        names = ", ".join(sorted({type(each).__qualname__ for each in left}))
        first = left.pop()
        kind = type(first).__qualname__
        pytest.fail(f"Outlived this test: {names}; {kind} held by {holders(first)}.")


@cache
def freeze_what_is_imported() -> None:
    """Spare later collections, of which each window makes some, half a second each."""
    gc.freeze()


@pytest.fixture(scope="session")
def slices() -> np.ndarray:
    """A small grey stack, (5, 90, 120) uint16; do not write to it."""
    scene = make_scene(
        1_000_001,
        shape=(90, 120),
        slices=5,
        surface="relief",
        content="leaves",
        modality="grey",
        dtype=np.uint16,
    )
    scene.stack.flags.writeable = False
    return scene.stack


@pytest.fixture(scope="session")
def brightfield():
    """Layer data of the sample; do not write to it."""
    return brightfield_sample()


@pytest.fixture(scope="session")
def fluorescence():
    """Layer data of the sample; do not write to it."""
    return fluorescence_sample()


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A viewer and the fuse widget docked in it, ready to run ``sml``."""
    from napari.utils.notifications import notification_manager

    notification_manager.records.clear()
    viewer = make_napari_viewer()
    _, widget = viewer.window.add_plugin_dock_widget(
        "napari-focus-fusion", "Fuse focus stack"
    )
    qtbot.waitUntil(lambda: widget.device.count() > 1, timeout=60_000)
    widget.model.value = "sml"
    return viewer, widget


@pytest.fixture
def gate(slices):
    """A layer whose pixels cannot be read before the gate opens."""
    reached, opened = Event(), Event()

    def read(block_info):
        reached.set()
        opened.wait(60)
        return slices[block_info[None]["chunk-location"][0]][None]

    data = da.map_blocks(
        read,
        chunks=((1,) * len(slices), *((n,) for n in slices.shape[1:])),
        dtype=slices.dtype,
        meta=np.empty((0, 0, 0), slices.dtype),
    )
    # Visible, napari would read it for the screen.
    shown = {"contrast_limits": (0, 65535), "visible": False}
    yield data, shown, reached, opened
    opened.set()
