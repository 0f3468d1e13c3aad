"""The interfaces of models, one for each kind."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.models.spec import ModelSpec

#: How a model finds the sharp slice.
Kind = Literal["slice-scorer", "pair-masker", "set-masker", "reconstructor", "surface"]


class FusionModel(nn.Module):
    """What every kind of model shares.

    Attributes
    ----------
    kind
        Of the class below that a model derives from.
    window
        Radius in pixels of the square window over which the decision adds up the
        model's scores.
    needs_sample
        Whether the stack is sampled before: for the statistics of :meth:`context`, or
        for the normalisation of a network's input. A plain measure, which scales
        with the intensities, spares the stack one reading.
    bytes_a_tile_pixel
        Memory that scoring, or encoding, takes for each pixel of a tile of one slice,
        so that tiles are cut to what there is.
    spec, weights_hash
        Set when the model is loaded.
    """

    kind: ClassVar[Kind]
    window: ClassVar[int] = 5
    needs_sample: ClassVar[bool] = False
    bytes_a_tile_pixel: ClassVar[float] = 1024
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

    def bytes_a_pixel(self, slices: int) -> int:
        """Memory of a pixel of what a run keeps for this kind of model.

        Parameters
        ----------
        slices
            How many the stack has.
        """
        return 0


class SliceScorer(FusionModel):
    """Scores each slice on its own: any number of slices, in any order."""

    kind: ClassVar[Kind] = "slice-scorer"

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
    """Compares two images: which is the sharper.

    For N slices each slice is compared with the best of the others near the surface,
    as the plain focus measure finds them: N comparisons and no order.
    """

    kind: ClassVar[Kind] = "pair-masker"

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

    kind: ClassVar[Kind] = "set-masker"

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


class Encoded(NamedTuple):
    """What a :class:`Reconstructor` keeps of slices.

    Attributes
    ----------
    largest
        (N, C, h, w), of which the elementwise largest over the slices is kept, and the
        slice that it came from.
    added
        (N, D, h, w), of which the sum over the slices is kept.
    """

    largest: Tensor
    added: Tensor


class Reconstructor(FusionModel):
    """Fuses features of all slices and reconstructs the image from them.

    Its intensities are reconstructed, not observed. Features are pooled over the
    slices elementwise, so that slices can be streamed, in any order and number.

    Attributes
    ----------
    channels
        C and D of :class:`Encoded`.
    voting
        How many of the largest features, the first of them, :meth:`vote` looks at: of
        these it is kept which slice they came from. None: all.
    decoder_halo
        Pixels around a tile that :meth:`reconstruct` needs; ``spec.halo`` is the sum of
        these and those that :meth:`encode` needs.
    """

    kind: ClassVar[Kind] = "reconstructor"
    channels: ClassVar[tuple[int, int]]
    voting: ClassVar[int | None] = None
    decoder_halo: ClassVar[int]

    @property
    def voters(self) -> int:
        """How many features :meth:`vote` looks at."""
        return self.channels[0] if self.voting is None else self.voting

    def bytes_a_pixel(self, slices: int) -> int:
        """The pooled features; of those that vote also the slice they came from."""
        return sum(self.channels) * 4 + self.voters * 2

    @abstractmethod
    def encode(self, slices: Tensor, context: Any = None) -> Encoded:
        """Features of slices (N, 1, h, w) float32, normalised; each on its own."""

    @abstractmethod
    def reconstruct(
        self, largest: Tensor, added: Tensor, count: int | Tensor, context: Any = None
    ) -> Tensor:
        """The fused image, a reconstruction.

        Parameters
        ----------
        largest, added
            (1, C, h, w) and (1, D, h, w), pooled over the slices.
        count
            How many slices were pooled; (1, 1, h, w) where that differs by pixel.
        context
            What :meth:`context` returned for the stack.

        Returns
        -------
        Tensor
            (1, h, w) float32, normalised like the slices.
        """

    def vote(self, winner: Tensor, largest: Tensor, z: int) -> Tensor:
        """The score of a slice from the features: higher is sharper.

        Parameters
        ----------
        winner
            (voters, h, w) int16, the slice that each of the first of the largest
            features came from; -1 where several slices have it.
        largest
            (voters, h, w), these features.
        z
            Slice.

        Returns
        -------
        Tensor
            (h, w) float32, at least 0: here the sum of the features it won.
        """
        return (largest.clamp_min(0) * (winner == z)).sum(0)


class SuperResolver(FusionModel):
    """Makes slices finer and fuses the finer slices.

    Pixels are areas: pixel i of the finer grid has its centre at
    ``(i + 0.5) / scale - 0.5`` of the coarser one.

    Attributes
    ----------
    feature_channels
        F, of :meth:`features`.
    upscale_halo
        Pixels of the slices around a tile that :meth:`features` and :meth:`resolve`
        together need.
    bytes_a_finer_pixel
        Memory that :meth:`features` takes for each pixel of the finer grid.
    """

    feature_channels: ClassVar[int]
    upscale_halo: ClassVar[int]
    bytes_a_finer_pixel: ClassVar[float] = 256

    @abstractmethod
    def features(self, slices: Tensor, scale: int, context: Any = None) -> Tensor:
        """What is fused, on the finer grid.

        Parameters
        ----------
        slices
            (N, C, h, w) float32, normalised; C is 1, or 3 for RGB.
        scale
            2, 3 or 4.
        context
            What :meth:`context` returned for the stack.

        Returns
        -------
        Tensor
            (N, F, scale * h, scale * w).
        """

    @abstractmethod
    def resolve(self, features: Tensor, scale: int, context: Any = None) -> Tensor:
        """The image reconstructed from fused features.

        Parameters
        ----------
        features
            (B, F, scale * h, scale * w), the mean of the slices' features, weighted
            by the decision.
        scale, context
            As :meth:`features` takes them.

        Returns
        -------
        Tensor
            (B, 3, scale * h, scale * w) RGB, normalised like the slices; of grey
            slices the mean of the three is taken.
        """


def as_batch(planes: Tensor) -> Tensor:
    """(N, h, w) planes as the (N, 1, h, w) that networks take, channels last."""
    batch = planes.unsqueeze(1)
    return batch.contiguous(memory_format=torch.channels_last)
