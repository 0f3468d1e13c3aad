"""fuse, on files that hold several stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from command_line import FAST, focus_stack, report_of

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = ("A/1/0", "A/1/1", "B/2/0")


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    path = tmp_path / "plate.ome.zarr"
    group = zarr.create_group(path, zarr_format=2)
    group.attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "B/2"}]}
    for seed, field in enumerate(FIELDS):
        image = group.create_group(field)
        image.create_array("0", data=focus_stack(seed=seed))
        axes = [{"name": name} for name in "zyx"]
        image.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    group["A/1"].attrs["well"] = {"images": [{"path": "0"}, {"path": "1"}]}
    group["B/2"].attrs["well"] = {"images": [{"path": "0"}]}
    return path


def test_a_plate_is_fused_field_by_field(
    plate: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["fuse", str(plate), "-o", str(tmp_path / "out"), *FAST, "--json"]
    assert main(command) == 0
    report = report_of(capsys)
    assert report["fused"] == 3
    assert [row["series"] for row in report["results"]] == list(FIELDS)
    for seed, row in enumerate(report["results"]):
        expected = ff.fuse(focus_stack(seed=seed), "sml", device="cpu").fused
        np.testing.assert_array_equal(tifffile.imread(row["outputs"][0]), expected)
    # A field that fails does not stop the others, and is fused when it is repaired.
    lost = tmp_path / "out" / "plate_A_1_1_fused.ome.tif"
    for path in (tmp_path / "out").glob("plate_A_1_1*"):
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert main([*command, "--resume"]) == 0
    report = report_of(capsys)
    assert (report["fused"], report["fused_before"]) == (1, 2)
    assert lost.exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_field_that_is_missing_is_named_and_stops_no_other(
    plate: Path, tmp_path: Path, capsys: Any
) -> None:
    del zarr.open_group(plate)["A/1/1"]
    assert main(["fuse", str(plate), "-o", str(tmp_path / "out"), *FAST]) == 1
    printed = capsys.readouterr()
    assert "A/1/1' is listed" in printed.err
    assert "2 stacks fused" in printed.out and "1 failed" in printed.out


@pytest.mark.parametrize("inside", ["A/1/1", "A/1"])
def test_a_field_or_a_well_by_its_path(plate: Path, tmp_path: Path, inside) -> None:
    out = tmp_path / "out"
    assert main(["fuse", str(plate / inside), "-o", str(out), *FAST]) == 0
    expected = ff.fuse(focus_stack(seed=1), "sml", device="cpu").fused
    fused = tifffile.imread(out / "plate_A_1_1_fused.ome.tif")
    np.testing.assert_array_equal(fused, expected)


def test_series_on_the_command_line(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "day.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for seed, name in enumerate(("left", "right")):
            metadata = {"axes": "ZYX", "Name": name}
            writer.write(focus_stack(seed=seed), metadata=metadata)
    command = ["fuse", str(path), "-o", str(tmp_path / "out"), *FAST]
    assert main(command) == 1
    assert "--series" in capsys.readouterr().err
    assert main([*command, "--series", "right", "--json"]) == 0
    (row,) = report_of(capsys)["results"]
    assert row["series"] == "right" and row["name"] == "day_right"
    assert main([*command, "--series", "all", "--overwrite"]) == 0
    expected = ff.fuse(focus_stack(seed=0), "sml", device="cpu").fused
    fused = tmp_path / "out" / "day_left_fused.ome.tif"
    np.testing.assert_array_equal(tifffile.imread(fused), expected)
    capsys.readouterr()
    report = ["report", str(fused), str(path), "--series", "left", "--json"]
    assert main(report) == 0
    assert main([*command, "--series", "middle"]) == 1
    assert "no image middle" in capsys.readouterr().err


def test_pixel_sizes_that_the_file_has_wrong(tmp_path: Path, capsys: Any) -> None:
    path, out = tmp_path / "a.ome.tif", tmp_path / "out.ome.tif"
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.0, "PhysicalSizeX": 0.2}
    tifffile.imwrite(path, focus_stack(), metadata=metadata)
    command = ["fuse", str(path), "-o", str(out), *FAST, "--overwrite"]
    assert main(command) == 0
    assert "--pixel-size Z" in capsys.readouterr().err
    assert main([*command, "--pixel-size", "Z=0.5,Y=.2"]) == 0
    assert capsys.readouterr().err == ""
    stack = ff.as_stack(out)
    assert (stack.pixel_size("Y"), stack.pixel_size("X")) == (0.2, 0.2)
    for wrong in ("Z=0", "Q=1", "0.5", "Z="):
        with pytest.raises(SystemExit):
            main([*command, "--pixel-size", wrong])
        assert "is not like Z=0.5" in capsys.readouterr().err
