from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.simulation.scenes import (
    CONTENTS,
    MODALITIES,
    PSFS,
    SURFACES,
    TRAINING_SEEDS,
    benchmark_scenes,
    depth_edges,
    make_scene,
)

SMALL = {"shape": (64, 80), "slices": 5}
EXACT = {"electrons": None, "dtype": np.float32, "offset": 0.0}


def assert_same_scene(a, b):
    for field in dataclasses.fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right, err_msg=field.name)
        else:
            assert left == right, field.name


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_seed_makes_one_scene_and_leaves_the_random_state_alone(modality):
    before = np.random.get_state()[1].copy()
    scene = make_scene(7, modality=modality, **SMALL)
    assert_same_scene(scene, make_scene(7, modality=modality, **SMALL))
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    other = make_scene(8, modality=modality, **SMALL)
    assert not np.array_equal(scene.depth, other.depth)


def test_another_camera_keeps_the_scene():
    clean = make_scene(11, **SMALL, **EXACT)
    noisy = make_scene(11, electrons=300.0, offset=0.02, dtype="uint8", **SMALL)
    np.testing.assert_array_equal(clean.depth, noisy.depth)
    expected = 255 * (0.02 + 0.98 * clean.truth)
    np.testing.assert_allclose(noisy.truth, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("psf", PSFS)
def test_a_slice_that_is_everywhere_in_focus_is_the_truth(modality, psf):
    scene = make_scene(
        5,
        modality=modality,
        psf=psf,
        surface="flat",
        content="cells",
        span=(3.0, 3.0),
        front="last",
        focus_blur=0.0,
        **SMALL,
        **EXACT,
    )
    assert (scene.depth == 3).all()
    error = np.abs(scene.stack - scene.truth).mean(axis=(1, 2))
    assert error[3] < 1e-6
    assert np.delete(error, 3).min() > 1e-3
    assert not scene.edges.any()


@pytest.mark.parametrize("surface", ["tilt", "relief", "steps"])
@pytest.mark.parametrize("psf", PSFS)
def test_the_depth_is_where_the_stack_comes_nearest_to_the_truth(surface, psf):
    scene = make_scene(
        21,
        shape=(128, 128),
        slices=8,
        surface=surface,
        psf=psf,
        content="leaves",
        blur_per_slice=1.5,
        **EXACT,
    )
    error = ndimage.uniform_filter(np.abs(scene.stack - scene.truth), (0, 5, 5))
    sure = scene.textured & ~scene.edges
    off = np.abs(error.argmin(axis=0) - scene.depth)[sure]
    assert sure.mean() > 0.3
    assert (off <= 0.75).mean() > 0.97


def test_turning_the_viewer_round_turns_the_stack_round():
    first = make_scene(3, surface="layers", front="first", **SMALL, **EXACT)
    last = make_scene(3, surface="layers", front="last", **SMALL, **EXACT)
    np.testing.assert_allclose(first.stack[::-1], last.stack, atol=1e-5)
    np.testing.assert_allclose(first.truth, last.truth, atol=1e-5)
    np.testing.assert_allclose(first.depth, 4 - last.depth, atol=1e-5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_noise_of_a_scene_follows_its_parameters(modality):
    options = {"modality": modality, "exposure": 0.8, "offset": 0.0, **SMALL}
    clean = make_scene(2, **{**options, "electrons": None, "dtype": np.float32})
    noisy = make_scene(2, **options, electrons=500.0, read_noise=4.0, dtype=np.float32)
    noise = noisy.stack - clean.stack
    expected = (500 * clean.stack + 16) / 500**2
    assert abs(noise.mean()) < 5 * np.sqrt(expected.mean() / noise.size)
    normal = noise / np.sqrt(expected)
    assert normal.var() == pytest.approx(1, abs=0.03)
    for low, high in ((0, 50), (50, 100)):
        ends = np.percentile(clean.stack, (low, high))
        unclipped = (clean.stack >= ends[0]) & (clean.stack <= ends[1])
        assert normal[unclipped].var() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("dtype", "white"), [("uint8", 255), ("uint16", 65535), ("float32", 1)]
)
def test_truth_is_on_the_scale_of_the_stack(dtype, white):
    scene = make_scene(4, dtype=dtype, electrons=None, **SMALL)
    assert scene.stack.dtype == dtype
    assert scene.truth.dtype == np.float32
    assert 0 <= scene.truth.min() and scene.truth.max() <= white
    # Blur spreads light and loses none: slices are as bright as the truth on average.
    assert scene.stack.mean() == pytest.approx(scene.truth.mean(), rel=0.03)


@pytest.mark.parametrize(
    ("modality", "options", "axes", "stack", "truth"),
    [
        ("grey", {}, "ZYX", (5, 64, 80), (64, 80)),
        ("grey", {"rgb": True}, "ZYXS", (5, 64, 80, 3), (64, 80, 3)),
        ("brightfield", {"rgb": True}, "ZYXS", (5, 64, 80, 3), (64, 80, 3)),
        ("fluorescence", {"channels": 2}, "CZYX", (2, 5, 64, 80), (2, 64, 80)),
        ("brightfield", {"channels": 2}, "CZYX", (2, 5, 64, 80), (2, 64, 80)),
    ],
)
def test_axes(modality, options, axes, stack, truth):
    scene = make_scene(9, modality=modality, **options, **SMALL, **EXACT)
    assert (scene.axes, scene.stack.shape, scene.truth.shape) == (axes, stack, truth)
    assert len(scene.channel_names) == options.get("channels", 0)
    # The truth has the components where the stack has them.
    z = axes.index("Z")
    np.testing.assert_allclose(
        scene.stack.mean(axis=(z, axes.index("Y"), axes.index("X"))),
        scene.truth.mean(axis=(z, z + 1)),
        rtol=0.1,
    )
    assert set(scene.scale) == set(scene.units) == set("ZYX")


@pytest.mark.parametrize(
    ("content", "surface"),
    [
        *itertools.product(("leaves", "texture"), SURFACES),
        *((c, "layers") for c in CONTENTS),
    ],
)
@pytest.mark.parametrize("modality", MODALITIES)
def test_every_kind_of_scene_has_texture_to_focus_on(content, surface, modality):
    scene = make_scene(
        1, content=content, surface=surface, modality=modality, **SMALL, **EXACT
    )
    assert np.isfinite(scene.stack).all()
    assert -1.5 <= scene.depth.min() and scene.depth.max() <= 5.5
    contrast = scene.truth.std()
    assert contrast > 0.01
    assert scene.textured.any()
    assert (scene.stack.std(axis=(1, 2)) < contrast * 1.2).all()


@pytest.mark.parametrize("slices", [1, 2, 3, 32])
def test_any_number_of_slices(slices):
    for modality in MODALITIES:
        scene = make_scene(6, slices=slices, shape=(32, 40), modality=modality)
        assert scene.stack.shape == (slices, 32, 40)
        inside = (scene.depth > -1) & (scene.depth < slices)
        assert inside.mean() > 0.9


def test_textures_come_from_pictures_which_stay_unchanged():
    image = np.random.default_rng(0).random((50, 200))
    image.setflags(write=False)
    options = {"content": "texture", "surface": "tilt", **SMALL, **EXACT}
    scene = make_scene(13, pictures=[image], **options)
    assert not np.allclose(scene.truth, make_scene(13, **options).truth)
    with pytest.raises(FocusFusionError, match="grey"):
        make_scene(13, pictures=[np.zeros((9, 9, 3))], **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"content": "cheese"}, "leaves, cells, fibres, beads, texture or mixed"),
        ({"surface": "moebius"}, "surface"),
        ({"psf": "airy"}, "psf"),
        ({"modality": "x-ray"}, "modality"),
        ({"slices": 0}, "one slice"),
        ({"shape": (4, 100)}, "16 x 16"),
        ({"dtype": "int32"}, "int32"),
        ({"rgb": True, "channels": 2}, "not both"),
        ({"electrons": "many"}, "electrons"),
        ({"electrons": -5.0}, "electrons"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(FocusFusionError, match=text):
        make_scene(0, **options)


def test_edges_lie_along_jumps_alone():
    depth = np.zeros((30, 30), np.float32)
    depth[:, 15:] = 3
    columns = np.flatnonzero(depth_edges(depth, band=4).any(axis=0))
    assert columns.min() >= 10 and columns.max() <= 20 and len(columns) >= 8
    assert not depth_edges(np.linspace(0, 3, 30)[None].repeat(30, 0)).any()
    matter = np.ones((30, 30), bool)
    matter[:, 13:17] = False
    assert not depth_edges(depth, matter).any()


def test_benchmark_scenes_are_never_trained_on_and_cover_what_users_bring():
    specs = benchmark_scenes()
    options = [dict(spec.options) for spec in specs]
    assert not any(spec.seed in TRAINING_SEEDS for spec in specs)
    assert (
        len({spec.name for spec in specs}) == len({s.seed for s in specs}) == len(specs)
    )
    assert {o.get("slices", 8) for o in options} == {2, 8, 32}
    assert {o.get("modality", "grey") for o in options} == set(MODALITIES)
    electrons = {o["electrons"] for o in options}
    assert None in electrons and min(e for e in electrons if e) == 250
    assert any(o.get("rgb") for o in options)
    assert specs == benchmark_scenes()


def test_a_benchmark_scene_is_made_by_its_name():
    spec = {spec.name: spec for spec in benchmark_scenes()}["fluorescence-channels"]
    scene = spec.make()
    assert scene.axes == "CZYX" and scene.seed == spec.seed
    assert scene.parameters["electrons"] == 1000


THICK = {"modality": "brightfield", "content": "cells", "thick": True}


def test_thick_cells_look_sharpest_where_they_are_out_of_focus():
    sampling = {"surface": "flat", "span": (4.0, 4.0), "slices": 9, "shape": (96, 96)}
    blur = {"blur_per_slice": 0.4, "focus_blur": 0.0}
    dull, scene = (
        make_scene(5, **THICK, **sampling, **blur, **EXACT, refraction=k)
        for k in (0, 0.5)
    )
    np.testing.assert_array_equal(scene.truth, dull.truth)
    np.testing.assert_allclose(scene.stack[4], scene.truth, atol=1e-5)
    # Bright on one side of focus is dark on the other.
    below, above = (scene.stack[z] / dull.stack[z] - 1 for z in (2, 6))
    assert np.corrcoef(below.ravel(), above.ravel())[0, 1] < -0.95
    edges = [ndimage.gaussian_laplace(a, 2).std() for a in scene.stack]
    assert np.argmax([ndimage.gaussian_laplace(a, 2).std() for a in dull.stack]) == 4
    assert edges[1] > 1.2 * edges[4] and edges[7] > 1.2 * edges[4]


def test_thick_matter_lies_flat():
    """A thick cell has one depth, whatever the surface is."""
    options = {**SMALL, **EXACT, **THICK, "surface": "tilt"}
    scene, smooth = (
        make_scene(3, **options),
        make_scene(3, **options | {"thick": False}),
    )
    assert len(np.unique(scene.depth)) < 30 < len(np.unique(smooth.depth))
