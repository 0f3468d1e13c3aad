"""Cells on a curved sheet in fluorescence, with haze from above and below it.

An epithelium as a microscope sees it: cell outlines or nuclei lie on one curved sheet,
walls lean away below it, and large bodies further off are never in focus. The truth is
the sheet: its matter in focus, and the rest as the slice that is focused on the sheet
shows it. No slice could show more, since haze has no focus in the stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.simulation.drawing import (
    box_around,
    outline_distance,
    smooth_field,
)
from napari_focus_fusion.simulation.optics import (
    Piece,
    composite_layers,
    render_slices,
)
from napari_focus_fusion.simulation.scenes import (
    Scene,
    expose_scene,
    fluorescence_image,
    illumination,
    make_optics,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from napari_focus_fusion.simulation.optics import Optics

    Array = NDArray[Any]

TISSUES = {"membranes": 1, "nuclei": 1, "both": 2}
"""What is stained, and the channels that it takes."""

SHEETS = ("relief", "tilt", "dome", "wave")
"""Forms of the sheet."""

_SPACING = 19.0  # pixels between the middles of neighbouring cells
_WALLS = 4  # sheets that a wall below the surface is drawn in


def make_tissue(
    seed: int,
    *,
    kind: str = "membranes",
    sheet: str = "relief",
    below: float = 0.0,
    shape: tuple[int, int] = (256, 256),
    slices: int = 16,
    blur_per_slice: float = 0.8,
    section: float | None = None,
    haze: float = 0.5,
    background: float = 0.05,
    electrons: float | None = None,
    dtype: DTypeLike = np.uint16,
) -> Scene:
    """Draw stained cells on a curved sheet from a seed, and render them.

    Parameters
    ----------
    seed : int
        Not negative.
    kind : str
        ``"membranes"``, ``"nuclei"``, or ``"both"`` as two channels.
    sheet : str
        Form of the sheet: ``"relief"``, drawn at random, ``"tilt"``, ``"dome"`` or
        ``"wave"``.
    below : float
        Brightness of a second, even layer of cells under the lowest part of the sheet,
        that of the sheet being 1; then the sheet takes the upper two thirds.
    shape : (int, int)
        Height and width in pixels.
    slices : int
        Number of slices.
    blur_per_slice : float
        Growth of the Gaussian blur in pixels a slice.
    section : float, optional
        Slices out of focus at which a confocal microscope still records half of the
        light; None for widefield, which records all of it.
    haze : float
        Brightness of what lies far from the sheet, that of the sheet being 1.
    background : float
        Even light as a share of white.
    electrons : float, optional
        Electrons at white; None for no noise.
    dtype : dtype
        uint8, uint16 or float32.

    Returns
    -------
    Scene
        ``depth`` is that of the sheet at every pixel; there are no ``edges``.

    Raises
    ------
    FocusFusionError
        If there is no such kind of tissue, or form of a sheet.
    """
    if sheet not in SHEETS:
        raise FocusFusionError(
            f"{sheet!r} is not a known sheet; choose from {', '.join(SHEETS)}."
        )
    if kind not in TISSUES:
        raise FocusFusionError(
            f"{kind!r} is not a known tissue; choose from {', '.join(TISSUES)}."
        )
    rng = np.random.default_rng([seed, 0])
    options: dict[str, Any] = {
        "kind": kind,
        "sheet": sheet,
        "below": below,
        "slices": slices,
        "psf": "gaussian",
        "blur_per_slice": blur_per_slice,
        "focus_blur": 0.7,
        "max_blur": 16.0,
        "sectioning": 0.0 if section is None else section**-2,
        "haze": haze,
        "exposure": 0.85,
        "electrons": electrons,
        "read_noise": 2.0,
        "offset": 0.01,
    }
    optics, inner = make_optics(shape, options)
    low, high = 0.06 * (slices - 1), (0.6 if below else 0.94) * (slices - 1)
    field = _form(rng, sheet, optics.canvas, inner)
    surface = np.float32(low) + np.float32(high - low) * field
    middles = _middles(rng, optics.canvas)
    channels = TISSUES[kind]
    stained, rest = [], []
    if kind != "nuclei":
        stained.append(_outlines(rng, middles, surface))
        rest += _walls(rng, middles, surface, slices)
    if kind != "membranes":
        nuclei, bodies = _nuclei(rng, middles, surface, slices, channels - 1)
        stained.append(nuclei)
        rest += bodies
    rest += [
        piece
        for channel in range(channels)
        for piece in _far_bodies(rng, surface, slices, haze, channel)
    ]
    box = _whole(surface)
    if below:
        under = np.full_like(surface, 0.9 * (slices - 1))
        cells = np.float32(below) * _outlines(rng, _middles(rng, optics.canvas), under)
        rest.append(Piece(0, box, cells, under))
    pieces = [Piece(c, box, plane, surface) for c, plane in enumerate(stained)]
    image = _focused_on(surface, pieces, rest, channels, optics)
    light = illumination(rng, shape, 0.15, 0.05)
    return expose_scene(
        fluorescence_image(image, background)[:, :, *inner] * light,
        surface[inner],
        np.zeros(shape, bool),
        np.random.default_rng([seed, 1]),
        rgb=False,
        dtype=dtype,
        scale={"Z": 0.5, "Y": 0.2, "X": 0.2},
        channel_names=("membranes", "nuclei")[:channels],
        seed=seed,
        parameters=options,
    )


def _form(
    rng: np.random.Generator,
    form: str,
    canvas: tuple[int, int],
    inner: tuple[slice, slice],
) -> Array:
    """Depth of a sheet over a canvas, (h, w) from 0 to 1; `inner` is the image."""
    if form == "relief":
        return smooth_field(rng, canvas, min(canvas) / 3)
    # From -1 to 1 over the image, whatever the canvas around it.
    y, x = (
        (np.arange(n) - (s.start + s.stop - 1) / 2) / ((s.stop - s.start) / 2)
        for n, s in zip(canvas, inner, strict=True)
    )
    y, x = np.meshgrid(y, x, indexing="ij")
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    along = np.cos(angle) * y + np.sin(angle) * x
    if form == "tilt":
        field = 0.5 + along / 3
    elif form == "dome":
        field = (y**2 + x**2) / 2
    else:
        field = 0.5 + 0.25 * np.sin(3 * along + phase) + 0.25 * np.cos(3 * y - x)
    return np.asarray(field.clip(0, 1), np.float32)


def _whole(plane: Array) -> tuple[slice, slice]:
    return slice(0, plane.shape[0]), slice(0, plane.shape[1])


def _focused_on(
    sheet: Array,
    stained: list[Piece],
    rest: list[Piece],
    channels: int,
    optics: Optics,
) -> Array:
    """Slices and then the truth, (slices + 1, channels, h, w)."""
    image, far = (
        render_slices(composite_layers(pieces, channels, optics), optics)
        for pieces in (stained, rest)
    )
    image[:-1] += far[:-1]
    place = np.clip(sheet, 0, optics.slices - 1)
    below = np.minimum(np.floor(place).astype(np.intp), max(optics.slices - 2, 0))
    above = np.minimum(below + 1, optics.slices - 1)
    share = place - below
    for plane in range(channels):
        first, second = (
            np.take_along_axis(far[:-1, plane], z[None], axis=0)[0]
            for z in (below, above)
        )
        image[-1, plane] += (1 - share) * first + share * second
    return image


def _middles(rng: np.random.Generator, canvas: tuple[int, int]) -> Array:
    """Middles (n, 2) of the cells that tile a canvas, at about even distances."""
    rows, columns = (np.arange(-1, n / _SPACING + 2) * _SPACING for n in canvas)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    x = x + (np.arange(len(rows)) % 2)[:, None] * (_SPACING / 2)
    places = np.stack([y.ravel(), x.ravel()], axis=1)
    return places + rng.normal(0, 0.2 * _SPACING, places.shape)


def _outlines(rng: np.random.Generator, middles: Array, sheet: Array) -> Array:
    """Brightness (h, w) of the borders between the cells of these middles.

    Some borders are brighter than others, and all are grainy.
    """
    grid = np.argwhere(np.ones(sheet.shape, bool))
    distance, cell = cKDTree(middles).query(grid, k=2)
    away = ((distance[:, 1] - distance[:, 0]) / 2).reshape(sheet.shape)
    first, second = np.sort(cell, axis=1).T
    number = (first * 7919 + second * 104_729) % 1024
    tone = rng.uniform(0.35, 1, 1024)[number].reshape(sheet.shape)
    grain = 0.5 + smooth_field(rng, sheet.shape, 1.5)
    return (tone * grain * np.exp(-((away / 0.9) ** 2))).astype(np.float32)


def _walls(
    rng: np.random.Generator, middles: Array, sheet: Array, slices: int
) -> list[Piece]:
    """Walls that lean away below the sheet, and cytoplasm between them."""
    whole = _whole(sheet)
    lean = rng.normal(0, 1, 2)
    side = 1 if rng.random() < 0.5 else -1
    step = side * max(slices / 20, 0.4)
    pieces = []
    for level in range(1, _WALLS + 1):
        moved = middles + lean * level + rng.normal(0, 0.4, middles.shape)
        wall = np.float32(0.22) * _outlines(rng, moved, sheet)
        pieces.append(Piece(0, whole, wall, sheet + np.float32(level * step)))
    inside = np.float32(0.08) * smooth_field(rng, sheet.shape, 5)
    pieces.append(Piece(0, whole, inside, sheet + np.float32(2 * step)))
    return pieces


def _nuclei(
    rng: np.random.Generator,
    middles: Array,
    sheet: Array,
    slices: int,
    channel: int,
) -> tuple[Array, list[Piece]]:
    """Textured ellipsoids: their middle planes (h, w), and what is above and below."""
    canvas = sheet.shape
    plane = np.zeros(canvas, np.float32)
    pieces = []
    half = max(slices / 16, 0.5)
    for middle in middles:
        radius = rng.uniform(5.5, 8.5)
        if not all(0 <= m < n for m, n in zip(middle, canvas, strict=True)):
            continue
        y0, x0, y, x = box_around(middle, radius, canvas)
        distance = outline_distance(rng, radius, "ellipse", y, x)
        inside = np.clip(distance + 0.5, 0, 1)
        box = (slice(y0, y0 + inside.shape[0]), slice(x0, x0 + inside.shape[1]))
        tone = rng.uniform(0.4, 1)
        plane[box] = np.maximum(plane[box], tone * inside * _chromatin(rng, inside))
        smaller = np.clip(distance - 1.5, 0, 1)
        for side in (-half, half):
            cap = np.float32(0.25 * tone) * smaller * _chromatin(rng, inside)
            depth = sheet[box] + np.float32(side)
            pieces.append(Piece(channel, box, cap.astype(np.float32), depth))
    return plane, pieces


def _chromatin(rng: np.random.Generator, like: Array) -> Array:
    return np.float32(0.25) + smooth_field(rng, like.shape, 1.4) ** 2


def _far_bodies(
    rng: np.random.Generator, sheet: Array, slices: int, haze: float, channel: int
) -> Iterator[Piece]:
    """Large bright bodies far below or above the sheet, in focus in no slice nearby."""
    canvas = sheet.shape
    away = max(0.35 * slices, 3.0)
    for _ in range(max(round(canvas[0] * canvas[1] / 3000), 1)):
        middle = [float(rng.uniform(0, n)) for n in canvas]
        radius = rng.uniform(6, 20)
        y0, x0, y, x = box_around(middle, radius, canvas)
        inside = np.clip(outline_distance(rng, radius, "blob", y, x) / 4, 0, 1)
        box = (slice(y0, y0 + inside.shape[0]), slice(x0, x0 + inside.shape[1]))
        tone = np.float32(haze * rng.uniform(0.3, 1))
        depth = sheet[box] + np.float32(rng.choice((-1, 1)) * away * rng.uniform(1, 2))
        yield Piece(channel, box, (tone * inside).astype(np.float32), depth)
