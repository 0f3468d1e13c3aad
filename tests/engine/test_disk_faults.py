"""Disks that are full or can only be read, names that are too long: said in words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_focus_fusion import FocusFusionError, as_stack, fuse
from napari_focus_fusion.write.saving import LONGEST_NAME

if TYPE_CHECKING:
    from pathlib import Path

COMMON = """
import os, sys, subprocess
import numpy as np
import napari_focus_fusion as ff

place, size = sys.argv[1:]
mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place]
subprocess.run(mount, check=True)
stack = np.random.default_rng(0).integers(0, 65535, (3, 600, 700)).astype(np.uint16)

def fused(**keywords):
    try:
        out = f"{place}/out.ome.zarr"
        return ff.fuse(stack, "sml", axes="ZYX", device="cpu", out=out, **keywords)
    except ff.FocusFusionError as error:
        print("REFUSED", error)
"""


def on_a_disk_of_its_own(code: str, place: Path, size: str) -> str:
    """What a program prints in which a disk of this size is mounted."""
    isolated = ["unshare", "--map-root-user", "--mount"]
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*isolated, "mount", "-t", "tmpfs", "none", str(place)], capture_output=True
        ).returncode
    ):
        pytest.skip("disks can only be mounted where Linux lets users do so")
    done = subprocess.run(
        [*isolated, sys.executable, "-c", COMMON + code, str(place), size],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_room_is_checked_before_the_work(tmp_path: Path) -> None:
    code = "fused(progress=lambda p: print(p.stage)); print(os.listdir(place))"
    printed = on_a_disk_of_its_own(code, tmp_path, "1m")
    assert "REFUSED The disk of" in printed and "Free some space" in printed
    assert "Finding" not in printed
    assert printed.endswith("[]\n")


def test_a_disk_that_fills_up_is_named_and_the_same_call_goes_on(
    tmp_path: Path,
) -> None:
    code = """
def fill():
    if os.path.isdir(f"{place}/out.ome.zarr.partial/finished_chunks"):
        with open(f"{place}/other", "ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
    return False

fused(should_stop=fill)
print(os.path.exists(f"{place}/out.ome.zarr"))
os.remove(f"{place}/other")
result = fused()
expected = ff.fuse(stack, "sml", axes="ZYX", device="cpu")
print(np.array_equal(result.fused[...], expected.fused), sorted(os.listdir(place)))
"""
    printed = on_a_disk_of_its_own(code, tmp_path, "30m")
    first, *others = printed.splitlines()
    assert "the disk is full. Free some space" in first
    assert "the same call goes on from there" in first
    assert others == ["False", "True ['out.ome.zarr']"]


def test_a_disk_that_can_only_be_read(tmp_path: Path) -> None:
    code = """
subprocess.run(["mount", "-o", "remount,ro", place], check=True)
fused()
result = ff.fuse(stack[:, :50, :50], "sml", axes="ZYX")
for name in ("out.ome.tif", "out.ome.zarr"):
    try:
        result.save(f"{place}/{name}")
    except ff.FocusFusionError as error:
        print("REFUSED", error)
try:
    ff.finetune("sesf", stack, out=f"{place}/new/mine.safetensors", steps=1)
except ff.FocusFusionError as error:
    print("REFUSED", error)
"""
    refused = on_a_disk_of_its_own(code, tmp_path, "30m").splitlines()
    assert len(refused) == 4
    for line in refused:
        assert line.startswith("REFUSED Cannot save in")
        assert line.endswith("that disk can only be read. Save elsewhere.")


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif"])
def test_long_names(ending: str, tmp_path: Path) -> None:
    stack = as_stack(np.zeros((2, 30, 40), np.uint8))
    result = fuse(stack, "sml")
    longest = "ä" * ((LONGEST_NAME - len("_confidence.ome.tif")) // 2) + ending
    written = result.save(tmp_path / longest)
    assert all(path.exists() for path in written)
    for name in ("a" * LONGEST_NAME + ending, f"{'a' * 300}/{ending}", "a/" * 3000):
        target: Any = tmp_path / name
        if name.endswith("/"):
            target = f"{target}/b{ending}"
        with pytest.raises(FocusFusionError, match=r"too long|does not exist"):
            result.save(target)
        if ending == ".ome.zarr":
            with pytest.raises(FocusFusionError, match=r"too long|does not exist"):
                fuse(stack, "sml", out=target)
