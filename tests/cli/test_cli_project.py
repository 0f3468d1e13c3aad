"""The command project on real small files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from command_line import FAST, report_of

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fused(stack_file: Path, tmp_path: Path, capsys: Any) -> Path:
    out = tmp_path / "fused.ome.tif"
    assert main(["fuse", str(stack_file), "-o", str(out), *FAST]) == 0
    assert "best slice" in capsys.readouterr().out
    return out


def test_the_best_slice_is_in_the_summary(
    stack_file: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "one.ome.tif"
    assert main(["fuse", str(stack_file), "-o", str(out), *FAST, "--json"]) == 0
    (row,) = report_of(capsys)["results"]
    assert row["best_slice"] == ff.fuse(stack_file, "sml", device="cpu").best_slice


def test_a_slab_and_a_height_map_of_another_stack(
    fused: Path, stack_file: Path, tmp_path: Path, capsys: Any
) -> None:
    other = tmp_path / "other.tif"
    pixels = 255 - tifffile.imread(stack_file)
    tifffile.imwrite(other, pixels, metadata={"axes": "ZYX"}, imagej=True)
    out, heights = tmp_path / "new" / "slab.ome.tif", tmp_path / "height.ome.tif"
    command = ["project", str(fused), str(other), "-o", str(out), "--slices", "2"]
    command += ["--method", "max", "--height-map", str(heights), "--smoothing", "4"]
    assert main([*command, "--pixel-size", "Z=0.5", "--offset=-0.5um"]) == 1
    assert "along Z is not known" in capsys.readouterr().err
    assert not out.exists() and not heights.exists()
    assert main([*command, "--offset", "-1"]) == 0
    printed = capsys.readouterr()
    wanted = ff.project(other, fused, slices=2, offset=-1, method="max")
    np.testing.assert_array_equal(tifffile.imread(out), wanted.image)
    for note in wanted.notes:
        assert note in printed.err
    assert "heights are in slices" in printed.err
    found = ff.height_map(fused, stack=other, smoothing=4)
    np.testing.assert_array_equal(tifffile.imread(heights), found.height)
    assert str(tmp_path / "height_uncertainty.ome.tif") in printed.out


def test_json_and_zarr(
    fused: Path, stack_file: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "slab.ome.zarr"
    command = ["project", str(fused), str(stack_file), "-o", str(out), "--json"]
    assert main(command) == 0
    report = report_of(capsys)
    assert report["outputs"] == [str(out)]
    assert report["provenance"]["projection"]["method"] == "mean"
    np.testing.assert_array_equal(
        np.asarray(ff.as_stack(out).data), ff.project(stack_file, fused).image
    )
    assert main(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


def test_nothing_to_write_and_names_that_cannot_be(
    fused: Path, stack_file: Path, capsys: Any
) -> None:
    command = ["project", str(fused), str(stack_file)]
    assert main(command) == 2
    assert "nothing to write" in capsys.readouterr().err
    same = str(fused.with_name("same.ome.tif"))
    assert main([*command, "-o", same, "--height-map", same]) == 2
    assert main([*command, "-o", str(fused), "--overwrite"]) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert main([*command, "-o", "slab.bmp"]) == 1
    assert "projections are saved as" in capsys.readouterr().err
