"""``napari-focus-fusion models``: what is installed, and models for other programs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from napari_focus_fusion.cli.console import OK, UsageError, print_json
from napari_focus_fusion.cli.options import add_command, add_overwrite

if TYPE_CHECKING:
    import argparse

    from napari_focus_fusion.cli.options import Commands

EXAMPLES = """\
examples:
  napari-focus-fusion models
  napari-focus-fusion models --export sesf -o sesf.zip
  napari-focus-fusion models --export my-tuned-model --author "Jane Doe"
  napari-focus-fusion fuse stack.tif --model sesf.zip -o fused.ome.tif
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "models",
        run,
        "list the models that are installed, or export one",
        EXAMPLES,
    )
    export = parser.add_argument_group("exporting")
    export.add_argument(
        "--export",
        metavar="NAME",
        help="write a model, by its name or its file of weights, as a package of "
        "bioimage.io",
    )
    export.add_argument("-o", "--out", metavar="FILE", help="by default NAME.zip, here")
    export.add_argument(
        "--stack",
        metavar="FILE",
        help="the stack whose statistics a model is fixed to that needs some; by "
        "default those of simulated scenes of all kinds",
    )
    export.add_argument(
        "--author",
        metavar="NAME",
        action="append",
        default=[],
        help="who made the weights; may be given several times; by default the "
        "developers of this package",
    )
    add_overwrite(export)


def run(args: argparse.Namespace) -> int:
    """Print every model with its summary and paper, or export one."""
    if args.export is not None:
        return _export(args)
    given = [
        option
        for option, value in (
            ("--out", args.out),
            ("--stack", args.stack),
            ("--author", args.author),
            ("--overwrite", args.overwrite),
        )
        if value
    ]
    if given:
        raise UsageError(f"{given[0]} is for --export.")
    return _list(args)


def _export(args: argparse.Namespace) -> int:
    from napari_focus_fusion.export import export_model

    paths = export_model(
        args.export,
        args.out,
        stack=args.stack,
        authors=args.author,
        overwrite=args.overwrite,
    )
    if args.json:
        print_json({"files": [str(path) for path in paths]})
        return OK
    for path in paths:
        print(path)
    return OK


def _list(args: argparse.Namespace) -> int:
    from napari_focus_fusion.models.registry import models

    specs = {name: dataclasses.asdict(spec) for name, spec in models().items()}
    if args.json:
        print_json(specs)
        return OK
    width = max(map(len, specs), default=0)
    for name, spec in specs.items():
        print(f"{name:<{width}}  {spec['title']}")
        for line in filter(None, (spec["summary"], spec["paper"])):
            print(f"{'':<{width}}  {line}")
    return OK
