"""Fine-tuning a model on stacks without ground truth.

Patches of the stacks train it on the model's self-supervised loss. Other patches, never
trained on, are for validation: the same losses, measures of fusion without ground
truth, and the error on stacks resynthesised from these patches, whose ground truth is
known. The state with the least such error is kept, and only if it is better than the
parent's.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
import traceback
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion._version import __version__
from napari_focus_fusion.device import choose_device, describe, deterministic
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.metrics import evaluate
from napari_focus_fusion.models.fine_tuned import (
    SUFFIX,
    checked_name,
    derived_spec,
    path_of_name,
)
from napari_focus_fusion.models.registry import (
    hash_of_tensors,
    installed_models,
    load_model,
    models,
    models_folder,
    save_weights,
    trainable_models,
)
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import (
    callback,
    checked_channel,
    file_path,
    real_number,
    whole_number,
)
from napari_focus_fusion.progress import Meter
from napari_focus_fusion.training.fit import (
    DAMAGED,
    Fitted,
    Schedule,
    fit,
    write_history,
)
from napari_focus_fusion.training.patches import (
    Drawn,
    Patches,
    read_patches,
    slices_around_sharpest,
)
from napari_focus_fusion.training.recipe import recipe_of
from napari_focus_fusion.training.resynthesis import resynthesised_batch
from napari_focus_fusion.training.rng import generator_of
from napari_focus_fusion.write.saving import remove, translated_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.progress import Progress
    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.training.data import Batch
    from napari_focus_fusion.training.patches import Regions
    from napari_focus_fusion.training.recipe import Recipe

#: Smallest patch, in pixels: what networks and measures need.
SMALLEST_PATCH = 48
#: Patches of a step: few, so that a step takes a second on a core.
STACKS = 2
#: Validations, beside the one before training.
VALIDATIONS = 6
#: Stacks resynthesised from the validation part for each validation, and as many for
#: the final comparison; without a border of so many pixels, at least this share of each
#: has a known depth.
RESYNTHESISED, BORDER, LEAST_KNOWN = 8, 16, 0.1
#: Windows of the validation part that are fused, and slices of each.
FUSED, FUSED_SLICES = 6, 8
#: Steps that are timed, after one that is not, where the length is given in minutes;
#: and the fewest that come of it.
TIMED, FEWEST = 3, 10
#: Measures without ground truth that agree better than others with the ground truth.
MEASURES = ("Q_AB/F", "VIFF")


@dataclass(frozen=True, slots=True)
class FineTuneResult:
    """What came of fine-tuning.

    Attributes
    ----------
    model
        Ready for :func:`fuse`: the tuned model if it is better, otherwise its parent.
    better
        Whether the tuned model has less error on the validation part than its parent,
        by more than the standard error of the difference.
    before, after
        Scores of the parent and of the tuned model on the validation part: ``"error"``
        of stacks resynthesised from it, with ground truth (lower is better; what it
        measures depends on the model); ``"loss"``, what training minimises (lower is
        better);
        ``"Q_AB/F"`` and ``"VIFF"`` of the fused windows (higher is better; left out
        where tuning was asked to stop).
    best_step
        Step whose state was kept.
    stopped
        ``"finished"`` or ``"asked"``.
    history
        One row a step: step, losses, learning rate, seconds; ``validation`` on the
        steps with a validation.
    path
        File of weights; None where nothing was saved.
    card
        What is written beside the weights.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_focus_fusion.models.registry import load_model
    >>> sesf, errors = load_model("sesf"), ({"error": 0.5}, {"error": 0.4})
    >>> result = FineTuneResult(
    ...     sesf, True, *errors, 300, "finished", [], Path("mine.safetensors"), {}
    ... )
    >>> result.verdict
    'The tuned model is better than its parent: error on ... 0.5 before, 0.4 after.'
    """

    model: FusionModel
    better: bool
    before: dict[str, float]
    after: dict[str, float]
    best_step: int
    stopped: str
    history: list[dict[str, float]]
    path: Path | None
    card: dict[str, Any]

    @property
    def verdict(self) -> str:
        """Whether it helped, in one sentence."""
        change = (
            f"error on the validation part {self.before['error']:.4g} before, "
            f"{self.after['error']:.4g} after"
        )
        if self.better:
            return f"The tuned model is better than its parent: {change}."
        return f"The tuned model is NOT better than its parent, which stays: {change}."


def finetune(
    model: str | Path | FusionModel,
    stacks: Any,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    axes: str | None = None,
    reference: int | str | None = None,
    regions: Regions | None = None,
    steps: int = 300,
    minutes: float | None = None,
    lr: float | None = None,
    patch: int = 64,
    holdout: float = 0.2,
    seed: int = 0,
    device: str = "auto",
    on_step: Callable[[dict[str, float]], None] | None = None,
    on_validation: Callable[[FusionModel], None] | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> FineTuneResult:
    """Tune a self-supervised model on stacks of one's own, without labels.

    Only windows with detail are read, a few hundred megabytes at most, whatever the
    size of the stacks.

    Parameters
    ----------
    model
        Name in :func:`models`, path of a ``.safetensors`` file or of an exported model
        (``.zip``), or a loaded model,
        which is left as it is.
    stacks
        A stack as :func:`fuse` takes it, or a list of stacks. All time points count.
    name
        What the tuned model is called: it is kept in the user's folder of models and
        can be chosen by this name everywhere.
    out
        ``.safetensors`` file to keep it in instead. With neither of the two nothing is
        written.
    folder
        The user's folder of models; None for the platform's usual one, or that which
        the environment variable ``NAPARI_FOCUS_FUSION_MODELS`` names.
    axes, reference
        As :func:`fuse` takes them.
    regions
        For each stack a list of :class:`~napari_focus_fusion.tiling.Rectangle`, in
        pixels, that all windows are taken from, or None for all of it; None: all of
        every stack.
    steps
        Updates.
    minutes
        How long training shall take, instead of `steps`: as many as fit in, by the
        time that a few take on this device. A tuning that was stopped goes on with as
        many as it had.
    lr
        Learning rate of Adam; None: that which the model was trained with.
    patch
        Side of a patch in pixels.
    holdout
        Share of the windows that is for validation, above 0 and at most 0.5.
    seed
        Of all that is chosen at random: the same seed gives the same weights on one
        device.
    device
        As :func:`fuse` takes it.
    on_step
        Called with each row of the history.
    on_validation
        Called with a copy of the model as it is at each validation, before training
        and some six times later, ready for :func:`fuse`.
    progress
        Called with a :class:`Progress`.
    should_stop
        Called before each step: whether to stop; the result is then that of the steps
        so far.

    Returns
    -------
    FineTuneResult
        Nothing is saved of a model that is not better than its parent. An existing
        file is never replaced. While tuning, and after it was stopped or killed, a
        checkpoint lies beside the file to be: the same call goes on from there, and
        ends where it would have ended.

    Raises
    ------
    FocusFusionError
        If the model cannot be tuned, the stacks are not fit for it, a parameter is
        wrong, or the name is taken; before any work is done.
    Cancelled
        If `should_stop` said so before the first step.

    Examples
    --------
    >>> from napari_focus_fusion.simulation.scenes import make_scene
    >>> scene = make_scene(5, shape=(160, 160), slices=4, content="leaves")
    >>> result = finetune("sesf", scene.stack, steps=2, patch=48, device="cpu")
    >>> len(result.history), sorted(result.before)
    (3, ['Q_AB/F', 'VIFF', 'error', 'loss'])
    """
    steps = whole_number("steps", steps, least=1)
    patch = whole_number("patch", patch, least=SMALLEST_PATCH)
    seed = whole_number("seed", seed, least=0)
    holdout = _share(holdout)
    minutes = None if minutes is None else real_number("minutes", minutes, above=0)
    lr = None if lr is None else real_number("lr", lr, above=0)
    reference = checked_channel("reference", reference)
    callback("on_step", on_step, "a row of the history")
    callback("on_validation", on_validation, "a model")
    callback("progress", progress, "a Progress")
    callback("should_stop", should_stop)
    asked = (lambda: False) if should_stop is None else should_stop
    where = choose_device(device)
    parent = load_model(model, folder)
    recipe = _recipe_of(parent)
    path = _free_path(name, out, folder)
    checkpoint = path.with_suffix(".checkpoint") if path else None
    sources = _open(stacks, axes)
    Meter(1, progress).enter("Reading the stacks", 0)
    patches = read_patches(
        sources,
        patch=patch,
        holdout=holdout,
        seed=seed,
        reference=reference,
        regions=regions,
        should_stop=asked,
    )
    batches = _resynthesised(patches, 2 * RESYNTHESISED)
    selection, comparison = batches[:RESYNTHESISED], batches[RESYNTHESISED:]
    task = _Task(recipe, patches, where, selection, comparison)
    network = _child_of(parent, path)
    untuned = copy.deepcopy(network)
    settings = {"seed": seed, "patch": patch, "holdout": holdout}
    parent_hash = parent.weights_hash or hash_of_tensors(parent)
    with _on(where, network, untuned), _writing_to(path):
        if minutes is not None:
            steps = stopped_at(checkpoint)[1] or _steps_for(minutes, network, task)
        schedule = _schedule(steps, lr, recipe)
        meter = Meter(steps + 1, progress)
        fitted = _tune(
            network,
            task,
            schedule,
            checkpoint,
            identity=settings | {"model": parent_hash, "stacks": patches.digest()},
            meter=meter,
            on_step=on_step,
            on_validation=on_validation,
            should_stop=asked,
        )
        meter.enter("Comparing it with its parent", steps + 1)
        after, tuned = _evaluate(network, task, asked)
        before, errors = _evaluate(untuned, task, asked)
    better = fitted.best_step > 0 and _are_less(tuned, errors)
    card = _card(parent, parent_hash, sources, schedule, fitted, where) | settings
    card |= {"before": before, "after": after, "better": better}
    if path is not None:
        with translated_errors(path.parent):
            _keep(network, path, card, fitted, better)
    result = FineTuneResult(
        model=network if better else parent,
        better=better,
        before=before,
        after=after,
        best_step=fitted.best_step,
        stopped=fitted.stopped,
        history=fitted.history,
        path=path if better else None,
        card=card,
    )
    if not better:
        warnings.warn(result.verdict, RuntimeWarning, stacklevel=2)
    return result


def stopped_at(checkpoint: Path | None) -> tuple[int, int]:
    """The next step of a tuning that was stopped, and all its steps.

    Parameters
    ----------
    checkpoint
        Its file; (0, 0) where there is none, or none that can be read.
    """
    if checkpoint is None or not checkpoint.exists():
        return 0, 0
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return int(state["step"]), int(state["schedule"]["steps"])
    except DAMAGED:
        return 0, 0


# Before any work ----------------------------------------------------------------------


def _share(holdout: Any) -> float:
    share = real_number("holdout", holdout)
    if not 0 < share <= 0.5:
        raise FocusFusionError(
            f"holdout={share}: the share that is held back must be above 0 and at "
            "most 0.5, or nothing could tell whether tuning helps."
        )
    return share


def _recipe_of(model: FusionModel) -> Recipe:
    spec = model.spec
    assert spec is not None
    recipe = recipe_of(spec) if spec.self_supervised and spec.recipe else None
    if recipe is None or recipe.self_supervised_loss is None:
        tunable = [n for n, s in trainable_models().items() if s.self_supervised]
        raise FocusFusionError(
            f"{spec.title} cannot be fine-tuned: it does not learn, or not without "
            f"labels. These can: {', '.join(tunable)}."
        )
    return recipe


def _free_path(
    name: str | None, out: str | Path | None, folder: str | Path | None
) -> Path | None:
    """Where the tuned weights go; nothing is there but what the same run left."""
    if name is not None and out is not None:
        raise FocusFusionError("Give the tuned model a name or a file, not both.")
    if name is not None:
        name = checked_name(name)
        left = models_folder(folder) / f"{name}.checkpoint"
        taken = models(folder)
        if name in taken and left.exists() and taken[name].base:
            del taken[name]
        path = path_of_name(name, taken, folder)
    elif out is not None:
        path = file_path("out", out)
        if path.suffix != SUFFIX:
            raise FocusFusionError(f"{str(path)!r} must end in {SUFFIX}.")
    else:
        return None
    if not path.with_suffix(".checkpoint").exists():
        for suffix in (SUFFIX, ".json", ".csv"):
            if path.with_suffix(suffix).exists():
                raise FocusFusionError(
                    f"{str(path.with_suffix(suffix))!r} exists already and is not "
                    "replaced. Choose another name."
                )
    with translated_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _open(stacks: Any, axes: str | None) -> list[FocusStack]:
    items = list(stacks) if isinstance(stacks, list | tuple) else [stacks]
    if not items:
        raise FocusFusionError("There is no stack to tune on: the list is empty.")
    opened = [as_stack(item, axes=axes) for item in items]
    for stack in opened:
        if stack.n_slices < 2:
            raise FocusFusionError(
                f"{stack.name!r} has one slice, and nothing to choose from. If the "
                "list holds the slices of one stack, put it in a list of its own; if "
                "another axis is Z, say so with axes=."
            )
    return opened


def _child_of(parent: FusionModel, path: Path | None) -> FusionModel:
    """A copy of the parent on the CPU, with an entry of its own."""
    child = copy.deepcopy(parent).to("cpu")
    spec = parent.spec
    assert spec is not None
    name = path.stem if path else f"{spec.name}-tuned"
    base = installed_models()[spec.base] if spec.base else spec
    child.spec = derived_spec(base, name, parent=spec.name, weights=str(path or ""))
    child.weights_hash = ""
    return child


def _steps_in(
    seconds: float,
    network: FusionModel,
    losses: Callable[[Any, Drawn], dict[str, torch.Tensor]],
    draw: Callable[[int], Drawn],
    error: Callable[[Any], float],
    device: torch.device,
) -> int:
    """How many steps, with the validations, take so long on this device."""
    began = time.perf_counter()
    error(network)
    validating = (VALIDATIONS + 1) * (time.perf_counter() - began)
    trial = Schedule(steps=TIMED + 1, validate_every=TIMED + 1)
    network.requires_grad_(True)
    rows = fit(network, losses, draw, lambda _: 0.0, trial, device=device).history
    step = sum(row["seconds"] for row in rows[1 : TIMED + 1]) / TIMED
    return max(int((seconds - validating) / step), FEWEST)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a network is tuned and evaluated with, and where.

    Attributes
    ----------
    recipe, patches, device
        Of the run.
    selection, comparison
        Resynthesised stacks: those that the state is selected by, and others for the
        comparison with the parent.
    """

    recipe: Recipe
    patches: Patches
    device: torch.device
    selection: list[Batch]
    comparison: list[Batch]

    def draw(self, step: int) -> Drawn:
        """The patches of a step."""
        return self.patches.draw(step, stacks=STACKS, slices=self.recipe.slices)

    def losses(self, network: Any, drawn: Drawn) -> dict[str, torch.Tensor]:
        """What training minimises."""
        generator = generator_of(drawn.step, self.patches.seed)
        assert self.recipe.self_supervised_loss is not None
        return self.recipe.self_supervised_loss(
            network, drawn.slices.to(self.device), generator
        )

    def error(self, network: Any) -> float:
        """The error that the state is selected by."""
        return _mean(self.errors(network, self.selection))

    def errors(self, network: Any, batches: list[Batch]) -> list[float]:
        """The error on each of some resynthesised stacks."""
        network.to(self.device).eval()
        with torch.inference_mode():
            return [
                self.recipe.validate(network, [batch.to(self.device)])
                for batch in batches
            ]


def _schedule(steps: int, lr: float | None, recipe: Recipe) -> Schedule:
    return Schedule(
        steps=steps,
        learning_rate=recipe.schedule.learning_rate if lr is None else lr,
        warm_up=min(20, steps // 10),
        validate_every=max(math.ceil(steps / VALIDATIONS), 1),
    )


def _steps_for(minutes: float, network: FusionModel, task: _Task) -> int:
    return _steps_in(
        60 * minutes,
        copy.deepcopy(network),
        task.losses,
        task.draw,
        task.error,
        task.device,
    )


def _tune(
    network: FusionModel,
    task: _Task,
    schedule: Schedule,
    checkpoint: Path | None,
    *,
    identity: dict[str, Any],
    meter: Meter,
    on_step: Callable[[dict[str, float]], None] | None,
    on_validation: Callable[[FusionModel], None] | None,
    should_stop: Callable[[], bool],
) -> Fitted:
    """Train a network in place, and report progress."""

    def validate(network: Any) -> float:
        if on_validation is not None:
            on_validation(copy.deepcopy(network).requires_grad_(False))
        return task.error(network)

    def report(row: dict[str, float]) -> None:
        meter.enter("Training", row["step"])
        meter.add(1)
        if on_step is not None:
            on_step(row)

    fitted = fit(
        network.requires_grad_(True),
        task.losses,
        task.draw,
        validate,
        schedule,
        device=task.device,
        statistics=False,
        checkpoint=checkpoint,
        identity=identity,
        on_step=report,
        should_stop=should_stop,
    )
    network.requires_grad_(False)
    if not fitted.history:
        raise Cancelled
    return fitted


# Evaluation ---------------------------------------------------------------------------


def _resynthesised(patches: Patches, count: int) -> list[Batch]:
    """Stacks from the validation windows whose depth is known in enough places."""
    batches: list[Batch] = []
    for number in range(4 * count):
        window = patches.validation[number % len(patches.validation)]
        generator = generator_of(number, patches.seed)
        batch = resynthesised_batch(window.planes[None], generator)
        known = batch.depth[:, BORDER:-BORDER, BORDER:-BORDER].isfinite().float().mean()
        if known >= LEAST_KNOWN:
            batches.append(batch)
        if len(batches) == count:
            return batches
    raise FocusFusionError(
        "Too little in the part that is held back stands out of the noise to judge by. "
        "Give more stacks, or hold back more (holdout=0.4)."
    )


def _are_less(tuned: list[float], parents: list[float]) -> bool:
    """Whether errors on the same stacks fell by more than their standard error."""
    change = torch.tensor(parents) - torch.tensor(tuned)
    return bool(change.mean() > change.std() / len(change) ** 0.5)


def _evaluate(
    network: FusionModel, task: _Task, asked: Callable[[], bool]
) -> tuple[dict[str, float], list[float]]:
    """Scores on the validation part, and the error on each resynthesised stack.

    Once asked to stop, the scores of fused windows, which take longest, are left out.
    """
    errors = task.errors(network, task.comparison)
    patches = task.patches
    validation = replace(patches, training=patches.validation)
    losses = []
    with torch.inference_mode():
        for step in range(RESYNTHESISED):
            drawn = validation.draw(step, stacks=1, slices=task.recipe.slices)
            losses.append(float(task.losses(network, drawn)["loss"]))
    scores = {"error": _mean(errors), "loss": _mean(losses)}
    return scores | _fused_scores(network, patches, task.device, asked), errors


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _fused_scores(
    network: FusionModel,
    patches: Patches,
    device: torch.device,
    asked: Callable[[], bool],
) -> dict[str, float]:
    """Means of measures without ground truth over fused windows for validation."""
    rows = []
    for number, window in enumerate(patches.validation[:FUSED]):
        if asked():
            return {}
        chosen = slices_around_sharpest(
            window, FUSED_SLICES, generator_of(number, patches.seed)
        )
        planes = window.planes[chosen].numpy()
        fused = fuse(planes, network, axes="ZYX", device=str(device)).fused
        rows.append(evaluate(fused, planes, measures=MEASURES))
    return {name: sum(row[name] for row in rows) / len(rows) for name in MEASURES}


# Device and files ---------------------------------------------------------------------


@contextlib.contextmanager
def _on(device: torch.device, *networks: FusionModel) -> Iterator[None]:
    """Work on a device and leave nothing there, whatever happens."""
    try:
        with deterministic(device):
            yield
    except BaseException as error:
        if device.type == "cuda":
            # Else the optimiser's tensors live as long as the error does.
            traceback.clear_frames(error.__traceback__)
        raise
    finally:
        for network in networks:
            network.to("cpu")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _writing_to(path: Path | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if path is None else translated_errors(path.parent)


def _card(
    parent: FusionModel,
    parent_hash: str,
    stacks: Sequence[FocusStack],
    schedule: Schedule,
    fitted: Fitted,
    device: torch.device,
) -> dict[str, Any]:
    assert parent.spec is not None
    return {
        "version": __version__,
        "parent": {"name": parent.spec.name, "sha256": parent_hash},
        "stacks": [
            {
                "name": stack.name,
                "source": stack.source,
                "axes": stack.axes,
                "shape": list(stack.data.shape),
            }
            for stack in stacks
        ],
        "steps": schedule.steps,
        "learning_rate": schedule.learning_rate,
        "best_step": fitted.best_step,
        "stopped": fitted.stopped,
        "seconds": round(sum(row.get("seconds", 0.0) for row in fitted.history)),
        "device": describe(device),
        "torch": torch.__version__,
    }


def _keep(
    network: FusionModel, path: Path, card: dict[str, Any], fitted: Fitted, better: bool
) -> None:
    """Save what is better than its parent; leave a checkpoint only to go on from."""
    if better:
        parent = card["parent"]["name"]
        names = [stack["name"] for stack in card["stacks"]]
        on = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
        done = fitted.history[-1]["step"]
        summary = f"Tuned from {parent} on {on}, {done:.0f} steps."
        about = {"parent": parent, "summary": summary}
        network.weights_hash = save_weights(network, path, card, about)
        write_history(path.with_suffix(".csv"), fitted.history)
    if fitted.stopped != "asked":
        remove(path.with_suffix(".checkpoint"))
