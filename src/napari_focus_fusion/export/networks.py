"""What is exported of each kind of model: modules that take and return tensors alone.

Their source goes into the package with the network's, so that the weights can be used
without this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_focus_fusion.models.base import Encoded


class Exported(nn.Module):
    """A network with the statistics of a stack fixed, as buffers.

    Parameters
    ----------
    network
        A fusion model.
    """

    #: What it is called in file names, and the names of its tensors.
    part: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network.eval()
        # Of whatever sample: the shapes of the statistics are always the same.
        with torch.no_grad():
            self.template = network.context([torch.zeros(1, 1, 64, 64)] * 2)
        self.fix(self.template)

    def fix(self, context: Any) -> None:
        """Take over the statistics of a stack, what ``context`` of a model returns."""
        for i, tensor in enumerate(tensors_in(context)):
            self.register_buffer(f"statistics_{i}", tensor.detach().clone())

    def context(self) -> Any:
        """The statistics as ``score`` of a model takes them."""
        count = len(tensors_in(self.template))
        kept = iter([getattr(self, f"statistics_{i}") for i in range(count)])
        return filled(self.template, kept)


class SliceScores(Exported):
    """How sharp each pixel of each slice is."""

    part = "scores"
    inputs = ("slices",)
    outputs = ("scores",)

    def forward(self, slices: Tensor) -> Tensor:
        """(N, 1, h, w) normalised slices -> (N, 1, h, w), at least 0."""
        scores: Tensor = self.network.score(slices, self.context())
        return scores[:, None]


class StackWeights(Exported):
    """The weight of each slice of a stack at each pixel."""

    part = "weights"
    inputs = ("stack",)
    outputs = ("weights",)

    def forward(self, stack: Tensor) -> Tensor:
        """(1, N, h, w), a normalised stack -> (1, N, h, w), adding up to 1 over N."""
        weights: Tensor = self.network.masks(stack[0][:, None], self.context())
        return weights[None]


class Encoder(Exported):
    """Features of each slice, to be pooled over the slices."""

    part = "encoder"
    inputs = ("slices",)
    outputs = ("largest", "added")

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, h, w) normalised slices -> (N, C, h, w) and (N, D, h, w)."""
        encoded: Encoded = self.network.encode(slices, self.context())
        return encoded.largest, encoded.added


class Decoder(Exported):
    """The fused image from features that were pooled over the slices."""

    part = "decoder"
    inputs = ("largest", "added", "count")
    outputs = ("fused",)

    def forward(self, largest: Tensor, added: Tensor, count: Tensor) -> Tensor:
        """(B, C, h, w), (B, D, h, w) and (B, 1), how many slices -> (B, 1, h, w)."""
        slices = count.reshape(-1, 1, 1, 1)
        fused: Tensor = self.network.reconstruct(largest, added, slices, self.context())
        return fused[:, None]


def tensors_in(context: Any) -> list[Tensor]:
    """The tensors of statistics, in whatever tuples, in their order."""
    if isinstance(context, Tensor):
        return [context]
    if isinstance(context, tuple):
        return [tensor for item in context for tensor in tensors_in(item)]
    return []


def filled(template: Any, tensors: Iterator[Tensor]) -> Any:
    """The same tuples with other tensors in them."""
    if isinstance(template, Tensor):
        return next(tensors)
    if isinstance(template, tuple):
        items = [filled(item, tensors) for item in template]
        return type(template)(*items) if hasattr(template, "_fields") else tuple(items)
    return template
