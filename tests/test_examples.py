"""Every script of the documentation runs, in a window where it opens one."""

from __future__ import annotations

import os
import runpy
import sys
import warnings
from pathlib import Path

import pytest

from forks import run_forked

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"

#: What each prints in the end, and the files it leaves.
OUTCOMES = {
    "fuse_array": ("(192, 256, 3) uint8 of 6 slices", {"pollen.ome.tif"}),
    "fuse_in_window": ("Nuclei fused [sml] (192, 192) uint16", set()),
    "fuse_layer": ("Nuclei fused [sml] (192, 192)", set()),
    "retouch_array": ("by the map: True", {"edited.ome.tif"}),
    "retouch_in_window": ("slice of pixel (100, 120): 3", {"edited.ome.tif"}),
    "report": ("the stack may be too short", {"quality.csv", "quality.png"}),
    "fine_tune": ("(160, 160)", set()),
}


def test_every_example_is_known() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(OUTCOMES)


@pytest.mark.parametrize("name", OUTCOMES)
def test_example(name: str, tmp_path: Path) -> None:
    text, files = OUTCOMES[name]
    settings = str(tmp_path / "settings.yaml")
    done = run_forked(run_example, name, tmp_path, settings)
    assert done.returncode == 0, done.stderr
    assert text in done.stdout
    assert "Traceback" not in done.stderr
    assert files <= {path.name for path in (tmp_path / "out").glob("*")}


def run_example(name: str, folder: Path, settings: str) -> None:
    """As ``python -W ignore NAME.py FOLDER/out`` would."""
    os.environ["NAPARI_CONFIG"] = settings
    os.chdir(folder)
    warnings.simplefilter("ignore")
    sys.argv = [f"{name}.py", str(folder / "out")]
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
