"""Packages of bioimage.io that were exported here, read again.

What is needed stands in a file of ours inside the package, so that neither
``bioimageio.spec`` nor the code in the package is needed or run.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from typing import TYPE_CHECKING

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

SUFFIX = ".zip"
#: The file of ours: the model, the parent of fine-tuned weights, and hashes.
ABOUT = "napari-focus-fusion.json"
#: The network's part of the weights, which also hold the statistics that scoring needs.
PREFIX = "network."
#: What a description is called in packages of bioimage.io.
DESCRIPTIONS = ("bioimageio.yaml", "rdf.yaml")


def read_about(path: Path) -> dict[str, str]:
    """What a package says of the model in it.

    Raises
    ------
    FocusFusionError
        If it is no package, another program's, or a damaged one.
    """
    with _opened(path) as package:
        names = package.namelist()
        if ABOUT not in names:
            raise FocusFusionError(_foreign(path, package, names))
        try:
            about = json.loads(package.read(ABOUT))
            return {key: str(value) for key, value in dict(about).items()}
        except (ValueError, TypeError, zipfile.BadZipFile) as error:
            raise FocusFusionError(
                f"{str(path)!r} is damaged: its file {ABOUT} cannot be read ({error})."
            ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The network's tensors in a package, by name.

    Raises
    ------
    FocusFusionError
        As :func:`read_about`, or if the weights are not those that were exported.
    """
    import torch

    about = read_about(path)
    with _opened(path) as package:
        try:
            data = package.read(about.get("weights", ""))
        except (KeyError, zipfile.BadZipFile) as error:
            raise FocusFusionError(
                f"The weights in {str(path)!r} are missing or damaged ({error}). "
                "Export or copy the package again."
            ) from error
    if hashlib.sha256(data).hexdigest() != about.get("sha256"):
        raise FocusFusionError(
            f"The weights in {str(path)!r} are not those that were exported: their "
            f"hash is not the one in {ABOUT}. The package is damaged, or its weights "
            "were exchanged. Export it again."
        )
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.items()
        if name.startswith(PREFIX)
    }


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise FocusFusionError(
            f"{str(path)!r} is no readable package of a model ({error}). It may have "
            "been copied incompletely."
        ) from error


def _foreign(path: Path, package: zipfile.ZipFile, names: list[str]) -> str:
    """Why a zip file without our file in it cannot be loaded."""
    description = next((name for name in DESCRIPTIONS if name in names), None)
    if description is None:
        return (
            f"{str(path)!r} is no package of a model: it holds neither {ABOUT} nor a "
            f"{' or '.join(DESCRIPTIONS)}."
        )
    text = package.read(description).decode("utf-8", "replace")
    name = re.search(r"^name:\s*(.+)$", text, re.MULTILINE)
    called = f" called {name[1].strip()!r}" if name else ""
    return (
        f"{str(path)!r} holds a bioimage.io model{called} of another program. Only "
        "models that napari-focus-fusion exported can be loaded: of other networks it "
        "is not known how sharpness follows from what they return. Run it with "
        "bioimageio.core, or make a model of it as the page Contributing says."
    )
