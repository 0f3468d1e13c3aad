"""What super-resolution gains on real pictures and stacks, seen by coarser pixels.

    FOCUS_FUSION_DATA=FOLDER python -m studies.enlarging [WEIGHTS ...]

Pictures that no training has seen are made coarse by adding up pixels and enlarged
again; so are stacks, which are fused while they are enlarged, and held against the
fused stack of all pixels. Gains are decibels above cubic interpolation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from skimage.io import imread

import napari_focus_fusion as ff
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.metrics import psnr
from napari_focus_fusion.models.affinity_sr import AffinitySR
from napari_focus_fusion.models.layers import interpolate
from studies.rows import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(os.environ.get("FOCUS_FUSION_DATA", ""))
SCALES = (2, 3, 4)
#: Side in pixels of the middle of a picture that is used.
SIDE = 480


def files_of(folder: str) -> list[Path]:
    """Pictures of a folder, in the order of their names."""
    return sorted(p for p in (DATA / folder).iterdir() if p.is_file())


def pictures() -> Iterator[tuple[str, np.ndarray]]:
    """Pictures (C, h, w) from 0 to 1 by the name of their kind."""
    for kind, every in (("lytro", 2), ("keyboard32", 8), ("pcb7", 2), ("wbc10", 3)):
        for path in files_of(kind)[1::every]:
            yield kind, np.moveaxis(_middle(imread(path)[..., :3]), -1, 0) / 255
    for kind, every in (("golgi25", 4), ("envelope14", 3)):
        planes = imread(files_of(kind)[0]).astype(np.float64)
        for plane in planes[4::every]:
            yield kind, plane[None] / planes.max()


def _middle(picture: np.ndarray) -> np.ndarray:
    y, x = (max((n - SIDE) // 2, 0) for n in picture.shape[:2])
    return picture[y : y + SIDE, x : x + SIDE]


def coarse(image: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """(..., h, w) cropped to whole pixels of a coarser camera, and as it sees it."""
    height, width = (n // scale for n in image.shape[-2:])
    fine = image[..., : height * scale, : width * scale]
    shape = (*image.shape[:-2], height, scale, width, scale)
    return fine, fine.reshape(shape).mean((-3, -1))


def gains_on_picture(
    networks: dict[str, AffinitySR], picture: np.ndarray, scale: int
) -> list[float]:
    """Decibels of cubic interpolation, and those that each network adds."""
    fine, pixels = coarse(picture, scale)
    black, white = black_and_white([pixels.astype(np.float32)])
    seen = torch.from_numpy(((pixels - black) / (white - black)).astype(np.float32))
    around = torch.nn.functional.pad(seen[None], [24] * 4, mode="reflect")
    border = 24 * scale

    def quality(found: torch.Tensor) -> float:
        if found.shape[1] != len(fine):
            found = found.mean(1, keepdim=True)
        image = found[0, :, border:-border, border:-border] * (white - black) + black
        planes = image.clamp(0, 1).numpy().reshape(-1, image.shape[-1])
        return psnr(planes, fine.reshape(planes.shape), data_range=1.0)

    with torch.inference_mode():
        cubic = quality(interpolate(around, scale))
        return [cubic] + [
            quality(net.resolve(net.features(around, scale), scale)) - cubic
            for net in networks.values()
        ]


def stacks() -> Iterator[tuple[str, np.ndarray]]:
    """Stacks (N, h, w, 3), 8 bits."""
    for number in (1, 5, 9, 13, 17):
        pair = [DATA / "lytro" / f"lytro-{number:02d}-{s}.jpg" for s in "AB"]
        yield f"lytro-{number:02d}", np.stack([imread(path) for path in pair])
    yield "keyboard32", np.stack([imread(p) for p in files_of("keyboard32")[::4]])
    planes = [_middle(imread(path)[..., :3]) for path in files_of("wbc10")]
    yield "wbc10", np.stack(planes)


def gains_on_stack(weights: list[str], stack: np.ndarray) -> list[float]:
    """The same of a stack: by the default's decision, and by the model's own."""
    fine, pixels = coarse(np.moveaxis(stack, -1, 1).astype(np.float64), 2)
    seen = np.moveaxis(pixels.round().astype(np.uint8), 1, -1)
    whole = np.moveaxis(fine.astype(np.uint8), 1, -1)
    reference = np.asarray(ff.fuse(whole, axes="ZYXS").fused, np.float32)
    fused = np.asarray(ff.fuse(seen, axes="ZYXS").fused, np.float32)
    enlarged = interpolate(torch.from_numpy(fused).permute(2, 0, 1)[None], 2)
    cubic = enlarged[0].permute(1, 2, 0).clamp(0, 255).numpy()
    found = [psnr(cubic, reference, data_range=255.0)]
    for model in weights:
        for decision in ("sml", None):
            result = ff.fuse(seen, model, axes="ZYXS", scale=2, decision=decision)
            image = np.asarray(result.fused, np.float32)
            found.append(psnr(image, reference, data_range=255.0) - found[0])
    return found


def main() -> None:
    """Print both tables."""
    weights = sys.argv[1:] or ["affinity-sr"]
    networks = {}
    for name in weights:
        network = ff.load_model(name)
        assert isinstance(network, AffinitySR)
        networks[Path(name).stem] = network
    rows = []
    for scale in SCALES:
        found: dict[str, list[list[float]]] = {}
        for kind, picture in pictures():
            found.setdefault(kind, []).append(
                gains_on_picture(networks, picture, scale)
            )
        found["all"] = [row for of_kind in found.values() for row in of_kind]
        for kind, values in found.items():
            array = np.array(values)
            cells = [f"{array[:, 0].mean():.2f}"]
            for gains in array[:, 1:].T:
                cells.append(f"{gains.mean():+.2f} ({gains.min():+.2f})")
            rows.append([f"x{scale}", kind, str(len(array)), *cells])
    heading = ["", "pictures", "number", "cubic, dB"]
    print(markdown_table([*heading, *(f"{n}, gain (least)" for n in networks)], rows))
    rows = []
    for name, stack in stacks():
        cubic, *gains = gains_on_stack(weights, stack)
        rows.append([name, f"{cubic:.2f}", *(f"{gain:+.2f}" for gain in gains)])
    heading = ["stack, x2", "cubic, dB"]
    for name in networks:
        heading += [f"{name}, decision of sml", f"{name}, own decision"]
    print(markdown_table(heading, rows))


if __name__ == "__main__":
    main()
