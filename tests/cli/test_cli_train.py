"""The command train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def test_train_says_what_is_missing(tmp_path: Path, capsys: Any) -> None:
    assert main(["train", "nonsense"]) == 2
    assert "'nonsense' cannot be trained; there is: mscnn" in capsys.readouterr().err
    out = tmp_path / "sesf.safetensors"
    command = ["train", "sesf", "-o", str(out)]
    assert main([*command, "--pictures", str(tmp_path / "absent")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert not out.exists()
    out.write_bytes(b"precious")
    assert main(command) == 1
    assert out.read_bytes() == b"precious"
