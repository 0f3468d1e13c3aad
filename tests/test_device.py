"""Errors of devices, in words; and what a run changes of PyTorch's settings."""

from __future__ import annotations

import pytest
import torch

from napari_focus_fusion.device import (
    choose_device,
    deterministic,
    is_lost_device,
    is_out_of_memory,
    lost_device_in_words,
    memory_budget,
)
from napari_focus_fusion.errors import FocusFusionError

CARD = torch.device("cuda", 0)
#: PyTorch has had a type for them since 2.8.
DriverError = getattr(torch, "AcceleratorError", RuntimeError)
LOST = "CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`"


def test_a_lost_card_is_named_with_what_to_do():
    with (
        pytest.raises(FocusFusionError, match="start it again") as caught,
        lost_device_in_words(CARD),
    ):
        raise DriverError(LOST)
    text = str(caught.value)
    assert text.startswith("The graphics card cuda:0 does not compute any more")
    assert "device-side assert triggered" in text
    assert "Compile with" not in text


def test_a_run_on_a_card_says_so_too():
    with pytest.raises(FocusFusionError, match="start it again"), deterministic(CARD):
        raise DriverError(LOST)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_a_lack_of_memory_is_no_lost_card(text):
    error = RuntimeError(text)
    assert is_out_of_memory(error)
    assert not is_lost_device(error)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), deterministic(CARD):
        raise RuntimeError("shapes do not fit")


def test_cards_compute_in_full_precision_while_a_run_lasts():
    before = torch.backends.cudnn.allow_tf32
    with deterministic(CARD):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.allow_tf32 is before
    assert not torch.backends.cudnn.deterministic


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a graphics card")
def test_memory_that_pytorch_keeps_counts_as_free():
    card = choose_device("cuda")
    torch.empty(1 << 28, dtype=torch.uint8, device=card)
    kept = memory_budget(card, None)
    torch.cuda.empty_cache()
    assert kept == pytest.approx(memory_budget(card, None), rel=0.01)
