"""``napari-focus-fusion train``: a model of this package, from random weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_focus_fusion.cli.console import (
    INTERRUPTED,
    OK,
    Bar,
    UsageError,
    print_error,
    print_json,
    stop_on_interrupt,
    training_log,
)
from napari_focus_fusion.cli.options import (
    add_command,
    add_device,
    add_overwrite,
    add_seed,
)
from napari_focus_fusion.errors import Cancelled
from napari_focus_fusion.progress import duration_text

if TYPE_CHECKING:
    import argparse

    from napari_focus_fusion.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "train", run, "train a model of ours again, from nothing"
    )
    parser.add_argument("name", metavar="NAME", help="which model, like sesf")
    parser.add_argument(
        "-o", "--out", metavar="FILE", help="by default NAME.safetensors, here"
    )
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="sharp pictures that half of the scenes take their textures from",
    )
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument(
        "--scale",
        type=int,
        choices=(2, 3, 4),
        help="of a model that super-resolves, train this factor alone",
    )
    add_seed(parser)
    add_device(parser)
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and write weights, card and history."""
    from napari_focus_fusion.models.registry import trainable_models
    from napari_focus_fusion.progress import Meter
    from napari_focus_fusion.training.recipe import recipe_of
    from napari_focus_fusion.training.train import train

    known = trainable_models()
    if args.name not in known:
        raise UsageError(
            f"{args.name!r} cannot be trained; there is: {', '.join(known)}"
        )
    out = Path(args.out or f"{args.name}.safetensors")
    started = time.perf_counter()
    with stop_on_interrupt() as stop, Bar(args.name) as bar:

        def on_scene(done: int, total: int) -> None:
            Meter(total, bar).enter(f"scene {done} of {total}", done)

        steps = args.steps or recipe_of(known[args.name]).steps
        try:
            card = train(
                args.name,
                out,
                pictures=args.pictures,
                steps=args.steps,
                seed=args.seed,
                scale=args.scale,
                device=args.device,
                overwrite=args.overwrite,
                on_step=training_log(args.name, steps, bar),
                on_scene=on_scene,
                should_stop=stop.is_set,
            )
        except Cancelled:
            print_error("interrupted; the same command goes on where it last looked")
            return INTERRUPTED
    if args.json:
        print_json(card)
        return OK
    scores = card["validation"]
    print(
        f"Trained {args.name} in {duration_text(time.perf_counter() - started)}. "
        f"Error on the scenes that chose the checkpoint: {scores['trained']:.3f} "
        f"(untrained {scores['untrained']:.3f}; lower is better).\n"
        f"Weights: {out}\nCard: {out.with_suffix('.json')}\n"
        f"History: {out.with_suffix('.csv')}"
    )
    return OK
