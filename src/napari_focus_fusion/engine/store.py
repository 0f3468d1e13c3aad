"""Where a run keeps maps and pixels: in memory, or in an OME-Zarr to be resumed."""

from __future__ import annotations

import json
import os
import zlib
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.decision import Maps
from napari_focus_fusion.engine.identity import differences
from napari_focus_fusion.engine.memory import result_bytes
from napari_focus_fusion.engine.monitor import NOTHING, Found
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import Reordered
from napari_focus_fusion.read.own_results import provenance_in
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.write.blocks import write_block
from napari_focus_fusion.write.ome_zarr import (
    complete_output,
    create_output,
    open_output,
)
from napari_focus_fusion.write.places import places_of
from napari_focus_fusion.write.saving import (
    check_targets,
    remove,
    sync,
    translated_errors,
    write_durably,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from napari_focus_fusion.engine.monitor import Monitor
    from napari_focus_fusion.stack import FocusStack

#: Side of the chunks of an OME-Zarr that is written by region.
CHUNK = 512
# What lies in the folder of a partial result; see ZarrStore.
RESULT, RAW, NOTES, FRESH, REPLACED, LOCK = (
    *("result", "raw", "finished_chunks", "fresh", "replaced", "lock"),
)


class MemoryStore:
    """Results in memory, which cannot be resumed."""

    earlier: dict[str, Any] | None = None

    def __init__(
        self, stack: FocusStack, reconstructions: int = 0, scale: int = 1
    ) -> None:
        self.reconstructions: list[Any] = [
            _one_for_all_times(stack, np.float32) for _ in range(reconstructions)
        ]
        self.raw = Maps(
            _one_for_all_times(stack, np.uint16),
            _one_for_all_times(stack, np.float32),
            _one_for_all_times(stack, np.float32),
        )
        self.outputs: dict[str, Any] = {
            "fused": np.zeros(_finer(stack, scale), stack.dtype),
            "decision": np.zeros(stack.map_shape, np.uint16),
            "confidence": np.zeros(stack.map_shape, np.float32),
            "depth": np.zeros(stack.map_shape, np.float32),
        }
        if scale > 1:
            self.outputs["consistency"] = np.zeros(stack.map_shape, np.float32)
        if reconstructions:
            self.outputs["beyond"] = np.zeros(stack.channel_shape, np.float32)

    def access(self) -> AbstractContextManager[None]:
        """What reads and writes results: nothing can fail."""
        return nullcontext()

    def is_done(self, stage: str, t: int, region: Rectangle) -> bool:
        """Whether a region was finished by an earlier run: never."""
        return False

    def recall(self, stage: str, t: int, region: Rectangle, monitor: Monitor) -> None:
        """Report what was found in a finished region: there is none."""

    def mark_done(
        self, stage: str, t: int, region: Rectangle, found: Found = NOTHING
    ) -> None:
        """Note a finished region: does nothing, as the run cannot be resumed."""

    def close(self) -> None:
        """Let other processes write here: does nothing."""

    def finish(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """The results by name; where they came from is kept beside them."""
        return self.outputs


def _one_for_all_times(stack: FocusStack, dtype: type[np.generic]) -> np.ndarray:
    """(T, Y, X), every time point the same plane: one is finished before the next."""
    plane = np.zeros((stack.height, stack.width), dtype)
    return np.lib.stride_tricks.as_strided(
        plane, (stack.n_times, *plane.shape), (0, *plane.strides)
    )


class OpenStore:
    """A partial result on disk, open to be filled by any process.

    Parameters
    ----------
    partial
        Folder that :class:`ZarrStore` made.
    stack
        The source.
    """

    def __init__(self, partial: Path, stack: FocusStack) -> None:
        import zarr

        self.partial, self.stack = partial, stack
        self._durable: set[Path] = set()
        self.outputs: dict[str, Any] = open_output(partial / RESULT, stack)
        raw: list[Any] = [
            zarr.open_array(partial / RAW / name, mode="r+") for name in Maps._fields
        ]
        self.raw = Maps(*raw)
        self.reconstructions: list[Any] = [
            zarr.open_array(path, mode="r+")
            for path in sorted((partial / RAW).glob("picture-*"))
        ]

    def access(self) -> AbstractContextManager[None]:
        """What reads and writes results: what fails on the disk is said in words."""
        return translated_errors(
            self.partial.absolute().parent,
            f"What is finished is kept in {str(self.partial)!r}: the same call goes on "
            "from there.",
        )

    @property
    def notes(self) -> Path:
        """Folder with a note of each chunk that a stage has finished."""
        return self.partial / NOTES

    def is_done(self, stage: str, t: int, region: Rectangle) -> bool:
        """Whether a region was finished, now or by an earlier run.

        Noted chunk by chunk: an earlier run with less or more memory cut the plane
        into other regions. Files that are no longer what their note says, or have
        none, are deleted.
        """
        whole = [self._is_whole(stage, t, *chunk) for chunk in _chunks_of(region)]
        return all(whole)

    def recall(self, stage: str, t: int, region: Rectangle, monitor: Monitor) -> None:
        """Report what was found in a finished region."""
        for chunk in _chunks_of(region):
            note = self._noted(stage, t, *chunk)
            found = Found(tuple(note["notes"]), tuple(note["absent"]), note["beyond"])
            monitor.recall(found)
            monitor.recut |= note["region"] != _as_list(region)

    def mark_done(
        self, stage: str, t: int, region: Rectangle, found: Found = NOTHING
    ) -> None:
        """Note that everything a stage writes of a region, whole chunks, is written.

        The note counts only when all that it vouches for has reached the disk.
        """
        chunks = _chunks_of(region)
        states = [self._states(stage, t, *chunk) for chunk in chunks]
        written = [Path(n) for files in states for n, state in files.items() if state]
        above = {folder for name in written for folder in name.parent.parents}
        # What lists the new files, and once what lists the folders that hold them.
        folders = {name.parent for name in written} | (above - self._durable)
        for place in [*written, *sorted(folders, reverse=True)]:
            sync(self.partial / place)
        self._durable |= above
        for chunk, files in zip(chunks, states, strict=True):
            note = {"region": _as_list(region), "files": files, **found._asdict()}
            write_durably(self._note_of(stage, t, *chunk), json.dumps(note))
            found = NOTHING  # counted once

    def _note_of(self, stage: str, t: int, row: int, column: int) -> Path:
        return self.notes / f"{stage}-{t}-{row}-{column}"

    def _noted(self, stage: str, t: int, row: int, column: int) -> dict[str, Any]:
        """What the note of a chunk says; empty if there is none that can be read."""
        try:
            text = self._note_of(stage, t, row, column).read_text(encoding="utf-8")
            note: dict[str, Any] = json.loads(text)
        except (OSError, ValueError):
            return {}
        return note

    def _is_whole(self, stage: str, t: int, row: int, column: int) -> bool:
        """Whether a chunk is finished and as it was written; else it is deleted."""
        states = self._states(stage, t, row, column)
        if self._noted(stage, t, row, column).get("files") == states:
            return True
        self._note_of(stage, t, row, column).unlink(missing_ok=True)
        for name, state in states.items():
            if state is not None:
                (self.partial / name).unlink(missing_ok=True)
        return False

    def _states(
        self, stage: str, t: int, row: int, column: int
    ) -> dict[str, list[int] | None]:
        """Size and checksum of each file that a stage writes of a chunk, by its name.

        None where there is none: Zarr does not write what is zero everywhere.
        """
        arrays = [*self.raw, *self.reconstructions]
        has_times = True
        if stage == "fused":
            arrays = [
                array.data if isinstance(array, Reordered) else array
                for array in self.outputs.values()
            ]
            has_times = "T" in self.stack.axes
        states = {}
        for array in arrays:
            side = CHUNK * (array.shape[-1] // self.stack.width)
            around = Rectangle(*(side * n for n in (row, row + 1, column, column + 1)))
            times = range(t, t + 1) if has_times else None
            for name in _chunk_files(array, times, around):
                place = os.path.relpath(name, self.partial)
                states[Path(place).as_posix()] = _state_of(name)
        return states


class ZarrStore(OpenStore):
    """Results on disk under a temporary name, with a note of each finished chunk.

    Killed at any instant, the same call goes on. The folder of a partial result has::

        result/           the OME-Zarr, which is renamed in the end
        raw/              raw maps
        finished_chunks/  notes with the sizes and checksums of finished chunks
        run.json          what identifies the run
        lock              held by the process that writes
        replaced/         for the moment of the renaming, what lay under the final name

    Parameters
    ----------
    path
        The final name; work goes on in ``<path>.partial`` beside it.
    stack
        The source.
    run
        What identifies the run: only the same run may go on with a partial result.
    overwrite
        Whether a finished result of that name may be replaced.
    reconstructions
        How many planes the model reconstructs.
    scale
        Factor of super-resolution.
    inputs
        What the run reads beside the stack, which is never overwritten either.

    Attributes
    ----------
    earlier
        Provenance of the result, if an earlier run was killed only after it had given
        the result its name; otherwise None.

    Raises
    ------
    FocusFusionError
        If the name is taken or one of these, a partial result of another run lies
        there, or another process writes it.
    """

    def __init__(
        self,
        path: Path,
        stack: FocusStack,
        run: dict[str, Any],
        overwrite: bool,
        reconstructions: int = 0,
        scale: int = 1,
        inputs: frozenset[str] = frozenset(),
    ) -> None:
        self.path, self.overwrite = path, overwrite
        self.partial, self.stack = path.with_name(path.name + ".partial"), stack
        self.earlier: dict[str, Any] | None = None
        self._opened = ExitStack()
        check_out(path, stack, inputs)
        with ExitStack() as opened:
            opened.enter_context(translated_errors(path.absolute().parent))
            interrupted = self.partial.exists()
            if not interrupted:
                check_targets([path], overwrite=overwrite)
            opened.enter_context(_locked(self.partial, path))
            self._check_same(run)
            if interrupted and self._is_in_place(run):
                self.earlier = provenance_in(str(path))
                self._clean_up()
                self.outputs = open_output(path, stack)
                return
            self._begin(run, reconstructions, scale)
            super().__init__(self.partial, stack)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Let other processes write here."""
        self._opened.close()

    def _is_in_place(self, run: dict[str, Any]) -> bool:
        """Whether the run was killed after it had given the result its name."""
        if (self.partial / RESULT).exists():
            return False
        earlier = provenance_in(str(self.path))
        return bool(earlier) and not differences(earlier, run)

    def _begin(self, run: dict[str, Any], reconstructions: int, scale: int) -> None:
        """A partial result to be filled, or to go on with."""
        replaced = self.partial / REPLACED
        if os.path.lexists(replaced) and not os.path.lexists(self.path):
            os.rename(replaced, self.path)
        check_targets([self.path], overwrite=self.overwrite)
        if not self._run_file.exists():
            self._check_room(scale, reconstructions)
            write_durably(self._run_file, _as_text(run))
        self._create(scale, reconstructions)

    def _check_room(self, scale: int, reconstructions: int) -> None:
        stack = self.stack
        raw = stack.n_times * stack.height * stack.width * (10 + 4 * reconstructions)
        check_targets(
            [self.path],
            overwrite=self.overwrite,
            nbytes=result_bytes(stack, scale, reconstructions > 0) + raw,
        )

    def _create(self, scale: int, reconstructions: int) -> None:
        """The arrays without their chunks, whatever of them is there already."""
        fresh = self.partial / FRESH
        remove(fresh)
        create_output(
            fresh / RESULT,
            self.stack,
            scale=scale,
            chunk=CHUNK,
            reconstructed=reconstructions > 0,
        )
        _create_raw(fresh / RAW, self.stack, reconstructions)
        for path in sorted(fresh.rglob("*")):
            place = self.partial / path.relative_to(fresh)
            if path.is_dir():
                place.mkdir(exist_ok=True)
            else:
                os.replace(path, place)
        remove(fresh)
        self.notes.mkdir(exist_ok=True)

    @property
    def _run_file(self) -> Path:
        return self.partial / "run.json"

    def _check_same(self, run: dict[str, Any]) -> None:
        try:
            earlier = self._run_file.read_text(encoding="utf-8")
        except OSError:
            earlier = ""
        begun = {LOCK, f"{self._run_file.name}.new"}
        if not earlier and begun.issuperset(p.name for p in self.partial.iterdir()):
            return
        if earlier != _as_text(run):
            raise FocusFusionError(
                f"{str(self.partial)!r} is an unfinished result of another run (other "
                "stack, model or settings). Delete it, or choose another name."
            )

    def finish(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """Give the result its final name; its arrays, opened for reading there."""
        with self.access():
            result = self.partial / RESULT
            complete_output(result, provenance)
            _sync_tree(result)
            self._put_in_place(result)
            self._clean_up()
            self.close()
            return open_output(self.path, self.stack)

    def _put_in_place(self, result: Path) -> None:
        replaced = self.partial / REPLACED
        if os.path.lexists(self.path):
            # A folder cannot be replaced in one step. If the run is killed before the
            # second, the next one puts the old result back.
            check_targets([self.path], overwrite=self.overwrite)
            remove(replaced)
            os.rename(self.path, replaced)
        try:
            os.rename(result, self.path)
        except BaseException:
            if os.path.lexists(replaced):
                os.rename(replaced, self.path)
            raise
        sync(self.path.absolute().parent)

    def _clean_up(self) -> None:
        """Delete what is no longer needed, last what says whose it was."""
        for name in (RAW, NOTES, FRESH, REPLACED):
            remove(self.partial / name)
        self._run_file.unlink(missing_ok=True)


Store = MemoryStore | OpenStore


def check_out(path: Path, stack: FocusStack, inputs: frozenset[str]) -> None:
    """Raise if no result can be written by region there, whatever run it is of."""
    if path.suffix != ".zarr":
        raise FocusFusionError(
            f"Results are written by region into an OME-Zarr, and {str(path)!r} "
            "does not end in .ome.zarr. For a TIFF, leave out= away and save the "
            "result."
        )
    check_targets([path], overwrite=True, inputs=inputs | places_of(stack))


@contextmanager
def _locked(partial: Path, path: Path) -> Iterator[None]:
    """Hold the folder of a partial result; it is deleted in the end if it is empty.

    The lock ends with the process, however that ends.
    """
    from filelock import FileLock, Timeout

    partial.mkdir(exist_ok=True)
    file = partial / LOCK
    lock = FileLock(file)
    with suppress(NotImplementedError):  # file systems without locks
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FocusFusionError(
                f"Another run is writing {str(path)!r} at this moment. Wait until it "
                "has finished, or choose another name."
            ) from None
    try:
        yield
    finally:
        # Deleted while it is held, so that nobody locks what is about to go. Windows
        # lets only go what is closed.
        with suppress(OSError):
            file.unlink()
        lock.release()
        with suppress(OSError):
            partial.rmdir()


def _create_raw(folder: Path, stack: FocusStack, reconstructions: int) -> None:
    import zarr

    kept = dict(zip(Maps._fields, ("u2", "f4", "f4"), strict=True))
    kept |= {f"picture-{i:04}": "f4" for i in range(reconstructions)}
    for name, dtype in kept.items():
        zarr.create_array(
            folder / name,
            shape=(stack.n_times, stack.height, stack.width),
            chunks=(1, CHUNK, CHUNK),
            dtype=dtype,
        )


def _chunks_of(region: Rectangle) -> list[tuple[int, int]]:
    """Row and column of each chunk of a plane that a region touches."""
    rows = range(region.y0 // CHUNK, -(-region.y1 // CHUNK))
    columns = range(region.x0 // CHUNK, -(-region.x1 // CHUNK))
    return list(product(rows, columns))


def _chunk_files(array: Any, times: range | None, region: Rectangle) -> Iterator[str]:
    """Files of a Zarr array's chunks that a region of its plane touches.

    ``times`` are the chunks along the first axis; None: all, as along the others.
    """
    lead = [range(n) for n in array.cdata_shape[:-2]]
    if times is not None:
        lead[0] = times
    (tall, wide), (down, across) = array.chunks[-2:], array.cdata_shape[-2:]
    rows = range(region.y0 // tall, min(-(-region.y1 // tall), down))
    columns = range(region.x0 // wide, min(-(-region.x1 // wide), across))
    for place in product(*lead, rows, columns):
        key = array.metadata.encode_chunk_key(place)
        yield os.path.join(array.store.root, array.path, key)


def _state_of(file: str) -> list[int] | None:
    """Size and checksum of a file, None if there is none."""
    try:
        content = Path(file).read_bytes()
    except FileNotFoundError:
        return None
    return [len(content), zlib.crc32(content)]


def _sync_tree(folder: Path) -> None:
    """Have a finished result reach the disk, without what killed writers left."""
    for place in [*folder.rglob("*"), folder]:
        if place.suffix == ".partial":  # Zarr's own temporary files
            place.unlink(missing_ok=True)  # a lost worker may still be ending
        else:
            sync(place)


def _as_list(region: Rectangle) -> list[int]:
    return [region.y0, region.y1, region.x0, region.x1]


def _finer(stack: FocusStack, scale: int) -> tuple[int, ...]:
    """Shape of the fused image, with so many times the rows and columns."""
    sizes = zip(stack.fused_axes, stack.fused_shape, strict=True)
    return tuple(size * scale if axis in "YX" else size for axis, size in sizes)


def _as_text(run: dict[str, Any]) -> str:
    return json.dumps(run, indent=1, default=str)


def put_raw(raw: Maps, t: int, region: Rectangle, maps: Maps) -> None:
    """Write the raw maps of a region."""
    for stored, values in zip(raw, maps, strict=True):
        stored[t, region.y, region.x] = values


def get_raw(raw: Maps, t: int, area: Rectangle) -> Maps:
    """Read the raw maps of a region and its halo."""
    return Maps(*(np.asarray(whole[t, area.y, area.x]) for whole in raw))


def put_finished(
    outputs: dict[str, Any],
    stack: FocusStack,
    t: int,
    region: Rectangle,
    fused: np.ndarray,
    maps: Maps,
    consistency: np.ndarray | None = None,
    beyond: np.ndarray | None = None,
) -> None:
    """Write the final pixels and maps of a region.

    Parameters
    ----------
    outputs
        Arrays by name.
    stack
        The source.
    t
        Time point.
    region
        Where.
    fused
        (components, h, w), or so many times finer.
    maps
        (h, w) each; the depth in slices becomes a height in the unit of Z.
    consistency
        (h, w), of a super-resolved image.
    beyond
        (channels, h, w), of a reconstructed image.
    """
    places = {"T": t, "Y": region.y, "X": region.x}
    key = tuple(places[axis] for axis in stack.map_axes)
    outputs["decision"][key] = maps.labels
    outputs["confidence"][key] = maps.confidence
    outputs["depth"][key] = maps.depth * np.float32(stack.pixel_size("Z"))
    if consistency is not None:
        outputs["consistency"][key] = consistency
    if beyond is not None:
        write_block(outputs["beyond"], stack, t, region, beyond, stack.channel_axes)
    write_block(outputs["fused"], stack, t, region, fused)
