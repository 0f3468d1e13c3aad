"""Objects drawn for synthetic scenes: textures, leaves, cells, fibres and beads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, ndimage

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

TEXTURES = ("power", "stripes", "speckle", "granular")
OUTLINES = ("ellipse", "box", "blob")


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
    """Random field in [0, 1], float32, smooth over about ``length`` pixels, cyclic."""
    noise = fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    frequency = _frequency(shape)
    noise *= np.exp(-2 * (np.pi * np.float32(length) * frequency) ** 2)
    values = fft.irfft2(noise, s=shape)
    low, high = values.min(), values.max()
    return (values - low) / max(float(high - low), 1e-12)


def _frequency(shape: tuple[int, int]) -> Array:
    y, x = fft.fftfreq(shape[0]), fft.rfftfreq(shape[1])
    return np.hypot(y[:, None], x[None, :]).astype(np.float32)


def texture(rng: np.random.Generator, shape: tuple[int, int], kind: str) -> Array:
    """Random texture, float32 in [0, 1] with mean 0.5 and deviation 0.2 or so.

    ``kind`` is one of ``TEXTURES``: ``"power"`` has an amplitude spectrum of
    ``1 / f^b`` with ``b`` from 0.6 to 1.6 (natural images: 1).
    """
    if kind == "stripes":
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 16)
        bend = smooth_field(rng, shape, 24) * rng.uniform(0, 30)
        y, x = np.ogrid[: shape[0], : shape[1]]
        phase = (np.cos(angle) * y + np.sin(angle) * x + bend) * (2 * np.pi / period)
        return (0.5 + 0.4 * np.sin(phase)).astype(np.float32)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if kind == "speckle":
        values = ndimage.gaussian_filter(noise, rng.uniform(0.5, 1.5))
        values = np.exp(values / values.std())
    elif kind == "granular":
        values = ndimage.gaussian_filter(noise, rng.uniform(1.0, 3.0))
        values = np.maximum(values / values.std() - 0.6, 0)
    else:
        frequency = _frequency(shape)
        frequency[0, 0] = 1
        spectrum = fft.rfft2(noise) * frequency ** np.float32(-rng.uniform(0.6, 1.6))
        values = fft.irfft2(spectrum, s=shape)
    values = (values - values.mean()) / max(float(values.std()), 1e-12)
    return np.clip(0.5 + 0.2 * values, 0, 1).astype(np.float32)


def make_atlas(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    pictures: Sequence[Array] | None = None,
) -> list[Array]:
    """Four textures that the objects of one scene are cut from, float32 in [0, 1].

    With ``pictures`` (grey, 2-D) three of them are crops of those.
    """
    kinds = [*rng.permutation(TEXTURES)[:3], "power"]
    if pictures:
        return [
            *(crop_picture(rng, pictures, canvas) for _ in range(3)),
            texture(rng, canvas, str(kinds[0])),
        ]
    return [texture(rng, canvas, str(kind)) for kind in kinds]


def crop_picture(
    rng: np.random.Generator, pictures: Sequence[Array], canvas: tuple[int, int]
) -> Array:
    """Random crop of a random image, its range stretched, float32 in [0, 1].

    An image smaller than the canvas is continued by its mirror image.
    """
    image = pictures[int(rng.integers(len(pictures)))]
    if image.ndim != 2:
        raise FocusFusionError(
            f"Pictures for scenes must be grey (2-D); one has shape {image.shape}."
        )
    sizes = list(zip(canvas, image.shape, strict=True))
    y, x = (int(rng.integers(0, max(n - need, 0) + 1)) for need, n in sizes)
    crop = image[y : y + canvas[0], x : x + canvas[1]].astype(np.float32)
    missing = [(0, max(need - n, 0)) for need, n in sizes]
    crop = np.pad(crop, missing, mode="symmetric")
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    low, high = np.percentile(crop[::4, ::4], (1, 99))
    return np.clip((crop - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def plane(rng: np.random.Generator, shape: tuple[int, int], rise: float) -> Array:
    """Plane around zero that rises by ``rise`` in all, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    span = abs(np.sin(angle)) + abs(np.cos(angle))
    return ((np.sin(angle) * y + np.cos(angle) * x) * (rise / span)).astype(np.float32)


def outline_distance(
    rng: np.random.Generator, radius: float, outline: str, y: Array, x: Array
) -> Array:
    """About the distance in pixels to a random outline round (0, 0), positive inside.

    ``outline`` is one of ``OUTLINES``.
    """
    angle, aspect = rng.uniform(0, np.pi), np.float32(rng.uniform(0.5, 1))
    u = np.float32(np.cos(angle)) * y + np.float32(np.sin(angle)) * x
    v = np.float32(np.cos(angle)) * x - np.float32(np.sin(angle)) * y
    if outline == "box":
        return np.minimum(0.8 * radius - abs(u), 0.8 * aspect * radius - abs(v))
    if outline == "ellipse":
        return (1 - np.hypot(u, v / aspect) / radius) * (aspect * radius)
    theta = np.arctan2(v, u)
    edge = np.full_like(theta, 0.85 * radius)
    for wave in range(2, 6):
        size, shift = rng.normal(0, 0.12 / wave) * radius, rng.uniform(0, 2 * np.pi)
        edge += np.float32(size) * np.cos(wave * theta + np.float32(shift))
    return edge - np.hypot(u, v)


def box_around(
    centre: Sequence[float], radius: float, canvas: tuple[int, int]
) -> tuple[int, int, Array, Array]:
    """Corner of the box around a centre, cut to the canvas; coordinates relative to it.

    The coordinates broadcast to the box: (h, 1) and (1, w), float32.
    """
    lows = [max(0, int(c - radius - 2)) for c in centre]
    highs = [min(n, int(c + radius + 3)) for c, n in zip(centre, canvas, strict=True)]
    y = np.arange(lows[0], highs[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    x = np.arange(lows[1], highs[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    return lows[0], lows[1], y, x


def draw_path(
    path: Array, width: float | Array, canvas: tuple[int, int]
) -> tuple[int, int, Array, Array]:
    """Draw a line of ``width`` pixels through points (2, n) up to a pixel apart.

    The width may be one number a point. Returns the top left corner, the coverage
    (h, w) of the part on the canvas, at least one pixel large, and for each pixel the
    index of a point close to it.
    """
    half = np.broadcast_to(np.asarray(width) / 2, path[0].shape)
    radius = int(np.ceil(half.max() + 1))
    lows = [int(np.clip(path[i].min() - radius, 0, canvas[i] - 1)) for i in (0, 1)]
    highs = [
        int(np.clip(path[i].max() + radius + 1, lows[i] + 1, canvas[i])) for i in (0, 1)
    ]
    coverage = np.zeros((highs[0] - lows[0], highs[1] - lows[1]), np.float32)
    point = np.zeros(coverage.shape, np.intp)
    offset = np.arange(-radius, radius + 1)
    corner = np.floor(path).astype(np.intp)
    rows = (corner[0][:, None] + offset)[:, :, None]
    columns = (corner[1][:, None] + offset)[:, None, :]
    distance = np.hypot(rows - path[0][:, None, None], columns - path[1][:, None, None])
    ink = np.clip(half[:, None, None] + 0.5 - distance, 0, 1).astype(np.float32)
    rows, columns = np.broadcast_arrays(rows - lows[0], columns - lows[1])
    on = (rows >= 0) & (columns >= 0) & (ink > 0)
    on &= (rows < coverage.shape[0]) & (columns < coverage.shape[1])
    np.maximum.at(coverage, (rows[on], columns[on]), ink[on])
    point[rows[on], columns[on]] = np.nonzero(on)[0]
    return lows[0], lows[1], coverage, point


def random_path(
    rng: np.random.Generator,
    start: Sequence[float],
    angle: float,
    length: float,
    bend: float = 0.12,
) -> Array:
    """A smoothly turning path (2, n) from a start, points 0.7 pixels apart."""
    steps = max(2, int(length / 0.7))
    turn = ndimage.gaussian_filter1d(rng.standard_normal(steps), 20) * bend
    angles = angle + np.cumsum(turn)
    path = np.stack([np.cumsum(np.sin(angles)), np.cumsum(np.cos(angles))]) * 0.7
    return path + np.asarray(start, float)[:, None]


def _random_position(rng: np.random.Generator, canvas: tuple[int, int]) -> list[float]:
    return [float(rng.uniform(0, n)) for n in canvas]


def _textured_shade(
    rng: np.random.Generator,
    atlas: Sequence[Array],
    y: int,
    x: int,
    shape: tuple[int, ...],
) -> Array:
    """Shade of one object: a tone and a crop of a texture, or (one in seven) none."""
    tone = rng.uniform(0.15, 0.9)
    contrast = 0.0 if rng.random() < 0.15 else rng.uniform(0.05, 0.8)
    source = atlas[int(rng.integers(len(atlas)))]
    dy, dx = (int(rng.integers(n)) for n in source.shape)
    rows = np.arange(y + dy, y + dy + shape[0]) % source.shape[0]
    columns = np.arange(x + dx, x + dx + shape[1]) % source.shape[1]
    crop = source[np.ix_(rows, columns)]
    return np.clip(np.float32(tone) + np.float32(contrast) * (crop - 0.5), 0.02, 1)


def draw_leaf(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    """A leaf of the dead leaves model: radii follow the power law ``r^-3``."""
    small, large = 4.0, 0.22 * min(canvas)
    uniform = rng.random()
    radius = (uniform * large**-2.0 + (1 - uniform) * small**-2.0) ** -0.5
    y0, x0, y, x = box_around(_random_position(rng, canvas), radius, canvas)
    outline = OUTLINES[int(rng.integers(len(OUTLINES)))]
    coverage = np.clip(outline_distance(rng, radius, outline, y, x) + 0.5, 0, 1)
    return Sprite(y0, x0, coverage, _textured_shade(rng, atlas, y0, x0, coverage.shape))


def draw_cell(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    """A round cell: bright edge, dark wall, faint grain, darker nucleus off centre."""
    radius = rng.uniform(7, 30)
    y0, x0, y, x = box_around(_random_position(rng, canvas), radius, canvas)
    outline = "blob" if rng.random() < 0.6 else "ellipse"
    distance = outline_distance(rng, radius, outline, y, x)
    source = atlas[int(rng.integers(len(atlas)))]
    grain = source[y0 : y0 + distance.shape[0], x0 : x0 + distance.shape[1]] - 0.5
    body, edge, wall = rng.uniform(0.35, 0.75), rng.uniform(0, 0.4), rng.uniform(0, 0.4)
    shade = body + rng.uniform(0.02, 0.3) * grain
    shade += edge * np.exp(-(((distance - 0.8) / 1.2) ** 2))
    shade -= wall * np.exp(-(((distance - 3.2) / 1.4) ** 2))
    offset = rng.uniform(-0.25, 0.25, 2) * radius
    size = rng.uniform(0.3, 0.5) * radius
    nucleus = np.clip(size + 0.5 - np.hypot(y - offset[0], x - offset[1]), 0, 1)
    shade -= nucleus * (rng.uniform(0.1, 0.35) + 0.3 * grain)
    return Sprite(
        y0,
        x0,
        np.clip(distance + 0.5, 0, 1).astype(np.float32),
        np.clip(shade, 0.02, 1).astype(np.float32),
    )


def draw_bead(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    """A bead of 1 to 6 pixels radius with a brighter or darker middle."""
    radius = np.float32(rng.uniform(1.0, 6.0))
    y0, x0, y, x = box_around(_random_position(rng, canvas), float(radius), canvas)
    distance = np.hypot(y, x)
    tone, shine = np.float32(rng.uniform(0.1, 0.95)), np.float32(rng.uniform(-0.4, 0.4))
    shade = np.clip(tone + shine * np.exp(-((2 * distance / radius) ** 2)), 0.02, 1)
    return Sprite(y0, x0, np.clip(radius + 0.5 - distance, 0, 1), shade)


def draw_fibre(
    rng: np.random.Generator, canvas: tuple[int, int], atlas: Sequence[Array]
) -> Sprite:
    """A curved fibre, 1 to 4 pixels wide, up to 1.5 times as long as the image."""
    width, length = rng.uniform(1.0, 4.0), rng.uniform(0.3, 1.5) * max(canvas)
    angle = rng.uniform(0, 2 * np.pi)
    # Start half a length behind a random point, for an even density over the canvas.
    middle = _random_position(rng, canvas)
    start = [
        middle[0] - length / 3 * np.sin(angle),
        middle[1] - length / 3 * np.cos(angle),
    ]
    path = random_path(rng, start, angle, length)
    y0, x0, coverage, _ = draw_path(path, width, canvas)
    return Sprite(y0, x0, coverage, _textured_shade(rng, atlas, y0, x0, coverage.shape))


_DRAW = {
    "leaves": draw_leaf,
    "cells": draw_cell,
    "fibres": draw_fibre,
    "beads": draw_bead,
}
# Objects per 256 x 256 pixels that fill an image.
_OBJECTS = {"leaves": 220, "cells": 40, "fibres": 34, "beads": 180}


def draw_objects(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    content: str,
    atlas: Sequence[Array],
    fill: float,
) -> list[Sprite]:
    """Objects of one kind all over the canvas; ``fill`` of 1 fills it."""
    count = _OBJECTS[content] * canvas[0] * canvas[1] / 256**2 * fill
    if content == "fibres":  # their length grows with the image
        count *= 256 / max(canvas)
    return [_DRAW[content](rng, canvas, atlas) for _ in range(max(1, round(count)))]


def paint(
    rng: np.random.Generator, base: Array, sprites: Sequence[Sprite]
) -> tuple[Array, Array]:
    """Draw opaque sprites over base (components, h, w), each in a tint of its own.

    Returns the colour (components, h, w) and the coverage (h, w) by the sprites.
    """
    colour, coverage = base.copy(), np.zeros(base.shape[1:], np.float32)
    for sprite in sprites:
        a = sprite.coverage
        crop = colour[:, *sprite.box]
        crop += a * (sprite.shade * tint(rng, len(base)) - crop)
        covered = coverage[sprite.box]
        covered += a * (1 - covered)
    return colour, coverage


def tint(rng: np.random.Generator, components: int) -> Array:
    """Random colour (components, 1, 1); one component has none."""
    if components == 1:
        return np.ones((1, 1, 1), np.float32)
    return rng.uniform(0.45, 1, (components, 1, 1)).astype(np.float32)
