"""Fuse focus stacks into all-in-focus images.

The names below are loaded when first used, so that importing the package, which
napari does to find its manifest, costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

# A subpackage has this name too: loaded later, it would take the place of the function.
from .models.registry import models

if TYPE_CHECKING:
    from .errors import Cancelled, FocusFusionError
    from .export import export_model
    from .fusion import fuse
    from .height import HeightMap, height_map
    from .metrics import evaluate
    from .models.registry import load_model
    from .opening import as_stack
    from .progress import Progress
    from .projection import Projection, project
    from .read import series_in
    from .registration.registration import Registration, load_registration, register
    from .result import FusionResult
    from .stack import FocusStack
    from .training.finetune import FineTuneResult, finetune

__all__ = [
    "Cancelled",
    "FineTuneResult",
    "FocusFusionError",
    "FocusStack",
    "FusionResult",
    "HeightMap",
    "Progress",
    "Projection",
    "Registration",
    "__version__",
    "as_stack",
    "evaluate",
    "export_model",
    "finetune",
    "fuse",
    "height_map",
    "load_model",
    "load_registration",
    "models",
    "project",
    "register",
    "series_in",
]

_HOME = {
    "Cancelled": "errors",
    "FineTuneResult": "training.finetune",
    "FocusFusionError": "errors",
    "FocusStack": "stack",
    "FusionResult": "result",
    "HeightMap": "height",
    "Progress": "progress",
    "Projection": "projection",
    "Registration": "registration.registration",
    "as_stack": "opening",
    "evaluate": "metrics",
    "export_model": "export",
    "finetune": "training.finetune",
    "fuse": "fusion",
    "height_map": "height",
    "load_model": "models.registry",
    "load_registration": "registration.registration",
    "project": "projection",
    "register": "registration.registration",
    "series_in": "read",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
