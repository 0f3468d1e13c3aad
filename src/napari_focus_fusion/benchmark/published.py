"""Published figures, shown beside measured ones and never among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Reference:
    """A row that no run of the benchmark measured.

    Attributes
    ----------
    data : str
        Data set that it belongs to.
    method : str
        What was measured.
    values : mapping
        Means over the data set by measure.
    origin : str
        Where the figures come from, and how far they can be compared.
    """

    data: str
    method: str
    values: Mapping[str, float]
    origin: str


_SAME_FILES = (
    "published weights, JPEG files fused and measured against the same JPEG files, "
    "R, G and B averaged"
)
_GREY = (
    "measured elsewhere, JPEG files, grey, with another code for Q_AB/F: with the "
    "measures of this package the arg-max of the smoothed modified Laplacian has "
    "0.7616 / 1.1881 on grey, 0.7578 / 1.1828 on R, G and B"
)
_TABLE_I = (
    "published (Li et al., 2024, table I); which copy of the pictures was used is not "
    "stated"
)
_SIX = ("Q_NCIE", "Q_G", "Q_P", "Q_S", "Q_Y", "Q_MI")


def _six(*values: float) -> dict[str, float]:
    return dict(zip(_SIX, values, strict=True))


PUBLISHED = (
    Reference(
        "lytro",
        "SESF-Fuse, authors' weights",
        {"Q_NCIE": 0.8430, "Q_G": 0.7213, "Q_S": 0.9419, "Q_MI": 1.1556},
        _SAME_FILES,
    ),
    *(
        Reference("lytro", method, {"Q_AB/F": q_abf, "Q_MI": q_mi}, _GREY)
        for method, q_abf, q_mi in (
            ("StackMFF V4", 0.7535, 1.193),
            ("Arg-max of the modified Laplacian, sigma 5", 0.7530, 1.188),
            ("GACN", 0.7528, 1.172),
            ("SESF-Fuse, authors' weights", 0.7512, 1.161),
            ("StackMFF V2", 0.7490, 1.186),
            ("Laplacian pyramid", 0.7416, 0.976),
            ("IFCNN", 0.7196, 0.939),
        )
    ),
    Reference(
        "lytro-x2",
        "FAP-SRE",
        _six(0.8226, 0.4757, 0.5605, 0.8998, 0.8451, 0.7849),
        _TABLE_I,
    ),
    Reference(
        "lytro-x3",
        "FAP-SRE",
        _six(0.8211, 0.3285, 0.2952, 0.8222, 0.6808, 0.7454),
        _TABLE_I,
    ),
    Reference(
        "lytro-x4",
        "FAP-SRE",
        _six(0.8193, 0.2718, 0.1947, 0.7627, 0.5952, 0.6935),
        _TABLE_I,
    ),
)
