"""Where the arithmetic runs, and how much memory it may take."""

from __future__ import annotations

import ctypes
import functools
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import psutil
import torch

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Share of the free memory that a run takes by default, and the most it takes:
#: more memory does not make it faster.
FREE_MEMORY_SHARE = 0.25
MAX_BYTES = 1 << 30
#: What stands in errors that have no type of their own: of the CPU and of CUDA, and of
#: libraries that find no memory for themselves or for any of their algorithms.
NO_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "STATUS_NOT_INITIALIZED",
    "Unable to find a valid cuDNN algorithm",
    "unable to find an engine",
)


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


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device is known to have instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return True
    # Since PyTorch 2.11.
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any("bf16" in name and there is True for name, there in found.items())


def memory_budget(device: torch.device, memory: int | None) -> int:
    """Working memory in bytes: what was asked for, or a share of what is free."""
    if memory is not None:
        return memory
    free = psutil.virtual_memory().available
    if device.type == "cuda":
        with lost_device_in_words(device):
            on_card = torch.cuda.mem_get_info(device)[0]
            # What PyTorch keeps for its next tensors is free, too.
            on_card += torch.cuda.memory_reserved(device)
            on_card -= torch.cuda.memory_allocated(device)
        # Pixels are composed on the host.
        return int(min(on_card, free) * FREE_MEMORY_SHARE)
    return min(int(free * FREE_MEMORY_SHARE), MAX_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is raised because device or host memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in NO_MEMORY
    )


def return_freed_memory() -> None:
    """Give back what was freed but kept for later, where the C library can (glibc).

    Arrays of some MB are cut from what is kept, and leave gaps in it: a run could hold
    twice what its arrays take together.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] | None = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return None
    return trim


def deterministic(device: torch.device) -> AbstractContextManager[Any]:
    """On CUDA, algorithms whose sums always run in the same order, in full precision.

    And errors of a card that stopped working, in words. With TF32, which PyTorch allows
    convolutions by default, a result would depend on the size of the tiles: algorithms
    that differ in their last bits differ in the tenth then.
    """
    if device.type != "cuda":
        return nullcontext()
    return _on_cuda(device)


@contextmanager
def _on_cuda(device: torch.device) -> Iterator[None]:
    with (
        lost_device_in_words(device),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        yield


def is_lost_device(error: BaseException) -> bool:
    """Whether an error is raised because a graphics card does not compute any more."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    kind = getattr(torch, "AcceleratorError", None)  # since PyTorch 2.8
    return (kind is not None and isinstance(error, kind)) or "CUDA error" in str(error)


@contextmanager
def lost_device_in_words(device: torch.device) -> Iterator[None]:
    """Say what helps where a graphics card stopped working.

    Raises
    ------
    FocusFusionError
        In place of an error of the driver; other errors pass.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_device(error):
            raise
        first = str(error).strip().split("\n")[0]
        raise FocusFusionError(
            f"The graphics card {device} does not compute any more ({first}). Close "
            "this program and start it again: until then it cannot use the card. If "
            "it happens again, use device='cpu', and look for a newer driver."
        ) from error


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
