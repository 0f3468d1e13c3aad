"""``napari-focus-fusion demo``: a built-in stack, whose truth is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_focus_fusion.cli.console import (
    OK,
    Bar,
    path_texts,
    print_json,
    stop_on_interrupt,
)
from napari_focus_fusion.cli.options import (
    add_command,
    add_model_and_resources,
    add_overwrite,
    fuse_keywords,
)
from napari_focus_fusion.progress import duration_text

if TYPE_CHECKING:
    import argparse

    from napari_focus_fusion.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "demo", run, "fuse a built-in stack and show the result"
    )
    parser.add_argument(
        "-o", "--out", default="demo", metavar="FOLDER", help="by default: demo"
    )
    add_overwrite(parser)
    add_model_and_resources(parser)


def run(args: argparse.Namespace) -> int:
    """Fuse the stack, compare the result with the truth, and draw both."""
    from PIL import Image

    from napari_focus_fusion import as_stack, fuse
    from napari_focus_fusion.cli.fusing import will_reconstruct
    from napari_focus_fusion.figure import side_by_side
    from napari_focus_fusion.metrics import psnr
    from napari_focus_fusion.result import result_files
    from napari_focus_fusion.simulation.samples import brightfield_scene
    from napari_focus_fusion.write.saving import check_targets

    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    target, figure_path = folder / "pollen_fused.ome.tif", folder / "pollen.png"
    scene = brightfield_scene()
    stack = as_stack(
        scene.stack,
        axes=scene.axes,
        scale=scene.scale,
        units=scene.units,
        name="Pollen",
    )
    keywords = fuse_keywords(args)
    files = result_files(target, reconstructed=will_reconstruct(stack, keywords))
    check_targets([*files, figure_path], overwrite=args.overwrite)
    started = time.perf_counter()
    with stop_on_interrupt() as stop, Bar("Pollen") as bar:
        result = fuse(stack, progress=bar, should_stop=stop.is_set, **keywords)
    seconds = time.perf_counter() - started
    outputs = result.save(target, overwrite=args.overwrite)
    Image.fromarray(side_by_side(result)).save(figure_path)
    fused, *slices = (
        psnr(image, scene.truth, data_range=255)
        for image in (result.fused, *scene.stack)
    )
    if args.json:
        print_json(
            {
                "outputs": path_texts([*outputs, figure_path]),
                "seconds": round(seconds, 3),
                "psnr_fused": fused,
                "psnr_best_slice": max(slices),
                "provenance": result.provenance,
            }
        )
        return OK
    shape = f"{stack.n_slices} slices of {stack.height} x {stack.width} pixels, RGB"
    print(
        f"Fused a made-up brightfield stack ({shape}) with "
        f"{result.provenance['model']} in {duration_text(seconds)} on "
        f"{result.provenance['device']}.\n"
        f"Likeness to the truth, which is known here: {fused:.1f} dB PSNR; the best "
        f"single slice has {max(slices):.1f} dB.\n"
        f"Slices, result and decision map side by side: {figure_path}\n"
        "The fused image and its maps:"
    )
    for path in outputs:
        print(f"  {path}")
    return OK
