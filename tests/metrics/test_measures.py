"""What the measures promise beyond the figures of single images."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import correlate
from skimage.metrics import normalized_mutual_information, structural_similarity

from napari_focus_fusion.metrics import (
    SIX,
    WITHOUT_TRUTH,
    evaluate,
    phase_features,
    q_mi,
    q_ncie,
    q_s,
    q_y,
)

COMPARISONS = tuple(name for name in WITHOUT_TRUTH if name != "sharpness")
BEST = {
    "Q_MI": 2,
    "Q_NCIE": 1,
    "Q_G": 0.98666,
    "Q_P": 1,
    "Q_S": 1,
    "Q_Y": 1,
    "Q_CB": 1,
    "VIFF": math.inf,
    "Q_AB/F": 0.9748,
}
SMALL_IMAGES = hnp.arrays(
    np.uint8,
    (3, 12, 13),
    elements=st.sampled_from([0, 1, 100, 101, 254, 255]),
    fill=st.just(100),
)


@pytest.fixture
def slices(make_scene):
    return np.stack(make_scene("s64").slices)


@pytest.fixture
def fused(make_scene):
    return make_scene("s64").fused["mean"]


# How slices are counted


def test_slices_counted_twice_change_nothing(slices, fused):
    names = [name for name in COMPARISONS if name != "Q_NCIE"]
    once = evaluate(fused, slices, measures=names)
    twice = evaluate(fused, [*slices, *slices], measures=names)
    assert twice == pytest.approx(once, abs=1e-6)


def test_order_of_slices_does_not_matter(make_scene):
    scenes = [make_scene("s64"), make_scene("flat64")]
    planes = [image for scene in scenes for image in scene.slices]
    forward, backward, rolled = (
        evaluate(scenes[0].truth, order)
        for order in (planes, planes[::-1], planes[1:] + planes[:1])
    )
    # Where VIFF's gains are equal, the last slice counts, as in its public code.
    for name, value in forward.items():
        tolerance = 1e-3 if name == "VIFF" else 1e-5
        assert backward[name] == pytest.approx(value, abs=tolerance), name
        assert rolled[name] == pytest.approx(value, abs=tolerance), name


def test_more_slices_widen_the_correlation_matrix(make_scene):
    """Q_NCIE of three slices, from scikit-image's mutual information."""
    scene = make_scene("s64")
    planes = [*scene.slices, scene.fused["lap"], scene.truth]

    def entropy(image):
        share = np.bincount(image.ravel()) / image.size
        return -(share[share > 0] * np.log2(share[share > 0])).sum()

    matrix = np.eye(4)
    for i, j in itertools.permutations(range(4), 2):
        # (H(X) + H(Y)) / H(X, Y)
        ratio = normalized_mutual_information(planes[i], planes[j], bins=256)
        matrix[i, j] = (entropy(planes[i]) + entropy(planes[j])) * (1 - 1 / ratio) / 8
    shares = np.linalg.eigvalsh(matrix) / 4
    expected = 1 + (shares * np.log(shares) / np.log(256)).sum()
    assert q_ncie(planes[3], planes[:3]) == pytest.approx(expected, abs=1e-12)


def test_mutual_information_is_that_of_scikit_image(slices, fused):
    ratios = [normalized_mutual_information(s, fused, bins=256) for s in slices]
    expected = 4 - sum(2 / ratio for ratio in ratios)
    assert q_mi(fused, slices) == pytest.approx(expected, abs=1e-12)


# Windows


def test_similarity_to_one_slice_is_that_of_scikit_image(slices, fused):
    expected = structural_similarity(
        slices[0],
        fused,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert q_s(fused, [slices[0], slices[0]]) == pytest.approx(expected, abs=1e-12)


def slow_q_y(fused, slices):
    """Q_Y from the definition: window by window, moments about the local mean."""
    offsets = np.arange(7) - 3
    weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    small = 2e-16

    def moments(x, y):
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        return mean_x, mean_y, (weights * (x - mean_x) * (y - mean_y)).sum()

    def ssim(x, y):
        mean_x, mean_y, covariance = moments(x, y)
        variances = moments(x, x)[2] + moments(y, y)[2]
        luminance = (2 * mean_x * mean_y + small) / (mean_x**2 + mean_y**2 + small)
        return luminance * (2 * covariance + small) / (variances + small)

    a, b = slices
    scores = []
    for y, x in np.ndindex(a.shape[0] - 6, a.shape[1] - 6):
        wa, wb, wf = (i[y : y + 7, x : x + 7].astype(float) for i in (a, b, fused))
        of_a, of_b = ssim(wa, wf), ssim(wb, wf)
        variance_a, variance_b = moments(wa, wa)[2], moments(wb, wb)[2]
        flat = variance_a + variance_b < 1e-20
        share = 0.5 if flat else variance_a / (variance_a + variance_b)
        alike = ssim(wa, wb) >= 0.75
        scores.append(share * of_a + (1 - share) * of_b if alike else max(of_a, of_b))
    return np.mean(scores)


def test_windows_without_variance_are_no_rounding_noise():
    """Flat, all but flat and saturated windows against the slow definition."""
    slices = np.full((2, 40, 40), 255, np.uint8)
    slices[:, 20:, :20] = 128
    slices[0, 25, 5] = 129
    slices[1, 30:, 25:] = 254
    slices[1, 5, 5] = 0
    fused = slices[0].copy()
    fused[20:, 20:] = 100
    expected = slow_q_y(fused, slices)
    assert q_y(fused, slices) == pytest.approx(expected, abs=1e-9)
    assert -1 <= q_s(fused, slices) <= 1


def test_flat_slices_count_alike():
    """Where no slice has contrast, the mean of the similarities to them counts."""
    rng = np.random.default_rng(1)
    fused = rng.integers(90, 110, (30, 30), dtype=np.uint8)
    dark, bright = np.full_like(fused, 50), np.full_like(fused, 200)
    both = q_s(fused, [dark, bright])
    alone = [q_s(fused, [level, level]) for level in (dark, bright)]
    assert both == pytest.approx(np.mean(alone), abs=1e-12)


# Defined everywhere


def test_constant_images_have_the_stated_values():
    flat = np.full((48, 48), 7, np.uint8)
    values = evaluate(flat, [flat, flat])
    assert values == pytest.approx(
        {
            "Q_MI": 2,
            "Q_NCIE": 1 - math.log(3, 256),
            "Q_G": (1 + math.exp(-5)) ** -2,
            "Q_P": 1,
            "Q_S": 1,
            "Q_Y": 1,
            "Q_CB": 1,
            "VIFF": 1,
            "Q_AB/F": 0.9748,
            "sharpness": 0,
        },
        abs=1e-4,
    )


def test_a_constant_result_has_kept_nothing(slices):
    values = evaluate(np.full((64, 64), 7, np.uint8), slices)
    assert values["Q_MI"] == values["Q_P"] == values["sharpness"] == 0
    assert values["Q_G"] < 0.1 > values["Q_AB/F"]
    assert values["Q_S"] < 0.1 > values["Q_Y"]
    assert values["Q_CB"] < 0.01 > values["VIFF"]


def test_a_result_out_of_constant_slices_is_defined(fused):
    slices = np.full((2, 64, 64), (7,), np.uint8)
    values = evaluate(fused, slices)
    assert all(math.isfinite(value) for value in values.values())
    assert values["Q_MI"] == values["Q_P"] == 0
    assert values["VIFF"] == 1


def test_phase_features_of_a_constant_plane_are_zero():
    features = phase_features(np.full((32, 33), 200.0))
    assert not any(plane.any() for plane in features.maps)


@settings(max_examples=25, deadline=None)
@given(SMALL_IMAGES)
def test_every_measure_of_any_image_is_finite_and_in_range(images):
    names = [name for name in WITHOUT_TRUTH if name != "VIFF"]
    values = evaluate(images[0], images[1:], measures=names)
    assert all(math.isfinite(value) for value in values.values())
    for name in COMPARISONS:
        if name != "VIFF":
            assert -1 - 1e-9 <= values[name] <= BEST[name] + 1e-9, name


@settings(max_examples=25, deadline=None)
@given(SMALL_IMAGES)
def test_no_result_is_better_than_identical_images(images):
    same = evaluate(images[1], [images[1]] * 2, measures=("Q_G", "Q_S", "Q_Y"))
    other = evaluate(images[0], [images[1]] * 2, measures=("Q_G", "Q_S", "Q_Y"))
    assert same["Q_G"] == pytest.approx((1 + math.exp(-5)) ** -2, abs=1e-9)
    assert same["Q_S"] == pytest.approx(1, abs=1e-9)
    assert same["Q_Y"] == pytest.approx(1, abs=1e-9)
    assert all(other[name] <= same[name] + 1e-9 for name in same)


# What they see


def test_blur_lowers_what_looks_at_detail(make_scene):
    scene = make_scene("s128x96")
    blurred = correlate(scene.truth.astype(float), np.full((5, 5), 1 / 25))
    sharp = evaluate(scene.truth, scene.slices)
    soft = evaluate(np.rint(blurred).astype(np.uint8), scene.slices)
    for name in (*SIX, "VIFF", "Q_CB", "Q_AB/F", "sharpness"):
        assert soft[name] < sharp[name], name


def test_phase_is_blind_to_brightness_and_nearly_to_contrast(fused):
    plane = fused.astype(float)
    features, shifted, faint = map(phase_features, (plane, plane + 9, plane / 4))
    np.testing.assert_allclose(shifted.congruency, features.congruency, atol=1e-9)
    np.testing.assert_allclose(faint.congruency, features.congruency, atol=1e-3)
