"""Training shipped weights from scratch: one recipe a model, one command, one seed."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, replace
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
    save_weights,
    trainable_models,
)
from napari_focus_fusion.parameters import (
    callback,
    file_path,
    text_of,
    whole_number,
    yes_or_no,
)
from napari_focus_fusion.training.data import Pool, make_pool, read_pictures
from napari_focus_fusion.training.fit import Fitted, Schedule, fit, write_history
from napari_focus_fusion.training.recipe import Recipe, recipe_of
from napari_focus_fusion.training.scores import score_on_lytro, score_on_scenes
from napari_focus_fusion.write.saving import translated_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.models.spec import ModelSpec
    from napari_focus_fusion.training.data import Batch

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
    processes: int = 1,
    device: str = "auto",
    overwrite: bool = False,
    on_step: Callable[[dict[str, float]], None] | None = None,
    on_scene: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train a model from scratch and write weights, card and history.

    Parameters
    ----------
    name
        An installed model with a recipe, ours or another package's: a key of
        :func:`~napari_focus_fusion.models.registry.trainable_models`.
    out
        ``.safetensors`` file to write; the card (``.json``), the history (``.csv``)
        and, while training, the checkpoint (``.checkpoint``) lie beside it. With a
        checkpoint there, training goes on from it.
    pictures
        Folder of sharp images that half of the scenes take their textures from.
    steps
        Instead of the recipe's; shared out among its stages as they are.
    seed
        Of the initial weights and the batches.
    scale
        Of a model that super-resolves the one factor to train; None for all.
    processes
        How many draw scenes side by side, see
        :func:`~napari_focus_fusion.training.data.make_pool`.
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
        The card. Its scores are those of the plain focus measure, the untrained network
        and the trained one, on the benchmark scenes; and on the Lytro pairs, if
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
    out, overwrite = file_path("out", out), yes_or_no("overwrite", overwrite)
    scale = None if scale is None else whole_number("scale", scale, least=2)
    steps = None if steps is None else whole_number("steps", steps, least=1)
    seed = whole_number("seed", seed, least=0)
    processes = whole_number("processes", processes, least=1)
    pictures = None if pictures is None else file_path("pictures", pictures)
    callback("on_step", on_step, "a row of the history")
    callback("on_scene", on_scene, "scenes drawn", "scenes in all")
    callback("should_stop", should_stop)
    spec = _check(text_of("name", name), out, scale, overwrite)
    recipe = recipe_of(spec)
    with translated_errors(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    stages = [
        replace(stage, schedule=_shortened(stage.schedule, steps, recipe.steps))
        for stage in (recipe, *recipe.next_stages)
    ]
    where = choose_device(device)
    textures = read_pictures(pictures) if pictures is not None else None
    size = (recipe.slices, recipe.side)
    draw = partial(make_pool, modalities=recipe.modalities, processes=processes)
    pool = draw(range(recipe.scenes), *size, pictures=textures, on_scene=on_scene)
    validation = validation_batches(draw(VALIDATION_SEEDS, *size), recipe)
    validation = [batch.to(where) for batch in validation]
    network = _untrained(spec, seed)
    checkpoints = [
        out.with_suffix(f".{number}.checkpoint" if number else ".checkpoint")
        for number in range(len(stages))
    ]
    fits: list[Fitted] = []
    history: list[dict[str, float]] = []
    for stage, checkpoint in zip(stages, checkpoints, strict=True):
        fitted = _fit_stage(
            network,
            stage,
            pool,
            validation,
            checkpoint,
            seed=seed,
            scale=scale,
            first=len(history),
            on_step=on_step,
            should_stop=should_stop,
        )
        fits.append(fitted)
        history += _steps_counted_from(len(history), fitted.history)
    network.to("cpu")
    card = {
        "version": __version__,
        "command": _command(name, pictures, steps, seed, scale),
        "data": _data(recipe, pictures, textures),
        "recipe": _settings(stages[0]) | {"slices": recipe.slices},
        "seed": seed,
        "best_step": fits[0].best_step,
        "validation": _before_and_after(fits[0]),
        "seconds": round(sum(row.get("seconds", 0.0) for row in history)),
        "waited_for_data": round(share_waited(history), 3),
        "device": describe(where),
        "machine": platform.machine(),
        "torch": torch.__version__,
        **_scores(recipe, _untrained(spec, seed), network, stages, fits),
    }
    card["sha256"] = save_weights(network, out, card)
    write_history(out.with_suffix(".csv"), history)
    for checkpoint in checkpoints:
        checkpoint.unlink(missing_ok=True)
    return card


def share_waited(history: list[dict[str, float]]) -> float:
    """Of the time of all steps, the share in which they waited for their batches."""
    waited, seconds = (
        sum(row.get(name, 0.0) for row in history) for name in ("waited", "seconds")
    )
    return waited / seconds if seconds else 0.0


def _check(name: str, out: Path, scale: int | None, overwrite: bool) -> ModelSpec:
    """The model of a name, before any work."""
    known = trainable_models()
    if name not in known:
        trainable = ", ".join(known)
        raise FocusFusionError(f"{name!r} cannot be trained; there is: {trainable}.")
    if out.suffix != ".safetensors":
        raise FocusFusionError(f"{str(out)!r} must end in .safetensors.")
    if out.exists() and not overwrite:
        raise FocusFusionError(f"{str(out)!r} exists already; choose another name.")
    if scale is not None and scale not in known[name].upscale[1:]:
        raise FocusFusionError(f"{name!r} does not enlarge by {scale}.")
    return known[name]


def _untrained(spec: ModelSpec, seed: int) -> FusionModel:
    torch.manual_seed(seed)
    return new_model(spec)


def _scores(
    recipe: Recipe,
    untrained: FusionModel,
    trained: FusionModel,
    stages: list[Recipe],
    fits: list[Fitted],
) -> dict[str, Any]:
    """Scores for the card, and the later stages of the training."""
    if recipe.scores is not None:
        return recipe.scores(untrained, trained)
    own = {"untrained": untrained, "trained": trained}
    candidates: Mapping[str, FusionModel] = {"sml": load_model("sml"), **own}
    scores: dict[str, Any] = {"scores": score_on_scenes(candidates)}
    lytro = Path(os.environ.get("FOCUS_FUSION_DATA", "")) / "lytro"
    if lytro.is_dir():
        scores["lytro"] = score_on_lytro(candidates, lytro)
    if recipe.next_stages:
        scores["next_stages"] = [
            {
                "recipe": _settings(stage),
                "best_step": fitted.best_step,
                "validation": _before_and_after(fitted),
            }
            for stage, fitted in zip(stages[1:], fits[1:], strict=True)
        ]
    if recipe.measure is not None:
        scores["more_scores"] = recipe.measure(own)
    return scores


def _fit_stage(
    network: FusionModel,
    stage: Recipe,
    pool: Pool,
    validation: list[Batch],
    checkpoint: Path,
    *,
    seed: int,
    scale: int | None,
    first: int,
    on_step: Callable[[dict[str, float]], None] | None,
    should_stop: Callable[[], bool] | None,
) -> Fitted:
    """Train the parameters of a stage; ``first`` rows of the history are before it."""
    device = validation[0].noisy.device
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(stage.trainable_prefix))
    only = {"scales": (scale,)} if scale is not None and stage.by_scale else {}

    def validate(model: torch.nn.Module) -> float:
        return stage.validate(model, validation, **only)

    fitted = fit(
        network,
        partial(stage.training_loss, **only),
        lambda step: pool.draw(
            step, stacks=stage.stacks, crop=stage.crop, seed=seed
        ).to(device),
        validate,
        stage.schedule,
        device=device,
        checkpoint=checkpoint,
        identity=only and {"scale": scale},
        on_step=on_step and (lambda row: on_step(_steps_counted_from(first, [row])[0])),
        should_stop=should_stop,
    )
    if fitted.stopped == "asked":
        raise Cancelled
    return fitted


def _steps_counted_from(
    first: int, history: list[dict[str, float]]
) -> list[dict[str, float]]:
    return [row | {"step": row["step"] + first} for row in history]


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
        "untrained": fitted.history[0]["validation"],
        "trained": fitted.best_score,
    }


def validation_batches(pool: Pool, recipe: Recipe) -> list[Batch]:
    """What chooses the checkpoint: whole scenes of a pool of `VALIDATION_SEEDS`."""
    return [
        pool.draw(step, stacks=4, crop=recipe.side, seed=VALIDATION_SEEDS.start)
        for step in range(8)
    ]


#: What a card says of modalities that not all recipes have.
_TOLD = {
    "refractile": "thick, refractile cells",
    "coherent": "brightfield of partially coherent light",
    "lenses": "smears of it whose cells are lenses",
}


def _data(recipe: Recipe, pictures: Path | None, textures: list[Any] | None) -> str:
    text = (
        f"{recipe.scenes} synthetic scenes of {recipe.slices} slices, "
        f"{recipe.side} x {recipe.side} pixels, drawn from the seeds 0 to "
        f"{recipe.scenes - 1}; noise drawn anew at each step"
    )
    count = len(recipe.modalities)
    for modality, words in _TOLD.items():
        if modality in recipe.modalities:
            text += f"; {recipe.modalities.count(modality)} in {count} are {words}"
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
