"""Fuse focus stacks into all-in-focus images.

The names below are loaded when first used, so that importing the package, which
napari does to find its manifest, costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import Cancelled, FocusFusionError
    from .fusion import fuse
    from .metrics import evaluate
    from .models import load_model, models
    from .progress import Progress
    from .result import FusionResult
    from .stack import FocusStack, as_stack
    from .training.finetune import FineTuneResult, finetune

__version__ = "0.1.0"

__all__ = [
    "Cancelled",
    "FineTuneResult",
    "FocusFusionError",
    "FocusStack",
    "FusionResult",
    "Progress",
    "as_stack",
    "evaluate",
    "finetune",
    "fuse",
    "load_model",
    "models",
]

_HOME = {
    "Cancelled": "errors",
    "FineTuneResult": "training.finetune",
    "FocusFusionError": "errors",
    "FocusStack": "stack",
    "FusionResult": "result",
    "Progress": "progress",
    "as_stack": "stack",
    "evaluate": "metrics",
    "finetune": "training.finetune",
    "fuse": "fusion",
    "load_model": "models",
    "models": "models",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{_HOME[name]}", __name__)
    if name == _HOME[name]:
        return module  # models: a module that can be called like its function
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
