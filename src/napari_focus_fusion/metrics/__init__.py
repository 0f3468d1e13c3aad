"""How good a fused image is: without reference, and against a known truth."""

from __future__ import annotations

from napari_focus_fusion.metrics.evaluate import (
    SIX,
    WITH_TRUTH,
    WITHOUT_TRUTH,
    evaluate,
    prepare,
)
from napari_focus_fusion.metrics.gradient import q_abf, q_g
from napari_focus_fusion.metrics.images import PhaseFeatures, Sources, as_sources
from napari_focus_fusion.metrics.information import q_mi, q_ncie
from napari_focus_fusion.metrics.perception import q_cb, viff
from napari_focus_fusion.metrics.phase import phase_features, q_p
from napari_focus_fusion.metrics.sharpness import sharpness
from napari_focus_fusion.metrics.structure import q_s, q_y
from napari_focus_fusion.metrics.truth import depth_errors, psnr, ssim

__all__ = [
    "SIX",
    "WITHOUT_TRUTH",
    "WITH_TRUTH",
    "PhaseFeatures",
    "Sources",
    "as_sources",
    "depth_errors",
    "evaluate",
    "phase_features",
    "prepare",
    "psnr",
    "q_abf",
    "q_cb",
    "q_g",
    "q_mi",
    "q_ncie",
    "q_p",
    "q_s",
    "q_y",
    "sharpness",
    "ssim",
    "viff",
]
