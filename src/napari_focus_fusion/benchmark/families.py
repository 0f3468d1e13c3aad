"""Methods times families of scenes and real stacks, resumable.

Every result is kept in a folder of its own, ``WORK/SET/STACK/METHOD``, as soon as it is
there, with what it depends on. A run that was interrupted, or that is made again after
a model has changed, does what is missing or out of date.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

import napari_focus_fusion
from napari_focus_fusion.benchmark.candidates import (
    Candidate,
    find_candidates,
    find_peers,
)
from napari_focus_fusion.benchmark.data import DATA_VARIABLE, Case, case_of_scene
from napari_focus_fusion.benchmark.peers import PEERS
from napari_focus_fusion.benchmark.run import ask_worker
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.registry import DEFAULT_MODEL, load_model, models
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.simulation.families import FAMILIES
from napari_focus_fusion.simulation.scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.simulation.families import Family, FamilyScene

    Array = NDArray[Any]
    Log = Callable[[str], None]

DEFAULT = "default"
"""The method that is `fuse` without any option."""

#: Parts of the package that what is fused from an array does not depend on.
_ELSEWHERE = (
    *("benchmark", "cli", "plugin", "training", "simulation", "metrics"),
    *("read", "write", "placement.py", "palette.py", "metadata.py", "progress.py"),
    *("figure.py", "retouch.py", "report.py", "report_chart.py", "report_words.py"),
)
_MAPS = ("decision", "depth", "confidence")


@dataclass(frozen=True)
class RealStack:
    """A stack of a microscope or camera, whose truth is not known.

    Attributes
    ----------
    name
        Of its folder in the folder that the environment variable names.
    about
        What it shows, in a sentence.
    drawn
        Whether its licence lets a picture of it be shown.
    """

    name: str
    about: str
    drawn: bool = True


REAL = (
    RealStack(
        "wbc10",
        "A blood smear in brightfield, slightly tilted, 10 slices. No picture of it is "
        "shown, since its source states no licence.",
        drawn=False,
    ),
    RealStack("envelope14", "Nuclear envelopes of an embryo, confocal, 14 slices."),
    RealStack("golgi25", "The Golgi of a cell, confocal, 25 slices."),
    RealStack("keyboard32", "A keyboard photographed at a slant, 32 slices."),
    RealStack("radiolarian", "Radiolarians, three slices."),
)

#: Side in pixels of the middle of a real stack that is used where time is short.
QUICK_SIDE = 320


@dataclass(frozen=True)
class StackSet:
    """Stacks that are reported together.

    Attributes
    ----------
    name, about
        As pages call it, and what it shows.
    cases
        Its stacks.
    drawn
        Whether pictures of them may be shown.
    """

    name: str
    about: str
    cases: tuple[Case, ...]
    drawn: bool = True


@dataclass(frozen=True)
class Outcome:
    """What one method made of one stack.

    Attributes
    ----------
    images
        One array a time point and channel; empty where it failed.
    maps
        ``decision``, ``depth`` (in slices) and ``confidence``, (Y, X), of methods that
        have them.
    seconds
        Processor seconds.
    error
        Why it failed, or empty.
    """

    images: list[Array] = field(default_factory=list)
    maps: dict[str, Array] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Results:
    """Everything that was run, as far as it is there.

    Attributes
    ----------
    work
        The folder of results.
    sets
        Families, then each real stack.
    methods
        What was compared.
    missing
        Programs that are not installed, and how to install them.
    skipped
        Real stacks that were not there, and why.
    versions
        By method, what it was.
    errors
        By set, stack and method, why it failed.
    """

    work: Path
    sets: tuple[StackSet, ...]
    methods: tuple[Candidate, ...]
    missing: dict[str, str]
    skipped: dict[str, str]
    versions: dict[str, str]
    errors: dict[tuple[str, str, str], str]

    def outcome(self, of: StackSet, case: Case, method: Candidate) -> Outcome:
        """What a method made of a stack."""
        place = place_of(self.work, of.name, case.name, method.name)
        error = self.errors.get((of.name, case.name, method.name), "")
        if error:
            return Outcome(error=error)
        record = record_at(place)
        maps = {
            name: _plane(np.load(place / f"out-{name}.npy"))
            for name in _MAPS
            if (place / f"out-{name}.npy").exists()
        }
        images = list(np.load(place / "out-fused.npy"))
        return Outcome(images, maps, record["cpu_seconds"])


def _plane(array: Array) -> Array:
    """The map of the first time point."""
    return array[0] if array.ndim == 3 else array


# What is compared ---------------------------------------------------------------------


def family_methods(
    names: Sequence[str],
) -> tuple[list[Candidate], dict[str, str]]:
    """The methods of these names, and the programs that are missing.

    Parameters
    ----------
    names
        As for :func:`find_candidates`, and ``"default"``, ``"ours"`` (the default, and
        every model without and with the surface), ``"peers"`` (every other program that
        is installed) and ``"all"``.

    Returns
    -------
    methods : list of Candidate
        Each once, in the order of the names.
    missing : dict of str to str
        How to install the programs of ``"peers"`` that are not there.
    """
    found: list[Candidate] = []
    missing: dict[str, str] = {}
    for name in names:
        if name in ("ours", "all"):
            found.append(_default())
            texts = [f"{m}:surface={s}" for m in models() for s in (0, 1)]
            found += find_candidates(texts)
        if name in ("peers", "all"):
            installed, missing = find_peers()
            found += installed
        elif name == DEFAULT:
            found.append(_default())
        elif name != "ours":
            found += find_candidates([name])
    return list({method.name: method for method in found}.values()), missing


def _default() -> Candidate:
    return Candidate(f"{DEFAULT} ({DEFAULT_MODEL})", "model", DEFAULT_MODEL)


def version_of(method: Candidate) -> str:
    """What the results of a method depend on beside the stack and its options."""
    if method.kind == "peer":
        return PEERS[method.target].state()
    model = load_model(method.target)
    return f"{code_hash()[:12]}, {model.weights_hash[:12] or 'no weights'}"


def code_hash() -> str:
    """SHA-256 of the code and the weights that fused images depend on."""
    return _hash_of_package(lambda part: part not in _ELSEWHERE)


def _hash_of_package(counts: Callable[[str], bool]) -> str:
    """SHA-256 of code and weights in the parts of the package that count."""
    root = Path(napari_focus_fusion.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if path.suffix in (".py", ".safetensors") and counts(inside.parts[0]):
            digest.update(inside.as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


# Stacks -------------------------------------------------------------------------------


def family_set(family: Family, work: Path, *, quick: bool = False) -> StackSet:
    """The scenes of a family; with `quick` the one that stands for all.

    They are kept in a folder of `work`, as some take a minute to render.
    """
    scenes = family.scenes
    if quick:
        scenes = (scenes[family.quick],)
    version = _hash_of_package(lambda part: part == "simulation")
    cases = []
    for scene in scenes:
        text = f"{version} {scene.render.__name__} {scene.seed} {scene.options}"
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        drawn = _drawn(scene, work / "scenes" / f"{name}.npz")
        groups = (f"{scene.slices} slices",)
        cases.append(case_of_scene(scene.name, drawn, groups))
    return StackSet(family.name, family.about, tuple(cases))


_ARRAYS = ("stack", "truth", "depth", "edges", "textured")


def _drawn(scene: FamilyScene, path: Path) -> Scene:
    """A scene from its file, or drawn and written there."""
    if not path.exists():
        drawn = scene.make()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".partial.npz")
        arrays = {name: getattr(drawn, name) for name in _ARRAYS}
        np.savez(partial_path, axes=drawn.axes, **arrays)
        partial_path.replace(path)
    with np.load(path) as found:
        return Scene(
            **{name: found[name] for name in _ARRAYS},
            axes=str(found["axes"]),
            scale={},
            units={},
            channel_names=(),
            seed=scene.seed,
            parameters={},
        )


def real_sets(
    names: Sequence[str], *, quick: bool = False
) -> tuple[list[StackSet], dict[str, str]]:
    """Real stacks, and why others are not there.

    Parameters
    ----------
    names
        Of `REAL`, or files and folders of slices.
    quick
        Only the middle of each.

    Returns
    -------
    sets : list of StackSet
        One a stack.
    skipped : dict of str to str
        By name, why it was left out.
    """
    known = {stack.name: stack for stack in REAL}
    root = os.environ.get(DATA_VARIABLE, "")
    sets, skipped = [], {}
    for name in names:
        place = Path(name).expanduser()
        of = known.get(name, RealStack(name, "A stack of yours."))
        if name in known:
            if not root:
                skipped[name] = f"{DATA_VARIABLE} is not set"
                continue
            place = Path(root).expanduser() / name
        if not place.exists():
            skipped[name] = f"there is no {place.name!r} in the folder of real stacks"
            if name not in known:
                raise FocusFusionError(
                    f"{name!r} is neither a real stack ({', '.join(known)}) nor a file "
                    "or folder."
                )
            continue
        cases = (_real_case(place, quick),)
        sets.append(StackSet(place.stem, of.about, cases, of.drawn))
    return sets, skipped


def _real_case(place: Path, quick: bool) -> Case:
    source: Any = place
    if place.is_dir() and place.suffix != ".zarr":
        files = sorted(p for p in place.iterdir() if p.is_file())
        source = files[0] if len(files) == 1 else [str(path) for path in files]
    stack = as_stack(source)
    index = []
    for axis, size in zip(stack.axes, stack.data.shape, strict=True):
        cut = max((size - QUICK_SIDE) // 2, 0) if quick and axis in "YX" else 0
        index.append(slice(cut, size - cut))
    pixels = np.ascontiguousarray(stack.data[tuple(index)])
    return Case(
        place.stem,
        as_stack(pixels, axes=stack.axes, name=place.stem),
        hashlib.sha256(pixels.tobytes()).hexdigest(),
        axes=stack.axes,
    )


# Running ------------------------------------------------------------------------------


def run_families(
    families: Sequence[str],
    methods: Sequence[str],
    stacks: Sequence[str],
    work: Path,
    *,
    quick: bool = False,
    device: str = "auto",
    log: Log = lambda text: None,
) -> Results:
    """Fuse families of scenes and real stacks with every method.

    Parameters
    ----------
    families
        Names of `FAMILIES`.
    methods
        As for `family_methods`.
    stacks
        As for `real_sets`.
    work
        Where results are kept; what is there and up to date is not made again.
    quick
        One scene a family, and the middle of each real stack.
    device
        Where models run.
    log
        Called with a line of progress.

    Returns
    -------
    Results

    Raises
    ------
    FocusFusionError
        If a name is not known.
    """
    if unknown := [name for name in families if name not in FAMILIES]:
        raise FocusFusionError(
            f"There is no family {', '.join(map(repr, unknown))}; choose from "
            f"{', '.join(FAMILIES)}."
        )
    compared, missing = family_methods(methods)
    real, skipped = real_sets(stacks, quick=quick)
    sets = []
    for name in families:
        log(f"drawing the scenes of {name}")
        sets.append(family_set(FAMILIES[name], work, quick=quick))
    sets += real
    versions: dict[str, str] = {}
    errors: dict[tuple[str, str, str], str] = {}
    for number, method in enumerate(compared, start=1):
        try:
            version = version_of(method)
        except (FocusFusionError, OSError) as error:
            version = f"broken: {error}"
        versions[method.name] = version
        prefix = f"{method.name} ({number} of {len(compared)}): "
        say = partial(_log_after, log, prefix)
        errors |= _run_method(work, sets, method, version, device, say)
    return Results(
        work, tuple(sets), tuple(compared), missing, skipped, versions, errors
    )


def _log_after(log: Log, prefix: str, text: str) -> None:
    log(prefix + text)


def _run_method(
    work: Path,
    sets: Sequence[StackSet],
    method: Candidate,
    version: str,
    device: str,
    log: Log,
) -> dict[tuple[str, str, str], str]:
    """Fuse with one method what it has not fused yet; returns what failed, and why."""
    jobs = []
    for of in sets:
        for case in of.cases:
            place = place_of(work, of.name, case.name, method.name)
            key = {
                "sha256": case.sha256,
                "target": method.target,
                "options": method.options,
                "version": version,
                "device": device,
            }
            record = record_at(place)
            if {name: record.get(name) for name in key} != key:
                jobs.append((of, case, place, key))
    errors: dict[tuple[str, str, str], str] = {}
    if not jobs:
        return errors
    with TemporaryDirectory(prefix="focus-fusion-") as name:
        folder = Path(name)
        request = {
            "kind": method.kind,
            "target": method.target,
            "seed": 0,
            "device": device,
            "options": method.options,
            "jobs": [_job(folder, case, place) for _, case, place, _ in jobs],
        }
        answers = ask_worker(request, folder)
        next(answers)
        for number, (of, case, place, key) in enumerate(jobs, start=1):
            log(f"{number} of {len(jobs)}, {of.name}: {case.name}")
            answer = next(answers)
            if "error" in answer:
                errors[of.name, case.name, method.name] = answer["error"]
            else:
                # Last of all, so that what is half written does not look whole.
                text = json.dumps(key | answer, indent=1)
                (place / "record.json").write_text(text, encoding="utf-8")
    return errors


def _job(folder: Path, case: Case, place: Path) -> dict[str, Any]:
    """Where the worker finds a stack, and where it writes; what lies there goes."""
    place.mkdir(parents=True, exist_ok=True)
    for old in (place / "record.json", *place.glob("out-*.npy")):
        old.unlink(missing_ok=True)
    stack = folder / f"{case.sha256}.npy"
    if not stack.exists():
        np.save(stack, np.asarray(case.stack.data))
    return {
        "axes": case.axes,
        "enlarge": 1,
        "array": str(stack),
        "out": str((place / "out").absolute()),
    }


def place_of(work: Path, *names: str) -> Path:
    """The folder of results of these names."""
    return work.joinpath(*(re.sub(r"[^\w.=-]+", "_", name) for name in names))


def record_at(place: Path) -> dict[str, Any]:
    """What a result was made of; empty where there is none."""
    try:
        found: dict[str, Any] = json.loads((place / "record.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found
