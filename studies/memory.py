"""Peak memory of a run beside what ``memory=`` allows, each in a fresh process.

``python -m studies.memory``

A process that has only imported begins another for each row. That one loads the model,
fuses a stack of 64 x 64 pixels of the same kind (what is loaded once is loaded then),
and returns what it freed: from there on its resident memory is the baseline. The peak
is what the kernel has counted as most resident while a stack is opened and fused, less
the baseline and less the result.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_focus_fusion.device import return_freed_memory
from napari_focus_fusion.fusion import plan_fusion

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

MB = 1 << 20
#: Sources of the same pixels; each makes a stack under a path, and names what to open.
SOURCES = (
    *("Zarr", "tiled TIFF", "stripped TIFF", "one-strip TIFF"),
    *("2-D files", "dask"),
)
#: Model, keywords, rows and columns, slices, and MB of working memory.
MODELS: tuple[tuple[str, dict[str, Any], int, int, int], ...] = (
    ("sml", {}, 1024, 6, 64),
    ("sml", {"surface": 0}, 1024, 4, 64),
    ("sml", {"blend": "select"}, 1024, 4, 64),
    ("sml", {}, 384, 64, 64),
    ("sesf", {}, 512, 4, 64),
    ("residual", {}, 384, 3, 64),
    ("residual-zero", {}, 512, 4, 64),
    ("dual-path", {}, 256, 8, 96),
    ("dual-path", {}, 256, 64, 96),
    ("mscnn", {}, 320, 4, 128),
    ("affinity-sr", {}, 320, 3, 96),
    ("affinity-sr", {"scale": 2}, 256, 3, 128),
    ("affinity-sr", {"scale": 4}, 128, 3, 192),
)


def make_source(kind: str, folder: Path, side: int, slices: int) -> Path:
    """A stack (slices, side, side) uint16 of a sloping texture, stored in some way."""
    import tifffile
    import zarr

    path = folder / f"{kind}-{side}-{slices}".replace(" ", "-")
    planes = (slice_of(side, slices, z) for z in range(slices))
    shape = (slices, side, side)
    if kind in ("Zarr", "dask"):
        array = zarr.create_array(
            path, shape=shape, chunks=(1, min(side, 512), min(side, 512)), dtype="u2"
        )
        for z, plane in enumerate(planes):
            array[z] = plane
        return path
    if kind == "2-D files":
        path.mkdir()
        for z, plane in enumerate(planes):
            tifffile.imwrite(path / f"z{z:03}.tif", plane, compression="zlib")
        return path
    layouts: dict[str, dict[str, Any]] = {
        "tiled TIFF": {"tile": (256, 256)},
        "stripped TIFF": {"rowsperstrip": 16},
        "one-strip TIFF": {"rowsperstrip": side},
    }
    how = layouts[kind]
    path = path.with_suffix(".tif")
    stack = np.stack(list(planes))
    tifffile.imwrite(path, stack, compression="zlib", metadata={"axes": "ZYX"}, **how)
    return path


def slice_of(side: int, slices: int, z: int) -> np.ndarray:
    """(side, side) uint16: a texture that is sharp where the surface passes."""
    rng = np.random.default_rng(0)
    texture = rng.integers(20_000, 40_000, (side, side)).astype(np.float32)
    surface = np.linspace(0, slices - 1, side)[:, None]
    contrast = np.exp(-((surface - z) ** 2))
    plane = 30_000 + (texture - 30_000) * contrast
    noise = np.random.default_rng(z + 1).normal(0, 100, plane.shape)
    return (plane + noise).astype(np.uint16)


def open_source(kind: str, path: Path) -> Any:
    """What is given to ``fuse``."""
    if kind == "dask":
        import dask.array

        return dask.array.from_zarr(path)
    if kind == "2-D files":
        return sorted(path.iterdir())
    return path


def resident(name: str) -> int:
    """A line of the process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def measure(case: dict[str, Any], place: Path, answer: Connection) -> None:
    """Fuse in this process, and send what it took."""
    import napari_focus_fusion as ff

    torch.set_num_threads(1)
    how = {**case["keywords"], "axes": "ZYX", "device": "cpu"}
    kind, model = case["kind"], ff.load_model(case["model"])
    path = make_source(kind, place, case["side"], case["slices"])
    small = open_source(kind, make_source(kind, place, 64, 3))
    ff.fuse(small, model, out=place / "small.ome.zarr", **how)
    ff.fuse(small, model, **how)
    gc.collect()
    return_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    stack = open_source(kind, path)
    how |= {"memory": case["memory"] * MB, "out": case["out"] and place / case["out"]}
    run = ff.fuse(stack, model, **how)
    peak = resident("VmHWM") - before
    names = ("fused", "decision", "confidence", "depth", "consistency", "beyond")
    kept = [getattr(run, name, None) for name in names]
    result = sum(array.nbytes for array in kept if isinstance(array, np.ndarray))
    _, plan = plan_fusion(stack, model, **how)
    answer.send((plan.working_memory / MB, (peak - result) / MB, len(plan.regions)))


def in_a_fresh_process(case: dict[str, Any]) -> tuple[float, float, int]:
    """Estimate and peak in MB, and regions, of :func:`measure` in a new process."""
    context = multiprocessing.get_context("fork")
    mine, other = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=measure, args=(case, Path(folder), other))
        process.start()
        other.close()
        found: tuple[float, float, int] = mine.recv()
        process.join()
    return found


def main() -> None:
    """Print a table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", help="only these, separated by commas")
    parser.add_argument("--sources", help="only these, separated by commas")
    parser.add_argument("--memory", type=int, help="MB, instead of those of the table")
    parser.add_argument("--first", type=int, default=0, help="row to begin with")
    parser.add_argument("--stored", action="store_true", help="write into OME-Zarr")
    given = parser.parse_args()
    sources = given.sources.split(",") if given.sources else SOURCES
    import dask.array  # noqa: F401
    import tifffile  # noqa: F401
    import zarr  # noqa: F401

    columns = ("model", "stack", "source", "memory, MB", "estimate, MB", "peak, MB")
    print(f"| {' | '.join(columns)} | peak / memory | regions |")
    print("| --- " * (len(columns) + 2) + "|", flush=True)
    for number, (model, keywords, side, slices, memory) in enumerate(MODELS):
        if number < given.first:
            continue
        if given.models and model not in given.models.split(","):
            continue
        memory = given.memory or memory
        named = ", ".join([model, *(f"{k}={v}" for k, v in keywords.items())])
        # Readers do not know models: all sources with the first, the rest with one.
        for kind in sources if number == 0 or given.sources else sources[:1]:
            estimate, peak, regions = in_a_fresh_process(
                {
                    "kind": kind,
                    "model": model,
                    "keywords": keywords,
                    "side": side,
                    "slices": slices,
                    "memory": memory,
                    "out": "out.ome.zarr" if given.stored else None,
                }
            )
            print(
                f"| {named} | {slices} x {side} x {side} | {kind} | {memory} "
                f"| {estimate:.0f} | {peak:.0f} | {peak / memory:.2f} | {regions} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
