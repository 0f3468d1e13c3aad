"""A network in the terms of bioimage.io: tensors, axes, papers, documentation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion._version import __version__
from napari_focus_fusion.engine.normalise import BLACK, WHITE
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.export.documentation import documentation
from napari_focus_fusion.export.formats import ONNX, OPSET, STATE_DICT, TORCHSCRIPT
from napari_focus_fusion.export.part import AXES, FACTORY, IMAGES, README, SOURCE
from napari_focus_fusion.models.package import ABOUT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_focus_fusion.export.part import Part

DEVELOPERS = "napari-focus-fusion developers"
LICENSE = "BSD-3-Clause"
REPOSITORY = "https://github.com/napari-focus-fusion/napari-focus-fusion"
TAGS = (
    *("2d", "image-fusion", "focus-stacking", "all-in-focus"),
    *("extended-depth-of-field", "depth-map", "microscopy", "pytorch"),
)
ABOUT_TENSORS = {
    "slices": "Slices of one stack, in any order, all of them as one batch.",
    "scores": "How sharp each pixel is, at least 0; higher is sharper.",
    "stack": "A focus stack.",
    "weights": "The weight of each slice at each pixel, adding up to 1 over z.",
    "largest": "Features of which the largest over the slices is kept.",
    "added": "Features of which the sum over the slices is kept.",
    "count": "How many slices were pooled.",
    "fused": "The all-in-focus image, normalised like the slices.",
}
#: How far what is returned may be off elsewhere, relative to each value and to the
#: largest of the test.
RELATIVE, OF_LARGEST = 1e-3, 1e-4


def write_description(
    part: Part, card: dict[str, Any], authors: Sequence[str], folder: Path, path: Path
) -> None:
    """Describe a network and write its package.

    Parameters
    ----------
    part
        The network.
    card
        What is known of its training.
    authors
        Names; none: the developers.
    folder
        Holds weights, source and test tensors.
    path
        The ``.zip`` file to write.

    Raises
    ------
    FocusFusionError
        If ``bioimageio.spec`` does not accept the description.
    """
    from bioimageio.spec import save_bioimageio_package
    from bioimageio.spec.common import FileDescr
    from bioimageio.spec.model import v0_5
    from loguru import logger

    spec = part.network.network.spec
    assert spec is not None
    text = documentation(part, card)
    (folder / README).write_text(text, encoding="utf-8")
    logger.disable("bioimageio")  # its progress is not the user's
    try:
        described = v0_5.ModelDescr(
            name=_name(part.name),
            description=spec.summary,
            authors=[v0_5.Author(name=name) for name in authors or (DEVELOPERS,)],
            cite=_citations(spec.paper, spec.doi, v0_5),
            license=v0_5.LicenseId(LICENSE),
            git_repo=v0_5.HttpUrl(REPOSITORY),
            tags=[*TAGS, spec.base or spec.name],
            documentation=FileDescr(source=folder / README),
            attachments=[FileDescr(source=folder / ABOUT)],
            inputs=[_input(name, part, folder, v0_5) for name in part.inputs],
            outputs=[_output(name, part, folder, v0_5) for name in part.outputs],
            weights=_weights(folder, v0_5),
            config=_config(part, v0_5),
        )
        save_bioimageio_package(described, output_path=path)
    except ValueError as error:  # pydantic's errors are such
        raise FocusFusionError(
            f"bioimageio.spec does not accept the description of {spec.name!r}: {error}"
        ) from error
    finally:
        logger.enable("bioimageio")


def _name(name: str) -> str:
    """Of letters, digits and a few other characters, at most 128."""
    return f"napari-focus-fusion {re.sub(r'[^A-Za-z0-9_+() -]', '-', name)}"[:128]


def _citations(paper: str, doi: str, v0_5: Any) -> list[Any]:
    package = v0_5.CiteEntry(
        text=f"napari-focus-fusion {__version__}", url=v0_5.HttpUrl(REPOSITORY)
    )
    if not doi:
        return [package]
    return [v0_5.CiteEntry(text=paper, doi=v0_5.Doi(doi)), package]


def _axes(name: str, part: Part, v0_5: Any) -> list[tuple[str, Any]]:
    """Axes that inputs and outputs have in common: the batch and the channels."""
    found: list[tuple[str, Any]] = []
    for axis in AXES.get(name, IMAGES):
        if axis == "batch":
            size = 1 if name in ("stack", "weights") else None
            found.append((axis, v0_5.BatchAxis(size=size)))
        elif axis == "channel":
            tensor = (part.inputs | part.outputs)[name]
            names = [f"{name}{i}" for i in range(tensor.shape[1])]
            channels = names if len(names) > 1 else [name]
            found.append((axis, v0_5.ChannelAxis(channel_names=channels)))
        else:
            found.append((axis, None))
    return found


def _input(name: str, part: Part, folder: Path, v0_5: Any) -> Any:
    axes = []
    for axis, common in _axes(name, part, v0_5):
        if common is not None:
            axes.append(common)
        elif axis == "z":
            size = v0_5.ParameterizedSize(min=2, step=1)
            axes.append(v0_5.IndexInputAxis(id=v0_5.AxisId("z"), size=size))
        else:
            first = next(iter(part.inputs))
            size = v0_5.ParameterizedSize(min=part.least, step=1)
            if name != first:
                size = _same_size(first, axis, v0_5)
            # Tiles of images that are too large are put together again.
            axes.append(
                v0_5.SpaceInputAxis(id=v0_5.AxisId(axis), size=size, concatenable=True)
            )
    return v0_5.InputTensorDescr(
        id=v0_5.TensorId(name),
        description=ABOUT_TENSORS[name],
        axes=axes,
        test_tensor=v0_5.FileDescr(source=folder / f"test_input_{name}.npy"),
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=_normalisation(name, v0_5),
    )


def _normalisation(name: str, v0_5: Any) -> list[Any]:
    """That of a run: quantiles of all slices together become 0 and 1."""
    if name not in ("slices", "stack"):
        return []
    # Each stack for itself, and slices together, which are the batch.
    axes = [
        axis for axis in AXES.get(name, IMAGES) if name != "stack" or axis != "batch"
    ]
    kwargs = v0_5.ScaleRangeKwargs(
        axes=[v0_5.AxisId(axis) for axis in axes],
        min_percentile=100 * BLACK,
        max_percentile=100 * WHITE,
    )
    return [v0_5.ScaleRangeDescr(kwargs=kwargs)]


def _output(name: str, part: Part, folder: Path, v0_5: Any) -> Any:
    axes = []
    first = next(iter(part.inputs))
    for axis, common in _axes(name, part, v0_5):
        if common is not None:
            axes.append(common)
        elif axis == "z":
            size = _same_size(first, axis, v0_5)
            axes.append(v0_5.IndexOutputAxis(id=v0_5.AxisId("z"), size=size))
        else:
            size = _same_size(first, axis, v0_5)
            axes.append(
                v0_5.SpaceOutputAxisWithHalo(
                    id=v0_5.AxisId(axis), size=size, halo=part.halo
                )
            )
    return v0_5.OutputTensorDescr(
        id=v0_5.TensorId(name),
        description=ABOUT_TENSORS[name],
        axes=axes,
        test_tensor=v0_5.FileDescr(source=folder / f"test_output_{name}.npy"),
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
    )


def _same_size(tensor: str, axis: str, v0_5: Any) -> Any:
    return v0_5.SizeReference(
        tensor_id=v0_5.TensorId(tensor), axis_id=v0_5.AxisId(axis)
    )


def _weights(folder: Path, v0_5: Any) -> Any:
    version = v0_5.Version(torch.__version__.partition("+")[0])
    return v0_5.WeightsDescr(
        pytorch_state_dict=v0_5.PytorchStateDictWeightsDescr(
            source=folder / STATE_DICT,
            architecture=v0_5.ArchitectureFromFileDescr(
                source=folder / SOURCE, callable=v0_5.Identifier(FACTORY)
            ),
            pytorch_version=version,
        ),
        torchscript=v0_5.TorchscriptWeightsDescr(
            source=folder / TORCHSCRIPT,
            parent="pytorch_state_dict",
            pytorch_version=version,
        ),
        onnx=v0_5.OnnxWeightsDescr(
            source=folder / ONNX, parent="pytorch_state_dict", opset_version=OPSET
        ),
    )


def _config(part: Part, v0_5: Any) -> Any:
    tolerances = [
        v0_5.ReproducibilityTolerance(
            relative_tolerance=RELATIVE,
            absolute_tolerance=OF_LARGEST * float(tensor.abs().max()),
            output_ids=[v0_5.TensorId(name)],
        )
        for name, tensor in part.outputs.items()
    ]
    parameters = sum(p.numel() for p in part.network.network.parameters())
    return v0_5.Config(
        bioimageio=v0_5.BioimageioConfig(
            reproducibility_tolerance=tolerances,
            task="focus stacking",
            model_parameter_count=parameters,
        )
    )
