"""How a fusion scales over the workers of a cluster whose storage is slow.

``python -m studies.scaling``

Every chunk of a Zarr takes its time to be read, as over a network; computing takes
little beside that, so that the cores of one machine do for several workers. The time of
one worker over that of N is how many times as fast N are.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec

WORKERS = (1, 2, 4)
SLICES, SIDE, CHUNK = 4, 4096, 512


class Slow(Codec):
    """A filter that leaves chunks as they are, after some seconds."""

    codec_id = "slow"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def encode(self, buf: Any) -> Any:
        """A chunk to be written."""
        return buf

    def decode(self, buf: Any, out: Any = None) -> Any:
        """A chunk that was read."""
        time.sleep(self.seconds)
        return buf if out is None else numcodecs.compat.ndarray_copy(buf, out)


def write_stack(path: Path, seconds: float) -> None:
    """Texture (SLICES, SIDE, SIDE) uint16; each slice is sharp in some columns."""
    numcodecs.register_codec(Slow)
    rng = np.random.default_rng(0)
    shape = (SLICES, SIDE, SIDE)
    planes = rng.integers(20_000, 21_000, shape).astype(np.uint16)
    for plane, part in zip(
        planes, np.array_split(np.arange(SIDE), SLICES), strict=True
    ):
        plane[:, part] = rng.integers(0, 60_000, (SIDE, len(part)))
    zarr.create_array(
        path,
        data=planes,
        chunks=(1, CHUNK, CHUNK),
        filters=[Slow(seconds)],
        compressors=None,
        zarr_format=2,
    )


def register() -> None:
    """Have a worker know the filter."""
    numcodecs.register_codec(Slow)


def main() -> None:
    """Print a table."""
    from distributed import Client, LocalCluster

    import napari_focus_fusion as ff

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.04, help="to read a chunk")
    seconds = parser.parse_args().seconds
    print(f"{SLICES} x {SIDE} x {SIDE}, chunks of {CHUNK}, {seconds:g} s to read one")
    print("| workers | seconds | times as fast |\n| --- | --- | --- |", flush=True)
    alone = 0.0
    with TemporaryDirectory() as folder:
        stack = Path(folder, "stack.zarr")
        write_stack(stack, seconds)
        for workers in WORKERS:
            with LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0"
            ) as cluster:
                client = Client(cluster)
                client.run(register)
                began = time.perf_counter()
                ff.fuse(
                    stack,
                    "sml",
                    axes="ZYX",
                    device="cpu",
                    memory="64MB",
                    client=client,
                    out=Path(folder, f"{workers}.zarr"),
                )
                took = time.perf_counter() - began
                client.close()
            alone = alone or took
            print(f"| {workers} | {took:.1f} | {alone / took:.2f} |", flush=True)


if __name__ == "__main__":
    main()
