"""What is recorded of a run, with its result and to identify it when resumed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from napari_focus_fusion._version import __version__
from napari_focus_fusion.device import describe
from napari_focus_fusion.engine.empty import with_empty_bands
from napari_focus_fusion.engine.identity import fingerprint, lies_in_files
from napari_focus_fusion.engine.registering import alignment_of, unaligned
from napari_focus_fusion.engine.steps import threads_of
from napari_focus_fusion.models.registry import hash_of_tensors
from napari_focus_fusion.placement import displayed_axes

if TYPE_CHECKING:
    from napari_focus_fusion.engine.plan import RunPlan
    from napari_focus_fusion.models.base import FusionModel


def provenance_of(plan: RunPlan, *, cluster: bool) -> dict[str, Any]:
    """Where a result comes from: what JSON can hold, without the notes of the run.

    Parameters
    ----------
    plan
        The run.
    cluster
        Whether the workers of a cluster compute it.
    """
    stack, model = plan.stack, plan.model
    device = describe(plan.device, threads_of(plan))
    if cluster:
        device = f"dask cluster ({plan.settings.device})"
    record: dict[str, Any] = {
        "software": "napari-focus-fusion",
        "version": __version__,
        "model": "given decision map" if model is None else _name_of(model),
        "weights_sha256": "" if model is None else _hash_of(model),
        **_super_resolution(plan),
        "device": device,
        "source": stack.source,
        "source_shape": list(stack.data.shape),
        "source_axes": stack.axes,
        "parameters": plan.settings.recorded(),
    }
    shown = displayed_axes(stack)
    if shown != stack.axes.replace("S", ""):  # as in (Y, X, Z)
        record["source_order"] = shown
    if stack.files:
        record["source_files"] = [dict(file) for file in stack.files]
    if plan.registration is not None:
        record["registration"] = plan.registration.recorded()
    record |= alignment_of(stack)
    if plan.decision is not None:
        record["decision_sha256"] = hashlib.sha256(plan.decision.tobytes()).hexdigest()
    if plan.reference is not stack:
        record["reference_source"] = plan.reference.source
    record["reconstructed"] = plan.reconstructs
    return record


def fingerprints_of(plan: RunPlan, *, always: bool) -> dict[str, Any]:
    """What of a provenance identifies the pixels that a run reads.

    Parameters
    ----------
    plan
        The run.
    always
        Whether every pixel may be read for it; else there is none of a stack in memory.
    """
    stacks = {"source_fingerprint": with_empty_bands(unaligned(plan.stack))}
    if plan.reference is not plan.stack:
        reference = with_empty_bands(unaligned(plan.reference))
        stacks["reference_fingerprint"] = reference
    if not always and not all(lies_in_files(stack.data) for stack in stacks.values()):
        return {}
    return {name: fingerprint(stack) for name, stack in stacks.items()}


def identity_of(
    plan: RunPlan, provenance: dict[str, Any], *, cluster: bool
) -> dict[str, Any]:
    """What identifies a run: a partial result is resumed only by the same one."""
    stack = plan.stack
    return provenance | {
        "device": plan.settings.device if cluster else plan.device.type,
        "pixel_sizes": {axis: stack.pixel_size(axis) for axis in stack.axes},
        "units": {axis: stack.unit(axis) for axis in stack.axes},
    }


def _name_of(model: FusionModel) -> str:
    assert model.spec is not None
    return model.spec.name


def _hash_of(model: FusionModel) -> str:
    return model.weights_hash or hash_of_tensors(model)


def _super_resolution(plan: RunPlan) -> dict[str, Any]:
    if plan.upscale is None:
        return {}
    resolver = plan.upscale.resolver
    return {
        "super_resolution": {
            "model": _name_of(resolver),
            "weights_sha256": _hash_of(resolver),
            "scale": plan.upscale.scale,
            "joint": plan.upscale.joint,
            "detail": "finer than the source's pixels: inferred, not observed",
        }
    }
