"""The plain focus measure, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_focus_fusion.models.sml import SumModifiedLaplacian


def score_of(planes: np.ndarray) -> np.ndarray:
    slices = torch.from_numpy(np.asarray(planes, np.float32))[:, None]
    return SumModifiedLaplacian().score(slices).numpy()


def texture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((40, 50))


def test_it_is_nayars_modified_laplacian() -> None:
    """Equation 4, with a step of one pixel, as two filters in double precision."""
    plane = texture()
    kernel = np.array([-1.0, 2, -1])
    expected = sum(np.abs(ndimage.convolve1d(plane, kernel, axis)) for axis in (0, 1))
    inner = (slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(score_of(plane[None])[0][inner], expected[inner], 1e-5)


def test_opposite_curvatures_do_not_cancel() -> None:
    """On a saddle the Laplacian is zero."""
    y, x = np.mgrid[-5:6, -5:6]
    found = score_of((x * x - y * y)[None] / 4.0)[0]
    np.testing.assert_allclose(found[1:-1, 1:-1], 1.0, rtol=1e-5)


@given(st.floats(0.01, 100), st.floats(-10, 10))
@settings(max_examples=20)
def test_an_offset_does_not_matter_and_a_gain_scales(
    gain: float, offset: float
) -> None:
    first, second = score_of(np.stack([texture(), gain * texture() + offset]))
    np.testing.assert_allclose(second, gain * first, atol=3e-6 * (gain + abs(offset)))


def test_it_falls_with_every_bit_of_blur() -> None:
    blurred = [ndimage.gaussian_filter(texture(), s) for s in (0, 0.4, 0.8, 1.5, 3)]
    means = score_of(np.stack(blurred)).mean((1, 2))
    assert (np.diff(means) < 0).all()


@pytest.mark.parametrize("shape", [(40, 50), (1, 1), (2, 9), (1, 30)])
def test_slices_do_not_influence_each_other_and_may_be_tiny(
    shape: tuple[int, int],
) -> None:
    planes = np.stack([texture(seed)[: shape[0], : shape[1]] for seed in range(3)])
    together = score_of(planes)
    assert together.shape == planes.shape
    for plane, score in zip(planes, together, strict=True):
        np.testing.assert_array_equal(score_of(plane[None])[0], score)


def test_its_halo_is_one_pixel() -> None:
    plane = texture()
    other = plane.copy()
    other[20, 30] += 1
    rows, columns = np.nonzero(score_of(plane[None])[0] != score_of(other[None])[0])
    assert (rows.min(), rows.max()) == (19, 21)
    assert (columns.min(), columns.max()) == (29, 31)
