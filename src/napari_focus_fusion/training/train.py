"""Training a shipped weight from nothing: one recipe a model, one command, one seed."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion._version import __version__
from napari_focus_fusion.device import choose_device, describe
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.models.registry import (
    load_model,
    new_model,
    our_models,
    save_weights,
)
from napari_focus_fusion.simulation.scenes import refractile_scenes
from napari_focus_fusion.training.data import (
    MODALITIES,
    Pool,
    make_pool,
    read_pictures,
)
from napari_focus_fusion.training.fit import Fitted, Schedule, fit, write_history
from napari_focus_fusion.training.objectives import (
    affinity_sr,
    dual_path,
    mscnn,
    residual,
    sesf,
)
from napari_focus_fusion.training.scores import score_on_lytro, score_on_scenes

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.training.data import Batch
    from napari_focus_fusion.training.fit import Objective

    #: (network, slices (stacks, N, h, w) normalised, generator of all that is drawn at
    #: random) -> named losses; the one called "loss" is minimised.
    Pretext = Callable[[Any, torch.Tensor, torch.Generator], dict[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    Attributes
    ----------
    objective
        Losses of a batch of scenes, whose truth it may use.
    pretext
        Losses of slices whose truth nobody knows: what fine-tuning minimises.
    validate
        Score of the network on held-back batches, lower is better.
    schedule
        Length and learning rate.
    scenes, modalities, slices, side
        The pool: number of scenes, their modalities in turn, slices of each, side in
        pixels.
    stacks, crop
        A batch: number of stacks, side of a crop in pixels.
    parts
        Beginning of the names of the parameters that are trained; empty for all.
    by_scale
        Whether `objective` and `validate` can be told the ``scales`` to look at.
    then
        What is trained after it, on the same pool, from where it ended.
    measure
        More scores for the card, of networks by their name.
    """

    objective: Objective
    pretext: Pretext
    validate: Callable[[Any, list[Batch]], float]
    schedule: Schedule
    scenes: int = 480
    modalities: tuple[str, ...] = MODALITIES
    slices: int = 6
    side: int = 128
    stacks: int = 3
    crop: int = 72
    parts: str = ""
    by_scale: bool = False
    then: tuple[Recipe, ...] = ()
    measure: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def steps(self) -> int:
        """Updates of all stages."""
        return sum(stage.schedule.steps for stage in (self, *self.then))


def _gone_on_with(recipe: Recipe, schedule: Schedule) -> Recipe:
    """A recipe, and the same again from its best state, for as long as is said."""
    return replace(recipe, then=(replace(recipe, schedule=schedule),))


_DUAL_PATH = Recipe(
    objective=dual_path.objective,
    pretext=dual_path.pretext,
    validate=dual_path.shortfall,
    schedule=Schedule(steps=2000, learning_rate=2e-3, validate_every=200),
    scenes=320,
    slices=12,
    stacks=2,
)

RECIPES = {
    "sesf": Recipe(
        objective=sesf.objective,
        pretext=sesf.pretext,
        validate=sesf.depth_error,
        schedule=Schedule(steps=1600, learning_rate=2e-3),
    ),
    "affinity-sr": Recipe(
        objective=affinity_sr.focus_objective,
        pretext=affinity_sr.pretext,
        validate=affinity_sr.depth_error,
        schedule=Schedule(steps=1200, learning_rate=1e-3, validate_every=300),
        parts="fapn.",
        then=(
            Recipe(
                objective=affinity_sr.finer_objective,
                pretext=affinity_sr.pretext,
                validate=affinity_sr.finer_error,
                schedule=Schedule(steps=6000, learning_rate=1e-3, validate_every=1000),
                crop=96,
                parts="srn.",
                by_scale=True,
            ),
            Recipe(
                objective=affinity_sr.fusing_objective,
                pretext=affinity_sr.pretext,
                validate=affinity_sr.fusing_error,
                schedule=Schedule(steps=900, learning_rate=5e-4, validate_every=300),
                crop=96,
                parts="srn.",
                by_scale=True,
            ),
        ),
        measure=affinity_sr.super_resolution_scores,
    ),
    "dual-path": _DUAL_PATH,
    "dual-path-brightfield": _gone_on_with(
        replace(
            _DUAL_PATH,
            scenes=400,
            modalities=(*MODALITIES, "refractile"),
            measure=lambda own: {
                "refractile": score_on_scenes(own, refractile_scenes())
            },
        ),
        Schedule(steps=3000, learning_rate=2e-3, validate_every=200),
    ),
    "mscnn": _gone_on_with(
        Recipe(
            objective=mscnn.objective,
            pretext=mscnn.pretext,
            validate=mscnn.shortfall,
            schedule=Schedule(steps=3600, learning_rate=4e-3, validate_every=200),
            slices=16,
            stacks=2,
        ),
        Schedule(steps=2400, learning_rate=2e-3, validate_every=200),
    ),
    "residual": Recipe(
        objective=residual.objective,
        pretext=residual.pretext,
        validate=sesf.depth_error,
        schedule=Schedule(steps=1400, learning_rate=2e-3),
    ),
}

#: Seeds of the scenes that choose the checkpoint: neither trained on nor reported.
VALIDATION_SEEDS = range(900_000, 900_032)


def train(
    name: str,
    out: Path,
    *,
    pictures: Path | None = None,
    steps: int | None = None,
    seed: int = 0,
    scale: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    on_step: Callable[[dict[str, float]], None] | None = None,
    on_scene: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train a model from nothing and write weights, card and history.

    Parameters
    ----------
    name
        A model with a recipe.
    out
        ``.safetensors`` file to write; the card (``.json``), the history (``.csv``)
        and, while training, the checkpoint (``.checkpoint``) lie beside it. With a
        checkpoint there, training goes on from it.
    pictures
        Folder of sharp pictures that half of the scenes take their textures from.
    steps
        Instead of the recipe's; shared out among its stages as they are.
    seed
        Of the initial weights and the batches.
    scale
        Of a model that super-resolves the one factor to train; None for all.
    device
        As :func:`fuse` takes it.
    overwrite
        Whether existing weights may be replaced.
    on_step, on_scene, should_stop
        Called with each row of the history, with scenes drawn and their number, and
        asked before each step. A training that is asked to stop keeps its checkpoint.

    Returns
    -------
    dict
        The card. Its scores are those of the plain measure, the network untrained and
        the network trained, on scenes held back; and on the Lytro pairs, if
        ``FOCUS_FUSION_DATA`` names a folder that has them.

    Raises
    ------
    FocusFusionError
        If there is no such recipe or folder, `out` exists, or the model does not
        enlarge by `scale`.
    Cancelled
        If `should_stop` said so.

    Examples
    --------
    Half an hour on two cores: ``train("sesf", Path("sesf.safetensors"))``. What cannot
    learn is refused at once.

    >>> from pathlib import Path
    >>> train("sml", Path("sml.safetensors"))
    Traceback (most recent call last):
        ...
    napari_focus_fusion.errors.FocusFusionError: 'sml' cannot be trained; there is: ...
    """
    if name not in RECIPES:
        trainable = ", ".join(RECIPES)
        raise FocusFusionError(f"{name!r} cannot be trained; there is: {trainable}.")
    if out.suffix != ".safetensors":
        raise FocusFusionError(f"{str(out)!r} must end in .safetensors.")
    if out.exists() and not overwrite:
        raise FocusFusionError(f"{str(out)!r} exists already; choose another name.")
    out.parent.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[name]
    if scale is not None and scale not in our_models()[name].upscale[1:]:
        raise FocusFusionError(f"{name!r} does not enlarge by {scale}.")
    stages = [
        replace(stage, schedule=_shortened(stage.schedule, steps, recipe.steps))
        for stage in (recipe, *recipe.then)
    ]
    where = choose_device(device)
    textures = read_pictures(pictures) if pictures is not None else None
    size = (recipe.slices, recipe.side)
    draw = partial(make_pool, modalities=recipe.modalities)
    pool = draw(range(recipe.scenes), *size, pictures=textures, on_scene=on_scene)
    held_back = validation_batches(draw(VALIDATION_SEEDS, *size), recipe)
    held_back = [batch.to(where) for batch in held_back]
    torch.manual_seed(seed)
    network = new_model(our_models()[name])
    checkpoints = [
        out.with_suffix(f".{number}.checkpoint" if number else ".checkpoint")
        for number in range(len(stages))
    ]
    fits: list[Fitted] = []
    history: list[dict[str, float]] = []
    for stage, checkpoint in zip(stages, checkpoints, strict=True):
        fits.append(
            _fit_stage(
                network,
                stage,
                pool,
                held_back,
                checkpoint,
                seed=seed,
                scale=scale,
                first=len(history),
                on_step=on_step,
                should_stop=should_stop,
            )
        )
        history += _moved(fits[-1].history, len(history))
    network.to("cpu")
    torch.manual_seed(seed)
    untrained = new_model(our_models()[name])
    candidates = {"sml": load_model("sml"), "untrained": untrained, "trained": network}
    card = {
        "version": __version__,
        "command": _command(name, pictures, steps, seed, scale),
        "data": _data(recipe, pictures, textures),
        "recipe": _settings(stages[0]) | {"slices": recipe.slices},
        "seed": seed,
        "best_step": fits[0].best_step,
        "validation": _before_and_after(fits[0]),
        "seconds": round(sum(row.get("seconds", 0.0) for row in history)),
        "device": describe(where),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "scores": score_on_scenes(candidates),
    }
    lytro = Path(os.environ.get("FOCUS_FUSION_DATA", "")) / "lytro"
    if lytro.is_dir():
        card["lytro"] = score_on_lytro(candidates, lytro)
    if recipe.then:
        card["then"] = [
            {
                "recipe": _settings(stage),
                "best_step": fitted.best_step,
                "validation": _before_and_after(fitted),
            }
            for stage, fitted in zip(stages[1:], fits[1:], strict=True)
        ]
    if recipe.measure is not None:
        own = {key: candidates[key] for key in ("untrained", "trained")}
        card["more_scores"] = recipe.measure(own)
    card["sha256"] = save_weights(network, out, card)
    write_history(out.with_suffix(".csv"), history)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    return card


def _fit_stage(
    network: FusionModel,
    stage: Recipe,
    pool: Pool,
    held_back: list[Batch],
    checkpoint: Path,
    *,
    seed: int,
    scale: int | None,
    first: int,
    on_step: Callable[[dict[str, float]], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Fitted:
    """Train what a stage trains; ``first`` rows of the history are there already."""
    device = held_back[0].noisy.device
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(stage.parts))
    only = {"scales": (scale,)} if scale is not None and stage.by_scale else {}

    def validate(model: torch.nn.Module) -> float:
        return stage.validate(model, held_back, **only)

    fitted = fit(
        network,
        partial(stage.objective, **only),
        lambda step: pool.draw(
            step, stacks=stage.stacks, crop=stage.crop, seed=seed
        ).to(device),
        validate,
        stage.schedule,
        device=device,
        checkpoint=checkpoint,
        identity=only and {"scale": scale},
        on_step=on_step and (lambda row: on_step(_moved([row], first)[0])),
        should_stop=should_stop,
    )
    if fitted.stopped == "asked":
        raise Cancelled
    return fitted


def _moved(history: list[dict[str, float]], by: int) -> list[dict[str, float]]:
    return [row | {"step": row["step"] + by} for row in history]


def _shortened(schedule: Schedule, steps: int | None, of: int) -> Schedule:
    """The schedule of a stage if all stages together shall have ``steps`` steps."""
    if steps is None:
        return schedule
    share = max(round(steps * schedule.steps / of), 1)
    return Schedule(**(asdict(schedule) | {"steps": share}))


def _settings(stage: Recipe) -> dict[str, Any]:
    return asdict(stage.schedule) | {"stacks": stage.stacks, "crop": stage.crop}


def _before_and_after(fitted: Fitted) -> dict[str, float]:
    return {
        "untrained": fitted.history[0]["held_back"],
        "trained": fitted.best_score,
    }


def validation_batches(pool: Pool, recipe: Recipe) -> list[Batch]:
    """What chooses the checkpoint: whole scenes of a pool of `VALIDATION_SEEDS`."""
    return [
        pool.draw(step, stacks=4, crop=recipe.side, seed=VALIDATION_SEEDS.start)
        for step in range(8)
    ]


def _data(recipe: Recipe, pictures: Path | None, textures: list[Any] | None) -> str:
    text = (
        f"{recipe.scenes} synthetic scenes of {recipe.slices} slices, "
        f"{recipe.side} x {recipe.side} pixels, drawn from the seeds 0 to "
        f"{recipe.scenes - 1}; noise drawn anew at each step"
    )
    if "refractile" in recipe.modalities:
        share = recipe.modalities.count("refractile"), len(recipe.modalities)
        text += "; {} in {} are thick, refractile cells".format(*share)
    if pictures is None or textures is None:
        return text
    return (
        f"{text}; half of the scenes take textures from the {len(textures)} pictures "
        f"in {pictures.name}"
    )


def _command(
    name: str, pictures: Path | None, steps: int | None, seed: int, scale: int | None
) -> str:
    words = ["napari-focus-fusion", "train", name]
    if pictures is not None:
        words += ["--pictures", pictures.name]
    if steps is not None:
        words += ["--steps", str(steps)]
    if scale is not None:
        words += ["--scale", str(scale)]
    return " ".join([*words, "--seed", str(seed)])
