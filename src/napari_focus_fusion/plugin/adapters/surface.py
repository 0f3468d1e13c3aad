"""The depth map as a surface in space that wears the fused image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.plugin.adapters.layers import chosen_layers
from napari_focus_fusion.result import _shown_axes, _Transform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_focus_fusion.result import FusionResult, LayerData

#: Corners of the mesh and pixels of the texture, at most, of all time points together:
#: what graphics cards of any age can turn smoothly, and take in one texture.
MOST_CORNERS = 1 << 17
MOST_TEXELS = 1 << 24
#: Longest side of a texture that all of them take.
LONGEST_SIDE = 8192


def surface_layer(result: FusionResult) -> LayerData:
    """Make a surface layer of a result.

    Parameters
    ----------
    result
        What :func:`napari_focus_fusion.fuse` gave; its channels are mixed in the
        colours and contrast that they have on the screen.

    Returns
    -------
    ((corners, triangles, values), attributes, "surface")
        In the world it lies where the slices lie that are sharp. Corners are those of
        every n-th pixel of the depth map, with n as small as :data:`MOST_CORNERS`
        allows. Time points follow each other along their axis.
    """
    stack = result.stack
    shown = "".join(axis for axis in _shown_axes(stack)[0] if axis != "C")
    depth = _in_order(result.depth, stack.map_axes, "TYX")
    count, height, width = depth.shape
    step = _step(count * height * width, MOST_CORNERS)
    rows, columns = (_every(n, step) for n in (height, width))
    slices = depth[:, rows[:, None], columns] / stack.pixel_size("Z")
    times, y, x = np.meshgrid(np.arange(count), rows, columns, indexing="ij")
    places = {"T": times, "Z": slices, "Y": y, "X": x}
    corners = np.stack([places[axis].ravel() for axis in shown], -1).astype(np.float32)
    triangles = _triangles(count, len(rows), len(columns))

    texture = _texture(result)
    # Time points lie below each other in the texture, the first one at its top.
    u = (x + 0.5) / width
    v = 1 - (times + (y + 0.5) / height) / count
    attributes: dict[str, Any] = {
        "name": f"{stack.name} surface" + _by(result),
        "texture": texture,
        "texcoords": np.stack([u.ravel(), v.ravel()], -1).astype(np.float32),
        "colormap": "gray",
        "contrast_limits": (0.0, 1.0),
        "shading": "none",
        "visible": False,
        "metadata": {"napari_focus_fusion": {"output": "surface", **result.provenance}},
        **_place(result, shown),
    }
    return (
        (corners, triangles, np.ones(len(corners), np.float32)),
        attributes,
        "surface",
    )


def _by(result: FusionResult) -> str:
    model = result.provenance.get("model", "")
    return f" [{model}]" if model else ""


def _place(result: FusionResult, shown: str) -> dict[str, Any]:
    stack = result.stack
    with_channels = _shown_axes(stack)[0]
    transform = _Transform.of(stack, with_channels)
    kept = [i for i, axis in enumerate(with_channels) if axis in shown]
    square = np.ix_(kept, kept)
    affine = np.eye(len(kept) + 1)
    affine[:-1, :-1] = transform.affine[:-1, :-1][square]
    affine[:-1, -1] = transform.affine[:-1, -1][kept]
    labels = stack.display.get("axis_labels") or with_channels.lower()
    return {
        "scale": transform.scale[kept],
        "translate": transform.translate[kept],
        "rotate": transform.rotate[square],
        "shear": transform.shear[square],
        "affine": affine,
        "units": tuple(stack.unit(axis) for axis in shown),
        "axis_labels": tuple(labels[i] for i in kept),
    }


def _in_order(array: Any, axes: str, order: str) -> NDArray[Any]:
    """All of an array, with its axes in an order; those that it lacks are 1 long."""
    pixels = np.asarray(array)
    there = [axes.index(axis) for axis in order if axis in axes]
    pixels = pixels.transpose(there)
    lacking = [i for i, axis in enumerate(order) if axis not in axes]
    return np.expand_dims(pixels, lacking)


def _step(size: int, most: int) -> int:
    """Every how many pixels of each direction, so that at most so many are left."""
    return max(1, int(np.ceil((size / most) ** 0.5)))


def _every(length: int, step: int) -> NDArray[Any]:
    """Every n-th index, and always the last one: the surface ends with the image."""
    indices = np.arange(0, length, step)
    last = length - 1
    return indices if indices[-1] == last else np.append(indices, last)


def _triangles(count: int, rows: int, columns: int) -> NDArray[Any]:
    """Two triangles a cell, (n, 3) indices of corners, none across time points."""
    shape = (count, rows, columns)
    index = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    a, b = index[:, :-1, :-1].ravel(), index[:, :-1, 1:].ravel()
    c, d = index[:, 1:, :-1].ravel(), index[:, 1:, 1:].ravel()
    return np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)])


def _texture(result: FusionResult) -> NDArray[Any]:
    """The fused image as it looks on the screen: (T * h, w, 3) uint8."""
    stack = result.stack
    pixels = _in_order(result.fused, stack.fused_axes, "TCYXS")
    times, _, height, width, samples = pixels.shape
    step = max(
        _step(times * height * width, MOST_TEXELS),
        -(-times * height // LONGEST_SIDE),
        -(-width // LONGEST_SIDE),
    )
    pixels = pixels[:, :, ::step, ::step]
    if samples >= 3:
        # What napari shows as white in a colour image.
        white = np.iinfo(stack.dtype).max if stack.dtype.kind in "iu" else 1
        mixed = pixels[..., :3].mean(1, dtype=np.float32) / np.float32(white)
    else:
        mixed = sum(
            _coloured(pixels[:, i, ..., 0], attributes)
            for i, (_, attributes, _) in enumerate(chosen_layers(result, ("fused",)))
        )
    shades = (np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)
    return shades.reshape(-1, *shades.shape[2:])


def _coloured(pixels: NDArray[Any], attributes: dict[str, Any]) -> NDArray[Any]:
    """(T, h, w) as a layer with these attributes shows it: (T, h, w, 3)."""
    from napari.utils.colormaps import ensure_colormap

    low, high = attributes["contrast_limits"]
    shares = np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1)
    shares = shares ** attributes.get("gamma", 1.0)
    # 256 shades are what a screen shows.
    shades = ensure_colormap(attributes.get("colormap", "gray")).map(
        np.linspace(0, 1, 256)
    )[:, :3]
    return shades.astype(np.float32)[(shares * 255).astype(np.uint8)]
