"""The command demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from command_line import FAST, report_of

from napari_focus_fusion.cli import main


def test_demo_shows_that_fusing_helps(tmp_path: Path, capsys: Any) -> None:
    command = ["demo", "-o", str(tmp_path / "demo"), *FAST]
    assert main([*command, "--json"]) == 0
    report = report_of(capsys)
    assert report["psnr_fused"] > report["psnr_best_slice"] + 1
    for path in map(Path, report["outputs"]):
        assert path.parent == tmp_path / "demo"
        assert path.stat().st_size > 1000
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
