"""The depth map as a 3-D surface textured with the fused image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.placement import Transform, displayed_axes, displayed_units

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_focus_fusion.result import FusionResult, LayerData

#: Most vertices of the mesh and pixels of the texture, of all time points together:
#: what old graphics cards render smoothly, and hold in one texture.
MAX_VERTICES = 1 << 17
MAX_TEXELS = 1 << 24
#: Longest side of a texture that all graphics cards accept.
MAX_TEXTURE_SIDE = 8192


def surface_layer(result: FusionResult) -> LayerData:
    """Make a surface layer of a result.

    Parameters
    ----------
    result
        A result of :func:`napari_focus_fusion.fuse`; its channels are mixed in their
        colours and contrast on the screen.

    Returns
    -------
    ((vertices, triangles, values), attributes, "surface")
        In world coordinates it lies at the sharpest slices. It has a vertex at every
        n-th pixel of the depth map, with n as small as :data:`MAX_VERTICES`
        allows. Time points follow each other along their axis.
    """
    stack = result.stack
    shown = "".join(axis for axis in displayed_axes(stack) if axis != "C")
    depth = _in_order(result.depth, stack.map_axes, "TYX")
    count, height, width = depth.shape
    step = _step(count * height * width, MAX_VERTICES)
    rows, columns = (_every(n, step) for n in (height, width))
    slices = depth[:, rows[:, None], columns] / stack.pixel_size("Z")
    times, y, x = np.meshgrid(np.arange(count), rows, columns, indexing="ij")
    places = {"T": times, "Z": slices, "Y": y, "X": x}
    vertices = np.stack([places[axis].ravel() for axis in shown], -1).astype(np.float32)
    triangles = _triangles(count, len(rows), len(columns))

    texture = _texture(result)
    # In the texture the time points lie below each other, the first one at the top.
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
        "metadata": {METADATA_KEY: {"output": "surface", **result.provenance}},
        **_place(result, shown),
    }
    return (
        (vertices, triangles, np.ones(len(vertices), np.float32)),
        attributes,
        "surface",
    )


def _by(result: FusionResult) -> str:
    model = result.provenance.get("model", "")
    return f" [{model}]" if model else ""


def _place(result: FusionResult, shown: str) -> dict[str, Any]:
    stack = result.stack
    with_channels = displayed_axes(stack)
    kept = [i for i, axis in enumerate(with_channels) if axis in shown]
    labels = stack.display.get("axis_labels") or with_channels.lower()
    return {
        **Transform.of(stack).restricted(kept).attributes(),
        "units": tuple(displayed_units(stack)[i] for i in kept),
        "axis_labels": tuple(labels[i] for i in kept),
    }


def _in_order(array: Any, axes: str, order: str) -> NDArray[Any]:
    """All of an array, with its axes in an order; missing axes have length 1."""
    pixels = np.asarray(array)
    there = [axes.index(axis) for axis in order if axis in axes]
    pixels = pixels.transpose(there)
    lacking = [i for i, axis in enumerate(order) if axis not in axes]
    return np.expand_dims(pixels, lacking)


def _step(size: int, most: int) -> int:
    """Step along both axes that leaves at most so many pixels."""
    return max(1, int(np.ceil((size / most) ** 0.5)))


def _every(length: int, step: int) -> NDArray[Any]:
    """Every n-th index and the last one, so that the surface covers the image."""
    indices = np.arange(0, length, step)
    last = length - 1
    return indices if indices[-1] == last else np.append(indices, last)


def _triangles(count: int, rows: int, columns: int) -> NDArray[Any]:
    """Two triangles a cell, (n, 3) indices of vertices, none across time points."""
    shape = (count, rows, columns)
    index = np.arange(np.prod(shape), dtype=np.uint32).reshape(shape)
    a, b = index[:, :-1, :-1].ravel(), index[:, :-1, 1:].ravel()
    c, d = index[:, 1:, :-1].ravel(), index[:, 1:, 1:].ravel()
    return np.concatenate([np.stack([a, c, b], -1), np.stack([b, c, d], -1)])


def _texture(result: FusionResult) -> NDArray[Any]:
    """The fused image as displayed: (T * h, w, 3) uint8."""
    stack = result.stack
    pixels = _in_order(result.fused, stack.fused_axes, "TCYXS")
    times, _, height, width, samples = pixels.shape
    step = max(
        _step(times * height * width, MAX_TEXELS),
        -(-times * height // MAX_TEXTURE_SIDE),
        -(-width // MAX_TEXTURE_SIDE),
    )
    pixels = pixels[:, :, ::step, ::step]
    if samples >= 3:
        # The value that napari shows as white in a colour image.
        white = np.iinfo(stack.dtype).max if stack.dtype.kind in "iu" else 1
        mixed = pixels[..., :3].mean(1, dtype=np.float32) / np.float32(white)
    else:
        mixed = sum(
            _coloured(pixels[:, i, ..., 0], attributes)
            for i, (_, attributes, _) in enumerate(result.fused_layers())
        )
    shades = (np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8)
    return shades.reshape(-1, *shades.shape[2:])


def _coloured(pixels: NDArray[Any], attributes: dict[str, Any]) -> NDArray[Any]:
    """(T, h, w) in the colours of a layer with these attributes: (T, h, w, 3)."""
    from napari.utils.colormaps import ensure_colormap

    low, high = attributes["contrast_limits"]
    shares = np.clip((pixels.astype(np.float32) - low) / (high - low), 0, 1)
    shares = shares ** attributes.get("gamma", 1.0)
    # 256 shades are what a screen shows.
    shades = ensure_colormap(attributes.get("colormap", "gray")).map(
        np.linspace(0, 1, 256)
    )[:, :3]
    return shades.astype(np.float32)[(shares * 255).astype(np.uint8)]
