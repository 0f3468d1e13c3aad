"""Families of scenes and real stacks: from the command to the pages, and resumed."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from napari_focus_fusion.benchmark import families
from napari_focus_fusion.benchmark.candidates import find_candidates
from napari_focus_fusion.benchmark.data import DATA_VARIABLE
from napari_focus_fusion.benchmark.families import family_methods, run_families
from napari_focus_fusion.benchmark.judging import (
    BEST_SLICE,
    MAXIMUM,
    MEAN,
    MIDDLE_SLICE,
    Judgement,
    judge,
)
from napari_focus_fusion.benchmark.pages import PLAIN, behind, mean_of
from napari_focus_fusion.cli import main
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.simulation.families import FAMILIES, Family, FamilyScene
from napari_focus_fusion.simulation.scenes import make_scene

SMALL = {"shape": (64, 72), "electrons": None, "blur_per_slice": 1.5}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """One family of a surface in four slices, and a pair."""
    scenes = (
        FamilyScene("2 slices", 1_900_000, make_scene, SMALL | {"slices": 2}),
        FamilyScene("4 slices", 1_900_001, make_scene, SMALL | {"slices": 4}),
    )
    monkeypatch.setitem(FAMILIES, "small", Family("small", "Two stacks.", scenes))


@pytest.fixture
def real(tmp_path, monkeypatch):
    """A folder of real stacks that has one of them."""
    place = tmp_path / "data" / "keyboard32"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 255, (40, 400, 3)).astype(np.float32)
    soft = ndimage.gaussian_filter(sharp, (2, 2, 0))
    half = np.arange(400)[:, None] < 200
    for z, image in enumerate(
        (np.where(half, sharp, soft), np.where(half, soft, sharp))
    ):
        Image.fromarray(image.astype(np.uint8)).save(place / f"{z}.png")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))
    return place


def records(work):
    """When each result was made."""
    return {
        str(path.relative_to(work)): path.stat().st_mtime_ns
        for path in work.rglob("record.json")
    }


def test_from_the_command_to_the_pages(real, tmp_path, capsys):
    work, out = tmp_path / "work", tmp_path / "pages"
    command = ["benchmark", "--families", "small", "--stacks", "keyboard32,golgi25"]
    command += ["--methods", "sml:surface=0,residual-zero:surface=0", "--device", "cpu"]
    command += ["--work", str(work), "-o", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "residual-zero, surface 0 (2 of 2): 3 of 3, keyboard32" in printed.err
    assert "golgi25 was left out: there is no 'golgi25'" in printed.err
    written = [line.rpartition("/")[2] for line in printed.out.splitlines()]
    assert set(written) == {
        "families.md",
        "families-small.md",
        "families-small.jpg",
        "families-reliability.png",
        "families-cost.png",
        "families.csv",
        "real-stacks.md",
        "real-keyboard32.jpg",
    }
    with open(out / "families.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    psnr = {(row["stack"], row["method"]): row["PSNR"] for row in rows}
    for method in (
        PLAIN,
        "residual-zero, surface 0",
        BEST_SLICE,
        MIDDLE_SLICE,
        MAXIMUM,
        MEAN,
    ):
        mean = np.mean([float(psnr[s, method]) for s in ("2 slices", "4 slices")])
        text = (out / "families-small.md").read_text(encoding="utf-8")
        line = next(li for li in text.splitlines() if li.startswith(f"| {method} |"))
        assert f"| {mean:.2f} |" in line
    pair = next(r for r in rows if (r["stack"], r["method"]) == ("2 slices", PLAIN))
    assert pair["depth error"] and not pair["depth >1"] and not pair["coverage"]
    overview = (out / "families.md").read_text(encoding="utf-8")
    typed = "--families small --stacks keyboard32,golgi25 --methods sml:surface=0,resi"
    assert typed in overview
    assert "## How far to trust the confidence" in overview
    page = (out / "real-stacks.md").read_text(encoding="utf-8")
    assert "off the median" in page and "![keyboard32](real-keyboard32.jpg)" in page
    assert "- golgi25: there is no 'golgi25'" in page
    for name in re.findall(r"!\[.*?\]\((.*?)\)", page + overview):
        assert np.asarray(Image.open(out / name)).std() > 10

    # Everything is there: nothing is fused again.
    before = records(work)
    assert len(before) == 6
    assert main(command) == 0
    assert "of 3" not in capsys.readouterr().err
    assert records(work) == before


def run(work, methods=("sml:surface=0",), log=lambda text: None):
    return run_families(["small"], methods, [], work, device="cpu", log=log)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    def interrupt(text):
        if "2 of 2" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, log=interrupt)
    (first,) = before = records(tmp_path)
    assert "2_slices" in first
    results = run(tmp_path)
    after = records(tmp_path)
    assert len(after) == 2 and after[first] == before[first]
    assert len(judge(results, lambda text: None)) == 2 * (4 + 1)
    (of,) = results.sets
    case = of.cases[1]
    outcome = results.outcome(of, case, results.methods[0])
    off = np.abs(outcome.maps["depth"] - case.truth.depth)[case.truth.textured]
    assert np.median(off) < 0.5
    assert outcome.images[0].shape == (64, 72) and outcome.seconds > 0


def test_what_is_half_written_or_out_of_date_is_made_again(tmp_path, monkeypatch):
    run(tmp_path)
    one, other = records(tmp_path)
    (tmp_path / one).write_text("{", encoding="utf-8")
    before = records(tmp_path)
    run(tmp_path)
    after = records(tmp_path)
    assert after[one] > before[one] and after[other] == before[other]
    # The code has changed.
    monkeypatch.setattr(families, "code_hash", lambda: "0" * 64)
    run(tmp_path)
    again = records(tmp_path)
    assert again[one] > after[one] and again[other] > after[other]


def test_a_method_that_fails_is_on_the_page_and_stops_no_other(tmp_path, capsys):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights at all")
    command = ["benchmark", "--families", "small", "--quick", "--device", "cpu"]
    command += ["--methods", f"{broken},sml:surface=0", "--json"]
    command += ["--work", str(tmp_path / "work"), "-o", str(tmp_path / "out")]
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "small, 4 slices: broken failed: " in printed.err
    assert json.loads(printed.out)["outputs"][0].endswith("families.md")
    page = (tmp_path / "out" / "families-small.md").read_text(encoding="utf-8")
    assert "- broken on small, 4 slices: " in page
    line = next(li for li in page.splitlines() if li.startswith(f"| {PLAIN} |"))
    assert float(line.split("|")[2]) > 20


def test_quick_takes_one_scene_and_the_middle_of_a_stack(real, tmp_path):
    quick = families.family_set(FAMILIES["small"], tmp_path, quick=True)
    assert [case.name for case in quick.cases] == ["4 slices"]
    ((stack,), skipped) = families.real_sets(["keyboard32"], quick=True)
    assert not skipped
    (case,) = stack.cases
    assert (case.stack.height, case.stack.width) == (40, 320)


def test_scenes_are_drawn_once(tmp_path, monkeypatch):
    first = families.family_set(FAMILIES["small"], tmp_path)
    monkeypatch.setattr(FamilyScene, "make", None)
    again = families.family_set(FAMILIES["small"], tmp_path)
    for one, other in zip(first.cases, again.cases, strict=True):
        assert one.sha256 == other.sha256
        assert np.array_equal(one.truth.image, other.truth.image)
        assert np.array_equal(one.truth.textured, other.truth.textured)
    # Other options are another scene.
    (old, *_) = FAMILIES["small"].scenes
    new = FamilyScene(old.name, old.seed + 7, old.render, old.options)
    with pytest.raises(TypeError):
        families.family_set(Family("small", "", (new,)), tmp_path)


def test_real_stacks_without_a_folder_are_left_out(monkeypatch, tmp_path):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    assert families.real_sets(["keyboard32"]) == (
        [],
        {"keyboard32": f"{DATA_VARIABLE} is not set"},
    )
    with pytest.raises(FocusFusionError, match="'nowhere' is neither a real stack"):
        families.real_sets(["nowhere"])


def test_a_stack_without_a_licence_is_measured_but_not_drawn(real, tmp_path):
    real.rename(real.with_name("wbc10"))
    command = ["benchmark", "--stacks", "wbc10", "--methods", "sml:surface=0"]
    command += ["--work", str(tmp_path / "work"), "-o", str(tmp_path / "pages")]
    assert main([*command, "--device", "cpu"]) == 0
    page = (tmp_path / "pages" / "real-stacks.md").read_text(encoding="utf-8")
    assert "states no licence" in page and "off the median" in page
    assert "![" not in page and not list((tmp_path / "pages").glob("*.jpg"))


def test_methods_by_name_and_in_groups():
    ours, missing = family_methods(["ours"])
    names = [method.name for method in ours]
    assert names[0].startswith("default (") and not missing
    assert {"sml, surface 0", "sml, surface 1", "mscnn, surface 1"} <= set(names)
    assert ours[0].options == {}
    everything, missing = family_methods(["all", "default", "sml:surface=1"])
    assert len(everything) == len({method.name for method in everything})
    assert len(everything) + len(missing) == len(ours) + len(families.PEERS)
    with pytest.raises(FocusFusionError, match="There is no family 'nothing'"):
        run_families(["nothing"], ["ours"], [], None)


def test_the_strength_of_the_surface_goes_with_a_model():
    (candidate,) = find_candidates(["sml:surface=0.5"])
    assert candidate.name == "sml, surface 0.5"
    assert candidate.options == {"surface": 0.5}
    with pytest.raises(FocusFusionError, match="is a number, like sml:surface=1"):
        find_candidates(["sml:surface=much"])


def test_what_is_behind_is_counted_against_the_better_of_two():
    def of(stack, method, psnr):
        return Judgement("a", stack, method, {"PSNR": psnr})

    judged = [
        *(of(s, PLAIN, p) for s, p in (("1", 30.0), ("2", 20.0))),
        *(of(s, BEST_SLICE, p) for s, p in (("1", 25.0), ("2", 28.0))),
        *(of(s, "new", p) for s, p in (("1", 29.97), ("2", 26.5))),
    ]
    line = behind(judged, (PLAIN, BEST_SLICE)).splitlines()[-1]
    assert line == "| new | 1 of 2 | -1.50 (a: 2) |"


def test_means_leave_out_methods_that_failed():
    good = Judgement("a", "1", "m", {"PSNR": 30.0})
    assert mean_of([good], "PSNR") == 30
    assert mean_of([good, Judgement("a", "2", "m", error="no")], "PSNR") is None
    assert mean_of([good], "coverage") is None
