"""Fine-tuning and comparing layers, with no window."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from napari.layers import Layer

import napari_focus_fusion as ff
from napari_focus_fusion import FocusFusionError
from napari_focus_fusion.models.registry import save_weights
from napari_focus_fusion.plugin.adapters import finetuning
from napari_focus_fusion.plugin.adapters.finetuning import (
    compare_job,
    compare_layers,
    explain,
    finetune_job,
    finetune_layers,
)
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.training import finetune as core
from small_models import random_sesf, relief


@pytest.fixture
def layer():
    """Four noisy slices, (4, 120, 180)."""
    return Layer.create(relief(120, 180, 4).stack, {"name": "pollen"}, "image")


def test_a_job_is_not_changed_after_it_is_made(layer):
    tuning = finetune_job(
        [layer], "sesf", name="mine", regions=[[Rectangle(0, 99, 0, 99)]]
    )
    comparison = compare_job(layer, "sesf", "sml", device="cpu")
    for job in (tuning, comparison):
        with pytest.raises(FrozenInstanceError):
            job.folder = "elsewhere"
        with pytest.raises(TypeError, match="does not support item assignment"):
            job.options["device"] = "cuda"
    layer.name = "renamed"
    assert tuning.names == comparison.names == "'pollen'"


def test_the_folder_of_models_is_handed_down(layer, tmp_path, monkeypatch):
    """Both when a model is looked for and when one is kept."""
    monkeypatch.setattr(core, "RESYNTHESISED", 2)
    monkeypatch.setattr(core, "FUSED", 1)
    monkeypatch.setattr(finetuning, "FIELD", 48)
    about = {"parent": "sesf", "summary": "Not trained."}
    save_weights(random_sesf(), tmp_path / "rough.safetensors", {}, about)
    options = {"steps": 2, "patch": 48, "lr": 1e-2, "seed": 1, "device": "cpu"}
    with pytest.raises(FocusFusionError, match="There is no model 'rough'"):
        finetune_layers([layer], "rough", name="mine", **options)
    shown = []
    job = finetune_job([layer], "rough", name="mine", folder=tmp_path, **options)
    result = job(shown.append, lambda: False)
    assert result.path == tmp_path / "mine.safetensors" and result.path.is_file()
    assert any(isinstance(one, finetuning.Validation) for one in shown)
    assert not {"rough", "mine"} & set(ff.models())
    layers = compare_layers(
        layer,
        "rough",
        "mine",
        folder=tmp_path,
        region=Rectangle(0, 40, 0, 60),
        device="cpu",
    )
    expected = ff.fuse(
        layer.data[:, :40, :60], ff.load_model(result.path), axes="ZYX", device="cpu"
    )
    np.testing.assert_array_equal(layers[2][0], expected.fused)
    assert layers[2][1]["name"] == "pollen fused [mine]"
    with pytest.raises(FocusFusionError, match="There is no model 'rough'"):
        compare_layers(layer, "rough", "mine")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FocusFusionError("The slices differ."), "The slices differ."),
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            "There is not enough memory to fine-tune on 'a', 'b'. Close other "
            "programs, choose the CPU as device, or a smaller patch.",
        ),
        (
            RuntimeError("CUDA error: unspecified launch failure"),
            "The graphics card stopped answering while it learnt from 'a', 'b'. Start "
            "napari again and go on from where it was, with the same name; or choose "
            "the CPU as device.",
        ),
    ],
)
def test_what_can_happen_is_explained(error, said, caplog):
    assert explain(error, "'a', 'b'") == said
    assert not caplog.records


def test_what_was_not_foreseen_is_logged(caplog):
    with caplog.at_level(logging.ERROR):
        text = explain(ValueError("shapes differ"), "'a'")
    assert text == (
        "Fine-tuning on 'a' failed because of an error that was not foreseen "
        "(ValueError: shapes differ). If it comes back, please report it; the log says "
        "where it happened."
    )
    assert [record.exc_info[0] for record in caplog.records] == [ValueError]
