"""Processes that have imported what takes long already: forks of one that did."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Windows has no forks: there, each process imports for itself.
METHOD = "spawn" if sys.platform == "win32" else "forkserver"
_FORKS = multiprocessing.get_context(METHOD)


# A Mac allows no window in a fork of what has loaded Qt.
WINDOWS = ["napari.viewer", "napari.qt"] if sys.platform == "linux" else []


def preload() -> None:
    """Say what is imported before the forks, unless there have been some already."""
    _FORKS.set_forkserver_preload(
        [
            "napari_focus_fusion.cli",
            "napari_focus_fusion.fusion",
            "napari_focus_fusion.simulation.samples",
            "torch",
            "zarr",
            "distributed",
            *WINDOWS,
        ]
    )


preload()


def run_forked(
    work: Callable[..., Any], *arguments: Any
) -> subprocess.CompletedProcess[str]:
    """Call a function of a module in a process of its own, and what that prints."""
    with TemporaryDirectory() as folder:
        printed = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_printing, args=(printed, work, arguments))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            arguments, process.exitcode, *(path.read_text() for path in printed)
        )


def run_code(code: str, *arguments: str) -> None:
    """As ``python -c CODE ARGUMENTS`` would, for `run_forked`."""
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})


def _printing(
    printed: Sequence[Path], work: Callable[..., Any], arguments: Sequence[Any]
) -> None:
    for descriptor, path in zip((1, 2), printed, strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    work(*arguments)
