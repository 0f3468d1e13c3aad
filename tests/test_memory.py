"""Peak memory, measured from outside in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import napari_focus_fusion

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="the kernel does not tell the peak of a part of a run",
)

MB = 1 << 20

#: What every run may take.
MEMORY = 64 * MB
#: Makes stacks and fuses them, and prints the peak of each run in bytes beyond what the
#: process takes after a small run.
SCRIPT = """
import json, os, shutil, sys
from pathlib import Path
import numpy as np
import torch

torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3))

def memory(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024

def peak_of(run):
    Path("/proc/self/clear_refs").write_text("5")
    run()
    return memory("VmHWM") - base

import zarr
from napari_focus_fusion import fuse
from napari_focus_fusion.device import return_freed_memory
from small_models import random_sesf

def make(path, channels, slices, height, dtype):
    # Four slices of noise; the others are links to their chunks.
    shape = (channels, slices, height, 1024)
    array = zarr.create_array(
        path, shape=shape, chunks=(1, 1, 512, 512), dtype=dtype, compressors=None
    )
    noise = np.random.default_rng(0).integers(0, 60000, (512, 1024))
    for c in range(channels):
        for z in range(min(slices, 4)):
            for y in range(0, height, 512):
                array[c, z, y : y + 512] = np.roll(noise, 7 * z + y, 1)
        chunks = path / "c" / str(c)
        for z in range(4, slices):
            shutil.copytree(chunks / str(z % 4), chunks / str(z), copy_function=os.link)
    return array

folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
fuse(np.zeros((3, 64, 64), "u2"), "sml")
fuse(np.zeros((3, 64, 64), "u2"), "sml", out=folder / "small.ome.zarr")
return_freed_memory()
base = memory("VmRSS")
peaks = []
for number, (shape, keywords) in enumerate(runs):
    path = folder / f"{number}.zarr"
    stack = make(path, *shape)
    return_freed_memory()
    peaks.append(peak_of(lambda: fuse(
        stack, "sml", axes="CZYX", reference=0, memory=%d,
        out=folder / f"{number}.ome.zarr", **keywords,
    )))
    shutil.rmtree(path)
windows = [torch.rand(1, 1, 192, 192)] * 20
with torch.inference_mode():
    for count in (2, 20):
        peaks.append(peak_of(lambda: random_sesf().context(windows[:count])))
print(json.dumps(peaks))
""".replace("%d", str(MEMORY))


def peaks_of(
    runs: list[tuple[tuple[Any, ...], dict[str, Any]]], folder: Path
) -> list[int]:
    paths = [Path(__file__).parent, Path(napari_focus_fusion.__file__).parents[1]]
    # One pool of free memory for all threads: what threads keep for later, some MB
    # each, is not part of what a run needs.
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "MALLOC_ARENA_MAX": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(runs)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_memory_is_kept_to_whatever_the_stack(tmp_path: Path) -> None:
    """The peak grows neither with slices nor with area."""
    runs = [
        ((1, 2, 1024, "u2"), {"surface": 0}),
        ((1, 16, 512, "u2"), {}),
        ((1, 1, 3072, "u2"), {}),
        ((2, 48, 512, "f8"), {"blend": "select", "surface": 0}),
    ]
    *peaks, of_two, of_twenty = peaks_of(runs, tmp_path)
    size = 2 * 48 * 512 * 1024 * 8
    print(
        f"a stack of {size / MB:.0f} MB took {peaks[-1] / MB:.0f} MB; 2 slices "
        f"{peaks[0] / MB:.0f}, 16 slices {peaks[1] / MB:.0f}, three times the area "
        f"{peaks[2] / MB:.0f} MB"
    )
    assert size > 5 * MEMORY
    assert max(peaks) < 1.25 * MEMORY, peaks
    # A network's statistics: the features of 18 more slices would be 170 MB.
    assert of_twenty < of_two + 32 * MB
