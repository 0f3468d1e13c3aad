"""Finds the stacks among files and folders: which files make which stack."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import (
    as_stack,
    open_file,
    sets_of_stacks,
    slices_among,
    stack_in_order,
    stack_of_files,
)
from napari_focus_fusion.read import (
    IMAGE_SUFFIXES,
    MANY_SLICES_SUFFIXES,
    TIFF_SUFFIXES,
    ZARR_SUFFIX,
    ZIPPED_ZARR_SUFFIXES,
    files_of_set,
    folders_of_images,
    is_zarr,
    local_path,
    matches,
    name_of_slices,
    natural_key,
    series_in,
    stem,
)
from napari_focus_fusion.read.bioio import MAKERS_READERS
from napari_focus_fusion.read.name_axes import is_no_slice, sets_by_name
from napari_focus_fusion.read.ome_zarr import is_plate
from napari_focus_fusion.read.series import index_of_series, name_of_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from napari_focus_fusion.stack import FocusStack


@dataclass(frozen=True)
class Job:
    """One stack to fuse: its name in the outputs, and the file or files it is in.

    Attributes
    ----------
    name
        What outputs are called after.
    files
        One file or address that is a stack, or the files that make one.
    series
        Name of the image where the file holds several.
    in_order
        Whether the files are slices in this order whatever they are called.
    """

    name: str
    files: tuple[Path | str, ...]  # an address is no path
    series: str | None = None
    in_order: bool = False

    def open(self, axes: str | None = None, scale: Any = None) -> FocusStack:
        """Open it, lazily; `axes` and `scale` as in :func:`as_stack`."""
        if len(self.files) == 1:
            return as_stack(self.files[0], axes=axes, scale=scale, series=self.series)
        paths = _texts(self.files)
        opened = stack_in_order if self.in_order else stack_of_files
        return as_stack(opened(paths, axes=axes), scale=scale)

    @property
    def source(self) -> Path | str | FocusStack:
        """What ``fuse`` takes: a path, or the stack that several files make."""
        return self.files[0] if len(self.files) == 1 else self.open()


def find_jobs(
    inputs: Iterable[str],
    *,
    as_one_stack: bool = False,
    axes: str | None = None,
    series: str | None = None,
    pattern: str | None = None,
) -> tuple[list[Job], list[tuple[str, str]]]:
    """Sort out which files make which stack.

    A stack file (a TIFF or OME-Zarr with a Z axis) is a stack, and so is a data set
    that is spread over several files; time points and channels of one stack, by the
    names of its files, are joined. Single images (PNG, JPEG, TIFF of one plane) are
    slices: what varies in the names of those of one folder says of how many stacks,
    channels and time points. Results of this program, thumbnails and hidden files are
    left out.

    Parameters
    ----------
    inputs
        Files, folders, or glob patterns.
    as_one_stack
        Whether all inputs form one stack, in the order given.
    axes
        As in :func:`as_stack`, of each stack.
    series
        Name or number of the image to take of files that hold several, or ``"all"``.
        None: all fields of plates and wells; other files must hold one image.
    pattern
        Of a folder only the files and folders whose path within it matches, like
        ``"*_raw.tif"``; ``"**/*.tif"`` looks into all folders in it, too. The folders
        are part of the names of the stacks then.

    Returns
    -------
    jobs, failures
        The stacks, each with a name of its own, and (input, reason) for each input
        that is none.
    """
    files: list[Path | str] = []
    failures: list[tuple[str, str]] = []
    inputs = list(inputs)
    for text in inputs:
        found = list(_files_of(text, pattern))
        if not found:
            failures.append((text, _nothing_in(text, pattern)))
        files += [path for path in found if path not in files]
    if not files:
        return [], failures
    if as_one_stack:
        name = stem(files[0]) if len(files) == 1 else name_of_slices(_texts(files))
        return [Job(name, tuple(files), in_order=True)], failures

    jobs: list[Job] = []
    slices: dict[Path, dict[Path | str, bool]] = {}
    stacks: dict[Path, dict[str, FocusStack]] = {}
    seen: set[str] = set()
    for path in slices_among(files)[0]:
        if os.path.abspath(path) in seen:
            continue
        seen.update(files_of_set(str(path)))
        folder, stack = Path(path).parent, _peek(path)
        if _is_single_plane(path, stack, axes):
            planes = 1 if stack is None else stack.n_channels
            slices.setdefault(folder, {})[path] = planes == 1
        elif stack is not None and stack.n_slices > 1 and not stack.files:
            stacks.setdefault(folder, {})[str(path)] = stack
        else:
            images = _jobs_in(path, series)
            if stack is not None and stack.files and len(images) == 1:
                images = [replace(images[0], name=stack.name)]
            jobs += images
    for beside in stacks.values():
        for one in sets_of_stacks(beside, axes=axes):
            members = tuple(Path(path) for path in one.members)
            jobs += (
                _jobs_in(members[0], series)
                if len(members) == 1
                else [Job(one.name, members)]
            )
    for folder, planes_of in slices.items():
        try:
            jobs += _jobs_of_slices(planes_of, axes)
        except FocusFusionError as error:
            failures.append((str(folder), str(error)))
    if pattern is not None:
        jobs = [replace(job, name=_name_within(job, inputs)) for job in jobs]
    return _with_names_of_their_own(jobs), failures


def _nothing_in(text: str, pattern: str | None) -> str:
    if pattern is not None and os.path.isdir(local_path(text)):
        return (
            f"nothing in it matches {pattern!r} and is an image; **/ in front looks "
            "into all folders in it"
        )
    return "no such file, or nothing in it that is an image"


def _name_within(job: Job, inputs: Iterable[str]) -> str:
    """The name of a stack, after the folders that it is in within a folder given.

    So it does not depend on what else is there when a call is made again.
    """
    place = Path(os.path.abspath(job.files[0])).parent
    for text in inputs:
        folder = os.path.abspath(os.path.expanduser(local_path(text)))
        if place.is_relative_to(folder):
            inside = place.relative_to(folder).parts
            own = inside[:-1] if inside and inside[-1] == job.name else inside
            return "_".join((*own, job.name))
    return job.name


def _with_names_of_their_own(jobs: list[Job]) -> list[Job]:
    """Put the folders in which they differ before equal names, or else the endings."""
    count = Counter(job.name for job in jobs)
    alike = [job for job in jobs if count[job.name] > 1]
    if not alike:
        return jobs
    folders = {job: os.path.dirname(os.path.abspath(job.files[0])) for job in alike}
    common = {
        name: os.path.commonpath([folders[job] for job in alike if job.name == name])
        for name in count
        if count[name] > 1
    }
    named = []
    for job in jobs:
        name = job.name
        if job in folders:
            inside = os.path.relpath(folders[job], common[name])
            name = "_".join((*(p for p in Path(inside).parts if p != "."), name))
        named.append(replace(job, name=name))
    count = Counter(job.name for job in named)
    return [
        job
        if count[job.name] == 1
        else replace(job, name=job.name + Path(job.files[0]).suffix.replace(".", "_"))
        for job in named
    ]


def _jobs_of_slices(slices: Mapping[Path | str, bool], axes: str | None) -> list[Job]:
    """One job a stack; `slices` are files, and whether each has one channel."""
    paths = _texts(slices)
    try:
        sets = sets_by_name(paths)
    except FocusFusionError:
        if axes is not None:
            return [Job(name_of_slices(paths), tuple(slices))]
        if any(slices.values()):
            raise
        return [Job(stem(path), (path,)) for path in slices]  # may be stacks themselves
    jobs: list[Job] = []
    for found in sets:
        members = tuple(Path(path) for path in found.members)
        if found.axis_is_stated or axes is not None or all(map(slices.get, members)):
            jobs.append(Job(found.name, members))
        else:  # files of several planes, which may be stacks themselves
            jobs += [Job(stem(path), (path,)) for path in members]
    return jobs


def _jobs_in(path: Path | str, series: str | None) -> list[Job]:
    """One job an image of a file that holds several; else one, as it is."""
    whole = Job(stem(path), (path,), None if series == "all" else series)
    try:
        names = series_in(str(path))
        if series is None and not is_plate(str(path)):
            return [whole]
    except FocusFusionError:  # which ``fuse`` says again
        return [whole]
    if len(names) == 1:
        return [replace(whole, series=None)]
    if series not in (None, "all"):
        try:
            names = [names[index_of_series(names, series, str(path))]]
        except FocusFusionError:
            return [whole]
    return [Job(name_of_series(str(path), name), (path,), name) for name in names]


def _texts(paths: Iterable[Path | str]) -> list[str]:
    return [str(path) for path in paths]


def _files_of(text: str, pattern: str | None = None) -> Iterator[Path | str]:
    text = local_path(text)
    if "://" in text:
        yield text
        return
    path = Path(text).expanduser()
    if path.is_dir() and not (path.suffix.lower() == ZARR_SUFFIX or is_zarr(str(path))):
        yield from _files_in(path) if pattern is None else _matching(path, pattern)
    elif path.exists():
        yield path
    else:
        for match in matches(str(path)):
            yield from _files_of(match, pattern)


def _files_in(folder: Path) -> Iterator[Path | str]:
    names = sorted((inside.name for inside in folder.iterdir()), key=natural_key)
    images = [name for name in names if _is_image_name(name)]
    yield from (folder / name for name in images)
    for inside in [] if images else folders_of_images(str(folder)):
        yield from _files_of(str(folder / inside))


def _matching(folder: Path, pattern: str) -> Iterator[Path | str]:
    """Files in a folder that match, and those of folders that do; none inside Zarrs."""
    within: list[str] = []
    for match in matches(str(folder / pattern)):
        if any(match.startswith(one) for one in within):
            continue
        if os.path.isdir(match) and not _is_image_name(match) and not is_zarr(match):
            if not pattern.endswith("**"):
                yield from _files_of(match)
        elif _is_image_name(os.path.basename(match)) or is_zarr(match):
            if os.path.isdir(match):
                within.append(os.path.join(match, ""))
            yield Path(match)


def _is_image_name(name: str) -> bool:
    endings = (
        *(*TIFF_SUFFIXES, *IMAGE_SUFFIXES, ZARR_SUFFIX, *ZIPPED_ZARR_SUFFIXES),
        *MAKERS_READERS,
    )
    return name.lower().endswith(endings) and not is_no_slice(os.path.basename(name))


def _peek(path: Path | str) -> FocusStack | None:
    """The stack in a file that may hold one; None if it cannot, or cannot be read."""
    if Path(path).suffix.lower() not in (*TIFF_SUFFIXES, *MANY_SLICES_SUFFIXES):
        return None
    try:
        return open_file(str(path))
    except (FocusFusionError, OSError):
        return None


def _is_single_plane(
    path: Path | str, stack: FocusStack | None, axes: str | None
) -> bool:
    """Whether a file is a slice and not a stack of its own."""
    if stack is None:
        return Path(path).suffix.lower() in IMAGE_SUFFIXES
    if axes is not None and "Z" in axes.upper() and stack.n_channels > 1:
        if len(axes) <= len(stack.axes):
            return False
    return stack.n_slices == 1 and stack.n_times == 1
