"""Fine-tuned models: files of weights in a folder of the user's, found by their names.

A file there, of weights or an exported package, is a model by the name of the file. Its
header names the model that it was tuned from; its card, ``NAME.json``, is not read.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models import package
from napari_focus_fusion.parameters import file_path, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_focus_fusion.models.spec import ModelSpec

#: Environment variable that names the folder, instead of the platform's usual place.
FOLDER_VARIABLE = "NAPARI_FOCUS_FUSION_MODELS"
SUFFIX = ".safetensors"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Windows keeps these for itself, whatever the ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9])", re.IGNORECASE)


def models_folder(folder: str | Path | None = None) -> Path:
    """The folder of fine-tuned models; it need not be there.

    Parameters
    ----------
    folder
        Used as it is; None for the folder that the environment variable
        ``NAPARI_FOCUS_FUSION_MODELS`` names, or else the platform's usual one.

    Examples
    --------
    >>> models_folder("elsewhere").name
    'elsewhere'
    """
    if folder is not None:
        return file_path("folder", folder)
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = home / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "napari-focus-fusion" / "models"


def checked_name(name: Any) -> str:
    """A name that is fit for a model and its files.

    Raises
    ------
    FocusFusionError
        If it is not.
    """
    fit = isinstance(name, str) and _NAME.fullmatch(name)
    if not fit or _RESERVED.fullmatch(name):
        raise FocusFusionError(
            f"A model cannot be called {shown(name)}. Use letters, digits, - and _, at "
            "most 64 of them, beginning with a letter or digit."
        )
    return str(name)


def path_of_name(
    name: str, taken: Mapping[str, ModelSpec], folder: str | Path | None = None
) -> Path:
    """The file that a new model of this name is kept in.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``, at most 64.
    taken
        The models that there are.
    folder
        Where fine-tuned models are; None for :func:`models_folder`.

    Raises
    ------
    FocusFusionError
        If the name is not fit for a file, or there is a model of that name.
    """
    name = checked_name(name)
    # Case does not tell files apart everywhere.
    if name.lower() in {other.lower() for other in taken}:
        raise FocusFusionError(
            f"There is a model called {name!r} already. Choose another name."
        )
    return models_folder(folder) / f"{name}{SUFFIX}"


def free_name(wish: str, taken: Iterable[str], folder: str | Path | None = None) -> str:
    """A name like the one wished for that a new model can have.

    Parameters
    ----------
    wish
        Any text.
    taken
        Names of the models that there are.
    folder
        Where fine-tuned models are; None for :func:`models_folder`.
    """
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", wish).strip("-_")[:56].strip("-_") or "tuned"
    if _RESERVED.fullmatch(stem):
        stem += "-tuned"
    lower = {name.lower() for name in taken}
    lower |= {path.stem.lower() for path in models_folder(folder).glob("*.checkpoint")}
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    return next(name for name in names if name.lower() not in lower)


def fine_tuned_models(
    known: Mapping[str, ModelSpec], folder: str | Path | None = None
) -> dict[str, ModelSpec]:
    """The models in the folder by name, derived from those that they were tuned from.

    A file that is damaged, whose model is not installed, or whose name is taken is
    left out with a warning.
    """
    found: dict[str, ModelSpec] = {}
    folder = models_folder(folder)
    try:
        # Weights first: of the same name they are the model, not its package.
        paths = [
            path
            for suffix in (SUFFIX, package.SUFFIX)
            for path in sorted(folder.glob(f"*{suffix}"))
        ]
    except OSError as error:
        warnings.warn(
            f"The folder of fine-tuned models, {folder}, cannot be read: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return {}
    for path in paths:
        try:
            if path.stem in known or path.stem in found:
                raise FocusFusionError(f"there is a model called {path.stem!r} already")
            found[path.stem] = spec_of_file(path, known)
        except FocusFusionError as error:
            warnings.warn(
                f"The fine-tuned model {str(path)!r} is left out: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
    return found


def spec_of_file(path: Path, known: Mapping[str, ModelSpec]) -> ModelSpec:
    """The entry of a file of weights, called like the file.

    Raises
    ------
    FocusFusionError
        If the file is damaged, or its model is not installed.
    """
    about = read_header(path)
    base = about.get("model", "")
    if base not in known:
        raise FocusFusionError(
            f"{str(path)!r} holds weights of the model {base!r}, which is not "
            f"installed. There are: {', '.join(known)}."
        )
    return derived_spec(
        known[base],
        path.stem,
        parent=about.get("parent", ""),
        summary=about.get("summary", ""),
        weights=str(path),
    )


def derived_spec(
    base: ModelSpec, name: str, *, parent: str, weights: str, summary: str = ""
) -> ModelSpec:
    """The entry of other weights of a model; without a parent not fine-tuned ones."""
    how = "fine-tuned" if parent else "trained"
    if parent not in ("", base.name):
        how += f" from {parent}"
    return replace(
        base,
        name=name,
        title=f"{name}: {base.title}, {how}",
        summary=summary or base.summary,
        suits="",
        weights=weights,
        base=base.name,
    )


def read_header(path: Path) -> dict[str, str]:
    """The metadata in the header of a file of weights, or in an exported package.

    Raises
    ------
    FocusFusionError
        If it is no safetensors file and no such package, or an incomplete one.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix == package.SUFFIX:
        return package.read_about(path)
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FocusFusionError(
            f"{str(path)!r} is no readable safetensors file ({error}). It may have "
            "been copied incompletely."
        ) from error
