"""Loading the models that options give by name, from the folder of a job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def with_models(options: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """Options of a fusion, with models loaded in place of their names.

    Parameters
    ----------
    options
        Keyword arguments of :func:`napari_focus_fusion.fuse`.
    folder
        Where fine-tuned models are; None: the usual one.

    Raises
    ------
    FocusFusionError
        As :func:`napari_focus_fusion.load_model` does.
    """
    from napari_focus_fusion.models.registry import load_model

    loaded = dict(options)
    # Without super-resolution a decision given by name is an error, raised by fuse.
    names = ("model", "decision") if options.get("scale", 1) > 1 else ("model",)
    for name in names:
        if isinstance(loaded.get(name), str | Path):
            loaded[name] = load_model(loaded[name], folder)
    return loaded
