"""Registration of slices: estimates, limits, and what is made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from moving_slices import SHAPE, errors, focus_stack, grain, moves, seen

import napari_focus_fusion as ff

BREATHING = moves(
    [
        *((4.3, -2.6, 0.97, 0.4), (1.7, -1.2, 0.985, 0.1), (0, 0, 1, 0)),
        *((-2.4, 1.9, 1.012, -0.3), (-3.2, 4.4, 1.03, -0.6)),
    ]
)
SHIFTS = moves([(2.5, -4.2, 1, 0), (0.3, 1.6, 1, 0), (0, 0, 1, 0), (-3.4, 0.8, 1, 0)])


@pytest.fixture(scope="module")
def breathing():
    return focus_stack(BREATHING)


@pytest.fixture(scope="module")
def registration(breathing):
    return ff.register(breathing, "similarity", axes="ZYX")


def test_breathing_rotation_and_shifts_are_found_to_a_fraction_of_a_pixel(registration):
    off = errors(registration.matrices[0], BREATHING)
    assert np.median(off) < 0.1 and off.max() < 0.4
    assert registration.notes == ()


@pytest.mark.parametrize("kind", ["translation", "similarity", "affine"])
def test_every_kind_finds_shifts(kind):
    found = ff.register(focus_stack(SHIFTS, seed=3), kind, axes="ZYX")
    assert errors(found.matrices[0], SHIFTS).max() < 0.4


def test_flicker_does_not_disturb(breathing):
    gains = np.array([0.7, 1.0, 0.8, 1.1, 0.9])[:, None, None]
    found = ff.register((breathing * gains).clip(0, 255).astype(np.uint8), axes="ZYX")
    assert np.median(errors(found.matrices[0], BREATHING)) < 0.15


def test_a_moving_object_does_not_disturb():
    slices = focus_stack(SHIFTS, seed=4).astype(float)
    patch = grain(9)[:40, :40]
    for z in range(len(slices)):
        slices[z, 20 + 22 * z : 60 + 22 * z, 30:70] = patch
    found = ff.register(slices.astype(np.uint8), axes="ZYX")
    assert errors(found.matrices[0], SHIFTS).max() < 0.5


def test_reversed_slices_give_reversed_transforms(breathing, registration):
    back = ff.register(breathing[::-1].copy(), axes="ZYX")
    assert errors(back.matrices[0][::-1], registration.matrices[0]).max() < 0.15


def test_what_is_in_register_is_left_as_it_is():
    still = focus_stack(moves([(0, 0, 1, 0)] * 4), noise=4)
    found = ff.register(still, axes="ZYX")
    assert found.largest_displacement == 0
    assert "in register already" in found.notes[0]
    aligned, plain = (
        ff.fuse(still, "sml", axes="ZYX", align=align) for align in ("similarity", None)
    )
    assert (aligned.fused == plain.fused).all()


@pytest.mark.parametrize("kind", ["translation", "similarity", "affine"])
def test_noise_and_emptiness_move_nothing(kind):
    rng = np.random.default_rng(0)
    noise = rng.poisson(100, (4, *SHAPE)).astype(np.uint16)
    for slices in (noise, np.full_like(noise, 7)):
        found = ff.register(slices, kind, axes="ZYX")
        assert found.largest_displacement == 0
        assert "No slice has detail" in found.notes[0]


def test_a_slice_without_detail_lies_between_its_neighbours(breathing):
    slices = breathing.copy()
    slices[1] = 100
    found = ff.register(slices, axes="ZYX")
    assert "Slice 1 has no detail" in found.notes[0]
    others = [0, 2, 3, 4]
    assert errors(found.matrices[0], BREATHING)[others].max() < 0.4
    between = (found.matrices[0][0] + found.matrices[0][2]) / 2
    assert errors(found.matrices[0][1:2], between[None]).max() < 0.5


@pytest.mark.parametrize("period", [5, 12, 24])
def test_a_lattice_does_not_jump_by_a_period(period):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rng = np.random.default_rng(0)
    slices = []
    for z in range(4):
        shifts = ((y, 0.1 * period * z), (x, 0.12 * period * z))
        phases = [2 * np.pi * (a - shift) / period for a, shift in shifts]
        lattice = np.prod([np.sin(phase) for phase in phases], axis=0)
        slices.append(100 + 50 * lattice + rng.normal(0, 2, SHAPE))
    found = ff.register(np.array(slices, np.float32), axes="ZYX", align_to=0)
    true = moves([(0.1 * z * period, 0.12 * z * period, 1, 0) for z in range(4)])
    assert errors(found.matrices[0], true).max() < 0.4


def test_the_chosen_slice_stays(breathing):
    found = ff.register(breathing, axes="ZYX", align_to=4)
    assert found.reference_slice == 4
    assert (found.matrices[0][4] == np.eye(2, 3)).all()
    with pytest.raises(ff.FocusFusionError, match="align_to=5"):
        ff.register(breathing, axes="ZYX", align_to=5)


def test_the_valid_area_is_seen_by_every_slice(breathing, registration):
    area = registration.valid_area
    stack = registration.apply(ff.as_stack(breathing, axes="ZYX"))
    whole = slice(0, 5)
    assert stack.read_present(0, whole, area.y, area.x)[1] is None
    assert area.height > 100 and area.width > 130
    wide = (
        slice(area.y0, min(area.y1 + 4, SHAPE[0])),
        slice(max(area.x0 - 4, 0), area.x1),
    )
    assert stack.read_present(0, whole, *wide)[1] is not None


def test_any_window_reads_the_same(breathing, registration):
    stack = registration.apply(ff.as_stack(breathing, axes="ZYX"))
    full, there = stack.read_present(0, slice(0, 5), slice(0, 160), slice(0, 192))
    for y, x in ((slice(0, 9), slice(3, 60)), (slice(77, 160), slice(101, 192))):
        part, known = stack.read_present(0, slice(0, 5), y, x)
        assert (part == full[..., y, x]).all()
        assert known is None or (known == there[..., y, x]).all()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "float64"])
def test_a_moved_slice_is_interpolated_in_its_own_type(dtype):
    plane = grain()
    scale = {"uint8": 1, "int16": 100, "uint16": 200}.get(dtype, 0.01)
    matrices = moves([(0, 0, 1, 0), (1.4, -2.3, 1.01, 0.2)])
    slices = np.array([seen(plane, m) for m in matrices]) * scale
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        slices = slices.round().clip(limits.min, limits.max)
    registration = ff.Registration("similarity", 0, SHAPE, (matrices,))
    stack = registration.apply(ff.as_stack(slices.astype(dtype), axes="ZYX"))
    values, present = stack.read_present(0, slice(0, 2), slice(0, 160), slice(0, 192))
    assert values.dtype == dtype
    off = (values[0, 1] - slices[0].astype(float))[8:-8, 8:-8] / scale
    assert present[0, 1, 8:-8, 8:-8].all()
    assert np.sqrt((off**2).mean()) < 0.6


def test_absent_pixels_of_the_source_stay_absent_and_do_not_bleed():
    slices = np.ma.array(np.full((2, *SHAPE), 100.0), mask=False)
    slices[1, 60:80, 60:80] = np.ma.masked
    slices.data[1, 60:80, 60:80] = 1e6
    matrices = moves([(0, 0, 1, 0), (3.5, 0, 1, 0)])
    registration = ff.Registration("translation", 0, SHAPE, (matrices,))
    stack = registration.apply(ff.as_stack(slices, axes="ZYX"))
    values, present = stack.read_present(0, [1], slice(0, 160), slice(0, 192))
    assert not present[0, 0, 57:76, 60:80].any()
    assert np.abs(values[present] - 100).max() < 1


def test_time_points_have_transforms_of_their_own():
    stacks = np.array([focus_stack(SHIFTS, seed=5), focus_stack(BREATHING[:4], seed=6)])
    found = ff.register(stacks, axes="TZYX")
    assert errors(found.matrices[0], SHIFTS).max() < 0.4
    base = np.vstack([BREATHING[2], [0, 0, 1]])
    assert errors(found.matrices[1], BREATHING[:4] @ np.linalg.inv(base)).max() < 0.4


def test_saved_registrations_come_back(tmp_path, registration):
    path = registration.save(tmp_path / "moved.json")
    assert ff.load_registration(path) == registration
    with pytest.raises(ff.FocusFusionError, match="exists"):
        registration.save(path)
    content = json.loads(path.read_text())
    for change in ({"format": "x"}, {"kind": 3}, {"transforms": [[[1]]]}, {"shape": 1}):
        (tmp_path / "bad.json").write_text(json.dumps(content | change))
        with pytest.raises(ff.FocusFusionError):
            ff.load_registration(tmp_path / "bad.json")
    with pytest.raises(ff.FocusFusionError, match="cannot be read"):
        ff.load_registration(tmp_path / "nowhere.json")


def test_it_fits_stacks_of_its_size_only(breathing, registration):
    with pytest.raises(ff.FocusFusionError, match="5 slices of 160 x 192"):
        registration.apply(ff.as_stack(breathing[:4], axes="ZYX"))


def test_it_can_be_cancelled(breathing):
    with pytest.raises(ff.Cancelled):
        ff.register(breathing, axes="ZYX", should_stop=lambda: True)
