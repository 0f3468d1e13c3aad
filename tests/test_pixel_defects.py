"""Pixels that lie: what is wrong in one place must not decide for its surroundings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_focus_fusion import fuse
from napari_focus_fusion.composite import RunningNoise
from napari_focus_fusion.engine.reading import limited
from napari_focus_fusion.tiling import Rectangle
from sloping_scene import DEPTH, HEIGHT, SLICES, WIDTH, scene

YY, XX = np.mgrid[:HEIGHT, :WIDTH]
#: Where the defects are: the middle slice is sharp there.
Y, X = 64, 75


def stuck(slices: np.ndarray) -> np.ndarray:
    slices[:, Y, X] = 60000
    return (YY == Y) & (XX == X)


def dead(slices: np.ndarray) -> np.ndarray:
    slices[:, Y, X] = 0
    return (YY == Y) & (XX == X)


def hot_in_one_slice(slices: np.ndarray) -> np.ndarray:
    slices[1, Y, X] = 60000
    return (YY == Y) & (XX == X)


def burnt_in_label(slices: np.ndarray) -> np.ndarray:
    place = (abs(YY - Y) <= 10) & (abs(XX - X) <= 30)
    slices[:, place] = 4095
    slices[:, place & (YY % 3 == 0) & (abs(YY - Y) <= 8)] = 0
    return place


def dust(slices: np.ndarray) -> np.ndarray:
    place = np.hypot(YY - Y, XX - X) <= 7.5
    slices[:, place] = slices[:, place] * 7 // 10
    return place


def saturated_highlight(slices: np.ndarray) -> np.ndarray:
    spot = (((YY == Y) & (XX == X)) * 8e5).astype(float)
    for z, plane in enumerate(slices):
        shown = plane + ndimage.gaussian_filter(spot, 1.5 + 1.1 * abs(z - SLICES // 2))
        plane[...] = shown.clip(0, 4095)
    return np.hypot(YY - Y, XX - X) <= 18


DEFECTS = [stuck, dead, hot_in_one_slice, burnt_in_label, dust, saturated_highlight]


@pytest.mark.parametrize("noise", [0, 60])
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda f: f.__name__)
def test_a_defect_does_not_blur_its_surroundings(defect: Any, noise: float) -> None:
    """Averaging was switched on up to ten pixels around: an error of 230, not 25."""
    slices, truth = scene(noise)
    before = fuse(slices, "sml")
    after_slices = slices.copy()
    place = defect(after_slices)
    after = fuse(after_slices, "sml")
    around = ndimage.binary_dilation(place, iterations=12)
    around &= ~ndimage.binary_dilation(place)
    errors = [
        np.sqrt(((result.fused.astype(float) - truth)[around] ** 2).mean())
        for result in (before, after)
    ]
    # The rows of the label are detail in all slices alike, and weaken every decision.
    factor = 2 if defect is burnt_in_label else 1.15
    assert errors[1] < factor * errors[0] + 5
    assert (abs(after.decision.astype(int) - DEPTH)[around] <= 1).all()


@pytest.mark.parametrize("defect", [stuck, dead, hot_in_one_slice])
def test_a_single_pixel_changes_no_decision_around_it(defect: Any) -> None:
    slices, _ = scene(60)
    before = fuse(slices, "sml", verify=False).decision
    place = defect(slices)
    after = fuse(slices, "sml", verify=False).decision
    around = ndimage.binary_dilation(place, iterations=40) & ~place
    assert (before != after)[around].mean() < 0.005


def test_a_stuck_pixel_stays_as_observed() -> None:
    slices, _ = scene(0)
    stuck(slices)
    assert fuse(slices, "sml", blend="select").fused[Y, X] == 60000


@pytest.mark.parametrize("defect", [stuck, hot_in_one_slice, burnt_in_label])
def test_tiles_stay_invisible_with_defects_at_their_borders(
    defect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_focus_fusion.engine import plan
    from napari_focus_fusion.tiling import TilePlan

    slices, _ = scene(60)
    defect(slices)
    whole = fuse(slices, "sml")
    monkeypatch.setattr(
        plan, "plan_regions", lambda *_, **__: TilePlan(HEIGHT, WIDTH, (Y, X))
    )
    pieces = fuse(slices, "sml", tile=32)
    np.testing.assert_array_equal(pieces.decision, whole.decision)
    np.testing.assert_array_equal(pieces.fused, whole.fused)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda f: f.__name__)
def test_reversing_a_stack_with_defects_reverses_its_map(defect: Any) -> None:
    slices, _ = scene(60)
    defect(slices)
    one, other = fuse(slices, "sml"), fuse(slices[::-1].copy(), "sml")
    np.testing.assert_array_equal(SLICES - 1 - other.decision.astype(int), one.decision)
    np.testing.assert_array_equal(other.fused, one.fused)


def all_limited(planes: np.ndarray) -> np.ndarray:
    whole = (slice(0, planes.shape[1]), slice(0, planes.shape[2]))
    return limited(planes, *whole)


@pytest.mark.parametrize(("y", "x"), [(20, 30), (0, 0), (0, 7), (59, 79), (47, 3)])
@pytest.mark.parametrize("value", [50.0, -50.0])
def test_an_outlier_is_limited_to_its_neighbours(y: int, x: int, value: float) -> None:
    rng = np.random.default_rng(0)
    planes = rng.normal(0, 1, (2, 60, 80)).astype(np.float32)
    planes[1, y, x] = value
    found = all_limited(planes)
    around = planes[1, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].ravel()
    others = around[around != value]
    assert found[1, y, x] == (others.max() if value > 0 else others.min())
    changed = np.argwhere(found != planes)
    assert [1, y, x] in changed.tolist()
    assert len(changed) <= 3  # of ten thousand pixels of white noise a few


@pytest.mark.parametrize("sigma", [0.8, 1.0, 2.0])
def test_well_sampled_detail_is_not_limited(sigma: float) -> None:
    """Points and lines as a lens images them, anywhere between the pixels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for _ in range(50):
        centre, angle = rng.uniform(15, 25, 2), rng.uniform(0, np.pi)
        across = (y - centre[0]) * np.cos(angle) + (x - centre[1]) * np.sin(angle)
        along = (x - centre[1]) * np.cos(angle) - (y - centre[0]) * np.sin(angle)
        for squares in (across**2 + along**2, across**2):
            plane = np.exp(-squares / (2 * sigma**2))[None].astype(np.float32)
            np.testing.assert_array_equal(all_limited(plane), plane)


def test_limiting_a_window_is_limiting_the_whole() -> None:
    rng = np.random.default_rng(0)
    planes = rng.standard_t(1, (2, 130, 70)).astype(np.float32)
    whole = all_limited(planes)
    for y, x in ((slice(1, 100), slice(3, 40)), (slice(0, 130), slice(0, 9))):
        np.testing.assert_array_equal(limited(planes, y, x), whole[:, y, x])


def noise_of(planes: np.ndarray, region: Rectangle) -> np.ndarray:
    """The variance that is measured, of planes with 16 pixels around the region."""
    running = RunningNoise(region, torch.device("cpu"))
    for plane in planes:
        running.update(torch.from_numpy(plane.astype(np.float32)), 16)
    return running.variance().numpy()


@pytest.mark.parametrize("slices", [1, 2, 3, 8, 32])
def test_the_variance_of_white_noise_is_measured(slices: int) -> None:
    rng = np.random.default_rng(slices)
    planes = rng.normal(5, 0.3, (slices, 332, 332))
    found = noise_of(planes, Rectangle(6, 306, 9, 309))
    assert found.mean() == pytest.approx(0.09, rel=0.04)


def test_the_variance_of_photon_noise_follows_the_image() -> None:
    rng = np.random.default_rng(0)
    image = 20 + 380 * ndimage.gaussian_filter(rng.random((332, 332)), 25)
    image = 20 + 380 * (image - image.min()) / np.ptp(image)
    found = noise_of(rng.poisson(image, (8, 332, 332)), Rectangle(0, 300, 0, 300))
    expected = image[16:-16, 16:-16]
    assert found.mean() == pytest.approx(expected.mean(), rel=0.06)
    assert abs(np.log(found / expected)).mean() < 0.2


def test_what_is_the_same_in_all_slices_is_no_noise() -> None:
    rng = np.random.default_rng(0)
    planes = rng.normal(0, 1, (5, 132, 132))
    fixed = np.zeros((132, 132))
    fixed[40:60, 30:90] = 1000 * (rng.random((20, 60)) > 0.5)
    found = noise_of(planes + fixed, Rectangle(0, 100, 0, 100))
    assert 0.5 < found.min() and found.max() < 1.6


def test_a_slice_without_noise_does_not_hide_that_of_the_others() -> None:
    planes = np.random.default_rng(0).normal(0, 1, (4, 132, 132))
    planes[2] = 7  # saturated all over
    assert noise_of(planes, Rectangle(0, 100, 0, 100)).min() > 0.3


def test_the_noise_of_a_part_is_that_of_the_whole() -> None:
    planes = np.random.default_rng(0).normal(0, 1, (3, 132, 152))
    whole = noise_of(planes, Rectangle(0, 100, 0, 120))
    part = noise_of(planes[:, 13:90, 22:99], Rectangle(13, 58, 22, 67))
    np.testing.assert_array_equal(part, whole[13:58, 22:67])
