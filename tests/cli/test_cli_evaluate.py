"""The command evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from command_line import focus_stack, report_of
from PIL import Image

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def test_evaluate_prints_what_the_api_measures(tmp_path: Path, capsys: Any) -> None:
    slices = focus_stack()
    for z, plane in enumerate(slices):
        Image.fromarray(plane).save(tmp_path / f"{z}.png")
    fused, truth = slices[1], slices.max(axis=0)
    Image.fromarray(fused).save(tmp_path / "fused.png")
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    files = [str(tmp_path / name) for name in ("fused.png", "0.png", "1.png", "2.png")]
    options = ["--truth", str(tmp_path / "truth.tif"), "--measures", "Q_G,PSNR"]
    assert main(["evaluate", *files, *options, "--json"]) == 0
    expected = ff.evaluate(fused, slices, truth, measures=["Q_G", "PSNR"])
    assert report_of(capsys)["results"] == [expected]
    assert main(["evaluate", *files, *options]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(printed["PSNR"]) == pytest.approx(expected["PSNR"], abs=1e-4)


def test_evaluate_measures_each_channel(tmp_path: Path, capsys: Any) -> None:
    slices = np.stack([focus_stack(), focus_stack(seed=1)])
    tifffile.imwrite(
        tmp_path / "stack.ome.tif", slices, metadata={"axes": "CZYX"}, ome=True
    )
    fused = slices[:, 1]
    tifffile.imwrite(
        tmp_path / "fused.ome.tif", fused, metadata={"axes": "CYX"}, ome=True
    )
    files = [str(tmp_path / name) for name in ("fused.ome.tif", "stack.ome.tif")]
    assert main(["evaluate", *files, "--measures", "Q_AB/F", "--json"]) == 0
    assert report_of(capsys)["results"] == [
        ff.evaluate(image, stack, measures=["Q_AB/F"])
        for image, stack in zip(fused, slices, strict=True)
    ]


@pytest.mark.parametrize("which", ["fused", "truth"])
def test_a_stack_is_not_measured_as_if_it_were_a_picture(
    which: str, tmp_path: Path, capsys: Any
) -> None:
    slices = focus_stack()
    for name, pixels in (("picture", slices[1]), ("stack", slices)):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack")
    picture, stack = str(tmp_path / "picture.tif"), str(tmp_path / "stack.tif")
    fused, truth = (stack, picture) if which == "fused" else (picture, stack)
    assert main(["evaluate", fused, stack, "--truth", truth]) == 1
    assert "stack.tif is a stack of 3 slices, and no fused" in capsys.readouterr().err
