from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft

from napari_focus_fusion.simulation.optics import (
    Layer,
    Optics,
    Piece,
    blur_halo,
    composite_layers,
    disk_transfer,
    expose,
    gaussian_transfer,
    render_layers,
    render_slices,
    split_depth,
    strongest_depth,
)

CANVAS = (48, 60)


def make_optics(**changes) -> Optics:
    options = {
        "canvas": CANVAS,
        "slices": 5,
        "psf": "disk",
        "blur_per_slice": 1.2,
        "focus_blur": 0.0,
        "max_blur": 6.0,
    }
    return Optics(**{**options, **changes})


def noise_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((1, *CANVAS), dtype=np.float32)


def even(value: float) -> np.ndarray:
    return np.full(CANVAS, value, np.float32)


def spread(transfer: np.ndarray) -> float:
    """Variance of a kernel along one axis, in square pixels."""
    kernel = fft.fftshift(fft.irfft2(transfer, s=CANVAS))
    y = np.arange(CANVAS[0]) - CANVAS[0] // 2
    return float((kernel.sum(axis=1) * y**2).sum())


@pytest.mark.parametrize("make", [disk_transfer, gaussian_transfer])
def test_no_blur_is_the_identity(make):
    np.testing.assert_allclose(make(CANVAS, 0.0), 1, atol=1e-6)


@pytest.mark.parametrize("make", [disk_transfer, gaussian_transfer])
@pytest.mark.parametrize("blur", [0.3, 1.0, 4.2])
def test_a_blur_keeps_the_light_and_is_nowhere_negative(make, blur):
    transfer = make(CANVAS, blur)
    assert transfer[0, 0] == pytest.approx(1, abs=1e-5)
    assert fft.irfft2(transfer, s=CANVAS).min() > -1e-6


def test_the_spread_of_the_kernels_is_that_of_the_model():
    assert spread(gaussian_transfer(CANVAS, 2.0)) == pytest.approx(4 + 1 / 12, rel=0.01)
    assert spread(disk_transfer(CANVAS, 6.0)) == pytest.approx(6**2 / 4, rel=0.02)


def test_blur_grows_with_defocus_up_to_its_bound():
    optics = make_optics(psf="gaussian", focus_blur=0.5, max_blur=3.0)
    per_slice = optics.levels_per_slice
    spreads = [spread(optics.transfer(n * per_slice)[:, ::2]) for n in range(6)]
    expected = [min(1.2 * n + 0.5, 3.0) ** 2 + 1 / 12 for n in range(6)]
    np.testing.assert_allclose(spreads, expected, rtol=0.03)
    np.testing.assert_array_equal(
        optics.transfer(2 * per_slice), optics.transfer(-2 * per_slice)
    )


@given(
    depth=st.lists(st.floats(-3, 40, width=32), min_size=1, max_size=30),
    per_slice=st.sampled_from([2, 3, 4]),
)
def test_levels_share_out_each_depth(depth, per_slice):
    depth = np.array([depth], np.float32)
    levels = split_depth(depth, per_slice)
    weights = np.stack([weight for _, weight in levels])
    mean = sum(level * weight for level, weight in levels) / per_slice
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(mean, depth, atol=1e-4)


def test_matter_is_itself_in_its_slice_and_keeps_its_light_in_all():
    optics, image = make_optics(), noise_image()
    rendered = render_slices([(2 * optics.levels_per_slice, image)], optics)
    np.testing.assert_allclose(rendered[2], image, atol=1e-5)
    np.testing.assert_allclose(rendered[-1], image, atol=1e-5)
    np.testing.assert_allclose(rendered.sum(axis=(1, 2, 3)), image.sum(), rtol=1e-5)
    contrast = rendered.std(axis=(1, 2, 3))
    assert contrast[2] > contrast[1] > contrast[0]
    np.testing.assert_allclose(rendered[1], rendered[3], atol=1e-6)


def test_pieces_add_up_in_any_order():
    rng = np.random.default_rng(3)
    optics = make_optics()
    pieces = [
        Piece(
            int(rng.integers(2)),
            (slice(y, y + 8), slice(x, x + 9)),
            rng.random((8, 9), dtype=np.float32),
            rng.uniform(-0.5, 4.5, (8, 9)).astype(np.float32),
        )
        for y, x in rng.integers(0, 40, (12, 2))
    ]
    rendered = render_slices(composite_layers(pieces, 2, optics), optics)
    turned = render_slices(composite_layers(pieces[::-1], 2, optics), optics)
    np.testing.assert_allclose(rendered, turned, atol=1e-5)
    total = [sum(p.amount.sum() for p in pieces if p.component == c) for c in (0, 1)]
    for image in rendered:
        np.testing.assert_allclose(image.sum(axis=(1, 2)), total, rtol=1e-4)


def test_a_piece_between_two_levels_is_shared_out_to_both():
    optics = make_optics()
    amount = np.random.default_rng(0).random((6, 7), dtype=np.float32)
    depth = np.linspace(0, 4, 42, dtype=np.float32).reshape(6, 7)
    piece = Piece(0, (slice(3, 9), slice(5, 12)), amount, depth)
    planes = list(composite_layers([piece], 1, optics))
    total = sum(plane for _, plane in planes)[0]
    moment = sum(level * plane for level, plane in planes)[0]
    np.testing.assert_allclose(total[3:9, 5:12], amount, rtol=1e-5)
    mean = moment[3:9, 5:12] / amount / optics.levels_per_slice
    np.testing.assert_allclose(mean, depth, atol=1e-4)
    assert total.sum() == pytest.approx(amount.sum(), rel=1e-5)


def test_the_truth_has_the_blur_of_focus():
    optics, image = make_optics(focus_blur=1.5), noise_image()
    rendered = render_slices([(2 * optics.levels_per_slice, image)], optics)
    np.testing.assert_allclose(rendered[-1], rendered[2], atol=1e-5)
    assert rendered[-1].std() < 0.6 * image.std()


def test_the_strongest_piece_gives_the_depth_and_the_nearest_where_there_is_none():
    box = (slice(0, 10), slice(0, 10))
    weak, strong = np.full((10, 10), 0.2), np.full((10, 10), 0.7)
    pieces = [
        Piece(0, box, strong, np.full((10, 10), 3.0)),
        Piece(1, (slice(0, 10), slice(5, 15)), weak, np.full((10, 10), 1.0)),
        Piece(-1, box, 9 * strong, np.full((10, 10), 4.0)),
    ]
    depth, matter = strongest_depth(pieces, CANVAS)
    assert (depth[:10, :10] == 3).all()
    assert (depth[:10, 10:15] == 1).all()
    assert depth[5, 40] == 1
    assert matter.sum() == 150


def test_phase_is_invisible_in_focus_and_turns_over_across_it():
    optics = make_optics()
    bump = np.zeros((1, *CANVAS), np.float32)
    bump[0, 20:28, 20:30] = 1
    rendered = render_slices([(2 * optics.levels_per_slice, bump)], optics, phase=True)
    np.testing.assert_allclose(rendered[[2, 5]], 0, atol=1e-6)
    np.testing.assert_allclose(rendered[1], -rendered[3], atol=1e-5)
    assert rendered[3].max() > 0.1 and rendered[3].min() < -0.1


def test_no_plane_is_an_error():
    with pytest.raises(ValueError, match="nothing to see"):
        render_slices([], make_optics())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), psf=st.sampled_from(["disk", "gaussian"]))
def test_a_surface_of_one_colour_has_no_seams_in_any_slice(seed, psf):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0, 4, CANVAS).astype(np.float32)
    layer = Layer(np.full((1, *CANVAS), 0.6, np.float32), None, depth)
    image, seen_depth = render_layers([layer], make_optics(psf=psf))
    np.testing.assert_allclose(image, 0.6, atol=1e-4)
    np.testing.assert_array_equal(seen_depth, depth)


def test_a_layer_hides_what_lies_behind_it_and_its_blurred_edge_does_not():
    optics = make_optics()
    square = even(0)
    square[10:38, 10:50] = 1
    back = Layer(noise_image(), None, even(0))
    front = Layer(np.full((1, *CANVAS), 0.9, np.float32), square, even(4))
    image, depth = render_layers([back, front], optics)
    truth = np.where(square, np.float32(0.9), back.colour)
    np.testing.assert_allclose(image[-1], truth, atol=1e-5)
    np.testing.assert_array_equal(depth, np.where(square, 4, 0))
    # Front in focus: exactly there inside, the background blurred outside.
    np.testing.assert_allclose(image[4, 0, 10:38, 10:50], 0.9, atol=1e-5)
    assert image[4, 0, :8].std() < 0.4 * back.colour[0, :8].std()
    # Back in focus: sharp beyond the radius of the front's blur (4.8 px), hidden well
    # inside, and half of each on the outline.
    np.testing.assert_allclose(image[0, 0, :4], back.colour[0, :4], atol=1e-5)
    np.testing.assert_allclose(image[0, 0, 16:32, 16:44], 0.9, atol=1e-5)
    middle = image[0, 0, 9:11, 20:40].mean()
    assert middle == pytest.approx(
        (0.9 + back.colour[0, 9:11, 20:40].mean()) / 2, abs=0.03
    )


def test_layers_are_rendered_in_their_order():
    optics = make_optics()
    dark, light = (
        Layer(np.full((1, *CANVAS), value, np.float32), even(1), even(depth))
        for value, depth in ((0.1, 1), (0.9, 3))
    )
    back = Layer(noise_image(), None, even(0))
    for layers, value in (([back, dark, light], 0.9), ([back, light, dark], 0.1)):
        image, depth = render_layers(layers, optics)
        np.testing.assert_allclose(image, value, atol=1e-4)
        np.testing.assert_array_equal(depth, layers[-1].depth)


def test_the_halo_covers_the_largest_blur():
    assert blur_halo(make_optics()) == 7
    assert blur_halo(make_optics(max_blur=100.0)) == 7
    assert blur_halo(make_optics(psf="gaussian", slices=9)) == 13


@pytest.mark.parametrize("electrons", [30.0, 400.0, 20_000.0])
@pytest.mark.parametrize("level", [0.05, 0.8])
def test_noise_is_that_of_counted_electrons(electrons, level):
    image = np.full((300, 300), level, np.float32)
    read = 3.0
    value = expose(
        image,
        np.random.default_rng(1),
        electrons=electrons,
        read_noise=read,
        offset=0.2,
        dtype=np.float32,
    )
    variance = (level * electrons + read**2) / electrons**2
    assert value.mean() == pytest.approx(0.2 + 0.8 * level, abs=5 * variance**0.5 / 300)
    assert value.var() == pytest.approx(0.64 * variance, rel=0.03)


@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 65535)])
def test_a_camera_rounds_and_clips(dtype, white):
    image = np.array([-0.2, 0.0, 0.25, 1.0, 1.7], np.float32)
    rng = np.random.default_rng(0)
    value = expose(image, rng, electrons=None, offset=0.1, dtype=dtype)
    assert value.dtype == dtype
    expected = np.rint(np.array([0, 0.1, 0.325, 1, 1]) * white)
    np.testing.assert_allclose(value.astype(float), expected, atol=1)
    assert value[0] == 0 and value[-1] == white
