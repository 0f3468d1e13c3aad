"""``napari-focus-fusion project``: a slab around the surface, and its height map."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli.console import (
    OK,
    Bar,
    UsageError,
    path_texts,
    print_json,
    stop_on_interrupt,
)
from napari_focus_fusion.cli.options import (
    add_axes,
    add_command,
    add_fused_and_sources,
    add_overwrite,
    add_pixel_size,
    add_series,
    channel,
    memory,
    positive,
)

if TYPE_CHECKING:
    import argparse

    from napari_focus_fusion.cli.options import Commands
    from napari_focus_fusion.stack import FocusStack

EPILOG = """\
The surface is that of a fusion, and the stack its source or another of the same size:

  napari-focus-fusion fuse membranes.tif -o fused.ome.tif
  napari-focus-fusion project fused.ome.tif membranes.tif -o apical.ome.tif --slices 3
  napari-focus-fusion project fused.ome.tif nuclei.tif -o basal.ome.tif --offset=-4um \\
      --slices 5 --method max
  napari-focus-fusion project fused.ome.tif membranes.tif --height-map height.ome.tif
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "project",
        run,
        "project slices around the surface that a fusion found, and measure its height",
        EPILOG,
    )
    add_fused_and_sources(
        parser,
        "what the command fuse wrote, whose depth map is taken; or a map: whole "
        "numbers are slices from 0, others heights in the unit of Z",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="write the projection there (.ome.tif, .ome.zarr, .png or .jpg)",
    )
    parser.add_argument(
        "--slices",
        type=positive,
        default=1,
        metavar="K",
        help="thickness of the slab in slices, by default 1",
    )
    parser.add_argument(
        "--offset",
        default="0",
        metavar="O",
        help="how far its middle lies from the surface, towards later slices: in "
        "slices, or as a length; --offset=-1.5um where it is negative",
    )
    parser.add_argument(
        "--method",
        choices=("mean", "max"),
        default="mean",
        help="mean of the slab, interpolated between slices (the default), or maximum "
        "of whole slices",
    )
    parser.add_argument(
        "--channel",
        type=channel,
        help="project one channel: its number from 0, or name",
    )
    parser.add_argument(
        "--height-map",
        type=Path,
        metavar="FILE",
        help="write the smoothed height there (.ome.tif), and its uncertainty beside",
    )
    parser.add_argument(
        "--smoothing",
        type=float,
        metavar="PIXELS",
        help="of the height map: standard deviation of its window, by default 8",
    )
    add_axes(parser)
    add_series(parser)
    add_pixel_size(parser)
    parser.add_argument("--memory", type=memory, help="working memory, like 2GB")
    add_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    """Write what was asked for, all of it checked before the work."""
    from napari_focus_fusion import as_stack, height_map

    if args.out is None and args.height_map is None:
        raise UsageError("nothing to write: give --out, --height-map, or both")
    paths = args.sources
    stack = as_stack(
        paths[0] if len(paths) == 1 else list(paths),
        axes=args.axes,
        series=args.series,
        scale=args.pixel_size,
    )
    _check_targets(args, stack)
    report: dict[str, Any] = {"ok": True, "name": stack.name, "outputs": []}
    if args.out is not None:
        projection = _project(args, stack)
        report["outputs"].append(str(args.out))
        report |= {
            "axes": projection.stack.fused_axes,
            "shape": list(projection.image.shape),
            "dtype": str(projection.stack.dtype),
            "provenance": projection.provenance,
        }
        for note in projection.notes:
            print(f"{stack.name}: {note}", file=sys.stderr)
    if args.height_map is not None:
        given = {} if args.smoothing is None else {"smoothing": args.smoothing}
        heights = height_map(args.fused, stack=stack, **given)
        written = heights.save(args.height_map, overwrite=args.overwrite)
        report["outputs"] += path_texts(written)
        report["height_map"] = heights.provenance
        for note in heights.notes:
            print(f"{stack.name}: {note}", file=sys.stderr)
    if args.json:
        print_json(report)
    else:
        print(f"{stack.name}:", *report["outputs"], sep="\n  ")
    return OK


def _check_targets(args: argparse.Namespace, stack: FocusStack) -> None:
    from napari_focus_fusion.height import height_files
    from napari_focus_fusion.projection import channel_of, check_projection_target
    from napari_focus_fusion.write.places import places_of
    from napari_focus_fusion.write.saving import check_targets

    checked = {"overwrite": args.overwrite, "inputs": places_of(stack, args.fused)}
    heights = [] if args.height_map is None else height_files(args.height_map)
    if args.out in heights:
        raise UsageError("the projection and the height map need names of their own")
    if args.out is not None:
        chosen, _ = channel_of(stack, args.channel)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        check_projection_target(args.out, chosen, **checked)
    if heights:
        heights[0].parent.mkdir(parents=True, exist_ok=True)
        check_targets(heights, **checked)


def _project(args: argparse.Namespace, stack: FocusStack) -> Any:
    from napari_focus_fusion import project

    # Written by region where the format allows it.
    stored = args.out.suffix.lower() == ".zarr"
    with stop_on_interrupt() as stop, Bar(stack.name) as bar:
        projection = project(
            stack,
            args.fused,
            slices=args.slices,
            offset=args.offset,
            method=args.method,
            channel=args.channel,
            memory=args.memory,
            out=args.out if stored else None,
            overwrite=args.overwrite,
            progress=bar,
            should_stop=stop.is_set,
        )
    if not stored:
        projection.save(args.out, overwrite=args.overwrite)
    return projection
