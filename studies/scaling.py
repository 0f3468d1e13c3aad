"""How a fusion scales over the workers of a cluster whose storage is slow.

``python -m studies.scaling``

Every chunk takes its time to be read, as over a network; computing takes little beside
that, so that the cores of one machine do for many workers. The time of the first worker
over that of N is how many times as fast N are.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask.array as da
import numpy as np

WORKERS = (1, 2, 4)
SLICES, SIDE, CHUNK = 4, 4096, 512


def slow(block: np.ndarray, seconds: float) -> np.ndarray:
    """A chunk, after so many seconds."""
    time.sleep(seconds)
    return block


def stack_on_slow_storage(seconds: float) -> da.Array:
    """Texture (SLICES, SIDE, SIDE) uint16 that is sharp in one slice a quarter."""
    rng = np.random.default_rng(0)
    shape = (SLICES, SIDE, SIDE)
    planes = rng.integers(20_000, 21_000, shape).astype(np.uint16)
    for z, part in enumerate(np.array_split(np.arange(SIDE), SLICES)):
        planes[z][:, part] = rng.integers(0, 60_000, (SIDE, len(part)))
    chunks = da.from_array(planes, chunks=(1, CHUNK, CHUNK))
    return chunks.map_blocks(slow, seconds, dtype=planes.dtype)


def main() -> None:
    """Print a table."""
    from distributed import Client, LocalCluster

    import napari_focus_fusion as ff

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.04, help="to read a chunk")
    seconds = parser.parse_args().seconds
    stack = stack_on_slow_storage(seconds)
    print(f"{SLICES} x {SIDE} x {SIDE}, chunks of {CHUNK}, {seconds:g} s to read one")
    print("| workers | seconds | times as fast |\n| --- | --- | --- |")
    alone = 0.0
    for workers in WORKERS:
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0"
            ) as cluster,
            TemporaryDirectory() as folder,
        ):
            client = Client(cluster)
            how: dict[str, Any] = {"axes": "ZYX", "device": "cpu", "client": client}
            ff.fuse(stack[:2, :64, :64], "sml", out=Path(folder, "first.zarr"), **how)
            began = time.perf_counter()
            ff.fuse(stack, "sml", out=Path(folder, "out.zarr"), memory="64MB", **how)
            took = time.perf_counter() - began
            client.close()
        alone = alone or took
        print(f"| {workers} | {took:.1f} | {alone / took:.2f} |", flush=True)


if __name__ == "__main__":
    main()
