"""``napari-focus-fusion benchmark``: models compared, measured on data sets."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_focus_fusion.cli.console import (
    FAILED,
    OK,
    path_texts,
    print_error,
    print_json,
)
from napari_focus_fusion.cli.options import (
    add_command,
    add_device,
    add_overwrite,
    add_seed,
    add_smoothness,
    names,
    positive,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from napari_focus_fusion.cli.options import Commands

EPILOG = """\
Every candidate fuses every stack in a process of its own, so that time and memory are
its own; what comes out is measured against the truth or against the slices, and written
as benchmark.md, .csv and .json, with contact sheets. What fails is noted in the table.
The public pictures (lytro, triples) are looked for in the folder that the environment
variable FOCUS_FUSION_DATA names. Examples:

  napari-focus-fusion benchmark -o results
  napari-focus-fusion benchmark --models sml,my.safetensors --data my_stacks -o results
  napari-focus-fusion benchmark --data scenes,lytro --peers --untrained -o results
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "benchmark", run, "compare models, measured on data sets", EPILOG
    )
    parser.add_argument(
        "--models",
        type=names,
        default=["sml"],
        metavar="NAME,...",
        help="names of the command models (sesf:untrained is sesf with random "
        "weights; affinity-sr:two-step fuses first and enlarges then; affinity-sr:sesf "
        "takes the decision of sesf), files of weights, or other programs, like "
        "enfuse; by default sml",
    )
    parser.add_argument(
        "--data",
        type=names,
        default=["scenes"],
        metavar="NAME,...",
        help="scenes (by default), scenes-noise, scenes-light, scenes-refractile, "
        "scenes-x2 to -x4, lytro, lytro-x2 to -x4, triples, or files and folders of "
        "yours",
    )
    parser.add_argument(
        "--peers", action="store_true", help="also other programs that are installed"
    )
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="also every model with the random weights it had before training",
    )
    parser.add_argument(
        "--measures",
        type=names,
        metavar="NAME,...",
        help="which measures, like Q_G,PSNR; by default those of the data set",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="K", help="only the first K stacks of each"
    )
    parser.add_argument(
        "--sheets",
        type=int,
        default=1,
        metavar="K",
        help="contact sheets for each data set, by default 1",
    )
    add_smoothness(parser)
    add_seed(parser)
    add_device(parser)
    parser.add_argument(
        "-o", "--out", required=True, metavar="FOLDER", help="where the tables go"
    )
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Measure every candidate and write the tables; what failed is in the exit code."""
    from napari_focus_fusion.benchmark.report import summaries, write_report
    from napari_focus_fusion.benchmark.run import run_benchmark
    from napari_focus_fusion.write.saving import check_targets

    out = Path(args.out)
    files = ("benchmark.md", "benchmark.csv", "benchmark.json")
    out.mkdir(parents=True, exist_ok=True)
    check_targets([out / name for name in files], overwrite=args.overwrite)
    table = run_benchmark(
        args.models,
        args.data,
        peers=args.peers,
        untrained=args.untrained,
        measures=args.measures,
        limit=args.limit,
        sheets=args.sheets,
        smoothness=args.smoothness,
        seed=args.seed,
        device=args.device,
        log=lambda text: print(text, file=sys.stderr, flush=True),
    )
    typed = shlex.join(["napari-focus-fusion", "benchmark", *_typed_options(args)])
    outputs = path_texts(write_report(table, out, typed))
    rows = summaries(table)
    if args.json:
        print_json({"outputs": outputs, "rows": rows})
    else:
        print("\n".join(outputs))
    failed = [row for row in rows if row["scope"] == "all" and "failed" in row["note"]]
    for row in failed:
        print_error(f"{row['data']}: {row['candidate']} {row['note']}")
    return FAILED if failed else OK


def _typed_options(args: argparse.Namespace) -> Iterator[str]:
    """The options that the table depends on, as they are typed."""
    for name in ("models", "data", "measures"):
        if value := getattr(args, name):
            yield from (f"--{name}", ",".join(value))
    for name in ("peers", "untrained"):
        if getattr(args, name):
            yield f"--{name}"
    for name in ("limit", "smoothness", "seed", "device"):
        if (value := getattr(args, name)) not in (None, "auto"):
            yield from (f"--{name}", str(value))
