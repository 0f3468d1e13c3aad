"""``napari-focus-fusion finetune``: a model, tuned on stacks of one's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from napari_focus_fusion.cli.console import (
    FAILED,
    INTERRUPTED,
    OK,
    Bar,
    print_error,
    print_json,
    stop_on_interrupt,
    training_log,
)
from napari_focus_fusion.cli.options import (
    add_as_one_stack,
    add_axes,
    add_command,
    add_device,
    add_reference,
    add_seed,
    add_series,
)

if TYPE_CHECKING:
    import argparse

    from napari_focus_fusion.cli.options import Commands
    from napari_focus_fusion.training.finetune import FineTuneResult

EPILOG = """\
No labels are needed. A part of the stacks is used for validation, and a model that is
not better on it than before is not kept; the exit code is then 1. Examples:

  napari-focus-fusion finetune sesf pollen.ome.tif --name pollen
  napari-focus-fusion fuse pollen.ome.tif --model pollen -o fused.ome.tif
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "finetune", run, "tune a model on your own stacks", EPILOG
    )
    parser.add_argument("model", metavar="MODEL", help="which model, like sesf")
    parser.add_argument(
        "inputs", nargs="+", metavar="IN", help="stacks, as the command fuse takes them"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--name", help="what to call the tuned model")
    target.add_argument(
        "-o", "--out", metavar="FILE", help="a .safetensors file to keep it in instead"
    )
    add_as_one_stack(parser)
    add_axes(parser)
    add_series(parser)
    add_reference(parser)
    parser.add_argument("--steps", type=int, default=300, help="by default 300")
    parser.add_argument("--lr", type=float, help="learning rate")
    parser.add_argument("--patch", type=int, metavar="PIXELS", help="by default 64")
    parser.add_argument(
        "--holdout", type=float, metavar="SHARE", help="validation part, by default 0.2"
    )
    add_seed(parser)
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Tune the model; whether it is better than its parent is in the exit code."""
    from napari_focus_fusion.jobs import find_jobs
    from napari_focus_fusion.opening import as_stack
    from napari_focus_fusion.training.finetune import finetune

    jobs, failures = find_jobs(
        args.inputs,
        as_one_stack=args.as_one_stack,
        axes=args.axes,
        series=args.series,
    )
    for inputs, text in failures:
        print_error(f"{inputs}: {text}")
    if failures:
        return FAILED
    title = args.name or Path(args.out).stem
    names = "name out axes reference steps lr patch holdout seed device".split()
    given = {name: getattr(args, name) for name in names}
    options = {name: value for name, value in given.items() if value is not None}
    with stop_on_interrupt() as stop, Bar(title) as bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tuned model is NOT better")
        result = finetune(
            args.model,
            [
                job.source
                if job.series is None
                else as_stack(job.source, axes=args.axes, series=job.series)
                for job in jobs
            ],
            on_step=training_log(title, args.steps, bar),
            should_stop=stop.is_set,
            **options,
        )
    if args.json:
        path = None if result.path is None else str(result.path)
        print_json({"path": path, **result.card})
    else:
        _print_comparison(result, args.name)
    if result.stopped == "asked":
        print_error("interrupted; the same command goes on where it was")
        return INTERRUPTED
    return OK if result.better else FAILED


def _print_comparison(result: FineTuneResult, name: str | None) -> None:
    for measure, before in result.before.items():
        after = result.after.get(measure)
        text = "" if after is None else f"{after:>10.4f}"
        print(f"{measure:<10}{before:>10.4f}{text}")
    print(result.verdict)
    if result.path is not None:
        print(f"Use it with --model {name or result.path}")
