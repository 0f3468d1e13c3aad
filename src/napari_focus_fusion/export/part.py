"""A network that is exported, and the names of its files and axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from napari_focus_fusion.export.networks import Exported

SOURCE, README = "network.py", "README.md"
#: The function in :data:`SOURCE` that makes the network.
FACTORY = "exported_network"
#: Axes of the tensors; those of a fixed size have no name where formats are written.
IMAGES = ("batch", "channel", "y", "x")
AXES = {
    "stack": ("batch", "z", "y", "x"),
    "weights": ("batch", "z", "y", "x"),
    "count": ("batch", "channel"),
}


@dataclass(frozen=True)
class Part:
    """One network of a model, ready to be described.

    Attributes
    ----------
    network
        With the statistics that it is fixed to.
    name
        Of the model, and of the part where there are several.
    halo
        Pixels at each edge of what it returns that are not right.
    least
        The least height and width of images.
    raw, inputs, outputs
        Of the test, by the names of the tensors: as given, normalised, and returned.
    fixed
        What the statistics are of, in words; empty where there are none.
    """

    network: Exported
    name: str
    halo: int
    least: int
    raw: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    fixed: str
