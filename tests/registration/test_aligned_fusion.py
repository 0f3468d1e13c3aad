"""Fusions of slices that were brought into register and to one brightness."""

from __future__ import annotations

import json

import numpy as np
import pytest
from moving_slices import SHAPE, focus_stack, grain, moves, seen

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main
from napari_focus_fusion.fusion import differences_from
from napari_focus_fusion.report import report
from napari_focus_fusion.retouch import as_fused, recompose, take_slice

DRIFT = moves(
    [(3.3, -2.6, 0.98, 0.2), (1.2, -1.2, 0.99, 0.1), (0, 0, 1, 0), (-2.4, 2.9, 1.01, 0)]
)
STILL = moves([(0, 0, 1, 0)] * 4)
INNER = slice(20, -20), slice(20, -20)


def psnr(image, truth):
    off = image[INNER].astype(float) - truth[INNER]
    return 10 * np.log10(255**2 / np.mean(off**2))


@pytest.fixture(scope="module")
def drifting():
    return focus_stack(DRIFT)


@pytest.fixture(scope="module")
def aligned(drifting):
    return ff.fuse(drifting, "sml", axes="ZYX", align="similarity")


def test_aligned_fusion_is_as_good_as_one_of_slices_that_never_moved(drifting, aligned):
    truth = seen(grain(), STILL[0])
    best = psnr(ff.fuse(focus_stack(STILL), "sml", axes="ZYX").fused, truth)
    moved = ff.fuse(drifting, "sml", axes="ZYX")
    assert psnr(aligned.fused, truth) > best - 0.5
    assert psnr(moved.fused, truth) < best - 2


def test_drift_is_told_where_nobody_asked(drifting, aligned):
    plain = ff.fuse(drifting, "sml", axes="ZYX")
    assert any("Slices drift" in note for note in plain.notes)
    assert not any("Slices drift" in note for note in aligned.notes)
    still = ff.fuse(focus_stack(STILL), "sml", axes="ZYX")
    assert not any("drift" in note or "flicker" in note for note in still.notes)


def test_tiles_do_not_show(drifting, aligned):
    small = ff.fuse(
        drifting, "sml", axes="ZYX", align=aligned.registration, tile=32, memory="16MB"
    )
    assert (small.fused == aligned.fused).all()
    assert (small.decision == aligned.decision).all()


def test_provenance_has_the_transforms(drifting, aligned):
    record = json.loads(json.dumps(aligned.provenance))
    assert record["parameters"]["align"] == "similarity"
    kept = record["registration"]
    assert kept["reference_slice"] == 2
    assert np.array_equal(kept["transforms"], aligned.registration.matrices)
    area = aligned.registration.valid_area
    assert kept["valid_area"] == [area.y0, area.y1, area.x0, area.x1]


def test_other_channels_and_colours_are_moved_alike(drifting, aligned):
    channels = np.stack([drifting, 255 - drifting])
    both = ff.fuse(channels, "sml", axes="CZYX", reference=0, align="similarity")
    assert np.array_equal(both.registration.matrices, aligned.registration.matrices)
    assert (both.fused[0] == aligned.fused).all()
    inner = both.fused[:, 20:-20, 20:-20].astype(int)
    assert np.abs(inner[0] + inner[1] - 255).max() <= 2


def test_a_run_that_was_stopped_goes_on_with_the_same_transforms(tmp_path, drifting):
    out = tmp_path / "fused.ome.zarr"
    options = {"axes": "ZYX", "align": "similarity", "brightness": "level", "out": out}
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > 14

    with pytest.raises(ff.Cancelled):
        ff.fuse(drifting, "sml", should_stop=stop, **options)
    assert out.with_name("fused.ome.zarr.partial").exists()
    with pytest.raises(ff.FocusFusionError):
        ff.fuse(drifting, "sml", axes="ZYX", out=out)  # another run: not aligned
    whole = ff.fuse(drifting, "sml", **options)
    memory = ff.fuse(drifting, "sml", **{**options, "out": None})
    assert (np.asarray(whole.fused) == memory.fused).all()


def test_what_exists_is_not_written_over(tmp_path, drifting):
    out = tmp_path / "fused.ome.zarr"
    ff.fuse(drifting[:2], "sml", axes="ZYX", out=out)
    with pytest.raises(ff.FocusFusionError, match="exists"):
        ff.fuse(drifting, "sml", axes="ZYX", align="similarity", out=out)


@pytest.mark.parametrize("gains", [(0.7, 1.25, 1.0, 0.85), (1.0, 0.93, 0.87, 0.8)])
def test_flicker_and_bleaching_are_levelled(gains):
    truth = seen(grain(), STILL[0])
    still = focus_stack(STILL)
    best = psnr(ff.fuse(still, "sml", axes="ZYX").fused, truth)
    slices = (still * np.array(gains)[:, None, None] / gains[2] * 0.7).round()
    slices = slices.clip(0, 255).astype(np.uint8)
    plain = ff.fuse(slices, "sml", axes="ZYX")
    level = ff.fuse(slices, "sml", axes="ZYX", brightness="level")
    assert psnr(level.fused / 0.7, truth) > best - 1
    assert psnr(level.fused / 0.7, truth) > psnr(plain.fused / 0.7, truth) + 2
    flickers = gains[0] < 1
    assert any("flicker" in note for note in plain.notes) == flickers
    assert not any("flicker" in note for note in level.notes)


def test_shading_that_differs_between_slices_is_levelled():
    still = focus_stack(STILL).astype(float)
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    slices = np.array([s * (1 - 0.1 * z * (x**2 + y**2)) for z, s in enumerate(still)])
    level = ff.fuse(slices.astype(np.float32), "sml", axes="ZYX", brightness="level")
    true = ff.fuse(
        (still * (1 - 0.2 * (x**2 + y**2))).astype(np.float32), "sml", axes="ZYX"
    )
    assert psnr(level.fused, true.fused) > 36


@pytest.mark.parametrize("align", [3, "rotation", "x.json", True, [1]])
def test_wrong_ways_to_align(drifting, align):
    with pytest.raises(ff.FocusFusionError):
        ff.fuse(drifting, "sml", axes="ZYX", align=align)


def test_on_the_command_line(tmp_path, drifting, aligned, capsys):
    import tifffile

    source, kept = tmp_path / "moved.tif", tmp_path / "moved.json"
    tifffile.imwrite(
        source, drifting, photometric="minisblack", metadata={"axes": "ZYX"}
    )
    command = ["fuse", str(source), "--model", "sml"]
    first = [*command, "-o", str(tmp_path / "a.tif"), "--align", "similarity"]
    assert main([*first, "--save-registration", str(kept)]) == 0
    assert ff.load_registration(kept) == aligned.registration
    again = [*command, "-o", str(tmp_path / "b.tif"), "--align", str(kept)]
    assert main([*again, "--brightness", "level"]) == 0
    assert (tifffile.imread(tmp_path / "a.tif") == aligned.fused).all()
    capsys.readouterr()
    wrong = [*command, "-o", str(tmp_path / "c.tif")]
    assert main([*wrong, "--align", "upwards"]) == 2
    assert main([*wrong, "--save-registration", str(kept)]) == 2
    assert "--align similarity" in capsys.readouterr().err


def test_a_changed_map_is_recomposed_from_slices_as_they_were_fused(drifting):
    how = {"axes": "ZYX", "brightness": "level"}
    first = ff.fuse(drifting, "sml", align="similarity", **how)
    record = json.loads(json.dumps(first.provenance))
    stack = as_fused(ff.as_stack(drifting, axes="ZYX"), record)
    assert as_fused(stack, record) is stack
    decision = first.decision.copy()
    by_map = ff.fuse(drifting, decision=decision, align="similarity", **how)
    mask = np.zeros(SHAPE, bool)
    mask[60:90, 70:110] = True
    area = recompose(stack, decision, by_map.fused, take_slice(decision, mask, 0))
    again = ff.fuse(drifting, decision=decision, align=first.registration, **how)
    assert (by_map.fused[area.slices] == again.fused[area.slices]).all()
    assert again.provenance["registration"] == first.provenance["registration"]
    with pytest.raises(ff.FocusFusionError, match="registration is one of"):
        as_fused(ff.as_stack(drifting[:3], axes="ZYX"), record)


def test_a_report_compares_with_aligned_slices(drifting, aligned):
    found = report(drifting, aligned, measures=["Q_G"]).measures["Q_G"]
    maps = {"fused": aligned.fused, "decision": aligned.decision}
    unaligned = report(drifting, maps, measures=["Q_G"]).measures["Q_G"]
    assert found[0] > unaligned[0] + 0.05
    assert "transforms" not in report(drifting, aligned, measures=["Q_G"]).text()


def test_a_saved_result_is_compared_with_what_is_wanted_now(
    tmp_path, drifting, aligned
):
    import tifffile

    source, out = tmp_path / "moved.tif", tmp_path / "fused.ome.tif"
    tifffile.imwrite(
        source, drifting, photometric="minisblack", metadata={"axes": "ZYX"}
    )
    given, other = aligned.registration, ff.Registration("affine", 2, SHAPE, (DRIFT,))
    for align in ("similarity", given):
        ff.fuse(source, "sml", align=align).save(out, overwrite=True)
        assert differences_from(out, source, "sml", align=align) == []
        for changed in (None, "affine", other):
            found = differences_from(out, source, "sml", align=changed)
            assert found == ["the settings"]
