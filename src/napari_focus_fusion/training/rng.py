"""Random numbers that a step can draw again: each step has a generator of its own."""

from __future__ import annotations

import torch


def generator_of(step: int, seed: int = 0) -> torch.Generator:
    """A generator on the CPU: the same step of the same seed draws the same.

    Parameters
    ----------
    step
        Of a training, or the number of whatever is drawn in turn.
    seed
        At least 0.
    """
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def random_integer(high: int, generator: torch.Generator, low: int = 0) -> int:
    """An integer from `low` to ``high - 1``, each as likely."""
    return int(torch.randint(low, high, (), generator=generator))


def random_uniform(
    generator: torch.Generator, low: float = 0.0, high: float = 1.0
) -> float:
    """A number from `low` to `high`, each as likely."""
    return low + (high - low) * float(torch.rand((), generator=generator))
