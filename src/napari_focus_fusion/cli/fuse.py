"""``napari-focus-fusion fuse``: one or many stacks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli.console import (
    FAILED,
    INTERRUPTED,
    OK,
    UsageError,
    error_text,
    path_texts,
    print_error,
    print_json,
    stop_on_interrupt,
)
from napari_focus_fusion.cli.fusing import ZARR_SUFFIX, fuse_one, look_at
from napari_focus_fusion.cli.options import (
    add_align,
    add_as_one_stack,
    add_axes,
    add_command,
    add_model_and_resources,
    add_overwrite,
    add_pixel_size,
    add_reference,
    add_series,
    add_smoothness,
    add_surface,
    fuse_keywords,
)
from napari_focus_fusion.cli.table import check_table, write_table
from napari_focus_fusion.errors import Cancelled
from napari_focus_fusion.progress import byte_text, duration_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from napari_focus_fusion.cli.options import Commands, Options
    from napari_focus_fusion.jobs import Job

WRITABLE = (".tif", ".tiff", ZARR_SUFFIX, ".png", ".jpg", ".jpeg")

EPILOG = """\
A file with a Z axis is a stack. Single pictures are slices, channels and time points of
the stacks that their names describe. Examples:

  napari-focus-fusion fuse stack.tif -o fused.ome.tif
  napari-focus-fusion fuse 'plate/*.ome.tif' -o results --model sml
  napari-focus-fusion fuse pictures/ -o fused.ome.zarr
  napari-focus-fusion fuse plate.ome.zarr -o results --resume
  napari-focus-fusion fuse day.lif --series all -o results
  napari-focus-fusion fuse '*.tif' -o 'results/{stem}.ome.zarr' --json
  napari-focus-fusion fuse data --pattern '**/*.tif' -o results --dry-run
  napari-focus-fusion fuse data --pattern '**/*.tif' -o results --resume --table t.csv
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "fuse", run, "fuse one or many focus stacks", EPILOG)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help="stack files (TIFF, OME-TIFF, OME-Zarr and more), folders, or glob "
        "patterns",
    )
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        help="a folder (files are named NAME_fused.ome.tif), one file (.ome.tif, "
        ".ome.zarr, .png or .jpg), or a name with {stem} in it",
    )
    _add_batch_options(parser)
    existing = parser.add_mutually_exclusive_group()
    add_overwrite(existing)
    existing.add_argument(
        "--resume",
        action="store_true",
        help="go on with an interrupted call: stacks whose results are there already "
        "are left as they are, unless the stack, the model or a setting changed",
    )
    add_model_and_resources(parser)
    add_axes(parser)
    add_series(parser)
    add_pixel_size(parser)
    reference = parser.add_mutually_exclusive_group()
    add_reference(reference)
    reference.add_argument(
        "--reference-stack",
        metavar="FILE",
        help="another stack whose sharpness decides, of the same size and number of "
        "slices",
    )
    parser.add_argument(
        "--reference-series",
        metavar="IMAGE",
        help="with --reference-stack: which image of a file that holds several",
    )
    add_align(parser)
    parser.add_argument(
        "--save-registration",
        metavar="FILE",
        help="with --align: keep what was estimated, as JSON, for --align of other "
        "channels and stacks; {stem} in it is the name of the stack",
    )
    _add_result_options(parser)


def _add_batch_options(options: Options) -> None:
    options.add_argument(
        "--pattern",
        metavar="GLOB",
        help="of the folders only what matches, like '*_raw.tif', or '**/*.tif' for "
        "all folders in them",
    )
    add_as_one_stack(options)
    options.add_argument(
        "--dry-run",
        action="store_true",
        help="only list what would be fused, with its axes, sizes and memory",
    )
    options.add_argument(
        "--table",
        metavar="FILE",
        help="one row a stack, as .csv or .json: slices used, share of confident "
        "pixels, drift, notes",
    )


def _add_result_options(options: Options) -> None:
    options.add_argument(
        "--scale",
        type=int,
        choices=(1, 2, 3, 4),
        help="enlarge by super-resolution, with a model that offers it",
    )
    options.add_argument(
        "--decision",
        metavar="MODEL",
        help="with --scale: another model that decides what is sharp",
    )
    options.add_argument(
        "--two-step",
        dest="joint",
        action="store_const",
        const=False,
        help="with --scale: fuse first, then enlarge the fused image",
    )
    options.add_argument(
        "--blend",
        choices=("feather", "bands", "select"),
        help="feather: soft at the borders between slices; select: every pixel as "
        "it was observed",
    )
    add_smoothness(options)
    add_surface(options)
    options.add_argument(
        "--background",
        choices=("nearest", "mean"),
        help="what is shown where no slice has detail: nearest: the slice in which the "
        "surroundings are sharp; mean: all slices averaged",
    )
    options.add_argument(
        "--strength",
        type=float,
        help="with mscnn: 1 to show what it reconstructed, 0 pixels as they were "
        "observed, or something in between; by default 1",
    )
    options.add_argument(
        "--no-verify",
        dest="verify",
        action="store_const",
        const=False,
        help="leave islands and unsure pixels of the decision map as they are",
    )


def run(args: argparse.Namespace) -> int:
    """Fuse every stack that is found; one that fails does not stop the others."""
    from napari_focus_fusion.jobs import find_jobs
    from napari_focus_fusion.write.places import places_of

    started = time.perf_counter()
    jobs, failures = find_jobs(
        args.inputs,
        as_one_stack=args.as_one_stack,
        axes=args.axes,
        series=args.series,
        pattern=args.pattern,
    )
    targets = _targets(jobs, args.out)
    _check_registration_option(args, len(jobs))
    table = None if args.table is None else Path(args.table)
    if table is not None:
        check_table(table, replace=args.overwrite, resume=args.resume)
    keywords = _keywords(args)
    # What one stack gives must not replace another that is still to be read.
    read = places_of([job.files for job in jobs])
    reports: list[dict[str, Any]] = []
    for inputs, text in failures:
        print_error(f"{inputs}: {text}")
        reports.append({"ok": False, "inputs": [inputs], "error": text})

    interrupted = ""
    with stop_on_interrupt() as stop:
        for job, target in zip(jobs, targets, strict=True):
            try:
                if args.dry_run:
                    report = look_at(job, target, args, keywords, read)
                else:
                    report = fuse_one(job, target, args, keywords, read, stop)
            except Cancelled:
                interrupted = "interrupted"
                if target.suffix.lower() == ZARR_SUFFIX:
                    interrupted += "; the same command goes on from there"
                if any(report["ok"] for report in reports):
                    interrupted += "; --resume leaves out what is fused"
                break
            except Exception as error:
                if args.debug:
                    raise
                text = error_text(error)
                print_error(f"{job.name}: {text}")
                report = {"ok": False, "inputs": path_texts(job.files), "error": text}
                report["name"] = job.name
            reports.append(report)
            if table is not None:
                write_table(table, reports)
            if report["ok"] and not args.json:
                print(_line_of(report), flush=True)

    if table is not None and not jobs:
        write_table(table, reports)
    left = len(jobs) + len(failures) - len(reports)
    seconds = time.perf_counter() - started
    failed = _print_summary(
        reports, left, seconds, as_json=args.json, dry_run=args.dry_run
    )
    if interrupted:
        print_error(interrupted)
        return INTERRUPTED
    return FAILED if failed else OK


def _keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords for ``fuse``, the reference opened."""
    keywords = fuse_keywords(args)
    if args.reference_stack:
        from napari_focus_fusion import as_stack

        keywords["reference"] = as_stack(
            args.reference_stack, series=args.reference_series
        )
    elif args.reference_series is not None:
        raise UsageError("--reference-series goes with --reference-stack")
    return keywords


def _check_registration_option(args: argparse.Namespace, jobs: int) -> None:
    """Raise UsageError where ``--save-registration`` cannot mean anything."""
    if args.save_registration is None:
        return
    if args.align is None:
        raise UsageError(
            "--save-registration goes with --align, like --align similarity"
        )
    if jobs > 1 and "{stem}" not in args.save_registration:
        raise UsageError(
            f"{jobs} registrations cannot all go to {args.save_registration}: give a "
            "name with {stem} in it"
        )


def _targets(jobs: Sequence[Job], out: str) -> list[Path]:
    """Where each fused image goes; see the help of ``--out``."""
    from napari_focus_fusion.read import IMAGE_SUFFIXES

    if "{stem}" in out:
        targets = [Path(out.replace("{stem}", job.name)) for job in jobs]
    elif not out.lower().endswith(WRITABLE):
        if out.lower().endswith(IMAGE_SUFFIXES):
            raise UsageError(
                f"cannot write {out}: use .ome.tif, .ome.zarr, .png or .jpg"
            )
        targets = [Path(out) / f"{job.name}_fused.ome.tif" for job in jobs]
    elif len(jobs) > 1:
        raise UsageError(
            f"{len(jobs)} stacks cannot all go to {out}: give a folder, or a name "
            "with {stem} in it"
        )
    else:
        targets = [Path(out)] * len(jobs)
    for number, target in enumerate(targets):
        if not target.name.lower().endswith(WRITABLE):
            raise UsageError(
                f"cannot write {target}: use .ome.tif, .ome.zarr, .png or .jpg"
            )
        if target in targets[:number]:
            first = jobs[targets.index(target)]
            raise UsageError(
                f"{first.files[0]} and {jobs[number].files[0]} would both be written "
                f"to {target}; fuse them in separate calls"
            )
    return targets


def _line_of(report: dict[str, Any]) -> str:
    if "working_memory" in report:
        return _line_of_dry_run(report)
    if "fused_before" in report:
        return f"{report['name']}: fused before\n  {report['outputs'][0]}"
    shape = " x ".join(map(str, report["shape"]))
    best = report["best_slice"]
    best = f", best slice {best}" if isinstance(best, int) else ""
    return (
        f"{report['name']}: {report['slices']} slices -> {shape} {report['dtype']} "
        f"in {duration_text(report['seconds'])}{best}\n"
        + "\n".join(f"  {path}" for path in report["outputs"])
    )


def _line_of_dry_run(report: dict[str, Any]) -> str:
    size = " x ".join(map(str, report["shape"]))
    inputs = report["inputs"]
    source = inputs[0] if len(inputs) == 1 else f"{inputs[0]} ... {inputs[-1]}"
    many = f" ({len(inputs)} files)" if len(inputs) > 1 else ""
    pixel = ", ".join(
        f"{axis} {size:g} {unit}" for axis, (size, unit) in report["pixel_size"].items()
    )
    return "\n".join(
        (
            f"{report['name']}: {report['status']}; {report['axes']} {size} "
            f"{report['dtype']}, {report['slices']} slices, about "
            f"{byte_text(report['working_memory'])} of working memory and a result of "
            f"{byte_text(report['result_bytes'])}",
            f"  from {source}{many}",
            f"  pixel size: {pixel or 'not known'}",
            *(f"  note: {note}" for note in report["notes"]),
            f"  to {report['outputs'][0]}",
        )
    )


def _print_summary(
    reports: list[dict[str, Any]],
    left: int,
    seconds: float,
    *,
    as_json: bool,
    dry_run: bool,
) -> int:
    """Print what came of all stacks; how many failed."""
    before = sum("fused_before" in report for report in reports)
    good = sum(report["ok"] for report in reports) - before
    failed = len(reports) - good - before
    if as_json:
        print_json(
            {
                "results": reports,
                "to_be_fused" if dry_run else "fused": good,
                "fused_before": before,
                "failed": failed,
                "not_started": left,
                "seconds": round(seconds, 3),
            }
        )
        return failed
    text = f"{good} stack{'s' if good != 1 else ''} fused in {duration_text(seconds)}"
    if dry_run:
        most = max((report.get("working_memory", 0) for report in reports), default=0)
        text = (
            f"{good} stack{'s' if good != 1 else ''} to be fused, one after the other, "
            f"in at most about {byte_text(most)} of working memory; nothing was written"
        )
    if before:
        text += f", {before} fused before"
    if failed:
        text += f", {failed} failed"
    if left:
        text += f", {left} not done"
    print(text)
    return failed
