"""Candidates times data sets: everything is fused, measured and timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.candidates import (
    baselines,
    find_candidates,
    find_peers,
)
from napari_focus_fusion.benchmark.data import find_data_set
from napari_focus_fusion.benchmark.measuring import measure_case
from napari_focus_fusion.benchmark.sheet import contact_sheet, worst_disagreements
from napari_focus_fusion.benchmark.table import Run, Score, Table
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics import WITH_TRUTH, WITHOUT_TRUTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.candidates import Candidate
    from napari_focus_fusion.benchmark.data import Case, DataSet

    Array = NDArray[Any]


def run_benchmark(
    model_names: Sequence[str] = ("sml",),
    data: Sequence[str] = ("scenes",),
    *,
    peers: bool = False,
    untrained: bool = False,
    measures: Sequence[str] | None = None,
    limit: int | None = None,
    sheets: int = 1,
    smoothness: float | None = None,
    seed: int = 0,
    device: str = "auto",
    log: Callable[[str], None] = lambda text: None,
) -> Table:
    """Fuse every data set with every candidate, and measure what comes out.

    Each candidate works through each data set in a process of its own, one after the
    other. A failure is recorded and the others go on.

    Parameters
    ----------
    model_names
        Names of :func:`models`, files of weights, or names of `PEERS`. Behind a model's
        name may stand ``:untrained``, for random weights; and behind that of one that
        enlarges ``:two-step``, for fusing first and enlarging then, or the name of
        another model after a colon, whose decision map it uses.
    data
        Names of `DATA_SETS`, or files and folders of the user's.
    peers
        Whether the programs of `PEERS` that are installed take part.
    untrained
        Whether each model with weights takes part untrained, too.
    measures
        Names of measures of :func:`evaluate`; None for those of each data set. PSNR and
        SSIM are left out where the truth is not known.
    limit
        Only the first so many stacks of each data set.
    sheets
        How many contact sheets to draw for each data set, of the stacks that the
        candidates disagree on the most.
    smoothness
        Passed to :func:`fuse`; None for its default.
    seed
        What untrained weights are drawn from.
    device
        Where models run.
    log
        Called with a line of progress.

    Returns
    -------
    Table

    Raises
    ------
    FocusFusionError
        If the data cannot be found or read, or nothing can be measured.
    """
    table = Table(
        {
            "models": list(model_names),
            "data": list(data),
            "peers": peers,
            "untrained": untrained,
            "measures": list(measures) if measures else None,
            "limit": limit,
            "options": {} if smoothness is None else {"smoothness": smoothness},
            "seed": seed,
            "device": device,
        }
    )
    known = (*WITHOUT_TRUTH, *WITH_TRUTH)
    if unknown := [name for name in measures or () if name not in known]:
        raise FocusFusionError(
            f"There is no measure {', '.join(map(repr, unknown))}; choose from "
            f"{', '.join(known)}."
        )
    candidates = find_candidates(model_names, untrained=untrained)
    if peers:
        found, table.missing = find_peers()
        candidates += [peer for peer in found if peer not in candidates]
    data_sets = [find_data_set(text) for text in data]
    names = [data_set.name for data_set in data_sets]
    if len(set(names)) < len(names):
        raise FocusFusionError(
            f"Two data sets have one name: {', '.join(names)}. Rename a folder, or run "
            "them one by one."
        )
    # All that can be missing is found out before the work, not after half of it.
    everything = [(data_set, _first(data_set.cases(), limit)) for data_set in data_sets]
    for data_set, cases in everything:
        names_of_set = tuple(measures or data_set.measures)
        _run_data_set(table, data_set, cases, candidates, names_of_set, sheets, log)
    return table


def _first(cases: Iterator[Case], limit: int | None) -> list[Case]:
    found = [case for _, case in zip(range(limit or sys.maxsize), cases, strict=False)]
    for case in found:
        if case.stack.n_slices < 2:
            raise FocusFusionError(
                f"{case.name!r} has {case.stack.n_slices} slice; a fusion is measured "
                "against the two or more slices that it was made from."
            )
    return found


def _run_data_set(
    table: Table,
    data_set: DataSet,
    cases: list[Case],
    candidates: list[Candidate],
    measures: tuple[str, ...],
    sheets: int,
    log: Callable[[str], None],
) -> None:
    table.data_sets.append(_description(data_set, cases, measures))
    with TemporaryDirectory(prefix="focus-fusion-") as name:
        folder = Path(name)
        _fuse_all(table, data_set.name, cases, candidates, folder, log)
        for candidate in baselines(cases):
            table.runs.append(Run(data_set.name, candidate.name, candidate.kind))
        found: list[tuple[float, str, Array]] = []
        for i, case in enumerate(cases):
            log(f"{data_set.name}: measuring {i + 1} of {len(cases)}, {case.name}")
            outputs = [_output(folder, n, i) for n in range(len(candidates))]
            images = measure_case(table, data_set.name, case, outputs, measures)
            if sheets and images:
                worst, places = worst_disagreements(case, images)
                decisions = {
                    candidate.name: np.load(path)
                    for candidate, output in zip(candidates, outputs, strict=True)
                    if (path := Path(f"{output}-decision.npy")).exists()
                }
                sheet = contact_sheet(case, images, decisions, places)
                found.append((worst, case.name, sheet))
                found = sorted(found, key=lambda item: -item[0])[:sheets]
            for output in outputs:
                for path in folder.glob(f"{output.name}-*.npy"):
                    path.unlink()
        table.sheets[data_set.name] = {stack: sheet for _, stack, sheet in found}


def _description(
    data_set: DataSet, cases: list[Case], measures: tuple[str, ...]
) -> dict[str, Any]:
    """The entry of a data set in the table."""
    return {
        "name": data_set.name,
        "about": data_set.about,
        "measures": measures,
        "stacks": [
            {
                "name": case.name,
                "groups": case.groups,
                "slices": case.stack.n_slices,
                "megapixel_slices": case.megapixel_slices(),
                "sha256": case.sha256,
            }
            for case in cases
        ],
    }


# Fusing, in other processes -----------------------------------------------------------


def _output(folder: Path, candidate: int, case: int) -> Path:
    """Where what one candidate makes of one stack is written, without the endings."""
    return folder / f"{candidate}-{case}"


def _fuse_all(
    table: Table,
    data: str,
    cases: list[Case],
    candidates: list[Candidate],
    folder: Path,
    log: Callable[[str], None],
) -> None:
    """Fuse all stacks with all candidates; costs and errors go into the table."""
    files = _save_arrays(cases, folder)
    for number, candidate in enumerate(candidates):
        run = Run(data, candidate.name, candidate.kind)
        table.runs.append(run)
        jobs = [
            place | {"out": str(_output(folder, number, i))}
            for i, place in enumerate(files)
        ]
        request = {
            "kind": candidate.kind,
            "target": candidate.target,
            **{name: table.settings[name] for name in ("seed", "device")},
            "options": table.settings["options"] | candidate.options,
            "jobs": jobs,
        }
        costs = _run_candidate(run, request, cases, folder, log)
        for case, cost in zip(cases, costs, strict=True):
            error = cost.pop("error", "")
            table.scores.append(
                Score(data, case.name, candidate.name, cost=cost, error=error)
            )


def _save_arrays(cases: list[Case], folder: Path) -> list[dict[str, Any]]:
    """Where another process finds each stack."""
    places: list[dict[str, Any]] = []
    for i, case in enumerate(cases):
        place: dict[str, Any] = {"axes": case.axes, "enlarge": case.enlarge}
        if case.files:
            place["files"] = [str(path.absolute()) for path in case.files]
        else:
            place["array"] = str(folder / f"stack-{i}.npy")
            np.save(place["array"], np.asarray(case.stack.data))
        places.append(place)
    return places


def _run_candidate(
    run: Run,
    request: dict[str, Any],
    cases: list[Case],
    folder: Path,
    log: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Fuse all stacks of a data set in a new process; costs or errors, one a stack."""
    answers = ask_worker(request, folder)
    about = next(answers)
    costs: list[dict[str, Any]] = []
    for case in cases:
        name = f"{len(costs) + 1} of {len(cases)}, {case.name}"
        log(f"{run.data}: {run.candidate} fusing {name}")
        costs.append(next(answers))
    run.device = about.get("device", "")
    run.version = about.get("version", "")
    run.error = about.get("error", "")
    peaks = [cost.pop("peak_mb") for cost in costs if "peak_mb" in cost]
    run.peak_mb = max(peaks, default=None)
    return costs


def ask_worker(request: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """What the worker answers to a request, as it answers.

    Parameters
    ----------
    request
        ``kind``, ``target``, ``seed``, ``device``, ``options`` and ``jobs``, see
        `napari_focus_fusion.benchmark.worker`.
    folder
        For files that are needed meanwhile.

    Yields
    ------
    dict
        First ``device`` and ``version``, or ``error`` where it could not begin. Then
        for each job ``seconds``, ``cpu_seconds`` and ``peak_mb``, or ``error``; also
        for those that were not reached.
    """
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-m", "napari_focus_fusion.benchmark.worker"]
    count, error = 0, ""
    with (
        open(folder / "errors.txt", "w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [*command, folder / "request.json"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                answer = json.loads(line)
                error = error or ("" if count else answer.get("error", ""))
                count += 1
                yield answer
        except BaseException:  # also where the caller wants no more
            process.kill()
            raise
        process.wait()
        errors.seek(0)
        last = " / ".join(errors.read().strip().splitlines()[-1:])
    if not error:
        error = f"ended with exit status {process.returncode}: {last}"
    for _ in range(len(request["jobs"]) + 1 - count):
        yield {"error": error}
