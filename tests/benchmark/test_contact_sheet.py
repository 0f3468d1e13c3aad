"""Images that show what candidates made of a stack."""

from __future__ import annotations

import numpy as np
import pytest

from napari_focus_fusion.benchmark.data import Case, case_of_scene
from napari_focus_fusion.benchmark.sheet import (
    PANEL,
    contact_sheet,
    worst_disagreements,
)
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.simulation.scenes import make_scene

GAP, CAPTION = 12, 26
DARKEST, BRIGHTEST = (68, 1, 84), (253, 231, 37)  # viridis at 0 and 1


def panel(sheet, row, column, shape):
    """Pixels of a panel of a sheet whose largest image has this shape."""
    y = GAP + row * (shape[0] + CAPTION + GAP)
    x = GAP + column * (shape[1] + GAP)
    return sheet[y : y + shape[0], x : x + shape[1]]


@pytest.fixture
def colours():
    """Two RGB slices of all grey levels, as large as a panel."""
    rng = np.random.default_rng(0)
    slices = rng.choice(np.array([0, 255], np.uint8), (2, PANEL, PANEL, 3))
    return Case("colours", as_stack(slices, axes="ZYXS"), "")


def test_the_sheet_shows_slices_results_decisions_and_crops(colours):
    first, second = np.asarray(colours.stack.data)
    images = {"one": [first], "other": [second]}
    decision = np.zeros((PANEL, PANEL), np.uint16)
    decision[:, PANEL // 2 :] = 1
    place = (slice(40, 72), slice(100, 132))
    sheet = contact_sheet(colours, images, {"other": decision}, [place])
    shape = (PANEL, PANEL)
    np.testing.assert_array_equal(panel(sheet, 0, 0, shape), first)
    np.testing.assert_array_equal(panel(sheet, 0, 1, shape), second)

    for row, image in ((1, first), (2, second)):
        shown = panel(sheet, row, 0, shape)
        framed = np.zeros(shape, bool)
        framed[39:73, 99:133] = True
        framed[40:72, 100:132] = False
        np.testing.assert_array_equal(shown[~framed], image[~framed])
        assert (shown[framed] == (255, 0, 0)).all()
        zoomed = image[place].repeat(10, axis=0).repeat(10, axis=1)
        np.testing.assert_array_equal(panel(sheet, row, 2, shape), zoomed)

    assert (panel(sheet, 1, 1, shape) == 255).all()  # no decision map
    drawn = panel(sheet, 2, 1, shape)
    assert (drawn[:, : PANEL // 2] == DARKEST).all()
    assert (drawn[:, PANEL // 2 :] == BRIGHTEST).all()


def test_crops_are_taken_where_the_candidates_differ_the_most(colours):
    first = np.asarray(colours.stack.data)[0] // 2 + 60
    other, third = first.copy(), first.copy()
    other[200:240, 30:70] = 255
    third[10:50, 250:290] += 40
    images = {"first": [first], "other": [other], "third": [third]}
    worst, places = worst_disagreements(colours, images)
    assert worst > 0.3
    (y, x), (v, u) = places[:2]
    assert 200 <= y.start and y.stop <= 240 and 30 <= x.start and x.stop <= 70
    assert 10 <= v.start and v.stop <= 50 and 250 <= u.start and u.stop <= 290
    # Elsewhere they agree, and the order of the candidates does not matter.
    assert worst_disagreements(colours, dict(reversed(images.items()))) == (
        worst,
        places,
    )


def test_windows_do_not_overlap_and_lie_inside(colours):
    rng = np.random.default_rng(1)
    for shape in ((33, 50), (40, 200), (20, 24)):
        slices = rng.integers(0, 255, (2, *shape), np.uint8)
        case = Case("noise", as_stack(slices, axes="ZYX"), "")
        images = {"first": [slices[0]], "second": [slices[1]]}
        _, places = worst_disagreements(case, images)
        covered = np.zeros(shape, int)
        for place in places:
            assert place[0].start >= 0 and place[1].start >= 0
            assert covered[place].size == min(32, *shape) ** 2
            covered[place] += 1
        assert covered.max() == 1


def test_one_candidate_is_compared_with_the_truth():
    scene = make_scene(
        1_000_001, shape=(96, 96), slices=3, electrons=None, surface="relief"
    )
    case = case_of_scene("relief", scene)
    truth = scene.truth.round().astype(scene.stack.dtype)
    wrong = truth.copy()
    wrong[50:90, 40:80] = scene.stack[0, 50:90, 40:80] // 2
    worst, places = worst_disagreements(case, {"wrong": [wrong]})
    y, x = places[0]
    assert y.start >= 45 and x.start >= 35
    right, _ = worst_disagreements(case, {"right": [truth]})
    assert right < 1e-4 < worst

    depth = np.rint(scene.depth).clip(0, 2)
    sheet = contact_sheet(case, {"wrong": [wrong]}, {"wrong": depth}, places)
    assert sheet.shape[0] > 3 * 96
    decision = panel(sheet, 1, 1, (PANEL, PANEL))[:96, :96]
    found = {tuple(colour) for colour in decision.reshape(-1, 3)}
    assert found <= {DARKEST, (33, 144, 141), BRIGHTEST}
    assert len(found) == len(np.unique(depth))
