"""The training loop: exact when taken up again, and never worse than its best."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from napari_focus_fusion import FocusFusionError
from napari_focus_fusion.training.fit import Schedule, fit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCHEDULE = Schedule(steps=24, learning_rate=0.05, warm_up=4, validate_every=6)


def network(seed: int = 0) -> nn.Module:
    """With running statistics, which must come back with the weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


def draw(step: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
    return x, (x[:, :1] * x[:, 1:2]).detach()


def training_loss(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    x, y = batch[:2]
    squared = (model(x) - y).square().mean()
    return {"loss": squared, "also": squared.sqrt()}


def validate(model: nn.Module) -> float:
    assert not model.training
    x, y = draw(10_000)
    return float((model(x) - y).square().mean().detach())


def run(model: nn.Module, **options: Any) -> Any:
    given = {"training_loss": training_loss, "draw": draw, "validate": validate}
    given |= {"schedule": SCHEDULE} | options
    return fit(model, **given)


def same_weights(a: nn.Module, b: nn.Module) -> None:
    other = b.state_dict()
    for name, value in a.state_dict().items():
        assert torch.equal(value, other[name]), name


def stop_at(step: int) -> Callable[[], bool]:
    asked = itertools.count()
    return lambda: next(asked) >= step


def without_time(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "waited")}
        for row in history
    ]


@pytest.mark.parametrize("step", [1, 7, 12, 13, 20])
def test_taken_up_again_it_ends_with_the_same_bits(step: int, tmp_path: Path) -> None:
    whole, resumed = network(), network()
    expected = run(whole)
    checkpoint = tmp_path / "c"
    stopped = run(resumed, checkpoint=checkpoint, should_stop=stop_at(step))
    assert stopped.stopped == "asked"
    # Another network, as in another process: everything comes from the checkpoint.
    other = network(99)
    found = run(other, checkpoint=checkpoint)
    same_weights(other, whole)
    assert without_time(found.history) == without_time(expected.history)
    assert (found.best_step, found.best_score) == (
        expected.best_step,
        expected.best_score,
    )
    assert found.stopped == "finished"
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_finished_training_is_not_trained_on(tmp_path: Path) -> None:
    first, again = network(), network(99)
    expected = run(first, checkpoint=tmp_path / "c")
    found = run(again, checkpoint=tmp_path / "c", draw=None)
    same_weights(again, first)
    assert found.history == expected.history


def scripted(scores: list[float]) -> Callable[[nn.Module], float]:
    remaining = iter(scores)
    return lambda model: next(remaining)


def test_the_best_state_is_kept() -> None:
    """The second validation is the best: that of training stopped there."""
    model = network()
    found = run(model, validate=scripted([5, 1, 4, 3, 2]))
    assert (found.best_step, found.best_score) == (6, 1)
    validations = [(row["step"], row.get("validation")) for row in found.history]
    assert validations[::6] == [(0, 5), (6, 1), (12, 4), (18, 3), (24, 2)]
    same_weights(model, trained_until(6))
    assert not model.training


def trained_until(step: int) -> nn.Module:
    """The network as it is after so many steps of the same schedule."""
    model, states = network(), []

    def spy(looked_at: nn.Module) -> float:
        states.append({k: v.clone() for k, v in looked_at.state_dict().items()})
        return 0.0

    run(model, validate=spy)
    model.load_state_dict(states[step // SCHEDULE.validate_every])
    return model


def test_a_training_that_makes_it_worse_leaves_the_untrained_network() -> None:
    model = network()
    found = run(model, validate=scripted([1, 2, 3, 4, 5]))
    assert found.best_step == 0
    same_weights(model, network().eval())


def test_training_helps_and_the_history_says_how() -> None:
    model = network()
    rows: list[dict[str, float]] = []
    found = run(model, on_step=rows.append)
    assert found.best_score < 0.8 * rows[0]["validation"]
    assert found.best_score == pytest.approx(validate(model))
    assert rows == found.history
    assert [row["step"] for row in rows] == list(range(25))
    assert {"loss", "also", "learning_rate", "seconds", "waited"} <= rows[3].keys()


def test_it_ends_after_so_many_looks_without_an_improvement(tmp_path: Path) -> None:
    schedule = Schedule(steps=60, validate_every=6, patience=2)
    scores = [5, 3, 4, 6, 2, 1, 1, 1, 1, 1, 1]
    found = run(
        network(),
        schedule=schedule,
        validate=scripted(scores),
        checkpoint=tmp_path / "c",
    )
    assert found.stopped == "no improvement"
    assert (found.best_step, found.best_score) == (6, 3)
    assert found.history[-1]["step"] == 18
    # Resumed after its end it ends at once.
    again = run(
        network(),
        schedule=schedule,
        validate=scripted([]),
        checkpoint=tmp_path / "c",
    )
    assert again.stopped == "no improvement"
    assert again.history == found.history


def test_a_loss_that_is_no_number_ends_it_with_words() -> None:
    def breaks(model: nn.Module, batch: Any) -> dict[str, Tensor]:
        losses = training_loss(model, batch)
        return losses | {"loss": losses["loss"] * batch[2]}

    def draw_factor(step: int) -> tuple[Tensor, Tensor, float]:
        return (*draw(step), torch.nan if step == 9 else 1.0)

    model = network()
    words = r"at step 9.*nan.*smaller learning rate"
    with pytest.raises(FocusFusionError, match=words):
        run(model, training_loss=breaks, draw=draw_factor)
    for parameter in model.parameters():
        assert torch.isfinite(parameter).all()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c"
    run(network(), checkpoint=checkpoint, should_stop=stop_at(8))
    before = checkpoint.read_bytes()
    with pytest.raises(FocusFusionError, match=r"other settings.*delete it"):
        run(network(), schedule=Schedule(steps=25), checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


def test_the_learning_rate_rises_and_falls_along_a_cosine() -> None:
    schedule = Schedule(steps=110, warm_up=10)
    rates = [schedule.rate(step) for step in range(110)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(rates) == 1
    assert rates[60] == pytest.approx(0.01 + 0.99 / 2)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert schedule.rate(110) == pytest.approx(0.01)
