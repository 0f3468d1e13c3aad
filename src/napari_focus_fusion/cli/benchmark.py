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

With --families or --stacks it makes pages instead: families of scenes whose truth is
known, and real stacks, with every method of --methods, measured by image, depth and
confidence. Results are kept in the folder of --work, one by one: after Ctrl-C the same
command goes on where it was, and after a model has changed it does what is out of date.

  napari-focus-fusion benchmark --families all --stacks all -o docs/benchmarks
  napari-focus-fusion benchmark --families steps --methods ours --quick -o results
  napari-focus-fusion benchmark --speed --methods default,sesf,mscnn,peers -o results
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
    _add_family_options(parser)
    add_smoothness(parser)
    add_seed(parser)
    add_device(parser)
    parser.add_argument(
        "-o", "--out", required=True, metavar="FOLDER", help="where the tables go"
    )
    add_overwrite(parser)


def _add_family_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pages on families of scenes and on real stacks")
    group.add_argument(
        "--families",
        type=names,
        metavar="NAME,...",
        help="families of scenes (surface, layers, steps, ...), or all",
    )
    group.add_argument(
        "--stacks",
        type=names,
        metavar="NAME,...",
        help="real stacks of the folder that FOCUS_FUSION_DATA names (wbc10, ...), all "
        "of them, or files and folders of yours",
    )
    group.add_argument(
        "--methods",
        type=names,
        default=["all"],
        metavar="NAME,...",
        help="ours (every model without and with the surface), peers (other programs "
        "that are installed), all (by default both), or names as for --models; "
        "sml:surface=1 is sml with that strength of the surface, default is fuse as it "
        "comes",
    )
    group.add_argument(
        "--registration",
        action="store_true",
        help="instead a page on how well slices that drift or flicker are aligned and "
        "levelled",
    )
    group.add_argument(
        "--speed",
        action="store_true",
        help="instead a page on time and memory against the number of slices, the area "
        "and the tile, of --methods",
    )
    group.add_argument(
        "--quick",
        action="store_true",
        help="one scene a family, and the middle of each real stack",
    )
    group.add_argument(
        "--work",
        default="benchmark-work",
        metavar="FOLDER",
        help="where results are kept, by default benchmark-work",
    )


def run(args: argparse.Namespace) -> int:
    """Measure every candidate and write the tables; what failed is in the exit code."""
    if args.registration:
        return _write_registration(args)
    if args.speed:
        return _write_speed(args)
    if args.families is not None or args.stacks is not None:
        return _write_pages(args)
    return _write_tables(args)


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _write_pages(args: argparse.Namespace) -> int:
    """Measure families and real stacks, and write their pages."""
    from napari_focus_fusion.benchmark.families import REAL, run_families
    from napari_focus_fusion.benchmark.judging import judge
    from napari_focus_fusion.benchmark.pages import write_pages
    from napari_focus_fusion.simulation.families import FAMILIES

    every = {"families": tuple(FAMILIES), "stacks": tuple(real.name for real in REAL)}
    chosen = {
        option: every[option] if value == ["all"] else value or []
        for option in every
        for value in [getattr(args, option)]
    }
    typed = ["napari-focus-fusion", "benchmark"]
    for option in ("families", "stacks", "methods"):
        if value := getattr(args, option):
            typed += [f"--{option}", ",".join(value)]
    typed += ["--quick"] * args.quick + ["-o", args.out]
    results = run_families(
        chosen["families"],
        args.methods,
        chosen["stacks"],
        Path(args.work),
        quick=args.quick,
        device=args.device,
        log=_log,
    )
    judged = judge(results, _log)
    written = write_pages(results, judged, Path(args.out), shlex.join(typed), _log)
    for name, why in results.skipped.items():
        print_error(f"{name} was left out: {why}")
    failed = [one for one in judged if one.error]
    for one in failed:
        print_error(f"{one.data}, {one.stack}: {one.method} failed: {one.error}")
    if args.json:
        print_json({"outputs": path_texts(written)})
    else:
        print("\n".join(path_texts(written)))
    return FAILED if failed else OK


def _write_registration(args: argparse.Namespace) -> int:
    """Measure alignment and levelling, and write their page."""
    from napari_focus_fusion.benchmark.registration import measure, write_page

    path = Path(args.out) / "registration.md"
    command = ["napari-focus-fusion", "benchmark", "--registration", "-o", args.out]
    write_page(measure(_log), path, shlex.join(command))
    if args.json:
        print_json({"outputs": path_texts([path])})
    else:
        print(path)
    return OK


def _write_speed(args: argparse.Namespace) -> int:
    """Measure time and memory, and write their page."""
    from napari_focus_fusion.benchmark.speed import measure_speed
    from napari_focus_fusion.benchmark.speed_page import write_speed_page

    typed = ["napari-focus-fusion", "benchmark", "--speed"]
    typed += ["--methods", ",".join(args.methods)] + ["--quick"] * args.quick
    typed += [] if args.device == "auto" else ["--device", args.device]
    costs, missing = measure_speed(
        args.methods, Path(args.work), quick=args.quick, device=args.device, log=_log
    )
    command = shlex.join([*typed, "-o", args.out])
    written = write_speed_page(costs, missing, Path(args.out), command)
    if args.json:
        print_json({"outputs": path_texts(written)})
    else:
        print("\n".join(path_texts(written)))
    return OK


def _write_tables(args: argparse.Namespace) -> int:
    """Measure candidates on data sets, and write the tables."""
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
        log=_log,
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
