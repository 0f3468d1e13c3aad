"""Reports: counts, measures and the findings in words."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_focus_fusion import Cancelled, FocusFusionError, as_stack, evaluate, fuse
from napari_focus_fusion.cli import main
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.metrics import sharpness
from napari_focus_fusion.report import histogram, load_result, report
from napari_focus_fusion.simulation.scenes import make_scene

SCENE = make_scene(
    1_000_001,
    shape=(90, 120),
    slices=12,
    surface="relief",
    content="leaves",
    electrons=3000.0,
    span=(2, 9),
)
QUICK = ("Q_G", "Q_S")


@pytest.fixture(scope="module")
def result():
    return fuse(as_stack(SCENE.stack, axes="ZYX", name="mine"), "sml", device="cpu")


def test_measures_and_shares_are_those_of_the_stack(result):
    found = report(result.stack, result)
    expected = evaluate(result.fused, SCENE.stack)
    assert set(found.measures) == set(expected)
    for name, values in found.measures.items():
        assert values == pytest.approx((expected[name],))
    assert found.measured_on == "on the whole image"
    counted = np.bincount(result.decision.ravel(), minlength=12)
    np.testing.assert_allclose(found.share, counted / counted.sum())
    clear = result.confidence >= 0.2
    counted = np.bincount(result.decision[clear], minlength=12)
    np.testing.assert_allclose(found.clear_share, counted / counted.sum())
    assert found.low_confidence == pytest.approx(1 - clear.mean())
    span = (float(SCENE.stack.min()), float(SCENE.stack.max()))
    for z, plane in enumerate(SCENE.stack):
        assert found.slice_sharpness[z] == pytest.approx(
            sharpness(plane, data_range=span)
        )
    # The fused image is the sharpest.
    assert found.sharpness > max(found.slice_sharpness)
    assert found.provenance == result.provenance


@pytest.mark.parametrize(
    ("kept", "clipped_ends", "words"),
    [
        (slice(0, 12), (), "no sign that the stack is too short"),
        (slice(6, 12), (0,), "in the first slice (0): the stack may be too short"),
        (slice(0, 6), (5,), "in the last slice (5): the stack may be too short"),
        (slice(3, 7), (0, 3), "take more slices before it"),
    ],
)
def test_stacks_that_are_too_short(kept, clipped_ends, words):
    stack = as_stack(SCENE.stack[kept], axes="ZYX")
    found = report(stack, fuse(stack, "sml", device="cpu"), measures=())
    assert found.clipped_ends == clipped_ends
    assert any(words in sentence for sentence in found.verdict)
    assert ("no sign" in found.text()) == (not clipped_ends)


def test_unused_slices(result):
    found = report(result.stack, result, measures=())
    used = np.flatnonzero(np.array(found.clear_share) > 0.001)
    assert 1 < used[0] and used[-1] < 10
    assert f"The first {used[0]} slices are hardly used." in found.verdict
    assert f"The last {11 - used[-1]} slices are hardly used." in found.verdict


def test_where_there_are_no_findings(result):
    stack = result.stack
    alone = report(stack, {"fused": result.fused}, measures=QUICK)
    assert alone.share == () and alone.low_confidence is None
    assert alone.verdict == (
        "Without a decision map nothing can be said about the slices.",
    )
    unsure = replace(result, confidence=result.confidence * 0)
    said = report(stack, unsure, measures=()).verdict
    assert "Too few pixels are clear to say whether the stack is long enough." in said
    two = as_stack(SCENE.stack[:2], axes="ZYX")
    said = report(two, fuse(two, "sml", device="cpu"), measures=()).verdict
    assert any("fewer than three slices" in sentence for sentence in said)
    one = as_stack(SCENE.stack[:1], axes="ZYX")
    assert report(one, fuse(one, "sml", device="cpu")).measures == {}
    noted = {**result.provenance, "notes": ["Look at the map."]}
    said = report(stack, replace(result, provenance=noted), measures=()).verdict
    assert said[0] == "Look at the map."


def test_a_map_without_confidence_counts_all_pixels(result):
    given = {"fused": result.fused, "decision": result.decision}
    found = report(result.stack, given, measures=())
    assert found.share == found.clear_share
    assert "plain background included" in found.text()


class Watched(LazyArray):
    """A stack that notes how much of it is read."""

    def __init__(self, pixels):
        super().__init__(pixels.shape, pixels.dtype, None)
        self.pixels, self.read = pixels, 0

    def _region(self, spans):
        region = self.pixels[spans]
        self.read += region.size
        return region


def test_of_large_stacks_one_window_is_read(monkeypatch):
    monkeypatch.setattr("napari_focus_fusion.report.MAX_PIXELS", 12 * 64 * 64)
    pixels = np.full((12, 300, 400), 7, np.uint16)
    pixels[:, 210:300, 280:400] = SCENE.stack  # only here is something to be seen
    watched = Watched(pixels)
    stack = as_stack(watched, axes="ZYX")
    fused = fuse(pixels, "sml", axes="ZYX", device="cpu").fused
    found = report(stack, {"fused": fused}, measures=("Q_G", "Q_S"))
    assert watched.read == 12 * 64 * 64
    assert "64 x 64 pixels with most detail of nine windows" in found.measured_on
    assert "rows 236 to 299, columns 336 to 399" in found.measured_on
    window = (slice(236, 300), slice(336, 400))
    expected = evaluate(fused[window], pixels[:, *window], measures=["Q_G"])
    assert found.measures["Q_G"] == pytest.approx((expected["Q_G"],))


def test_channels_time_and_colour(result):
    movie = np.stack([SCENE.stack, SCENE.stack[::-1]])[:, None]
    movie = np.concatenate([movie, movie[..., ::-1, :]], 1)
    stack = as_stack(movie, axes="TCZYX", channel_names=("red", "green"))
    both = fuse(stack, "sml", device="cpu")
    found = report(stack, both, t=1, measures=QUICK)
    for channel in range(2):
        expected = evaluate(both.fused[1, channel], movie[1, channel], measures=QUICK)
        for name in QUICK:
            assert found.measures[name][channel] == pytest.approx(expected[name])
    counted = np.bincount(both.decision[1].ravel(), minlength=12)
    np.testing.assert_allclose(found.share, counted / counted.sum())
    assert "time point 1 of 0 to 1" in found.holds
    assert any(name == "Q_G green" for _, name, _ in found.rows())
    assert "channels: red, green" in found.text()

    colours = np.stack([SCENE.stack >> 8] * 3 + [SCENE.stack * 0 + 255], -1)
    rgba = as_stack(colours.astype(np.uint8), axes="ZYXS")
    fused = fuse(rgba, "sml", device="cpu").fused
    found = report(rgba, {"fused": fused}, measures=QUICK)
    expected = evaluate(fused[..., :3], rgba.data[..., :3], measures=QUICK)
    assert found.measures["Q_G"] == pytest.approx((expected["Q_G"],))


def test_super_resolved_images_are_averaged(result):
    finer = result.fused.repeat(2, 0).repeat(2, 1)
    plain = report(result.stack, {"fused": result.fused}, measures=QUICK)
    found = report(result.stack, {"fused": finer}, measures=QUICK)
    assert found.measures == plain.measures
    assert found.measured_on.endswith("2 x 2 pixels averaged")


def test_progress_and_stopping(result):
    seen = []
    report(result.stack, result, measures=QUICK, progress=seen.append)
    assert seen[-1].done == seen[-1].total and seen[-1].stage == "Done"
    with pytest.raises(Cancelled):
        report(result.stack, result, measures=QUICK, should_stop=lambda: True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"fused": np.zeros((90, 60))}, r"shape \(90, 60\).*made of this stack"),
        ({"fused": np.zeros((2, 90, 120))}, r"shape \(2, 90, 120\)"),
        ({"decision": np.zeros((9, 12), int)}, "The decision map has the shape"),
        ({"confidence": np.zeros((9, 12))}, "The confidence map has the shape"),
        ({"decision": np.full((90, 120), 12)}, "names slice 12"),
    ],
)
def test_what_does_not_fit(result, change, text):
    given = {"fused": result.fused, **change}
    with pytest.raises(FocusFusionError, match=text):
        report(result.stack, given, measures=())
    with pytest.raises(FocusFusionError, match="there is no 1"):
        report(result.stack, result, t=1)


def test_csv(result, tmp_path):
    found = report(result.stack, result, measures=QUICK)
    path = found.save_csv(tmp_path / "r.csv")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["section", "name", "value"]
    table = {(section, name): value for section, name, value in rows[1:]}
    assert float(table["measures", "Q_G"]) == pytest.approx(
        found.measures["Q_G"][0], abs=1e-4
    )
    shares = [float(table["share of all pixels", f"slice {z}"]) for z in range(12)]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert table["provenance", "parameters blend"] == "feather"
    with pytest.raises(FocusFusionError, match="exists already"):
        found.save_csv(path)
    found.save_csv(path, overwrite=True)


def test_charts(result, tmp_path):
    """Bars are as high as the shares, and orange where the stack may be too short."""
    found = replace(
        report(result.stack, result, measures=()),
        share=(0.5, 0.25, 0.25),
        clear_share=(0.5, 0.5, 0.0),
        clipped_ends=(0,),
    )
    chart = histogram(found, 400, 200)
    assert chart.shape == (200, 400, 3)
    orange = (chart == (224, 122, 31)).all(-1)
    blue = (chart == (42, 120, 190)).all(-1)
    pale = (chart == (170, 170, 170)).all(-1)
    high = [colour.any(1).sum() for colour in (orange, blue)]
    assert high[0] == high[1] > 100
    columns = np.flatnonzero(pale.any(0))
    quarter = pale[:, columns[-1]].sum()
    assert quarter == pytest.approx(high[0] / 2, abs=2)
    assert np.flatnonzero(orange.any(0)).max() < np.flatnonzero(blue.any(0)).min()

    path = found.save_png(tmp_path / "r.png")
    with Image.open(path) as image:
        assert image.width == 800
        assert (np.asarray(image)[300:] < 128).any()  # the text
    long = replace(found, verdict=("many words " * 60,))
    assert long.draw().shape[0] > found.draw().shape[0]
    # Also with no map, or more slices than pixels.
    assert histogram(replace(found, share=(), clear_share=()), 200, 100).any()
    many = tuple(np.full(900, 1 / 900))
    assert histogram(replace(found, share=many, clear_share=many), 200, 100).any()


@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
def test_of_saved_results(result, tmp_path, ending):
    path, *_ = result.save(tmp_path / f"fused{ending}")
    loaded = load_result(path, result.stack)
    found = report(result.stack, loaded, measures=QUICK)
    expected = report(result.stack, result, measures=QUICK)
    assert found.measures == expected.measures
    assert found.clear_share == expected.clear_share
    assert found.provenance["model"] == "sml"


def test_on_the_command_line(result, tmp_path, capsys):
    path, *_ = result.save(tmp_path / "fused.ome.tif")
    files = []
    for z, plane in enumerate(SCENE.stack):
        files.append(str(tmp_path / f"{z:02}.tif"))
        tifffile.imwrite(files[-1], plane)
    table, chart = tmp_path / "r.csv", tmp_path / "r.png"
    options = ["--csv", str(table), "--png", str(chart)]
    assert main(["report", str(path), *files, *options]) == 0
    expected = report(result.stack, result)
    assert "\n".join(expected.verdict) in capsys.readouterr().out
    assert table.exists() and chart.exists()
    assert main(["report", str(path), *files, *options]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["report", str(path), *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["measures"]["Q_G"] == list(expected.measures["Q_G"])
    assert main(["report", str(path), *files, "--time", "3"]) == 1


def test_results_without_maps_and_what_is_none(result, tmp_path):
    path, *maps = result.save(tmp_path / "fused.tif")
    for file in maps:
        file.unlink()
    assert set(load_result(path, result.stack)) == {"fused", "provenance"}
    with pytest.raises(FocusFusionError, match="no result of a fusion"):
        load_result(tmp_path / "nothing.ome.zarr", result.stack)
