"""What all commands have in common."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from command_line import run

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main
from napari_focus_fusion.cli.console import error_text

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = "fuse demo models train finetune evaluate report benchmark".split()


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, ff.__version__)


def test_no_command_is_an_error(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_a_reader_that_closes_the_output_is_no_error() -> None:
    command = [sys.executable, "-m", "napari_focus_fusion", "models"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_help_and_wrong_options_are_answered_without_what_is_heavy() -> None:
    script = f"""
import contextlib, io, sys
from napari_focus_fusion.cli import main
for name in {COMMANDS}:
    for arguments in (["--help"], ["--nonsense"]):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            with contextlib.redirect_stderr(printed):
                with contextlib.suppress(SystemExit):
                    main([name, *arguments])
        assert "usage: napari-focus-fusion" in printed.getvalue()
print(*{{module.split(".")[0] for module in sys.modules}})
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"numpy", "torch", "PIL", "tifffile", "zarr"}


def test_errors_take_one_line(tmp_path: Path) -> None:
    assert error_text(ff.FocusFusionError("No\n such  stack.")) == "No such stack."
    with pytest.raises(OSError) as raised:
        (tmp_path / "nothing").read_bytes()
    nothing = f"{tmp_path / 'nothing'}: No such file or directory"
    assert error_text(raised.value) == nothing
    bug = error_text(KeyError("a\nb"))
    assert bug.startswith("KeyError: ")
    assert "--debug" in bug and "\n" not in bug
