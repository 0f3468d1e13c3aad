"""Fusing a stack, from opening it to the result.

open -> plan -> for each time point: read a sample -> score and select -> compose,
or super-resolve -> check -> result
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion.decision import as_decision
from napari_focus_fusion.device import (
    computes_bfloat16,
    deterministic,
    is_out_of_memory,
    number_of_threads,
    return_freed_memory,
)
from napari_focus_fusion.engine.checks import (
    contradiction_of_plain,
    inconsistency_with_slices,
    note_of_absent,
    note_of_beyond,
    note_of_preference,
    note_of_strength,
    nothing_in_focus,
)
from napari_focus_fusion.engine.empty import without_empty_bands
from napari_focus_fusion.engine.executors import (
    check_sendable,
    jobs_of,
    run_locally,
    run_on_dask,
)
from napari_focus_fusion.engine.fallback import with_networks_on_device
from napari_focus_fusion.engine.identity import differences
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import plan_run
from napari_focus_fusion.engine.prepare import prepare
from napari_focus_fusion.engine.provenance import (
    fingerprints_of,
    identity_of,
    provenance_of,
)
from napari_focus_fusion.engine.registering import in_register, registering_cost
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.engine.stability import (
    drift_of,
    note_of_drift,
    note_of_flicker,
)
from napari_focus_fusion.engine.steps import steps_of, threads_of, work_of
from napari_focus_fusion.engine.store import MemoryStore, ZarrStore, check_out
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.models.base import FusionModel
from napari_focus_fusion.models.registry import DEFAULT_MODEL, load_model
from napari_focus_fusion.opening import as_stack, axes_as_given
from napari_focus_fusion.parameters import callback, file_path, shown, yes_or_no
from napari_focus_fusion.progress import Meter, Progress, byte_text
from napari_focus_fusion.read.own_results import provenance_in
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.stack import FocusStack
from napari_focus_fusion.write.places import places_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from napari_focus_fusion.composite import Background, Blend
    from napari_focus_fusion.engine.executors import Executor
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.engine.preference import Prefer
    from napari_focus_fusion.engine.settings import Brightness, Precision
    from napari_focus_fusion.engine.steps import Step
    from napari_focus_fusion.engine.store import Store
    from napari_focus_fusion.registration.registration import Registration
    from napari_focus_fusion.registration.transforms import Kind
    from napari_focus_fusion.tiling import Tile


#: Working memory as a multiple of what is allowed, above which a note says so.
MOST_OF_MEMORY = 1.25


def fuse(
    stack: Any,
    model: str | Path | FusionModel = DEFAULT_MODEL,
    *,
    axes: str | None = None,
    series: int | str | None = None,
    reference: int | str | FocusStack | None = None,
    scale: int = 1,
    decision: str | Path | FusionModel | NDArray[Any] | None = None,
    joint: bool = True,
    align: Kind | Registration | str | Path | None = None,
    align_to: int | None = None,
    brightness: Brightness = "keep",
    blend: Blend = "feather",
    smoothness: float = 1.0,
    surface: float = 1.0,
    prefer: Prefer = "sharpest",
    background: Background = "nearest",
    strength: float = 1.0,
    verify: bool = True,
    precision: Precision = "float32",
    tile: int | None = None,
    device: str = "auto",
    memory: int | str | None = None,
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
        arrays, or a FocusStack; (..., Z, Y, X) with channels, time and RGB in the
        order of `axes`. One slice passes through. Pixels that are NaN or masked are
        absent, and win nothing.
    model
        Name in :func:`models`, path of a ``.safetensors`` file or of an exported model
        (``.zip``), or a loaded model.
    axes
        One letter a dimension out of ``TCZYXS``; None: metadata, then the shape.
    series
        Which image of a file, plate or Zarr that holds several: its number from 0, or
        its name, one of :func:`series_in`.
    reference
        Reference channel, whose sharpness is measured for all channels: its index or
        name, ``"luminance"`` or ``"mean"``; None: luminance on RGB, the mean of the
        channels otherwise. Or another FocusStack of as many time points, slices, rows
        and columns, whose sharpness is measured instead.
    scale
        Factor of super-resolution, one that the model offers: the fused image gets so
        many times the rows and columns. What is finer than the source's pixels is
        inferred, not observed; ``result.consistency`` compares it with the slices.
    decision
        A decision map of your own, like one you have edited or of another channel:
        the index of a slice, from 0, at each pixel of (T,) Y, X; nothing is then
        scored or verified. Or, with super-resolution, another model that makes the
        decision map, named as `model` is. None: the model's own decision.
    joint
        With super-resolution: whether slices are made finer and then fused (the
        default), or the fused image is made finer.
    align
        Brings the slices into register: ``"translation"`` where a stage or sample
        drifts; ``"similarity"`` also where focus breathing scales slices, or they
        rotate; ``"affine"``. Or a :class:`Registration` made before, of this stack or
        of another channel, or the path of its file. Every pixel is interpolated once;
        what a slice does not show is absent from it. None: slices are taken as they
        are, and a note says so where they drift.
    align_to
        The slice, from 0, in whose frame the result lies; None: the middle one,
        ``N // 2``.
    brightness
        ``"level"``: slices are made as bright as that slice (flicker, bleaching,
        shading that differs between slices); ``"keep"``: they are taken as they are.
    blend
        ``"feather"``: softened seams, and less noise where slices agree; ``"bands"``:
        also where slices are not equally bright, what is coarser than some 50 pixels
        passes gradually from one slice to the next, and detail stays as it is;
        ``"select"``: every pixel exactly as observed in its slice.
    smoothness
        Weight of the surroundings of a pixel (some 50 pixels around) in a decision
        without a surface: 0 for the finest detail at different depths, 1 for most
        stacks, up to 10 where refraction makes things look sharp out of focus.
    surface
        How much neighbours and the order of the slices count, in stacks of more than
        two: scores are weighted by how probable it is that the surface of the specimen
        passes there, to this power, at most 4. 0: every pixel is decided for itself,
        and slices are a set.
    prefer
        Where two depths show, as in transparent specimens: ``"sharpest"``; ``"front"``,
        the one nearer to the first slice; or ``"back"``, nearer to the last. It needs
        a surface, and more than two slices.
    background
        What is shown where no slice has detail (confidence near 0): ``"nearest"``, the
        slice in which the surroundings are sharp, or ``"mean"``, all slices averaged,
        which has the least noise.
    strength
        With a model that reconstructs (``mscnn``): 1, the default, gives what it
        reconstructed; 0 pixels as they were observed, as other models do; in between
        so much of the difference. ``result.beyond`` shows where the result lies outside
        what any slice shows.
    verify
        Whether islands and pixels of low confidence in the decision map take the label
        that their surroundings vote for.
    precision
        Of the networks' convolutions: ``"float32"``, or ``"bfloat16"``, which is faster
        on graphics cards and processors with instructions for it; up to a few pixels in
        a thousand, where two slices are nearly as sharp, are then decided otherwise,
        and the result depends a little on tiles.
    tile
        Largest side of a model's tile in pixels; None: what suits the device. The
        result does not depend on it.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    memory
        Working memory beyond the result, in bytes or as text like ``"2GB"``; None: a
        quarter of what is free, at most 1 GB on the CPU.
    out
        OME-Zarr to write by region instead of holding the result in memory. An
        interrupted run leaves ``<out>.partial``; the same call goes on from there.
    overwrite
        Whether `out` may replace an existing result.
    client
        ``dask.distributed.Client``: regions are computed by its workers, which write
        straight into `out`, a path that all of them can access. `device` and `memory`
        (of a job, by default 512 MB) are then the workers'.
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
        If `should_stop` returned True.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> grain = rng.integers(0, 255, (40, 64)).astype(np.uint8)
    >>> stack = rng.integers(125, 130, (2, 40, 64)).astype(np.uint8)  # noise
    >>> stack[0, :, :32], stack[1, :, 32:] = grain[:, :32], grain[:, 32:]
    >>> result = ff.fuse(stack, "sml")
    >>> result.decision[20, 10], result.decision[20, 50]
    (np.uint16(0), np.uint16(1))
    >>> bool((result.fused[:, :20] == grain[:, :20]).all())
    True
    """
    overwrite = yes_or_no("overwrite", overwrite)
    out = None if out is None else file_path("out", out)
    callback("progress", progress, "a Progress")
    callback("should_stop", should_stop)
    source, plan = plan_fusion(
        stack,
        model,
        axes=axes,
        series=series,
        reference=reference,
        scale=scale,
        decision=decision,
        joint=joint,
        align=align,
        align_to=align_to,
        brightness=brightness,
        blend=blend,
        smoothness=smoothness,
        surface=surface,
        prefer=prefer,
        background=background,
        strength=strength,
        verify=verify,
        precision=precision,
        tile=tile,
        device=device,
        memory=memory,
        out=out,
        client=client,
    )
    inputs = places_of(source, plan.reference)
    voxels = _voxels(source) * source.n_times
    work = work_of(plan) + registering_cost(plan.settings) * voxels
    monitor = Monitor(Meter(work, progress, plan.working_memory), should_stop)
    with no_memory_in_words(source):
        if out is not None:
            check_out(out, source, inputs)
        plan = in_register(plan, monitor)
        provenance = provenance_of(plan, cluster=client is not None)
        provenance |= fingerprints_of(plan, always=out is not None)
        store = _open_store(
            plan, out, provenance, overwrite=overwrite, client=client, inputs=inputs
        )
        with closing(store):
            if store.earlier is None:
                _run(plan, store, monitor, client)
                provenance |= {"notes": monitor.notes, "drift": _drift(plan, monitor)}
                if out is not None:
                    monitor.enter("Writing overviews", work)
                outputs = store.finish(provenance)
            else:
                outputs, provenance = store.outputs, store.earlier
    monitor.enter("Done", work)
    return FusionResult(
        **outputs,
        stack=source,
        provenance=provenance,
        scale=plan.settings.scale,
        inputs=inputs,
        registration=plan.registration,
    )


def plan_fusion(
    stack: Any,
    model: str | Path | FusionModel = DEFAULT_MODEL,
    *,
    axes: str | None = None,
    series: int | str | None = None,
    decision: str | Path | FusionModel | NDArray[Any] | None = None,
    out: Path | None = None,
    client: Any = None,
    **settings: Any,
) -> tuple[FocusStack, RunPlan]:
    """The stack that :func:`fuse` would fuse, and how, without computing anything.

    Parameters
    ----------
    stack, model, axes, series, decision, out, client, **settings
        As `fuse` takes them.

    Raises
    ------
    FocusFusionError
        If the input or a parameter is wrong.
    """
    reference, scale = settings.get("reference"), settings.get("scale", 1)
    if isinstance(reference, FocusStack):
        settings["reference"] = without_empty_bands(reference)
    checked = FusionSettings(**settings)
    source = _open(stack, axes, series)
    jobs = None if client is None else _check_cluster(source, reference, out, client)
    plan = plan_run(
        without_empty_bands(source),
        load_model(model),
        checked,
        decision=_decision(decision, source, scale),
        stored=out is not None,
        jobs=jobs,
    )
    return source, plan


def differences_from(
    result: Path,
    stack: Any,
    model: str | Path | FusionModel = DEFAULT_MODEL,
    **how: Any,
) -> list[str]:
    """In what a result differs from what :func:`fuse` would give now.

    Parameters
    ----------
    result
        A file or OME-Zarr that was saved.
    stack, model, **how
        As `fuse` takes them. Pixels of what does not lie in files (remote stacks, and
        those that BioIO reads) are compared if the result is an OME-Zarr.

    Returns
    -------
    list of str
        In words, before "changed"; empty if fusing again would give the same.
    """
    _, plan = plan_fusion(stack, model, **how)
    earlier = provenance_in(str(result))
    # What does not lie in files was read as a whole if at all, and is again.
    always = "source_fingerprint" in earlier
    fingerprints = fingerprints_of(plan, always=always)
    found = differences(earlier, provenance_of(plan, cluster=False) | fingerprints)
    return found if fingerprints else [*found, "the stack may have"]


def _run(plan: RunPlan, store: Store, monitor: Monitor, client: Any) -> None:
    """Fill the store, time point by time point."""
    stack = plan.stack
    for note in stack.notes:
        monitor.warn(note)
    if stack.n_slices == 1:
        monitor.warn(
            "The stack has one slice, so there was nothing to fuse: the image is that "
            "slice."
            + " If its red, green and blue are slices, say so with the axes, for "
            'example axes="ZYX".' * ("S" in stack.axes)
        )
    if plan.working_memory > MOST_OF_MEMORY * plan.memory:
        monitor.warn(
            f"The run takes about {byte_text(plan.working_memory)} of working memory, "
            f"more than the {byte_text(plan.memory)} that memory= or what is free "
            "allows: smaller regions than these are not computed."
        )
    execute: Executor = run_locally
    if client is not None:
        execute = partial(run_on_dask, client=client)
    # Only networks run convolutions; oneDNN selects its algorithms deterministically.
    with deterministic(plan.device), number_of_threads(threads_of(plan)):
        plan = with_networks_on_device(plan, monitor)
        half = plan.settings.precision == "bfloat16"
        if half and client is None and not computes_bfloat16(plan.device):
            monitor.warn(
                f"This device ({plan.device.type}) is not known to have instructions "
                "for bfloat16. Without them it is many times slower than "
                "precision='float32'."
            )
        with torch.inference_mode():
            for t in range(stack.n_times):
                _fuse_time_point(plan, t, store, execute, monitor)
    notes = [note_of_absent(stack, monitor), note_of_beyond(stack, monitor)]
    for text in filter(None, notes):
        monitor.warn(text)


@contextmanager
def no_memory_in_words(stack: FocusStack) -> Iterator[None]:
    """Say what helps where memory ends outside of what can be halved."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise FocusFusionError(
            f"There is not enough memory to fuse {stack.name!r}. Close other programs, "
            "give less with memory=, write the result with out= to an OME-Zarr instead "
            "of memory, or crop the stack."
        ) from error


def _fuse_time_point(
    plan: RunPlan, t: int, store: Store, execute: Executor, monitor: Monitor
) -> None:
    """Prepare a time point, run each step over all of its regions, and check it."""
    stack, steps = plan.stack, steps_of(plan)
    voxels = _voxels(stack)
    done = stack.n_times * voxels * registering_cost(plan.settings)
    done += t * voxels * sum(step.cost for step in steps)
    when = f" (time point {t + 1} of {stack.n_times})" if stack.n_times > 1 else ""
    monitor.enter(f"Looking at the stack{when}", done)
    point = prepare(plan, t, monitor)
    return_freed_memory()
    monitor.drift.append(drift_of(point))
    drifts = note_of_drift(point, monitor.drift[-1])
    notes = [note_of_preference(plan), note_of_strength(plan)]
    for text in filter(None, [*notes, drifts, note_of_flicker(point)]):
        monitor.warn(text)
    for step in steps:
        left = _unfinished(plan, step, t, store, monitor)
        end = done + voxels * step.cost
        done = end - sum(r.area for r in left) * stack.n_slices * step.cost
        monitor.enter(step.title + when, done, step.cost)
        for region in execute(step, point, store, left, monitor):
            done += region.area * stack.n_slices * step.cost
            monitor.enter(step.title + when, done, step.cost)
        done = end
    maps = store.outputs["decision"], store.outputs["confidence"]
    notes = [contradiction_of_plain(point, maps[0]), *nothing_in_focus(point, *maps)]
    if plan.upscale is not None:
        notes.append(inconsistency_with_slices(point, store.outputs["consistency"]))
    for note in filter(None, notes):
        monitor.warn(note)


def _drift(plan: RunPlan, monitor: Monitor) -> list[float | None]:
    """Pixels from slice to slice at each time point, before slices were aligned."""
    if plan.registration is not None:
        return [round(one, 3) for one in plan.registration.drift]
    return [None if one is None else round(one, 3) for one in monitor.drift]


def _unfinished(
    plan: RunPlan, step: Step, t: int, store: Store, monitor: Monitor
) -> list[Tile]:
    """Regions that no earlier run finished; what it found in others is reported."""
    left = []
    for region in plan.regions:
        monitor.check_cancelled()
        if store.is_done(step.key, t, region):
            store.recall(step.key, t, region, monitor)
        else:
            left.append(region)
    return left


def _open_store(
    plan: RunPlan,
    path: Path | None,
    provenance: dict[str, Any],
    *,
    overwrite: bool,
    client: Any,
    inputs: frozenset[str],
) -> MemoryStore | ZarrStore:
    """Where the results of a run are kept: in memory, or in an OME-Zarr."""
    stack, scale = plan.stack, plan.settings.scale
    reconstructions = stack.n_channels if plan.reconstructs else 0
    if path is None:
        return MemoryStore(stack, reconstructions, scale)
    identity = identity_of(plan, provenance, cluster=client is not None)
    return ZarrStore(path, stack, identity, overwrite, reconstructions, scale, inputs)


def _voxels(stack: FocusStack) -> int:
    """Pixels x slices of a time point."""
    return stack.height * stack.width * stack.n_slices


def _open(stack: Any, axes: str | None, series: int | str | None) -> FocusStack:
    """The stack that is fused; frames and channels are not taken for slices."""
    source = as_stack(stack, axes=axes, series=series)
    if axes is not None or source.n_slices > 1:
        return source
    letters = source.axes if source is stack else axes_as_given(source)
    for axis, what in (("T", "time points"), ("C", "channels")):
        if source.size(axis) > 1:
            meant = letters.replace("Z", "").replace(axis, "Z")
            named = len({file[axis] for file in source.files if axis in file}) > 1
            says = "is by the names of its files" if named else "is tagged as"
            raise FocusFusionError(
                f"{source.name!r} {says} {source.size(axis)} {what} of one slice "
                "each. If they are the slices of a focus stack, say so with the axes, "
                f"for example axes={meant!r}. If there is nothing to fuse, "
                f"axes={letters!r} passes it through."
            )
    return source


def _decision(
    decision: ArrayLike | str | Path | FusionModel | None,
    stack: FocusStack,
    scale: int,
) -> FusionModel | NDArray[np.uint16] | None:
    """The model, or the given decision map, that replaces the model's decision."""
    if decision is None:
        return None
    if not isinstance(decision, str | Path | FusionModel):
        return as_decision(decision, stack, first=0)
    if scale == 1:
        raise FocusFusionError(
            f"decision={decision!r} goes with super-resolution only (scale 2, 3 or "
            f"4). Without it, use model={decision!r}."
        )
    return load_model(decision)


def _check_cluster(stack: FocusStack, reference: Any, out: Any, client: Any) -> int:
    """Number of jobs for a cluster; raises where its workers cannot run them."""
    if out is None:
        raise FocusFusionError(
            "On a cluster the workers write the result: give out= an OME-Zarr on a "
            "file system that all of them share."
        )
    if not hasattr(client, "submit") or not hasattr(client, "nthreads"):
        raise FocusFusionError(
            f"client={shown(client)} is no dask.distributed.Client. Leave it out to "
            "compute in this process."
        )
    check_sendable(stack)
    if isinstance(reference, type(stack)):
        check_sendable(reference)
    return jobs_of(client)
