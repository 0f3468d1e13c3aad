"""Families of scenes for tables, and the tissue that two of them are made of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.simulation.families import FAMILIES
from napari_focus_fusion.simulation.scenes import (
    TRAINING_SEEDS,
    benchmark_scenes,
    refractile_scenes,
)
from napari_focus_fusion.simulation.tissue import make_tissue

ALL = [scene for family in FAMILIES.values() for scene in family.scenes]


def test_no_scene_was_seen_in_training_or_is_drawn_twice():
    seeds = [scene.seed for scene in ALL]
    others = {spec.seed for spec in (*benchmark_scenes(), *refractile_scenes())}
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= TRAINING_SEEDS.stop
    assert not others & set(seeds)


def test_names_tell_the_scenes_of_a_family_apart():
    for name, family in FAMILIES.items():
        assert family.name == name
        scenes = [scene.name for scene in family.scenes]
        assert len(set(scenes)) == len(scenes)
        assert 0 <= family.quick < len(scenes)


def test_the_families_cover_lengths_light_and_colours():
    assert {scene.slices for scene in ALL} == {2, 5, 10, 16, 32, 64}
    light = {scene.options["electrons"] for scene in ALL}
    assert None in light and 250.0 in light
    assert any(scene.options.get("rgb") for scene in ALL)
    assert any("two channels" in scene.name for scene in ALL)
    for family in FAMILIES.values():
        slices = {scene.slices for scene in family.scenes}
        assert min(slices) <= 5 and max(slices) >= 32


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda f: f.name)
def test_a_scene_is_what_its_row_says(family):
    row = family.scenes[0]
    scene, again = row.make(), row.make()
    assert scene.stack.shape[scene.axes.index("Z")] == row.slices
    assert np.array_equal(scene.stack, again.stack)
    assert scene.textured.mean() > 0.1


def sharpness(stack):
    """Energy of details of each slice, over the size of a cell."""
    detail = ndimage.gaussian_laplace(stack.astype(np.float32), (0, 1.0, 1.0)) ** 2
    return ndimage.gaussian_filter(detail, (0, 5, 5))


@pytest.mark.parametrize("kind", ["membranes", "nuclei"])
@pytest.mark.parametrize("section", [None, 1.5])
def test_tissue_is_sharpest_where_its_depth_says(kind, section):
    given = {"kind": kind, "section": section, "haze": 0.0}
    scene = make_tissue(5, shape=(128, 144), slices=8, **given)
    found = sharpness(scene.stack).argmax(axis=0)
    off = np.abs(found - scene.depth)[scene.textured]
    assert np.median(off) < 0.6
    assert (off > 1).mean() < 0.2  # walls below the sheet draw it down


def test_what_the_depth_selects_is_closer_to_the_truth_than_every_slice():
    scene = make_tissue(6, shape=(128, 128), slices=8)
    nearest = np.rint(scene.depth).clip(0, 7).astype(int)
    selected = np.take_along_axis(scene.stack, nearest[None], axis=0)[0]
    of_slices = np.square(scene.stack - scene.truth).mean(axis=(1, 2))
    assert np.square(selected - scene.truth).mean() < of_slices.min() / 4


def test_a_pinhole_dims_what_is_out_of_focus():
    wide, confocal = (
        make_tissue(7, shape=(128, 128), slices=9, section=section, dtype=np.float32)
        for section in (None, 1.0)
    )
    far = np.abs(wide.depth - 8) > 4
    assert far.mean() > 0.2
    kept = confocal.stack[8][far].mean() / wide.stack[8][far].mean()
    assert kept < 0.6
    # what is in focus keeps its brightness
    near = np.abs(wide.depth - 4) < 0.3
    bright = near & (wide.stack[4] > np.quantile(wide.stack[4][near], 0.8))
    assert confocal.stack[4][bright].mean() / wide.stack[4][bright].mean() > 0.75


def test_haze_leaves_less_contrast():
    none, much = (
        make_tissue(8, shape=(96, 96), slices=6, haze=haze, dtype=np.float32)
        for haze in (0.0, 2.0)
    )
    assert np.array_equal(none.depth, much.depth)
    fine = [
        (scene.stack - ndimage.gaussian_filter(scene.stack, (0, 4, 4))).std()
        / scene.stack.mean()
        for scene in (none, much)
    ]
    assert fine[1] < 0.8 * fine[0]


def test_two_stains_are_two_channels_of_one_sheet():
    scene = make_tissue(9, kind="both", shape=(96, 112), slices=4)
    assert scene.axes == "CZYX" and scene.stack.shape == (2, 4, 96, 112)
    assert scene.channel_names == ("membranes", "nuclei")
    membranes, nuclei = scene.truth
    # Nuclei lie inside of the outlines.
    assert np.corrcoef(membranes.ravel(), nuclei.ravel())[0, 1] < 0


def test_a_tissue_that_is_not_known_is_named():
    with pytest.raises(FocusFusionError, match="'skin' is not a known tissue"):
        make_tissue(0, kind="skin")


@pytest.mark.parametrize("sheet", ["tilt", "dome", "wave"])
def test_sheets_have_their_form_and_leave_room_for_cells_below(sheet):
    given = {"sheet": sheet, "shape": (72, 80), "slices": 11, "dtype": np.float32}
    scene = make_tissue(3, below=0.6, haze=0.0, **given)
    assert 0.5 < scene.depth.min() and scene.depth.max() <= 6.0
    assert np.ptp(scene.depth) > 3
    centre, border = scene.depth[36, 40], scene.depth[[0, 0, -1, -1], [0, -1, 0, -1]]
    if sheet == "tilt":
        np.testing.assert_allclose(np.diff(scene.depth, 2, axis=0), 0, atol=1e-3)
    if sheet == "dome":
        assert (border > centre + 4).all()
    without = make_tissue(3, haze=0.0, **given)
    assert without.depth.max() > scene.depth.max()
    # The cells below are sharp in the slice that they lie in, and nowhere near.
    grain = [np.abs(np.diff(plane, 2)).mean() for plane in scene.stack]
    assert grain[9] > 1.5 * grain[7]


def test_a_sheet_that_is_not_known_is_named():
    with pytest.raises(FocusFusionError, match="'flat' is not a known sheet"):
        make_tissue(0, sheet="flat")
