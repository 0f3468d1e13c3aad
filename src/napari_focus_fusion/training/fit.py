"""The one training loop: it resumes exactly, keeps the best, and stops when asked."""

from __future__ import annotations

import copy
import csv
import io
import os
import pickle
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    #: (network, batch) -> named losses; the one called "loss" is minimised.
    TrainingLoss = Callable[[Any, Any], dict[str, Tensor]]
    #: step -> batch; the same step gives the same batch, which makes resuming exact.
    Draw = Callable[[int], Any]
    #: network in evaluation mode -> score, lower is better.
    Validate = Callable[[nn.Module], float]


#: What a checkpoint holds.
_KEPT = ("network", "optimiser", "best", "step", "history", "best_step", "best_score")
#: What reading a damaged one, or a file that is none, raises.
DAMAGED = (
    *(RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError),
    *(KeyError, TypeError, AttributeError, IndexError),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    steps
        Updates in all.
    learning_rate
        Of Adam, after ``warm_up`` steps; falls to a hundredth along a half cosine.
    warm_up
        Steps over which the learning rate rises from zero.
    clip
        Largest norm of the gradient.
    validate_every
        Steps between two validations.
    patience
        Validations without an improvement after which training ends; 0 never ends it.
    """

    steps: int
    learning_rate: float = 1e-3
    warm_up: int = 20
    clip: float = 1.0
    validate_every: int = 100
    patience: int = 0

    def rate(self, step: int) -> float:
        """Learning rate of a step, as a factor of ``learning_rate``."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        cosine = torch.cos(torch.tensor(done * torch.pi)).item()
        return 0.01 + 0.99 * 0.5 * (1 + cosine)


@dataclass(slots=True)
class Fitted:
    """What came of a training.

    Attributes
    ----------
    history
        One row a step: step, losses, learning rate, seconds, and ``waited``, those
        of them until the batch was there; ``validation`` on the steps with a
        validation.
    best_step, best_score
        When the validation score was lowest; the network has that state.
    stopped
        Why it ended: ``"finished"``, ``"asked"`` or ``"no improvement"``.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_score: float = float("inf")
    stopped: str = "finished"


def fit(
    network: nn.Module,
    training_loss: TrainingLoss,
    draw: Draw,
    validate: Validate,
    schedule: Schedule,
    *,
    device: torch.device | str = "cpu",
    statistics: bool = True,
    checkpoint: Path | None = None,
    identity: dict[str, Any] | None = None,
    on_step: Callable[[dict[str, float]], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Fitted:
    """Train a network in place and leave it in its best state, in evaluation mode.

    Parameters
    ----------
    network
        Trained in place.
    training_loss, draw, validate
        The losses of a batch, the batch of a step, the validation score.
        The untrained network is scored first, as step 0.
    schedule
        Length and learning rate.
    device
        Where to train; on CUDA in mixed precision (bfloat16).
    statistics
        Whether batch normalisation learns its running statistics; otherwise it keeps
        those it has and normalises with them.
    checkpoint
        File that holds the whole state after each validation, and when training was
        asked to stop. If it is there, training goes on from it, and ends
        where it would have ended without the interruption.
    identity
        What makes a training the same, beside its schedule: numbers and text by name. A
        checkpoint of another one is refused.
    on_step
        Called with each row of the history.
    should_stop
        Asked before each step.

    Returns
    -------
    Fitted

    Raises
    ------
    FocusFusionError
        If the loss is no longer a number, or the checkpoint is damaged or belongs to
        another run.
    """
    device = torch.device(device)
    network.to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate)
    fitted = Fitted()
    first = 0
    best = copy.deepcopy(network.state_dict())
    identity = identity or {}
    if checkpoint is not None and checkpoint.exists():
        state = _load_checkpoint(checkpoint, device, _as_row(schedule) | identity)
        try:
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            network.load_state_dict(state["best"])
            network.load_state_dict(state["network"])
        except DAMAGED as error:
            raise _unreadable(checkpoint, error) from error
        best, first = state["best"], state["step"]
        fitted = Fitted(state["history"], state["best_step"], state["best_score"])

    def save(step: int) -> None:
        if checkpoint is None:
            return
        state = {
            "network": network.state_dict(),
            "optimiser": optimiser.state_dict(),
            "best": best,
            "step": step,
            "history": fitted.history,
            "best_step": fitted.best_step,
            "best_score": fitted.best_score,
            "schedule": _as_row(schedule),
            "identity": identity,
        }
        partial = checkpoint.with_name(checkpoint.name + ".partial")
        # Written by ourselves: PyTorch does not say that a disk is full.
        content = io.BytesIO()
        torch.save(state, content)
        partial.write_bytes(content.getbuffer())
        os.replace(partial, checkpoint)

    with closing(_Batches(draw, schedule.steps)) as batches:
        for step in range(first, schedule.steps + 1):
            if should_stop is not None and should_stop():
                fitted.stopped = "asked"
                if step > first:
                    save(step)
                break
            # Asked before a step and not after one, so that a run that had ended and is
            # taken up again ends at once.
            previous, waited = step - 1, step - 1 - fitted.best_step
            if (
                schedule.patience
                and previous % schedule.validate_every == 0
                and waited >= schedule.patience * schedule.validate_every
            ):
                fitted.stopped = "no improvement"
                break
            row: dict[str, float] = {"step": step}
            validates = step % schedule.validate_every == 0 or step == schedule.steps
            if validates:
                network.eval()
                with torch.inference_mode():
                    row["validation"] = validate(network)
                if row["validation"] < fitted.best_score:
                    fitted.best_step, fitted.best_score = step, row["validation"]
                    best = copy.deepcopy(network.state_dict())
            if step < schedule.steps:
                network.train()
                if not statistics:
                    _freeze_statistics(network)
                row |= _update(
                    network, training_loss, batches, optimiser, schedule, step
                )
            fitted.history.append(row)
            if on_step is not None:
                on_step(row)
            if validates:
                save(step + 1)
    network.load_state_dict(best)
    network.eval()
    return fitted


class _Batches:
    """Batches of steps, each drawn while the step before it is computed."""

    def __init__(self, draw: Draw, steps: int) -> None:
        self.draw, self.steps = draw, steps
        self.executor = ThreadPoolExecutor(1)
        self.next: tuple[int, Future[Any]] | None = None

    def of(self, step: int) -> Any:
        """The batch of a step; that of the next one is begun."""
        if self.next is None or self.next[0] != step:
            self.next = step, self.executor.submit(self.draw, step)
        batch = self.next[1].result()
        self.next = None
        if step + 1 < self.steps:
            self.next = step + 1, self.executor.submit(self.draw, step + 1)
        return batch

    def close(self) -> None:
        """Wait for what was begun, and end the thread."""
        self.executor.shutdown(cancel_futures=True)


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the rows of a history as CSV, one column a name."""
    names = list(dict.fromkeys(name for row in history for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(history)


def _update(
    network: nn.Module,
    training_loss: TrainingLoss,
    batches: _Batches,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    step: int,
) -> dict[str, float]:
    """One step of Adam; the row of the history it makes."""
    began = time.perf_counter()
    batch = batches.of(step)
    waited = time.perf_counter() - began
    for group in optimiser.param_groups:
        group["lr"] = schedule.learning_rate * schedule.rate(step)
    device = next(network.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        losses = training_loss(network, batch)
    optimiser.zero_grad(set_to_none=True)
    losses["loss"].backward()
    nn.utils.clip_grad_norm_(network.parameters(), schedule.clip)
    row = {name: float(value.detach()) for name, value in losses.items()}
    if not torch.isfinite(losses["loss"]):
        raise FocusFusionError(
            f"Training broke down at step {step}: the loss is {row['loss']}. Try a "
            "smaller learning rate."
        )
    optimiser.step()
    row["learning_rate"] = optimiser.param_groups[0]["lr"]
    row["seconds"] = time.perf_counter() - began
    row["waited"] = waited
    return row


def _freeze_statistics(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _as_row(schedule: Schedule) -> dict[str, Any]:
    return {name: getattr(schedule, name) for name in Schedule.__dataclass_fields__}


def _unreadable(path: Path, error: Exception) -> FocusFusionError:
    why = " ".join(str(error).split())[:200]
    return FocusFusionError(
        f"{path} is no readable checkpoint ({why}); delete it to begin anew."
    )


def _load_checkpoint(
    path: Path, device: torch.device, identity: dict[str, Any]
) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        other = state["schedule"] | state.get("identity", {})
        missing = [name for name in _KEPT if name not in state]
        if missing:
            raise ValueError(f"without {', '.join(missing)}")
    except DAMAGED as error:
        raise _unreadable(path, error) from error
    names = identity.keys() | other.keys()
    differ = sorted(name for name in names if identity.get(name) != other.get(name))
    if differ:
        raise FocusFusionError(
            f"{path} is from a training with other settings ({', '.join(differ)}); "
            "delete it or choose another file."
        )
    return dict(state)
