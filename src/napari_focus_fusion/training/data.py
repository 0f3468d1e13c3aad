"""Batches for training: scenes from a pool, cropped, turned, made noisy each step.

Drawing a scene costs more than a step of a small network, so a pool is drawn once,
free of noise; each step then takes crops of it and adds noise of its own.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_focus_fusion.engine.normalise import BLACK, WHITE
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.simulation.coherent import make_coherent_scene
from napari_focus_fusion.simulation.scenes import detailed, make_scene
from napari_focus_fusion.simulation.tissue import make_tissue
from napari_focus_fusion.training.rng import generator_of, random_integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_focus_fusion.simulation.scenes import Scene

#: Modalities of the pool in turn, so that half of the scenes are reflected light.
MODALITIES = ("grey", "brightfield", "grey", "fluorescence")
#: The same with brightfield of waves, whose rims look sharp where they are not, and
#: with fluorescent tissue in its own haze.
WAVES_AND_HAZE = (
    *("grey", "coherent", "fluorescence", "grey", "brightfield"),
    *("coherent", "grey", "tissue"),
)
#: Modalities of matter that bends light.
BENDING = ("coherent", "lenses", "refractile")
#: Phase in radians of the densest cells of the modality "lenses", of either sign.
LENS_PHASE = (3.0, 14.0)
#: Phase contrast ``k`` and blur per slice in pixels of the modality "refractile", drawn
#: uniformly.
REFRACTION, REFRACTILE_BLUR = (0.1, 0.6), (0.3, 0.9)
#: More slices than this are finely spaced: their blur per slice in pixels is drawn
#: log-uniformly.
DEEP, DEEP_BLUR = 12, (0.15, 2.0)
#: Optical sectioning of the modality "confocal", drawn log-uniformly.
SECTIONING = (0.05, 4.0)
#: Slices out of focus at which confocal tissue is half as bright, log-uniformly.
TISSUE_SECTION = (0.7, 6.0)
#: Electrons at white, drawn log-uniformly; each step draws its own.
ELECTRONS = (150.0, 100_000.0)
READ_NOISE = (0.5, 4.0)


@dataclass(frozen=True, slots=True)
class Batch:
    """The data of one step; intensities normalised as the engine does.

    Attributes
    ----------
    noisy, clean
        (stacks, N, h, w) float32, the same slices with and without noise.
    truth
        (stacks, h, w) float32, the all-in-focus image.
    depth
        (stacks, h, w) float32, in slices; NaN where it is unknown: no detail, or no
        matter.
    step
        The step of the training that drew it: what else a training loss draws at
        random is seeded with it, which makes resuming exact.
    """

    noisy: Tensor
    clean: Tensor
    truth: Tensor
    depth: Tensor
    step: int = 0

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(
            self.noisy.to(device),
            self.clean.to(device),
            self.truth.to(device),
            self.depth.to(device),
            self.step,
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """Noise-free scenes of one shape.

    Attributes
    ----------
    slices
        (scenes, N, h, w) float32, full scale 1.
    truth, depth
        (scenes, h, w) float32.
    """

    slices: Tensor
    truth: Tensor
    depth: Tensor

    def draw(self, step: int, *, stacks: int, crop: int, seed: int) -> Batch:
        """The batch of a step: the same step of the same seed is the same batch."""
        generator = generator_of(step, seed)
        integer = partial(random_integer, generator=generator)
        high, wide = self.slices.shape[-2:]
        crops = []
        for _ in range(stacks):
            scene = integer(len(self.slices))
            y, x = integer(high - crop + 1), integer(wide - crop + 1)
            window = (..., slice(y, y + crop), slice(x, x + crop))
            planes = [a[scene][window] for a in (self.slices, self.truth, self.depth)]
            turns, flip, order = integer(4), integer(2), integer(2)
            planes = [torch.rot90(a, turns, (-2, -1)) for a in planes]
            if flip:
                planes = [a.flip(-1) for a in planes]
            clean, truth, depth = planes
            if order:
                clean, depth = clean.flip(0), len(clean) - 1 - depth
            crops.append(_expose(clean, truth, depth, generator))
        noisy, clean, truth, depth = map(torch.stack, zip(*crops, strict=True))
        return Batch(noisy, clean, truth, depth, step)


def _expose(
    clean: Tensor, truth: Tensor, depth: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise for one stack, and the normalisation that its noisy slices call for."""
    uniform = torch.rand(3, generator=generator)
    low, high = np.log(ELECTRONS)
    electrons = float(torch.exp(low + (high - low) * uniform[0]))
    read = READ_NOISE[0] + (READ_NOISE[1] - READ_NOISE[0]) * float(uniform[1])
    # A Gaussian of the Poisson's variance: the mean counts are never a handful.
    spread = torch.sqrt(clean.clamp_min(0) * electrons + read**2) / electrons
    noisy = clean + spread * torch.randn(clean.shape, generator=generator)
    black, white = np.quantile(noisy.numpy()[:, ::2, ::2], (BLACK, WHITE))
    gain = 1 / max(float(white - black), 1e-6)
    exposed, target, sharp = ((a - float(black)) * gain for a in (noisy, clean, truth))
    return exposed, target, sharp, depth


def make_pool(
    seeds: Sequence[int],
    slices: int,
    side: int,
    *,
    modalities: Sequence[str] = MODALITIES,
    pictures: Sequence[np.ndarray] | None = None,
    processes: int = 1,
    on_scene: Callable[[int, int], None] | None = None,
) -> Pool:
    """Draw the scenes of some seeds, without noise.

    Parameters
    ----------
    seeds
        One scene each.
    slices, side
        Slices of each stack; height and width in pixels.
    modalities
        Of the scenes in turn: those of :func:`make_scene`; ``"confocal"``, which is
        fluorescence with optical sectioning; ``"tissue"``, of :func:`make_tissue`;
        ``"coherent"``, of :func:`make_coherent_scene`; ``"lenses"``, smears of it whose
        cells gather light to points out of focus; and ``"refractile"``, which is
        brightfield of thick cells, whose rims look sharp where they are not.
    pictures
        Sharp grey images that every other scene takes its textures from.
    processes
        How many draw scenes side by side; the pool does not depend on it. With more
        than one, a script needs ``if __name__ == "__main__":`` around what it does.
    on_scene
        Called with the scenes drawn so far and their number in all.
    """
    stacks, truths, depths = [], [], []
    count_of = len(modalities)
    wanted = [
        _Wanted(seed, modalities[i % count_of], slices, side, bool(i // count_of % 2))
        for i, seed in enumerate(seeds)
    ]
    for count, scene in enumerate(_drawn(wanted, pictures, processes)):
        modality = wanted[count].modality
        stacks.append(torch.from_numpy(np.asarray(scene.stack, np.float32)))
        truths.append(torch.from_numpy(np.asarray(scene.truth, np.float32)))
        detail = scene.textured
        if modality in BENDING:  # a rim of refracted light is as deep as its cell
            detail = detail | detailed(scene.stack).any(0)
        known = np.where(detail, scene.depth, np.nan)
        depths.append(torch.from_numpy(known.astype(np.float32)))
        if on_scene is not None:
            on_scene(count + 1, len(seeds))
    return Pool(torch.stack(stacks), torch.stack(truths), torch.stack(depths))


class _Wanted(NamedTuple):
    """A scene of a pool, and whether its textures are those of pictures."""

    seed: int
    modality: str
    slices: int
    side: int
    textured: bool


def _drawn(
    wanted: list[_Wanted], pictures: Sequence[np.ndarray] | None, processes: int
) -> Iterator[Scene]:
    """Scenes in their order, drawn here or in processes of their own."""
    if processes == 1:
        for one in wanted:
            yield _draw_scene(one, pictures)
        return
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=_keep, initargs=(pictures,)
    ) as executor:
        yield from executor.map(_draw_in_process, wanted, chunksize=4)


#: In a process that draws scenes, the pictures.
_kept: list[Sequence[np.ndarray] | None] = []


def _keep(pictures: Sequence[np.ndarray] | None) -> None:
    """Take the pictures once, and not with every scene; and one core a process."""
    _kept.append(pictures)
    torch.set_num_threads(1)


def _draw_in_process(wanted: _Wanted) -> Scene:
    return _draw_scene(wanted, _kept[-1])


def _draw_scene(wanted: _Wanted, pictures: Sequence[np.ndarray] | None) -> Scene:
    seed, modality, slices, side, textured = wanted
    fixed: dict[str, Any] = {
        "shape": (side, side),
        "slices": slices,
        "electrons": None,
        "dtype": np.float32,
    }
    if modality == "coherent":
        return make_coherent_scene(seed, **fixed)
    if modality == "lenses":
        return make_coherent_scene(seed, **fixed, **_lenses(seed))
    if modality == "tissue":
        return make_tissue(seed, **fixed, **_tissue(seed))
    options: dict[str, Any] = {"modality": modality}
    if modality == "confocal":
        options = _confocal(seed, slices)
    elif modality == "refractile":
        options = _refractile(seed)
    if slices > DEEP and modality != "refractile":
        uniform = np.random.default_rng([seed, slices]).uniform
        options["blur_per_slice"] = float(np.exp(uniform(*np.log(DEEP_BLUR))))
    textures = pictures if textured else None
    return make_scene(seed, pictures=textures, **fixed, **options)


def _tissue(seed: int) -> dict[str, Any]:
    """Membranes or nuclei, confocal or widefield."""
    rng = np.random.default_rng(seed)
    section = float(np.exp(rng.uniform(*np.log(TISSUE_SECTION))))
    return {
        "kind": ("membranes", "nuclei")[int(rng.integers(2))],
        "section": section if rng.random() < 0.6 else None,
        "blur_per_slice": float(np.exp(rng.uniform(*np.log(DEEP_BLUR)))),
    }


def _lenses(seed: int) -> dict[str, Any]:
    """Blood cells, in every other scene side by side."""
    rng = np.random.default_rng(seed)
    return {
        "phase": float(rng.choice((-1, 1)) * rng.uniform(*LENS_PHASE)),
        "specimen": ("smear", "monolayer")[int(rng.integers(2))],
    }


def _confocal(seed: int, slices: int) -> dict[str, Any]:
    """Optical sections, often many more than the specimen is high."""
    rng = np.random.default_rng(seed)
    height = float(rng.uniform(0.1, 1)) * (slices - 1)
    low = float(rng.uniform(0, slices - 1 - height))
    return {
        "modality": "fluorescence",
        "sectioning": float(np.exp(rng.uniform(*np.log(SECTIONING)))),
        "span": (low, low + height),
    }


def _refractile(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "modality": "brightfield",
        "content": "cells",
        "thick": True,
        "refraction": float(rng.uniform(*REFRACTION)),
        "blur_per_slice": float(rng.uniform(*REFRACTILE_BLUR)),
    }


def read_pictures(folder: Path) -> list[np.ndarray]:
    """Grey images (h, w) float32 in 0..1 from a folder, in the order of their names.

    Raises
    ------
    FocusFusionError
        If the folder is not there or holds no picture.
    """
    from skimage.color import rgb2gray
    from skimage.io import imread
    from skimage.util import img_as_float32

    if not folder.is_dir():
        raise FocusFusionError(f"There is no folder {folder} with training pictures.")
    endings = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in endings)
    if not paths:
        raise FocusFusionError(f"{folder} holds no PNG, JPEG, TIFF or BMP pictures.")
    pictures = []
    for path in paths:
        picture = img_as_float32(imread(path))
        grey = rgb2gray(picture[..., :3]) if picture.ndim == 3 else picture
        pictures.append(np.asarray(grey, np.float32))
    return pictures
