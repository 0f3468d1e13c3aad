"""Real candidates on real small stacks, each in its own process."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from napari_focus_fusion.benchmark.candidates import (
    AVERAGE,
    COPY,
    ORACLE,
    Candidate,
    find_candidates,
)
from napari_focus_fusion.benchmark.data import case_of_scene
from napari_focus_fusion.benchmark.measuring import (
    depth_values,
    references_of,
    values_of,
)
from napari_focus_fusion.benchmark.report import summaries, to_csv, to_json, to_markdown
from napari_focus_fusion.benchmark.run import run_benchmark
from napari_focus_fusion.benchmark.worker import prepare
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.simulation.scenes import make_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A grey stack of three slices with two channels, and an RGB pair."""
    place = tmp_path_factory.mktemp("stacks")
    rng = np.random.default_rng(0)
    texture = rng.uniform(20, 235, (2, 48, 60))
    strip = np.arange(60) // 20
    blurred = ndimage.gaussian_filter(texture, (0, 3, 3))
    slices = np.stack([np.where(strip == z, texture, blurred) for z in range(3)])
    tifffile.imwrite(
        place / "channels.ome.tif",
        (slices * 100).astype(np.uint16),  # Z, C, Y, X
        metadata={"axes": "ZCYX"},
        ome=True,
    )
    (place / "pair").mkdir()
    for z in range(2):
        rgb = np.stack([slices[z, 0], slices[z, 1], slices[z, 0] / 2], axis=-1)
        Image.fromarray(rgb.round().astype(np.uint8)).save(place / "pair" / f"{z}.png")
    return place


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "broken.safetensors"
    path.write_bytes(b"not weights at all")
    return path


@pytest.fixture(scope="module")
def table(folder, broken):
    return run_benchmark(
        [str(broken), "sml"],
        ["scenes", str(folder)],
        measures=["PSNR", "SSIM", "Q_G", "sharpness"],
        limit=2,
        device="cpu",
    )


def rows_of(table, data, scope="all"):
    return {
        row["candidate"]: row
        for row in summaries(table)
        if (row["data"], row["scope"], row["origin"]) == (data, scope, "measured")
    }


def test_fusing_beats_doing_nothing_where_the_truth_is_known(table):
    rows = rows_of(table, "scenes")
    assert set(rows) == {"broken", "sml", COPY, AVERAGE, ORACLE}
    for measure in ("PSNR", "SSIM", "sharpness"):
        assert rows["sml"][measure] > rows[AVERAGE][measure]
    assert rows["sml"]["PSNR"] > rows[COPY]["PSNR"] + 3
    assert rows[ORACLE]["depth >1"] == 0
    assert rows[ORACLE]["depth error"] < rows["sml"]["depth error"] < 0.5
    assert "depth error" not in rows[COPY]


def test_a_broken_candidate_is_in_the_table_and_stops_no_other(table, folder):
    for data in ("scenes", folder.name):
        rows = rows_of(table, data)
        assert "broken.safetensors" in rows["broken"]["note"]
        assert rows["broken"]["note"].startswith("failed")
        assert not {"PSNR", "Q_G", "seconds per stack"} & set(rows["broken"])
        assert rows["sml"]["note"] == ""
        assert rows["sml"]["Q_G"] > 0


def test_own_stacks_are_measured_against_their_slices(table, folder):
    rows = rows_of(table, folder.name)
    assert "PSNR" not in rows["sml"]  # the truth is not known
    assert ORACLE not in rows
    assert rows["sml"]["sharpness"] > 1.2 * rows[AVERAGE]["sharpness"]
    one = rows_of(table, folder.name, "stack: channels")["sml"]
    other = rows_of(table, folder.name, "stack: pair")["sml"]
    mean = (one["Q_G"] + other["Q_G"]) / 2
    assert rows["sml"]["Q_G"] == pytest.approx(mean)


def test_what_it_cost_is_in_the_table(table):
    row = rows_of(table, "scenes")["sml"]
    assert row["device"].startswith("cpu")
    assert row["seconds per stack"] > 0
    pixels = 2 * 2 * 384 * 384 / 1e6
    expected = pixels / (2 * row["seconds per stack"])
    assert row["megapixel slices per second"] == pytest.approx(expected)
    # PyTorch alone holds more; two such small stacks need nothing like the other.
    assert 100 < row["peak MB"] < 2000
    for name in (COPY, AVERAGE, ORACLE):
        assert "seconds per stack" not in rows_of(table, "scenes")[name]


def test_every_stack_has_a_hash_and_every_data_set_a_sheet(table, folder):
    for data in table.data_sets:
        assert all(len(stack["sha256"]) == 64 for stack in data["stacks"])
        (sheet,) = table.sheets[data["name"]].values()
        assert sheet.dtype == np.uint8 and sheet.std() > 10


def without_cost(table):
    same = copy.deepcopy(table)
    for score in same.scores:
        score.cost.clear()
    for run in same.runs:
        run.peak_mb = None
    rows = summaries(same)
    texts = to_markdown(same, rows, {}, ""), to_csv(rows), to_json(same, rows, "")
    sheets = {name: sheet.tobytes() for name, sheet in all_sheets(same)}
    return texts, sheets


def all_sheets(table):
    for data, images in table.sheets.items():
        for stack, sheet in images.items():
            yield f"{data} {stack}", sheet


def test_the_same_seed_gives_the_same_table(folder):
    first, again = (
        run_benchmark(
            ["sesf"],
            [str(folder)],
            untrained=True,
            measures=["Q_G", "Q_MI"],
            limit=1,
            device="cpu",
        )
        for _ in range(2)
    )
    assert without_cost(first) == without_cost(again)
    row = rows_of(first, folder.name)["sesf, untrained"]
    assert row["version"] == "seed 0"
    assert row["Q_G"] > 0


def test_untrained_weights_come_from_the_seed(folder):
    stack = as_stack(folder / "channels.ome.tif")

    def depth(seed):
        fuser, _ = prepare("untrained", "sesf", seed, "cpu", {})
        return fuser(stack, 1)["depth"]

    np.testing.assert_array_equal(depth(0), depth(0))
    assert (depth(0) != depth(1)).any()


def test_what_a_name_stands_for(monkeypatch):
    twin = Candidate("sesf, untrained", "untrained", "sesf")
    sesf, sml = (Candidate(name, "model", name) for name in ("sesf", "sml"))
    assert find_candidates(["sml", "sesf:untrained"]) == [sml, twin]
    # sml has no weights, so it has no twin.
    assert find_candidates(["sml", "sesf"], untrained=True) == [sml, sesf, twin]
    two, by = find_candidates(["affinity-sr:two-step", "affinity-sr:sesf"])
    assert (two.target, two.options) == ("affinity-sr", {"joint": False})
    assert (by.name, by.options) == (
        "affinity-sr, decision of sesf",
        {"decision": "sesf"},
    )
    (mine,) = find_candidates(["folder/mine.safetensors"])
    assert mine == Candidate("mine", "model", "folder/mine.safetensors")
    with pytest.raises(FocusFusionError, match="no model 'sesv' that could be left"):
        find_candidates(["sesv:untrained"])
    with pytest.raises(FocusFusionError, match="Two models have one name"):
        find_candidates(["sesf", "sesf"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FocusFusionError, match="enfuse is not installed: apt"):
        find_candidates(["enfuse"])


def test_only_what_can_be_trained_can_be_left_untrained():
    with pytest.raises(FocusFusionError, match="has no weights to be left untrained"):
        prepare("untrained", "sml", 0, "cpu", {})


def test_options_are_handed_on(folder):
    stack = as_stack(folder / "channels.ome.tif")
    fine, broad = (
        prepare("model", "sml", 0, "cpu", {"smoothness": n, "surface": 0})[0](stack, 1)
        for n in (0, 10)
    )
    assert (fine["decision"] != broad["decision"]).any()


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_programs_that_fail_or_take_everything_down(folder, tmp_path, monkeypatch):
    """Two programs that stand in for real ones: one fails, one kills its caller."""
    for name, last in (
        ("enfuse", "echo 'no space left' >&2; exit 3"),
        ("focus-stack", "kill -9 $PPID"),
    ):
        script = tmp_path / name
        script.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo {name} 1.0 && exit\n{last}\n'
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    table = run_benchmark(
        ["sml"], [str(folder)], peers=True, measures=["Q_G"], sheets=0, device="cpu"
    )
    rows = rows_of(table, folder.name)
    assert "no space left" in rows["enfuse"]["note"]
    assert "failed on 2 of 2 stacks" in rows["enfuse"]["note"]
    killed = rows["focus-stack (complex wavelets)"]
    assert "exit status -9" in killed["note"]
    assert "Q_G" not in killed
    assert rows["sml"]["Q_G"] > rows[AVERAGE]["Q_G"]
    assert "failed" in to_markdown(table, summaries(table), {}, "")


def test_a_stack_that_cannot_be_measured_stops_no_other(folder, tmp_path):
    shutil.copytree(folder / "pair", tmp_path / "good")
    noise = np.random.default_rng(0).random((3, 40, 44), np.float32)
    noise[1, 20, 20] = np.nan
    path = tmp_path / "nan.ome.tif"
    tifffile.imwrite(path, noise, metadata={"axes": "ZYX"}, ome=True)
    table = run_benchmark(
        ["sml"], [str(tmp_path)], measures=["Q_G", "Q_P"], device="cpu"
    )
    for candidate in ("sml", COPY):
        good = rows_of(table, tmp_path.name, "stack: good")[candidate]
        assert good["note"] == "" and good["Q_P"] > 0
        note = rows_of(table, tmp_path.name)[candidate]["note"]
        assert note.startswith("failed on 1 of 2 stacks: nan: ")
        assert "NaN" in note


def test_the_range_of_the_truth_counts_with_and_without_q_p():
    scene = make_scene(1_000_002, shape=(64, 64), slices=3, exposure=0.5)
    case = case_of_scene("dim", scene)
    truth = scene.truth.astype(float)
    image = scene.stack[1]
    squared = np.mean((image - truth) ** 2)
    expected = 10 * np.log10(np.ptp(truth) ** 2 / squared)
    for names in (("PSNR",), ("PSNR", "Q_P")):
        references = references_of(case, "Q_P" in names)
        found = values_of(case, [image], references, names)
        assert found["PSNR"] == pytest.approx(expected)


def test_depth_counts_where_the_truth_has_texture():
    scene = make_scene(
        1_000_001, shape=(96, 96), slices=6, surface="steps", electrons=None
    )
    case = case_of_scene("steps", scene)
    exact = depth_values(case, scene.depth)
    assert exact == {"depth error": 0, "depth >1": 0, "depth edge": 0}
    elsewhere = np.where(scene.textured, scene.depth, 77)
    assert depth_values(case, elsewhere) == exact
    off = np.where(scene.edges, scene.depth + 2, scene.depth)
    values = depth_values(case, off)
    band = scene.edges[scene.textured].mean()
    assert values["depth edge"] == pytest.approx(2, abs=1e-5)
    assert values["depth >1"] == pytest.approx(band)
    assert values["depth error"] == pytest.approx(2 * band, abs=1e-5)


def test_memory_is_that_of_the_program_and_not_of_its_parent():
    """The kernel's other count starts at what the parent held."""
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has that count")
    ask = (
        "from napari_focus_fusion.benchmark.worker import peak_memory as p; print(p())"
    )
    script = f"""
import subprocess, sys
held = bytearray(400_000_000)
held[::4096] = bytes([1]) * len(held[::4096])
subprocess.run([sys.executable, "-c", {ask!r}], check=True)
"""
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert 10e6 < int(printed.stdout) < 300e6


def test_what_cannot_be_measured_is_said_before_the_work(tmp_path, folder):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "single.png")
    with pytest.raises(FocusFusionError, match="'single' has 1 slice"):
        run_benchmark(["sml"], [str(folder), str(tmp_path)])
    with pytest.raises(FocusFusionError, match="Two data sets have one name"):
        run_benchmark(["sml"], [str(folder), str(folder)])
    with pytest.raises(FocusFusionError, match="no measure 'Q_X'"):
        run_benchmark(["sml"], [str(folder)], measures=["Q_X"])
