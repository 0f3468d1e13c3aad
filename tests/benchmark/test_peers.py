"""The programs of others, where they are installed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_focus_fusion.benchmark.peers import PEERS
from napari_focus_fusion.errors import FocusFusionError


def stack(shape, convert):
    """Three slices, each sharp in one band of a textured image, and the image."""
    rng = np.random.default_rng(3)
    colour = (0,) * (len(shape) - 2)
    truth = gaussian_filter(rng.random(shape), (0.7, 0.7, *colour))
    truth = (truth - truth.min()) / np.ptp(truth)
    soft = gaussian_filter(truth, (3, 3, *colour))
    band = np.arange(shape[0]) * 3 // shape[0]
    slices = [soft.copy() for _ in range(3)]
    for z in range(3):
        slices[z][band == z] = truth[band == z]
    return [convert(image) for image in slices], convert(truth)


def error(image, truth):
    return np.sqrt(np.mean((image.astype(float) - truth.astype(float)) ** 2))


KINDS = {
    "rgb8": ((96, 128, 3), lambda image: np.rint(255 * image).astype(np.uint8)),
    "grey8": ((96, 128), lambda image: np.rint(255 * image).astype(np.uint8)),
    "grey12": ((97, 129), lambda image: np.rint(900 * image + 100).astype(np.uint16)),
    "rgb16": ((96, 130, 3), lambda image: np.rint(65535 * image).astype(np.uint16)),
    "float": ((96, 128), lambda image: (image * 3 - 2).astype(np.float32)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PEERS)
def test_installed_programs_find_the_sharp_bands(name, kind):
    peer = PEERS[name]
    if peer.version() is None:
        pytest.skip(f"not installed: {peer.install}")
    slices, truth = stack(*KINDS[kind])
    fused = peer.fuse(slices)
    assert (fused.shape, fused.dtype) == (truth.shape, truth.dtype)
    # a third of the worst slice's pixels is right; the sharp ones must be found
    assert error(fused, truth) < 0.5 * min(error(image, truth) for image in slices)


@pytest.mark.parametrize("name", ["opencv-pyramid", "enfuse"])
def test_identical_slices_come_back(name):
    peer = PEERS[name]
    if peer.version() is None:
        pytest.skip(f"not installed: {peer.install}")
    (image, *_), _ = stack(*KINDS["grey12"])
    assert np.abs(peer.fuse([image] * 3).astype(int) - image).max() <= 1
    flat = np.full_like(image, 7)
    np.testing.assert_array_equal(peer.fuse([flat, flat]), flat)


def test_a_program_that_is_not_there_is_said_to_be_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    slices, _ = stack(*KINDS["grey8"])
    for name in ("enfuse", "focus-stack"):
        assert PEERS[name].state() == "not installed"
        with pytest.raises(FocusFusionError, match=f"{name}.*is not installed: "):
            PEERS[name].fuse(slices)


def test_slices_must_match():
    grey = np.zeros((20, 20), np.uint8)
    peer = PEERS["opencv-pyramid"]
    for slices in ([grey], [], [grey, grey[1:]], [grey, grey.astype(float)]):
        with pytest.raises(FocusFusionError, match="one size and type"):
            peer.fuse(slices)
    with pytest.raises(FocusFusionError, match=r"grey \(Y, X\) or RGB"):
        peer.fuse([np.zeros((3, 20, 20), np.uint8)] * 2)
