"""Scores of models on benchmark scenes: ground truth, and never trained on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import plan_run
from napari_focus_fusion.engine.prepare import prepare
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.engine.steps import steps_of
from napari_focus_fusion.engine.store import MemoryStore
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.metrics import evaluate
from napari_focus_fusion.models.registry import load_model
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.simulation.scenes import benchmark_scenes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from napari_focus_fusion.models.base import FusionModel
    from napari_focus_fusion.models.surface import Surface
    from napari_focus_fusion.simulation.scenes import Scene, SceneSpec
    from napari_focus_fusion.stack import FocusStack


def score_on_scenes(
    candidates: Mapping[str, FusionModel],
    specs: Iterable[SceneSpec] | None = None,
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """Mean scores of models over the benchmark scenes.

    Parameters
    ----------
    candidates
        Models by their names in the result.
    specs
        Scenes; None for all benchmark scenes.
    device
        Where to run.

    Returns
    -------
    dict
        For each model the means of :func:`score_scene`, rounded to four digits.
    """
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
    for spec in benchmark_scenes() if specs is None else specs:
        scene = spec.make()
        for name, model in candidates.items():
            rows[name].append(score_scene(scene, model, device))
    return {name: _means(found) for name, found in rows.items()}


def score_scene(
    scene: Scene, model: FusionModel, device: str = "cpu"
) -> dict[str, float]:
    """Scores of one model on one scene.

    Returns
    -------
    dict
        ``psnr`` in dB of the fused image, its peak the range of the ground truth;
        ``depth_error``, mean distance in slices where there is detail, each pixel's
        capped at 3; ``off_by_more_than_one``, share of those pixels.
    """
    result = fuse(scene.stack, model, axes=scene.axes, surface=0.0, device=device)
    return score_of(scene, result.fused, result.depth)


def score_of(scene: Scene, fused: Any, depth: Any) -> dict[str, float]:
    """Scores of a fused image and a depth map in slices, as :func:`score_scene`."""
    truth = scene.truth.astype(np.float64)
    squared = np.mean((np.asarray(fused, np.float64) - truth) ** 2)
    distance = np.abs(np.asarray(depth) - scene.depth)[scene.textured]
    return {
        "psnr": float(10 * np.log10(np.ptp(truth) ** 2 / squared)),
        "depth_error": float(np.minimum(distance, 3).mean()),
        "off_by_more_than_one": float((distance > 1).mean()),
    }


def score_surface(untrained: Surface, trained: Surface) -> dict[str, Any]:
    """Scores of the plain focus measure on benchmark scenes, with and without surface.

    Only scenes of more than two slices have one.

    Returns
    -------
    dict
        ``scores``: for ``"sml"`` and for it with either network the means of
        :func:`score_scene`.
    """
    networks = {"sml": None, "untrained": untrained, "trained": trained}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in networks}
    for spec in benchmark_scenes():
        scene = spec.make()
        stack = as_stack(scene.stack, axes=scene.axes)
        if stack.n_slices < 3:
            continue
        for name, network in networks.items():
            rows[name].append(score_of(scene, *fuse_near_surface(stack, network)))
    return {"scores": {name: _means(found) for name, found in rows.items()}}


def fuse_near_surface(stack: FocusStack, network: Surface | None) -> tuple[Any, Any]:
    """Fused image and depth map of the plain focus measure, near a surface or not."""
    settings = FusionSettings(device="cpu", surface=0.0)
    plan = plan_run(stack, load_model("sml"), settings)
    if network is not None:
        near = dataclasses.replace(settings, surface=1.0)
        plan = dataclasses.replace(plan, settings=near, surface=network)
    store, monitor = MemoryStore(stack), Monitor()
    with torch.inference_mode():
        point = prepare(plan, 0, monitor)
        for step in steps_of(plan):
            for region in plan.regions:
                step.run(point, store, region, monitor)
    return store.outputs["fused"], store.outputs["depth"]


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {
        measure: round(float(np.mean([row[measure] for row in rows])), 4)
        for measure in rows[0]
    }


def score_on_lytro(
    candidates: Mapping[str, FusionModel], folder: Path, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Mean Q_AB/F over the Lytro pairs (Nejati et al., Information Fusion 25, 2015).

    They have no ground truth, and at this resolution a good scorer and a random one
    score alike; they are here because every paper has them.

    Parameters
    ----------
    candidates
        Models by their names in the result.
    folder
        With ``lytro-01-A.jpg``, ``lytro-01-B.jpg`` and so on.
    device
        Where to run.

    Returns
    -------
    dict
        ``{"Q_AB/F": mean}`` for each model, rounded to four digits.
    """
    from skimage.io import imread

    found: dict[str, list[float]] = {name: [] for name in candidates}
    for first in sorted(folder.glob("lytro-*-A.jpg")):
        second = first.with_name(first.name.replace("-A", "-B"))
        pair = np.stack([imread(first), imread(second)])
        for name, model in candidates.items():
            fused = fuse(pair, model, axes="ZYXS", device=device).fused
            found[name] += evaluate(fused, pair, measures=["Q_AB/F"]).values()
    return {name: {"Q_AB/F": round(float(np.mean(v)), 4)} for name, v in found.items()}
