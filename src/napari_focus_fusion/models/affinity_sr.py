"""Focus affinity and super-resolution embedding: fusing and enlarging in one.

H. Li, M. Yuan, J. Li, Y. Liu, G. Lu, Y. Xu, Z. Yu, D. Zhang, "Focus Affinity Perception
and Super-Resolution Embedding for Multifocus Image Fusion", IEEE Transactions on Neural
Networks and Learning Systems, 2024 (10.1109/TNNLS.2024.3367782). Three networks: FAPN
finds what is in focus (section III-A, ``affinity.py``), SRN makes each slice finer
(III-B, ``superres.py``), and what it makes of the slices is fused with FAPN's masks and
decoded (III-C, here). Equation numbers are the paper's.

:data:`LIGHT`, which the shipped weights belong to, is narrower than the paper's
:data:`FULL`, and adds the interpolated slice to SRN's features: the network only has to
find what interpolation misses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_focus_fusion.models.affinity import FAPN, FAPNConfig, Gates
from napari_focus_fusion.models.base import PairMasker, SuperResolver
from napari_focus_fusion.models.superres import FEATURES, SRN, SRNConfig

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class AffinitySRConfig(FAPNConfig, SRNConfig):
    """Sizes and parts of both networks, as each of the two describes its own."""


#: What is shipped: some 53 000 multiply-adds a pixel and pair, 100 000 a slice.
LIGHT = AffinitySRConfig()
#: The widths of the release: 1.2 and 1.6 million of each, and as many parameters.
FULL = AffinitySRConfig(
    focus_inputs=3,
    path=(32, 64, 32),
    branch=(32, 64, 32, 3),
    near=(32, 64),
    far=(32, 64, 64),
    head=(32, 16, 3, 2),
    width=32,
    growth=32,
    dense=3,
    blocks=10,
    embed=(32, 16),
    lift=2,
    fine=(32, 32, 16),
    skip=False,
    rectify=True,
)


class AffinitySR(PairMasker, SuperResolver):
    """The pipeline of the paper's figure 1.

    Parameters
    ----------
    config
        Sizes and parts; the shipped weights fit :data:`LIGHT`.
    """

    window: ClassVar[int] = 3
    bytes_a_tile_pixel: ClassVar[float] = 1030
    needs_sample: ClassVar[bool] = True
    feature_channels: ClassVar[int] = FEATURES
    bytes_a_finer_pixel: ClassVar[float] = 115
    upscale_halo: ClassVar[int] = LIGHT.upscale_halo

    def __init__(self, config: AffinitySRConfig = LIGHT) -> None:
        super().__init__()
        self.config = config
        self.upscale_halo = config.upscale_halo  # type: ignore[misc]
        self.fapn = FAPN(config)
        self.srn = SRN(config)
        # So laid out, convolutions of few channels take a third less on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def context(self, sample: Sequence[Tensor]) -> Gates | None:
        """CAM's gates, from the features of all slices; None without CAM."""
        if "channel" not in self.config.attention:
            return None
        # Sorted, so that the order of the slices does not change the sum.
        means = torch.stack([self.fapn.means(x) for x in sample])
        return self.fapn.gates(means.sort(0).values.mean(0)[:, None])

    def mask(self, a: Tensor, b: Tensor, context: Any = None) -> Tensor:
        """Half of how far the first mask is above the second, plus a half.

        The two masks need not add up to 1.
        """
        masks = self.fapn(a, b, context)
        return (1 + masks[:, 0] - masks[:, 1]) / 2

    def features(self, slices: Tensor, scale: int, context: Any = None) -> Tensor:
        """SRN's features of each slice, eq. 12; grey slices are repeated as RGB."""
        return self.srn(slices.expand(-1, FEATURES, -1, -1), scale)

    def enlarge(self, slices: Tensor, scale: int) -> Tensor:
        """Each slice made finer on its own, eq. 13: what SRN is trained with.

        Parameters
        ----------
        slices
            (N, C, h, w); C is 1 or 3.
        scale
            2, 3 or 4.

        Returns
        -------
        Tensor
            (N, 3, scale * h, scale * w).
        """
        return self.srn.head(scale).d1(self.features(slices, scale))

    def resolve(self, features: Tensor, scale: int, context: Any = None) -> Tensor:
        """The fused image, eq. 16."""
        image: Tensor = self.srn.head(scale).d2(features)
        return F.relu(image) if self.config.rectify else image

    def fuse(
        self, slices: Tensor, masks: Tensor, scale: int, context: Any = None
    ) -> Tensor:
        """Slices fused on the finer grid, eq. 15 and 16.

        The masks' sum is divided by: the paper's two are independent and need not add
        up to 1.

        Parameters
        ----------
        slices
            (B, N, C, h, w).
        masks
            (B, N, h, w), at least 0.
        scale, context
            As :meth:`features` takes them.

        Returns
        -------
        Tensor
            (B, 3, scale * h, scale * w).
        """
        finer = self.features(slices.flatten(0, 1), scale, context)
        finer = finer.unflatten(0, slices.shape[:2])
        weights = F.interpolate(masks, scale_factor=scale, mode="bilinear")
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-3)
        fused = (weights[:, :, None] * finer).sum(1)
        return self.resolve(fused, scale, context)
