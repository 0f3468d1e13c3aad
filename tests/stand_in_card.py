"""A stand-in for a graphics card, which finds what a real one would refuse.

Its tensors say that they lie on another device (``meta``, which PyTorch without CUDA
knows) and hold tensors on the CPU that do the arithmetic. As on a real card, an
operation on tensors of both devices raises, and so does ``numpy()``. What it cannot
show: memory, speed, other rounding, other algorithms.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from napari_focus_fusion.engine import plan

if TYPE_CHECKING:
    from collections.abc import Iterator

CARD = torch.device("meta")
#: Operations that take tensors of two devices.
COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}


class OnCard(torch.Tensor):
    """A tensor that says it is on the card."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnCard:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CARD,
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run_on_card(func, args, kwargs or {})


class CardMode(TorchDispatchMode):
    """Takes what is made on the card, too."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        #: Bytes of the largest tensor that the card has memory for.
        self.largest = largest
        #: How often values were fetched by the host, by the operation that did.
        self.fetched: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if _fetches(func, args, kwargs):
            name = str(func)
            self.fetched[name] = self.fetched.get(name, 0) + 1
        found = run_on_card(func, args, kwargs)
        for made in tree_flatten(found)[0]:
            if isinstance(made, OnCard) and made.nbytes > self.largest:
                raise torch.OutOfMemoryError(f"CUDA out of memory: {made.nbytes}")
        return found


def _fetches(func: Any, args: Any, kwargs: Any) -> bool:
    tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, OnCard)]
    to_host = str(kwargs.get("device", "")) == "cpu"
    return bool(tensors) and ("_local_scalar_dense" in str(func) or to_host)


def run_on_card(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on what the tensors hold, if a card would."""
    tensors = [
        a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)
    ]
    cards = [a for a in tensors if isinstance(a, OnCard)]
    hosts = [a for a in tensors if not isinstance(a, OnCard) and a.dim()]
    if cards and hosts and func not in COPIES:
        raise RuntimeError(f"{func}: all tensors must be on the same device")
    device = kwargs.get("device")
    goes = device is not None and torch.device(device) == CARD
    stays = bool(cards) and device is None
    if func is torch.ops.aten.copy_.default:
        stays = isinstance(args[0], OnCard)
    if not goes and not cards:
        return func(*args, **kwargs)
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    kwargs.pop("pin_memory", None)
    owners = {id(a.held): a for a in cards} | {id(a): a for a in hosts}

    def unwrapped(a: Any) -> Any:
        return a.held if isinstance(a, OnCard) else a

    def wrapped(a: Any) -> Any:
        if not isinstance(a, torch.Tensor):
            return a
        if id(a) in owners:  # written to in place
            return owners[id(a)]
        return OnCard(a) if goes or stays else a

    found = func(*tree_map(unwrapped, args), **tree_map(unwrapped, kwargs))
    return tree_map(wrapped, found)


@contextmanager
def stand_in_card(largest: int = 1 << 62) -> Iterator[CardMode]:
    """Within, runs for ``cuda`` are planned on the stand-in as on a graphics card.

    Tensors of more than ``largest`` bytes find no memory on it.
    Gives the mode, which counts how often the host fetches values.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "choose_device", lambda name: CARD)
        patch.setitem(plan.TILE, CARD.type, plan.TILE["cuda"])
        patch.setitem(plan.SLAB, CARD.type, plan.SLAB["cuda"])
        # What wraps tensors cannot be an inference tensor.
        patch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad())
        with CardMode(largest) as mode:
            yield mode
