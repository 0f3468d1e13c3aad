"""The running decision and its verification, against plain arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_focus_fusion.decision import (
    SMALLEST_REGION,
    SURROUNDINGS_WEIGHT,
    VERIFY_HALO,
    VOTE_RADIUS,
    Maps,
    RunningDecision,
    aggregate,
    aggregate_halo,
    verify,
    without_specks,
)

CPU = torch.device("cpu")


def decide(scores: np.ndarray) -> RunningDecision:
    """Feed (N, h, w) scores in order."""
    high, wide = scores.shape[1:]
    running = RunningDecision((high, wide), CPU)
    for z, score in enumerate(scores):
        plane = torch.from_numpy(score.astype(np.float32))
        running.update(z, plane, slice(0, high), slice(0, wide))
    return running


def random_scores(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.gamma(2, size=(count, 13, 17)).astype(np.float32)


@given(st.integers(1, 12), st.integers(0, 1000))
def test_the_best_slice_is_the_arg_max_and_the_first_of_equals(
    count: int, seed: int
) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, (count, 6, 7))
    maps = decide(scores).maps()
    np.testing.assert_array_equal(maps.labels, scores.argmax(0))
    assert maps.labels.dtype == np.uint16


@given(st.integers(2, 12), st.integers(0, 1000))
def test_confidence_is_the_lead_over_the_mean_of_the_others(
    count: int, seed: int
) -> None:
    scores = random_scores(count, seed).astype(np.float64)
    best = scores.max(0)
    expected = 1 - (scores.sum(0) - best) / (count - 1) / best
    np.testing.assert_allclose(decide(scores).maps().confidence, expected, atol=2e-6)


@given(st.permutations(range(9)))
@settings(max_examples=25)
def test_permuting_the_slices_permutes_the_map_and_nothing_else(order: list) -> None:
    scores = random_scores(9)
    maps, other = decide(scores).maps(), decide(scores[order]).maps()
    np.testing.assert_array_equal(np.asarray(order)[other.labels], maps.labels)
    np.testing.assert_array_equal(other.confidence, maps.confidence)


def test_one_slice_is_certain_and_equal_slices_are_not() -> None:
    scores = random_scores(1)
    assert (decide(scores).maps().confidence == 1).all()
    assert (decide(np.repeat(scores, 4, 0)).maps().confidence == 0).all()


def test_there_is_no_confidence_where_nothing_is_sharp() -> None:
    """Flat or saturated in all slices: all scores are zero."""
    scores = random_scores(5)
    scores[:, :6] = 0
    confidence = decide(scores).maps().confidence
    assert (confidence[:6] == 0).all()
    assert (confidence[6:] > 0).all()


@pytest.mark.parametrize("width", [0.6, 1.5, 4.0])
def test_depth_is_exact_for_scores_that_fall_off_as_a_gaussian(width: float) -> None:
    depth = np.random.default_rng(0).uniform(0.51, 8.49, (13, 17))
    z = np.arange(10)[:, None, None]
    running = decide(7 * np.exp(-((z - depth) ** 2) / (2 * width**2)))
    np.testing.assert_allclose(running.maps().depth, depth, atol=1e-4)


def test_depth_at_the_ends_of_the_stack_is_the_index() -> None:
    scores = random_scores(6)
    scores[0, :5] = 100
    scores[-1, 5:9] = 100
    depth = decide(scores).maps().depth
    assert (depth[:5] == 0).all()
    assert (depth[5:9] == 5).all()


@given(st.integers(2, 9), st.integers(0, 1000))
def test_depth_is_within_half_a_slice_of_the_best_slice(count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 5, (count, 6, 7))
    maps = decide(scores).maps()
    assert np.abs(maps.depth - maps.labels).max() <= 0.5


def test_tiles_are_updated_on_their_own() -> None:
    scores = random_scores(5)
    whole = decide(scores).maps()
    running = RunningDecision((13, 17), CPU)
    parts = [slice(0, 6), slice(6, 13)]
    for y in parts:
        for z in range(5):
            plane = torch.from_numpy(scores[z, y])
            running.update(z, plane, y, slice(0, 17))
    for mine, other in zip(running.maps(), whole, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("smoothness", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("radius", [1, 5])
def test_aggregate_adds_up_windows_inside_one_another(
    radius: int, smoothness: float
) -> None:
    rng = np.random.default_rng(0)
    halo = aggregate_halo(radius)
    score = rng.gamma(2, size=(2 * halo + 6, 2 * halo + 9))
    side = 2 * radius + 1
    halo = aggregate_halo(radius, smoothness)
    inner = (slice(halo, -halo), slice(halo, -halo))
    own, wide, widest = (
        ndimage.uniform_filter(score, side * times)[inner] for times in (1, 3, 9)
    )
    expected = side**2 * (own + SURROUNDINGS_WEIGHT * wide + smoothness * widest)
    found = aggregate(torch.from_numpy(score.astype(np.float32)), radius, smoothness)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_aggregate_gives_the_same_bits_wherever_a_tile_begins() -> None:
    halo = aggregate_halo(5)
    rng = np.random.default_rng(0)
    score = torch.from_numpy(rng.gamma(2, size=(2 * halo + 30, 2 * halo + 31)))
    score = score.float()
    whole = aggregate(score, 5, 1.0)
    for y, x, h, w in ((0, 0, 9, 9), (3, 5, 8, 1), (11, 2, 19, 29)):
        window = score[y : y + h + 2 * halo, x : x + w + 2 * halo]
        assert torch.equal(aggregate(window, 5, 1.0), whole[y : y + h, x : x + w])


def maps_of(index: np.ndarray, confidence: np.ndarray | float) -> Maps:
    confidence = np.broadcast_to(confidence, index.shape).astype(np.float32)
    return Maps(index.astype(np.uint16), confidence, index.astype(np.float32) + 0.25)


def test_verification_removes_islands_and_keeps_what_is_large() -> None:
    index = np.full((80, 90), 3)
    index[20:25, 30:36] = 7  # 30 pixels
    index[50:56, 50:56] = 5  # 36 pixels
    verified = verify(maps_of(index, 0.9))
    assert (verified.labels[15:30, 25:40] == 3).all()
    assert (verified.labels[50:56, 50:56] == 5).all()
    np.testing.assert_allclose(verified.depth[20:25, 30:36], 3.25, rtol=1e-6)
    assert (verified.depth[50:56, 50:56] == 5.25).all()


def test_low_confidence_pixels_take_the_label_of_confident_neighbours() -> None:
    rng = np.random.default_rng(0)
    index = np.where(np.arange(80)[None] < 40, 2, 6) * np.ones((70, 1), int)
    confidence = np.full(index.shape, 0.8)
    confidence[20:40, 10:30] = 0.05
    index[20:40, 10:30] = rng.integers(0, 9, (20, 20))
    verified = verify(maps_of(index, confidence))
    assert (verified.labels[:, :40] == 2).all()
    assert (verified.labels[:, 40:] == 6).all()


def test_where_no_neighbour_is_confident_pixels_stay_as_they_are() -> None:
    index = np.ones((70, 70), int)
    index[:35] = 4
    maps = maps_of(index, 0.0)
    verified = verify(maps)
    np.testing.assert_array_equal(verified.labels, maps.labels)
    np.testing.assert_array_equal(verified.depth, maps.depth)


def test_verification_of_a_confident_map_changes_nothing() -> None:
    index = np.arange(60)[:, None] // 20 * np.ones((1, 50), int)
    maps = maps_of(index, 0.9)
    assert verify(maps) is maps


def rough_maps(seed: int = 0, shape: tuple[int, int] = (180, 190)) -> Maps:
    """Maps with islands of all sizes and patches of low confidence."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    index = np.digitize(field / field.std(), [-1, -0.3, 0.3, 1])
    rare = rng.random(shape) < 0.02
    index[rare] = rng.integers(0, 5, rare.sum())
    doubt = ndimage.gaussian_filter(rng.normal(size=shape), 6)
    confidence = np.clip(0.3 + 0.4 * doubt / doubt.std(), 0, 1)
    return maps_of(index, confidence)


def test_verification_depends_on_its_halo_only() -> None:
    maps = rough_maps()
    whole = verify(maps)
    y, x = slice(80, 110), slice(77, 113)
    window = (
        slice(y.start - VERIFY_HALO, y.stop + VERIFY_HALO),
        slice(x.start - VERIFY_HALO, x.stop + VERIFY_HALO),
    )
    cropped = verify(Maps(*(np.ascontiguousarray(a[window]) for a in maps)))
    inner = (slice(VERIFY_HALO, -VERIFY_HALO),) * 2
    assert (whole.labels[y, x] != maps.labels[y, x]).any()
    for mine, other in zip(cropped, whole, strict=True):
        np.testing.assert_array_equal(mine[inner], other[y, x])


def test_a_long_thin_region_just_large_enough_needs_the_whole_halo() -> None:
    """A line that leaves the window must not be taken for an island there."""
    side = 2 * VERIFY_HALO + 1
    index = np.zeros((side, side + 60), int)
    row = VERIFY_HALO
    # The line begins VOTE_RADIUS away from the middle and leads away from it.
    start = VERIFY_HALO + VOTE_RADIUS
    index[row, start : start + SMALLEST_REGION] = 1
    confidence = np.zeros(index.shape)
    confidence[row, start:] = 0.5
    maps = maps_of(index, confidence)
    whole = verify(maps)
    cropped = verify(Maps(*(np.ascontiguousarray(a[:, :side]) for a in maps)))
    middle = (VERIFY_HALO, VERIFY_HALO)
    assert cropped.labels[middle] == whole.labels[middle] == 1
    assert cropped.depth[middle] == whole.depth[middle]


@given(st.permutations(range(5)))
@settings(max_examples=15)
def test_verification_does_not_depend_on_the_order_of_slices(order: list) -> None:
    maps = rough_maps(1, (60, 70))
    numbers = np.asarray(order)
    renamed = maps._replace(labels=numbers[maps.labels].astype(np.uint16))
    verified, other = verify(maps), verify(renamed)
    np.testing.assert_array_equal(other.labels, numbers[verified.labels])
    np.testing.assert_array_equal(other.depth, verified.depth)


def test_specks_take_the_label_and_depth_of_those_around() -> None:
    index = np.zeros((40, 40), np.uint16)
    index[:, 20:] = 3
    index[10:12, 5:8] = 2  # six pixels, among those of slice 0
    index[30, 19:21] = 1  # on the edge, with more of slice 0 around one of them
    index[20:24, 30:33] = 2  # twelve pixels stay
    maps = maps_of(index, 0.9)
    maps = maps._replace(depth=index + np.float32(0.25))
    found = without_specks(maps)
    expected = index.copy()
    expected[10:12, 5:8] = 0
    expected[30, 19:21] = 0, 3
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_allclose(found.depth, expected + 0.25, rtol=1e-6)
    assert index[10, 5] == 2  # what was given stays as it was
    window = (slice(5, 18), slice(0, 14))
    part = without_specks(Maps(*(np.ascontiguousarray(a[window]) for a in maps)))
    np.testing.assert_array_equal(part.labels, found.labels[window])
    assert without_specks(found) is found
