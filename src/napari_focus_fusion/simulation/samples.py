"""The two sample stacks: stained pollen in brightfield, cultured cells in fluorescence.

Both are scenes with exact ground truth, of transparent matter (see ``optics``) in three
dimensions: shells, spines, ellipsoids, filaments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_focus_fusion.simulation.drawing import (
    box_around,
    draw_path,
    random_path,
    smooth_field,
    texture,
)
from napari_focus_fusion.simulation.optics import (
    Piece,
    composite_layers,
    render_slices,
    strongest_depth,
)
from napari_focus_fusion.simulation.scenes import (
    Scene,
    brightfield_image,
    depth_edges,
    expose_scene,
    fluorescence_image,
    illumination,
    make_optics,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

# Absorbance of a unit of stain in red, green and blue: basic fuchsin, light green,
# and the amber of unstained walls.
_POLLEN_STAINS = np.array(
    [[0.14, 0.95, 0.42], [0.80, 0.24, 0.52], [0.16, 0.42, 0.95]], np.float32
)
_FUCHSIN, _GREEN, _AMBER, _PHASE = 0, 1, 2, -1


def brightfield_scene(
    shape: tuple[int, int] = (512, 640), slices: int = 12, seed: int = 2_000_001
) -> Scene:
    """Stained pollen grains and diatoms between slide and cover slip.

    RGB uint8, ``"ZYXS"``; pixels of 0.25 and slices of 2 micrometres. Each grain is a
    shell whose sculptured upper and lower walls are in focus in different slices.
    """
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {
        "slices": slices,
        "psf": "disk",
        "blur_per_slice": 1.5,
        "focus_blur": 0.5,
        "max_blur": 16.0,
        "refraction": 0.035,
        "exposure": 0.93,
        "electrons": 12_000.0,
        "read_noise": 3.0,
        "offset": 0.01,
    }
    optics, inner = make_optics(shape, options)
    canvas = optics.canvas
    pieces: list[Piece] = []
    for i, centre in enumerate(_spaced_positions(rng, canvas, 24, 76)):
        middle = rng.uniform(0.25, 0.75) * (slices - 1)
        draw = (_spiny_grain, _netted_grain, _furrowed_grain)[i % 3]
        pieces += draw(rng, canvas, centre, middle)
    for centre in _spaced_positions(rng, canvas, 9, 60):
        pieces += _diatom(rng, canvas, centre, rng.uniform(1, slices - 2))
    for _ in range(130):
        pieces += _speck(rng, canvas, rng.uniform(0, slices - 1))
    depth, matter = strongest_depth(pieces, canvas, 0.05)
    rendered = render_slices(composite_layers(pieces, 4, optics), optics, phase=True)
    image = brightfield_image(rendered, _POLLEN_STAINS.T, options["refraction"])
    white = np.array([1.0, 0.985, 0.945], np.float32)[:, None, None]
    light = illumination(rng, shape, 0.10, 0.03)
    return expose_scene(
        image[:, :, *inner] * white * light,
        depth[inner],
        depth_edges(depth, matter)[inner],
        np.random.default_rng([seed, 1]),
        rgb=True,
        dtype=np.uint8,
        scale={"Z": 2.0, "Y": 0.25, "X": 0.25},
        channel_names=(),
        seed=seed,
        parameters=options,
    )


def fluorescence_scene(
    shape: tuple[int, int] = (512, 512), slices: int = 16, seed: int = 2_000_002
) -> Scene:
    """Nuclei and microtubules of cells on an uneven bed.

    uint16, ``"CZYX"`` with two channels; pixels of 0.16 and slices of 0.5 micrometres.
    Microtubules run from over the nucleus down to the flat edge of each cell, and the
    bed rises across the field, so that no slice has every cell in focus.
    """
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {
        "slices": slices,
        "psf": "gaussian",
        "blur_per_slice": 0.85,
        "focus_blur": 0.7,
        "max_blur": 14.0,
        "exposure": 0.8,
        "electrons": 2500.0,
        "read_noise": 2.0,
        "offset": 0.005,
    }
    optics, inner = make_optics(shape, options)
    canvas = optics.canvas
    bed = np.float32(0.8) + smooth_field(rng, canvas, 130) * np.float32(slices * 0.5)
    pieces: list[Piece] = []
    for centre in _spaced_positions(rng, canvas, 26, 86):
        pieces += _cultured_cell(rng, canvas, centre, bed)
    depth, matter = strongest_depth(pieces, canvas, 0.05)
    rendered = render_slices(composite_layers(pieces, 2, optics), optics)
    light = illumination(rng, shape, 0.18, 0.05)
    return expose_scene(
        fluorescence_image(rendered, 0.012)[:, :, *inner] * light,
        depth[inner],
        depth_edges(depth, matter)[inner],
        np.random.default_rng([seed, 1]),
        rgb=False,
        dtype=np.uint16,
        scale={"Z": 0.5, "Y": 0.16, "X": 0.16},
        channel_names=("nuclei", "microtubules"),
        seed=seed,
        parameters=options,
    )


def _spaced_positions(
    rng: np.random.Generator, canvas: tuple[int, int], count: int, distance: float
) -> list[tuple[float, float]]:
    """Up to ``count`` random positions more than ``distance`` pixels apart."""
    places: list[tuple[float, float]] = []
    for _ in range(40 * count):
        y, x = (float(rng.uniform(0, n)) for n in canvas)
        if all(np.hypot(y - b, x - a) > distance for b, a in places):
            places.append((y, x))
        if len(places) == count:
            break
    return places


# Depth of a shell's radius: pixels per slice, 2 micrometres of 0.25.
_PIXELS_PER_SLICE = 8.0


def _box(y: int, x: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(y, y + shape[0]), slice(x, x + shape[1])


def _shell(
    canvas: tuple[int, int],
    centre: Sequence[float],
    depth: float,
    radii: tuple[float, float],
    angle: float,
    wall: float,
    flat: float = 0.8,
) -> tuple[tuple[slice, slice], Array, Array, Array, Array, Array]:
    """A hollow ellipsoid: box, sphere coordinates (v, u), wall paths, rise in slices.

    The path through the wall grows to its edge, as in the projection of a hollow ball.
    """
    y0, x0, y, x = box_around(centre, max(radii), canvas)
    u = (np.cos(angle) * x + np.sin(angle) * y) / radii[0]
    v = (np.cos(angle) * y - np.sin(angle) * x) / radii[1]
    squared = u * u + v * v
    thin = 1 - wall / min(radii)
    outer = np.sqrt(np.clip(1 - squared, 0, None))
    inner = np.sqrt(np.clip(thin**2 - squared, 0, None))
    # Soften the outline over a pixel.
    edge = np.clip((1 - np.sqrt(squared)) * min(radii) + 0.5, 0, 1)
    path = (outer - inner) * min(radii) / wall * edge
    rise = outer * (min(radii) * flat / _PIXELS_PER_SLICE)
    return _box(y0, x0, path.shape), v, u, path, edge, rise.astype(np.float32)


def _walls(
    kind: int,
    box: tuple[slice, slice],
    path: Array,
    upper: Array,
    lower: Array,
    depth: float,
    rise: Array,
    strength: float,
) -> list[Piece]:
    near, far = np.float32(depth) - rise, np.float32(depth) + rise
    half = np.minimum(path, 4.0) * (0.5 * strength)
    return [
        Piece(kind, box, (half * upper).astype(np.float32), near),
        Piece(kind, box, (half * lower * 0.8).astype(np.float32), far),
    ]


def _on_sphere(rng: np.random.Generator, count: int) -> Array:
    """Points spread evenly over the unit sphere, turned at random, (3, count)."""
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * i / count), np.pi * (1 + 5**0.5) * i
    points = np.stack(
        [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)]
    )
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    jitter = rng.normal(0, 0.25 / count**0.5, points.shape)
    points = rotation @ points + jitter
    return points / np.linalg.norm(points, axis=0)


def _sphere_pattern(points: Array, v: Array, u: Array, upper: bool) -> Array:
    """Difference of the angles to the two nearest points, per pixel of a hemisphere."""
    w = np.sqrt(np.clip(1 - u * u - v * v, 0, 1)) * (-1 if upper else 1)
    place = np.stack(np.broadcast_arrays(v, u, w))
    cosine = np.tensordot(points.T, place, axes=1)
    nearest = np.partition(cosine, (-2, -1), axis=0)[-2:]
    angle = np.arccos(np.clip(nearest, -1, 1))
    return angle[0] - angle[1]


def _spiny_grain(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: Sequence[float],
    depth: float,
) -> list[Piece]:
    """A sunflower-like ball with spines."""
    radius = rng.uniform(26, 34)
    box, v, u, path, edge, rise = _shell(
        canvas, centre, depth, (radius, radius * rng.uniform(0.93, 1)), 0, 2.6
    )
    points = _on_sphere(rng, 90)
    pieces = []
    grain = [
        0.8 + 0.5 * np.exp(-((_sphere_pattern(points, v, u, up) / 0.12) ** 2))
        for up in (True, False)
    ]
    strength = rng.uniform(0.42, 0.6)
    pieces += _walls(_AMBER, box, path, grain[0], grain[1], depth, rise, strength)
    core = np.sqrt(np.clip(1 - (u * u + v * v) / 0.7, 0, None)) * edge
    level = np.full(core.shape, depth, np.float32)
    pieces.append(Piece(_FUCHSIN, box, (0.30 * core).astype(np.float32), level))
    pieces.append(Piece(_PHASE, box, (2.0 * edge).astype(np.float32), level))
    for y, x, z in points.T:
        pieces += _spine(canvas, centre, depth, radius, (y, x, z), strength)
    return pieces


def _spine(
    canvas: tuple[int, int],
    centre: Sequence[float],
    depth: float,
    radius: float,
    towards: Sequence[float],
    strength: float,
) -> list[Piece]:
    """A cone that stands on a sphere."""
    along = np.linspace(0.98, 1.24, 12) * radius
    path = np.stack([centre[0] + towards[0] * along, centre[1] + towards[1] * along])
    if not all(0 <= path[i].mean() < canvas[i] for i in (0, 1)):
        return []
    y, x, coverage, point = draw_path(path, np.linspace(4.6, 1.0, 12), canvas)
    rise = (towards[2] * along * (0.8 / _PIXELS_PER_SLICE)).astype(np.float32)
    # The light path through a spine is longer along its axis.
    amount = coverage * np.float32(strength * (0.8 + 0.9 * abs(towards[2])))
    place = np.float32(depth) + rise[point]
    return [Piece(_AMBER, _box(y, x, coverage.shape), amount, place)]


def _netted_grain(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: Sequence[float],
    depth: float,
) -> list[Piece]:
    """A lily-like ellipsoid with a network of ridges."""
    long = rng.uniform(38, 50)
    radii = (long, long * rng.uniform(0.55, 0.7))
    angle = rng.uniform(0, np.pi)
    box, v, u, path, edge, rise = _shell(canvas, centre, depth, radii, angle, 2.4)
    points = _on_sphere(rng, 170)
    upper, lower = (
        0.35 + 1.6 * np.exp(-((_sphere_pattern(points, v, u, up) / 0.035) ** 2))
        for up in (True, False)
    )
    strength = rng.uniform(0.45, 0.7)
    pieces = _walls(_FUCHSIN, box, path, upper, lower, depth, rise, strength)
    core = np.sqrt(np.clip(1 - (u * u + v * v) / 0.8, 0, None)) * edge
    level = np.full(core.shape, depth, np.float32)
    pieces.append(Piece(_FUCHSIN, box, (0.22 * core).astype(np.float32), level))
    pieces.append(Piece(_PHASE, box, (2.0 * edge).astype(np.float32), level))
    return pieces


def _furrowed_grain(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: Sequence[float],
    depth: float,
) -> list[Piece]:
    """An oak-like, finely grained ball with three furrows, protoplast inside."""
    radius = rng.uniform(22, 30)
    radii, angle = (radius * rng.uniform(1, 1.2), radius), rng.uniform(0, np.pi)
    box, v, u, path, edge, rise = _shell(canvas, centre, depth, radii, angle, 2.8)
    furrows = rng.uniform(0, 2 * np.pi) + np.arange(3) * (2 * np.pi / 3)
    walls = []
    for up in (-1, 1):
        w = up * np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
        turn = np.arctan2(v, w)[..., None] - furrows
        off = np.abs(np.angle(np.exp(1j * turn))).min(axis=-1)
        across = off * np.sqrt(np.clip(1 - u * u, 0, 1))
        grain = texture(rng, across.shape, "granular")
        open_ = np.exp(-((across / 0.13) ** 2)) * (np.abs(u) < 0.85)
        lips = np.exp(-(((across - 0.24) / 0.07) ** 2)) * (np.abs(u) < 0.85)
        walls.append((0.6 + 0.8 * grain) * (1 - 0.75 * open_) + 0.5 * lips)
    strength = rng.uniform(0.4, 0.6)
    pieces = _walls(_GREEN, box, path, walls[0], walls[1], depth, rise, strength)
    lumps = smooth_field(rng, edge.shape, 4)
    inside = np.sqrt(np.clip(1 - (u * u + v * v) / 0.62, 0, None)) * (0.5 + lumps)
    level = np.full(edge.shape, depth, np.float32)
    pieces.append(Piece(_FUCHSIN, box, (0.55 * inside).astype(np.float32), level))
    pieces.append(Piece(_PHASE, box, (2.0 * edge).astype(np.float32), level))
    return pieces


def _diatom(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: Sequence[float],
    depth: float,
) -> list[Piece]:
    """A boat-shaped glass shell with striae and a raphe, tilted."""
    long, wide, angle = rng.uniform(45, 75), rng.uniform(8, 13), rng.uniform(0, np.pi)
    y0, x0, y, x = box_around(centre, long, canvas)
    u = (np.cos(angle) * x + np.sin(angle) * y) / long
    v = (np.cos(angle) * y - np.sin(angle) * x) / wide
    inside = (1 - u * u - np.abs(v) ** 1.4) * wide * 0.6
    edge = np.clip(inside + 0.5, 0, 1)
    striae = 0.5 + 0.5 * np.cos(2 * np.pi * (u * long + 1.5 * np.abs(v)) / 5.0)
    middle = np.exp(-((v * wide / 1.6) ** 2)) * (np.abs(u) < 0.92)
    border = np.exp(-((inside / 1.5) ** 2))
    glass = edge * (0.10 + 0.22 * striae * (1 - middle) + 0.35 * border + 0.2 * middle)
    place = np.float32(depth) + (u * rng.uniform(-1.6, 1.6)).astype(np.float32)
    box = _box(y0, x0, edge.shape)
    pieces = [
        Piece(_AMBER, box, glass.astype(np.float32), place),
        Piece(
            _PHASE, box, (1.6 * edge + 0.5 * striae * edge).astype(np.float32), place
        ),
    ]
    plastids = np.exp(-((np.abs(u) - 0.4) ** 2) / 0.035) * edge * (np.abs(v) < 0.75)
    plastids = ndimage.gaussian_filter(plastids, 1.0)
    pieces.append(Piece(_AMBER, box, (0.35 * plastids).astype(np.float32), place))
    return pieces


def _speck(
    rng: np.random.Generator, canvas: tuple[int, int], depth: float
) -> list[Piece]:
    """Debris: a grain of one to three pixels."""
    centre = [float(rng.uniform(0, n)) for n in canvas]
    radius = rng.uniform(0.6, 1.0) if rng.random() < 0.8 else rng.uniform(1.5, 3.0)
    y0, x0, y, x = box_around(centre, radius, canvas)
    coverage = np.clip(radius + 0.5 - np.hypot(y, x), 0, 1)
    box, level = (
        _box(y0, x0, coverage.shape),
        np.full(coverage.shape, depth, np.float32),
    )
    amount = coverage * np.float32(rng.uniform(0.1, 0.5))
    return [Piece(_AMBER, box, amount, level), Piece(_PHASE, box, coverage, level)]


def _cultured_cell(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: tuple[float, float],
    bed: Array,
) -> list[Piece]:
    """A nucleus (channel 0) under a tent of microtubules (channel 1)."""
    floor = float(bed[int(centre[0]), int(centre[1])])
    height, axis = rng.uniform(3.5, 5.5), rng.uniform(0, np.pi)
    radius = rng.uniform(75, 110)
    pieces = [_cytoplasm(rng, canvas, centre, radius, bed)]
    pieces += _nucleus(rng, canvas, centre, axis, floor, height)
    for _ in range(75):
        # From the cage round the nucleus outwards, mostly along the cell's axis.
        turn = rng.normal(0, 0.55) if rng.random() < 0.7 else rng.uniform(0, np.pi)
        angle = axis + turn + (np.pi if rng.random() < 0.5 else 0)
        aside, back = rng.normal(0, 15), rng.uniform(-10, 35)
        start = (
            centre[0] + aside * np.cos(angle) - back * np.sin(angle),
            centre[1] - aside * np.sin(angle) - back * np.cos(angle),
        )
        length = radius * rng.uniform(0.4, 1.6) * (1 - 0.45 * abs(np.sin(turn)))
        path = random_path(rng, start, angle, length, bend=0.11)
        out = np.hypot(path[0] - centre[0], path[1] - centre[1]) / radius
        rows, columns = (
            np.clip(path[i], 0, canvas[i] - 1).astype(np.intp) for i in (0, 1)
        )
        tent = height * np.exp(-((out / 0.4) ** 2)) + rng.normal(0, 0.2)
        depths = (bed[rows, columns] + 0.3 + tent).astype(np.float32)
        y, x, coverage, point = draw_path(path, 1.2, canvas)
        end = len(depths)
        fade = np.interp(point, [0, 0.15 * end, 0.8 * end, end], [0.5, 1, 0.9, 0.2])
        amount = coverage * (fade * rng.uniform(0.3, 0.8)).astype(np.float32)
        pieces.append(Piece(1, _box(y, x, coverage.shape), amount, depths[point]))
    return pieces


def _nucleus(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: tuple[float, float],
    axis: float,
    floor: float,
    height: float,
) -> list[Piece]:
    """An ellipsoid of chromatin with dark nucleoli, in five sheets."""
    long = rng.uniform(25, 34)
    short, angle = long * rng.uniform(0.6, 0.85), axis + rng.normal(0, 0.2)
    y0, x0, y, x = box_around(centre, long, canvas)
    u = (np.cos(angle) * x + np.sin(angle) * y) / long
    v = (np.cos(angle) * y - np.sin(angle) * x) / short
    ball = np.sqrt(np.clip(1 - u * u - v * v, 0, None))
    middle, half = floor + 0.5 + height / 2, height / 2
    nucleoli = np.ones_like(ball)
    for _ in range(int(rng.integers(2, 5))):
        spot = rng.uniform(-0.5, 0.5, 2)
        away = np.hypot((u - spot[0]) * long, (v - spot[1]) * short)
        nucleoli *= 1 - 0.8 * np.clip(rng.uniform(2.5, 5) + 0.5 - away, 0, 1)
    brightness = rng.uniform(0.5, 1.0)
    pieces = []
    for sheet in np.linspace(-0.8, 0.8, 5):
        chromatin = smooth_field(rng, ball.shape, 2.5) ** 2
        foci = smooth_field(rng, ball.shape, 1.3) ** 6
        within = np.clip((ball - abs(sheet)) * 8, 0, 1)
        lamina = np.exp(-(((ball - abs(sheet)) / 0.08) ** 2)) * within
        dense = 0.06 + 0.5 * chromatin + 0.9 * foci + 0.12 * lamina
        amount = brightness * within * nucleoli * dense
        depth = np.full(ball.shape, middle + sheet * half, np.float32)
        box = _box(y0, x0, ball.shape)
        pieces.append(Piece(0, box, np.maximum(amount, 0).astype(np.float32), depth))
    return pieces


def _cytoplasm(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: tuple[float, float],
    radius: float,
    bed: Array,
) -> Piece:
    """A faint disk of free tubulin on the bed."""
    y0, x0, y, x = box_around(centre, radius, canvas)
    amount = 0.05 * np.exp(-2.5 * (np.hypot(y, x) / radius) ** 2)
    box = _box(y0, x0, amount.shape)
    grain = 0.6 + 0.8 * smooth_field(rng, amount.shape, 2.0)
    return Piece(1, box, (amount * grain).astype(np.float32), bed[box] + 0.6)
