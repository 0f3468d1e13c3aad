"""Focus stacks with exact ground truth: synthetic scenes, drawn from a seed.

The model of image formation (blur, occlusion, camera) is in ``optics``; the objects are
drawn by ``drawing``. The truth is the same scene with every point in focus:
the all-in-focus image under the in-focus blur ``s0``, lit as the slices are (vignetting
and shading are the same in all of them), before any noise. Of transparent matter it
shows all depths at once; where objects overlap no slice does, as the haze of the others
is in all slices, so no selection of slices can equal it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, ndimage

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.simulation.drawing import (
    Sprite,
    draw_objects,
    make_atlas,
    paint,
    plane,
    smooth_field,
    tint,
)
from napari_focus_fusion.simulation.optics import (
    Layer,
    Optics,
    Piece,
    blur_halo,
    composite_layers,
    expose,
    render_layers,
    render_slices,
    strongest_depth,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]

CONTENTS = ("leaves", "cells", "fibres", "beads", "texture")
SURFACES = ("flat", "tilt", "relief", "steep", "steps", "layers")
PSFS = ("disk", "gaussian")
MODALITIES = ("grey", "brightfield", "fluorescence")

TRAINING_SEEDS = range(1_000_000)
"""Seeds that training may draw from; scenes for evaluation lie above."""

# Optical densities per stain in red, green and blue (Ruifrok and Johnston 2001 for the
# first two; the others are typical of their dyes): haematoxylin, eosin, safranin, fast
# green, methylene blue, iodine.
STAINS = np.array(
    [
        [0.65, 0.70, 0.29],
        [0.07, 0.99, 0.11],
        [0.12, 0.85, 0.50],
        [0.80, 0.22, 0.38],
        [0.78, 0.55, 0.16],
        [0.20, 0.48, 0.85],
    ],
    np.float32,
)


@dataclass(frozen=True)
class Scene:
    """A focus stack and its ground truth.

    Attributes
    ----------
    stack : ndarray
        (Z, Y, X), (Z, Y, X, S) or (C, Z, Y, X); uint8, uint16 or float32 (white 1).
    axes : str
        ``"ZYX"``, ``"ZYXS"`` or ``"CZYX"``.
    truth : ndarray
        float32, ``axes`` without Z: the all-in-focus image, free of noise, on the scale
        of ``stack`` (not rounded).
    depth : ndarray
        float32 (Y, X), in slices: the fractional slice index at which the frontmost
        (opaque) or strongest (transparent) matter of the pixel is sharp; without any
        matter, that of the nearest.
    edges : ndarray
        bool (Y, X): the band round occlusions and jumps of depth.
    textured : ndarray
        bool (Y, X): the truth has local contrast above the noise of the mean slice, so
        that focus can be measured. Elsewhere the depth cannot be determined.
    scale, units : mapping
        Pixel size per axis letter and its unit.
    channel_names : tuple of str
        One per channel, or empty.
    seed : int
        What the scene was drawn from.
    parameters : dict
        Every option as it was drawn or given.
    """

    stack: Array
    axes: str
    truth: NDArray[np.float32]
    depth: NDArray[np.float32]
    edges: NDArray[np.bool_]
    textured: NDArray[np.bool_]
    scale: Mapping[str, float]
    units: Mapping[str, str]
    channel_names: tuple[str, ...]
    seed: int
    parameters: dict[str, Any]


def make_scene(
    seed: int,
    *,
    shape: tuple[int, int] = (256, 256),
    slices: int = 8,
    content: str = "mixed",
    surface: str = "mixed",
    psf: str = "mixed",
    modality: str = "grey",
    rgb: bool = False,
    channels: int = 1,
    electrons: float | str | None = "mixed",
    read_noise: float | None = None,
    offset: float | None = None,
    blur_per_slice: float | None = None,
    focus_blur: float | None = None,
    max_blur: float = 16.0,
    span: tuple[float, float] | None = None,
    front: str = "mixed",
    sectioning: float = 0.0,
    refraction: float | None = None,
    thick: bool = False,
    vignetting: float | None = None,
    shading: float | None = None,
    exposure: float | None = None,
    dtype: DTypeLike = np.uint16,
    pictures: Sequence[Array] | None = None,
) -> Scene:
    """Draw a scene from a seed and render it slice by slice.

    What is ``"mixed"`` (or None, for numbers) is drawn from the seed; everything else
    is as given. The options, the matter and the noise come from streams of their own,
    so the same seed with other camera options is the same scene.

    Parameters
    ----------
    seed : int
        Not negative. Training draws from ``TRAINING_SEEDS`` only.
    shape : (int, int)
        Height and width in pixels.
    slices : int
        Number of slices, at least one.
    content : str
        One of ``CONTENTS`` or ``"mixed"``: what the objects are.
    surface : str
        One of ``SURFACES`` or ``"mixed"``: where they lie. ``"steps"`` and ``"layers"``
        jump in depth (with occlusion in reflected light), the others do not.
    psf : str
        ``"disk"``, ``"gaussian"`` or ``"mixed"``.
    modality : str
        ``"grey"`` (reflected light), ``"brightfield"``, ``"fluorescence"`` or
        ``"mixed"``.
    rgb : bool
        Make colour samples (axis S, last).
    channels : int
        Number of channels (axis C, first) if more than one.
    electrons : float, None or "mixed"
        Electrons at white, drawn log-uniformly from 250 to 100000 (one scene in ten
        without noise); None for no noise.
    read_noise : float, optional
        Standard deviation in electrons, 1 to 4.
    offset : float, optional
        Black level as a share of full scale, 0 to 0.03.
    blur_per_slice, focus_blur : float, optional
        ``s`` (0.4 to 2.5, 0.8 to 4 for up to three slices) and ``s0`` (0 to 0.8) in
        pixels.
    max_blur : float
        Largest blur in pixels.
    span : (float, float), optional
        Lowest and highest depth in slices, about 0 and ``slices - 1``.
    front : str
        ``"first"`` or ``"last"``: the slice nearest to the viewer, whose matter
        occludes; or ``"mixed"``.
    sectioning : float
        In fluorescence, how fast light from out of focus is dimmed: to a half at
        ``1 / sqrt(sectioning)`` slices, as by a confocal microscope. 0: not at all.
    refraction : float, optional
        ``k`` of the phase contrast in brightfield, 0 to 0.25.
    thick : bool
        In brightfield, the thickness of cells rises from their edge to their middle:
        refraction then makes broad bright and dark fringes, which are the stronger the
        further a cell is out of focus.
    vignetting, shading : float, optional
        Loss of light towards the corners (0 to 0.3) and across the field (0 to 0.15).
    exposure : float, optional
        White as a share of the full scale, 0.5 to 0.95.
    dtype : dtype
        uint8, uint16 or float32.
    pictures : sequence of ndarray, optional
        Sharp grey images (2-D) to take texture from instead of making all of it.

    Raises
    ------
    FocusFusionError
        If an option is not one of those above.
    """
    if slices < 1 or min(shape) < 16:
        raise FocusFusionError(
            f"A scene needs one slice and 16 x 16 pixels or more; "
            f"{slices} slices of {shape[0]} x {shape[1]} were asked for."
        )
    if rgb and channels > 1:
        raise FocusFusionError("A scene is either RGB or multichannel, not both.")
    dtype = np.dtype(dtype)
    if dtype not in (np.uint8, np.uint16, np.float32):
        raise FocusFusionError(f"Scenes are uint8, uint16 or float32, not {dtype}.")
    rng, drawing_rng, camera = (np.random.default_rng([seed, k]) for k in range(3))

    # Everything is drawn, needed or not: a fixed option must not change the others.
    def pick(name: str, given: str, known: Sequence[str]) -> str:
        drawn = known[int(rng.integers(len(known)))]
        if given != "mixed" and given not in known:
            listed = ", ".join(dict.fromkeys(known))
            raise FocusFusionError(
                f"{given!r} is not a known {name}; choose from {listed} or mixed."
            )
        return drawn if given == "mixed" else given

    def between(given: float | None, low: float, high: float) -> float:
        drawn = float(rng.uniform(low, high))
        return drawn if given is None else float(given)

    weak, strong = (0.8, 4.0) if slices <= 3 else (0.4, 2.5)
    drawn_blur = float(np.exp(rng.uniform(np.log(weak), np.log(strong))))
    drawn_electrons = float(np.exp(rng.uniform(np.log(250), np.log(100_000))))
    noisy = rng.random() >= 0.1
    if electrons == "mixed":
        electrons = drawn_electrons if noisy else None
    elif isinstance(electrons, str) or (electrons is not None and electrons <= 0):
        raise FocusFusionError(
            f"electrons is a number above 0, None or 'mixed', not {electrons!r}."
        )
    ends = rng.uniform(-0.1, 0.25, 2) * min(slices - 1, 2)
    options: dict[str, Any] = {
        "slices": slices,
        "content": pick("content", content, CONTENTS),
        "surface": pick("surface", surface, (*SURFACES, "layers", "layers")),
        "psf": pick("psf", psf, PSFS),
        "modality": pick("modality", modality, MODALITIES),
        "front": pick("front", front, ("first", "last")),
        "electrons": electrons,
        "blur_per_slice": drawn_blur if blur_per_slice is None else blur_per_slice,
        "span": span or (float(ends[0]), float(slices - 1 - ends[1])),
        "focus_blur": between(focus_blur, 0, 0.8),
        "max_blur": max_blur,
        "read_noise": between(read_noise, 1, 4),
        "offset": between(offset, 0, 0.03),
        "refraction": between(refraction, 0, 0.25),
        "thick": thick,
        "sectioning": sectioning,
        "vignetting": between(vignetting, 0, 0.3),
        "shading": between(shading, 0, 0.15),
        "exposure": between(exposure, 0.5, 0.95),
    }
    pixel, ratio = float(rng.uniform(0.1, 1)), float(rng.uniform(1, 6))

    optics, inner = make_optics(shape, options)
    atlas = make_atlas(drawing_rng, optics.canvas, pictures)
    render = _opaque_image if options["modality"] == "grey" else _transparent_image
    components = 3 if rgb else channels
    image, depth, edges = render(drawing_rng, components, atlas, options, optics)
    light = illumination(drawing_rng, shape, options["vignetting"], options["shading"])
    return expose_scene(
        image[:, :, *inner] * light,
        depth[inner],
        edges[inner],
        camera,
        rgb=rgb,
        dtype=dtype,
        scale={"Z": pixel * ratio, "Y": pixel, "X": pixel},
        channel_names=tuple(f"channel {i + 1}" for i in range(channels)),
        seed=seed,
        parameters=options,
    )


def make_optics(
    shape: tuple[int, int], options: Mapping[str, Any]
) -> tuple[Optics, tuple[slice, slice]]:
    """Optics on a canvas larger than the image by the halo of the blur.

    Returns them and the rows and columns of the image on that canvas.
    """
    names = ("slices", "psf", "blur_per_slice", "focus_blur", "max_blur", "sectioning")
    given = {name: options[name] for name in names if name in options}
    halo = blur_halo(Optics(canvas=shape, **given))
    h, w = (fft.next_fast_len(n + 2 * halo, real=True) for n in shape)
    inner = (slice(halo, halo + shape[0]), slice(halo, halo + shape[1]))
    return Optics(canvas=(h, w), **given), inner


def expose_scene(
    image: Array,
    depth: Array,
    edges: Array,
    camera: np.random.Generator,
    *,
    rgb: bool,
    dtype: DTypeLike,
    scale: Mapping[str, float],
    channel_names: tuple[str, ...],
    seed: int,
    parameters: dict[str, Any],
) -> Scene:
    """The scene of a rendered image, with camera noise.

    Parameters
    ----------
    image
        (slices + 1, components, Y, X), white 1, the last entry being the truth.
    depth, edges
        (Y, X), as in ``Scene``.
    camera
        The noise is drawn from it.
    rgb, dtype, scale, channel_names, seed
        As in ``Scene``; the components are channels where they are not ``rgb``.
    parameters
        ``exposure``, ``electrons``, ``read_noise`` and ``offset``, and others.
    """
    dtype = np.dtype(dtype)
    image = np.clip(image * np.float32(parameters["exposure"]), 0, 1)
    noise = {name: parameters[name] for name in ("electrons", "read_noise", "offset")}
    stack = expose(image[:-1], camera, dtype=dtype, **noise)
    white = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    truth = white * (noise["offset"] + (1 - noise["offset"]) * image[-1])
    many = image.shape[1] > 1 and not rgb
    if many:
        axes, stack = "CZYX", np.moveaxis(stack, 1, 0)
    elif rgb:
        axes, stack, truth = (
            "ZYXS",
            np.moveaxis(stack, 1, -1),
            np.moveaxis(truth, 0, -1),
        )
    else:
        axes, stack, truth = "ZYX", stack[:, 0], truth[0]
    return Scene(
        stack=np.ascontiguousarray(stack),
        axes=axes,
        truth=np.ascontiguousarray(truth, dtype=np.float32),
        depth=np.ascontiguousarray(depth, dtype=np.float32),
        edges=np.ascontiguousarray(edges),
        textured=_textured(image[-1], noise["electrons"]),
        scale=dict(scale),
        units=dict.fromkeys("ZYX", "micrometer"),
        channel_names=channel_names if many else (),
        seed=seed,
        parameters=parameters,
    )


def _textured(truth: Array, electrons: float | None) -> Array:
    """Where the contrast of (components, h, w) in 7 x 7 windows beats shot noise."""
    grey = truth.mean(axis=0)
    mean = ndimage.uniform_filter(grey, 7)
    shot = 0.0 if electrons is None else mean / (electrons * len(truth))
    return detailed(grey, 0.5 * shot)


def detailed(grey: Array, least: Array | float = 0.0) -> Array:
    """Where the variance of (..., h, w) in 7 x 7 windows is more than ``least``.

    And more than that of a contrast of one per cent of white.
    """
    size = (*[1] * (grey.ndim - 2), 7, 7)
    mean = ndimage.uniform_filter(grey, size)
    variance = ndimage.uniform_filter(grey * grey, size) - mean * mean
    return variance > np.maximum(1e-4, least)


def illumination(
    rng: np.random.Generator, shape: tuple[int, int], vignetting: float, shading: float
) -> Array:
    """Light over the field, at most 1: darker to the corners and to one side."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    centre = rng.uniform(-0.2, 0.2, 2).astype(np.float32)
    squared = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 2
    side = 1 - np.float32(shading / 2) + plane(rng, shape, shading)
    return (1 - np.float32(vignetting) * np.minimum(squared, 1)) * side


def depth_edges(
    depth: Array, matter: Array | None = None, jump: float = 0.5, band: int = 4
) -> Array:
    """Pixels within ``band`` of a jump of more than ``jump`` slices between pixels.

    With ``matter`` (bool) only jumps from matter to matter count.
    """
    lowest = ndimage.minimum_filter(depth, size=(2, 2), mode="nearest")
    steep = ndimage.maximum_filter(depth, size=(2, 2), mode="nearest") - lowest > jump
    if matter is not None:
        steep &= ndimage.minimum_filter(matter, size=(2, 2), mode="nearest")
    return ndimage.maximum_filter(steep, size=2 * band + 1)


def _opaque_image(
    rng: np.random.Generator,
    components: int,
    atlas: Sequence[Array],
    options: Mapping[str, Any],
    optics: Optics,
) -> tuple[Array, Array, Array]:
    """Reflected light: (slices + 1, components, h, w), depth and edges (h, w)."""
    layers = _opaque_layers(rng, components, atlas, options, optics.canvas)
    image, depth = render_layers(layers, optics)
    white = np.quantile(image[-1, :, ::3, ::3], 0.995)
    return image / np.float32(max(white, 0.05)), depth, depth_edges(depth)


def _opaque_layers(
    rng: np.random.Generator,
    components: int,
    atlas: Sequence[Array],
    options: Mapping[str, Any],
    canvas: tuple[int, int],
) -> list[Layer]:
    surface, (low, high) = options["surface"], options["span"]
    slices, content = options["slices"], options["content"]

    def objects(content: str, fill: float) -> list[Sprite]:
        if content == "texture":
            return []
        return draw_objects(rng, canvas, content, atlas, fill)

    base = _background(rng, atlas, components)
    if surface in ("steps", "layers"):
        count = int(rng.integers(2, 6))
        off = rng.uniform(-0.45, 0.45, count) * (high - low) / count
        depths = np.linspace(low, high, count) + off
        if slices <= 3 or rng.random() < 0.3:  # in focus where there is a slice
            depths = np.unique(np.clip(np.rint(depths), 0, slices - 1))
    if surface == "layers":
        kind = ("flat", "tilt", "relief")[int(rng.integers(3))]
        ground = _relief(rng, canvas, kind, (low, max(low, float(depths[0])) + 0.1))
        if rng.random() < 0.5:
            base, _ = paint(rng, base, objects(content, rng.uniform(0.3, 1)))
        layers = [Layer(base, None, ground)]
        fill = rng.uniform(0.2, 0.6) / max(len(depths) - 1, 1)
        most = min(1.5, 0.3 * (slices - 1))
        empty = np.full((components, *canvas), 0.5, np.float32)
        for depth in depths[1:]:
            sprites = objects("leaves" if content == "texture" else content, fill)
            colour, coverage = paint(rng, empty, sprites)
            tilt = rng.uniform(0, most) if rng.random() < 0.5 else 0.0
            place = np.float32(depth) + plane(rng, canvas, tilt)
            layers.append(Layer(colour, coverage, place))
    else:
        colour, _ = paint(rng, base, objects(content, rng.uniform(0.3, 1)))
        if surface == "steps":
            layers = _terraces(rng, colour, depths)
        else:
            layers = [Layer(colour, None, _relief(rng, canvas, surface, (low, high)))]
    if options["front"] == "last":
        return layers
    return [Layer(a.colour, a.coverage, slices - 1 - a.depth) for a in layers]


def _background(
    rng: np.random.Generator, atlas: Sequence[Array], components: int
) -> Array:
    """Textured ground (components, h, w) whose contrast may fade out in places."""
    h, w = atlas[0].shape
    contrast = np.full((h, w), rng.uniform(0.15, 1), np.float32)
    if rng.random() < 0.4:
        contrast *= np.clip(4 * smooth_field(rng, (h, w), min(h, w) / 8) - 1.2, 0, 1)
    tone, source = rng.uniform(0.3, 0.8), atlas[int(rng.integers(len(atlas)))]
    shade = np.clip(np.float32(tone) + contrast * (source - 0.5), 0.02, 1)
    return shade[None] * tint(rng, components)


def _relief(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    surface: str,
    span: tuple[float, float],
) -> Array:
    """Depth of a surface without jumps, float32 (h, w), within ``span``."""
    low, high = span
    if surface == "flat":
        return np.full(canvas, rng.uniform(low, high), np.float32)
    if surface == "tilt":
        return np.float32((low + high) / 2) + plane(rng, canvas, high - low)
    hills = rng.uniform(4, 8) if surface == "relief" else rng.uniform(10, 24)
    field = smooth_field(rng, canvas, min(canvas) / hills)
    return np.float32(low) + np.float32(high - low) * field


def _terraces(rng: np.random.Generator, colour: Array, depths: Array) -> list[Layer]:
    """Steps of a staircase, back to front: nested regions at rising depths."""
    canvas = colour.shape[1:]
    if rng.random() < 0.5:
        ground = plane(rng, canvas, 1.0)
    else:
        ground = smooth_field(rng, canvas, min(canvas) / rng.uniform(5, 10))
    slope = np.hypot(*np.gradient(ground)) + 1e-6
    cuts = np.quantile(ground[::4, ::4], np.linspace(0, 1, len(depths) + 1)[1:-1])
    layers = [Layer(colour, None, np.full(canvas, depths[0], np.float32))]
    for depth, cut in zip(depths[1:], cuts, strict=True):
        region = np.clip((ground - cut) / slope + 0.5, 0, 1).astype(np.float32)
        layers.append(Layer(colour, region, np.full(canvas, depth, np.float32)))
    return layers


def _transparent_image(
    rng: np.random.Generator,
    components: int,
    atlas: Sequence[Array],
    options: Mapping[str, Any],
    optics: Optics,
) -> tuple[Array, Array, Array]:
    """Transmitted or emitted light, as ``_opaque_image``."""
    bright = options["modality"] == "brightfield"
    stains = 2 if bright and components > 1 else 1
    kinds = stains if bright else components
    pieces = _transparent_pieces(rng, kinds, atlas, options, optics.canvas)
    depth, matter = strongest_depth(pieces, optics.canvas)
    edges = depth_edges(depth, matter)
    rendered = render_slices(
        composite_layers(pieces, kinds + bright, optics), optics, phase=bright
    )
    if not bright:
        return fluorescence_image(rendered, float(rng.uniform(0.01, 0.1))), depth, edges
    density = np.ones((components, kinds), np.float32)
    if components == 3:
        density = STAINS[rng.choice(len(STAINS), 2, replace=False)].T
    elif components > 1:
        density = rng.uniform(0.2, 1, (components, kinds)).astype(np.float32)
    density = density * np.float32(rng.uniform(0.6, 2.0))
    return brightfield_image(rendered, density, options["refraction"]), depth, edges


def _transparent_pieces(
    rng: np.random.Generator,
    kinds: int,
    atlas: Sequence[Array],
    options: Mapping[str, Any],
    canvas: tuple[int, int],
) -> list[Piece]:
    surface, content = options["surface"], options["content"]
    low, high = options["span"]
    bright = options["modality"] == "brightfield"
    drawn = "cells" if content == "texture" else content
    sprites = draw_objects(rng, canvas, drawn, atlas, rng.uniform(0.4, 1))
    if rng.random() < 0.3:
        sprites += draw_objects(rng, canvas, "beads", atlas, rng.uniform(0.1, 0.5))
    steps = rng.uniform(low, high, int(rng.integers(2, 6)))
    if surface not in ("steps", "layers"):
        ground = _relief(rng, canvas, surface, (low, high))
    pieces = []
    for sprite in sprites:
        box, shape = sprite.box, sprite.coverage.shape
        if surface == "steps":
            depth = np.full(shape, rng.choice(steps), np.float32)
        elif surface == "layers":
            depth = np.float32(rng.uniform(low, high)) + plane(
                rng, shape, rng.uniform(0, 1)
            )
        else:
            depth = ground[box]
        if options["thick"]:  # one depth for the whole cell
            depth = np.full(shape, np.median(depth), np.float32)
        shade = np.float32(1.05) - sprite.shade if bright else sprite.shade
        amount = sprite.coverage * shade * np.float32(rng.uniform(0.3, 1))
        pieces.append(Piece(int(rng.integers(kinds)), box, amount, depth))
        if bright:
            phase = cell_thickness(rng, sprite) if options["thick"] else sprite.coverage
            pieces.append(Piece(-1, box, phase, depth))
    return pieces


def cell_thickness(rng: np.random.Generator, sprite: Sprite) -> Array:
    """Thickness (h, w) in pixels of a cell that is round at its edge, flat inside."""
    distance = ndimage.distance_transform_edt(sprite.coverage > 0.5)
    width = np.float32(max(distance.max() * rng.uniform(0.25, 1), 1))
    slope = np.float32(np.pi / 2) * np.minimum(distance.astype(np.float32) / width, 1)
    # Distances in whole pixels have kinks, which would show in the curvature.
    return sprite.coverage * ndimage.gaussian_filter(width * np.sin(slope), 1.5)


def fluorescence_image(planes: Array, background: float) -> Array:
    """Fluorescence of (slices + 1, channels, h, w) emission over a background."""
    white = np.quantile(planes[-1, :, ::2, ::2], 0.999, axis=(1, 2))[:, None, None]
    glow = np.maximum(planes, 0) / np.maximum(white, 1e-6).astype(np.float32)
    return np.float32(background) + np.float32(1 - background) * glow


def brightfield_image(planes: Array, density: Array, refraction: float) -> Array:
    """Brightfield of (slices + 1, stains + 1, h, w): absorbance of stains, and a phase.

    ``density`` (components, stains) is the absorbance of a unit of each stain.
    """
    absorbance = np.tensordot(density, np.maximum(planes[:, :-1], 0), axes=(1, 1))
    bent = np.clip(1 - np.float32(refraction) * planes[:, -1:], 0.3, 1.7)
    return np.exp(-np.moveaxis(absorbance, 0, 1)) * bent


@dataclass(frozen=True)
class SceneSpec:
    """A named scene for evaluation: a seed that training never draws, and options."""

    name: str
    seed: int
    options: tuple[tuple[str, Any], ...]

    def make(self) -> Scene:
        """Make the scene."""
        return make_scene(self.seed, **dict(self.options))


def _specs(*rows: tuple[str, dict[str, Any]]) -> tuple[SceneSpec, ...]:
    first = TRAINING_SEEDS.stop
    return tuple(
        SceneSpec(name, first + i, tuple(sorted(options.items())))
        for i, (name, options) in enumerate(rows)
    )


def benchmark_scenes() -> tuple[SceneSpec, ...]:
    """Scenes for choosing checkpoints and for tables; their seeds are never trained on.

    They cover 2, 8 and 32 slices; grey, RGB and two channels; reflected light,
    brightfield and fluorescence; gentle and steep surfaces, steps and occlusion; from
    no noise to 250 electrons.
    """
    size, deep = {"shape": (256, 256)}, {"slices": 32, "blur_per_slice": 0.6}
    large, pair = {"shape": (384, 384)}, {"slices": 2, "blur_per_slice": 2.5}
    bright, glow = {"modality": "brightfield"}, {"modality": "fluorescence"}
    rgb = {"rgb": True, "dtype": "uint8"}
    clean, good, fair = {"electrons": None}, {"electrons": 1e4}, {"electrons": 4e3}
    poor, dark = {"electrons": 1e3}, {"electrons": 250.0}
    relief, steep, tilt, steps, layers = (
        {"surface": name} for name in ("relief", "steep", "tilt", "steps", "layers")
    )
    leaves, cells, fibres, beads, texture = ({"content": name} for name in CONTENTS)
    return _specs(
        ("pair-layers", large | pair | layers | leaves | good),
        ("pair-steps-noisy", large | pair | steps | cells | poor),
        ("relief-clean", large | relief | leaves | clean),
        ("relief-noisy", large | relief | cells | poor),
        ("relief-dark", size | relief | leaves | dark),
        ("steep", large | steep | leaves | fair),
        ("tilt-texture", size | tilt | texture | good),
        ("steps-cells", large | steps | cells | good),
        ("layers-leaves", large | layers | leaves | fair),
        ("layers-fibres", large | layers | fibres | good),
        ("layers-beads-8-bit", size | layers | beads | fair | {"dtype": "uint8"}),
        ("rgb-layers", size | layers | leaves | good | rgb),
        ("rgb-noisy", size | relief | cells | poor | rgb),
        ("deep-relief", size | deep | relief | leaves | fair),
        ("deep-layers", size | deep | layers | leaves | fair),
        ("brightfield-cells", size | bright | layers | cells | fair),
        ("brightfield-rgb", size | bright | tilt | cells | good | rgb),
        ("brightfield-fibres", size | bright | relief | fibres | poor),
        ("fluorescence-cells", size | glow | relief | cells | poor),
        ("fluorescence-beads", size | glow | layers | beads | fair),
        ("fluorescence-channels", size | glow | tilt | fibres | poor | {"channels": 2}),
        ("fluorescence-deep", size | deep | glow | relief | fibres | poor),
    )


def refractile_scenes() -> tuple[SceneSpec, ...]:
    """Thick cells in brightfield for tables; their seeds are never trained on.

    Refraction makes fringes round them that are the stronger the further out of focus
    they are. In 5, 10 and 24 slices, without noise and with 1000 electrons at white.
    """
    kinds = ((5, 0.9, 0.5), (10, 0.6, 0.3), (24, 0.3, 0.15))
    places = [(*kind, surface) for kind in kinds for surface in ("tilt", "layers")]
    specs = []
    for place, (slices, blur, refraction, surface) in enumerate(places):
        for electrons in (None, 1000.0):
            options = {
                "shape": (224, 224),
                "slices": slices,
                "blur_per_slice": blur,
                "surface": surface,
                "content": "cells",
                "modality": "brightfield",
                "thick": True,
                "refraction": refraction,
                "electrons": electrons,
            }
            light = f"{electrons:.0f} electrons" if electrons else "clean"
            name = f"{surface}, {slices} slices, {light}"
            seed = TRAINING_SEEDS.stop + 4000 + place
            specs.append(SceneSpec(name, seed, tuple(sorted(options.items()))))
    return tuple(specs)
