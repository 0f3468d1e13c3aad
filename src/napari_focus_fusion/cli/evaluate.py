"""``napari-focus-fusion evaluate``: a fused image, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli.console import OK, print_json
from napari_focus_fusion.cli.options import (
    add_command,
    add_fused_and_sources,
    add_series,
)
from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from napari_focus_fusion.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "evaluate", run, "measure a fused image")
    add_fused_and_sources(parser, "the fused image")
    add_series(parser)
    parser.add_argument(
        "--truth", help="the true all-in-focus image, where it is known"
    )
    parser.add_argument(
        "--measures",
        type=lambda text: text.split(","),
        metavar="NAME,...",
        help="which measures, like Q_G,PSNR; all by default",
    )
    parser.add_argument(
        "--data-range",
        type=float,
        metavar="MAX",
        help="the value that is white, like 255; by default that of 8-bit data, else "
        "the brightest in the slices",
    )


def run(args: argparse.Namespace) -> int:
    """Print each measure, a column for each time point and channel."""
    from napari_focus_fusion import evaluate

    fused = _pictures(args.fused)
    sources = _planes(*args.sources, series=args.series)
    truths = _pictures(args.truth) if args.truth else [None] * len(fused)
    if not len(fused) == len(sources) == len(truths):
        raise FocusFusionError(
            f"{args.fused} has {len(fused)} channels and time points, the slices have "
            f"{len(sources)}" + (f", {args.truth} has {len(truths)}" * bool(args.truth))
        )
    results = [
        evaluate(
            image,
            slices,
            truth,
            data_range=args.data_range,
            measures=args.measures,
        )
        for image, slices, truth in zip(fused, sources, truths, strict=True)
    ]
    if args.json:
        print_json({"fused": args.fused, "results": results})
        return OK
    for name in results[0]:
        print(f"{name:<10}", *(f"{measured[name]:>9.4f}" for measured in results))
    return OK


def _pictures(path: str) -> list[NDArray[Any]]:
    """Pictures (Y, X) or (Y, X, 3), one a time point and channel."""
    planes = _planes(path)
    if len(planes[0]) > 1:
        raise FocusFusionError(
            f"{path} is a stack of {len(planes[0])} slices, and no fused image. Fuse "
            "it first, or give the image that was made of it."
        )
    return [slices[0] for slices in planes]


def _planes(*paths: str, series: str | None = None) -> list[NDArray[Any]]:
    """Slices (Z, Y, X) or (Z, Y, X, 3), one array a time point and channel."""
    from napari_focus_fusion import as_stack
    from napari_focus_fusion.report import slices_by_channel

    stack = as_stack(paths[0] if len(paths) == 1 else list(paths), series=series)
    return [
        slices for t in range(stack.n_times) for slices in slices_by_channel(stack, t)
    ]
