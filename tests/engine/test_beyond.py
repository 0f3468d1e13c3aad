"""Where a reconstruction goes beyond every slice: the range of the slices, again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_focus_fusion import Cancelled, fuse
from napari_focus_fusion.fusion import plan_fusion
from napari_focus_fusion.models.registry import models
from napari_focus_fusion.opening import as_stack
from small_models import (
    HALO,
    EnergyReconstructor,
    energy_reconstructor,
    relief,
    with_spec,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from napari_focus_fusion import FusionResult

LUMINANCE = np.array([0.299, 0.587, 0.114])


class Exaggerating(EnergyReconstructor):
    """Adds so much of the detail that many pixels lie beyond all slices."""

    def reconstruct(
        self, largest: Tensor, added: Tensor, count: int, context: Any = None
    ) -> Tensor:
        plain = added[:, 2:] / count
        return (plain + 3 * (added[:, :1] / added[:, 1:2] - plain))[:, 0]


def exaggerating() -> Exaggerating:
    return with_spec(Exaggerating(), HALO + 2)


def outside(slices: np.ndarray, fused: np.ndarray) -> np.ndarray:
    """How far pixels lie outside the range of slices (Z first); NaN is absent."""
    absent = np.isnan(slices)
    lowest = np.where(absent, np.inf, slices).min(0)
    highest = np.where(absent, -np.inf, slices).max(0)
    above, below = np.maximum(fused - highest, 0), np.minimum(fused - lowest, 0)
    return np.where(absent.all(0), 0, above + below)


def goes_beyond(result: FusionResult) -> None:
    """Some of it does, in both directions, and most of it does not."""
    beyond = np.asarray(result.beyond)
    assert beyond.dtype == np.float32
    assert beyond.min() < -1 and beyond.max() > 1
    assert (beyond == 0).mean() > 0.25


@pytest.mark.parametrize("strength", [0.5, 1])
def test_it_is_what_lies_outside_the_range_of_the_slices(strength: float) -> None:
    slices = relief(96, 110).stack
    result = fuse(slices, exaggerating(), strength=strength)
    goes_beyond(result)
    fused = result.fused.astype(float)
    np.testing.assert_array_equal(result.beyond, outside(slices.astype(float), fused))


def test_each_channel_and_time_point_has_its_own() -> None:
    first, second = relief(70, 80, 4).stack, relief(70, 80, 4, seed=1_000_002).stack
    movie = np.stack([[first, second], [second[::-1], first // 2]], 1)  # C, T
    result = fuse(movie, exaggerating(), axes="CTZYX")
    assert result.beyond.shape == (2, 2, 70, 80)
    for channel in range(2):
        for t in range(2):
            np.testing.assert_array_equal(
                result.beyond[channel, t],
                outside(
                    movie[channel, t].astype(float),
                    result.fused[channel, t].astype(float),
                ),
            )
            assert np.count_nonzero(result.beyond[channel, t]) > 100
    layers = [attributes for _, attributes, _ in result.layers()]
    assert [one["name"] for one in layers][-2:] == [
        "stack channel 0 beyond [exaggerating]",
        "stack channel 1 beyond [exaggerating]",
    ]


def test_of_colours_it_is_the_luminance() -> None:
    grey = (relief(70, 80, 4).stack >> 8).astype(np.uint8)
    slices = np.stack([grey, grey[:, ::-1], 255 - grey], -1)
    result = fuse(slices, exaggerating(), axes="ZYXS")
    goes_beyond(result)
    expected = outside(slices @ LUMINANCE, result.fused @ LUMINANCE)
    np.testing.assert_allclose(result.beyond, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_absent_pixels_show_nothing(dtype: str) -> None:
    slices = relief(70, 80, 4).stack.astype(dtype)
    slices[1:, 10:30, 10:40] = np.nan
    slices[:, 50:55, 60:70] = np.nan
    slices[2, :, ::7] = np.nan
    result = fuse(slices, exaggerating())
    goes_beyond(result)
    expected = outside(slices.astype(float), result.fused.astype(float))
    np.testing.assert_allclose(result.beyond, expected, rtol=1e-6, atol=0.01)
    # One slice alone: whatever differs from it lies beyond.
    alone = result.fused[10:30, 10:40].astype(float) - slices[0, 10:30, 10:40]
    np.testing.assert_allclose(result.beyond[10:30, 10:40], alone, rtol=1e-6, atol=0.01)
    assert (result.beyond[50:55, 60:70] == 0).all()
    masked = np.ma.masked_invalid(slices)
    masked.data[masked.mask] = 1e6  # what lies under a mask does not matter either
    np.testing.assert_array_equal(fuse(masked, exaggerating()).beyond, result.beyond)


def test_tiles_and_regions_are_invisible() -> None:
    slices = np.tile(relief(220, 260, 3).stack, (1, 2, 2))
    whole = fuse(slices, energy_reconstructor(), tile=512)
    _, plan = plan_fusion(slices, energy_reconstructor(), memory="16MB", tile=64)
    assert len(plan.regions) > 2
    cut = fuse(slices, energy_reconstructor(), memory="16MB", tile=64)
    assert (whole.beyond != 0).mean() > 0.001
    np.testing.assert_allclose(cut.fused.astype(int), whole.fused.astype(int), atol=1)
    np.testing.assert_allclose(cut.beyond, whole.beyond, atol=1)
    same = cut.fused == whole.fused
    np.testing.assert_array_equal(cut.beyond[same], whole.beyond[same])


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """Its map and what it says of it are those of a run that was not."""
    slices = np.tile(relief(260, 300, 3).stack, (1, 2, 2))
    model, out = exaggerating(), tmp_path / "fused.ome.zarr"
    whole = fuse(slices, model)
    options: dict[str, Any] = {"out": out, "memory": "16MB"}
    fusing = False

    def look(progress: Any) -> None:
        nonlocal fusing
        fusing = progress.stage == "Fusing"

    partial = tmp_path / "fused.ome.zarr.partial" / "finished_chunks"

    def stop() -> bool:
        return fusing and len(list(partial.glob("fused-*"))) > 0

    with pytest.raises(Cancelled):
        fuse(slices, model, progress=look, should_stop=stop, **options)
    assert 0 < len(list(partial.glob("fused-*"))) < 4
    result = fuse(slices, model, **options)
    assert isinstance(result.beyond, type(result.confidence))  # not in memory
    expected = outside(slices.astype(float), np.asarray(result.fused).astype(float))
    np.testing.assert_array_equal(result.beyond, expected)
    (said,) = (note for note in result.notes if "than in every slice" in note)
    assert said in whole.notes
    np.testing.assert_array_equal(as_stack(out / "beyond").data[:], expected)


def test_observed_pixels_have_none() -> None:
    slices = relief(60, 60, 4).stack
    assert fuse(slices, "sml").beyond is None
    for options in ({"strength": 0}, {"blend": "select"}):
        result = fuse(slices, exaggerating(), **options)
        assert result.beyond is None
        assert not any("every slice" in note for note in result.notes)
    assert fuse(slices[:1], exaggerating(), axes="ZYX").beyond is None


def test_the_note_says_what_share_is_beyond_by_more_than_the_noise() -> None:
    scene, sd = relief(120, 140, 5), 400.0
    rng = np.random.default_rng(5)
    clean = np.stack([scene.truth / 2 + 8000] * 5)
    clean[1:, :60] = clean[1:, :60].mean()  # detail in the upper half, in one slice
    slices = (clean + rng.normal(0, sd, clean.shape)).clip(0, 65535).astype(np.uint16)
    result = fuse(slices, exaggerating(), surface=0)
    (note,) = (note for note in result.notes if "than in every slice" in note)
    found = re.match(r"([\d.]+)% of the pixels are brighter or darker", note)
    assert found is not None
    share = float(found[1]) / 100
    fewer, more = (np.mean(np.abs(result.beyond) > k * sd) for k in (4, 2))
    assert 0.01 < fewer <= share <= more < 1
    assert share < np.mean(result.beyond != 0) - 0.01


@pytest.mark.skipif("mscnn" not in models(), reason="it has no weights")
@pytest.mark.parametrize("count", [2, 3, 12])
def test_less_noise_than_any_slice_is_no_news(count: int) -> None:
    """An image nearer to the truth than all of them lies outside noisy slices."""
    truth = relief(120, 140, 5).truth
    noise = np.random.default_rng(count).normal(0, 600, (count, *truth.shape))
    slices = (truth + noise).clip(0, 65535).astype(np.uint16)

    result = fuse(slices, "mscnn")
    assert (result.beyond != 0).mean() > 0.01
    assert not any("every slice" in note for note in result.notes)
