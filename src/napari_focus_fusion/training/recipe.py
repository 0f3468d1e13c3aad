"""How a model is trained: a recipe beside its training loss, named by its spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.spec import import_target
from napari_focus_fusion.training.data import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from napari_focus_fusion.models.spec import ModelSpec
    from napari_focus_fusion.training.data import Batch
    from napari_focus_fusion.training.fit import Schedule, TrainingLoss

    #: (network, slices (stacks, N, h, w) normalised, generator of all that is drawn at
    #: random) -> named losses; the one called "loss" is minimised.
    SelfSupervisedLoss = Callable[
        [Any, torch.Tensor, torch.Generator], dict[str, torch.Tensor]
    ]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    Attributes
    ----------
    training_loss
        Losses of a batch of scenes, whose truth it may use.
    self_supervised_loss
        Losses of slices without ground truth: what fine-tuning minimises. None: it
        learns from ground truth alone.
    validate
        Score of the network on validation batches, lower is better.
    schedule
        Length and learning rate.
    scenes, modalities, slices, side
        The pool: number of scenes, their modalities in turn, slices of each, side in
        pixels.
    stacks, crop
        A batch: number of stacks, side of a crop in pixels.
    trainable_prefix
        Beginning of the names of the parameters that are trained; empty for all.
    by_scale
        Whether `training_loss` and `validate` take the ``scales`` to compute.
    next_stages
        What is trained after it, on the same pool, from where it ended.
    measure
        More scores for the card, of networks by their name.
    scores
        Those for the card, of the untrained and the trained network, where they are
        not those of fusing with it.
    """

    training_loss: TrainingLoss
    self_supervised_loss: SelfSupervisedLoss | None
    validate: Callable[[Any, list[Batch]], float]
    schedule: Schedule
    scenes: int = 480
    modalities: tuple[str, ...] = MODALITIES
    slices: int = 6
    side: int = 128
    stacks: int = 3
    crop: int = 72
    trainable_prefix: str = ""
    by_scale: bool = False
    next_stages: tuple[Recipe, ...] = ()
    measure: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    scores: Callable[[Any, Any], dict[str, Any]] | None = None

    @property
    def steps(self) -> int:
        """Updates of all stages."""
        return sum(stage.schedule.steps for stage in (self, *self.next_stages))


def repeated(recipe: Recipe, *changes: Mapping[str, Any]) -> Recipe:
    """A recipe, and the same again, each time from its best state, with changes."""
    again = tuple(replace(recipe, **changed) for changed in changes)
    return replace(recipe, next_stages=again)


def recipe_of(spec: ModelSpec) -> Recipe:
    """The recipe that a model's spec names, imported.

    Parameters
    ----------
    spec
        Of a model that learns: its ``recipe`` is not empty.

    Raises
    ------
    FocusFusionError
        If what the spec names cannot be imported or is no :class:`Recipe`.
    """
    try:
        recipe = import_target(spec.recipe)
    except Exception as error:  # whatever another package's code may raise
        raise FocusFusionError(
            f"The recipe of {spec.name!r} cannot be loaded from {spec.recipe!r} "
            f"({error}). Update or reinstall the package that it comes from."
        ) from error
    if not isinstance(recipe, Recipe):
        raise FocusFusionError(
            f"The recipe of {spec.name!r}, {spec.recipe!r}, is no Recipe."
        )
    return recipe
