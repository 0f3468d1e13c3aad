"""The data sets as data, and users' own."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_focus_fusion.benchmark.data import (
    DATA_VARIABLE,
    _light_specs,
    _re_exposed_specs,
    _refractile_specs,
    _scene_specs,
    case_of_scene,
    find_data_set,
)
from napari_focus_fusion.benchmark.images import bicubic, split_images
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.simulation.scenes import (
    TRAINING_SEEDS,
    benchmark_scenes,
    make_scene,
)


@pytest.fixture
def public(tmp_path, monkeypatch):
    """A folder with two made-up pairs and a series of three, as the public ones lie."""
    rng = np.random.default_rng(0)
    for folder, letters in (("lytro", "AB"), ("lytro-triples", "ABC")):
        (tmp_path / folder).mkdir()
        for name in ("lytro-01", "lytro-02"):
            for letter in letters:
                pixels = rng.integers(0, 256, (52, 62, 3), np.uint8)
                path = tmp_path / folder / f"{name}-{letter}.jpg"
                Image.fromarray(pixels).save(path, quality=95)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    return tmp_path


def test_series_are_found_in_order_with_the_hash_of_their_files(public):
    for folder, data, count in (("lytro", "lytro", 2), ("lytro-triples", "triples", 3)):
        cases = list(find_data_set(data).cases())
        assert [case.name for case in cases] == ["lytro-01", "lytro-02"]
        files = sorted((public / folder).glob("lytro-02-*.jpg"))
        assert len(files) == count
        together = b"".join(path.read_bytes() for path in files)
        assert cases[1].sha256 == hashlib.sha256(together).hexdigest()
        (slices,) = cases[1].measured_against()
        for found, path in zip(slices, files, strict=True):
            np.testing.assert_array_equal(found, np.asarray(Image.open(path)))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_reduced_pairs_are_measured_against_the_pairs_as_they_were(public, factor):
    whole = next(find_data_set("lytro").cases())
    case = next(find_data_set(f"lytro-x{factor}").cases())
    height, width = 52 // factor, 62 // factor
    assert (case.stack.height, case.stack.width) == (height, width)
    assert case.enlarge == factor
    assert case.sha256 == whole.sha256
    (sources,), (large,) = case.measured_against(), whole.measured_against()
    np.testing.assert_array_equal(
        sources, large[:, : height * factor, : width * factor]
    )
    small = np.asarray(case.stack.data)
    np.testing.assert_array_equal(
        small, bicubic(sources.astype(np.float32) / 255, (height, width))
    )
    # In place: enlarged again it lies on the sources better than one pixel off.
    again = bicubic(small, (height * factor, width * factor))
    errors = [
        np.abs(np.roll(again, shift, 2) - sources / 255)[:, 8:-8, 8:-8].mean()
        for shift in (0, -1, 1)
    ]
    assert errors[0] < min(errors[1:])


@pytest.mark.parametrize("name", ["lytro", "lytro-x3", "triples"])
def test_what_is_missing_is_said_with_where_to_get_it(name, monkeypatch, tmp_path):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(FocusFusionError, match=r"FOCUS_FUSION_DATA is not set.*https"):
        next(find_data_set(name).cases())
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(FocusFusionError, match=r"there are none in .*lytro.*https"):
        next(find_data_set(name).cases())


def test_each_stack_file_and_each_folder_of_slices_is_a_stack(tmp_path):
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 255, (3, 20, 24), np.uint8)
    mine = tmp_path / "my stacks"
    for folder in ("loose", "b10", "b9"):
        (mine / folder).mkdir(parents=True)
        for z in range(2):
            Image.fromarray(stack[z]).save(mine / folder / f"z{z}.png")
    (mine / "empty").mkdir()
    tifffile.imwrite(mine / "a.ome.tif", stack, metadata={"axes": "ZYX"}, ome=True)
    data_set = find_data_set(str(mine))
    assert data_set.name == "my stacks"
    cases = list(data_set.cases())
    assert [(case.name, case.stack.n_slices) for case in cases] == [
        ("a", 3),
        ("b10", 2),
        ("b9", 2),
        ("loose", 2),
    ]
    np.testing.assert_array_equal(cases[0].measured_against()[0], stack)
    # One stack file alone will do.
    (case,) = find_data_set(str(mine / "a.ome.tif")).cases()
    assert case.name == "a"


def test_stacks_of_one_name_are_told_apart(tmp_path):
    stack = np.zeros((3, 20, 24), np.uint8)
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(
            tmp_path / folder / "s.ome.tif", stack, metadata={"axes": "ZYX"}, ome=True
        )
    names = [case.name for case in find_data_set(str(tmp_path)).cases()]
    assert names == ["s", "s (2)"]


def test_neither_a_data_set_nor_a_path(tmp_path):
    with pytest.raises(FocusFusionError, match=r"'lytrow' is neither .*lytro-x2.* nor"):
        find_data_set("lytrow")
    with pytest.raises(FocusFusionError, match="holds no stacks"):
        next(find_data_set(str(tmp_path)).cases())


def test_scenes_are_those_that_are_never_trained_on():
    groups = {spec.name: groups for spec, groups in _scene_specs()}
    specs = benchmark_scenes()
    assert list(groups) == [spec.name for spec in specs]
    assert min(spec.seed for spec in specs) not in TRAINING_SEEDS
    assert groups["pair-steps-noisy"] == ("2 slices", "grey", "noisy")
    assert groups["rgb-layers"] == ("8 slices", "RGB")
    assert groups["fluorescence-deep"] == ("32 slices", "fluorescence", "noisy")
    assert groups["brightfield-rgb"] == ("8 slices", "RGB", "brightfield")
    case = next(find_data_set("scenes").cases())
    assert (case.name, case.groups) == (specs[0].name, groups[specs[0].name])
    np.testing.assert_array_equal(case.truth.image, specs[0].make().truth)


def test_channels_are_measured_one_by_one():
    scene = make_scene(1_000_000, shape=(32, 40), slices=3, channels=2)
    slices = case_of_scene("two channels", scene).measured_against()
    assert len(slices) == 2
    np.testing.assert_array_equal(slices[1], scene.stack[1])


def test_scenes_exposed_again_show_the_same_with_other_noise():
    assert len(list(_re_exposed_specs())) == 12
    some = itertools.islice(find_data_set("scenes-noise").cases(), 6)
    cases = {case.name: case for case in some}
    bright, dim = cases["layers-leaves-10000"], cases["layers-leaves-250"]
    assert (bright.groups, dim.groups) == (("10000 electrons",), ("250 electrons",))
    np.testing.assert_array_equal(bright.truth.depth, dim.truth.depth)
    np.testing.assert_array_equal(bright.truth.image, dim.truth.image)

    def noise(case):  # what neighbours do not share
        return np.diff(np.asarray(case.stack.data, float), axis=2).std()

    assert noise(dim) > 1.5 * noise(bright)


def test_scenes_at_all_exposures():
    """Nine scenes that neither training nor the other tables know, four times each."""
    specs = [spec for spec, _ in _light_specs()]
    groups = [group for _, groups in _light_specs() for group in groups]
    seeds = {spec.seed for spec in specs}
    assert len(specs) == 36 and len(seeds) == 9
    assert not seeds & {*TRAINING_SEEDS, *(spec.seed for spec in benchmark_scenes())}
    for name in ("2 slices", "8 slices", "32 slices", "relief", "steep", "layers"):
        assert groups.count(name) == 12
    for name in ("clean", "10000 electrons", "1000 electrons", "250 electrons"):
        assert groups.count(name) == 9
    assert groups.count("32, 250 electrons") == 3

    cases = find_data_set("scenes-light").cases()
    clean, bright, _, dim = itertools.islice(cases, 4)
    truth = clean.truth.image
    np.testing.assert_array_equal(truth, dim.truth.image)
    errors = [
        np.sqrt(np.mean((np.asarray(case.stack.data, float) - truth) ** 2))
        for case in (clean, bright, dim)
    ]
    assert errors[0] < errors[1] < errors[2]


def test_refractile_scenes_look_sharpest_out_of_focus():
    """Six scenes of their own, twice each, in which contrast is no measure of focus."""
    specs = [spec for spec, _ in _refractile_specs()]
    seeds = {spec.seed for spec in specs}
    others = {spec.seed for spec, _ in (*_light_specs(), *_scene_specs())}
    assert len(specs) == 12 and len(seeds) == 6
    assert not seeds & {*TRAINING_SEEDS, *others}
    for case in itertools.islice(find_data_set("scenes-refractile").cases(), 0, 12, 2):
        truth = np.gradient(case.truth.image.astype(float))
        slices = [np.gradient(plane.astype(float)) for plane in case.stack.data]
        contrast = [np.hypot(*gradient).mean() for gradient in slices]
        assert max(contrast) > np.hypot(*truth).mean(), case.name


@pytest.mark.parametrize("factor", [2, 3])
def test_scenes_of_coarser_pixels(factor):
    clean, noisy = itertools.islice(find_data_set(f"scenes-x{factor}").cases(), 2)
    fine, coarse = clean.references.data, clean.stack.data
    height, width = (factor * n for n in coarse.shape[1:])
    assert fine.shape[1:] == clean.truth.image.shape == (height, width)
    # A coarse pixel is the mean of the fine ones that it covers.
    last = fine[:, -factor:, -factor:].mean((1, 2)) / 255
    np.testing.assert_allclose(coarse[:, -1, -1], last, atol=0.002)
    # The truth is as sharp as the sharper slice everywhere, and sharper somewhere.
    contrast = [np.abs(np.diff(plane.astype(float))).mean() for plane in fine]
    assert np.abs(np.diff(clean.truth.image)).mean() > max(contrast)
    # 4000 electrons at white, all else the same.
    spread = np.std(noisy.stack.data - coarse)
    assert spread == pytest.approx(np.sqrt(coarse.mean() / 4000), rel=0.1)


def test_cubic_interpolation_is_that_of_opencv():
    squares = np.arange(36.0, dtype=np.float32).reshape(6, 6) ** 2 % 97
    half = [
        [18.31543, 50.626953, 6.620117],
        [63.345703, 2.667969, 88.6582],
        [61.948242, 60.033203, 53.03418],
    ]
    np.testing.assert_allclose(bicubic(squares[None], (3, 3))[0], half, atol=1e-4)
    np.testing.assert_allclose(
        bicubic(squares[None], (2, 2))[0], [[49, 3], [43, 8]], atol=1e-4
    )
    twice = [
        [-3.76886, -3.91803, -4.185242, -3.697571, -2.730408, -2.145203],
        [7.764038, 8.797729, 10.429321, 13.562866, 16.428833, 18.1969],
        [26.7594, 29.741333, 34.500366, 41.99182, 47.98523, 51.701538],
        [38.292297, 42.457092, 49.11493, 59.25226, 67.14447, 72.04364],
    ]
    small = squares[None, :2, :3]
    np.testing.assert_allclose(bicubic(small, (4, 6))[0], twice, atol=1e-4)
    colour = bicubic(np.stack([small, -small], axis=-1), (4, 6))
    np.testing.assert_array_equal(colour[..., 0], bicubic(small, (4, 6)))
    np.testing.assert_array_equal(colour[..., 1], -colour[..., 0])


def test_images_are_split_by_time_point_and_channel():
    image = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    images = split_images(image, "ZTYXC")  # any order of axes
    assert len(images) == 3 * 6
    # time first, then channels
    np.testing.assert_array_equal(images[6 * 2 + 5], image[:, 2, :, :, 5])
    rgba = np.arange(3 * 4 * 5 * 4).reshape(3, 4, 5, 4)
    first, *_ = split_images(rgba, "TYXS")
    np.testing.assert_array_equal(first, rgba[0, ..., :3])
