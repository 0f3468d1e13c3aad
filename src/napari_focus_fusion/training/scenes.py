"""Focus stacks with exact truth: synthetic scenes seen through a depth-dependent blur.

A scene is matter at known depths. The depth ``d`` of a point is the (fractional) slice
index at which it is sharp; slice ``z`` sees it through a point spread function of size

    b(z, d) = min(s * |z - d| + s0, b_max)      [pixels]

which is the radius of a uniform disk (geometrical optics) or the standard deviation of
a Gaussian, both integrated over the pixel, so that ``b = 0`` is the identity. Depths
are split between the two nearest of ``1/2 .. 1/4`` slice wide levels with linear
weights ``w_l``, which sum to one at every pixel, so there are no seams.

*Opaque matter* (modality ``"grey"``, reflected light) is a list of layers from back to
front with colour ``c`` and coverage ``a``. With ``B_l`` the blur of level ``l``,

    A = sum_l B_l[w_l a] / sum_l B_l[w_l],   P = sum_l B_l[w_l a c] / sum_l B_l[w_l],
    I <- I * (1 - A) + P,

so a layer out of focus is transparent at its edge and shows what lies behind it.

*Transparent matter* adds up along the light path and has no order. In fluorescence
``I = background + sum_l B_l[e_l]`` for emission ``e_l``: haze from other depths never
goes away. In brightfield the absorbances add (Beer-Lambert with stain vectors ``D``),
and the phase ``phi`` of refractile matter bends light as in the transport of intensity,
bright on one side of focus and dark on the other, invisible in focus:

    I = exp(-D . sum_l B_l[a_l]) * (1 + k * sum_l (z - l) B_l[laplacian phi_l]).

The truth is the same scene with ``z = d`` everywhere: the all-in-focus image under the
in-focus blur ``s0``, before any noise. Illumination (vignetting, shading) is the same
in every slice and in the truth. The camera then counts electrons: with ``E`` electrons
at white (value 1), read noise of ``r`` electrons and offset ``o``,

    value = full_scale * (o + (1 - o) * (Poisson(I * E) + Normal(0, r)) / E),

rounded and clipped for the integer types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import fft, ndimage, special

from napari_focus_fusion.errors import FocusFusionError

CONTENTS = ("leaves", "cells", "fibres", "beads", "texture")
SURFACES = ("flat", "tilt", "relief", "steep", "steps", "layers")
PSFS = ("disk", "gaussian")
MODALITIES = ("grey", "brightfield", "fluorescence")

TRAINING_SEEDS = range(1_000_000)
"""Seeds that training may draw from; scenes for evaluation lie above."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Scene:
    """A focus stack and everything that is true of it.

    Attributes
    ----------
    stack : ndarray
        (Z, Y, X), (Z, Y, X, S) or (C, Z, Y, X), uint8, uint16 or float32 (full scale 1).
    axes : str
        ``"ZYX"``, ``"ZYXS"`` or ``"CZYX"``.
    truth : ndarray
        float32, ``axes`` without Z: the all-in-focus image, free of noise, on the scale
        of ``stack`` (not rounded).
    depth : ndarray
        float32 (Y, X), in slices: the fractional slice index at which the frontmost
        (opaque) or strongest (transparent) matter of the pixel is sharp.
    edges : ndarray
        bool (Y, X): the band round occlusions and jumps of depth.
    textured : ndarray
        bool (Y, X): the truth has local contrast above the noise, so that focus can be
        told from the pixel's surroundings.
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


@dataclass(frozen=True)
class Optics:
    """Depth-dependent blur on a canvas: the transfer function per depth difference."""

    canvas: tuple[int, int]
    slices: int
    psf: str
    blur_per_slice: float
    focus_blur: float
    max_blur: float
    levels_per_slice: int
    _table: dict[int, Array] = field(default_factory=dict)

    def transfer(self, steps: int) -> Array:
        """Real transfer function at ``steps`` levels of defocus, (h, w // 2 + 1)."""
        steps = abs(steps)
        if steps not in self._table:
            blur = self.blur_per_slice * steps / self.levels_per_slice
            blur = min(blur + self.focus_blur, self.max_blur)
            make = _disk_transfer if self.psf == "disk" else _gaussian_transfer
            self._table[steps] = make(self.canvas, blur)
        return self._table[steps]


def _disk_transfer(canvas: tuple[int, int], radius: float) -> Array:
    y, x = (fft.fftfreq(n, 1 / n).astype(np.float32) for n in canvas)
    kernel = np.clip(radius + 0.5 - np.hypot(y[:, None], x[None, :]), 0, 1)
    return fft.rfft2(kernel / kernel.sum()).real


def _gaussian_transfer(canvas: tuple[int, int], sigma: float) -> Array:
    rows, columns = (_gaussian_line(n, sigma) for n in canvas)
    return fft.fft(rows).real[:, None] * fft.rfft(columns).real[None, :]


def _gaussian_line(n: int, sigma: float) -> Array:
    position = fft.fftfreq(n, 1 / n)
    sigma = max(sigma, 1e-3)
    kernel = special.ndtr((position + 0.5) / sigma)
    kernel -= special.ndtr((position - 0.5) / sigma)
    return (kernel / kernel.sum()).astype(np.float32)


def _split(depth: Array, optics: Optics) -> list[tuple[int, Array]]:
    """Levels that occur in ``depth`` and their linear weights (sum one per pixel)."""
    position = np.asarray(depth, np.float32) * optics.levels_per_slice
    lowest, highest = int(np.floor(position.min())), int(np.ceil(position.max()))
    levels = []
    for level in range(lowest, highest + 1):
        weight = np.maximum(1 - np.abs(position - level), 0)
        if weight.any():
            levels.append((level, weight))
    return levels


def _see(
    planes: Sequence[tuple[int, Array]], optics: Optics, phase: bool = False
) -> Array:
    """Blur (components, h, w) planes of matter and add them up, for each slice.

    Returns (slices + 1, components, h, w); the last entry has everything in focus. With
    ``phase`` the last component is a phase, seen as the defocus times its Laplacian.
    """
    components = len(planes[0][1])
    h, w = optics.canvas
    seen = np.zeros((optics.slices + 1, components, h, w // 2 + 1), np.complex64)
    absorbing = components - 1 if phase else components
    curvature = _laplacian_transfer(optics.canvas) if phase else np.float32(0)
    for level, plane in planes:
        spectrum = fft.rfft2(plane.astype(np.float32, copy=False))
        for z in range(optics.slices):
            steps = z * optics.levels_per_slice - level
            transfer = optics.transfer(steps)
            seen[z, :absorbing] += spectrum[:absorbing] * transfer
            if phase:
                defocus = np.float32(steps / optics.levels_per_slice)
                seen[z, -1] += spectrum[-1] * (transfer * curvature * defocus)
        seen[-1, :absorbing] += spectrum[:absorbing] * optics.transfer(0)
    return fft.irfft2(seen, s=optics.canvas, overwrite_x=True)


def _laplacian_transfer(canvas: tuple[int, int]) -> Array:
    y = fft.fftfreq(canvas[0]).astype(np.float32)
    x = fft.rfftfreq(canvas[1]).astype(np.float32)
    return -((2 * np.pi) ** 2) * (y[:, None] ** 2 + x[None, :] ** 2)


@dataclass(frozen=True)
class Layer:
    """Opaque matter: colour (C, h, w), coverage (h, w) or None for all, depth (h, w)."""

    colour: Array
    coverage: Array | None
    depth: Array


def render_opaque(layers: Sequence[Layer], optics: Optics) -> tuple[Array, Array]:
    """See layers, back to front: images (slices + 1, C, h, w) and depth (h, w)."""
    image: Array | None = None
    depth = layers[0].depth
    for layer in layers:
        one = np.ones(optics.canvas, np.float32)
        coverage = one if layer.coverage is None else layer.coverage
        matter = np.concatenate([layer.colour * coverage, coverage[None], one[None]])
        seen = _see([(n, matter * w) for n, w in _split(layer.depth, optics)], optics)
        seen = seen[:, :-1] / np.maximum(seen[:, -1:], 1e-4)
        if image is None:
            image = seen[:, :-1]
            continue
        opaque = np.clip(seen[:, -1:], 0, 1)
        image = image * (1 - opaque) + seen[:, :-1]
        depth = np.where(opaque[-1, 0] > 0.5, layer.depth, depth)
    assert image is not None
    return image, depth


@dataclass(frozen=True)
class Sprite:
    """One drawn object: top left corner, coverage and shade in [0, 1], both (h, w)."""

    y: int
    x: int
    coverage: Array
    shade: Array

    @property
    def box(self) -> tuple[slice, slice]:
        """Where on the canvas the sprite lies."""
        h, w = self.coverage.shape
        return slice(self.y, self.y + h), slice(self.x, self.x + w)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], length: float
) -> Array:
    """Random field in [0, 1], float32, smooth over about ``length`` pixels."""
    noise = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    y, x = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    squared = (y[:, None] ** 2 + x[None, :] ** 2).astype(np.float32)
    values = fft.irfft2(noise * np.exp(-2 * (np.pi * length) ** 2 * squared), s=shape)
    return _stretch(values)


def _stretch(values: Array) -> Array:
    low, high = values.min(), values.max()
    return ((values - low) / max(high - low, 1e-12)).astype(np.float32)


def texture(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> Array:
    """Random texture, float32 in [0, 1] around 0.5.

    ``kind``: ``"power"`` (spectrum 1/f^b), ``"stripes"``, ``"speckle"``, ``"granular"``.
    """
    if kind == "stripes":
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 16)
        bend = smooth_field(rng, shape, 24) * rng.uniform(0, 30)
        y, x = np.ogrid[: shape[0], : shape[1]]
        phase = (np.cos(angle) * y + np.sin(angle) * x + bend) * (2 * np.pi / period)
        return (0.5 + 0.5 * np.sin(phase)).astype(np.float32)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if kind == "speckle":
        values = np.exp(ndimage.gaussian_filter(noise, rng.uniform(0.5, 1.5)) * 1.5)
    elif kind == "granular":
        size = rng.uniform(1.0, 3.0)
        values = ndimage.gaussian_filter(noise, size)
        values = np.maximum(values / values.std() - 0.6, 0)
    else:
        y, x = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
        frequency = np.hypot(y[:, None], x[None, :]).astype(np.float32)
        frequency[0, 0] = 1
        spectrum = fft.rfft2(noise) * frequency ** np.float32(-rng.uniform(0.6, 1.6))
        values = fft.irfft2(spectrum, s=shape)
    values = (values - values.mean()) / max(float(values.std()), 1e-12)
    return np.clip(0.5 + 0.2 * values, 0, 1).astype(np.float32)


def _atlas(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    pictures: Sequence[Array] | None,
) -> list[Array]:
    """Textures the objects of one scene are cut from."""
    kinds = rng.permutation(["power", "stripes", "speckle", "granular"])[:3]
    made = [texture(rng, canvas, str(kind)) for kind in (*kinds, "power")]
    if not pictures:
        return made
    return [_cut(rng, pictures, canvas) for _ in range(3)] + made[:1]


def _cut(
    rng: np.random.Generator, pictures: Sequence[Array], canvas: tuple[int, int]
) -> Array:
    picture = pictures[int(rng.integers(len(pictures)))]
    if picture.ndim != 2:
        raise FocusFusionError(
            f"Pictures for scenes must be grey (2-D); one has shape {picture.shape}."
        )
    missing = [max(0, n - m) for n, m in zip(canvas, picture.shape, strict=True)]
    y, x = (
        int(rng.integers(0, max(m - n, 0) + 1))
        for n, m in zip(canvas, picture.shape, strict=True)
    )
    part = picture[y : y + canvas[0], x : x + canvas[1]].astype(np.float32)
    part = np.pad(part, [(0, n) for n in missing], mode="symmetric")
    if rng.random() < 0.5:
        part = part[:, ::-1]
    low, high = np.percentile(part[::4, ::4], (1, 99))
    return np.clip((part - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _inside(
    rng: np.random.Generator, radius: float, kind: str, y: Array, x: Array
) -> Array:
    """Distance to the outline of a random shape, positive inside, in pixels."""
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.5, 1)
    u = np.cos(angle) * y + np.sin(angle) * x
    v = np.cos(angle) * x - np.sin(angle) * y
    if kind == "box":
        return np.minimum(0.8 * radius - abs(u), 0.8 * aspect * radius - abs(v))
    if kind == "ellipse":
        return (1 - np.hypot(u, v / aspect) / radius) * (aspect * radius)
    theta = np.arctan2(v, u)
    outline = np.full_like(theta, 0.85 * radius)
    for wave in range(2, 6):
        size, shift = rng.normal(0, 0.12 / wave) * radius, rng.uniform(0, 2 * np.pi)
        outline += np.float32(size) * np.cos(wave * theta + np.float32(shift))
    return outline - np.hypot(u, v)


def _place(
    rng: np.random.Generator, canvas: tuple[int, int], radius: float
) -> tuple[int, int, Array, Array]:
    """Box round a random centre, cut to the canvas, and coordinates from the centre."""
    centre = [rng.uniform(0, n) for n in canvas]
    reach = radius + 2
    lows = [max(0, int(c - reach)) for c in centre]
    highs = [min(n, int(c + reach) + 1) for c, n in zip(centre, canvas, strict=True)]
    y = np.arange(lows[0], highs[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(lows[1], highs[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    return lows[0], lows[1], y, x


def _skin(rng: np.random.Generator, atlas: Sequence[Array], y: int, x: int) -> Any:
    """A function shape -> shade: a base tone and a piece of texture, or none."""
    base = rng.uniform(0.15, 0.9)
    contrast = 0.0 if rng.random() < 0.15 else rng.uniform(0.05, 0.7)
    source = atlas[int(rng.integers(len(atlas)))]
    dy, dx = (int(rng.integers(n)) for n in source.shape)

    def shade(shape: tuple[int, int]) -> Array:
        rows = np.arange(y + dy, y + dy + shape[0]) % source.shape[0]
        columns = np.arange(x + dx, x + dx + shape[1]) % source.shape[1]
        piece = source[np.ix_(rows, columns)]
        return np.clip(base + contrast * (piece - 0.5), 0.02, 1)

    return shade


def _leaf(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    # Areas follow a power law: p(r) ~ r^-3, as in the dead leaves model.
    small, large = 4.0, 0.22 * min(canvas)
    uniform = rng.random()
    radius = (uniform * large**-2.0 + (1 - uniform) * small**-2.0) ** -0.5
    y0, x0, y, x = _place(rng, canvas, radius)
    kind = ("ellipse", "box", "blob")[int(rng.integers(3))]
    inside = _inside(rng, radius, kind, y, x)
    return Sprite(
        y0,
        x0,
        np.clip(inside + 0.5, 0, 1),
        _skin(rng, atlas, y0, x0)(inside.shape),
    )


def _cell(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    radius = rng.uniform(7, 30)
    y0, x0, y, x = _place(rng, canvas, radius)
    inside = _inside(rng, radius, "blob" if rng.random() < 0.6 else "ellipse", y, x)
    source = atlas[int(rng.integers(len(atlas)))]
    grain = source[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] - 0.5
    body, rim, wall = rng.uniform(0.35, 0.75), rng.uniform(0, 0.4), rng.uniform(0, 0.4)
    shade = body + rng.uniform(0.02, 0.3) * grain
    shade += rim * np.exp(-(((inside - 0.8) / 1.2) ** 2))
    shade -= wall * np.exp(-(((inside - 3.2) / 1.4) ** 2))
    away = rng.uniform(-0.25, 0.25, 2) * radius
    size = rng.uniform(0.3, 0.5) * radius
    nucleus = np.clip(size + 0.5 - np.hypot(y - away[0], x - away[1]), 0, 1)
    shade -= nucleus * (rng.uniform(0.1, 0.35) + 0.3 * grain)
    return Sprite(
        y0,
        x0,
        np.clip(inside + 0.5, 0, 1).astype(np.float32),
        np.clip(shade, 0.02, 1).astype(np.float32),
    )


def _bead(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    radius = rng.uniform(1.0, 6.0)
    y0, x0, y, x = _place(rng, canvas, radius)
    distance = np.hypot(y, x)
    shine = rng.uniform(-0.4, 0.4) * np.exp(-((2 * distance / radius) ** 2))
    shade = np.clip(rng.uniform(0.1, 0.95) + shine, 0.02, 1)
    return Sprite(y0, x0, np.clip(radius + 0.5 - distance, 0, 1), shade)


def _fibre(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    width, length = rng.uniform(1.0, 4.0), rng.uniform(0.3, 1.5) * max(canvas)
    steps = int(length / 0.7)
    turn = ndimage.gaussian_filter1d(rng.standard_normal(steps), 20) * 0.12
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(turn)
    path = np.stack([np.cumsum(np.sin(angle)), np.cumsum(np.cos(angle))]) * 0.7
    path += np.array([rng.uniform(0, n) for n in canvas])[:, None]
    path -= path.mean(axis=1, keepdims=True) * rng.uniform(0, 0.3)
    y0, x0, coverage = draw_path(path, width, canvas)
    shade = _skin(rng, atlas, y0, x0)(coverage.shape)
    return Sprite(y0, x0, coverage, shade)


def draw_path(
    path: Array, width: float, canvas: tuple[int, int]
) -> tuple[int, int, Array]:
    """Draw a line of ``width`` pixels through densely spaced points (2, n).

    Returns the top left corner and the coverage of the part on the canvas, at least
    one pixel large.
    """
    reach = int(np.ceil(width / 2 + 1))
    lows = [int(np.clip(path[i].min() - reach, 0, canvas[i] - 1)) for i in (0, 1)]
    highs = [
        int(np.clip(path[i].max() + reach + 1, lows[i] + 1, canvas[i])) for i in (0, 1)
    ]
    coverage = np.zeros((highs[0] - lows[0], highs[1] - lows[1]), np.float32)
    offset = np.arange(-reach, reach + 1)
    corner = np.floor(path).astype(np.int64)
    rows = (corner[0][:, None] + offset)[:, :, None]
    columns = (corner[1][:, None] + offset)[:, None, :]
    distance = np.hypot(rows - path[0][:, None, None], columns - path[1][:, None, None])
    ink = np.clip(width / 2 + 0.5 - distance, 0, 1).astype(np.float32)
    rows, columns = np.broadcast_arrays(rows - lows[0], columns - lows[1])
    on = (rows >= 0) & (columns >= 0) & (ink > 0)
    on &= (rows < coverage.shape[0]) & (columns < coverage.shape[1])
    np.maximum.at(coverage, (rows[on], columns[on]), ink[on])
    return lows[0], lows[1], coverage


_DRAW = {"leaves": _leaf, "cells": _cell, "fibres": _fibre, "beads": _bead}
# Objects per 256 x 256 pixels that fill a picture (the typical areas differ).
_CROWD = {"leaves": 220, "cells": 40, "fibres": 22, "beads": 140}


def _sprites(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    content: str,
    atlas: Sequence[Array],
    fill: float,
) -> list[Sprite]:
    if content == "texture":
        return []
    crowd = _CROWD[content] * canvas[0] * canvas[1] / 256**2 * fill
    if content == "fibres":  # their length grows with the picture
        crowd *= 256 / max(canvas)
    return [_DRAW[content](rng, canvas, atlas) for _ in range(max(1, round(crowd)))]


def _tint(rng: np.random.Generator, components: int) -> Array:
    if components == 1:
        return np.ones((1, 1, 1), np.float32)
    return rng.uniform(0.35, 1, (components, 1, 1)).astype(np.float32)


def _paint(
    rng: np.random.Generator, base: Array, sprites: Sequence[Sprite]
) -> tuple[Array, Array]:
    """Draw sprites over base (C, h, w): colour, and coverage (h, w) of the sprites."""
    colour, coverage = base.copy(), np.zeros(base.shape[1:], np.float32)
    for sprite in sprites:
        a = sprite.coverage
        part = colour[:, *sprite.box]
        part += a * (sprite.shade * _tint(rng, len(base)) - part)
        covered = coverage[sprite.box]
        covered += a * (1 - covered)
    return colour, coverage


def _base(rng: np.random.Generator, atlas: Sequence[Array], components: int) -> Array:
    """Background (C, h, w): a texture whose contrast fades to nothing in places."""
    h, w = atlas[0].shape
    contrast = np.float32(rng.uniform(0.1, 0.9))
    if rng.random() < 0.5:
        fade = smooth_field(rng, (h, w), min(h, w) / 8)
        contrast = contrast * np.clip(3 * fade - 1, 0, 1)
    tone = rng.uniform(0.3, 0.8)
    source = atlas[int(rng.integers(len(atlas)))]
    shade = np.clip(tone + contrast * (source - 0.5), 0.02, 1).astype(np.float32)
    return shade[None] * _tint(rng, components)


def _plane(rng: np.random.Generator, canvas: tuple[int, int], rise: float) -> Array:
    """Tilted plane around zero that rises by ``rise`` across the canvas."""
    angle = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-0.5, 0.5, canvas[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, canvas[1], dtype=np.float32)[None, :]
    span = abs(np.sin(angle)) + abs(np.cos(angle))
    return ((np.sin(angle) * y + np.cos(angle) * x) * (rise / span)).astype(np.float32)


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
        return (low + high) / 2 + _plane(rng, canvas, high - low)
    size = min(canvas)
    length = size / (rng.uniform(4, 8) if surface == "relief" else rng.uniform(10, 24))
    return low + (high - low) * smooth_field(rng, canvas, length)


def _terraces(
    rng: np.random.Generator,
    colour: Array,
    depths: Array,
) -> list[Layer]:
    """Steps of a staircase, back to front: nested regions at rising depths."""
    canvas = colour.shape[1:]
    if rng.random() < 0.5:
        ground = _plane(rng, canvas, 1.0) + 0.5
    else:
        ground = smooth_field(rng, canvas, min(canvas) / rng.uniform(5, 10))
    slope = np.hypot(*np.gradient(ground)) + 1e-6
    cuts = np.quantile(ground[::4, ::4], np.linspace(0, 1, len(depths) + 1)[1:-1])
    layers = [Layer(colour, None, np.full(canvas, depths[0], np.float32))]
    for depth, cut in zip(depths[1:], cuts, strict=True):
        region = np.clip((ground - cut) / slope + 0.5, 0, 1).astype(np.float32)
        layers.append(Layer(colour, region, np.full(canvas, depth, np.float32)))
    return layers


def _opaque_layers(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    components: int,
    atlas: Sequence[Array],
    options: Mapping[str, Any],
) -> list[Layer]:
    slices, content, surface = (options[k] for k in ("slices", "content", "surface"))
    low, high = options["span"]
    sprites = _sprites(rng, canvas, content, atlas, rng.uniform(0.3, 1))
    base = _base(rng, atlas, components)
    if surface not in ("steps", "layers"):
        colour, _ = _paint(rng, base, sprites)
        layers = [Layer(colour, None, _relief(rng, canvas, surface, (low, high)))]
    else:
        count = int(rng.integers(2, 6))
        depths = np.sort(rng.uniform(low, high, count))
        if slices <= 3 or rng.random() < 0.3:
            depths = np.sort(rng.integers(0, slices, count).astype(float))
        if depths[0] == depths[-1]:
            depths = np.linspace(low, high, count)
        if surface == "steps":
            colour, _ = _paint(rng, base, sprites)
            layers = _terraces(rng, colour, depths)
        else:
            kind = ("flat", "tilt", "relief")[int(rng.integers(3))]
            floor = (low, max(low, float(depths[0])) + 0.1)
            painted, _ = _paint(rng, base, sprites if rng.random() < 0.5 else [])
            layers = [Layer(painted, None, _relief(rng, canvas, kind, floor))]
            cover = rng.uniform(0.3, 0.9) / (count - 1)
            drawn = "leaves" if content == "texture" else content
            for depth in depths[1:]:
                sprites = _sprites(rng, canvas, drawn, atlas, 0.6 * cover)
                empty = np.full((components, *canvas), 0.5, np.float32)
                colour, coverage = _paint(rng, empty, sprites)
                tilt = rng.uniform(0, 1.5) if rng.random() < 0.5 else 0.0
                place = np.float32(depth) + _plane(rng, canvas, tilt)
                layers.append(Layer(colour, coverage, place))
    if options["front"] == "first":
        layers = [Layer(a.colour, a.coverage, slices - 1 - a.depth) for a in layers]
    return layers


def _transparent_matter(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    components: int,
    atlas: Sequence[Array],
    options: Mapping[str, Any],
    optics: Optics,
) -> tuple[list[tuple[int, Array]], Array, Array]:
    """Planes of matter (components, h, w) per level, depth and amount (h, w)."""
    span, surface, content = (options[k] for k in ("span", "surface", "content"))
    drawn = "cells" if content == "texture" else content
    sprites = _sprites(rng, canvas, drawn, atlas, rng.uniform(0.4, 1))
    if rng.random() < 0.3:
        sprites += _sprites(rng, canvas, "beads", atlas, rng.uniform(0.1, 0.5))
    ground = None
    if surface not in ("steps", "layers"):
        ground = _relief(rng, canvas, surface, span)
    steps = np.sort(rng.uniform(*span, int(rng.integers(2, 6))))
    levels: dict[int, Array] = {}
    strongest = np.zeros(canvas, np.float32)
    depth = np.full(canvas, np.nan, np.float32)
    dark = options["modality"] == "brightfield"
    for sprite in sprites:
        box = sprite.box
        if ground is not None:
            place = ground[box]
        else:
            at = rng.choice(steps) if surface == "steps" else rng.uniform(*span)
            tilt = rng.uniform(-1, 1) if surface == "layers" else 0.0
            place = np.float32(at) + _plane(rng, sprite.shade.shape, tilt)
        amount = sprite.coverage * (1.05 - sprite.shade if dark else sprite.shade)
        amount *= np.float32(rng.uniform(0.3, 1))
        which = int(rng.integers(components))
        for level, weight in _split(place, optics):
            plane = levels.setdefault(
                level, np.zeros((components + dark, *canvas), np.float32)
            )
            plane[which][box] += weight * amount
            if dark:
                plane[-1][box] += weight * sprite.coverage
        wins = amount > np.maximum(strongest[box], 1e-3)
        depth[box] = np.where(wins, place, depth[box])
        strongest[box] = np.maximum(strongest[box], amount)
    empty = np.isnan(depth)
    if empty.any():
        nearest = ndimage.distance_transform_edt(
            empty, return_distances=False, return_indices=True
        )
        depth = depth[tuple(nearest)]
    return sorted(levels.items()), depth, strongest


# Optical densities per stain in red, green and blue (Ruifrok and Johnston 2001 for the
# first two; the others are typical dyes): haematoxylin, eosin, safranin, fast green,
# methylene blue, iodine.
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


def _transparent_image(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    components: int,
    atlas: Sequence[Array],
    options: Mapping[str, Any],
    optics: Optics,
) -> tuple[Array, Array, Array]:
    bright = options["modality"] == "brightfield"
    matter = 2 if bright and components > 1 else components
    planes, depth, amount = _transparent_matter(
        rng, canvas, matter, atlas, options, optics
    )
    seen = _see(planes, optics, phase=bright)
    if not bright:
        peak = np.quantile(seen[-1, :, ::2, ::2], 0.999, axis=(1, 2))[:, None, None]
        background = np.float32(rng.uniform(0.01, 0.1))
        image = background + (1 - background) * np.maximum(seen, 0) / (peak + 1e-6)
        return image, depth, amount
    density = np.ones((components, matter), np.float32)
    if components == 3:
        density = STAINS[rng.choice(len(STAINS), 2, replace=False)].T
    elif components > 1:
        density = rng.uniform(0.2, 1, (components, matter)).astype(np.float32)
    strength = np.float32(rng.uniform(0.6, 2.0))
    absorbance = strength * np.einsum("ck,zkyx->zcyx", density, seen[:, :-1])
    refracted = np.clip(1 - options["refraction"] * seen[:, -1:], 0.3, 1.7)
    return np.exp(-np.maximum(absorbance, 0)) * refracted, depth, amount


def _illumination(
    rng: np.random.Generator, canvas: tuple[int, int], vignetting: float, shading: float
) -> Array:
    y = np.linspace(-1, 1, canvas[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, canvas[1], dtype=np.float32)[None, :]
    centre = rng.uniform(-0.2, 0.2, 2)
    radius = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / 2
    return (1 - vignetting * np.minimum(radius, 1)) * (
        1 + _plane(rng, canvas, shading) - shading / 2
    )


def expose(
    image: Array,
    rng: np.random.Generator,
    *,
    electrons: float | None,
    read_noise: float = 0.0,
    offset: float = 0.0,
    dtype: DTypeLike = np.uint16,
) -> Array:
    """What a camera makes of an image, by the noise model at the top of this module.

    Parameters
    ----------
    image : ndarray
        Any shape, 0 = dark, 1 = white.
    rng : numpy.random.Generator
        Where the noise comes from.
    electrons : float or None
        Electrons counted at white; None for a camera without noise.
    read_noise : float
        Standard deviation in electrons.
    offset : float
        Black level as a share of the full scale.
    dtype : dtype
        uint8, uint16 (rounded and clipped) or float32 (neither; full scale 1).
    """
    dtype = np.dtype(dtype)
    if electrons is not None:
        counted = rng.poisson(np.maximum(image, 0) * electrons).astype(np.float32)
        if read_noise:
            counted += np.float32(read_noise) * rng.standard_normal(
                counted.shape, dtype=np.float32
            )
        image = counted / np.float32(electrons)
    value = np.float32(offset) + np.float32(1 - offset) * image
    if dtype == np.float32:
        return value.astype(np.float32)
    full = np.iinfo(dtype).max
    return np.rint(np.clip(value, 0, 1) * full).astype(dtype)


def _depth_edges(depth: Array, jump: float = 0.5, band: int = 4) -> Array:
    """Pixels within ``band`` of a jump of more than ``jump`` slices between pixels."""
    steep = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        far = np.abs(np.diff(depth, axis=axis)) > jump
        before = (
            (slice(None, -1), slice(None))
            if axis == 0
            else (slice(None), slice(None, -1))
        )
        after = (
            (slice(1, None), slice(None))
            if axis == 0
            else (slice(None), slice(1, None))
        )
        steep[before] |= far
        steep[after] |= far
    return ndimage.maximum_filter(steep, size=2 * band + 1)


def _choose(name: str, given: str, drawn: str, known: Sequence[str]) -> str:
    if given == "mixed":
        return drawn
    if given not in known:
        raise FocusFusionError(
            f"{given!r} is not a known {name}; choose from {', '.join(known)} or mixed."
        )
    return given


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
    refraction: float | None = None,
    vignetting: float | None = None,
    shading: float | None = None,
    exposure: float | None = None,
    dtype: DTypeLike = np.uint16,
    pictures: Sequence[Array] | None = None,
) -> Scene:
    """Draw a scene from a seed and look at it slice by slice.

    What is ``"mixed"`` (or None, for numbers) is drawn from the seed; everything else is
    as given. The matter, its options and the noise come from streams of their own, so
    the same seed with another camera shows the same scene.

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
        ``"grey"`` (reflected light), ``"brightfield"``, ``"fluorescence"``, ``"mixed"``.
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
    refraction : float, optional
        ``k`` of the phase contrast in brightfield, 0 to 0.25.
    vignetting, shading : float, optional
        Loss of light towards the corners (0 to 0.3) and across the field (0 to 0.15).
    exposure : float, optional
        White as a share of the full scale, 0.5 to 0.95.
    dtype : dtype
        uint8, uint16 or float32.
    pictures : sequence of ndarray, optional
        Sharp grey pictures (2-D) to take texture from instead of making all of it.

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
    chance, hand, camera = (np.random.default_rng([seed, k]) for k in range(3))

    # Draw everything, needed or not: a fixed option must not change the others.
    def pick(known: Sequence[str]) -> str:
        return known[int(chance.integers(len(known)))]

    def between(given: float | None, low: float, high: float) -> float:
        drawn = float(chance.uniform(low, high))
        return drawn if given is None else float(given)

    content = _choose("content", content, pick(CONTENTS), CONTENTS)
    surface = _choose("surface", surface, pick((*SURFACES[1:], "layers")), SURFACES)
    psf = _choose("psf", psf, pick(PSFS), PSFS)
    modality = _choose("modality", modality, pick(MODALITIES), MODALITIES)
    front = _choose("front", front, pick(("first", "last")), ("first", "last"))
    noisy, level = chance.random() >= 0.1, chance.uniform(np.log(250), np.log(1e5))
    if electrons == "mixed":
        electrons = float(np.exp(level)) if noisy else None
    weak, strong = (0.8, 4.0) if slices <= 3 else (0.4, 2.5)
    drawn_blur = float(np.exp(chance.uniform(np.log(weak), np.log(strong))))
    last = slices - 1
    ends = chance.uniform(-0.1, 0.25, 2) * min(last, 2)
    options: dict[str, Any] = {
        "slices": slices,
        "content": content,
        "surface": surface,
        "psf": psf,
        "modality": modality,
        "front": front,
        "electrons": electrons,
        "blur_per_slice": drawn_blur if blur_per_slice is None else blur_per_slice,
        "span": span or (float(ends[0]), float(last - ends[1])),
        "focus_blur": between(focus_blur, 0, 0.8),
        "max_blur": max_blur,
        "read_noise": between(read_noise, 1, 4),
        "offset": between(offset, 0, 0.03),
        "refraction": between(refraction, 0, 0.25),
        "vignetting": between(vignetting, 0, 0.3),
        "shading": between(shading, 0, 0.15),
        "exposure": between(exposure, 0.5, 0.95),
    }
    pixel, ratio = chance.uniform(0.1, 1.0), chance.uniform(1, 6)

    optics, margin = _optics(shape, options)
    canvas = optics.canvas
    components = 3 if rgb else channels
    atlas = _atlas(hand, canvas, pictures)
    if modality == "grey":
        layers = _opaque_layers(hand, canvas, components, atlas, options)
        image, depth = render_opaque(layers, optics)
    else:
        image, depth, _ = _transparent_image(
            hand, canvas, components, atlas, options, optics
        )
    inner = tuple(slice(margin, margin + n) for n in shape)
    image, depth = image[..., *inner], np.ascontiguousarray(depth[inner])
    light = _illumination(hand, shape, options["vignetting"], options["shading"])
    image = np.clip(image * (light * np.float32(options["exposure"])), 0, 1)

    stack = expose(
        image[:-1],
        camera,
        electrons=electrons,
        read_noise=options["read_noise"],
        offset=options["offset"],
        dtype=dtype,
    )
    noise = 0.0 if electrons is None else electrons**-0.5
    axes, order = "ZYX", (0, 2, 3, 1)
    if channels > 1:
        axes, order = "CZYX", (1, 0, 2, 3)
    elif rgb:
        axes = "ZYXS"
    full = 1.0 if dtype == np.float32 else float(np.iinfo(dtype).max)
    truth = full * (options["offset"] + (1 - options["offset"]) * image[-1])
    if channels == 1:
        stack = stack.transpose(order) if rgb else stack[:, 0]
        truth = np.moveaxis(truth, 0, -1) if rgb else truth[0]
    else:
        stack = stack.transpose(order)
    return Scene(
        stack=np.ascontiguousarray(stack),
        axes=axes,
        truth=np.ascontiguousarray(truth, dtype=np.float32),
        depth=depth,
        edges=_depth_edges(depth),
        textured=_textured(image[-1], noise),
        scale={"Z": float(pixel * ratio), "Y": float(pixel), "X": float(pixel)},
        units=dict.fromkeys("ZYX", "micrometer"),
        channel_names=tuple(f"channel {i + 1}" for i in range(channels))
        if channels > 1
        else (),
        seed=seed,
        parameters=options,
    )


def _optics(shape: tuple[int, int], options: Mapping[str, Any]) -> tuple[Optics, int]:
    """The optics on a canvas that is larger than the scene by the reach of the blur."""
    per_slice, slices = options["blur_per_slice"], options["slices"]
    largest = min(per_slice * slices + options["focus_blur"], options["max_blur"])
    margin = int(np.ceil(largest * (1 if options["psf"] == "disk" else 2))) + 1
    canvas = tuple(fft.next_fast_len(n + 2 * margin, real=True) for n in shape)
    optics = Optics(
        canvas=(canvas[0], canvas[1]),
        slices=slices,
        psf=options["psf"],
        blur_per_slice=per_slice,
        focus_blur=options["focus_blur"],
        max_blur=options["max_blur"],
        levels_per_slice=int(np.clip(np.ceil(per_slice / 0.4), 2, 4)),
    )
    return optics, margin


def _textured(truth: Array, noise: float) -> Array:
    """Where the local contrast of (C, h, w) beats the noise over a 7 x 7 window."""
    grey = truth.mean(axis=0)
    mean = ndimage.uniform_filter(grey, 7)
    variance = ndimage.uniform_filter(grey * grey, 7) - mean * mean
    return variance > np.maximum(1e-4, 0.5 * noise**2 * mean / len(truth))


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


def held_back_scenes() -> tuple[SceneSpec, ...]:
    """Scenes for choosing checkpoints and for tables; their seeds are never trained on.

    They cover 2, 8 and 32 slices; grey, RGB and two channels; reflected light,
    brightfield and fluorescence; gentle and steep surfaces, steps and occlusion; from
    no noise to 250 electrons.
    """
    big, small = {"shape": (384, 384)}, {"shape": (256, 256)}
    deep = {**small, "slices": 32, "blur_per_slice": 0.6, "electrons": 4000.0}
    bright = {**small, "modality": "brightfield"}
    glow = {**small, "modality": "fluorescence"}
    leaves = {"content": "leaves"}
    return _specs(
        ("pair-leaves", {**big, **leaves, "slices": 2, "surface": "layers"}),
        ("pair-noisy", {**big, "slices": 2, "surface": "steps", "electrons": 1000.0}),
        ("relief-clean", {**big, "surface": "relief", "electrons": None}),
        ("relief-noisy", {**big, "surface": "relief", "electrons": 1000.0}),
        ("relief-dark", {**small, "surface": "relief", "electrons": 250.0}),
        ("steep-4000", {**big, "surface": "steep", "electrons": 4000.0}),
        ("tilt-texture", {**small, "surface": "tilt", "content": "texture"}),
        ("steps-cells", {**big, "surface": "steps", "content": "cells"}),
        ("layers-leaves", {**big, **leaves, "surface": "layers", "electrons": 4000.0}),
        ("layers-fibres", {**big, "content": "fibres", "surface": "layers"}),
        (
            "layers-beads-8bit",
            {**small, "content": "beads", "surface": "layers", "dtype": "uint8"},
        ),
        ("rgb-layers", {**small, "rgb": True, "surface": "layers", "dtype": "uint8"}),
        (
            "rgb-noisy",
            {
                **small,
                "rgb": True,
                "surface": "relief",
                "electrons": 1000.0,
                "dtype": "uint8",
            },
        ),
        ("deep-relief", {**deep, "surface": "relief"}),
        ("deep-layers", {**deep, "surface": "layers", "content": "leaves"}),
        ("brightfield-cells", {**bright, "content": "cells", "surface": "layers"}),
        (
            "brightfield-rgb",
            {
                **bright,
                "content": "cells",
                "surface": "tilt",
                "rgb": True,
                "dtype": "uint8",
                "electrons": 10000.0,
            },
        ),
        ("brightfield-fibres", {**bright, "content": "fibres", "surface": "relief"}),
        (
            "fluorescence-cells",
            {**glow, "content": "cells", "surface": "relief", "electrons": 1000.0},
        ),
        (
            "fluorescence-beads",
            {**glow, "content": "beads", "surface": "layers", "electrons": 4000.0},
        ),
        (
            "fluorescence-two",
            {
                **glow,
                "content": "fibres",
                "surface": "tilt",
                "channels": 2,
                "electrons": 1000.0,
            },
        ),
        (
            "fluorescence-deep",
            {
                **glow,
                "content": "fibres",
                "surface": "relief",
                "slices": 32,
                "blur_per_slice": 0.6,
                "electrons": 1000.0,
            },
        ),
    )
