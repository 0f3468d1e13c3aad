"""Runs that are killed at one file-system event after the other, then made again.

Every run is a fork of the process that calls `main`, which imports all and uses nothing
of it, so that a run takes a moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Any

import filelock  # noqa: F401
import numpy as np
import torch
import yaozarrs.write.v05  # noqa: F401
import zarr  # noqa: F401

from napari_focus_fusion import fuse
from napari_focus_fusion.engine import plan, store

if TYPE_CHECKING:
    from pathlib import Path

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"}


def fuse_into(out: Path, smoothness: float = 1.0) -> None:
    """Two chunks, of which one is black; quick, as a given decision is not scored."""
    slices = np.random.default_rng(0).integers(1, 200, (2, 40, 120)).astype(np.uint8)
    slices[:, :, 64:] = 0
    fuse(
        slices,
        "sml",
        axes="ZYX",
        decision=np.indices((40, 120))[1] % 64 // 32,
        blend="select",
        smoothness=smoothness,
        out=out,
        overwrite=True,
    )


class Killer:
    """Audit hook that ends this process before its k-th change to a folder."""

    def __init__(self, folder: Path, k: float) -> None:
        self.folder, self.k, self.seen = str(folder), k, []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        change = event in CHANGES or (event == "open" and arguments[2] & WRITES)
        # Folders are emptied by names relative to them.
        inside = event in ("os.remove", "os.rmdir") and arguments[1] != -1
        if change and (inside or str(arguments[0]).startswith(self.folder)):
            if len(self.seen) == self.k:
                os.kill(os.getpid(), signal.SIGKILL)
            self.seen.append(f"{event} {arguments[0]}")


def forked(work: Any, *arguments: Any) -> int:
    """Exit status of a function called in a process of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(*arguments)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count(folder: Path, log: Path) -> None:
    killer = Killer(folder, np.inf)
    fuse_into(folder / "a.ome.zarr")
    log.write_text("\n".join(killer.seen))


def killed(folder: Path, k: int) -> None:
    Killer(folder, k)
    fuse_into(folder / "a.ome.zarr")


def digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def sweep(place: Path, before: bool, how_many: int) -> list[str]:
    """What went wrong, in words."""
    folders = [place / f"{name}" for name in ("whole", "other")]
    for folder in folders:
        folder.mkdir()
    assert forked(fuse_into, folders[1] / "a.ome.zarr", 0.5) == 0
    if before:
        os.rename(folders[1] / "a.ome.zarr", folders[0] / "a.ome.zarr")
        assert forked(fuse_into, folders[1] / "a.ome.zarr", 0.5) == 0
    assert forked(count, folders[0], place / "log") == 0
    new, old = (digest_of(folder / "a.ome.zarr") for folder in folders)
    events = (place / "log").read_text().splitlines()
    faults = [
        f"no {kind}" for kind in ("c/0/0", "zarr.json") if kind not in str(events)
    ]
    last = max(how_many // 3, 1)
    ks = {
        *range(len(events))[-last:],
        *np.linspace(0, len(events), how_many, dtype=int),
    }
    for k in sorted(map(int, ks)):
        folder = place / f"{k}"
        folder.mkdir()
        out = folder / "a.ome.zarr"
        if before:
            shutil.copytree(folders[1] / "a.ome.zarr", out)
        status = forked(killed, folder, k)
        if status != (-signal.SIGKILL if k < len(events) else 0):
            faults.append(f"{k}: ended with {status}")
        event = events[k] if k < len(events) else "end"
        if out.exists() and digest_of(out) not in (new, old):
            faults.append(f"{k}: half a result before {event}")
        if forked(fuse_into, out) != 0 or not out.exists():
            faults.append(f"{k}: does not go on from {event}")
        elif digest_of(out) != new or len(list(folder.iterdir())) != 1:
            faults.append(f"{k}: not the same, or strays, after {event}")
    print(len(events), len(ks))
    return faults


def main(place: Path, before: bool, how_many: int) -> None:
    """Sweep in this process, and print the faults as a list in JSON."""
    torch.set_num_threads(1)
    plan.CHUNK = store.CHUNK = 64
    # A process that is killed loses nothing that the system has accepted.
    os.fsync = lambda _: None
    print(json.dumps(sweep(place, before, how_many)))
