"""``python -m napari_focus_fusion.benchmark.cuda``: checks and speed on one device.

One run of a few minutes says whether every model gives on a graphics card what it
gives on the CPU, how fast that is, and what happens where the card has little memory
left or stops working. Nothing that raises ends it: the last lines of each error are
written down, and the rest goes on.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_focus_fusion._version import __version__
from napari_focus_fusion.benchmark.device_checks import SECTIONS, Setup, Subject
from napari_focus_fusion.benchmark.device_report import (
    Report,
    Row,
    Section,
    last_lines,
    run_row,
)
from napari_focus_fusion.device import choose_device, describe
from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODULE = "napari_focus_fusion.benchmark.cuda"
#: Name of the two files that are written, without their endings.
NAME = "device-checks"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 where all checks passed, 1 otherwise."""
    args = _parser().parse_args(argv)
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        device = choose_device(args.device)
        folder = _folder_for(args.output, args.overwrite)
    except FocusFusionError as error:
        print(f"{MODULE}: {error}", file=sys.stderr)
        return 1
    about = about_device(device) | {
        "command": shlex.join(["python", "-m", MODULE, *words]),
        "quick": args.quick,
    }
    report = run_sections(device, about, folder, args.minutes * 60, quick=args.quick)
    print(report.as_markdown())
    print(f"Written: {folder / NAME}.json and .md")
    return 0 if report.passed else 1


def run_sections(
    device: torch.device,
    about: dict[str, Any],
    folder: Path,
    seconds: float,
    *,
    quick: bool,
) -> Report:
    """Run all sections within a time; what is found is written after each.

    Parameters
    ----------
    device
        What is checked.
    about
        Goes into the report.
    folder
        Where it is written.
    seconds
        What begins later is skipped.
    quick
        Whether everything is small: to try the checks themselves.
    """
    began = time.monotonic()
    sections: list[Section] = []
    report = Report(about, ())
    with tempfile.TemporaryDirectory(prefix="device-checks-") as scratch:
        setup = Setup(device, quick, Path(scratch))
        for subject in SECTIONS:
            start = time.monotonic()
            # So that no section takes the time of those after it.
            deadline = min(began + seconds, start + subject.share * seconds)
            print(f"{subject.title} ...", file=sys.stderr, flush=True)
            rows = tuple(_rows_of(subject, setup, deadline))
            sections.append(Section(subject.title, rows, time.monotonic() - start))
            elapsed = round(time.monotonic() - began, 1)
            report = Report(about | {"seconds": elapsed}, tuple(sections))
            report.write(folder, NAME)
    return report


def _rows_of(subject: Subject, setup: Setup, deadline: float) -> Iterator[Row]:
    """The rows of a section, whatever is raised in them or between them."""
    try:
        for what, run in subject.rows(setup):
            yield run_row(what, run, deadline)
    except Exception as error:
        yield Row("the rest of the section", error=last_lines(error))


def about_device(device: torch.device) -> dict[str, Any]:
    """The device, its driver, and the versions of what computes."""
    about: dict[str, Any] = {
        "device": describe(device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "memory": f"{properties.total_memory / 1e9:.1f} GB",
            "compute capability": f"{properties.major}.{properties.minor}",
        }
    return about


def _driver() -> str:
    """Version of the graphics card's driver, as its own program gives it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"
    return found.stdout.split("\n")[0].strip()


def _folder_for(folder: Path, overwrite: bool) -> Path:
    there = [folder / f"{NAME}{suffix}" for suffix in (".json", ".md")]
    if not overwrite and any(path.exists() for path in there):
        raise FocusFusionError(
            f"{str(folder)!r} holds a report already: choose another folder, or give "
            "--overwrite."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FocusFusionError(
            f"{str(folder)!r} cannot be made: {error.strerror}."
        ) from error
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        description="Check every model on a device against the CPU, and measure it.",
    )
    parser.add_argument(
        "--device",
        default="cuda",
        help="cuda (the default), cuda:1, ...; cpu tries the checks themselves",
    )
    parser.add_argument("--quick", action="store_true", help="small and fast")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=4.0,
        help="what begins later is skipped (default: 4)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("device-checks"),
        metavar="FOLDER",
        help=f"where {NAME}.json and {NAME}.md go (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report")
    return parser


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
