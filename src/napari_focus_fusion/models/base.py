"""What a model is: the contract of its kind."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.models.spec import ModelSpec


class FusionModel(nn.Module):
    """What every kind of model shares.

    Attributes
    ----------
    window
        Radius in pixels of the square window over which the decision adds up the
        model's scores.
    needs_sample
        Whether :meth:`context` looks at the stack. A model that does not spares the
        stack one reading.
    spec, weights_hash
        Set when the model is loaded.
    """

    window: ClassVar[int] = 5
    needs_sample: ClassVar[bool] = False
    spec: ModelSpec | None = None
    weights_hash: str = ""

    def context(self, sample: Sequence[Tensor]) -> Any:
        """Statistics of a whole stack that scoring its tiles needs.

        Everything that a network pools over an image comes from here, so that the
        result does not depend on the tiles. It must not depend on the order of the
        slices.

        Parameters
        ----------
        sample
            For each slice, the same fixed windows of it: (windows, 1, h, w) float32,
            normalised like the tiles, on the model's device.

        Returns
        -------
        object
            Handed to ``score``; tensors, or tuples of tensors, so that it can be sent
            to another process. None for a model without such statistics.
        """
        return None


class SliceScorer(FusionModel):
    """Scores each slice on its own: any number of slices, in any order."""

    @abstractmethod
    def score(self, slices: Tensor, context: Any = None) -> Tensor:
        """How sharp each pixel is.

        Parameters
        ----------
        slices
            (N, 1, h, w) float32, normalised.
        context
            What :meth:`context` returned for the stack.

        Returns
        -------
        Tensor
            (N, h, w) float32, at least 0, higher is sharper. Comparable between the
            slices of one stack; right to within ``halo`` pixels of the edge.
        """


class PairMasker(FusionModel):
    """Says which of two images is the sharper.

    For N slices each slice is compared with the best of the others, as the plain
    focus measure finds them: N comparisons and no order.
    """

    @abstractmethod
    def mask(self, a: Tensor, b: Tensor, context: Any = None) -> Tensor:
        """Probability that ``a`` is the sharper.

        Parameters
        ----------
        a, b
            (B, 1, h, w) float32, normalised.
        context
            What :meth:`context` returned for the stack.

        Returns
        -------
        Tensor
            (B, h, w) float32 in [0, 1].
        """


class SetMasker(FusionModel):
    """Weighs all slices of a tile at once, whatever their number and order."""

    @abstractmethod
    def masks(self, slices: Tensor, context: Any = None) -> Tensor:
        """The weight of each slice at each pixel.

        Parameters
        ----------
        slices
            (N, 1, h, w) float32, normalised.
        context
            What :meth:`context` returned for the stack.

        Returns
        -------
        Tensor
            (N, h, w) float32, at least 0, adding up to 1 over N; permuting the slices
            permutes the weights.
        """


def as_batch(planes: Tensor) -> Tensor:
    """(N, h, w) planes as the (N, 1, h, w) that networks take, channels last."""
    batch = planes.unsqueeze(1)
    return batch.contiguous(memory_format=torch.channels_last)
