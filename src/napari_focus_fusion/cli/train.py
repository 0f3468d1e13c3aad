"""``napari-focus-fusion train``: a model of this package, from random weights."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli.console import (
    FAILED,
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
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.progress import duration_text

if TYPE_CHECKING:
    import argparse
    from threading import Event

    from napari_focus_fusion.cli.options import Commands

#: Instead of a model's name: every one.
ALL = "all"


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "train", run, "train a model of ours again, from nothing"
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        help="which model, like sesf; or all, one after the other: what is there "
        "already is left as it is",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="by default NAME.safetensors, here; with all a folder",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="stop after so many; the same command goes on from there. With all, each "
        "model that is left gets an equal share",
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
    """Train one model or all of them, until they are trained or the time is over."""
    from napari_focus_fusion.models.registry import trainable_models

    known = trainable_models()
    if args.name not in (*known, ALL):
        raise UsageError(
            f"{args.name!r} cannot be trained; there is: {', '.join(known)}, all"
        )
    if args.minutes is not None and args.minutes <= 0:
        raise UsageError(f"--minutes {args.minutes:g} must be more than 0")
    out = Path(args.out or (f"{args.name}.safetensors" if args.name != ALL else "."))
    targets = {args.name: out}
    if args.name == ALL:
        targets = {name: out / f"{name}.safetensors" for name in known}
        if not args.overwrite:
            targets = {n: path for n, path in targets.items() if not path.exists()}
        out.mkdir(parents=True, exist_ok=True)
    end = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    cards: dict[str, Any] = {}
    failed = False
    with stop_on_interrupt() as stop:
        for number, (name, path) in enumerate(targets.items()):
            until = None
            if end is not None:
                left = end - time.monotonic()
                until = time.monotonic() + left / (len(targets) - number)
            try:
                card = _train_one(args, name, path, stop, until)
            except (FocusFusionError, RuntimeError) as error:
                if len(targets) == 1:
                    raise
                # The others are trained all the same.
                print_error(f"{name}: {error}")
                failed = True
                continue
            if card is None and stop.is_set():
                print_error("interrupted; the same command goes on where it stopped")
                return INTERRUPTED
            cards[name] = card
    if args.json:
        print_json(cards if args.name == ALL else cards[args.name])
    return FAILED if failed else OK


def _train_one(
    args: argparse.Namespace,
    name: str,
    out: Path,
    stop: Event,
    until: float | None,
) -> dict[str, Any] | None:
    """Train, and write weights, card and history; None where it was stopped."""
    from napari_focus_fusion.models.registry import trainable_models
    from napari_focus_fusion.progress import Meter
    from napari_focus_fusion.training.recipe import recipe_of
    from napari_focus_fusion.training.train import train

    started = time.perf_counter()
    steps = args.steps or recipe_of(trainable_models()[name]).steps

    def should_stop() -> bool:
        return stop.is_set() or (until is not None and time.monotonic() > until)

    with Bar(name) as bar:

        def on_scene(done: int, total: int) -> None:
            Meter(total, bar).enter(f"scene {done} of {total}", done)

        try:
            card = train(
                name,
                out,
                pictures=args.pictures,
                steps=args.steps,
                seed=args.seed,
                scale=args.scale,
                processes=os.cpu_count() or 1,
                device=args.device,
                overwrite=args.overwrite,
                on_step=training_log(name, steps, bar),
                on_scene=on_scene,
                should_stop=should_stop,
            )
        except Cancelled:
            if not (stop.is_set() or args.json):
                print(
                    f"{name} was stopped after {args.minutes:g} min; the same command "
                    "goes on."
                )
            return None
    if not args.json:
        scores = card["validation"]
        print(
            f"Trained {name} in {duration_text(time.perf_counter() - started)}. "
            f"Error on the scenes that chose the checkpoint: {scores['trained']:.3f} "
            f"(untrained {scores['untrained']:.3f}; lower is better). Steps waited for "
            f"their data {card['waited_for_data']:.0%} of the time.\n"
            f"Weights: {out}\nCard: {out.with_suffix('.json')}\n"
            f"History: {out.with_suffix('.csv')}"
        )
    return card
