"""Candidates times data sets: everything is fused, measured and timed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.data import find_data_set
from napari_focus_fusion.benchmark.peers import PEERS
from napari_focus_fusion.benchmark.pictures import bicubic, pictures_of
from napari_focus_fusion.benchmark.sheet import contact_sheet, worst_disagreements
from napari_focus_fusion.benchmark.worker import in_words
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics import (
    WITH_TRUTH,
    WITHOUT_TRUTH,
    Sources,
    as_sources,
    depth_errors,
    evaluate,
    prepare,
)
from napari_focus_fusion.models.registry import models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.benchmark.data import Case, DataSet

    Array = NDArray[Any]

COPY = "copy of the first slice"
AVERAGE = "average of the slices"
ORACLE = "nearest slice of the true depth"

UNTRAINED = ":untrained"  # behind a model's name as it is asked for
TWO_STEPS = ":two-step"  # fused first, then enlarged by the model
TWIN = ", untrained"  # and as tables call it

Kind = str
"""``"model"``, ``"untrained"``, ``"peer"``, or ``"yardstick"``: no method at all."""


@dataclass(frozen=True)
class Candidate:
    """What is compared.

    Attributes
    ----------
    name
        As tables call it.
    kind
        ``"model"``, ``"untrained"``, ``"peer"`` or ``"yardstick"``.
    target
        The model's name or file, or the peer's name.
    options
        More keywords of :func:`fuse`.
    """

    name: str
    kind: Kind
    target: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Score:
    """One candidate on one stack.

    Attributes
    ----------
    values
        By measure; empty where it failed.
    cost
        ``seconds`` and ``cpu_seconds``; empty for yardsticks.
    error
        Why it failed, or empty.
    """

    data: str
    stack: str
    candidate: str
    values: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    error: str = ""


@dataclass
class Run:
    """One candidate on one data set.

    Attributes
    ----------
    device, version
        What it ran on, and what it was.
    enlarged_by
        ``"model"`` or ``"cubic"`` where an enlarged image was wanted.
    peak_mb
        Most memory of the whole process, in millions of bytes.
    error
        Why all of it failed, or empty.
    """

    data: str
    candidate: str
    kind: Kind
    device: str = ""
    version: str = ""
    enlarged_by: str = ""
    peak_mb: float | None = None
    error: str = ""


@dataclass
class Table:
    """All that a benchmark found, before it is written down.

    Attributes
    ----------
    settings
        What was asked for.
    data_sets
        Name, ``about``, ``measures`` and ``stacks`` (name, groups, sha256, slices,
        megapixel_slices) of each.
    runs, scores
        What was measured.
    missing
        Peers that are not installed, and how to install them.
    sheets
        By data set, the stack's name and its contact sheet.
    """

    settings: dict[str, Any]
    data_sets: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    sheets: dict[str, dict[str, Array]] = field(default_factory=dict)


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
    say: Callable[[str], None] = lambda text: None,
) -> Table:
    """Fuse every data set with every candidate, and measure what comes out.

    Each candidate works through each data set in a process of its own, one after the
    other. What fails is noted and stops nothing else.

    Parameters
    ----------
    model_names
        Names of :func:`models`, files of weights, or names of `PEERS`. Behind a model's
        name may stand ``:untrained``, for random weights; and behind that of one that
        enlarges ``:two-step``, for fusing first and enlarging then, or the name of
        another model after a colon, whose decision it shall take.
    data
        Names of `DATA_SETS`, or files and folders of the user's.
    peers
        Whether the programs of `PEERS` that are installed take part.
    untrained
        Whether each model with weights takes part untrained, too.
    measures
        Names that :func:`evaluate` knows; None for those of each data set. PSNR and
        SSIM are left out where the truth is not known.
    limit
        Only the first so many stacks of each data set.
    sheets
        How many contact sheets to draw for each data set, of the stacks that the
        candidates disagree on the most.
    smoothness
        Handed on to :func:`fuse`; None for its default.
    seed
        What untrained weights are drawn from.
    device
        Where models run.
    say
        Told what goes on.

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
        chosen = tuple(measures or data_set.measures)
        _run_data_set(table, data_set, cases, candidates, chosen, sheets, say)
    return table


def find_candidates(
    names: Sequence[str], *, untrained: bool = False
) -> list[Candidate]:
    """What names stand for, each model with its untrained twin where one is wanted.

    Raises
    ------
    FocusFusionError
        If an untrained model or a peer cannot be had, or two have one name.
    """
    known = models()
    candidates = []
    for text in names:
        name, _, other = text.rpartition(":")
        if name in known and (text.endswith(TWO_STEPS) or other in known):
            candidates.append(_enlarger(name, other))
            continue
        name = text.removesuffix(UNTRAINED)
        if name != text:
            if name not in known:
                raise FocusFusionError(
                    f"{text!r}: there is no model {name!r} that could be left "
                    f"untrained. There are: {', '.join(known)}."
                )
            candidates.append(_untrained(name))
        elif name in PEERS and name not in known:
            peer = PEERS[name]
            if peer.version() is None:
                raise FocusFusionError(f"{peer.title} is not installed: {peer.install}")
            candidates.append(Candidate(peer.title, "peer", name))
        else:
            short = name if name in known else Path(name).stem
            candidates.append(Candidate(short, "model", name))
            if untrained and name in known and known[name].weights:
                candidates.append(_untrained(name))
    taken = [candidate.name for candidate in candidates]
    if len(set(taken)) < len(taken):
        raise FocusFusionError(f"Two models have one name: {', '.join(taken)}.")
    return candidates


def _enlarger(name: str, how: str) -> Candidate:
    if f":{how}" == TWO_STEPS:
        return Candidate(f"{name}, two steps", "model", name, {"joint": False})
    return Candidate(f"{name}, decision of {how}", "model", name, {"decision": how})


def _untrained(name: str) -> Candidate:
    return Candidate(f"{name}{TWIN}", "untrained", name)


def find_peers() -> tuple[list[Candidate], dict[str, str]]:
    """The programs of others that are installed, and how to install the others."""
    found, missing = [], {}
    for peer in PEERS.values():
        try:
            there = peer.version() is not None
        except Exception as error:  # whatever an installation can be broken in
            missing[peer.title] = f"{in_words(error)}; {peer.install}"
            continue
        if there:
            found.append(Candidate(peer.title, "peer", peer.name))
        else:
            missing[peer.title] = peer.install
    return found, missing


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
    say: Callable[[str], None],
) -> None:
    table.data_sets.append(
        {
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
    )
    with TemporaryDirectory(prefix="focus-fusion-") as name:
        folder = Path(name)
        files = _save_arrays(cases, folder)
        for number, candidate in enumerate(candidates):
            run = Run(data_set.name, candidate.name, candidate.kind)
            table.runs.append(run)
            outputs = [folder / f"{number}-{i}" for i in range(len(cases))]
            costs = _run_candidate(run, candidate, cases, files, outputs, table, say)
            for case, cost in zip(cases, costs, strict=True):
                error = cost.pop("error", "")
                table.scores.append(
                    Score(
                        data_set.name, case.name, candidate.name, cost=cost, error=error
                    )
                )
        for candidate in _yardsticks(cases):
            table.runs.append(Run(data_set.name, candidate.name, candidate.kind))

        found: list[tuple[float, str, Array]] = []
        for i, case in enumerate(cases):
            say(f"{data_set.name}: measuring {i + 1} of {len(cases)}, {case.name}")
            scores = [
                score
                for score in table.scores
                if (score.data, score.stack) == (data_set.name, case.name)
            ]
            outputs = [folder / f"{number}-{i}" for number in range(len(candidates))]
            images = _measure(table, data_set, case, scores, outputs, measures)
            if sheets and images:
                worst, places = worst_disagreements(case, images)
                decisions = {
                    score.candidate: np.load(path)
                    for score, output in zip(scores, outputs, strict=True)
                    if (path := Path(f"{output}-decision.npy")).exists()
                }
                found.append(
                    (worst, case.name, contact_sheet(case, images, decisions, places))
                )
                found = sorted(found, key=lambda item: -item[0])[:sheets]
            for output in outputs:
                for path in output.parent.glob(f"{output.name}-*.npy"):
                    path.unlink()
        table.sheets[data_set.name] = {stack: sheet for _, stack, sheet in found}


# Fusing, elsewhere --------------------------------------------------------------------


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
    candidate: Candidate,
    cases: list[Case],
    files: list[dict[str, Any]],
    outputs: list[Path],
    table: Table,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Fuse all stacks of a data set in a new process; costs or errors, one a stack."""
    request = {
        "kind": candidate.kind,
        "target": candidate.target,
        **{name: table.settings[name] for name in ("seed", "device")},
        "options": table.settings["options"] | candidate.options,
        "jobs": [
            place | {"out": str(output)}
            for place, output in zip(files, outputs, strict=True)
        ],
    }
    folder = outputs[0].parent
    (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-m", "napari_focus_fusion.benchmark.worker"]
    answers: list[dict[str, Any]] = []
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
                answers.append(json.loads(line))
                if len(answers) <= len(cases):
                    name = cases[len(answers) - 1].name
                    say(
                        f"{run.data}: {candidate.name} fusing {len(answers)} of "
                        f"{len(cases)}, {name}"
                    )
        except BaseException:
            process.kill()
            raise
        process.wait()
        errors.seek(0)
        last = " / ".join(errors.read().strip().splitlines()[-1:])
    about, *costs = answers or [{}]
    run.device = about.get("device", "")
    run.version = about.get("version", "")
    peaks = [cost.pop("peak_mb") for cost in costs if "peak_mb" in cost]
    run.peak_mb = max(peaks, default=None)
    ended = f"ended with exit status {process.returncode}: {last}"
    run.error = about.get("error", "" if process.returncode == 0 else ended)
    missing = len(cases) - len(costs)
    return costs + [{"error": run.error or ended} for _ in range(missing)]


# Measuring ----------------------------------------------------------------------------


def _yardsticks(cases: list[Case]) -> list[Candidate]:
    names = [COPY, AVERAGE]
    if all(case.truth for case in cases):
        names.append(ORACLE)
    return [Candidate(name, "yardstick", name) for name in names]


def _yardstick_images(case: Case) -> dict[str, list[Array]]:
    """What one gets without any method, as `pictures_of` splits images."""
    stack = case.stack
    whole = (slice(None),) * len(stack.axes)
    slices = pictures_of(stack.data[whole], stack.axes)
    images = {
        COPY: [picture[0] for picture in slices],
        AVERAGE: [_rounded(picture.mean(axis=0), stack.dtype) for picture in slices],
    }
    if case.truth:
        nearest = np.rint(case.truth.depth).clip(0, stack.n_slices - 1).astype(int)
        y, x = np.indices(nearest.shape)
        images[ORACLE] = [picture[nearest, y, x] for picture in slices]
    return images


def _rounded(image: Array, dtype: np.dtype[Any]) -> Array:
    return (np.rint(image) if dtype.kind in "iu" else image).astype(dtype)


def _measure(
    table: Table,
    data_set: DataSet,
    case: Case,
    scores: list[Score],
    outputs: list[Path],
    measures: tuple[str, ...],
) -> dict[str, list[Array]]:
    """Measure all that was made of one stack; the images of the candidates."""
    names = tuple(name for name in measures if case.truth or name not in WITH_TRUTH)
    yardsticks = [
        Score(data_set.name, case.name, name) for name in _yardstick_images(case)
    ]
    table.scores += yardsticks
    try:
        references = _references(case, "Q_P" in names)
    except FocusFusionError as error:
        for score in (*scores, *yardsticks):
            score.error = score.error or f"cannot be measured: {in_words(error)}"
        return {}
    images: dict[str, list[Array]] = {}
    for score, output in zip(scores, outputs, strict=True):
        if score.error:
            continue
        fused = list(np.load(f"{output}-fused.npy"))
        wanted = (case.stack.height * case.enlarge, case.stack.width * case.enlarge)
        run = next(
            run
            for run in table.runs
            if (run.data, run.candidate) == (score.data, score.candidate)
        )
        if case.enlarge > 1:
            run.enlarged_by = "model" if fused[0].shape[:2] == wanted else "cubic"
        try:
            finished = _finished(case, fused)
            score.values = _values(case, finished, references, names)
            depth = Path(f"{output}-depth.npy")
            if case.truth and depth.exists():
                score.values |= depth_values(case, np.load(depth))
        except FocusFusionError as error:
            score.error = f"could not be measured: {in_words(error)}"
        else:
            images[score.candidate] = finished
    for score, pictures in zip(
        yardsticks, _yardstick_images(case).values(), strict=True
    ):
        score.values = _values(case, _finished(case, pictures), references, names)
        if score.candidate == ORACLE and case.truth:
            nearest = np.rint(case.truth.depth).clip(0, case.stack.n_slices - 1)
            score.values |= depth_values(case, nearest)
    return images


def _references(case: Case, with_phase: bool) -> list[Sources]:
    """What each time point and channel is measured against, checked once.

    With a truth its range counts, one for all channels, so that a dim one does not
    count more.
    """
    span = None
    if case.truth:
        span = (float(case.truth.image.min()), float(case.truth.image.max()))
    check = prepare if with_phase else as_sources
    return [check(slices, span) for slices in case.measured_against()]


def _finished(case: Case, pictures: list[Array]) -> list[Array]:
    """Fused pictures as they are measured: of full size, of the references' type."""
    if case.enlarge == 1:
        return pictures
    stack = case.stack
    wanted = (stack.height * case.enlarge, stack.width * case.enlarge)
    finished = []
    for picture in pictures:
        large = picture
        if picture.shape[:2] != wanted:
            large = bicubic(picture[np.newaxis], wanted)[0]
        finished.append(np.rint(large.clip(0, 1) * 255).astype(np.uint8))
    return finished


def _values(
    case: Case,
    pictures: list[Array],
    references: list[Sources],
    names: tuple[str, ...],
) -> dict[str, float]:
    """Means over time points and channels."""
    truths: list[Any] = [None] * len(pictures)
    if case.truth:
        truths = pictures_of(case.truth.image, case.stack.fused_axes)
    found = [
        evaluate(picture, slices, truth, measures=names)
        for picture, slices, truth in zip(pictures, references, truths, strict=True)
    ]
    return {name: float(np.mean([values[name] for values in found])) for name in names}


def depth_values(case: Case, depth: Array) -> dict[str, float]:
    """Errors of a depth map (in slices) of a scene, where its truth has texture."""
    truth = case.truth
    assert truth is not None
    errors = depth_errors(depth, np.where(truth.textured, truth.depth, np.nan))
    values = {name: errors[name] for name in ("depth error", "depth >1")}
    band = truth.edges & truth.textured
    if band.any():
        edge = depth_errors(depth, np.where(band, truth.depth, np.nan))
        values["depth edge"] = edge["depth error"]
    return values
