"""A model's entry in the registry, and how the code that it names is found."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


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
    suits
        In a few words for what: a list in a window has them before the title.
    target
        ``"package.module:Class"``, imported when the model is first loaded.
    halo
        Pixels around a tile that the model needs: the radius of its receptive field.
    paper, doi
        Where it comes from; empty for our own.
    weights
        File in ``models/weights`` (``.safetensors``), or the path of one elsewhere;
        empty for a model without.
    upscale
        Factors of super-resolution it offers; ``(1,)`` for none.
    self_supervised
        Whether it can be trained on stacks without labels.
    recipe
        ``"package.module:RECIPE"``, how it is trained, a
        :class:`~napari_focus_fusion.training.recipe.Recipe`; imported when it is first
        trained or fine-tuned. Empty for a model that does not learn.
    cost
        Multiply-adds per pixel and slice, for estimates.
    reconstructs
        Whether its intensities are reconstructed, not observed: a parameter of
        :func:`fuse`, ``strength``, says how much of that is shown.
    base
        Of fine-tuned weights: the name of the model whose network it is.

    Examples
    --------
    A model of another package, not yet trained:

    >>> from napari_focus_fusion.models.registry import ModelSpec
    >>> spec = ModelSpec(
    ...     name="mine",
    ...     title="My model",
    ...     summary="The brightest slice.",
    ...     target="my_package.models:Brightest",
    ...     halo=0,
    ... )
    >>> spec.upscale, spec.weights
    ((1,), '')
    """

    name: str
    title: str
    summary: str
    target: str
    halo: int
    paper: str = ""
    doi: str = ""
    weights: str = ""
    upscale: tuple[int, ...] = (1,)
    self_supervised: bool = False
    recipe: str = ""
    cost: int = 0
    base: str = ""
    suits: str = ""
    reconstructs: bool = False


def import_target(target: str) -> Any:
    """What ``"package.module:name"`` names, imported.

    Raises
    ------
    Exception
        Whatever importing the module raises.
    """
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
