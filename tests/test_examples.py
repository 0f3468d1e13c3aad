"""Every script of the documentation runs, in a window where it opens one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    settings = {"NAPARI_CONFIG": str(tmp_path / "settings.yaml")}
    quiet = [sys.executable, "-W", "ignore", str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(
        [*quiet, str(tmp_path / "out")],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert text in done.stdout
    assert "Traceback" not in done.stderr
    assert files <= {path.name for path in (tmp_path / "out").glob("*")}
