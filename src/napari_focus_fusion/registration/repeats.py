"""Patterns that repeat: which period a displacement is of cannot be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.fft import irfft2, next_fast_len, rfft2

if TYPE_CHECKING:
    from napari_focus_fusion.registration.pairs import Level

#: A pattern repeats if it correlates with itself so well at another place, no further
#: away than this share of the sides.
REPEATED, FARTHEST = 0.6, 0.4


def period_of(level: Level) -> float | None:
    """After how many pixels of the slice a pattern repeats; None: it does not.

    Parameters
    ----------
    level
        Of a slice's pyramid.
    """
    band = level.band - level.band.mean()
    sides = [next_fast_len(2 * n, real=True) for n in band.shape]
    power = np.abs(rfft2(band, sides)) ** 2
    reach = [max(int(FARTHEST * n), 1) for n in band.shape]
    offsets = [np.arange(-r, r + 1) for r in reach]
    products = irfft2(power, sides)[np.ix_(*offsets)]
    overlap = np.outer(
        *(n - np.abs(o) for n, o in zip(band.shape, offsets, strict=True))
    )
    likeness = products / overlap
    centre = tuple(reach)
    if likeness[centre] <= 0:
        return None
    likeness /= likeness[centre]
    places, _ = ndimage.label(likeness > REPEATED)
    elsewhere = (places > 0) & (places != places[centre])
    if not elsewhere.any():
        return None
    away = np.hypot(offsets[0][:, None], offsets[1])
    # Of the nearest of these places its best point.
    nearest = np.argmin(np.where(elsewhere, away, np.inf))
    first = places == places.flat[nearest]
    best = likeness[first].max()
    return float(away[first & (likeness > best - 0.05)].min() * level.step)
