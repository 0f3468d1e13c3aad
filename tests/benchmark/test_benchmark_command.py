"""The command ``benchmark``."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_focus_fusion.benchmark.data import DATA_VARIABLE
from napari_focus_fusion.cli import main


@pytest.fixture
def stacks(tmp_path):
    """A folder whose name has a comma in it, with one stack."""
    place = tmp_path / "dishes 1, 2"
    place.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 40), np.uint8)
    tifffile.imwrite(place / "a.ome.tif", pixels, metadata={"axes": "ZYX"}, ome=True)
    return place


def test_from_the_command_to_the_files(stacks, tmp_path, capsys):
    out = tmp_path / "results"
    command = ["benchmark", "--data", str(stacks), "--measures", "Q_G,sharpness"]
    command += ["--models", "sml", "--device", "cpu", "-o", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        str(out / name)
        for name in (
            "benchmark.md",
            "benchmark.csv",
            "benchmark.json",
            "dishes_1_2-a.png",
        )
    ]
    assert "sml fusing 1 of 1, a" in printed.err  # progress goes to standard error
    text = (out / "benchmark.md").read_text(encoding="utf-8")
    assert f"benchmark --models sml --data '{stacks}' --measures Q_G,sharpness" in text
    with open(out / "benchmark.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["candidate"] for row in rows} == {
        "sml",
        "copy of the first slice",
        "average of the slices",
    }
    whole = json.loads((out / "benchmark.json").read_text(encoding="utf-8"))
    assert whole["settings"]["seed"] == 0
    assert np.asarray(Image.open(out / "dishes_1_2-a.png")).std() > 10

    # Nothing is replaced unless that is said.
    assert main(command) == 1
    assert "exists" in capsys.readouterr().err


def test_missing_data_are_said_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    out = tmp_path / "results"
    assert main(["benchmark", "--data", "lytro-x2", "-o", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "FOCUS_FUSION_DATA is not set" in line
    assert main(["benchmark", "--data", "nowhere", "-o", str(out)]) == 1
    assert "'nowhere' is neither a data set" in capsys.readouterr().err


def test_a_candidate_that_fails_is_in_the_exit_code(stacks, tmp_path, capsys):
    out = tmp_path / "results"
    command = ["benchmark", "--data", str(stacks), "--measures", "Q_G", "--sheets", "0"]
    assert main([*command, "--models", "sml,nothing", "--json", "-o", str(out)]) == 1
    printed = capsys.readouterr()
    assert "nothing failed: There is no model 'nothing'" in printed.err
    rows = json.loads(printed.out)["rows"]
    whole = {row["candidate"]: row for row in rows if row["scope"] == "all"}
    assert whole["sml"]["Q_G"] > 0
    assert "Q_G" not in whole["nothing"]


@pytest.mark.parametrize("limit", ["0", "-1", "two"])
def test_limits_that_make_no_sense(limit, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", "--limit", limit, "-o", "x"])
    assert stopped.value.code == 2
    assert "above 0" in capsys.readouterr().err or limit == "-1"
