"""The command fuse over folders of stacks: patterns, dry runs, resuming, one table."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from command_line import FAST, focus_stack, report_of

from napari_focus_fusion.cli import main
from napari_focus_fusion.jobs import find_jobs

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "ZYX"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two days of stacks of equal names, a folder of slices, and what is no stack."""
    folder = tmp_path / "my data [1]"
    for day in ("day 1", "day 2"):
        write(folder / day / "left_raw.tif", focus_stack(3))
        write(folder / day / "left_mask.tif", np.zeros((3, 48, 60), np.uint8))
    for z, plane in enumerate(focus_stack(4)):
        (folder / "slices").mkdir(exist_ok=True)
        tifffile.imwrite(folder / "slices" / f"z{z}_raw.tif", plane, metadata=None)
    (folder / "notes.txt").write_text("Dear reader")
    return folder


def rows_of(table: Path) -> list[dict[str, Any]]:
    if table.suffix == ".json":
        found = json.loads(table.read_text())["rows"]
        assert isinstance(found, list)
        return found
    with table.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_pattern_chooses_in_all_folders(data: Path) -> None:
    jobs, failures = find_jobs([str(data)], pattern="**/*_raw.tif")
    assert not failures
    found = {job.name: len(job.files) for job in jobs}
    assert found == {"day 1_left_raw": 1, "day 2_left_raw": 1, "slices": 4}
    jobs, _ = find_jobs([str(data)], pattern="day*")  # folders, as they are
    assert len(jobs) == 4
    jobs, ((where, text),) = find_jobs([str(data)], pattern="*_raw.tif")
    assert (jobs, where) == ([], str(data))
    assert "matches '*_raw.tif'" in text
    assert "**/" in text


def test_a_dry_run_lists_and_writes_nothing(
    data: Path, tmp_path: Path, capsys: Any
) -> None:
    out, before = tmp_path / "out", sorted(tmp_path.rglob("*"))
    command = ["fuse", str(data), "-o", str(out), "--dry-run", *FAST]
    pattern = ["--pattern", "**/*_raw.tif", "--pixel-size", "Z=0.5"]
    assert main([*command, *pattern, "--json"]) == 0
    report = report_of(capsys)
    assert (report["to_be_fused"], report["failed"]) == (3, 0)
    last = report["results"][-1]
    assert (last["axes"], last["shape"], last["slices"]) == ("ZYX", [4, 48, 80], 4)
    assert last["pixel_size"]["Z"] == [0.5, "pixel"]
    assert last["working_memory"] > 4 * 48 * 80
    assert last["result_bytes"] > 48 * 80
    assert main([*command, *pattern]) == 0
    printed = capsys.readouterr().out
    assert "slices: to be fused; ZYX 4 x 48 x 80 uint8, 4 slices, about" in printed
    assert "z0_raw.tif ... " in printed
    assert sorted(tmp_path.rglob("*")) == before
    # What would be refused is refused here.
    tifffile.imwrite(data / "no_raw.ome.tif", focus_stack(), ome=True)
    assert main([*command, "--pattern", "*_raw*"]) == 1
    assert "tagged as 3 channels" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_one_table_of_all_results_also_of_those_of_earlier_calls(
    suffix: str, data: Path, tmp_path: Path, capsys: Any
) -> None:
    table = tmp_path / f"table{suffix}"
    command = ["fuse", str(data), "-o", str(tmp_path / "out"), "--table", str(table)]
    command += ["--resume", *FAST]
    assert main([*command, "--pattern", "day 1/*_raw.tif"]) == 0
    (data / "day 2" / "broken_raw.tif").write_bytes(b"no TIFF")
    # A table of ours is made again; another file is not replaced.
    assert main([*command, "--pattern", "day */*_raw.tif"]) == 1
    rows = rows_of(table)
    status = {row["name"]: row["status"] for row in rows}
    assert status == {
        "day 1_left_raw": "fused before",
        "day 2_left_raw": "fused",
        "day 2_broken_raw": "failed",
    }
    done = next(row for row in rows if row["status"] == "fused")
    assert (int(done["slices"]), int(done["slices_used"])) == (3, 3)
    assert 0.5 < float(done["confident"]) <= 1
    assert "no TIFF" not in done["notes"]
    broken = next(row for row in rows if row["status"] == "failed")
    assert "broken_raw.tif" in broken["error"]
    assert main([*command, "--pattern", "day */left_raw.tif"]) == 0
    assert "2 fused before" in capsys.readouterr().out
    again = (
        rows_of(table) if suffix == ".csv" else json.loads(table.read_text())["rows"]
    )
    assert [row["status"] for row in again] == ["fused before"] * 2
    first = again[1]
    for column in ("slices_used", "confident", "drift", "notes", "axes"):
        assert first[column] == done[column]
    table.write_text("mine")
    assert main([*command, "--pattern", "day */left_raw.tif"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert table.read_text() == "mine"


def test_tables_of_other_kinds_are_refused(data: Path, capsys: Any) -> None:
    command = ["fuse", str(data), "-o", "out", "--table", "table.xlsx"]
    assert main([*command, "--pattern", "slices"]) == 2
    assert "use .csv or .json" in capsys.readouterr().err


def test_equal_names_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", focus_stack())
    write(tmp_path / "a.btf", focus_stack())
    jobs, _ = find_jobs([str(tmp_path)])
    assert sorted(job.name for job in jobs) == ["a_btf", "a_tif"]
