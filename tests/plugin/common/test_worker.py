"""What is said when a run fails."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from napari_focus_fusion import Cancelled, FocusFusionError, FocusStack
from napari_focus_fusion.plugin.adapters.layers import fuse_to_layers
from napari_focus_fusion.plugin.common.worker import FuseJob, LayersJob, explain


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FocusFusionError("The slices differ."), "The slices differ."),
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory."), "to OME-Zarr instead"),
        (
            RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel ..."),
            "stopped answering while 'leaves' was fused (CUDA error: unspecified "
            "launch failure). Choose the CPU",
        ),
    ],
)
def test_what_can_happen_is_explained(error, said, caplog):
    text = explain(error, "leaves")
    assert said in text and "Traceback" not in text
    assert not caplog.records


def test_what_was_not_foreseen_is_logged(caplog):
    with caplog.at_level(logging.ERROR):
        text = explain(RuntimeError("shapes do not match"), "leaves")
    assert "please report it" in text and "shapes do not match" in text
    assert len(caplog.records) == 1


def test_a_job_gives_what_the_call_gives(slices):
    stack, outputs = FocusStack(slices, "ZYX"), ("fused", "depth", "surface")
    seen = []
    job = LayersJob(stack, None, outputs, {"model": "sml"})
    found = job(seen.append, lambda: False)
    expected = fuse_to_layers(stack, None, outputs, model="sml")
    assert [one[2] for one in found] == ["image", "image", "surface"]
    for (here, *_), (there, *_) in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(here, there)
    assert seen[-1].done == seen[-1].total


def test_a_job_stops(slices):
    for kind in (FuseJob, LayersJob):
        job = kind(FocusStack(slices, "ZYX"), options={"model": "sml"})
        with pytest.raises(Cancelled):
            job(lambda progress: None, lambda: True)
