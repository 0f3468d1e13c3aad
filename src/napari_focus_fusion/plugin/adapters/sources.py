"""Which layers are focus stacks: one with slices, or 2-D ones, a slice each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.plugin.adapters.layers import (
    level_0,
    source_of,
    stack_from_layers,
)
from napari_focus_fusion.plugin.adapters.maps import aligned_as, result_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Layer

    from napari_focus_fusion.stack import FocusStack


def is_stack(layer: Any) -> bool:
    """Whether a layer can be a focus stack, and is no result of this plugin."""
    return (
        isinstance(layer, Image)
        and 3 <= layer.ndim <= 5
        and METADATA_KEY not in layer.metadata
    )


def are_slices(layers: Sequence[Any]) -> bool:
    """Whether layers can be the slices of one stack: two or more alike 2-D layers."""
    return len(layers) > 1 and all(
        is_slice(layer) and alike(layer, layers[0]) for layer in layers
    )


def is_slice(layer: Any) -> bool:
    """Whether a layer can be a slice of a stack, and is no result of this plugin."""
    return (
        isinstance(layer, Image)
        and layer.ndim == 2
        and METADATA_KEY not in layer.metadata
    )


def alike(one: Image, other: Image) -> bool:
    """Whether two layers may be channels of one image."""
    a, b = level_0(one), level_0(other)
    return (one.rgb, a.shape, a.dtype) == (other.rgb, b.shape, b.dtype)


def slices_of(layers: Iterable[Layer], source: str) -> tuple[Image, ...]:
    """The two-dimensional layers that a result names as its source.

    Parameters
    ----------
    layers
        Layers to search.
    source
        The result of :func:`~napari_focus_fusion.plugin.adapters.layers.source_of`.

    Returns
    -------
    tuple of Image
        In the order of the slices; empty if a layer of these names is missing.
    """
    named: list[Any] = [layer for layer in layers if repr(layer.name) in source]
    named.sort(key=lambda layer: source.index(repr(layer.name)))
    return tuple(named) if are_slices(named) and source_of(named) == source else ()


def stack_of(
    source: Image | Sequence[Image], result: Layer | None = None
) -> FocusStack | None:
    """The stack that layers hold; None if they are none, or not that of an alignment.

    Parameters
    ----------
    source
        One layer, or a two-dimensional one a slice.
    result
        A result, perhaps of these layers: then the axes are those of its fusion, and
        slices are aligned and levelled as they were for it.
    """
    first = source[0] if isinstance(source, Sequence) else source
    known, axes = result_metadata(result), None
    letters = known.get("source_axes", "")
    sizes = dict(zip(letters, known.get("source_shape", ()), strict=False))
    order = known.get("source_order", letters.removesuffix("S"))
    samples = "S" if "S" in letters else ""
    if sizes and [sizes[a] for a in order + samples] == list(level_0(first).shape):
        axes = order
    try:
        return aligned_as(stack_from_layers(source, axes=axes), known)
    except FocusFusionError:
        return None
