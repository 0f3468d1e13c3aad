"""The formats that a network is written in: state dict, TorchScript and ONNX."""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_focus_fusion.export.networks import Exported

STATE_DICT, TORCHSCRIPT, ONNX = "weights.pt", "weights_torchscript.pt", "weights.onnx"
OPSET = 17
#: How far formats may differ, relative to the largest value: they add up in another
#: order.
TOLERANCE = 1e-4

Axes = tuple[str, ...]


def write_formats(
    network: Exported,
    inputs: tuple[Tensor, ...],
    larger: tuple[Tensor, ...],
    axes: Mapping[str, Axes],
    folder: Path,
) -> None:
    """Write a network in all formats and compare what they return.

    Parameters
    ----------
    network
        In evaluation mode.
    inputs
        What the network is traced with.
    larger
        Inputs of another size, with which the formats are compared.
    axes
        Of each tensor by its name; empty names for axes of fixed size.
    folder
        Where :data:`STATE_DICT`, :data:`TORCHSCRIPT` and :data:`ONNX` are written.

    Raises
    ------
    FocusFusionError
        If the network cannot be traced, or a format returns other values.
    """
    torch.save(network.state_dict(), folder / STATE_DICT)
    dynamic = {
        name: {i: axis for i, axis in enumerate(of_tensor) if axis}
        for name, of_tensor in axes.items()
    }
    try:
        traced = trace(network, inputs)
        torch.jit.save(traced, folder / TORCHSCRIPT)
        # PyTorch's messages are of tracing, and that it has another way to write ONNX,
        # which takes minutes a network.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                torch.jit.freeze(traced),  # what follows from the weights alone
                inputs,
                str(folder / ONNX),
                input_names=list(network.inputs),
                output_names=list(network.outputs),
                dynamic_axes=dynamic,
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # whatever PyTorch's tracing may raise
        raise FocusFusionError(
            f"{type(network.network).__name__} cannot be written as TorchScript and "
            f"ONNX: {str(error)[:300]}"
        ) from error
    _compare(network, larger, folder)


def trace(network: Exported, inputs: tuple[Tensor, ...]) -> torch.jit.ScriptModule:
    """A network as TorchScript, for images and stacks of any size."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of numbers that are the same for every size
        return torch.jit.trace(network, inputs, check_trace=False)


def _compare(network: Exported, inputs: tuple[Tensor, ...], folder: Path) -> None:
    """Raise unless all formats return the same of other inputs than were traced."""
    import onnxruntime

    with torch.no_grad():
        expected = as_tuple(network(*inputs))
        scripted = as_tuple(torch.jit.load(folder / TORCHSCRIPT)(*inputs))
    session = onnxruntime.InferenceSession(
        str(folder / ONNX), providers=["CPUExecutionProvider"]
    )
    given = zip(network.inputs, inputs, strict=True)
    found = session.run(None, {name: tensor.numpy() for name, tensor in given})
    for name, values in (
        ("TorchScript", scripted),
        ("ONNX", [torch.from_numpy(value) for value in found]),
    ):
        for right, value in zip(expected, values, strict=True):
            far = TOLERANCE * float(right.abs().max())
            if value.shape != right.shape or (value - right).abs().max() > far:
                raise FocusFusionError(
                    f"{type(network.network).__name__} as {name} does not return what "
                    "it returns here, so it is not exported. Its code cannot be traced "
                    "for other sizes than the one it is traced with."
                )


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a network returns, as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)
