"""Small real models of every kind, and stacks to feed them; shared by the tests."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from napari_focus_fusion.filters import box_sum
from napari_focus_fusion.models.base import (
    Encoded,
    PairMasker,
    Reconstructor,
    SetMasker,
    SliceScorer,
    SuperResolver,
)
from napari_focus_fusion.models.registry import ModelSpec, models
from napari_focus_fusion.models.sesf import SESF
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_focus_fusion.simulation.scenes import Scene

#: Radius over which the test models smooth their measure, and their halo.
SMOOTH = 2
HALO = SMOOTH + 1


@cache
def relief(
    height: int = 150, width: int = 190, slices: int = 6, seed: int = 1_000_001
) -> Scene:
    """A noisy grey surface, 16-bit; do not write to it."""
    return make_scene(
        seed,
        shape=(height, width),
        slices=slices,
        surface="relief",
        content="leaves",
        modality="grey",
        electrons=3000.0,
    )


def random_sesf(seed: int = 0) -> SESF:
    """SESF-Fuse with random weights, and running statistics as training leaves them."""
    torch.manual_seed(seed)
    model = SESF()
    with torch.no_grad():
        for block in [*model.encoder, *model.decoder]:
            block.normalise.running_mean.uniform_(-0.2, 0.5)
            block.normalise.running_var.uniform_(0.05, 0.5)
            block.normalise.weight.uniform_(0.5, 1.5)
            block.normalise.bias.uniform_(-0.5, 0.5)
    model.spec = models()["sesf"]
    return model.eval().requires_grad_(False)


def with_spec(model: Any, halo: int) -> Any:
    """A model of the tests' own, ready for ``fuse``."""
    model.spec = ModelSpec(
        name=type(model).__name__.lower(),
        title=type(model).__name__,
        summary="of the tests",
        target=f"{__name__}:{type(model).__name__}",
        halo=halo,
    )
    return model.eval().requires_grad_(False)


def smooth_energy(slices: Tensor) -> Tensor:
    """(N, 1, h, w) -> (N, h, w): modified Laplacian, summed over a small window."""
    energy = SumModifiedLaplacian().score(slices)
    around = [SMOOTH] * 4
    return box_sum(torch.nn.functional.pad(energy, around), SMOOTH)


class EnergyPairs(PairMasker):
    """The share of the smoothed energy that lies in ``a``."""

    def mask(self, a: Tensor, b: Tensor, context: Any = None) -> Tensor:
        of_a, of_b = smooth_energy(a), smooth_energy(b)
        return of_a / (of_a + of_b).clamp_min(1e-20)


class EnergySets(SetMasker):
    """The soft-max of the logarithms of the smoothed energies."""

    def masks(self, slices: Tensor, context: Any = None) -> Tensor:
        return torch.softmax(4 * smooth_energy(slices).clamp_min(1e-12).log(), 0)


class EnergyReconstructor(Reconstructor):
    """The mean of the slices, weighted by their smoothed energies, and a bit more.

    To it some of what it differs by from the plain mean is added, smoothed.

    Its features are the smoothed energy and that of the upper left neighbour.
    """

    channels: ClassVar[tuple[int, int]] = (2, 3)
    decoder_halo: ClassVar[int] = 1
    needs_sample: ClassVar[bool] = True

    def encode(self, slices: Tensor, context: Any = None) -> Encoded:
        energy = smooth_energy(slices)[:, None] + 1e-6
        moved = torch.nn.functional.pad(energy, (1, 0, 1, 0))[..., :-1, :-1]
        weight = energy**4
        return Encoded(
            torch.cat([energy, moved], 1),
            torch.cat([weight * slices, weight, slices], 1),
        )

    def reconstruct(
        self, largest: Tensor, added: Tensor, count: int, context: Any = None
    ) -> Tensor:
        mean = added[:, :1] / added[:, 1:2]
        more = torch.nn.functional.pad(mean - added[:, 2:] / count, (1, 1, 1, 1))
        return mean[:, 0] + 0.01 * box_sum(more, 1)[:, 0]


class FinerPairs(EnergyPairs, SuperResolver):
    """Decides by energy, and makes slices finer by cubic interpolation."""

    feature_channels: ClassVar[int] = 3
    upscale_halo: ClassVar[int] = 3
    needs_sample: ClassVar[bool] = True

    def features(self, slices: Tensor, scale: int, context: Any = None) -> Tensor:
        colours = slices.expand(-1, 3, -1, -1)
        return torch.nn.functional.interpolate(
            colours, scale_factor=scale, mode="bicubic"
        )

    def resolve(self, features: Tensor, scale: int, context: Any = None) -> Tensor:
        return features


class TooLarge(SliceScorer):
    """The plain measure, on a device that holds ``most`` pixels at a time."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.sizes: list[int] = []

    def score(self, slices: Tensor, context: Any = None) -> Tensor:
        self.sizes.append(slices.numel())
        if slices.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (of a test)")
        return SumModifiedLaplacian().score(slices)


def watched(model: Any) -> tuple[Any, list[int]]:
    """The model, and a list that grows by the pixels of each batch it is given."""
    seen: list[int] = []

    class Counting(type(model)):  # type: ignore[misc]
        def score(self, slices: Tensor, context: Any = None) -> Tensor:
            seen.append(slices.numel())
            return super().score(slices, context)

        def mask(self, a: Tensor, b: Tensor, context: Any = None) -> Tensor:
            seen.append(a.numel())
            return super().mask(a, b, context)

        def masks(self, slices: Tensor, context: Any = None) -> Tensor:
            seen.append(slices.numel())
            return super().masks(slices, context)

        def encode(self, slices: Tensor, context: Any = None) -> Encoded:
            seen.append(slices.numel())
            return super().encode(slices, context)

    model.__class__ = Counting
    return model, seen


def energy_pairs() -> EnergyPairs:
    return with_spec(EnergyPairs(), HALO)


def energy_sets() -> EnergySets:
    return with_spec(EnergySets(), HALO)


def energy_reconstructor() -> EnergyReconstructor:
    return with_spec(EnergyReconstructor(), HALO + 2)


def finer_pairs() -> FinerPairs:
    return respecced(with_spec(FinerPairs(), HALO), upscale=(1, 2, 3, 4))


def too_large(most: int) -> TooLarge:
    return with_spec(TooLarge(most), 1)


def same_result(a: Any, b: Any) -> None:
    """Assert that two results agree bit for bit."""
    for name in ("decision", "confidence", "depth", "fused"):
        first, second = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        np.testing.assert_array_equal(first, second, err_msg=name)


def as_dtype(stack: NDArray[Any], name: str) -> NDArray[Any]:
    """A 16-bit stack spread over most of another type's range; floats over 0 to 1."""
    dtype = np.dtype(name)
    share = stack.astype(np.float64) / 65535
    if dtype.kind == "f":
        return share.astype(dtype)
    limits = np.iinfo(dtype)
    span = float(limits.max) - float(limits.min)
    return np.rint(limits.min + share * span).astype(dtype)


def respecced(model: Any, **changes: Any) -> Any:
    """The model with some entries of its spec changed."""
    model.spec = replace(model.spec, **changes)
    return model


class Watched:
    """An array that counts the pixels read from it, and can fail."""

    def __init__(self, data: NDArray[Any], fail_on_slice: int | None = None) -> None:
        self.data, self.fail_on_slice = data, fail_on_slice
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim
        self.read: NDArray[Any] = np.zeros(data.shape, np.int64)
        self.threads: set[str] = set()

    def __getitem__(self, key: Any) -> NDArray[Any]:
        self.threads.add(threading.current_thread().name)
        self.read[key] += 1
        if self.fail_on_slice is not None and self.read[self.fail_on_slice].any():
            raise OSError("the cable came loose")
        return self.data[key]
