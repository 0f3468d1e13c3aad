"""When memory runs out: halve the batch, then the tile, then take the CPU."""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_focus_fusion.device import is_out_of_memory
from napari_focus_fusion.engine.prepare import moved_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.engine.prepare import Prepared
    from napari_focus_fusion.engine.settings import Precision
    from napari_focus_fusion.models.base import FusionModel


@dataclass(frozen=True, slots=True)
class NetworkCall:
    """A use of a network, to be applied to batches of any size.

    Attributes
    ----------
    function
        Takes (network, (n, 1, ..., h, w), context); gives back n items of h x w.
    network, context
        Its arguments; the context lies on the network's device.
    halo
        Pixels that a result depends on, beyond itself.
    precision
        Of convolutions; all else is float32.
    """

    function: Callable[[Any, Tensor, Any], Tensor]
    network: FusionModel
    context: Any
    halo: int
    precision: Precision = "float32"

    def __call__(self, batch: Tensor) -> Tensor:
        """Apply it to (n, ..., h, w)."""
        return self._applied(self.network, batch, self.context)

    def _applied(self, network: FusionModel, batch: Tensor, context: Any) -> Tensor:
        half: AbstractContextManager[Any] = nullcontext()
        if self.precision == "bfloat16":
            half = torch.autocast(batch.device.type, torch.bfloat16)
        with torch.inference_mode(), half:
            return self.function(network, batch[:, None], context).float()

    @property
    def is_long(self) -> bool:
        """Whether it can take long: what has no parameters does not."""
        return next(self.network.parameters(), None) is not None

    def on_cpu(self, batch: Tensor) -> Tensor:
        """Apply it on the CPU, with a copy of the network that others may be using."""
        network = copied_to_cpu(self.network)
        context = moved_to(self.context, torch.device("cpu"))
        return self._applied(network, batch.cpu(), context).to(batch.device)


class _Stoppable(TorchFunctionMode):
    """Lets a run stop between the operations of a network, which can take a minute."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self.monitor = monitor

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.monitor.check_now_and_then()
        return func(*args, **(kwargs or {}))


def copied_to_cpu(network: FusionModel) -> FusionModel:
    """A copy on the CPU, for which nothing is allocated on the network's device."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().cpu().clone(), False)
        for parameter in network.parameters()
    }
    memo |= {id(buffer): buffer.cpu().clone() for buffer in network.buffers()}
    return copy.deepcopy(network, memo)


def on_cpu(point: Prepared) -> Prepared:
    """A time point with copies of its networks on the CPU."""
    plan, cpu = point.plan, torch.device("cpu")
    copies: dict[int, Any] = {id(one): copied_to_cpu(one) for one in plan.networks}
    upscale = plan.upscale
    if upscale is not None:
        upscale = replace(upscale, resolver=copies[id(upscale.resolver)])
    return replace(
        point,
        plan=replace(
            plan,
            device=cpu,
            model=copies.get(id(plan.model)),
            surface=copies.get(id(plan.surface)),
            upscale=upscale,
        ),
        context=moved_to(point.context, cpu),
        upscale_context=moved_to(point.upscale_context, cpu),
    )


def with_networks_on_device(plan: RunPlan, monitor: Monitor) -> RunPlan:
    """The plan with its networks on its device; on the CPU where they find no room."""
    try:
        for used in plan.networks:
            used.to(plan.device)
        return plan
    except (RuntimeError, MemoryError) as error:
        if plan.device.type == "cpu" or not is_out_of_memory(error):
            raise
    cpu = torch.device("cpu")
    for used in plan.networks:
        used.to(cpu)
    monitor.warn(
        f"{plan.device} had no memory for the network; the CPU took over, which is "
        "slower. Close what else uses the graphics card."
    )
    return replace(plan, device=cpu)


def run_with_fallback(call: NetworkCall, batch: Tensor, monitor: Monitor) -> Tensor:
    """Apply a network to (n, ..., h, w); halve the batch when memory runs out.

    First the slices are halved, then the tile, down to what is no longer worth it;
    then the tile is computed on the CPU. A size that failed once is not tried
    again.
    """
    pixels = batch.shape[0] * batch.shape[-2] * batch.shape[-1]
    if pixels < monitor.smallest_failed:
        try:
            with _Stoppable(monitor) if call.is_long else nullcontext():
                return call(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        monitor.smallest_failed = pixels
        if batch.device.type == "cuda":
            torch.cuda.empty_cache()
    if batch.shape[0] > 1:
        halves = batch.tensor_split(2)
        return torch.cat([run_with_fallback(call, half, monitor) for half in halves])
    axis = -1 if batch.shape[-1] >= batch.shape[-2] else -2
    length, halo = batch.shape[axis], call.halo
    if length >= 4 * halo + 64:
        middle = length // 2
        low = batch.narrow(axis, 0, middle + halo)
        high = batch.narrow(axis, middle - halo, length - middle + halo)
        parts = [
            run_with_fallback(call, low, monitor).narrow(axis, 0, middle),
            run_with_fallback(call, high, monitor).narrow(axis, halo, length - middle),
        ]
        return torch.cat(parts, axis)
    if batch.device.type == "cpu":
        raise MemoryError(
            "There is not enough memory even for the smallest tile. Close other "
            "programs, or crop the stack."
        )
    note = (
        f"{batch.device} ran out of memory even for small tiles; the CPU took over, "
        "which is slower. Close what else uses the graphics card."
    )
    if note not in monitor.notes:
        monitor.warn(note)
        warnings.warn(note, RuntimeWarning, stacklevel=2)
    return call.on_cpu(batch)
