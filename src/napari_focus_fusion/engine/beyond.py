"""How far reconstructed pixels lie beyond everything that the slices show there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.composite import COMPOSITE_HALO, RunningNoise
from napari_focus_fusion.engine.normalise import is_wide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.tiling import Rectangle

#: A pixel is clearly beyond all slices by more than so many standard deviations of the
#: noise of one slice: where slices agree, a reconstruction lies nearer to the truth
#: than any of them, and so beyond the noise of a few.
CLEAR_NOISE = 3
#: ... and by more than this share of the range from black to white, as where a slice is
#: saturated there is no noise to measure.
CLEAR_SHARE = 1 / 256
#: A region inside its halo.
_INNER = (slice(COMPOSITE_HALO, -COMPOSITE_HALO),) * 2


class RunningRange:
    """What slices show at each pixel of each channel, while they stream by.

    The lowest and the highest value, and the noise. Of colours their luminance, which
    is what is reconstructed.

    Parameters
    ----------
    channels
        The grey plane of each channel.
    region
        In the plane's pixels.
    device
        Where noise is measured.
    """

    def __init__(
        self, channels: Sequence[Reference], region: Rectangle, device: torch.device
    ) -> None:
        self.channels, self.device = channels, device
        wide = is_wide(channels[0].stack.dtype)
        self.dtype = np.float64 if wide else np.float32
        shape = (len(channels), region.height, region.width)
        self.lowest = np.full(shape, np.inf, self.dtype)
        self.highest = np.full(shape, -np.inf, self.dtype)
        self.noise = [RunningNoise(region, device) for _ in channels]

    def update(self, values: np.ndarray, present: np.ndarray | None) -> None:
        """Take in a slice.

        Parameters
        ----------
        values
            (components, h, w) in the stack's dtype, with :data:`COMPOSITE_HALO` pixels
            around the region.
        present
            Where it has pixels, bool, as large; None: everywhere.
        """
        for channel, lowest, highest, noise in zip(
            self.channels, self.lowest, self.highest, self.noise, strict=True
        ):
            grey = self._grey(values[:, *_INNER], channel)
            plane = torch.from_numpy(channel.mixed(values)).to(self.device)
            if present is None:
                np.minimum(lowest, grey, out=lowest)
                np.maximum(highest, grey, out=highest)
                noise.update(plane, COMPOSITE_HALO)
                continue
            seen = np.asarray(present[channel.used].all(0))
            np.minimum(lowest, grey, out=lowest, where=seen[_INNER])
            np.maximum(highest, grey, out=highest, where=seen[_INNER])
            seen_there = torch.from_numpy(seen).to(self.device)
            noise.update(plane, COMPOSITE_HALO, seen_there)

    def beyond(self, fused: np.ndarray) -> np.ndarray:
        """How far fused pixels lie outside what the slices show.

        Parameters
        ----------
        fused
            (components, h, w) of the region, in the stack's dtype.

        Returns
        -------
        ndarray
            (channels, h, w) float32 in the units of the stack: above the highest value
            of any slice positive, below the lowest negative, between them 0; and 0
            where no slice has a pixel.
        """
        grey = np.stack([self._grey(fused, channel) for channel in self.channels])
        unknown = self.lowest > self.highest
        grey[unknown] = 0
        low, high = (np.where(unknown, 0, a) for a in (self.lowest, self.highest))
        grey -= grey.clip(low, high)
        most = np.finfo(np.float32).max  # float64 may hold more
        return grey.clip(-most, most, out=grey).astype(np.float32)

    def is_clear(self, beyond: np.ndarray) -> np.ndarray:
        """(h, w) bool, where any channel lies beyond by clearly more than the noise."""
        found = np.zeros(beyond.shape[1:], bool)
        for values, channel, noise in zip(
            beyond, self.channels, self.noise, strict=True
        ):
            sd = noise.variance().sqrt().cpu().numpy().astype(np.float64)
            least = np.maximum(CLEAR_NOISE * sd, CLEAR_SHARE)
            least *= channel.white - channel.black
            if channel.stack.dtype.kind in "iu":  # which are rounded
                least = np.maximum(least, 1)
            found |= np.abs(values) > least
        return found

    def _grey(self, values: np.ndarray, channel: Reference) -> np.ndarray:
        """(h, w), the grey plane of a channel in the units of the stack."""
        grey = np.zeros(values.shape[1:], self.dtype)
        for component in channel.used:
            grey += values[component] * self.dtype(channel.weights[component])
        return grey
