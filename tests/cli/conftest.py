from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tifffile
from command_line import focus_stack
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.ome.tif"
    tifffile.imwrite(path, focus_stack(), metadata={"axes": "ZYX"}, ome=True)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of PNG slices whose names sort wrongly as text."""
    folder = tmp_path / "plate A"
    folder.mkdir()
    for z, plane in enumerate(focus_stack(11), start=1):
        Image.fromarray(plane).save(folder / f"z{z}.png")
    return folder
