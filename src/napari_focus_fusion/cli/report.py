"""``napari-focus-fusion report``: how good a fusion is, in numbers and words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from napari_focus_fusion.cli.console import OK, Bar, print_json, stop_on_interrupt
from napari_focus_fusion.cli.options import (
    add_axes,
    add_command,
    add_fused_and_sources,
    add_overwrite,
    add_series,
)

if TYPE_CHECKING:
    import argparse

    from napari_focus_fusion.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "report", run, "judge a fusion, in numbers and words"
    )
    add_fused_and_sources(parser, "what the command fuse wrote")
    add_axes(parser)
    add_series(parser)
    parser.add_argument(
        "--time", type=int, default=0, metavar="T", help="time point, from 0"
    )
    parser.add_argument("--csv", metavar="FILE", help="write all numbers there")
    parser.add_argument("--png", metavar="FILE", help="write histogram and text there")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Print the report, and write it where that was asked for."""
    from napari_focus_fusion import as_stack
    from napari_focus_fusion.report import load_result, report
    from napari_focus_fusion.write.places import places_of
    from napari_focus_fusion.write.saving import check_targets

    paths = args.sources
    stack = as_stack(
        paths[0] if len(paths) == 1 else list(paths), axes=args.axes, series=args.series
    )
    loaded = load_result(args.fused, stack)
    # Checked before the work, not after it.
    inputs = places_of(stack, args.fused)
    for name in filter(None, (args.csv, args.png)):
        check_targets([Path(name)], overwrite=args.overwrite, inputs=inputs)
    with stop_on_interrupt() as stop, Bar(stack.name) as bar:
        found = report(
            stack, loaded, t=args.time, progress=bar, should_stop=stop.is_set
        )
    if args.csv:
        found.save_csv(args.csv, overwrite=args.overwrite)
    if args.png:
        found.save_png(args.png, overwrite=args.overwrite)
    if args.json:
        print_json(dataclasses.asdict(found))
    else:
        print(found.text())
    return OK
