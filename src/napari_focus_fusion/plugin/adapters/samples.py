"""File > Open Sample: two simulated focus stacks, as napari layer data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_focus_fusion.simulation.scenes import Scene

LayerData = tuple[Any, dict[str, Any], str]


def brightfield_sample() -> list[LayerData]:
    """Stained pollen grains in brightfield.

    Returns
    -------
    list of (data, attributes, type)
        One RGB image layer, (Z, Y, X, S) uint8.
    """
    from napari_focus_fusion.simulation.samples import brightfield_scene

    scene = brightfield_scene()
    attributes = {"name": "Pollen", "rgb": True, **_place(scene)}
    return [(scene.stack, attributes, "image")]


def fluorescence_sample() -> list[LayerData]:
    """Nuclei and microtubules of cultured cells in fluorescence.

    Returns
    -------
    list of (data, attributes, type)
        One image layer a channel, (Z, Y, X) uint16, with additive blending.
    """
    import numpy as np

    from napari_focus_fusion.simulation.samples import fluorescence_scene

    scene = fluorescence_scene()
    layers: list[LayerData] = []
    for channel, name, colormap in zip(
        scene.stack, scene.channel_names, ("bop blue", "bop orange"), strict=True
    ):
        low, high = np.percentile(channel[:, ::4, ::4], (1, 99.8))
        attributes = {
            "name": name.capitalize(),
            "colormap": colormap,
            "blending": "additive",
            "contrast_limits": (float(low), float(high)),
            **_place(scene),
        }
        layers.append((channel, attributes, "image"))
    return layers


def _place(scene: Scene) -> dict[str, Any]:
    """Pixel sizes and axes of a layer; napari counts no axis for RGB or channels."""
    return {
        "scale": tuple(scene.scale[axis] for axis in "ZYX"),
        "units": tuple(scene.units[axis] for axis in "ZYX"),
        "axis_labels": ("z", "y", "x"),
        "metadata": {"synthetic": True, "seed": scene.seed},
    }
