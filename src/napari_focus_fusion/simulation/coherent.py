"""Brightfield as waves make it: partially coherent imaging of a bending specimen.

A condenser illuminates the specimen with plane waves from all directions inside its
aperture, independent of each other. Each wave is followed through the specimen plane by
plane: matter of absorbance ``a`` and phase ``p`` multiplies it by

    t = exp(-a / 2 + i p),

and between two planes ``d`` slices apart it propagates by the paraxial angular spectrum

    H_d(f) = exp(-i pi D d |f|^2),        f in cycles a pixel,

where ``D`` is the wavelength times the spacing of slices, in pixels squared. The
objective passes ``|f| <= rho``, and the intensities of all directions add up (Born and
Wolf, Principles of Optics, 10.6; Goodman, Introduction to Fourier Optics, 4 and 6).
An edge shows bright on one side and dark on the other; the two change places as it goes
through focus, and out of focus fringes spread from it (Becke lines).

In focus is the plane in which outlines are most contrasted, as at a microscope. Where
matter bends light that is not the plane it lies in but one a little beside it, where
the phase adds to the absorption; the distance is the same for all matter of a scene,
and is found by rendering all of it in one plane through focus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, ndimage

from napari_focus_fusion.simulation.drawing import (
    Sprite,
    box_around,
    draw_objects,
    make_atlas,
    plane,
    smooth_field,
)
from napari_focus_fusion.simulation.optics import (
    Optics,
    Piece,
    composite_layers,
    strongest_depth,
)
from napari_focus_fusion.simulation.scenes import (
    STAINS,
    Scene,
    cell_thickness,
    depth_edges,
    expose_scene,
    illumination,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]

SPECIMENS = ("smear", "cells", "fibres", "beads", "grains")
#: Those of blood cells.
DISCS = ("smear", "monolayer")
#: Places that are tried for a disc beside others, and the distance to the nearest that
#: is enough, in sums of their radii: some touch or overlap a little.
TRIES, APART = 40, (0.85, 1.1)
SURFACES = ("flat", "tilt", "relief", "layers")
#: Directions of the illumination that are followed.
DIRECTIONS = 24
#: Wavelengths of red, green and blue in units of the green one.
WAVELENGTHS = (1.17, 1.0, 0.85)
#: Levels of depth that a slice is divided into.
LEVELS_PER_SLICE = 2
#: Defocus in waves at the edge of the pupil, up to which the plane of the best contrast
#: is looked for, where the phase of the finest detail shows most, and how many planes
#: are tried.
FARTHEST_WAVES, TRIED = 0.5, 21
#: Pixels around an image that its border depends on, beyond the blur.
MARGIN = 8
#: Largest blur in pixels that the canvas has room for; what is blurred more is cyclic.
LARGEST_BLUR = 24.0


@dataclass(frozen=True)
class Microscope:
    """A brightfield microscope, in pixels and slices.

    Attributes
    ----------
    canvas
        Height and width of the planes in pixels; they are cyclic.
    pupil
        ``rho``, the objective's aperture in cycles a pixel: 1 / (2 rho) pixels are
        resolved coherently.
    coherence
        The condenser's aperture as a share of the objective's.
    waves
        Defocus a slice at the edge of the pupil, ``D rho^2``: half of it is the path
        difference there in wavelengths.
    turn
        Of the directions of illumination, in radians.
    oblique
        How far the condenser's aperture is off the axis, as a share of the objective's;
        to the direction of `turn`.
    """

    canvas: tuple[int, int]
    pupil: float
    coherence: float
    waves: float
    turn: float
    oblique: float = 0.0

    @property
    def defocus(self) -> float:
        """``D``, in pixels squared a slice."""
        return self.waves / self.pupil**2

    @property
    def blur(self) -> float:
        """Pixels a slice by which the outermost illumination moves the image."""
        return self.coherence * self.waves / self.pupil

    def directions(self, count: int) -> Array:
        """(count, 2) spatial frequencies of the illumination, evenly over its disk."""
        i = np.arange(count) + 0.5
        radius = self.pupil * self.coherence * np.sqrt(i / count)
        angle = self.turn + i * np.pi * (3 - 5**0.5)
        off = (
            self.pupil * self.oblique * np.array([np.sin(self.turn), np.cos(self.turn)])
        )
        return np.stack([radius * np.sin(angle), radius * np.cos(angle)], 1) + off


def image_planes(
    matter: Sequence[tuple[float, Array, Array]],
    positions: Sequence[float],
    microscope: Microscope,
    *,
    wavelength: float = 1.0,
    directions: int = DIRECTIONS,
) -> Array:
    """Images of matter at some positions of the focus.

    Parameters
    ----------
    matter
        Depth in slices, absorbance (h, w) and phase in radians (h, w) of each plane of
        matter; depths rise.
    positions
        Of the focus, in slices.
    microscope
        Takes them.
    wavelength
        In units of the one that ``microscope.defocus`` is for; phases shrink with it.
    directions
        Of the illumination.

    Returns
    -------
    ndarray
        float32 (positions, h, w), 1 where there is nothing.
    """
    y, x = (fft.fftfreq(n).astype(np.float32) for n in microscope.canvas)
    transmitted = [
        (
            depth,
            np.exp(-0.5 * absorbance + (1j / wavelength) * phase).astype(np.complex64),
        )
        for depth, absorbance, phase in matter
    ]
    last = transmitted[-1][0]
    step = np.pi * microscope.defocus * wavelength
    pupil = microscope.pupil / wavelength
    images = np.zeros((len(positions), *microscope.canvas), np.float32)
    for down, right in microscope.directions(directions) / wavelength:
        # The wave less its tilt, which stays cyclic.
        squared = (y[:, None] + np.float32(down)) ** 2 + (
            x[None, :] + np.float32(right)
        ) ** 2
        wave, depth = transmitted[0][1], transmitted[0][0]
        for next_depth, plane_ in transmitted[1:]:
            if next_depth != depth:
                turned = np.exp((-1j * step * (next_depth - depth)) * squared)
                wave = fft.ifft2(fft.fft2(wave) * turned.astype(np.complex64))
            wave, depth = wave * plane_, next_depth
        edge = (pupil - np.sqrt(squared)) / (0.04 * pupil)
        spectrum = fft.fft2(wave) * np.clip(edge + 0.5, 0, 1).astype(np.float32)
        for image, position in zip(images, positions, strict=True):
            turned = np.exp((-1j * step * (position - last)) * squared)
            field = fft.ifft2(spectrum * turned.astype(np.complex64))
            image += field.real**2 + field.imag**2
    images /= directions
    return images


def plane_of_best_contrast(
    absorbance: Array, phase: Array, microscope: Microscope
) -> float:
    """Distance in slices of the focus from matter whose outlines are most contrasted.

    Parameters
    ----------
    absorbance, phase
        (h, w), of all matter.
    microscope
        Takes the images.
    """
    farthest = FARTHEST_WAVES / microscope.waves
    offsets = np.linspace(-farthest, farthest, TRIED)
    images = image_planes(
        [(0.0, absorbance, phase)], offsets.tolist(), microscope, directions=12
    )
    across = np.abs(2 * images[:, :, 1:-1] - images[:, :, 2:] - images[:, :, :-2])
    down = np.abs(2 * images[:, 1:-1] - images[:, 2:] - images[:, :-2])
    contrast = across.mean((1, 2)) + down.mean((1, 2))
    return float(offsets[ndimage.gaussian_filter1d(contrast, 1.0).argmax()])


def make_coherent_scene(
    seed: int,
    *,
    shape: tuple[int, int] = (256, 256),
    slices: int = 12,
    specimen: str = "mixed",
    surface: str = "mixed",
    rgb: bool = False,
    electrons: float | None = 4000.0,
    waves: float | None = None,
    span: tuple[float, float] | None = None,
    absorbance: float | None = None,
    phase: float | None = None,
    oblique: float = 0.0,
    dtype: DTypeLike = np.uint16,
) -> Scene:
    """Draw a specimen from a seed and image it slice by slice.

    What is ``"mixed"`` or None is drawn from the seed.

    Parameters
    ----------
    seed : int
        As :func:`make_scene` takes it.
    shape : (int, int)
        Height and width in pixels.
    slices : int
        Number of slices.
    specimen : str
        One of ``SPECIMENS``, or ``"monolayer"``, which no mixture has: discs with a
        pale middle as in a blood smear (in a monolayer side by side), cells with a
        nucleus, fibres, beads, or striated grains.
    surface : str
        One of ``SURFACES``: where it lies; the discs of a smear never in layers.
    rgb : bool
        Make colour samples (axis S, last).
    electrons : float or None
        Electrons at white; None for no noise.
    waves : float, optional
        Defocus a slice, see :class:`Microscope`; 0.12 to 0.7.
    span : (float, float), optional
        Lowest and highest position of the focus in which matter is in focus. Drawn, it
        is often a small part of the stack, as in a smear.
    absorbance, phase : float, optional
        Of the densest matter; the phase in radians, negative where matter is less dense
        than its surroundings.
    oblique : float
        How far the condenser is off its axis: see :class:`Microscope`.
    dtype : dtype
        uint8, uint16 or float32.

    Returns
    -------
    Scene
        Its truth is all matter in the plane of the best contrast.
    """
    rng, drawing_rng, camera = (np.random.default_rng([seed, k, 7]) for k in range(3))
    given = {
        "specimen": None if specimen == "mixed" else specimen,
        "surface": None if surface == "mixed" else surface,
        "waves": waves,
        "absorbance": absorbance,
        "phase": phase,
        "span": span,
    }
    options = draw_options(rng, slices) | {"electrons": electrons, "oblique": oblique}
    options |= {name: value for name, value in given.items() if value is not None}
    turn, vignetting, shading, pixel, ratio = (
        float(rng.uniform(*ends))
        for ends in ((0, 2 * np.pi), (0, 0.2), (0, 0.1), (0.05, 0.3), (1, 8))
    )
    microscope, inner = _microscope(shape, options, turn)
    kinds = 2 if rgb else 1
    pieces = draw_specimen(drawing_rng, microscope.canvas, kinds, options)
    depth, matter = strongest_depth(pieces, microscope.canvas)
    density = np.ones((1, 1), np.float32)
    if rgb:
        density = STAINS[drawing_rng.choice(len(STAINS), 2, replace=False)].T
    density = density * np.float32(options["absorbance"])
    image, offset = _render(pieces, density, microscope, options)
    light = illumination(drawing_rng, shape, vignetting, shading)
    return expose_scene(
        # Bright rims are brighter than the empty field.
        image[:, :, *inner] * light / np.float32(1.25),
        depth[inner],
        depth_edges(depth, matter)[inner],
        camera,
        rgb=rgb,
        dtype=dtype,
        scale={"Z": pixel * ratio, "Y": pixel, "X": pixel},
        channel_names=(),
        seed=seed,
        parameters=options | {"focus_offset": offset},
    )


def draw_options(rng: np.random.Generator, slices: int) -> dict[str, Any]:
    """What a scene is of and how it is imaged: see :func:`make_coherent_scene`."""
    # Of smears more, since nothing is photographed in brightfield as often.
    known = ("smear", "smear", *SPECIMENS)
    specimen = known[int(rng.integers(len(known)))]
    surface = SURFACES[int(rng.integers(len(SURFACES)))]
    stained = rng.random() < 0.7
    waves = float(np.exp(rng.uniform(np.log(0.12), np.log(0.7))))
    absorbance = float(rng.uniform(0.25, 1.3) if stained else rng.uniform(0.03, 0.2))
    phase = float(rng.uniform(0.2, 5.0 if specimen == "smear" else 2.8))
    height = float(rng.uniform(0, 0.35) if rng.random() < 0.6 else rng.uniform(0.3, 1))
    low = float(rng.uniform(0, 1 - height)) * (slices - 1)
    return {
        "slices": slices,
        "specimen": specimen,
        "surface": surface,
        "waves": waves,
        "absorbance": absorbance,
        "phase": phase,
        "span": (low, low + height * (slices - 1)),
        "pupil": float(rng.uniform(0.08, 0.24)),
        "coherence": float(rng.uniform(0.35, 0.95)),
        "read_noise": float(rng.uniform(1, 4)),
        "offset": float(rng.uniform(0, 0.03)),
        "exposure": float(rng.uniform(0.6, 0.95)),
    }


def _microscope(
    shape: tuple[int, int], options: dict[str, Any], turn: float
) -> tuple[Microscope, tuple[slice, slice]]:
    """A microscope with a canvas larger than the image, and the image's place on it."""
    names = ("pupil", "coherence", "waves", "oblique")
    optics = {name: options[name] for name in names}
    blur = Microscope(shape, **optics, turn=turn).blur * options["slices"]
    halo = int(np.ceil(min(blur, LARGEST_BLUR))) + MARGIN
    high, wide = (fft.next_fast_len(n + 2 * halo) for n in shape)
    inner = (slice(halo, halo + shape[0]), slice(halo, halo + shape[1]))
    return Microscope((high, wide), **optics, turn=turn), inner


def _render(
    pieces: Sequence[Piece],
    density: Array,
    microscope: Microscope,
    options: dict[str, Any],
) -> tuple[Array, float]:
    """Images (slices + 1, components, h, w), the last in focus, and the focus' offset.

    ``density`` (components, stains) is the absorbance of a unit of each stain.
    """
    slices, canvas = options["slices"], microscope.canvas
    levels = list(
        composite_layers(pieces, density.shape[1] + 1, _levels(canvas, slices))
    )
    whole = np.sum([values for _, values in levels], axis=0)

    def matter(stains: Array, values: Array) -> tuple[Array, Array]:
        return np.tensordot(stains, values[:-1], 1), options["phase"] * values[-1]

    offset = plane_of_best_contrast(*matter(density.mean(0), whole), microscope)
    image = np.empty((slices + 1, len(density), *canvas), np.float32)
    for component, stains in enumerate(density):
        wavelength = WAVELENGTHS[component] if len(density) > 1 else 1.0
        # Pieces are placed where they are in focus; matter lies beside that.
        planes = [
            (level / LEVELS_PER_SLICE - offset, *matter(stains, values))
            for level, values in levels
        ]
        image[:-1, component] = image_planes(
            planes, range(slices), microscope, wavelength=wavelength
        )
        image[-1, component] = image_planes(
            [(0.0, *matter(stains, whole))], [offset], microscope, wavelength=wavelength
        )[0]
    return image, offset


def _levels(canvas: tuple[int, int], slices: int) -> Optics:
    return Optics(canvas, slices, "disk", 0.75 * LEVELS_PER_SLICE, 0.0, 1.0)


def draw_specimen(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    kinds: int,
    options: dict[str, Any],
) -> list[Piece]:
    """Pieces of absorbing matter (component 0 and on) and of phase (-1), densest 1."""
    atlas = make_atlas(rng, canvas)
    specimen, (low, high) = options["specimen"], options["span"]
    if specimen in DISCS:
        sprites = _discs(rng, canvas, apart=specimen == "monolayer")
    elif specimen == "grains":
        sprites = _grains(rng, canvas)
    else:
        fill = rng.uniform(0.2, 0.8)
        sprites = draw_objects(rng, canvas, specimen, atlas, fill)
    dust = draw_objects(rng, canvas, "beads", atlas, rng.uniform(0.0, 0.15))
    surface = options["surface"]
    ground = np.full(canvas, rng.uniform(low, high), np.float32)
    if surface == "tilt":
        ground = np.float32((low + high) / 2) + plane(rng, canvas, high - low)
    elif surface == "relief":
        bumps = smooth_field(rng, canvas, min(canvas) / rng.uniform(3, 8))
        ground = np.float32(low) + np.float32(high - low) * bumps
    pieces = []
    for number, sprite in enumerate([*sprites, *dust]):
        box, shape = sprite.box, sprite.coverage.shape
        depth = ground[box]
        if number >= len(sprites) or (surface == "layers" and specimen not in DISCS):
            depth = np.full(shape, rng.uniform(low, high), np.float32)
        elif specimen in (*DISCS, "cells", "grains") and rng.random() < 0.7:
            depth = np.full(shape, np.median(depth), np.float32)
        round_ = specimen in ("cells", "beads") and number < len(sprites)
        thickness = sprite.coverage
        if round_ and rng.random() < 0.8:
            thickness = cell_thickness(rng, sprite)
            thickness = thickness / max(float(thickness.max()), 1e-6)
        share = np.float32(rng.uniform(0.4, 1))
        amount = thickness * (np.float32(1.05) - sprite.shade) * share
        if specimen in DISCS:
            amount = thickness * sprite.shade * share
        phase = thickness * (0.7 + 0.3 * sprite.shade) * share
        phase = ndimage.gaussian_filter(phase, 0.7).astype(np.float32)
        pieces.append(Piece(int(rng.integers(kinds)), box, amount, depth))
        pieces.append(Piece(-1, box, phase, depth))
    return pieces


def _discs(
    rng: np.random.Generator, canvas: tuple[int, int], *, apart: bool = False
) -> list[Sprite]:
    """Red blood cells: discs thinner in the middle (Evans and Fung 1972).

    Anywhere, or ``apart``: most of them beside the others.
    """
    radius = rng.uniform(12, 40)
    # Thickness at the middle, and how it rises: from pale middles to none.
    middle, rise = rng.uniform(0.15, 0.9), rng.uniform(0, 2.5)
    count = rng.uniform(0.15, 0.75) * canvas[0] * canvas[1] / (np.pi * radius**2)
    sprites, placed = [], list[tuple[float, float, float]]()
    for _ in range(max(int(count), 1)):
        own = radius * rng.uniform(0.85, 1.1)
        centre = [float(rng.uniform(0, n)) for n in canvas]
        if apart:
            centre = _beside(rng, canvas, centre, own, placed)
            placed.append((centre[0], centre[1], own))
        y0, x0, y, x = box_around(centre, own * 1.15, canvas)
        angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.8, 1)
        u = (np.cos(angle) * y + np.sin(angle) * x) / own
        v = (np.cos(angle) * x - np.sin(angle) * y) / (own * aspect)
        wave = 1 + rng.uniform(0, 0.04) * np.cos(
            int(rng.integers(3, 14)) * np.arctan2(v, u) + rng.uniform(0, 6)
        )
        squared = (u * u + v * v) / wave**2
        profile = np.sqrt(np.clip(1 - squared, 0, None)) * (
            middle + rise * squared - 0.5 * rise * squared**2
        )
        top = max(float(profile.max()), 1e-6)
        coverage = (profile / top).astype(np.float32)
        shade = np.full(coverage.shape, rng.uniform(0.6, 1), np.float32)
        sprites.append(Sprite(y0, x0, coverage, shade))
    return sprites


def _beside(
    rng: np.random.Generator,
    canvas: tuple[int, int],
    centre: list[float],
    radius: float,
    placed: list[tuple[float, float, float]],
) -> list[float]:
    """A place for a disc that is far enough from those placed, if one is found."""
    for _ in range(TRIES):
        enough = rng.uniform(*APART)
        if all(
            np.hypot(centre[0] - y, centre[1] - x) > enough * (radius + other)
            for y, x, other in placed
        ):
            break
        centre = [float(rng.uniform(0, n)) for n in canvas]
    return centre


def _grains(rng: np.random.Generator, canvas: tuple[int, int]) -> list[Sprite]:
    """Glass shells with striae, as of diatoms."""
    count = rng.uniform(0.4, 1) * canvas[0] * canvas[1] / 3000
    sprites = []
    for _ in range(max(int(count), 1)):
        long, wide = rng.uniform(18, 60), rng.uniform(6, 18)
        angle, period = rng.uniform(0, np.pi), rng.uniform(3.5, 9)
        centre = [float(rng.uniform(0, n)) for n in canvas]
        y0, x0, y, x = box_around(centre, max(long, wide), canvas)
        u = np.cos(angle) * x + np.sin(angle) * y
        v = np.cos(angle) * y - np.sin(angle) * x
        inside = (1 - (u / long) ** 2 - np.abs(v / wide) ** 1.5) * wide * 0.6
        coverage = np.clip(inside + 0.5, 0, 1).astype(np.float32)
        striae = 0.5 + 0.5 * np.cos(2 * np.pi * (u + 0.4 * np.abs(v)) / period)
        border = np.exp(-((inside / 1.8) ** 2))
        dense = 0.25 + 0.45 * striae * (np.abs(v) > 1.5) + 0.4 * border
        sprites.append(Sprite(y0, x0, coverage, (1.05 - dense).astype(np.float32)))
    return sprites
