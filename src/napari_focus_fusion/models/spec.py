"""A model's entry in the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["slice-scorer", "pair-masker", "set-masker", "reconstructor"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One row of the registry; plain data.

    Attributes
    ----------
    name
        What users type, for example ``"sesf"``.
    title
        What users read.
    summary
        One line: when to choose it.
    kind
        ``"slice-scorer"``, ``"pair-masker"``, ``"set-masker"`` or
        ``"reconstructor"``.
    target
        ``"package.module:Class"``, imported when the model is first loaded.
    halo
        Pixels around a tile that the model must see: its receptive radius.
    paper, doi
        Where it comes from; empty for our own.
    weights
        File in ``models/weights`` (``.safetensors``), or the path of one elsewhere;
        empty for a model without.
    upscale
        Factors of super-resolution it offers; ``(1,)`` for none.
    self_supervised
        Whether it can be trained on stacks without labels.
    cost
        Multiply-adds per pixel and slice, for estimates.
    base
        Of fine-tuned weights: the name of the model whose network it is.
    """

    name: str
    title: str
    summary: str
    kind: Kind
    target: str
    halo: int
    paper: str = ""
    doi: str = ""
    weights: str = ""
    upscale: tuple[int, ...] = (1,)
    self_supervised: bool = False
    cost: int = 0
    base: str = ""
