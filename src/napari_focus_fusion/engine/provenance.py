"""What is recorded of a run, with its result and to identify it when resumed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from napari_focus_fusion._version import __version__
from napari_focus_fusion.device import describe
from napari_focus_fusion.engine.empty import with_empty_bands
from napari_focus_fusion.engine.registering import unaligned
from napari_focus_fusion.engine.store import fingerprint
from napari_focus_fusion.models.registry import hash_of_tensors

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
    stack, model, device = plan.stack, plan.model, plan.settings.device
    record: dict[str, Any] = {
        "software": "napari-focus-fusion",
        "version": __version__,
        "model": "given decision map" if model is None else _name_of(model),
        "weights_sha256": "" if model is None else _hash_of(model),
        **_super_resolution(plan),
        "device": f"dask cluster ({device})" if cluster else describe(plan.device),
        "source": stack.source,
        "source_shape": list(stack.data.shape),
        "source_axes": stack.axes,
        "parameters": plan.settings.recorded(),
    }
    if stack.files:
        record["source_files"] = [dict(file) for file in stack.files]
    if plan.registration is not None:
        record["registration"] = plan.registration.recorded()
    if plan.levels is not None:
        record["brightness"] = plan.levels.recorded()
    if plan.decision is not None:
        record["decision_sha256"] = hashlib.sha256(plan.decision.tobytes()).hexdigest()
    if plan.reference is not stack:
        record["reference_source"] = plan.reference.source
    record["reconstructed"] = plan.reconstructs
    return record


def identity_of(plan: RunPlan, *, cluster: bool) -> dict[str, Any]:
    """What identifies a run: a partial result is resumed only by the same one."""
    stack = plan.stack
    identity = provenance_of(plan, cluster=cluster) | {
        "device": plan.settings.device if cluster else plan.device.type,
        "fingerprint": fingerprint(with_empty_bands(unaligned(stack))),
        "pixel_sizes": {axis: stack.pixel_size(axis) for axis in stack.axes},
        "units": {axis: stack.unit(axis) for axis in stack.axes},
    }
    if plan.reference is not stack:
        identity["reference_fingerprint"] = fingerprint(
            with_empty_bands(unaligned(plan.reference))
        )
    return identity


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
