"""Jobs: their results, cancelling them, and their error messages."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from napari_focus_fusion import Cancelled, FocusFusionError, FocusStack, fuse
from napari_focus_fusion.models.registry import load_model, models, save_weights
from napari_focus_fusion.plugin.adapters.errors import explain
from napari_focus_fusion.plugin.adapters.jobs import FuseJob, LayersJob
from napari_focus_fusion.plugin.adapters.layers import fuse_to_layers
from napari_focus_fusion.plugin.adapters.preview import PreviewJob


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
    job = LayersJob(stack, outputs, {"model": "sml"})
    found = job(seen.append, lambda: False)
    expected = fuse_to_layers(stack, outputs, model="sml")
    assert [one[2] for one in found] == ["image", "image", "surface"]
    for (here, *_), (there, *_) in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(here, there)
    assert seen[-1].done == seen[-1].total


def test_a_job_stops(slices):
    for kind in (FuseJob, LayersJob):
        job = kind(FocusStack(slices, "ZYX"), options={"model": "sml"})
        with pytest.raises(Cancelled):
            job(lambda progress: None, lambda: True)


def quiet(progress):
    """A progress callback that does nothing."""


def test_a_job_finds_models_in_its_folder(slices, tmp_path):
    """By their names, as those of the usual folder are, with the same provenance."""
    path = tmp_path / "my-cells.safetensors"
    save_weights(load_model("sesf"), path, {}, {"parent": "sesf"})
    assert "my-cells" not in models() and "my-cells" in models(tmp_path)
    stack = FocusStack(slices[:, :40, :40], "ZYX")
    options = {"model": "my-cells", "device": "cpu"}
    expected = fuse(stack, path, device="cpu")
    result = FuseJob(stack, options=options, folder=tmp_path)(quiet, lambda: False)
    np.testing.assert_array_equal(result.fused, expected.fused)
    assert result.provenance == expected.provenance
    assert result.provenance["model"] == "my-cells"
    for job in (
        LayersJob(stack, options=options, folder=tmp_path),
        PreviewJob(stack, options=options, folder=tmp_path),
    ):
        made = job(quiet, lambda: False)
        about = (made[0] if isinstance(made, list) else made)[1]["metadata"]
        assert about["napari_focus_fusion"]["model"] == "my-cells"
    for kind in (FuseJob, LayersJob, PreviewJob):
        with pytest.raises(FocusFusionError, match="no model 'my-cells'"):
            kind(stack, options=options)(quiet, lambda: False)


def test_a_job_stays_as_it_was_made(slices):
    options = {"model": "sml", "device": "cpu"}
    for kind in (FuseJob, LayersJob, PreviewJob):
        job = kind(FocusStack(slices[:, :40, :40], "ZYX"), options=options)
        job(quiet, lambda: False)
        assert job.options == {"model": "sml", "device": "cpu"}
        with pytest.raises(FrozenInstanceError):
            job.options = {}
