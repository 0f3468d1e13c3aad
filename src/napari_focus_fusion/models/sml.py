"""Sum-modified-Laplacian: the plain focus measure, the baseline for every network.

Nayar and Nakagawa, "Shape from Focus", IEEE TPAMI 16(8), 1994, eq. 4-6.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from napari_focus_fusion.models.base import SliceScorer

#: Pixels that are computed together, in a processor's cache.
PIXELS_AT_ONCE = 1 << 15


class SumModifiedLaplacian(SliceScorer):
    """``|2 I - I_left - I_right| + |2 I - I_up - I_down|``, summed over a window.

    The two second derivatives are taken in absolute value, so that they cannot cancel
    as they do in the Laplacian. Scores do not depend on an offset of the intensities,
    and scale with their gain.
    """

    window: ClassVar[int] = 3
    bytes_a_tile_pixel: ClassVar[float] = 32

    def score(self, slices: Tensor, context: Any = None) -> Tensor:
        """See :meth:`SliceScorer.score`; the border of one pixel is zero."""
        image = slices[:, 0]
        score = torch.zeros_like(image)
        if image.device.type != "cpu":
            _score_rows(image, score[:, 1:-1, 1:-1])
            return score
        height, width = image.shape[-2:]
        rows = max(PIXELS_AT_ONCE // width, 1)
        for plane, found in zip(image, score, strict=True):
            for top in range(1, height - 1, rows):
                end = min(top + rows, height - 1)
                _score_rows(plane[top - 1 : end + 1], found[top:end, 1:-1])
        return score


def _score_rows(image: Tensor, score: Tensor) -> None:
    """Into ``score`` (..., h, w), of an image with one pixel more on each side."""
    centre = image[..., 1:-1, 1:-1]
    twice = centre + centre
    across = twice - image[..., 1:-1, :-2]
    across -= image[..., 1:-1, 2:]
    down = twice.sub_(image[..., :-2, 1:-1])
    down -= image[..., 2:, 1:-1]
    torch.add(across.abs_(), down.abs_(), out=score)
