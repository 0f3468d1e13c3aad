"""Where the arithmetic runs, and how much memory it may take."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import psutil
import torch

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Share of the free memory that a run takes by default, and the most it takes:
#: more memory does not make it faster.
FREE_MEMORY_SHARE = 0.25
MAX_BYTES = 1 << 30


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The torch device of a name.

    Parameters
    ----------
    name
        ``"auto"`` (CUDA, else Apple's MPS, else the CPU), ``"cpu"``, ``"cuda"``,
        ``"cuda:1"`` or ``"mps"``.

    Raises
    ------
    FocusFusionError
        If that device is not there; it never falls back silently.
    """
    cuda = torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    if isinstance(name, str) and name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        if not isinstance(name, str | torch.device):  # a number is a card for torch
            raise TypeError
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise FocusFusionError(
            f"There is no device called {shown(name)}. Use 'auto', 'cpu', 'cuda', "
            "'cuda:0' or 'mps'."
        ) from None
    if device.type == "cuda":
        if not cuda:
            raise FocusFusionError(
                "No CUDA graphics card can be used here: either there is none, or this "
                "PyTorch was built without CUDA. Use device='cpu' or 'auto'."
            )
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise FocusFusionError(
                f"There is no graphics card number {device.index}; this machine has "
                f"{torch.cuda.device_count()}, counted from 0."
            )
    if device.type == "mps" and not mps:
        raise FocusFusionError("Apple's MPS is not available here; use device='cpu'.")
    if device.type not in {"cpu", "cuda", "mps"}:
        raise FocusFusionError(
            f"The device {name!r} is not supported; use 'auto', 'cpu', 'cuda' or 'mps'."
        )
    return device


def available_devices() -> list[str]:
    """Names of the devices of this machine, the best first."""
    names = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def memory_budget(device: torch.device, memory: int | None) -> int:
    """Working memory in bytes: what was asked for, or a share of what is free."""
    if memory is not None:
        return memory
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        return int(free * FREE_MEMORY_SHARE)
    return min(int(free * FREE_MEMORY_SHARE), MAX_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is raised because device or host memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in str(error) or "out of memory" in str(error)
    )


def deterministic(device: torch.device) -> AbstractContextManager[Any]:
    """On CUDA, algorithms whose sums always run in the same order."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


@contextmanager
def number_of_threads(count: int) -> Iterator[None]:
    """Have PyTorch compute with so many threads, and then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def describe(device: torch.device, threads: int | None = None) -> str:
    """The device in words, as it stands in a result's provenance.

    Parameters
    ----------
    device
        Where the arithmetic runs.
    threads
        With how many threads a CPU computes; None: as PyTorch is set.
    """
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = threads or torch.get_num_threads()
        return f"cpu ({threads} thread{'s' if threads > 1 else ''})"
    return str(device)
