"""The one road from a stack to a fused image.

stack -> normalise once -> score every slice -> decide -> verify -> composite -> result
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from napari_focus_fusion._version import __version__
from napari_focus_fusion.composite import Blend
from napari_focus_fusion.device import (
    choose_device,
    describe,
    deterministic,
    memory_budget,
)
from napari_focus_fusion.engine.agreement import (
    hold_against_plain,
    hold_against_slices,
)
from napari_focus_fusion.engine.cluster import (
    JOB_BYTES,
    JOBS_A_THREAD,
    check_sendable,
    run_on_cluster,
    threads_of,
)
from napari_focus_fusion.engine.planning import plan_regions
from napari_focus_fusion.engine.preparing import prepare
from napari_focus_fusion.engine.reading import Reference
from napari_focus_fusion.engine.steps import finish_step, score_step
from napari_focus_fusion.engine.store import MemoryStore, ZarrStore, fingerprint
from napari_focus_fusion.engine.work import Upscale, Work
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.base import FusionModel, Reconstructor, SuperResolver
from napari_focus_fusion.models.registry import (
    DEFAULT_MODEL,
    hash_of_tensors,
    load_model,
)
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.progress import Meter, Progress
from napari_focus_fusion.result import FusionResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_focus_fusion.engine.cluster import Step
    from napari_focus_fusion.engine.store import Store
    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.tiling import Tile, TilePlan

    Run = Callable[[Step, list[Tile], Callable[[Tile], None]], None]

#: Side of a model's tile in pixels: larger ones only miss the CPU's caches.
TILE = {"cpu": 256, "cuda": 1024, "mps": 512}
#: Slices that are scored together.
SLAB = {"cpu": 1, "cuda": 4, "mps": 2}
#: Multiply-adds of a network that take as long as the rest of scoring a pixel.
COST_OF_THE_REST = 2000


def fuse(
    stack: Any,
    model: str | Path | FusionModel = DEFAULT_MODEL,
    *,
    axes: str | None = None,
    reference: int | str | None = None,
    scale: int = 1,
    decision: str | Path | FusionModel | NDArray[Any] | None = None,
    joint: bool = True,
    blend: Blend = "feather",
    smoothness: float = 1.0,
    verify: bool = True,
    tile: int | None = None,
    device: str = "auto",
    memory: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    client: Any = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> FusionResult:
    """Fuse a focus stack into one all-in-focus image.

    Parameters
    ----------
    stack
        numpy, dask or Zarr array, path of a TIFF or OME-Zarr, list of 2-D files or
        arrays, or a FocusStack; (..., Z, Y, X) with channels, time and RGB as `axes`
        says. One slice passes through.
    model
        Name in :func:`models`, path of a ``.safetensors`` file, or a loaded model.
    axes
        One letter a dimension out of ``TCZYXS``; None: metadata, then the shape.
    reference
        What decides for all channels: a channel's index or name, ``"luminance"`` or
        ``"mean"``; None: luminance on RGB, the mean of the channels otherwise.
    scale
        Factor of super-resolution, one that the model offers: the fused image gets so
        many times the rows and columns. What is finer than the source's pixels is
        inferred, not observed; ``result.consistency`` holds it against the slices.
    decision
        A decision map of your own, like one you have edited or of another channel:
        the index of a slice, from 0, at each pixel of (T,) Y, X; nothing is then
        scored or verified. Or, with super-resolution, another model that decides, as
        `model` names them. None: the model's own decision.
    joint
        With super-resolution: whether slices are made finer and then fused (the
        default), or the fused image is made finer.
    blend
        ``"feather"``: softened seams, and less noise where slices agree;
        ``"select"``: every pixel exactly as observed in its slice.
    smoothness
        How much the surroundings of a pixel (some 50 pixels around) have a say in its
        decision: 0 for the finest detail at different depths, 1 for most stacks, up to
        10 where refraction makes things look sharp out of focus.
    verify
        Whether islands and unsure pixels of the decision map take the label that their
        surroundings vote for.
    tile
        Largest side of a model's tile in pixels; None: what suits the device. The
        result does not depend on it.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    memory
        Working memory in bytes, beyond the result; None: a quarter of what is free, at
        most 1 GB on the CPU.
    out
        OME-Zarr to write by region instead of holding the result in memory. An
        interrupted run leaves ``<out>.partial``; the same call goes on from there.
    overwrite
        Whether `out` may replace an existing result.
    client
        ``dask.distributed.Client``: regions are computed by its workers, which write
        straight into `out`, a path that all of them see. `device` and `memory` (of a
        job, by default 512 MB) are then the workers'.
    progress
        Called with a :class:`Progress`, at most ten times a second, in this thread.
    should_stop
        Asked between tiles; when it returns True the run ends with `Cancelled`.

    Returns
    -------
    FusionResult

    Raises
    ------
    FocusFusionError
        If the input or a parameter is wrong; the text says what to do.
    Cancelled
        If `should_stop` said so.
    """
    source = as_stack(stack, axes=axes)
    if axes is None and source.n_slices == 1 and source.n_times > 1:
        raise FocusFusionError(
            f"{source.name!r} is tagged as {source.n_times} time points of one slice "
            "each. If they are the slices of a focus stack, say so with the axes, for "
            f"example axes={source.axes.replace('Z', '').replace('T', 'Z')!r}."
        )
    network = load_model(model)
    _check(source, network, scale, blend, smoothness, tile)
    upscale = None
    if scale > 1:
        assert isinstance(network, SuperResolver)
        upscale = Upscale(network, scale, joint)
    given = None
    if decision is not None:
        network, given = _who_decides(decision, source, upscale)
    spec = network.spec
    assert spec is not None
    where = choose_device(device if client is None else "cpu")
    weights = tuple(float(w) for w in source.reference_weights(reference))
    budget = memory_budget(where, memory)
    if client is not None:
        if out is None:
            raise FocusFusionError(
                "On a cluster the workers write the result: give out= an OME-Zarr on a "
                "file system that all of them share."
            )
        check_sendable(source)
        budget = memory or JOB_BYTES
    provenance: dict[str, Any] = {
        "software": "napari-focus-fusion",
        "version": __version__,
        "model": spec.name if given is None else "given decision map",
        "weights_sha256": network.weights_hash or hash_of_tensors(network),
        **_described(upscale),
        "device": describe(where) if client is None else f"dask cluster ({device})",
        "source": source.source,
        "source_shape": list(source.data.shape),
        "source_axes": source.axes,
        "parameters": {
            "reference": reference,
            "scale": scale,
            "blend": blend,
            "smoothness": smoothness,
            "verify": verify and given is None,
        },
    }
    if given is not None:
        provenance["decision_sha256"] = hashlib.sha256(given.tobytes()).hexdigest()
    jobs = 1 if client is None else JOBS_A_THREAD * threads_of(client)
    plan = plan_regions(source, network, upscale, budget, out is not None, jobs)
    channels = tuple(
        Reference(source, 0, tuple(float(w) for w in source.reference_weights(channel)))
        for channel in range(source.n_channels)
    )
    pictures = channels if _reconstructs(source, network, upscale, blend) else ()
    provenance["reconstructed"] = bool(pictures)
    store: Store
    if out is None:
        store = MemoryStore(source, len(pictures), scale)
    else:
        identity = provenance | {
            "device": where.type if client is None else device,
            "fingerprint": fingerprint(source),
            "pixel_sizes": {axis: source.pixel_size(axis) for axis in source.axes},
            "units": {axis: source.unit(axis) for axis in source.axes},
        }
        store = ZarrStore(
            Path(out).expanduser(), source, identity, overwrite, len(pictures), scale
        )

    passes = {"feather": 2, "select": 1}[blend]
    scored = sum(p.weights != weights for p in pictures) + 1
    effort = scored * (1 + spec.cost / COST_OF_THE_REST) if given is None else 0
    plane = source.height * source.width * source.n_slices
    meter = Meter(source.n_times * plane * (effort + passes), progress)
    network.to(where)
    if upscale is not None:
        upscale.resolver.to(where)
    work = Work(
        reference=Reference(source, 0, weights),
        model=network,
        halo=spec.halo,
        context=None,
        device=where,
        tile=tile or TILE[where.type],
        slab=SLAB[where.type],
        pictures=pictures,
        given=given,
        upscale=upscale and replace(upscale, channels=channels),
        blend=blend,
        verified=verify and given is None,
        smoothness=smoothness,
        should_stop=should_stop or (lambda: False),
    )

    def run(step: Step, regions: list[Tile], on_done: Callable[[Tile], None]) -> None:
        if client is not None:
            assert isinstance(store, ZarrStore)
            run_on_cluster(client, step, work, device, store.partial, regions, on_done)
            return
        for region in regions:
            step(work, store, region)
            on_done(region)

    # Only networks run convolutions; oneDNN's choice of algorithm is deterministic.
    with torch.inference_mode(), deterministic(where):
        for t in range(source.n_times):
            begun = t * plane * (effort + passes)
            _fuse_time_point(work, t, plan, store, run, meter, begun, effort, passes)
    provenance["notes"] = work.notes
    outputs = store.outputs
    if isinstance(store, ZarrStore):
        meter.enter("Writing overviews", meter.total)
        outputs = store.finish(provenance)
    meter.enter("Done", meter.total)
    return FusionResult(**outputs, stack=source, provenance=provenance, scale=scale)


def _fuse_time_point(
    work: Work,
    t: int,
    plan: TilePlan,
    store: Store,
    run: Run,
    meter: Meter,
    begun: float,
    effort: float,
    passes: int,
) -> None:
    """Score, decide and fuse one time point: each step for all regions."""
    stack = work.reference.stack
    when = f" (time point {t + 1} of {stack.n_times})" if stack.n_times > 1 else ""
    meter.enter(f"Looking at the stack{when}", begun)
    windows = prepare(work, t)
    for step, note, stage, weight in (
        (score_step, "scored", "Finding what is sharp", effort),
        (finish_step, "fused", "Fusing", passes),
    ):
        left = [region for region in plan if not store.is_done(note, t, region)]
        finished = sum(r.height * r.width for r in plan) - sum(
            r.height * r.width for r in left
        )
        done = begun + finished * stack.n_slices * weight
        meter.enter(f"{stage}{when}", done)
        # Fusing counts each of its passes itself.
        work.tick = partial(_count, meter, 1.0 if step is finish_step else weight)

        def on_done(region: Tile, weight: float = weight, stage: str = stage) -> None:
            nonlocal done
            done += region.height * region.width * stack.n_slices * weight
            meter.enter(f"{stage}{when}", done)

        run(step, left, on_done)
        begun += stack.height * stack.width * stack.n_slices * weight
    if work.model.needs_sample and windows and work.given is None:
        hold_against_plain(work, t, windows, store)
    if work.upscale is not None:
        hold_against_slices(work, t, plan, store)


def _count(meter: Meter, weight: float, pixels: float) -> None:
    meter.add(pixels * weight)


def _reconstructs(
    stack: FocusStack, model: FusionModel, upscale: Upscale | None, blend: Blend
) -> bool:
    """Whether pixels are made by the model rather than taken from slices.

    With ``blend="select"`` every pixel is an observed one. One slice passes through.
    """
    return (
        isinstance(model, Reconstructor)
        and upscale is None
        and blend == "feather"
        and stack.n_slices > 1
    )


def _who_decides(
    decision: Any, stack: FocusStack, upscale: Upscale | None
) -> tuple[FusionModel, np.ndarray | None]:
    """The model that decides, or the plain one and the decision map that was given."""
    if isinstance(decision, str | Path | FusionModel):
        if upscale is None:
            raise FocusFusionError(
                f"decision={decision!r} goes with super-resolution only (scale 2, 3 or "
                f"4). Without it, use model={decision!r}."
            )
        return load_model(decision), None
    given = np.asarray(decision)
    plane = (stack.height, stack.width)
    if given.dtype.kind not in "iu":
        raise FocusFusionError(
            f"The decision map holds {given.dtype} numbers; it must hold the indices "
            "of slices, whole numbers from 0."
        )
    if given.shape not in (plane, stack.map_shape):
        raise FocusFusionError(
            f"The decision map has the shape {given.shape}, and {stack.name!r} is "
            f"{plane[0]} x {plane[1]} pixels. It must be a map of the same pixels."
        )
    if given.size and not 0 <= given.min() <= given.max() < stack.n_slices:
        raise FocusFusionError(
            f"The decision map names slices {given.min()} to {given.max()}; "
            f"{stack.name!r} has slices 0 to {stack.n_slices - 1}."
        )
    order = [a for a in stack.map_axes if given.ndim > 2 or a != "T"]
    places = [order.index(a) for a in "TYX" if a in order]
    planes = given.transpose(places).reshape(-1, *plane)
    shape = (stack.n_times, *plane)
    return load_model("sml"), np.broadcast_to(planes, shape).astype(np.uint16)


def _described(upscale: Upscale | None) -> dict[str, Any]:
    """What provenance says of super-resolution."""
    if upscale is None:
        return {}
    resolver = upscale.resolver
    assert resolver.spec is not None
    return {
        "super_resolution": {
            "model": resolver.spec.name,
            "weights_sha256": resolver.weights_hash or hash_of_tensors(resolver),
            "scale": upscale.scale,
            "joint": upscale.joint,
            "detail": "finer than the source's pixels: inferred, not observed",
        }
    }


def _check(
    stack: FocusStack,
    model: FusionModel,
    scale: int,
    blend: str,
    smoothness: float,
    tile: int | None,
) -> None:
    spec = model.spec
    assert spec is not None
    if blend not in get_args(Blend):
        raise FocusFusionError(
            f"blend={blend!r} is unknown; use 'feather' or 'select'."
        )
    if scale not in spec.upscale:
        offered = ", ".join(str(factor) for factor in spec.upscale)
        raise FocusFusionError(
            f"{spec.title} cannot super-resolve by {scale}; it offers scale {offered}."
        )
    if not 0 <= smoothness <= 10:
        raise FocusFusionError(f"smoothness={smoothness} must lie between 0 and 10.")
    if tile is not None and tile < 16:
        raise FocusFusionError(f"tile={tile} is too small; use at least 16 pixels.")
    if stack.n_slices > np.iinfo(np.int16).max:
        raise FocusFusionError(
            f"{stack.name!r} has {stack.n_slices} slices; more than "
            f"{np.iinfo(np.int16).max} cannot be told apart. Is the axis Z right?"
        )
