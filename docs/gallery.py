"""Fuse real stacks and draw the pictures of ``docs/gallery.md``.

    FOCUS_FUSION_DATA=FOLDER python docs/gallery.py

writes ``docs/_static/gallery-*.jpg``, at full size: a pixel of a picture is a pixel of
the stack. Only stacks whose licences let pictures of them be shown are in it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

import napari_focus_fusion as ff
from napari_focus_fusion.figure import grey_levels, sheet_of_panels, viridis
from napari_focus_fusion.metrics import sharpness
from napari_focus_fusion.simulation.coherent import make_coherent_scene
from napari_focus_fusion.simulation.tissue import make_tissue

FOLDER = Path(__file__).parent / "_static"
DATA = Path(os.environ.get("FOCUS_FUSION_DATA", ""))
Panel = tuple[str, np.ndarray]


def levels(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """8 bits as they are, anything else stretched as ``like`` calls for."""
    if image.dtype == np.uint8 and image.ndim == 3:
        return image
    low, high = np.percentile(like, (0.5, 99.8))
    return grey_levels(image, low, high)


def sharpest_slice(planes: np.ndarray) -> np.ndarray:
    """Of (N, h, w) or (N, h, w, 3) the one with most detail coarser than noise."""
    grey = planes if planes.ndim == 3 else planes.mean(-1)
    smooth = ndimage.gaussian_filter(grey.astype(np.float32), (0, 2, 2))
    return planes[int(np.argmax([sharpness(plane) for plane in smooth]))]


def depth_panel(result: ff.FusionResult) -> np.ndarray:
    """The depth map, from the first slice to the last; white where there is none."""
    stack = result.stack
    last = (stack.n_slices - 1) * abs(stack.pixel_size("Z"))
    depth = np.abs(np.asarray(result.depth)) / last
    picture = viridis(np.nan_to_num(depth))
    picture[~np.isfinite(depth)] = 255
    return picture


def panels_of(stack: ff.FocusStack) -> list[Panel]:
    """The sharpest slice, the default, its depth, and the reconstruction."""
    planes = np.asarray(stack.data)
    best = sharpest_slice(planes)
    default = ff.fuse(stack)
    reconstructed = ff.fuse(stack, "mscnn")
    return [
        ("sharpest slice", levels(best, best)),
        ("fused, default settings", levels(np.asarray(default.fused), best)),
        ("depth", depth_panel(default)),
        ("reconstructed (mscnn)", levels(np.asarray(reconstructed.fused), best)),
    ]


def cropped(panels: list[Panel], y: int, x: int, side: int) -> list[Panel]:
    """The same window of all panels."""
    return [(caption, p[y : y + side, x : x + side]) for caption, p in panels]


def draw(name: str, panels: list[Panel], columns: int = 2) -> None:
    """Write one picture."""
    sheet = sheet_of_panels(panels, columns=columns, panel=4096)
    path = FOLDER / f"gallery-{name}.jpg"
    Image.fromarray(sheet).save(path, quality=88, subsampling=0)
    print(path)


def real(name: str) -> ff.FocusStack:
    """A stack of the folder of real stacks."""
    place = DATA / name
    files = sorted(str(p) for p in place.iterdir() if p.is_file())
    return ff.as_stack(files[0] if len(files) == 1 else files)


def main() -> None:
    """Draw all of them."""
    draw("envelope", panels_of(real("envelope14")))
    small = panels_of(real("golgi25"))
    draw("golgi", [(caption, p.repeat(2, 0).repeat(2, 1)) for caption, p in small])

    keyboard = real("keyboard32")
    panels = panels_of(keyboard)
    draw("keyboard", panels)
    whole = panels[1][1]
    planes = np.asarray(keyboard.data)
    seen = planes.reshape(32, 180, 2, 320, 2, 3).mean((2, 4)).round().astype(np.uint8)
    enlarged = ff.fuse(seen, "affinity-sr", axes="ZYXS", scale=2, decision="sml")
    plain = Image.fromarray(np.asarray(ff.fuse(seen, axes="ZYXS").fused))
    cubic = plain.resize((640, 360), Image.Resampling.BICUBIC)
    panels = [
        ("half the pixels, cubic", np.asarray(cubic)),
        ("half the pixels, affinity-sr", np.asarray(enlarged.fused)),
        ("all pixels", whole),
    ]
    parts = [(caption, p[100:300, 130:430]) for caption, p in panels]
    draw("enlarged", parts, columns=3)

    board = real("pcb7")
    still = np.asarray(ff.fuse(board).fused)
    result = ff.fuse(board, align="affine")
    best = sharpest_slice(np.asarray(board.data))
    panels = [
        ("sharpest slice", best),
        ("not aligned", still),
        ("aligned", np.asarray(result.fused)),
        ("aligned, depth", depth_panel(result)),
    ]
    draw("board", cropped(panels, 700, 900, 400))

    smear = make_coherent_scene(
        7_500_003, specimen="smear", shape=(360, 480), rgb=True, dtype="uint8"
    )
    stack = ff.as_stack(smear.stack, axes=smear.axes)
    draw("smear", panels_of(stack))

    tissue = make_tissue(7_500_001, shape=(360, 480), slices=16, electrons=500.0)
    stack = ff.as_stack(tissue.stack, axes=tissue.axes)
    planes = np.asarray(stack.data)
    maximum = ("maximum projection", levels(planes.max(0), sharpest_slice(planes)))
    panels = panels_of(stack)
    draw("membranes", [maximum, *panels[1:]])


if __name__ == "__main__":
    main()
