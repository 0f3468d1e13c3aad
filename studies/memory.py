"""Peak memory of a run beside what ``memory=`` allows, each in a fresh process.

``python -m studies.memory``

A process imports everything, loads the model, fuses a stack of 64 x 64 pixels of the
same kind (what is loaded once is loaded then), and returns what it freed. From there on
its resident memory is the baseline. The peak is what the kernel has counted as most
resident while a stack is opened and fused, less the baseline and less the result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

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
    how: dict[str, Any] = {
        "tiled TIFF": {"tile": (256, 256)},
        "stripped TIFF": {"rowsperstrip": 16},
        "one-strip TIFF": {"rowsperstrip": side},
    }[kind]
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


def open_source(kind: str, path: str) -> Any:
    """What is given to ``fuse``."""
    if kind == "dask":
        import dask.array

        return dask.array.from_zarr(path)
    if kind == "2-D files":
        return sorted(map(str, Path(path).iterdir()))
    return path


def resident(name: str) -> int:
    """A line of the process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Fuse in this process, and say what it took."""
    import ctypes
    import gc

    import napari_focus_fusion as ff
    from napari_focus_fusion.fusion import plan_fusion

    model, keywords = ff.load_model(case["model"]), case["keywords"]
    small = open_source(case["kind"], case["small"])
    ff.fuse(small, model, axes="ZYX", device="cpu", **keywords)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    stack = open_source(case["kind"], case["path"])
    memory = case["memory"]
    run = ff.fuse(
        stack,
        model,
        axes="ZYX",
        device="cpu",
        memory=memory,
        out=case["out"],
        **keywords,
    )
    peak = resident("VmHWM") - before
    names = ("fused", "decision", "confidence", "depth", "consistency")
    kept = [getattr(run, name, None) for name in names]
    result = sum(array.nbytes for array in kept if isinstance(array, np.ndarray))
    _, plan = plan_fusion(
        stack,
        model,
        axes="ZYX",
        device="cpu",
        memory=memory,
        out=case["out"],
        **keywords,
    )
    return {
        "peak": peak - result,
        "result": result,
        "regions": len(plan.regions),
        "estimate": plan.working_memory,
    }


def in_a_fresh_process(case: dict[str, Any]) -> dict[str, Any]:
    """What :func:`measure` gives, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "studies.memory", "--case", json.dumps(case)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--models", help="only these, separated by commas")
    parser.add_argument("--sources", help="only these, separated by commas")
    parser.add_argument("--memory", type=int, help="MB, instead of those of the table")
    parser.add_argument("--stored", action="store_true", help="write into OME-Zarr")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(json.loads(given.case))))
        return
    sources = given.sources.split(",") if given.sources else SOURCES
    columns = ("model", "stack", "source", "memory, MB", "estimate, MB", "peak, MB")
    print(f"| {' | '.join(columns)} | peak / memory | regions |")
    print("| --- " * (len(columns) + 2) + "|", flush=True)
    for number, (model, keywords, side, slices, memory) in enumerate(MODELS):
        if given.models and model not in given.models.split(","):
            continue
        memory = given.memory or memory
        named = ", ".join([model, *(f"{k}={v}" for k, v in keywords.items())])
        # Readers do not know models: all sources with the first, the rest with one.
        for kind in sources if number == 0 or given.sources else sources[:1]:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                case = {
                    "kind": kind,
                    "model": model,
                    "keywords": keywords,
                    "memory": memory * MB,
                    "path": str(make_source(kind, place, side, slices)),
                    "small": str(make_source(kind, place, 64, 3)),
                    "out": str(place / "out.ome.zarr") if given.stored else None,
                }
                found = in_a_fresh_process(case)
            print(
                f"| {named} | {slices} x {side} x {side} | {kind} | {memory} "
                f"| {found['estimate'] / MB:.0f} | {found['peak'] / MB:.0f} "
                f"| {found['peak'] / MB / memory:.2f} | {found['regions']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
