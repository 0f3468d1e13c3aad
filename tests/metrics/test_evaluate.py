"""evaluate(): what it takes, what it refuses and in which words."""

from __future__ import annotations

import math
import os
from pathlib import Path

import dask.array
import numpy as np
import pytest

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.metrics import (
    SIX,
    WITH_TRUTH,
    WITHOUT_TRUTH,
    as_sources,
    evaluate,
    prepare,
    psnr,
    q_s,
    sharpness,
    ssim,
)


@pytest.fixture
def scene(make_scene):
    return make_scene("s64")


@pytest.fixture
def colour(make_scene):
    return make_scene("rgb80x96")


def test_names_and_order(scene):
    fused, slices = scene.fused["lap"], scene.slices
    assert tuple(evaluate(fused, slices)) == WITHOUT_TRUTH
    both = evaluate(fused, slices, scene.truth)
    assert tuple(both) == (*WITHOUT_TRUTH, *WITH_TRUTH)
    assert list(evaluate(fused, slices, measures=("Q_Y", "Q_MI"))) == ["Q_Y", "Q_MI"]
    assert evaluate(fused, slices, measures="Q_Y") == {"Q_Y": both["Q_Y"]}


def test_arrays_lists_and_dask_are_alike(colour):
    fused = colour.fused["mean"]
    expected = evaluate(fused, list(colour.slices))
    assert evaluate(fused, np.stack(colour.slices)) == expected
    lazy = dask.array.from_array(np.stack(colour.slices), chunks=(1, 40, 40, 3))
    assert evaluate(dask.array.from_array(fused), lazy) == expected


def test_colour_is_the_mean_of_its_channels(colour):
    fused, slices = colour.fused["mean"], np.stack(colour.slices)
    channels = [
        evaluate(fused[..., c], slices[..., c], colour.truth[..., c]) for c in range(3)
    ]
    means = {name: np.mean([v[name] for v in channels]) for name in channels[0]}
    assert evaluate(fused, slices, colour.truth) == pytest.approx(means, abs=1e-12)


@pytest.mark.parametrize(
    ("convert", "data_range"),
    [
        (lambda image: image / 255, 1),
        (lambda image: (image / 255).astype(np.float32), 1.0),
        (lambda image: image.astype(np.uint16) * 257, 65535),
        (lambda image: image.astype(np.int16) * 8 - 1000, (-1000, 1040)),
        (lambda image: image.astype(np.float64), 255),
        (lambda image: image.astype(">u2"), 255),
    ],
)
def test_one_image_in_another_type_scores_the_same(scene, convert, data_range):
    expected = evaluate(scene.fused["mean"], scene.slices, scene.truth)
    other = scene.map(convert)
    values = evaluate(
        other.fused["mean"], other.slices, other.truth, data_range=data_range
    )
    # PSNR and SSIM see float32's rounding, the others whole grey levels
    assert values == pytest.approx(expected, rel=1e-6)


def test_without_a_range_the_slices_give_it(scene):
    """16-bit data are judged by the range that they use, not that of their type."""
    dark = scene.map(lambda image: image.astype(np.uint16) * 3 + 100)
    low, high = np.min(dark.slices), np.max(dark.slices)
    given = evaluate(
        dark.fused["mean"], dark.slices, dark.truth, data_range=(low, high)
    )
    assert evaluate(dark.fused["mean"], dark.slices, dark.truth) == given
    assert as_sources(dark.slices).low == low


def test_byte_order_is_no_difference(scene):
    big = [image.astype(">u2") for image in scene.slices]
    little = scene.fused["mean"].astype("<u2")
    native = [image.astype(np.uint16) for image in scene.slices]
    assert evaluate(little, big) == evaluate(little, native)


def test_inputs_are_left_alone(scene):
    fused, slices = scene.fused["mean"].copy(), np.stack(scene.slices)
    floats = slices.astype(np.float64)
    before = floats.copy()
    evaluate(fused, slices)
    evaluate(fused.astype(float), floats, data_range=255)
    np.testing.assert_array_equal(slices, np.stack(scene.slices))
    np.testing.assert_array_equal(floats, before)


def test_depth_is_measured_too(scene):
    depth = np.zeros((8, 8))
    values = evaluate(
        scene.truth, scene.slices, depth=depth, true_depth=depth + 2, measures=["Q_MI"]
    )
    assert list(values) == ["Q_MI", "depth error", "depth >1"]
    assert values["depth error"] == 2


GREY = np.zeros((20, 21), np.uint8)
TWO = [GREY, GREY]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: evaluate(GREY, [GREY]), "two or more slices"),
        (lambda: evaluate(GREY, []), "two or more slices"),
        (lambda: evaluate(GREY, 3), "must be an array"),
        (lambda: evaluate(GREY.T, TWO), r"\(21, 20\), the slices have \(20, 21\)"),
        (lambda: evaluate(np.zeros((20, 21, 3), np.uint8), TWO), "colour mode"),
        (lambda: evaluate(GREY, [GREY, GREY.T]), "Slice 2 has the shape"),
        (lambda: evaluate(GREY, [GREY, GREY.astype(float)]), "Slice 2 holds float64"),
        (lambda: evaluate(GREY.astype(float), TWO), "say which range both use"),
        (lambda: evaluate(GREY, TWO, GREY.astype(float)), "The true image holds"),
        (lambda: evaluate(GREY, TWO, GREY[1:]), "The true image has the shape"),
        (lambda: evaluate(GREY > 0, TWO), "type bool"),
        (lambda: evaluate(GREY, [GREY * 1j] * 2), "type complex128"),
        (lambda: evaluate(np.zeros((20, 21, 4)), TWO), "RGBA"),
        (lambda: evaluate(np.zeros((3, 20, 21)), TWO), "channels and time points"),
        (lambda: evaluate(GREY, np.zeros((2, 3, 20, 21))), "Slice 1 has the shape"),
        (lambda: evaluate(GREY, [GREY / 0.0] * 2), "Slice 1 contains NaN"),
        (lambda: evaluate(GREY, [GREY[:5]] * 2), "21 x 5 pixels"),
        (lambda: evaluate(GREY, TWO), "VIFF .* ask for the"),
        (lambda: evaluate(GREY, TWO, data_range=0), "is not a range"),
        (lambda: evaluate(GREY, TWO, data_range=(5, 1)), "is not a range"),
        (lambda: evaluate(GREY, TWO, data_range=(1, 2, 3)), "is not a range"),
        (lambda: evaluate(GREY, TWO, data_range="full"), "is not a range"),
        (lambda: evaluate(GREY, prepare(TWO), data_range=255), "prepared already"),
        (lambda: evaluate(GREY, TWO, measures=["Q_X"]), "no measure 'Q_X'; choose"),
        (lambda: evaluate(GREY, TWO, measures=["PSNR"]), "there is no PSNR"),
        (lambda: evaluate(GREY, TWO, depth=GREY), "both depth and true_depth"),
        (lambda: q_s(GREY[:9], [GREY[:9]] * 2), "need at least that"),
        (lambda: psnr(GREY, GREY[1:]), "The fused image has the shape"),
        (lambda: ssim(GREY, GREY.astype(np.uint16)), "The fused image holds uint8"),
        (lambda: ssim(GREY[:9], GREY[:9]), "need at least that"),
        (lambda: sharpness(np.full((9, 9), np.inf)), "NaN or infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_refusals_say_what_is_wrong(call, words):
    with pytest.raises(FocusFusionError, match=words):
        call()


def test_smallest_images(make_scene):
    scene = make_scene("s64").map(lambda image: image[:41, :41])
    assert all(map(math.isfinite, evaluate(scene.truth, scene.slices).values()))
    scene = scene.map(lambda image: image[:11, :11])
    assert evaluate(scene.truth, scene.slices, measures=SIX)["Q_S"] < 1


def test_copies_on_photographs_score_what_is_known():
    """20 pairs of a public data set: information measures love copies."""
    folder = os.environ.get("FOCUS_FUSION_DATA")
    if not folder or not (Path(folder) / "lytro").is_dir():
        pytest.skip("FOCUS_FUSION_DATA names no folder with lytro/ in it")
    from PIL import Image

    def read(number, side):
        path = Path(folder) / "lytro" / f"lytro-{number:02d}-{side}.jpg"
        return np.asarray(Image.open(path))

    scores = []
    for number in range(1, 21):
        slices = read(number, "A"), read(number, "B")
        scores.append(evaluate(slices[0], slices, measures=["Q_MI"])["Q_MI"])
    assert np.mean(scores) == pytest.approx(1.303, abs=0.01)
