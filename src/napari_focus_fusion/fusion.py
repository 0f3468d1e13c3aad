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

from napari_focus_fusion import __version__
from napari_focus_fusion.composite import Blend
from napari_focus_fusion.device import (
    choose_device,
    describe,
    deterministic,
    memory_budget,
)
from napari_focus_fusion.engine import reconstruction, superresolving
from napari_focus_fusion.engine.agreement import (
    LEAST_CORRELATION,
    correlation_with_plain,
)
from napari_focus_fusion.engine.cluster import (
    JOB_BYTES,
    JOBS_A_THREAD,
    check_sendable,
    run_on_cluster,
    threads_of,
)
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.engine.reading import Reference, sample, sample_places
from napari_focus_fusion.engine.steps import finish_step, score_step
from napari_focus_fusion.engine.store import CHUNK, MemoryStore, ZarrStore
from napari_focus_fusion.engine.superresolving import Upscale
from napari_focus_fusion.engine.work import Work
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models import DEFAULT_MODEL, hash_of_tensors, load_model
from napari_focus_fusion.models.base import Reconstructor, SetMasker, SuperResolver
from napari_focus_fusion.progress import Meter, Progress
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.stack import as_stack
from napari_focus_fusion.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_focus_fusion.engine.cluster import Step
    from napari_focus_fusion.engine.store import Store
    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.stack import FocusStack

    Run = Callable[[Step, list[Tile], Callable[[Tile], None]], None]

#: Side of a model's tile in pixels: larger ones only miss the CPU's caches.
TILE = {"cpu": 256, "cuda": 1024, "mps": 512}
#: Slices that are scored together.
SLAB = {"cpu": 1, "cuda": 4, "mps": 2}
#: Working memory of a region's pixel in bytes, measured: state and temporaries, and
#: what each component adds to them, the second for each of its own bytes.
BYTES_A_PIXEL, BYTES_A_COMPONENT = 96, (16, 6)
#: A band of whole rows is as high as this, or it would mostly read its surroundings.
LEAST_ROWS = 256
#: Multiply-adds of a network that take as long as the rest of scoring a pixel.
COST_OF_THE_REST = 2000
#: Mean distance of a super-resolved image from the slices, as a share of their range,
#: from which on it shows something else: much more than noise that it may leave out.
MOST_INCONSISTENT = 0.05


def fuse(
    stack: Any,
    model: str | Path | FusionModel = DEFAULT_MODEL,
    *,
    axes: str | None = None,
    reference: int | str | None = None,
    scale: int = 1,
    decision: str | Path | FusionModel | None = None,
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
        With super-resolution: another model that decides what is sharp, as `model`
        names them; None: the model's own decision.
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
        if decision is not None:
            network = load_model(decision)
    elif decision is not None:
        raise FocusFusionError(
            f"decision={decision!r} goes with super-resolution only (scale 2, 3 or 4). "
            f"Without it, use model={decision!r}."
        )
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
        "model": spec.name,
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
            "verify": verify,
        },
    }
    jobs = 1 if client is None else JOBS_A_THREAD * threads_of(client)
    plan = _plan_regions(source, network, upscale, budget, out is not None, jobs)
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
            "fingerprint": _fingerprint(source),
            "pixel_sizes": {axis: source.pixel_size(axis) for axis in source.axes},
            "units": {axis: source.unit(axis) for axis in source.axes},
        }
        store = ZarrStore(
            Path(out).expanduser(), source, identity, overwrite, len(pictures), scale
        )

    passes = {"feather": 2, "select": 1}[blend]
    scored = sum(p.weights != weights for p in pictures) + 1
    effort = scored * (1 + spec.cost / COST_OF_THE_REST)
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
        upscale=upscale and replace(upscale, channels=channels),
        blend=blend,
        verified=verify,
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
    windows = _prepare(work, t)
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
    if work.model.needs_sample and windows:
        _hold_against_plain(work, t, windows, store)
    if work.upscale is not None:
        _hold_against_slices(work, t, plan, store)


def _count(meter: Meter, weight: float, pixels: float) -> None:
    meter.add(pixels * weight)


def _hold_against_plain(
    work: Work, t: int, windows: list[np.ndarray], store: Store
) -> None:
    """Note it where a network's decision contradicts the plain focus measure."""
    stack = work.reference.stack
    places = {"T": t}
    decisions = []
    for y, x in sample_places(stack):
        if y.start < 0 or x.start < 0:  # of a tiny plane, mirrored
            return
        key = tuple(places.get(a, y if a == "Y" else x) for a in stack.map_axes)
        decisions.append(np.asarray(store.outputs["decision"][key]))
    correlation = correlation_with_plain(windows, decisions)
    if correlation is not None and correlation < LEAST_CORRELATION:
        when = f" at time point {t}" if stack.n_times > 1 else ""
        assert work.model.spec is not None
        work.notes.append(
            f"The decision of {work.model.spec.title}{when} contradicts the plain "
            f"focus measure (rank correlation {correlation:.2f} where that is sure). "
            "Look at the decision map, and compare with model='sml'."
        )


def _hold_against_slices(work: Work, t: int, plan: TilePlan, store: Store) -> None:
    """Note it where a super-resolved image shows something else than the slices."""
    stack = work.reference.stack
    total = 0.0
    for region in plan:
        places = {"T": t, "Y": region.y, "X": region.x}
        key = tuple(places[axis] for axis in stack.map_axes)
        total += float(np.asarray(store.outputs["consistency"][key]).sum())
    mean = total / (stack.height * stack.width)
    if mean > MOST_INCONSISTENT:
        when = f" at time point {t}" if stack.n_times > 1 else ""
        work.notes.append(
            f"The super-resolved image{when}, brought back to the source's pixels, "
            f"differs from the fused slices by {mean:.1%} of their range on average. "
            "Do not trust its detail: look at the consistency map, or use scale=1."
        )


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


def _prepare(work: Work, t: int) -> list[np.ndarray]:
    """Normalisation and the models' statistics, from a sample of one time point.

    Gives back the sample, (windows, h, w) for each slice; empty where none is needed.
    """
    stack, model, upscale = work.reference.stack, work.model, work.upscale
    work.reference = replace(work.reference, t=t)
    # Integers of 8 and 16 bits know their range; of others only the pixels tell it.
    if stack.dtype in (np.uint8, np.int8, np.uint16, np.int16) and not (
        model.needs_sample or upscale or work.pictures
    ):
        work.reference = replace(work.reference, black=0.0, white=_white(stack))
        return []
    work.reference, windows = _normalised(work.reference)
    work.done(0)

    def on_own_scale(channel: Reference) -> Reference:
        if channel.weights == work.reference.weights:
            return work.reference
        return _normalised(replace(channel, t=t))[0]

    work.context = model.context([w.to(work.device) for w in windows])
    work.pictures = tuple(map(on_own_scale, work.pictures))
    if upscale is not None:
        context = work.context
        if upscale.resolver is not model:
            context = upscale.resolver.context([w.to(work.device) for w in windows])
        channels = tuple(map(on_own_scale, upscale.channels))
        work.upscale = replace(upscale, context=context, channels=channels)
    return [planes[:, 0].numpy() for planes in windows]


def _white(stack: FocusStack) -> float:
    return float(np.iinfo(stack.dtype).max) if stack.dtype.kind in "iu" else 1.0


def _normalised(reference: Reference) -> tuple[Reference, list[torch.Tensor]]:
    """A plane with the intensities of its sample, and that, (windows, 1, h, w) each."""
    # Integers are brought to 0..1 first, floats left alone: the sample is read once.
    white = _white(reference.stack)
    windows = list(sample(replace(reference, black=0.0, white=white)))
    low, high = black_and_white(windows)
    for planes in windows:
        planes -= np.float32(low)
        planes /= np.float32(high - low)
    return (
        replace(reference, black=low * white, white=high * white),
        [torch.from_numpy(planes)[:, None] for planes in windows],
    )


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


def _plan_regions(
    stack: FocusStack,
    model: FusionModel,
    upscale: Upscale | None,
    budget: int,
    stored: bool,
    jobs: int,
) -> TilePlan:
    """Regions whose state fits the budget, at least as many as jobs are wanted.

    Bands of whole rows where those fit.
    """
    align = (CHUNK, CHUNK) if stored else (1, 1)
    if not stored and stack.chunk_yx is not None:
        align = stack.chunk_yx
    align = (min(align[0], stack.height), min(align[1], stack.width))
    fixed, each = BYTES_A_COMPONENT
    component = fixed + each * stack.dtype.itemsize
    state = BYTES_A_PIXEL + component * stack.n_components
    if isinstance(model, Reconstructor):
        state += reconstruction.bytes_a_pixel(model)
    if upscale is not None:
        state += superresolving.bytes_a_pixel(
            upscale, stack.dtype.itemsize, stack.n_components
        )
    if isinstance(model, SetMasker):
        # The planes of all slices and their weights.
        state += 8 * stack.n_slices
    pixels = budget // state
    pixels = min(pixels, max(stack.height * stack.width // jobs, CHUNK * CHUNK))
    rows = pixels // stack.width
    if rows >= min(max(align[0], LEAST_ROWS), stack.height):
        core = (int(rows), stack.width)
    elif stored:
        core, align = (CHUNK, max(pixels // CHUNK, CHUNK)), (CHUNK, CHUNK)
    else:
        # Chunks larger than this are read more than once.
        side = max(int(pixels**0.5), 64)
        core, align = (side, side), (min(align[0], side), min(align[1], side))
    return TilePlan(stack.height, stack.width, core, align=align)


def _fingerprint(stack: FocusStack) -> str:
    """Hash of a few windows of a few slices: tells another stack from the same."""
    digest = hashlib.sha256()
    side = 32
    for t in _spread(stack.n_times, 3):
        for z in _spread(stack.n_slices, 5):
            # Along the diagonal: the corners of a picture are often black.
            for y, x in zip(
                _spread(max(stack.height - side, 1), 5),
                _spread(max(stack.width - side, 1), 5),
                strict=False,
            ):
                rows, columns = slice(y, y + side), slice(x, x + side)
                digest.update(stack.read(t, slice(z, z + 1), rows, columns).tobytes())
    return digest.hexdigest()


def _spread(length: int, count: int) -> list[int]:
    """At most ``count`` of ``range(length)``, evenly spread, the ends among them."""
    steps = max(min(count, length) - 1, 1)
    return sorted({(length - 1) * i // steps for i in range(steps + 1)})
