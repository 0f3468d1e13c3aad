"""Files are written whole or not at all, and replaced only when allowed."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def check_targets(
    targets: Sequence[Path], *, overwrite: bool, source: str = "", nbytes: int = 0
) -> None:
    """Raise before any work is done if these files could not be saved.

    Parameters
    ----------
    targets
        Files or Zarr folders that are to appear.
    overwrite
        Whether existing ones may be replaced.
    source
        Path(s) of the stack, which is never overwritten.
    nbytes
        Size of what is to be written, to compare with the free space; 0: do not.

    Raises
    ------
    FocusFusionError
        Naming the file and what to do.
    """
    folder = targets[0].absolute().parent
    if not folder.is_dir():
        raise FocusFusionError(
            f"The folder {str(folder)!r} does not exist. Create it, or save elsewhere."
        )
    for target in targets:
        if not os.path.lexists(target):
            continue
        if _holds(target, source):
            raise FocusFusionError(
                f"{str(target)!r} is the stack itself and is never overwritten. Choose "
                "another name."
            )
        if not overwrite:
            raise FocusFusionError(
                f"{str(target)!r} exists already. Choose another name, or allow it to "
                "be replaced (overwrite=True; --overwrite on the command line)."
            )
        is_zarr = target.suffix == ".zarr"
        if target.is_dir() and not (is_zarr and _looks_like_zarr(target)):
            raise FocusFusionError(
                f"{str(target)!r} is a folder, and not a Zarr, so it is not replaced. "
                "Choose another name."
            )
    with translated_errors(folder):
        free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise FocusFusionError(
            f"The disk of {str(folder)!r} has {free / 2**30:.2f} GB free, but the "
            f"result needs {nbytes / 2**30:.2f} GB. Free some space, or save elsewhere."
        )


@contextlib.contextmanager
def written_whole(targets: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Give temporary siblings to write to; put them in place if nothing fails.

    After a failure neither the temporaries nor any of the targets are there, except
    targets that were there before.
    """
    mark = uuid4().hex[:8]
    partials = [
        target.with_name(f".{target.name}.{mark}.partial") for target in targets
    ]
    placed: list[Path] = []
    try:
        with translated_errors(targets[0].absolute().parent):
            yield partials
            for partial, target in zip(partials, targets, strict=True):
                existed = os.path.lexists(target)
                put_in_place(partial, target, overwrite=overwrite)
                if not existed:
                    placed.append(target)
    except BaseException:
        for leftover in (*partials, *placed):
            remove(leftover)
        raise


def put_in_place(partial: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a finished file or Zarr folder to its final name.

    Raises
    ------
    FocusFusionError
        If the name is taken and must not be.
    """
    if os.path.lexists(target):
        check_targets([target], overwrite=overwrite)
        if target.is_dir() or partial.is_dir():
            # A folder cannot be replaced in one step; the old one is renamed first.
            aside = target.with_name(f".{target.name}.{uuid4().hex[:8]}.replaced")
            os.rename(target, aside)
            try:
                os.rename(partial, target)
            except BaseException:
                os.rename(aside, target)
                raise
            remove(aside)
            return
    os.replace(partial, target)


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def translated_errors(folder: Path) -> Iterator[None]:
    """Translate errors of the operating system about a folder into our own."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            why = "the disk is full. Free some space, or save elsewhere."
        elif error.errno in _FORBIDDEN:
            why = "you have no permission to write there. Save elsewhere."
        elif error.errno == errno.EFBIG:
            why = "a file got larger than this disk allows. Save as OME-Zarr instead."
        else:
            why = f"{error.strerror or error}. Check the disk, or save elsewhere."
        raise FocusFusionError(f"Cannot save in {str(folder)!r}: {why}") from error


def _holds(target: Path, source: str) -> bool:
    """Whether a path is one of the source's, or a folder that it lies in."""
    paths = [os.path.realpath(p) for p in (source, *source.split(", ")) if p]
    place = os.path.realpath(target)
    return any(path == place or path.startswith(place + os.sep) for path in paths)


def _looks_like_zarr(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("zarr.json", ".zgroup", ".zarray"))
