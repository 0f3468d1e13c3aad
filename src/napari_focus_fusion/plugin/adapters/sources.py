"""Which layers are focus stacks: one with slices, or flat ones, a slice each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.layers import Image

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.plugin.adapters.layers import (
    METADATA,
    level_0,
    source_of,
    stack_from_layers,
)
from napari_focus_fusion.plugin.adapters.maps import about

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Layer

    from napari_focus_fusion.stack import FocusStack


def is_stack(layer: Any) -> bool:
    """Whether a layer can be a focus stack, and is no result of ours."""
    return (
        isinstance(layer, Image)
        and 3 <= layer.ndim <= 5
        and METADATA not in layer.metadata
    )


def are_slices(layers: Sequence[Any]) -> bool:
    """Whether layers can be the slices of one stack: two or more flat ones alike."""
    return len(layers) > 1 and all(
        is_slice(layer) and alike(layer, layers[0]) for layer in layers
    )


def is_slice(layer: Any) -> bool:
    """Whether a layer can be a slice of a stack, and is no result of ours."""
    return (
        isinstance(layer, Image) and layer.ndim == 2 and METADATA not in layer.metadata
    )


def alike(one: Image, other: Image) -> bool:
    """Whether two layers may be channels of one image."""
    a, b = level_0(one), level_0(other)
    return (one.rgb, a.shape, a.dtype) == (other.rgb, b.shape, b.dtype)


def slices_of(layers: Iterable[Layer], source: str) -> tuple[Image, ...]:
    """The flat layers that a result says it was made of.

    Parameters
    ----------
    layers
        Where to look for them.
    source
        What :func:`~napari_focus_fusion.plugin.adapters.layers.source_of` gave of them.

    Returns
    -------
    tuple of Image
        In the order of the slices; empty if they are not all there by these names.
    """
    named: list[Any] = [layer for layer in layers if repr(layer.name) in source]
    named.sort(key=lambda layer: source.index(repr(layer.name)))
    return tuple(named) if are_slices(named) and source_of(named) == source else ()


def stack_of(
    source: Image | Sequence[Image], result: Layer | None = None
) -> FocusStack | None:
    """What the layers of a stack hold; None if they are no stack.

    Parameters
    ----------
    source
        One layer, or a flat one a slice.
    result
        What came of them, perhaps: then the axes are read as its fusion read them.
    """
    first = source[0] if isinstance(source, Sequence) else source
    known, axes = about(result), None
    if known.get("source_shape") == list(level_0(first).shape):
        axes = known["source_axes"].removesuffix("S")
    try:
        return stack_from_layers(source, axes=axes)
    except FocusFusionError:
        return None
