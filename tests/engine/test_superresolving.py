"""Finer images: in place, the same for any tiles, consistent with their slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_focus_fusion import FocusFusionError, as_stack, fuse
from napari_focus_fusion.engine import plan, store
from small_models import FinerPairs, as_dtype, finer_pairs, relief

if TYPE_CHECKING:
    from pathlib import Path

SCALES = [2, 3, 4]


def small() -> np.ndarray:
    return relief(60, 76, 5).stack


def finer(image: np.ndarray, scale: int) -> np.ndarray:
    """Cubic interpolation of (h, w), mirrored at the border."""
    padded = np.pad(image.astype(np.float64), 4, mode="symmetric")
    found = torch.nn.functional.interpolate(
        torch.from_numpy(padded)[None, None], scale_factor=scale, mode="bicubic"
    )[0, 0].numpy()
    return found[4 * scale : -4 * scale, 4 * scale : -4 * scale]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_one_slice_becomes_what_the_network_makes_of_it(scale: int, dtype: str) -> None:
    stack = as_dtype(small()[:1], dtype)
    result = fuse(stack, finer_pairs(), scale=scale, axes="ZYX")
    expected = finer(stack[0], scale)
    if dtype != "float32":
        limits = np.iinfo(dtype)
        expected = np.rint(expected).clip(limits.min, limits.max)
    assert result.fused.dtype == stack.dtype
    span = float(np.ptp(stack))
    step = 1e-5 * span if dtype == "float32" else 1
    np.testing.assert_allclose(result.fused, expected, rtol=0, atol=step)


@pytest.mark.parametrize("scale", SCALES)
def test_each_part_is_made_of_the_slice_it_was_taken_from(scale: int) -> None:
    """Away from seams, joint fusion is the slice's own finer image."""
    stack = small()
    # The last digit of the confidence depends on how many they are.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = fuse(stack, finer_pairs(), scale=scale)
        coarse = fuse(stack, finer_pairs())
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(result.decision, coarse.decision)
    np.testing.assert_array_equal(result.confidence, coarse.confidence)
    own = np.stack([finer(plane, scale) for plane in stack])
    index = np.asarray(result.decision)
    flat = ndimage.minimum_filter(index, 9) == ndimage.maximum_filter(index, 9)
    flat[:4] = flat[-4:] = flat[:, :4] = flat[:, -4:] = False
    assert flat.mean() > 0.1
    fine = index.repeat(scale, 0).repeat(scale, 1)
    expected = np.take_along_axis(own, fine[None].astype(int), 0)[0]
    inside = flat.repeat(scale, 0).repeat(scale, 1)
    np.testing.assert_allclose(
        result.fused[inside], expected[inside].clip(0, 65535), atol=1.01
    )


@pytest.mark.parametrize("scale", SCALES)
def test_in_two_steps_it_is_the_fused_image_made_finer(scale: int) -> None:
    stack = small()
    result = fuse(stack, finer_pairs(), scale=scale, joint=False)
    expected = finer(fuse(stack, finer_pairs()).fused, scale).clip(0, 65535)
    np.testing.assert_allclose(result.fused, expected, atol=1.01)


def test_another_model_can_make_the_decision() -> None:
    stack = small()
    result = fuse(stack, finer_pairs(), scale=2, decision="sml")
    plain = fuse(stack, "sml")
    assert (result.decision == plain.decision).mean() > 0.999
    assert result.provenance["model"] == "sml"
    assert result.provenance["super_resolution"]["model"] == "finerpairs"


def test_finer_images_are_the_same_however_they_are_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stack = relief(100, 120, 5).stack
    whole = fuse(stack, finer_pairs(), scale=2, tile=512)
    small_tiles = fuse(stack, finer_pairs(), scale=2, tile=32)
    monkeypatch.setattr(plan, "BYTES_A_PIXEL", (16 << 20) // 64**2 - 100)
    monkeypatch.setattr(plan, "CHUNK", 64)
    monkeypatch.setattr(store, "CHUNK", 64)
    regions = fuse(stack, finer_pairs(), scale=2, memory=16 << 20)
    stored = fuse(
        stack, finer_pairs(), scale=2, memory=16 << 20, out=tmp_path / "a.ome.zarr"
    )
    for other in (small_tiles, regions, stored):
        np.testing.assert_array_equal(other.decision, whole.decision)
        error = np.asarray(other.fused).astype(int) - whole.fused
        assert np.abs(error).max() <= 1
        np.testing.assert_allclose(other.consistency, whole.consistency, atol=1e-5)


def test_colours_and_channels_share_one_decision() -> None:
    grey = small()
    colours = np.stack([grey, grey // 2, grey // 4], -1)
    result = fuse(colours, finer_pairs(), axes="ZYXS", scale=2)
    assert result.fused.shape == (120, 152, 3)
    for sample, share in enumerate((1, 2, 4)):
        ratio = result.fused[..., 0] / np.maximum(result.fused[..., sample], 1.0)
        np.testing.assert_allclose(ratio, share, rtol=0.01)
    transparent = np.concatenate([colours, np.full_like(colours[..., :1], 777)], -1)
    result = fuse(transparent, finer_pairs(), axes="ZYXS", scale=2)
    assert (result.fused[..., 3] == 777).all()
    channels = np.stack([grey, 65535 - grey])
    both = fuse(channels, finer_pairs(), axes="CZYX", scale=2, reference=0)
    np.testing.assert_allclose(
        both.fused[0].astype(float), 65535.0 - both.fused[1], atol=1.01
    )


def test_times_are_made_finer_one_by_one() -> None:
    stack = small()
    film = np.stack([stack, stack[::-1]])
    result = fuse(film, finer_pairs(), axes="TZYX", scale=3)
    alone = fuse(stack, finer_pairs(), scale=3)
    np.testing.assert_array_equal(result.fused[0], alone.fused)
    assert result.consistency.shape == (2, 60, 76)


def test_a_network_that_contradicts_its_slices_is_noted() -> None:
    class Inconsistent(FinerPairs):
        def resolve(self, features: Any, scale: int, context: Any = None) -> Any:
            return 0.5 * features

    honest = fuse(small(), finer_pairs(), scale=2)
    assert honest.consistency.mean() < 0.02
    assert not honest.provenance["notes"]
    model = finer_pairs()
    model.__class__ = Inconsistent
    result = fuse(small(), model, scale=2)
    assert result.consistency.mean() > 0.1
    assert "Do not trust" in result.provenance["notes"][0]


def test_results_lie_on_their_source(tmp_path: Path) -> None:
    stack = as_stack(small(), axes="ZYX", scale={"Y": 0.5, "X": 0.25})
    result = fuse(stack, finer_pairs(), scale=2)
    fused, *maps = result.layers()
    assert fused[1]["scale"][-2:] == (0.25, 0.125)
    assert fused[1]["translate"][-2:] == (-0.125, -0.0625)
    assert [layer[1]["name"].split()[-2] for layer in maps][-1] == "consistency"
    files = result.save(tmp_path / "fine.ome.tif")
    assert files[-1].name == "fine_consistency.ome.tif"
    assert as_stack(files[0]).pixel_size("Y") == 0.25
    result.save(tmp_path / "fine.ome.zarr")


def test_what_cannot_be_made_finer_says_so() -> None:
    with pytest.raises(FocusFusionError, match="cannot super-resolve by 2"):
        fuse(small(), "sml", scale=2)
    with pytest.raises(FocusFusionError, match="goes with super-resolution"):
        fuse(small(), "sml", decision="sesf")
    with pytest.raises(FocusFusionError, match="There is no model"):
        fuse(small(), finer_pairs(), scale=2, decision="nobody")
