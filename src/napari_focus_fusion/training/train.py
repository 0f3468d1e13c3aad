"""Training a shipped weight from nothing: one recipe a model, one command, one seed."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion import __version__
from napari_focus_fusion.device import choose_device, describe
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.models import load_model, models, new_model, save_weights
from napari_focus_fusion.training import sesf
from napari_focus_fusion.training.data import Pool, make_pool, read_pictures
from napari_focus_fusion.training.fit import Schedule, fit, write_history
from napari_focus_fusion.training.scores import score_on_lytro, score_on_scenes

if TYPE_CHECKING:
    from collections.abc import Callable

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
    scenes, slices, side
        The pool: number of scenes, slices of each, side in pixels.
    stacks, crop
        A batch: number of stacks, side of a crop in pixels.
    """

    objective: Objective
    pretext: Pretext
    validate: Callable[[Any, list[Batch]], float]
    schedule: Schedule
    scenes: int = 480
    slices: int = 6
    side: int = 128
    stacks: int = 3
    crop: int = 72


RECIPES = {
    "sesf": Recipe(
        objective=sesf.objective,
        pretext=sesf.pretext,
        validate=sesf.depth_error,
        schedule=Schedule(steps=1600, learning_rate=2e-3),
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
        Instead of the recipe's.
    seed
        Of the initial weights and the batches.
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
        If there is no such recipe or folder, or `out` exists.
    Cancelled
        If `should_stop` said so.
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
    schedule = recipe.schedule
    if steps is not None:
        schedule = Schedule(**(asdict(schedule) | {"steps": steps}))
    where = choose_device(device)
    textures = read_pictures(pictures) if pictures is not None else None
    size = (recipe.slices, recipe.side)
    pool = make_pool(range(recipe.scenes), *size, pictures=textures, on_scene=on_scene)
    held_back = _validation(make_pool(VALIDATION_SEEDS, *size), recipe)
    torch.manual_seed(seed)
    network = new_model(models()[name]).requires_grad_(True)
    checkpoint = out.with_suffix(".checkpoint")
    fitted = fit(
        network,
        recipe.objective,
        lambda step: pool.draw(
            step, stacks=recipe.stacks, crop=recipe.crop, seed=seed
        ).to(where),
        lambda model: recipe.validate(model, [batch.to(where) for batch in held_back]),
        schedule,
        device=where,
        checkpoint=checkpoint,
        on_step=on_step,
        should_stop=should_stop,
    )
    if fitted.stopped == "asked":
        raise Cancelled
    network.to("cpu")
    torch.manual_seed(seed)
    untrained = new_model(models()[name])
    candidates = {"sml": load_model("sml"), "untrained": untrained, "trained": network}
    card = {
        "version": __version__,
        "command": _command(name, pictures, steps, seed),
        "data": _data(recipe, pictures, textures),
        "recipe": asdict(schedule)
        | {"stacks": recipe.stacks, "slices": recipe.slices, "crop": recipe.crop},
        "seed": seed,
        "best_step": fitted.best_step,
        "validation_depth_error": {
            "untrained": fitted.history[0]["held_back"],
            "trained": fitted.best_score,
        },
        "seconds": round(sum(row.get("seconds", 0.0) for row in fitted.history)),
        "device": describe(where),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "scores": score_on_scenes(candidates),
    }
    lytro = Path(os.environ.get("FOCUS_FUSION_DATA", "")) / "lytro"
    if lytro.is_dir():
        card["lytro"] = score_on_lytro(candidates, lytro)
    card["sha256"] = save_weights(network, out, card)
    write_history(out.with_suffix(".csv"), fitted.history)
    checkpoint.unlink(missing_ok=True)
    return card


def _validation(pool: Pool, recipe: Recipe) -> list[Batch]:
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
    if pictures is None or textures is None:
        return text
    return (
        f"{text}; half of the scenes take textures from the {len(textures)} pictures "
        f"in {pictures.name}"
    )


def _command(name: str, pictures: Path | None, steps: int | None, seed: int) -> str:
    words = ["napari-focus-fusion", "train", name]
    if pictures is not None:
        words += ["--pictures", pictures.name]
    if steps is not None:
        words += ["--steps", str(steps)]
    return " ".join([*words, "--seed", str(seed)])
