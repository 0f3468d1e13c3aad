"""Files are written whole or not at all, and replaced only when allowed."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.parameters import shown
from napari_focus_fusion.write.places import looks_like_zarr, zarr_around

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
#: What file systems say that leave it to themselves when they write.
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
#: Bytes of a file's name: 255, less what temporary names add to it.
LONGEST_NAME = 226


def check_targets(
    targets: Sequence[Path],
    *,
    overwrite: bool,
    inputs: Collection[str] = (),
    nbytes: int = 0,
) -> None:
    """Raise before any work is done if these files could not be saved.

    Parameters
    ----------
    targets
        Files or Zarr folders that are to appear.
    overwrite
        Whether existing ones may be replaced.
    inputs
        Places of what is read (:func:`~napari_focus_fusion.write.places.places_of`),
        which are never overwritten.
    nbytes
        Size of what is to be written, to compare with the free space; 0: do not.

    Raises
    ------
    FocusFusionError
        Naming the file and what to do.
    """
    folder = targets[0].absolute().parent
    with translated_errors(folder):
        _check_targets(targets, folder, overwrite=overwrite, inputs=inputs)
        free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise FocusFusionError(
            f"The disk of {str(folder)!r} has {_size(free)} free, but the result "
            f"needs {_size(nbytes)}. Free some space, or save elsewhere."
        )


def _check_targets(
    targets: Sequence[Path], folder: Path, *, overwrite: bool, inputs: Collection[str]
) -> None:
    if not folder.is_dir():
        raise FocusFusionError(
            f"The folder {str(folder)!r} does not exist. Create it, or save elsewhere."
        )
    for target in targets:
        if len(os.fsencode(target.name)) > LONGEST_NAME:
            raise FocusFusionError(
                f"The name {shown(target.name)} is too long: with what is added while "
                f"it is written it has more than 255 characters. Use {LONGEST_NAME} "
                "at most."
            )
    _check_apart(targets, inputs)
    for target in targets:
        if not os.path.lexists(target):
            continue
        if not overwrite:
            raise FocusFusionError(
                f"{str(target)!r} exists already. Choose another name, or allow it to "
                "be replaced (overwrite=True; --overwrite on the command line)."
            )
        is_zarr = target.suffix == ".zarr"
        if target.is_dir() and not (is_zarr and looks_like_zarr(target)):
            raise FocusFusionError(
                f"{str(target)!r} is a folder, and not a Zarr, so it is not replaced. "
                "Choose another name."
            )


@contextlib.contextmanager
def written_whole(targets: Sequence[Path], *, overwrite: bool) -> Iterator[list[Path]]:
    """Give temporary siblings to write to; put them in place if nothing fails.

    After a failure neither the temporaries nor any of the targets are there, except
    targets that were there before. What a process left that was killed is put right
    first: what it was about to replace gets its name back.
    """
    mark = _mark()
    with translated_errors(targets[0].absolute().parent):
        for target in targets:
            _tidy_up_after_killed(target)
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
            with contextlib.suppress(OSError):  # the first error is the one to tell
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
            aside = target.with_name(f".{target.name}.{_mark()}.replaced")
            os.rename(target, aside)
            try:
                os.rename(partial, target)
            except BaseException:
                os.rename(aside, target)
                raise
            remove(aside)
            return
    os.replace(partial, target)


def _mark() -> str:
    """What tells temporary names apart: computer, process, and which of its."""
    return f"{_computer()}-{os.getpid():x}-{uuid4().hex[:4]}"


def _computer() -> str:
    return f"{zlib.crc32(platform.node().encode()) & 0xFFFF:04x}"


def _tidy_up_after_killed(target: Path) -> None:
    """Put right what a process of this computer left that does not run any more."""
    start = f".{target.name}."
    for path in sorted(target.absolute().parent.iterdir()):
        parts = path.name.removeprefix(start).split(".")
        if not path.name.startswith(start) or len(parts) != 2:
            continue
        mark, kind = parts[0].split("-"), parts[1]
        if kind not in ("partial", "replaced") or mark[0] != _computer():
            continue
        if len(mark) != 3 or psutil.pid_exists(int(mark[1], 16)):
            continue
        if kind == "replaced" and not os.path.lexists(target):
            os.rename(path, target)
        else:
            remove(path)


def write_durably(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, also after a power failure."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    sync(new)
    os.replace(new, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file, or the list of names in a folder, reach the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def translated_errors(folder: Path, kept: str = "") -> Iterator[None]:
    """Translate errors of the operating system about a folder into our own.

    Parameters
    ----------
    folder
        Where files are written.
    kept
        A sentence about what is not lost.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            why = "the disk is full. Free some space, or save elsewhere."
        elif error.errno in _FORBIDDEN:
            why = "you have no permission to write there. Save elsewhere."
        elif error.errno == errno.EROFS:
            why = "that disk can only be read. Save elsewhere."
        elif error.errno == errno.ENAMETOOLONG:
            why = "the path is too long. Use shorter names, or save elsewhere."
        elif error.errno == errno.EFBIG:
            why = "a file got larger than this disk allows. Save as OME-Zarr instead."
        else:
            why = f"{error.strerror or error}. Check the disk, or save elsewhere."
        raise FocusFusionError(
            f"Cannot save in {str(folder)!r}: {why}{' ' * bool(kept)}{kept}"
        ) from error


def _check_apart(targets: Sequence[Path], inputs: Collection[str]) -> None:
    """Raise if writing somewhere would destroy what is read, or write into it."""
    around = {folder for place in inputs for folder in (place, *_folders_of(place))}
    stacks = {_identity(folder) for folder in around}
    zarrs = {_identity(zarr): zarr for zarr in map(zarr_around, inputs) if zarr}
    for target in targets:
        if target.exists() and _identity(target) in stacks:
            raise FocusFusionError(
                f"{str(target)!r} is the stack itself, or holds it, and is never "
                "overwritten. Choose another name."
            )
        for folder in map(_identity, _folders_of(target)):
            if folder in zarrs:
                raise FocusFusionError(
                    f"{str(target)!r} lies inside {zarrs[folder]!r}, which is read and "
                    "never written to. Choose a name outside of it."
                )


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**30:.2f} GB" if nbytes >> 30 else f"{nbytes / 2**20:.1f} MB"


def _folders_of(path: str | Path) -> list[str]:
    return [str(folder) for folder in Path(os.path.realpath(path)).parents]


def _identity(path: str | Path) -> tuple[int, int] | str:
    """What two names of one file or folder have in common."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
