"""The real program, and small stacks for it."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from forks import run_forked
from napari_focus_fusion.cli import main

if TYPE_CHECKING:
    import subprocess

    import pytest

PROGRAM = [sys.executable, "-m", "napari_focus_fusion"]
FAST = ["--model", "sml", "--device", "cpu"]


def focus_stack(n_slices: int = 3, seed: int = 0) -> np.ndarray:
    """A texture cut into upright strips, the n-th sharp in slice n only: uint8, ZYX."""
    texture = np.random.default_rng(seed).uniform(20, 235, (48, 20 * n_slices))
    strip = np.arange(texture.shape[1]) // 20
    blurred = ndimage.gaussian_filter(texture, 3)
    slices = [np.where(strip == z, texture, blurred) for z in range(n_slices)]
    return np.round(slices).astype(np.uint8)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program, in a process of its own."""
    return run_forked(_program, [*map(str, arguments)])


def _program(command: list[str]) -> None:
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
