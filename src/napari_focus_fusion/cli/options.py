"""Options that several commands share, and types of arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_focus_fusion.cli.console import UsageError
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import memory_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    #: A parser, or a group of options in one.
    Options: TypeAlias = argparse._ActionsContainer
    #: What ``ArgumentParser.add_subparsers`` returns.
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    epilog: str = "",
) -> argparse.ArgumentParser:
    """Add a command with the options that all commands have.

    Parameters
    ----------
    commands
        Where it is added.
    name
        As it is typed.
    run
        Does what the parsed arguments say; returns the exit code.
    text
        What it does: for the list of commands and, as a sentence, for its own help.
    epilog
        More help, printed as it is.
    """
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--debug", action="store_true", help="show where an error came from"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return parser


# Groups of options --------------------------------------------------------------------


def add_as_one_stack(options: Options) -> None:
    """``--as-one-stack``, of commands that take stacks."""
    options.add_argument(
        "--as-one-stack",
        action="store_true",
        help="all inputs are slices of one stack, in the order given",
    )


def add_axes(options: Options) -> None:
    """``--axes``, of the stacks that are given."""
    options.add_argument("--axes", help="what the dimensions are, like ZYX or TZCYX")


def add_series(options: Options) -> None:
    """``--series``, of files that hold several images."""
    options.add_argument(
        "--series",
        metavar="IMAGE",
        help="which image of files that hold several: its name, its number from 0, or "
        "all; of a plate or a well, all fields unless one is named",
    )


def add_pixel_size(options: Options) -> None:
    """``--pixel-size``, where the file has none or a wrong one."""
    options.add_argument(
        "--pixel-size",
        type=pixel_sizes,
        metavar="SIZES",
        help="pixel sizes, like Z=0.5 or Z=0.5,Y=0.1,X=0.1, instead of the file's",
    )


def add_reference(options: Options) -> None:
    """``--reference``, the channel that sharpness is measured in."""
    options.add_argument(
        "--reference",
        type=channel,
        help="the channel that decides what is sharp: its number from 0, its name, "
        "luminance (RGB), or mean",
    )


def add_fused_and_sources(options: Options, fused: str) -> None:
    """A fused image, which `fused` explains, and the stack that it was made of."""
    options.add_argument("fused", metavar="FUSED", help=fused)
    options.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="the stack, or its slices as files"
    )


def add_overwrite(options: Options) -> None:
    """``--overwrite``; without it nothing is."""
    options.add_argument("--overwrite", action="store_true", help="replace what exists")


def add_device(options: Options) -> None:
    """``--device``, where a model runs."""
    options.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps"
    )


def add_seed(options: Options) -> None:
    """``--seed``, for what is drawn at random."""
    options.add_argument(
        "--seed", type=int, default=0, help="of the random numbers, by default 0"
    )


def add_smoothness(options: Options) -> None:
    """``--smoothness``; None where it is not given."""
    options.add_argument(
        "--smoothness",
        type=float,
        help="without a surface (pairs, or --surface 0): 0 for the finest detail, 1 "
        "for most stacks, up to 10 where refraction makes things look sharp out of "
        "focus",
    )


def add_surface(options: Options) -> None:
    """``--surface`` and ``--prefer``; None where they are not given."""
    options.add_argument(
        "--surface",
        type=float,
        help="0 to decide every pixel for itself, 1 to decide near the surface that "
        "neighbouring pixels and slices agree on, up to 4; by default 1",
    )
    options.add_argument(
        "--prefer",
        choices=("sharpest", "front", "back"),
        help="where two depths show: the sharper one, the one nearer to the first "
        "slice (front) or to the last (back); by default sharpest",
    )


def add_align(options: Options) -> None:
    """``--align``, ``--align-to`` and ``--brightness``; None where not given."""
    options.add_argument(
        "--align",
        metavar="KIND|FILE",
        help="bring the slices into register: translation, similarity (also focus "
        "breathing and rotation), affine, or a file of --save-registration; by default "
        "none",
    )
    options.add_argument(
        "--align-to",
        type=int,
        metavar="SLICE",
        help="the slice that stays in its place, from 0; by default the middle one",
    )
    options.add_argument(
        "--brightness",
        choices=("keep", "level"),
        help="level: make the slices equally bright (flicker, bleaching); by default "
        "keep",
    )


def add_model_and_resources(options: Options) -> None:
    """With which model to fuse, and what that may use."""
    options.add_argument(
        "--model",
        help="a name of the command models, a file of weights, or an exported model",
    )
    add_device(options)
    options.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="of the networks: bfloat16 is faster where the device has instructions "
        "for it; by default float32",
    )
    options.add_argument("--tile", type=int, metavar="PIXELS", help="size of a tile")
    options.add_argument("--memory", type=memory, help="working memory, like 2GB")


def fuse_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords for ``fuse``: those that were given; others keep their defaults.

    Raises
    ------
    UsageError
        If there is no such model.
    """
    names = (
        *("model", "reference", "scale", "decision", "joint", "blend"),
        *("align", "align_to", "brightness"),
        *("smoothness", "surface", "prefer", "background", "strength", "verify"),
        *("precision", "tile", "device", "memory"),
    )
    given = {name: getattr(args, name, None) for name in names}
    keywords = {name: value for name, value in given.items() if value is not None}
    if "align" in keywords:
        from napari_focus_fusion.engine.settings import checked_align

        try:
            keywords["align"] = checked_align("--align", keywords["align"])
        except FocusFusionError as error:
            raise UsageError(str(error)) from None
    if "model" in keywords:
        from napari_focus_fusion import load_model

        try:
            keywords["model"] = load_model(keywords["model"])
        except FocusFusionError as error:
            raise UsageError(str(error)) from None
    return keywords


# Types of arguments -------------------------------------------------------------------


def memory(text: str) -> int:
    """Bytes from ``2GB``, ``512 MB`` or a plain number."""
    try:
        return memory_bytes("memory", text)
    except FocusFusionError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no amount of memory, like 2GB"
        ) from None


def names(text: str) -> list[str]:
    """Names separated by commas, or one path that has commas in it."""
    return [text] if Path(text).exists() else [name for name in text.split(",") if name]


def pixel_sizes(text: str) -> dict[str, float]:
    """Pixel sizes by axis, from ``Z=0.5,Y=0.1``."""
    try:
        pairs = [part.split("=") for part in text.replace(" ", "").split(",") if part]
        sizes = {axis.upper(): float(size) for axis, size in pairs}
    except ValueError:
        sizes = {}
    wrong = [axis for axis, size in sizes.items() if axis not in "TZYX" or not size > 0]
    if not sizes or wrong:
        raise argparse.ArgumentTypeError(f"{text!r} is not like Z=0.5,Y=0.1,X=0.1")
    return sizes


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


def channel(text: str) -> int | str:
    """A channel's number, or its name."""
    return int(text) if text.isdigit() else text
