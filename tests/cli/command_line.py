"""The real program, and small stacks for it."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_focus_fusion.cli import main

if TYPE_CHECKING:
    import pytest

PROGRAM = [sys.executable, "-m", "napari_focus_fusion"]
FAST = ["--model", "sml", "--device", "cpu"]

# Importing PyTorch takes longer than most of what is tested: one process does it, and
# each run of the program is a fork of that.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["napari_focus_fusion.cli", "napari_focus_fusion.fusion", "torch", "zarr"]
)


def focus_stack(n_slices: int = 3, seed: int = 0) -> np.ndarray:
    """A texture cut into upright strips, the n-th sharp in slice n only: uint8, ZYX."""
    texture = np.random.default_rng(seed).uniform(20, 235, (48, 20 * n_slices))
    strip = np.arange(texture.shape[1]) // 20
    blurred = ndimage.gaussian_filter(texture, 3)
    slices = [np.where(strip == z, texture, blurred) for z in range(n_slices)]
    return np.round(slices).astype(np.uint8)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program, in a process of its own."""
    with TemporaryDirectory() as folder:
        printed = [Path(folder) / name for name in ("stdout", "stderr")]
        command = [*map(str, arguments)]
        process = _FORKS.Process(target=_program, args=(command, *printed))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            command, process.exitcode, *(path.read_text() for path in printed)
        )


def _program(command: list[str], stdout: Path, stderr: Path) -> None:
    for descriptor, path in ((1, stdout), (2, stderr)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.exit(main(command))


def read_until(terminal: int, words: bytes | None) -> bytes:
    """What a program prints on a terminal until it says these words, or ends."""
    output = b""
    while words is None or words not in output:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux's way of saying that the other end has closed
            break
        if not chunk:
            break
        output += chunk
    return output


def report_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    report = json.loads(capsys.readouterr().out)
    assert isinstance(report, dict)
    return report
