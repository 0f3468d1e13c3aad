"""Writes a model as a package of bioimage.io, or as two where it has two networks."""

from __future__ import annotations

import hashlib
import importlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.export.description import write_description
from napari_focus_fusion.export.examples import (
    context_of_scenes,
    context_of_stack,
    example_slices,
    normalised,
)
from napari_focus_fusion.export.formats import STATE_DICT, as_tuple, write_formats
from napari_focus_fusion.export.networks import (
    Decoder,
    Encoder,
    Exported,
    SliceScores,
    StackWeights,
    tensors_in,
)
from napari_focus_fusion.export.part import AXES, FACTORY, IMAGES, SOURCE, Part
from napari_focus_fusion.export.source import network_source
from napari_focus_fusion.models.base import Reconstructor
from napari_focus_fusion.models.fine_tuned import read_header
from napari_focus_fusion.models.package import ABOUT, SUFFIX
from napari_focus_fusion.models.registry import (
    hash_of_tensors,
    load_model,
    weights_folder,
)
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.parameters import file_path, several, text_of, yes_or_no
from napari_focus_fusion.write.places import places_of
from napari_focus_fusion.write.saving import check_targets, written_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.stack import FocusStack

#: What is exported of each kind of model.
NETWORKS: dict[str, tuple[type[Exported], ...]] = {
    "slice-scorer": (SliceScores,),
    "set-masker": (StackWeights,),
    "reconstructor": (Encoder, Decoder),
}
EXTRA = 'pip install "napari-focus-fusion[bioimageio]"'
#: The least size of images, and how far beyond the halos it is.
LEAST, BEYOND = 32, 8


def export_model(
    model: str | Path | FusionModel,
    out: str | Path | None = None,
    *,
    stack: Any = None,
    authors: Sequence[str] = (),
    folder: str | Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a model as a package of bioimage.io.

    It holds the weights as a state dict with the network's source, as TorchScript and
    as ONNX, tensors to test them with, the halo, the paper, and what is known of the
    training. Needs the extra ``bioimageio``.

    Parameters
    ----------
    model
        As :func:`load_model` takes it. A scorer becomes a model of slices,
        ``dual-path`` one of stacks, ``mscnn`` two: its encoder and its decoder.
    out
        A ``.zip`` file; None: the model's name, in the current folder. Two networks go
        to ``NAME-encoder.zip`` and ``NAME-decoder.zip``.
    stack
        Where scoring needs statistics of the stack (``sesf``, ``residual``), they are
        fixed to those of this one, as :func:`as_stack` takes it; None: to those of
        scenes of all kinds.
    authors
        Names; none: the developers of this package.
    folder
        Where fine-tuned models are; None for :func:`models_folder`.
    overwrite
        Whether existing files may be replaced.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    FocusFusionError
        If the model has no weights or is of a kind that cannot be exported, a value is
        wrong, a file exists, the extra is missing, or the formats do not return the
        same.

    Examples
    --------
    ``export_model("sesf")`` writes ``sesf.zip``, which any program for bioimage.io
    runs, and which loads again: ``fuse(stack, "sesf.zip")``. What has no weights
    cannot travel:

    >>> export_model("sml")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    napari_focus_fusion.errors.FocusFusionError: Sum-modified-Laplacian has no ...
    """
    yes_or_no("overwrite", overwrite)
    names = [text_of("authors", name) for name in several("authors", authors)]
    loaded = load_model(model, folder)
    spec = loaded.spec
    assert spec is not None
    target = file_path("out", f"{spec.name}{SUFFIX}" if out is None else out)
    if target.suffix != SUFFIX:
        raise FocusFusionError(f"out={str(target)!r} must end in {SUFFIX}.")
    given = None if stack is None else as_stack(stack)
    inputs = set() if given is None else places_of(given.data)
    kinds = exportable(loaded)
    targets = [
        target.with_name(f"{target.stem}-{kind.part}{SUFFIX}")
        if len(kinds) > 1
        else target
        for kind in kinds
    ]
    check_targets(targets, overwrite=overwrite, inputs=inputs)
    check_extra()
    context, fixed = _context(loaded, kinds[0](loaded), given)
    about, card = about_model(loaded), _card(loaded)
    with (
        tempfile.TemporaryDirectory() as temporary,
        written_whole(targets, overwrite=overwrite) as partials,
    ):
        for kind, partial in zip(kinds, partials, strict=True):
            made = Path(temporary) / kind.part
            made.mkdir()
            part = write_part(kind(loaded), context, fixed, made)
            write_about(made, about | {"part": kind.part})
            write_description(part, card, names, made, partial)
    return targets


def _context(
    model: FusionModel, network: Exported, stack: FocusStack | None
) -> tuple[Any, str]:
    """The statistics that a network is fixed to, and what they are of."""
    if not tensors_in(network.template):
        return None, ""
    if stack is None:
        return context_of_scenes(model), "twelve scenes of all kinds"
    return context_of_stack(model, stack), repr(stack.name)


def exportable(model: FusionModel) -> tuple[type[Exported], ...]:
    """The networks that a model is exported as.

    Raises
    ------
    FocusFusionError
        If there are none, with the reason.
    """
    spec = model.spec
    assert spec is not None
    if model.kind not in NETWORKS:
        raise FocusFusionError(
            f"{spec.title} cannot be exported: it compares two slices at a time or "
            "enlarges them, with the decision over the whole stack in between, which "
            "is no single network. Share its file of weights (.safetensors) instead."
        )
    if not model.state_dict():
        raise FocusFusionError(
            f"{spec.title} has no weights: it is a formula, which stands in "
            f"{spec.target.partition(':')[0]}. Export a network."
        )
    return NETWORKS[model.kind]


def check_extra() -> None:
    """Raise if what writes and checks packages is not installed."""
    try:
        for name in ("bioimageio.spec", "onnx", "onnxruntime"):
            importlib.import_module(name)
    except ImportError as error:
        raise FocusFusionError(
            f"To export models install the extra bioimageio: {EXTRA} ({error})."
        ) from error


def write_part(network: Exported, context: Any, fixed: str, folder: Path) -> Part:
    """Write one network's weights, source and test tensors.

    Parameters
    ----------
    network
        Not yet fixed.
    context
        What it is fixed to.
    fixed
        What that is, in words.
    folder
        Empty; the files go there.
    """
    network.fix(context)
    network.eval().requires_grad_(False)
    model = network.network
    spec, halo = model.spec, model.spec.halo
    if isinstance(model, Reconstructor):
        inner = model.decoder_halo
        halo = inner if isinstance(network, Decoder) else halo - inner
    least = max(LEAST, 2 * halo + BEYOND)
    raw, inputs = example_inputs(network, least + 8, least + 16)
    _, larger = example_inputs(network, least + 24, least + 17, more=1)
    axes = {
        name: tuple(
            axis if _is_free(name, axis) else "" for axis in AXES.get(name, IMAGES)
        )
        for name in (*network.inputs, *network.outputs)
    }
    write_formats(network, tuple(inputs.values()), tuple(larger.values()), axes, folder)
    with torch.no_grad():
        returned = as_tuple(network(*inputs.values()))
    outputs = dict(zip(network.outputs, returned, strict=True))
    for name, tensor in raw.items():
        np.save(folder / f"test_input_{name}.npy", tensor.numpy())
    for name, tensor in outputs.items():
        np.save(folder / f"test_output_{name}.npy", tensor.numpy())
    wrapper = f"{type(network).__module__}:{type(network).__name__}"
    source = network_source(spec.target, wrapper, FACTORY)
    (folder / SOURCE).write_text(source, encoding="utf-8")
    several_parts = len(NETWORKS[model.kind]) > 1
    name = f"{spec.name} {network.part}" if several_parts else spec.name
    return Part(network, name, halo, least, raw, inputs, outputs, fixed)


def _is_free(tensor: str, axis: str) -> bool:
    """Whether an axis may have any size."""
    if axis == "batch":
        return tensor not in ("stack", "weights")
    return axis in ("z", "y", "x")


def example_inputs(
    network: Exported, height: int, width: int, more: int = 0
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs of a network as they are given, and normalised."""
    slices = example_slices(height, width)
    slices = torch.cat([slices, slices[:more]])
    ready = torch.from_numpy(normalised(slices.numpy()))
    if isinstance(network, StackWeights):
        return {"stack": slices[:, 0][None]}, {"stack": ready[:, 0][None]}
    if not isinstance(network, Decoder):
        return {"slices": slices}, {"slices": ready}
    with torch.no_grad():
        largest, added = network.network.encode(ready, network.context())
    pooled = {
        "largest": largest.amax(0, keepdim=True),
        "added": added.sum(0, keepdim=True),
        "count": torch.tensor([[float(len(slices))]]),
    }
    pooled = {name: torch.cat([x] * (1 + more)) for name, x in pooled.items()}
    return pooled, pooled


def about_model(model: FusionModel) -> dict[str, str]:
    """What loading the package again needs; see ``models/package.py``."""
    spec = model.spec
    assert spec is not None
    about = {
        "model": spec.base or spec.name,
        "tensors_sha256": hash_of_tensors(model),
        "weights_sha256": model.weights_hash,
    }
    if spec.base:
        header = {"parent": spec.base, "summary": spec.summary}
        if Path(spec.weights).is_file():
            header = read_header(Path(spec.weights))
        about |= {key: header[key] for key in ("parent", "summary") if key in header}
    return about


def write_about(folder: Path, about: dict[str, str]) -> None:
    """Write it, and the hash of the state dict in the folder."""
    digest = hashlib.sha256((folder / STATE_DICT).read_bytes()).hexdigest()
    text = json.dumps({**about, "weights": STATE_DICT, "sha256": digest}, indent=1)
    (folder / ABOUT).write_text(text + "\n", encoding="utf-8")


def _card(model: FusionModel) -> dict[str, Any]:
    """What is known of the training; empty where there is no card."""
    spec = model.spec
    assert spec is not None
    path = (weights_folder() / (spec.weights or "-")).with_suffix(".json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
