"""A small run beside programs that use all cores: our choice of threads and others.

``python -m studies.threads``

Each row is a fresh process that fuses a small stack several times, alone and beside a
loop on every core.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Name of a row: whether our choice counts, and variables of the environment.
WAYS = {
    "our choice": (True, {}),
    "one thread": (False, {"OMP_NUM_THREADS": "1"}),
    "all threads, waiting busily": (False, {"OMP_WAIT_POLICY": "ACTIVE"}),
    "all threads, waiting idly": (False, {"OMP_WAIT_POLICY": "PASSIVE"}),
}
REPEATS = 5


def seconds_of_runs(ours: bool) -> list[float]:
    """Wall time of each of some runs over 6 slices of 256 x 256 pixels."""
    import numpy as np
    import torch

    import napari_focus_fusion as ff
    from napari_focus_fusion import fusion

    if not ours:
        vars(fusion)["threads_of"] = lambda plan: torch.get_num_threads()
    stack = np.random.default_rng(0).integers(0, 60_000, (6, 256, 256)).astype("u2")
    ff.fuse(stack, "sml", device="cpu")
    before, times = torch.get_num_threads(), []
    for _ in range(REPEATS):
        began = time.perf_counter()
        ff.fuse(stack, "sml", device="cpu")
        times.append(time.perf_counter() - began)
    assert torch.get_num_threads() == before  # the caller's setting is as it was
    return times


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that compute without end."""
    processes = [
        multiprocessing.Process(target=_loop, daemon=True) for _ in range(loops)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _loop() -> None:
    while True:
        pass


def main() -> None:
    """Print a table."""
    if len(sys.argv) > 1:
        print(json.dumps(seconds_of_runs(sys.argv[1] == "ours")))
        return
    cores = os.cpu_count() or 1
    print(f"{cores} cores, {REPEATS} runs each\n")
    print("| threads | loops beside | median, s | slowest, s |")
    print("| --- | --- | --- | --- |", flush=True)
    for loops in (0, cores):
        for name, (ours, variables) in WAYS.items():
            environment = {**os.environ}
            environment.pop("OMP_NUM_THREADS", None)
            command = [
                sys.executable,
                "-m",
                "studies.threads",
                "ours" if ours else "set",
            ]
            with busy(loops):
                done = subprocess.run(
                    command,
                    env=environment | variables,
                    capture_output=True,
                    text=True,
                    check=True,
                )
            times = json.loads(done.stdout)
            print(
                f"| {name} | {loops} | {statistics.median(times):.2f} "
                f"| {max(times):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
