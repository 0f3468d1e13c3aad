"""One stack of the command ``fuse``: fused, found fused before, or only looked at."""

from __future__ import annotations

import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli.console import Bar, path_texts
from napari_focus_fusion.cli.table import measures_of
from napari_focus_fusion.progress import byte_text

if TYPE_CHECKING:
    import argparse
    import threading
    from collections.abc import Sequence

    from napari_focus_fusion.jobs import Job
    from napari_focus_fusion.result import FusionResult
    from napari_focus_fusion.stack import FocusStack

ZARR_SUFFIX = ".zarr"
_MEASURED = ("fused", "decision", "confidence", "provenance")


def _done_before(
    job: Job, target: Path, args: argparse.Namespace, keywords: dict[str, Any]
) -> tuple[dict[str, Any] | None, bool]:
    """Report of a stack whose results are there; or None, and whether to replace them.

    Results of other pixels, models or settings, or of which a file is missing, are made
    again; files that are none of ours are never replaced.
    """
    from napari_focus_fusion.fusion import differences_from
    from napari_focus_fusion.read.own_results import provenance_in
    from napari_focus_fusion.result import result_files

    # The fused image says whether there should be a map of what was reconstructed.
    earlier = provenance_in(str(target)) if target.exists() else {}
    files = result_files(target, args.scale or 1, bool(earlier.get("reconstructed")))
    there = [path for path in files if path.exists()]
    if not args.resume or not there:
        return None, args.overwrite
    if not all(provenance_in(str(path)) for path in there):
        return None, False
    if there == files:
        stack = job.open(axes=args.axes, scale=args.pixel_size)
        axes = stack.axes if args.axes else None
        differing = differences_from(files[0], stack, axes=axes, **keywords)
        if not differing:
            report = {**_report_of(job, files), "fused_before": True}
            return report | _measures_in(files[0], stack), False
        what = ", ".join(differing)
        print(f"{job.name}: fused again, as {what} changed", file=sys.stderr)
    return None, True


def _report_of(job: Job, outputs: Sequence[Path]) -> dict[str, Any]:
    return {
        "ok": True,
        "name": job.name,
        **({"series": job.series} if job.series is not None else {}),
        "inputs": path_texts(job.files),
        "outputs": path_texts(outputs),
    }


def fuse_one(
    job: Job,
    target: Path,
    args: argparse.Namespace,
    keywords: dict[str, Any],
    inputs: frozenset[str],
    stop: threading.Event,
) -> dict[str, Any]:
    """Fuse a stack and save what comes of it.

    Parameters
    ----------
    job, target
        The stack, and where its fused image goes.
    args
        The command line.
    keywords
        For ``fuse``.
    inputs
        What is never overwritten.
    stop
        Set when the run shall stop.

    Returns
    -------
    dict
        What is reported of it.
    """
    from napari_focus_fusion import fuse

    started = time.perf_counter()
    before, overwrite = _done_before(job, target, args, keywords)
    if before is not None:
        return before
    stack = job.open(axes=args.axes, scale=args.pixel_size)
    # Checked before the work, not after it.
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_outputs(target, stack, keywords, inputs, overwrite=overwrite)
    if target.suffix.lower() == ZARR_SUFFIX:
        # Written tile by tile: neither the result nor an interruption costs much.
        keywords = keywords | {"out": target, "overwrite": overwrite}
    with Bar(job.name) as bar:
        # Axes that were given are meant, also those without slices.
        axes = stack.axes if args.axes else None
        result = fuse(
            stack, axes=axes, progress=bar, should_stop=stop.is_set, **keywords
        )
    registrations = _save_registration(result, job, args)
    for note in result.provenance["notes"]:
        print(f"{job.name}: {note}", file=sys.stderr)
    if "out" in keywords:
        outputs = [target]
    else:
        outputs = result.save(target, overwrite=overwrite)
    outputs = [*outputs, *registrations]
    return {
        **_report_of(job, outputs),
        **measures_of(stack, {name: getattr(result, name) for name in _MEASURED}),
        "seconds": round(time.perf_counter() - started, 3),
        "provenance": result.provenance,
    }


def _save_registration(
    result: FusionResult, job: Job, args: argparse.Namespace
) -> list[Path]:
    """Write the registration where it is wanted; what was written."""
    if args.save_registration is None or result.registration is None:
        return []
    path = Path(args.save_registration.replace("{stem}", job.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    return [result.registration.save(path, overwrite=args.overwrite)]


def look_at(
    job: Job,
    target: Path,
    args: argparse.Namespace,
    keywords: dict[str, Any],
    inputs: frozenset[str],
) -> dict[str, Any]:
    """What would be fused, how, and with how much memory; nothing is computed.

    Parameters
    ----------
    job, target, args, keywords, inputs
        As `fuse_one` takes them.

    Returns
    -------
    dict
        What is reported of it.
    """
    from napari_focus_fusion.engine.memory import result_bytes
    from napari_focus_fusion.fusion import plan_fusion

    before, overwrite = _done_before(job, target, args, keywords)
    stack = job.open(axes=args.axes, scale=args.pixel_size)
    axes = stack.axes if args.axes else None
    zarr = target.suffix.lower() == ZARR_SUFFIX
    out = target if zarr else None
    _, plan = plan_fusion(stack, axes=axes, out=out, **keywords)
    if before is None and target.parent.is_dir():
        _check_outputs(target, stack, keywords, inputs, overwrite=overwrite)
    notes = [*stack.notes, *["It has one slice."] * (stack.n_slices == 1)]
    if plan.working_memory > plan.memory:
        allowed = byte_text(plan.memory)
        notes.append(f"It takes more than the {allowed} allowed, which is too little.")
    return {
        **(before or _report_of(job, [target])),
        "status": "fused before" if before else "to be fused",
        "slices": stack.n_slices,
        "axes": stack.axes,
        "shape": list(stack.data.shape),
        "dtype": str(stack.dtype),
        "pixel_size": {a: [stack.pixel_size(a), stack.unit(a)] for a in stack.scale},
        "working_memory": plan.working_memory,
        "result_bytes": result_bytes(stack, args.scale or 1, plan.reconstructs),
        "notes": notes,
    }


def _check_outputs(
    target: Path,
    stack: FocusStack,
    keywords: dict[str, Any],
    inputs: frozenset[str],
    *,
    overwrite: bool,
) -> None:
    """Raise if the results of a stack could not be saved."""
    from napari_focus_fusion.result import result_files
    from napari_focus_fusion.write.picture import PICTURE_SUFFIXES, check_picture
    from napari_focus_fusion.write.places import places_of
    from napari_focus_fusion.write.saving import check_targets

    scale = keywords.get("scale", 1)
    if target.suffix.lower() in PICTURE_SUFFIXES and scale == 1:
        check_picture(target, stack.fused_shape, stack.fused_axes, stack.dtype)
    inputs |= places_of(stack, keywords.get("reference"))
    # A Zarr may be there of a run that was killed in the end: fuse() looks.
    overwrite = overwrite or target.suffix.lower() == ZARR_SUFFIX
    files = result_files(target, scale, will_reconstruct(stack, keywords))
    check_targets(files, overwrite=overwrite, inputs=inputs)


def will_reconstruct(stack: FocusStack, keywords: dict[str, Any]) -> bool:
    """Whether ``fuse`` with these keywords reconstructs pixels; nothing is read."""
    from napari_focus_fusion.engine.plan import is_reconstructed
    from napari_focus_fusion.engine.settings import FusionSettings

    names = {field.name for field in fields(FusionSettings)}
    settings = {name: value for name, value in keywords.items() if name in names}
    model = keywords.get("model")  # loaded; the default takes pixels from slices
    return is_reconstructed(stack, model, FusionSettings(**settings))


def _measures_in(fused: Path, stack: FocusStack) -> dict[str, Any]:
    """The measures of a result that was saved."""
    from napari_focus_fusion.report import load_result

    maps = load_result(fused, stack)
    return measures_of(stack, {name: maps[name] for name in _MEASURED})
