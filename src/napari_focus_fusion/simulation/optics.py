"""Image formation of a specimen of known depth: defocus, occlusion, camera.

The depth ``d`` of a point is the (fractional) slice index at which it is sharp; slice
``z`` shows it through a point spread function of size

    b(z, d) = min(s * |z - d| + s0, b_max)      [pixels]

which is the radius of a uniform disk (geometrical optics) or the standard deviation of
a Gaussian, both integrated over the pixel, so that ``b = 0`` is the identity. Depths
are split between the two nearest of levels a half to a quarter of a slice apart, with
linear weights ``w_l`` that sum to one at every pixel, so there are no seams.

*Opaque matter* (reflected light) is a list of layers from back to front with colour
``c`` and coverage ``a``. With ``B_l`` the blur of level ``l``,

    A = sum_l B_l[w_l a] / sum_l B_l[w_l],   P = sum_l B_l[w_l a c] / sum_l B_l[w_l],
    I <- I * (1 - A) + P,

so a layer out of focus is transparent at its edge and shows what lies behind it.

*Transparent matter* adds up along the light path and has no order. In fluorescence
``I = background + sum_l B_l[e_l]`` for emission ``e_l``: haze from other depths never
goes away. In brightfield the absorbances add (Beer-Lambert, with stain vectors ``D``),
and the phase ``phi`` of refractile matter bends light as the transport of intensity
has it, bright on one side of focus, dark on the other, invisible in focus:

    I = exp(-D . sum_l B_l[a_l]) * (1 - k * sum_l (z - l) B_l[laplacian phi_l]).

The camera counts electrons: with ``E`` electrons at white (value 1), read noise of
``r`` electrons and offset ``o``,

    value = full_scale * (o + (1 - o) * (Poisson(I * E) + Normal(0, r)) / E),

rounded and clipped for the integer types.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, ndimage, special

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]


@dataclass(frozen=True)
class Optics:
    """Depth-dependent blur of the planes of a stack.

    Planes are cyclic: what lies at one border blurs into the opposite one, so make the
    canvas larger than the image by ``blur_halo(...)`` on each side and crop it.

    Attributes
    ----------
    canvas
        Height and width of the planes in pixels.
    slices
        Number of slices of the stack.
    psf
        ``"disk"`` or ``"gaussian"``.
    blur_per_slice, focus_blur, max_blur
        ``s``, ``s0`` and ``b_max`` of the model, in pixels.
    sectioning
        ``q``, how fast light out of focus is dimmed; 0: not at all.
    """

    canvas: tuple[int, int]
    slices: int
    psf: str
    blur_per_slice: float
    focus_blur: float
    max_blur: float
    sectioning: float = 0.0
    _transfers: dict[int, Array] = field(default_factory=dict, repr=False)

    @property
    def levels_per_slice(self) -> int:
        """Levels of depth that a slice is divided into: blur steps of 0.75 px."""
        return min(max(math.ceil(self.blur_per_slice / 0.75), 2), 4)

    def transfer(self, steps: int) -> Array:
        """Transfer function at ``steps`` levels of defocus, (h, 2 * (w // 2 + 1)).

        Each value stands twice, to multiply the real and the imaginary parts of a
        spectrum as they lie in memory.
        """
        steps = abs(steps)
        if steps not in self._transfers:
            blur = self.blur_per_slice * steps / self.levels_per_slice
            blur = min(blur + self.focus_blur, self.max_blur)
            make = disk_transfer if self.psf == "disk" else gaussian_transfer
            dimmed = 1 + self.sectioning * (steps / self.levels_per_slice) ** 2
            kernel = make(self.canvas, blur) / np.float32(dimmed)
            self._transfers[steps] = np.repeat(kernel, 2, axis=1)
        return self._transfers[steps]


def blur_halo(optics: Optics) -> int:
    """Radius in pixels of a stack's largest blur (of a Gaussian 2 deviations)."""
    largest = optics.blur_per_slice * optics.slices + optics.focus_blur
    largest = min(largest, optics.max_blur)
    return int(np.ceil(largest * (1 if optics.psf == "disk" else 2))) + 1


def disk_transfer(canvas: tuple[int, int], radius: float) -> Array:
    """Transfer function (h, w // 2 + 1) of a uniform disk; the sum is kept."""
    y, x = (fft.fftfreq(n, 1 / n).astype(np.float32) for n in canvas)
    kernel = np.clip(radius + 0.5 - np.hypot(y[:, None], x[None, :]), 0, 1)
    return np.ascontiguousarray(fft.rfft2(kernel / kernel.sum()).real)


def gaussian_transfer(canvas: tuple[int, int], sigma: float) -> Array:
    """Transfer function (h, w // 2 + 1) of a Gaussian over pixels; the sum is kept."""
    rows, columns = (_gaussian_line(n, sigma) for n in canvas)
    return fft.fft(rows).real[:, None] * fft.rfft(columns).real[None, :]


def _gaussian_line(n: int, sigma: float) -> Array:
    position = fft.fftfreq(n, 1 / n)
    sigma = max(sigma, 1e-3)
    kernel = special.ndtr((position + 0.5) / sigma)
    kernel -= special.ndtr((position - 0.5) / sigma)
    return (kernel / kernel.sum()).astype(np.float32)


def _laplacian_transfer(canvas: tuple[int, int]) -> Array:
    y = fft.fftfreq(canvas[0]).astype(np.float32)
    x = fft.rfftfreq(canvas[1]).astype(np.float32)
    return -((2 * np.pi) ** 2) * (y[:, None] ** 2 + x[None, :] ** 2)


def split_depth(depth: Array, levels_per_slice: int) -> list[tuple[int, Array]]:
    """Levels that occur in ``depth`` and their linear weights (sum one per pixel)."""
    position = np.asarray(depth, np.float32) * levels_per_slice
    lowest, highest = int(np.floor(position.min())), int(np.ceil(position.max()))
    weights = (
        (level, np.maximum(1 - np.abs(position - level), 0))
        for level in range(lowest, highest + 1)
    )
    return [(level, weight) for level, weight in weights if weight.any()]


def render_slices(
    planes: Iterable[tuple[int, Array]], optics: Optics, phase: bool = False
) -> Array:
    """Blur planes of matter and add them up, slice by slice.

    Parameters
    ----------
    planes : iterable of (int, ndarray)
        Level (depth in slices times ``levels_per_slice``) and float32 (components, h,
        w). At least one.
    optics : Optics
        The blur.
    phase : bool
        The last component is a phase, rendered as its Laplacian times the defocus
        in slices.

    Returns
    -------
    ndarray
        float32 (slices + 1, components, h, w); the last entry has everything in focus.
    """
    per_slice = optics.levels_per_slice
    curvature = np.repeat(_laplacian_transfer(optics.canvas), 2, axis=1)
    spectra: Array | None = None
    for level, plane in planes:
        spectrum = fft.rfft2(plane.astype(np.float32, copy=False)).view(np.float32)
        if spectra is None:
            spectra = np.zeros((optics.slices + 1, *spectrum.shape), np.float32)
            product = np.empty_like(spectrum)
        focused = len(plane) - 1 if phase else len(plane)
        spectrum[focused:] *= curvature
        for z in range(optics.slices):
            steps = z * per_slice - level
            np.multiply(spectrum, optics.transfer(steps), out=product)
            product[focused:] *= np.float32(steps / per_slice)
            spectra[z] += product
        spectra[-1, :focused] += spectrum[:focused] * optics.transfer(0)
    if spectra is None:
        raise ValueError("There is nothing to see: no plane was given.")
    return fft.irfft2(spectra.view(np.complex64), s=optics.canvas, overwrite_x=True)


@dataclass(frozen=True)
class Layer:
    """Opaque matter.

    Attributes
    ----------
    colour
        float32 (components, h, w).
    coverage
        float32 (h, w) in [0, 1]; None where the layer is everywhere.
    depth
        float32 (h, w) in slices.
    """

    colour: Array
    coverage: Array | None
    depth: Array


def render_layers(layers: Sequence[Layer], optics: Optics) -> tuple[Array, Array]:
    """Render opaque layers, back to front.

    Returns
    -------
    image : ndarray
        float32 (slices + 1, components, h, w); the last has everything in focus.
    depth : ndarray
        float32 (h, w) in slices, of the frontmost layer that covers half of a pixel.
    """
    image, _, depth = _render_layer(layers[0], optics)
    for layer in layers[1:]:
        front, coverage, front_depth = _render_layer(layer, optics)
        image = image * (1 - coverage) + front
        depth = np.where(coverage[-1, 0] > 0.5, front_depth, depth)
    return image, depth


def _render_layer(layer: Layer, optics: Optics) -> tuple[Array, Array, Array]:
    """Colour times coverage and coverage of one layer in each slice, and its depth."""
    n = len(layer.colour)
    one = np.ones((1, *optics.canvas), np.float32)
    levels = split_depth(layer.depth, optics.levels_per_slice)
    even = bool(layer.depth.min() == layer.depth.max())
    components = [layer.colour]
    if layer.coverage is not None:
        components = [layer.colour * layer.coverage, layer.coverage[None]]
    if not even:  # a layer of one depth keeps its weights, which sum to one
        components.append(one)
    matter = np.concatenate(components)
    planes = ((level, matter * weight) for level, weight in levels)
    rendered = render_slices(planes, optics)
    if not even:
        rendered = rendered[:, :-1] / np.maximum(rendered[:, -1:], 1e-4)
    if layer.coverage is None:
        return rendered, one, layer.depth
    return rendered[:, :n], np.clip(rendered[:, n:], 0, 1), layer.depth


@dataclass(frozen=True)
class Piece:
    """A piece of transparent matter.

    Attributes
    ----------
    component
        Its channel (fluorescence) or stain (brightfield); -1 for the phase.
    box
        Rows and columns of the canvas that it lies on.
    amount
        float32 (h, w): emission, absorbance or phase.
    depth
        float32 (h, w) in slices, or one number.
    """

    component: int
    box: tuple[slice, slice]
    amount: Array
    depth: Array


def composite_layers(
    pieces: Sequence[Piece], components: int, optics: Optics
) -> Iterator[tuple[int, Array]]:
    """Add up transparent matter by level: (components, h, w) for ``render_slices``."""
    shape = (components, *optics.canvas)
    scattered = [_scatter(piece, shape, optics.levels_per_slice) for piece in pieces]
    level, index, amount = (
        np.concatenate(column) for column in zip(*scattered, strict=True)
    )
    order = np.argsort(level, kind="stable")
    found, first = np.unique(level[order], return_index=True)
    for n, members in zip(found, np.split(order, first[1:]), strict=True):
        plane = np.bincount(index[members], amount[members], minlength=math.prod(shape))
        yield int(n), plane.astype(np.float32).reshape(shape)


def _scatter(
    piece: Piece, shape: tuple[int, int, int], levels_per_slice: int
) -> tuple[Array, Array, Array]:
    """Level, index in the flat plane and amount of each pixel of a piece."""
    y, x = np.nonzero(piece.amount)
    position = np.broadcast_to(piece.depth, piece.amount.shape)[y, x] * levels_per_slice
    below = np.floor(position)
    share, amount = position - below, piece.amount[y, x]
    component = piece.component % shape[0]
    index = (component * shape[1] + y + piece.box[0].start) * shape[2]
    index += x + piece.box[1].start
    level = below.astype(np.int16)
    return (
        np.concatenate([level, level + np.int16(1)]),
        np.concatenate([index, index]),
        np.concatenate([amount * (1 - share), amount * share]),
    )


def strongest_depth(
    pieces: Sequence[Piece], canvas: tuple[int, int], least: float = 1e-3
) -> tuple[Array, Array]:
    """Depth (h, w) of the strongest matter of each pixel, and where there is any.

    Where there is none the depth is that of the nearest matter.
    """
    strongest = np.full(canvas, least, np.float32)
    depth = np.zeros(canvas, np.float32)
    for piece in pieces:
        if piece.component < 0:
            continue
        largest = strongest[piece.box]
        stronger = piece.amount > largest
        depth[piece.box] = np.where(stronger, piece.depth, depth[piece.box])
        largest[stronger] = piece.amount[stronger]
    matter = strongest > least
    if not matter.all():
        nearest = ndimage.distance_transform_edt(
            ~matter, return_distances=False, return_indices=True
        )
        depth = depth[tuple(nearest)]
    return depth, matter


def expose(
    image: Array,
    rng: np.random.Generator,
    *,
    electrons: float | None,
    read_noise: float = 0.0,
    offset: float = 0.0,
    dtype: DTypeLike = np.uint16,
) -> Array:
    """Add camera noise to an image, by the noise model at the top of this module.

    Parameters
    ----------
    image : ndarray
        Any shape, 0 = dark, 1 = white.
    rng : numpy.random.Generator
        The noise is drawn from it.
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
        mean = np.maximum(image, 0, dtype=np.float32) * np.float32(electrons)
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        # Above 50 electrons a Poisson is as good as a Gaussian, and ten times slower.
        few = mean < 50
        spread = np.sqrt(np.where(few, 0, mean) + np.float32(read_noise) ** 2)
        mean[few] = rng.poisson(mean[few])
        image = (mean + spread * noise) / np.float32(electrons)
    value = np.float32(offset) + np.float32(1 - offset) * image
    if dtype == np.float32:
        return value.astype(np.float32)
    full = np.iinfo(dtype).max
    return np.rint(np.clip(value, 0, 1) * full).astype(dtype)
