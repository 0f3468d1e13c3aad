"""The registry of models: which there are, and how to load them.

A model is one file in this folder, one file in ``training/objectives`` with the recipe
that it is trained by, and one row of :data:`OURS`, which names both. Other packages add
theirs through the entry-point group ``napari_focus_fusion.models``: each entry names a
:class:`ModelSpec`.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models import package
from napari_focus_fusion.models.fine_tuned import (
    fine_tuned_models,
    models_folder,
    read_header,
    spec_of_file,
)
from napari_focus_fusion.models.spec import ModelSpec, import_target
from napari_focus_fusion.parameters import file_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.models.surface import Surface

__all__ = [
    "DEFAULT_MODEL",
    "ModelSpec",
    "installed_models",
    "load_model",
    "models",
    "models_folder",
    "new_model",
    "our_models",
    "save_weights",
    "trainable_models",
    "weights_folder",
]

ENTRY_POINTS = "napari_focus_fusion.models"

#: The model that is used where none is named.
DEFAULT_MODEL = "sml"

DUAL_PATH = ModelSpec(
    name="dual-path",
    title="Dual-Path",
    suits="Layers in few slices",
    summary="Weighs all slices at once in unrolled steps: the finest depth maps.",
    target="napari_focus_fusion.models.dual_path:DualPath",
    halo=32,
    paper="Quan et al., Dual-path deep unsupervised learning for multi-focus image "
    "fusion, IEEE Transactions on Multimedia 27, 2025",
    doi="10.1109/TMM.2024.3521817",
    weights="dual-path.safetensors",
    self_supervised=True,
    recipe="napari_focus_fusion.training.objectives.dual_path:RECIPE",
    cost=25_000,
)

#: Those that are the best for something first (docs, *Benchmarks*).
OURS = (
    ModelSpec(
        name="sml",
        title="Sum-modified-Laplacian",
        suits="Most stacks",
        summary="Plain focus measure: fast, and with the surface good on nearly all "
        "stacks of three slices or more.",
        target="napari_focus_fusion.models.sml:SumModifiedLaplacian",
        halo=1,
        paper="Nayar and Nakagawa, Shape from Focus, IEEE TPAMI 16(8), 1994",
        doi="10.1109/34.308479",
        cost=60,
    ),
    ModelSpec(
        name="mscnn",
        title="MSCNN",
        suits="Noisy or steep, to look at",
        summary="Reconstructs from the features of all slices: for noisy and steep "
        "stacks; not for measuring intensities.",
        target="napari_focus_fusion.models.mscnn:MSCNN",
        halo=25,
        reconstructs=True,
        paper="Mustafa, Yang and Zareapoor, Multi-scale convolutional neural network "
        "for multi-focus image fusion, Image and Vision Computing 85, 2019",
        doi="10.1016/j.imavis.2019.03.001",
        weights="mscnn.safetensors",
        self_supervised=True,
        recipe="napari_focus_fusion.training.objectives.mscnn:RECIPE",
        cost=30_000,
    ),
    ModelSpec(
        name="sesf",
        title="SESF-Fuse",
        suits="Pairs",
        summary="Spatial frequency of learned features: sees through noise, also in "
        "pairs.",
        target="napari_focus_fusion.models.sesf:SESF",
        halo=5,
        paper="Ma et al., SESF-Fuse: an unsupervised deep model for multi-focus image "
        "fusion, Neural Computing and Applications, 2020",
        doi="10.1007/s00521-020-05358-9",
        weights="sesf.safetensors",
        self_supervised=True,
        recipe="napari_focus_fusion.training.objectives.sesf:RECIPE",
        cost=14_000,
    ),
    DUAL_PATH,
    replace(
        DUAL_PATH,
        name="dual-path-brightfield",
        title="Dual-Path, brightfield",
        suits="Thick cells with bright rims",
        summary="Dual-Path that knows refraction: for cells whose rims look sharp out "
        "of focus.",
        weights="dual-path-brightfield.safetensors",
        recipe="napari_focus_fusion.training.objectives.dual_path:BRIGHTFIELD_RECIPE",
    ),
    ModelSpec(
        name="affinity-sr",
        title="Focus affinity and super-resolution",
        suits="Enlarged 2, 3 or 4 times",
        summary="Fuses and enlarges two, three or four times in one.",
        target="napari_focus_fusion.models.affinity_sr:AffinitySR",
        halo=35,
        paper="Li et al., Focus affinity perception and super-resolution embedding for "
        "multifocus image fusion, IEEE TNNLS, 2024",
        doi="10.1109/TNNLS.2024.3367782",
        weights="affinity-sr.safetensors",
        upscale=(1, 2, 3, 4),
        self_supervised=True,
        recipe="napari_focus_fusion.training.objectives.affinity_sr:RECIPE",
        cost=54_000,
    ),
    ModelSpec(
        name="residual-zero",
        title="Residual gradient prior",
        summary="The idea of the residual model without its network: fast, no weights, "
        "less troubled by noise than sml.",
        target="napari_focus_fusion.models.residual:ResidualZero",
        halo=10,
        paper="Wang, Li, Duan and Zhang, A self-supervised residual feature learning "
        "model for multifocus image fusion, IEEE TIP 31, 2022",
        doi="10.1109/TIP.2022.3184250",
        cost=80,
    ),
    ModelSpec(
        name="residual",
        title="Residual features",
        summary="Features learnt beside super-resolution: as good as sesf, at several "
        "times the cost.",
        target="napari_focus_fusion.models.residual:Residual",
        halo=9,
        paper="Wang, Li, Duan and Zhang, A self-supervised residual feature learning "
        "model for multifocus image fusion, IEEE TIP 31, 2022",
        doi="10.1109/TIP.2022.3184250",
        weights="residual.safetensors",
        self_supervised=True,
        recipe="napari_focus_fusion.training.objectives.residual:RECIPE",
        cost=65_000,
    ),
)


#: Not one to choose: it finds the surface that weighs the scores of the others.
SURFACE = ModelSpec(
    name="surface",
    title="Surface",
    summary="Where along Z neighbours and the plain focus measure agree.",
    target="napari_focus_fusion.models.surface:Surface",
    halo=100,
    weights="surface.safetensors",
    recipe="napari_focus_fusion.training.objectives.surface:RECIPE",
    cost=1_000,
)


def our_models() -> dict[str, ModelSpec]:
    """Our models by name, including those whose weights are still to be trained.

    Examples
    --------
    >>> our_models()["sesf"].title
    'SESF-Fuse'
    """
    return {spec.name: spec for spec in OURS}


def models(folder: str | Path | None = None) -> dict[str, ModelSpec]:
    """All models by name: ours, those of other packages, those that were fine-tuned.

    What cannot be read of the latter two is left out with a warning.

    Parameters
    ----------
    folder
        Where fine-tuned models are; None for :func:`models_folder`.

    Returns
    -------
    dict of str to ModelSpec
        In this order.

    Examples
    --------
    >>> list(models())[:2], models()["sml"].title
    (['sml', 'mscnn'], 'Sum-modified-Laplacian')
    """
    ours = our_models()
    found = {
        name: spec
        for name, spec in installed_models().items()
        if name not in ours or _is_complete(spec)
    }
    return found | fine_tuned_models(found, folder)


def _is_complete(spec: ModelSpec) -> bool:
    return not spec.weights or (weights_folder() / spec.weights).is_file()


def trainable_models() -> dict[str, ModelSpec]:
    """The installed models with a recipe: what :func:`train` makes weights for.

    Examples
    --------
    >>> "sesf" in trainable_models(), "sml" in trainable_models()
    (True, False)
    """
    known = {**our_models(), SURFACE.name: SURFACE, **installed_models()}
    return {name: spec for name, spec in known.items() if spec.recipe}


def installed_models() -> dict[str, ModelSpec]:
    """Ours and those of other packages by name, without fine-tuned ones.

    Ours are there too while their weights are still to be trained.

    Examples
    --------
    >>> installed_models()["sml"].doi
    '10.1109/34.308479'
    """
    found = our_models()
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            spec = entry.load()
        except Exception as error:  # whatever another package's import may raise
            warnings.warn(
                f"The model {entry.name!r} ({entry.value}) cannot be used: {error}",
                RuntimeWarning,
                stacklevel=3,
            )
            continue
        if not isinstance(spec, ModelSpec):
            warnings.warn(
                f"The model {entry.name!r} ({entry.value}) is no ModelSpec.",
                RuntimeWarning,
                stacklevel=3,
            )
        elif spec.name in found:
            warnings.warn(
                f"There are two models called {spec.name!r}; {entry.value} is left "
                "out.",
                RuntimeWarning,
                stacklevel=3,
            )
        else:
            found[spec.name] = spec
    return found


def weights_folder() -> Path:
    """Where the shipped weights and their cards are.

    Examples
    --------
    >>> (weights_folder() / "sesf.safetensors").is_file()
    True
    """
    return Path(__file__).parent / "weights"


def load_model(
    model: str | Path | FusionModel, folder: str | Path | None = None
) -> FusionModel:
    """A model ready to score, from its name, from a file of weights, or as it is.

    Parameters
    ----------
    model
        A name in :func:`models`, the path of a ``.safetensors`` file that
        :func:`save_weights` wrote or of a ``.zip`` that
        :func:`~napari_focus_fusion.export_model` wrote, or a loaded model.
    folder
        Where fine-tuned models are; None for :func:`models_folder`.

    Returns
    -------
    FusionModel
        In evaluation mode on the CPU, with ``spec`` and ``weights_hash`` set.

    Raises
    ------
    FocusFusionError
        If there is no such model or file, or the weights do not belong to the model,
        or hold NaN or infinite values.

    Examples
    --------
    >>> import torch
    >>> model = load_model("sml")
    >>> model.spec.title
    'Sum-modified-Laplacian'
    >>> model.score(torch.rand(5, 1, 32, 48)).shape
    torch.Size([5, 32, 48])
    """
    from napari_focus_fusion.models.base import FusionModel

    if isinstance(model, FusionModel):
        if model.spec is None:
            raise FocusFusionError(
                f"{type(model).__name__} has no spec. Set model.spec to a ModelSpec "
                "that states its name and halo."
            )
        check_weights(model, f"The weights of {model.spec.title}")
        return model.eval()
    path = file_path("model", model)
    known = models(folder)
    if str(model) in known:
        spec = known[str(model)]
        return _build(spec, weights_folder() / spec.weights if spec.weights else None)
    if path.suffix != ".safetensors" and not os.path.exists(path):
        raise FocusFusionError(
            f"There is no model {str(model)!r}. There are: {', '.join(known)}; or give "
            "the path of a .safetensors file, or of an exported model (.zip)."
        )
    if not os.path.isfile(path):
        raise FocusFusionError(f"There is no file of weights {str(path)!r}.")
    spec = spec_of_file(path, known)
    # Weights that were not tuned from others are those of the model itself.
    return _build(spec if "parent" in read_header(path) else known[spec.base], path)


def load_surface() -> Surface:
    """The network that finds the surface, with its weights, on the CPU.

    Raises
    ------
    FocusFusionError
        If the weights are missing or damaged.

    Examples
    --------
    >>> load_surface().kind
    'surface'
    """
    from napari_focus_fusion.models.surface import Surface

    network = _build(SURFACE, weights_folder() / SURFACE.weights)
    assert isinstance(network, Surface)
    return network


def save_weights(
    model: FusionModel,
    path: Path,
    card: dict[str, Any],
    about: Mapping[str, str] | None = None,
) -> str:
    """Write a model's weights (safetensors) with a card (JSON) beside them.

    Parameters
    ----------
    model
        With ``spec`` set.
    path
        Ends in ``.safetensors``; the card goes to the same name with ``.json``.
    card
        Description of the weights; model and hash are added.
    about
        Metadata in the header of the file: of fine-tuned weights ``parent``, the
        name of the model they came from, and ``summary``.

    Returns
    -------
    str
        Hash of the file, as in the provenance of results.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_focus_fusion.models.registry import load_model
    >>> path = Path("copy.safetensors")
    >>> digest = save_weights(load_model("sesf"), path, {"note": "as shipped"})
    >>> load_model(path).weights_hash == digest
    True
    """
    from safetensors.torch import save

    assert model.spec is not None
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    base = model.spec.base or model.spec.name
    # Whole or not at all: the file may be in use, mapped into memory.
    partial = path.with_name(path.name + ".partial")
    # save_file would make a file that only its owner can read.
    partial.write_bytes(save(tensors, metadata={"model": base, **(about or {})}))
    os.replace(partial, path)
    digest = hash_of(path)
    text = json.dumps({"model": base, "sha256": digest, **card}, indent=1)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return digest


def hash_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Examples
    --------
    >>> from napari_focus_fusion.models.registry import load_model, weights_folder
    >>> path = weights_folder() / "sesf.safetensors"
    >>> hash_of(path) == load_model("sesf").weights_hash
    True
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hash_of_tensors(model: FusionModel) -> str:
    """SHA-256 of weights that come from no file; empty for a model without weights.

    Examples
    --------
    >>> from napari_focus_fusion.models.registry import load_model
    >>> len(hash_of_tensors(load_model("sesf"))), hash_of_tensors(load_model("sml"))
    (64, '')
    """
    state = model.state_dict()
    if not state:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def new_model(spec: ModelSpec) -> FusionModel:
    """A model as it is before any training, in evaluation mode.

    Examples
    --------
    >>> from napari_focus_fusion.models.registry import our_models
    >>> new_model(our_models()["sesf"]).weights_hash
    ''
    """
    try:
        model: FusionModel = import_target(spec.target)()
    except Exception as error:  # whatever another package's code may raise
        raise FocusFusionError(
            f"The model {spec.name!r} cannot be loaded from {spec.target!r} ({error}). "
            "Update or reinstall the package that it comes from."
        ) from error
    model.spec = spec
    return model.eval().requires_grad_(False)


def _build(spec: ModelSpec, path: Path | None) -> FusionModel:
    model = new_model(spec)
    if path is not None:
        _load_weights(model, path)
        packed = path.suffix == package.SUFFIX
        # The same weights have the same hash, wherever they come from.
        model.weights_hash = _packed_hash(model, path) if packed else hash_of(path)
    return model


def _packed_hash(model: FusionModel, path: Path) -> str:
    found = hash_of_tensors(model)
    about = package.read_about(path)
    unchanged = about.get("tensors_sha256") == found
    return (about.get("weights_sha256") if unchanged else "") or found


def _load_weights(model: FusionModel, path: Path) -> None:
    from safetensors.torch import load_file

    assert model.spec is not None
    if not path.is_file():
        raise FocusFusionError(
            f"The weights of {model.spec.name!r} are missing: {path}. Install the "
            "package again."
        )
    read_header(path)
    packed = path.suffix == package.SUFFIX
    try:
        model.load_state_dict(package.read_weights(path) if packed else load_file(path))
    except RuntimeError as error:
        raise FocusFusionError(
            f"{str(path)!r} does not fit {model.spec.title}: it was made by another "
            f"version or for another model ({error})."
        ) from error
    check_weights(model, repr(str(path)))


def check_weights(model: FusionModel, name: str) -> None:
    """Raise if weights hold what is no number: every result would be wrong.

    Parameters
    ----------
    model
        Its parameters and buffers are checked.
    name
        What messages call them.

    Raises
    ------
    FocusFusionError
        Naming the first tensor that holds NaN or infinity.

    Examples
    --------
    >>> from napari_focus_fusion.models.registry import load_model
    >>> check_weights(load_model("sesf"), "The weights")
    """
    for tensor_name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FocusFusionError(
                f"{name}: {tensor_name} holds NaN or infinite values, so every result "
                "would be wrong. The training broke down, or the file is damaged. Use "
                "other weights."
            )
