"""Which files make which stack."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.io import (
    PICTURE_SUFFIXES,
    TIFF_SUFFIXES,
    name_of_slices,
    natural_key,
    stem,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ZARR_SUFFIX = ".zarr"


@dataclass(frozen=True)
class Job:
    """One stack to fuse: its name in the outputs, and the file or files it is in."""

    name: str
    files: tuple[Path, ...]

    @property
    def source(self) -> Path | list[Path]:
        """What ``fuse`` takes: a path, or the paths of the slices in order."""
        return self.files[0] if len(self.files) == 1 else list(self.files)


def find_jobs(
    inputs: Iterable[str], *, as_one_stack: bool = False
) -> tuple[list[Job], list[tuple[str, str]]]:
    """Sort out which files make which stack.

    A stack file (a TIFF or OME-Zarr with a Z axis) is a stack. Single pictures (PNG,
    JPEG, TIFF of one plane) are slices: those of one folder make one stack, in the
    order of their names with numbers read as numbers.

    Parameters
    ----------
    inputs
        Files, folders, or glob patterns.
    as_one_stack
        Everything given is one stack, in the order given.

    Returns
    -------
    jobs, failures
        The stacks, and (input, reason) for each input that is none.
    """
    files: list[Path] = []
    failures: list[tuple[str, str]] = []
    for text in inputs:
        found = list(_files_of(text))
        if not found:
            failures.append((text, "no such file, or nothing in it that is an image"))
        files += [path for path in found if path not in files]
    if not files:
        return [], failures
    if as_one_stack:
        return [_job_of_slices(files)], failures

    stacks = [path for path in files if not _is_picture(path)]
    folders: dict[Path, list[Path]] = {}
    # The shell hands over z1, z10, z2: names decide.
    for path in sorted(files, key=lambda path: natural_key(str(path))):
        if path not in stacks:
            folders.setdefault(path.parent, []).append(path)
    jobs = [Job(stem(path), (path,)) for path in stacks]
    return jobs + [_job_of_slices(slices) for slices in folders.values()], failures


def _job_of_slices(slices: Sequence[Path]) -> Job:
    if len(slices) == 1:
        return Job(stem(slices[0]), tuple(slices))
    return Job(name_of_slices([str(path) for path in slices]), tuple(slices))


def _files_of(text: str) -> Iterator[Path]:
    path = Path(text).expanduser()
    if path.is_dir() and path.suffix.lower() != ZARR_SUFFIX:
        endings = (*TIFF_SUFFIXES, *PICTURE_SUFFIXES, ZARR_SUFFIX)
        names = sorted((inside.name for inside in path.iterdir()), key=natural_key)
        for name in names:
            if name.lower().endswith(endings) and not name.startswith("."):
                yield path / name
    elif path.exists():
        yield path
    else:
        for match in sorted(glob.glob(str(path), recursive=True), key=natural_key):
            yield from _files_of(match)


def _is_picture(path: Path) -> bool:
    """Whether a file holds one plane; what cannot be read is left to ``fuse``."""
    suffix = path.suffix.lower()
    if suffix not in TIFF_SUFFIXES:
        return suffix in PICTURE_SUFFIXES
    from napari_focus_fusion.stack import as_stack

    try:
        stack = as_stack(path)
    except (FocusFusionError, OSError):
        return False
    return stack.n_slices == 1 and stack.n_times == 1
