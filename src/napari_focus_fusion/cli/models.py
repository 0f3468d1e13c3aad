"""``napari-focus-fusion models``: what is installed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from napari_focus_fusion.cli.console import OK, print_json
from napari_focus_fusion.cli.options import add_command

if TYPE_CHECKING:
    import argparse

    from napari_focus_fusion.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, "models", run, "list the models that are installed")


def run(args: argparse.Namespace) -> int:
    """Print every model with its summary and paper."""
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
