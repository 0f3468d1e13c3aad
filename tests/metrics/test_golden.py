"""Every measure against values computed by independent implementations.

golden.json holds figures of the public MATLAB functions of the measures, run on the
scenes of conftest.py (Q_Y: with moments about the local mean). Values that depend on
rounding alone are left out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from napari_focus_fusion.metrics import evaluate, prepare

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
FUSED = [(name, fused) for name, case in GOLDEN.items() for fused in case["fused"]]
COLOUR = ("R", "G", "B")


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def assert_equals(values, golden):
    expected = {name: float(value) for name, value in golden.items()}
    assert {n: values[n] for n in expected} == pytest.approx(
        expected, abs=1e-9, rel=1e-9
    )


@pytest.mark.parametrize("name", GOLDEN)
def test_scenes_are_the_ones_that_were_measured(name, make_scene):
    scene, case = make_scene(name), GOLDEN[name]
    found = dict(zip("AB", scene.slices, strict=True)) | {"GT": scene.truth}
    assert {key: sha256(image) for key, image in found.items()} == case["sha256"]
    for fused, entry in case["fused"].items():
        assert sha256(scene.fused[fused]) == entry["sha256"]


@pytest.mark.parametrize(("name", "fused"), FUSED)
def test_measures_equal_the_independent_figures(name, fused, make_scene):
    scene, golden = make_scene(name), GOLDEN[name]["fused"][fused]["all"]
    values = evaluate(
        scene.fused[fused], scene.slices, scene.truth, data_range=255, measures=golden
    )
    assert_equals(values, golden)


@pytest.mark.parametrize("fused", ["mean", "lap", "gt"])
def test_single_channels_and_grey_equal_the_independent_figures(
    fused, make_scene, grey
):
    scene, golden = make_scene("rgb80x96"), GOLDEN["rgb80x96"]["fused"][fused]
    planes = {
        c: scene.map(lambda image, c=c: image[..., COLOUR.index(c)]) for c in COLOUR
    }
    planes["gray"] = scene.map(grey)
    for channel, plane in planes.items():
        values = evaluate(plane.fused[fused], plane.slices, plane.truth)
        assert_equals(values, golden[channel])


def test_prepared_slices_give_the_same_values(make_scene):
    scene = make_scene("rgb80x96")
    prepared = prepare(scene.slices)
    for image in scene.fused.values():
        assert evaluate(image, prepared) == evaluate(image, scene.slices)
