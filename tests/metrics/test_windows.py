"""Windows slid over a plane, checked against scipy's; threads of PyTorch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from napari_focus_fusion.metrics import phase_features
from napari_focus_fusion.metrics.images import thread_map
from napari_focus_fusion.metrics.windows import gaussian, smooth_same, smooth_valid


@pytest.mark.parametrize("shape", [(11, 11), (26, 52), (27, 70), (64, 11), (103, 97)])
@pytest.mark.parametrize("size", [3, 7, 11])
def test_windows_are_those_of_scipy(shape, size):
    plane = np.random.default_rng(0).uniform(0, 255, shape)
    weights = gaussian(size, 1.5)
    weights[0] *= 3  # not symmetric: nothing is flipped
    rows = correlate1d(plane, weights, axis=0, mode="constant")
    expected = correlate1d(rows, weights, axis=1, mode="constant")
    np.testing.assert_allclose(smooth_same(plane, weights), expected, rtol=1e-13)
    edge = size // 2
    inside = expected[edge:-edge, edge:-edge]
    np.testing.assert_allclose(smooth_valid(plane, weights), inside, rtol=1e-13)
    transposed = np.asfortranarray(plane)  # strides do not matter
    np.testing.assert_array_equal(
        smooth_same(transposed, weights), smooth_same(plane, weights)
    )


def test_threads_of_pytorch_are_as_before():
    """One each while the measures have a thread a core, and nothing changed after."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        plane = np.random.default_rng(0).integers(0, 255, (40, 44)).astype(float)
        features = phase_features(plane)
        assert list(thread_map(lambda _: torch.get_num_threads(), range(4))) == [1] * 4
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        again = phase_features(plane)
        for one, other in zip(features.maps, again.maps, strict=True):
            np.testing.assert_array_equal(one, other)
    finally:
        torch.set_num_threads(before)
