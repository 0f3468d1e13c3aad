"""Time and memory against the number of slices, the area, and the tile; resumable.

Every measurement is made in a process of its own, so that time and memory are its own,
and kept in a file, so that a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.families import (
    family_methods,
    place_of,
    record_at,
    version_of,
)
from napari_focus_fusion.benchmark.run import ask_worker
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_focus_fusion.benchmark.candidates import Candidate

#: Seed of the scene, far above those of training.
SEED = 7_300_000
ELECTRONS = 4000.0
#: What is not run: what would take longer, by the run before it.
LONGEST = 60.0
#: What a process takes before it begins to fuse does not count for that.
_AT_LEAST = 0.5


@dataclass(frozen=True)
class Sweep:
    """Stacks of which one number grows.

    Attributes
    ----------
    name
        Of what grows: ``"slices"``, ``"area"`` or ``"tile"``.
    slices, sides
        Of each stack; pixels of a side.
    tiles
        Of each stack, in pixels; None: as it comes.
    """

    name: str
    slices: tuple[int, ...]
    sides: tuple[int, ...]
    tiles: tuple[int | None, ...]


def sweeps(*, quick: bool = False) -> tuple[Sweep, ...]:
    """The stacks that are fused; with `quick` the smallest."""
    counts: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    sides: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    tiles: tuple[int, ...] = (64, 128, 256, 512, 1024)
    side = 512
    if quick:
        counts, sides, tiles, side = (2, 4), (64, 128), (64, 128), 64
    return (
        Sweep("slices", counts, (side,) * len(counts), (None,) * len(counts)),
        Sweep("area", (4,) * len(sides), sides, (None,) * len(sides)),
        Sweep("tile", (8,) * len(tiles), (2 * side,) * len(tiles), tiles),
    )


@dataclass(frozen=True)
class Cost:
    """What one method took for one stack.

    Attributes
    ----------
    sweep, method
        Names.
    slices, side, tile
        Of the stack and of the method; None: as it comes.
    seconds, cpu_seconds
        Elapsed, and of the processor.
    peak_mb
        Most memory of the whole process, in megabytes.
    error
        Why there is none of these, or empty.
    """

    sweep: str
    method: str
    slices: int
    side: int
    tile: int | None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    error: str = ""

    @property
    def megapixels(self) -> float:
        """Of a slice."""
        return self.side**2 / 1e6

    @property
    def work(self) -> float:
        """Megapixels times slices."""
        return self.megapixels * self.slices


def measure_speed(
    methods: Sequence[str],
    work: Path,
    *,
    quick: bool = False,
    device: str = "auto",
    log: Callable[[str], None] = lambda text: None,
) -> tuple[list[Cost], dict[str, str]]:
    """Time methods on stacks of more and more slices, of larger and larger planes.

    Parameters
    ----------
    methods
        As for `family_methods`.
    work
        Where results are kept; what is there and up to date is not measured again.
    quick
        Small stacks alone.
    device
        Where models run.
    log
        Called with a line of progress.

    Returns
    -------
    costs : list of Cost
    missing : dict of str to str
        How to install the programs that are not there.
    """
    compared, missing = family_methods(methods)
    costs: list[Cost] = []
    for sweep in sweeps(quick=quick):
        for method in compared:
            if sweep.name == "tile" and method.kind == "peer":
                continue
            costs += _measure_sweep(sweep, method, work, device, log)
    return costs, missing


def _measure_sweep(
    sweep: Sweep,
    method: Candidate,
    work: Path,
    device: str,
    log: Callable[[str], None],
) -> list[Cost]:
    """One method on the stacks of a sweep, up to where it takes too long."""
    costs: list[Cost] = []
    for slices, side, tile in zip(sweep.slices, sweep.sides, sweep.tiles, strict=True):
        cost = Cost(sweep.name, method.name, slices, side, tile)
        if costs:
            before = costs[-1]
            expected = max(before.seconds, _AT_LEAST) * cost.work / before.work
            if before.error or (tile is None and expected > LONGEST):
                why = before.error or f"would take more than {LONGEST:g} s"
                costs.append(
                    Cost(sweep.name, method.name, slices, side, tile, error=why)
                )
                continue
        log(f"{sweep.name}, {method.name}: {slices} x {side} x {side}")
        answer = _measured(cost, method, work, device)
        numbers = {n: answer.get(n, 0.0) for n in ("seconds", "cpu_seconds", "peak_mb")}
        # Not where temporary files lay.
        error = re.sub(r"/\S*/", "", answer.get("error", ""))
        costs.append(
            Cost(sweep.name, method.name, slices, side, tile, **numbers, error=error)
        )
    return costs


def _measured(cost: Cost, method: Candidate, work: Path, device: str) -> dict[str, Any]:
    """Times and memory of a method on a stack, from its file or measured."""
    key = {
        "target": method.target,
        "options": method.options | ({} if cost.tile is None else {"tile": cost.tile}),
        "version": version_of(method),
        "device": device,
        "stack": f"{SEED} {ELECTRONS} {cost.slices} {cost.side}",
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    place = place_of(work, "speed", method.name, name)
    record = record_at(place)
    if record:
        return record
    with TemporaryDirectory(prefix="focus-fusion-") as folder:
        np.save(Path(folder, "stack.npy"), stack_of(cost.slices, cost.side))
        job = {
            "axes": "ZYX",
            "enlarge": 1,
            "array": str(Path(folder, "stack.npy")),
            "out": str(Path(folder, "out")),
        }
        request = {
            "kind": method.kind,
            "target": method.target,
            "seed": 0,
            "device": device,
            "options": key["options"],
            "jobs": [job],
        }
        answers = ask_worker(request, Path(folder))
        next(answers)
        answer = next(answers)
    if "error" not in answer:
        place.mkdir(parents=True, exist_ok=True)
        (place / "record.json").write_text(json.dumps(key | answer), encoding="utf-8")
    return answer


def stack_of(slices: int, side: int) -> np.ndarray:
    """A scene (slices, side, side) uint16; larger than 512 pixels it is mirrored."""
    drawn = min(side, 512)
    scene = make_scene(
        SEED,
        shape=(drawn, drawn),
        slices=slices,
        surface="relief",
        modality="grey",
        electrons=ELECTRONS,
        dtype=np.uint16,
    )
    more = side - drawn
    return np.pad(np.asarray(scene.stack), ((0, 0), (0, more), (0, more)), "symmetric")
