"""Files that the button of a widget opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from napari.layers import Layer

from napari_focus_fusion import FocusFusionError
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.plugin.adapters.layers import fuse_layer, layers_from_files

if TYPE_CHECKING:
    from pathlib import Path

GREY = np.random.default_rng(0).integers(1, 2**16, (4, 40, 48), np.uint16)


def test_channels_and_signs_in_names_are_understood(tmp_path: Path) -> None:
    files = []
    for z, number in enumerate(("-1.5", "-0.5", "0.5", "1.5")):
        for name, pixels in (("DAPI", GREY[z]), ("GFP", GREY[z, ::-1])):
            files.append(tmp_path / f"{name}_z{number}.tif")
            tifffile.imwrite(files[-1], pixels, metadata=None)
    (data,) = layers_from_files(sorted(files))
    layer = Layer.create(*data)
    want = np.stack([GREY, GREY[:, ::-1]])
    np.testing.assert_array_equal(np.asarray(layer.data), want)
    assert layer.axis_labels == ("c", "z", "y", "x")
    fused = fuse_layer(layer, model="sml", device="cpu")[0][1]
    found = fused["metadata"][METADATA_KEY]["source_files"]
    assert [file["Z"] for file in found] == [0, 1, 2, 3] * 2
    assert found[0]["file"] == str(tmp_path / "DAPI_z-1.5.tif")


def test_notes_on_files_are_those_of_the_result(tmp_path: Path) -> None:
    files = []
    for z, number in enumerate((0, 1, 2, 5)):
        files.append(tmp_path / f"z{number}.tif")
        tifffile.imwrite(files[-1], GREY[z], metadata=None)
    layer = Layer.create(*layers_from_files(files)[0])
    fused = fuse_layer(layer, model="sml", device="cpu")[0][1]
    notes = fused["metadata"][METADATA_KEY]["notes"]
    assert any("leave out 3, 4" in note for note in notes)


def test_several_stacks_are_not_one_layer(tmp_path: Path) -> None:
    files = [tmp_path / f"{w}_z{z}.tif" for w in ("A01", "B02") for z in range(2)]
    for file in files:
        tifffile.imwrite(file, GREY[0], metadata=None)
    with pytest.raises(FocusFusionError, match="2 stacks"):
        layers_from_files(files)
