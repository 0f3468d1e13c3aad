"""Folders, data sets and stacks that are none, on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from command_line import FAST, focus_stack, report_of, run
from PIL import Image

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main
from small_ome_sets import planes, write_set

if TYPE_CHECKING:
    from pathlib import Path


def test_a_data_set_is_fused_once(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "day").mkdir()
    write_set(tmp_path / "day", planes(1, 1, 3))
    command = ["fuse", str(tmp_path / "day"), "-o", str(tmp_path / "out"), *FAST]
    assert main([*command, "--json"]) == 0
    report = report_of(capsys)
    (row,) = report["results"]
    assert row["slices"] == 3
    assert [file["Z"] for file in row["provenance"]["source_files"]] == [0, 1, 2]
    expected = ff.fuse(tmp_path / "day", "sml", device="cpu").fused
    np.testing.assert_array_equal(tifffile.imread(row["outputs"][0]), expected)


def test_missing_files_are_named_on_standard_error(tmp_path: Path) -> None:
    files = write_set(tmp_path, planes(1, 1, 4))
    files[1].unlink()
    done = run("fuse", files[0], "-o", tmp_path / "out.ome.tif", *FAST)
    assert done.returncode == 0
    assert "Left out: slice 1, counted from 0: 1 of 4 planes" in done.stderr
    assert "zeroed" not in done.stderr


def test_slices_tagged_as_channels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.ome.tif"
    tifffile.imwrite(path, focus_stack(5))
    out = tmp_path / "out.ome.tif"
    done = run("fuse", path, "-o", out, *FAST)
    assert done.returncode == 1
    assert "5 channels of one slice each" in done.stderr
    assert "axes='ZYX'" in done.stderr
    assert not out.exists()
    done = run("fuse", path, "-o", out, *FAST, "--axes", "ZYX")
    assert (done.returncode, done.stderr) == (0, "")
    assert tifffile.imread(out).shape == focus_stack(5).shape[1:]
    done = run("fuse", path, "-o", out, *FAST, "--axes", "CYX", "--overwrite")
    assert done.returncode == 0
    assert "one slice" in done.stderr
    np.testing.assert_array_equal(tifffile.imread(out), focus_stack(5))


def test_each_stack_that_the_names_tell_apart_has_a_result(tmp_path: Path) -> None:
    folder = tmp_path / "plate"
    folder.mkdir()
    for well in ("A01", "B02"):
        for channel in ("DAPI", "GFP"):
            for z, plane in enumerate(focus_stack()):
                name = f"{well}_{channel}_z{z}.png"
                Image.fromarray(plane).save(folder / name)
    done = run("fuse", folder, "-o", tmp_path / "out", *FAST, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)["results"]
    assert [row["name"] for row in rows] == ["A01", "B02"]
    for row in rows:
        assert (row["slices"], row["axes"]) == (3, "CYX")
        stack = ff.as_stack(row["outputs"][0])
        assert stack.channel_names == ("DAPI", "GFP")
    again = run("fuse", folder, "-o", folder, *FAST, "--json")
    assert again.returncode == 0
    third = run("fuse", folder, "-o", folder, *FAST, "--json", "--overwrite")
    assert json.loads(third.stdout)["fused"] == 2  # its own results are no slices


def test_a_folder_with_an_odd_file(tmp_path: Path) -> None:
    folder = tmp_path / "day"
    folder.mkdir()
    for name in ("z0", "z1", "z2", "overview"):
        Image.fromarray(focus_stack()[0]).save(folder / f"{name}.png")
    done = run("fuse", folder, "-o", tmp_path / "out", *FAST)
    assert done.returncode == 1
    assert "'overview.png' is named unlike the other 3 files" in done.stderr
    done = run("fuse", folder / "z*.png", "-o", tmp_path / "out", *FAST)
    assert done.returncode == 0
