"""Where a run keeps maps and pixels: in memory, or in an OME-Zarr to be resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.decision import Maps
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.tiling import evenly_spread
from napari_focus_fusion.write.blocks import write_block
from napari_focus_fusion.write.ome_zarr import (
    complete_output,
    create_output,
    open_output,
)
from napari_focus_fusion.write.places import places_of
from napari_focus_fusion.write.saving import (
    check_targets,
    put_in_place,
    translated_errors,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from napari_focus_fusion.stack import FocusStack
    from napari_focus_fusion.tiling import Rectangle

#: Side of the chunks of an OME-Zarr that is written by region.
CHUNK = 512


class MemoryStore:
    """Results in memory, which cannot be resumed."""

    def __init__(
        self, stack: FocusStack, reconstructions: int = 0, scale: int = 1
    ) -> None:
        plane = (stack.n_times, stack.height, stack.width)
        self.reconstructions: list[Any] = [
            np.zeros(plane, np.float32) for _ in range(reconstructions)
        ]
        self.raw = Maps(
            np.zeros(plane, np.uint16),
            np.zeros(plane, np.float32),
            np.zeros(plane, np.float32),
        )
        self.outputs: dict[str, Any] = {
            "fused": np.zeros(_finer(stack, scale), stack.dtype),
            "decision": np.zeros(stack.map_shape, np.uint16),
            "confidence": np.zeros(stack.map_shape, np.float32),
            "depth": np.zeros(stack.map_shape, np.float32),
        }
        if scale > 1:
            self.outputs["consistency"] = np.zeros(stack.map_shape, np.float32)

    def access(self) -> AbstractContextManager[None]:
        """What reads and writes results: nothing can fail."""
        return nullcontext()

    def is_done(self, stage: str, t: int, region: Rectangle) -> bool:
        """Whether a region was finished by an earlier run: never."""
        return False

    def mark_done(self, stage: str, t: int, region: Rectangle) -> None:
        """Note a finished region: does nothing, as the run cannot be resumed."""

    def finish(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """The results by name; where they came from is kept beside them."""
        return self.outputs


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
        self.outputs: dict[str, Any] = open_output(partial, stack)
        raw: list[Any] = [
            zarr.open_array(partial / "raw" / name, mode="r+") for name in Maps._fields
        ]
        self.raw = Maps(*raw)
        self.reconstructions: list[Any] = [
            zarr.open_array(path, mode="r+")
            for path in sorted((partial / "raw").glob("picture-*"))
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
        """Folder with an empty file for each chunk that a stage has finished."""
        return self.partial / "finished_chunks"

    def _chunk_notes(self, stage: str, t: int, region: Rectangle) -> list[Path]:
        rows = range(region.y0 // CHUNK, -(-region.y1 // CHUNK))
        columns = range(region.x0 // CHUNK, -(-region.x1 // CHUNK))
        return [
            self.notes / f"{stage}-{t}-{row}-{column}"
            for row in rows
            for column in columns
        ]

    def is_done(self, stage: str, t: int, region: Rectangle) -> bool:
        """Whether a region was finished, now or by an earlier run.

        Noted chunk by chunk: an earlier run with less or more memory cut the plane
        into other regions.
        """
        return all(note.exists() for note in self._chunk_notes(stage, t, region))

    def mark_done(self, stage: str, t: int, region: Rectangle) -> None:
        """Note that everything a stage writes of a region, whole chunks, is written."""
        for note in self._chunk_notes(stage, t, region):
            note.touch()


class ZarrStore(OpenStore):
    """Results on disk under a temporary name, with a note of each finished chunk.

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

    Raises
    ------
    FocusFusionError
        If the name is taken or one of these, or a partial result of another run lies
        there.
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
        if path.suffix != ".zarr":
            raise FocusFusionError(
                f"Results are written by region into an OME-Zarr, and {str(path)!r} "
                "does not end in .ome.zarr. For a TIFF, leave out= away and save the "
                "result."
            )
        inputs |= places_of(stack)
        check_targets([path], overwrite=overwrite, inputs=inputs)
        self.partial, self.stack = path.with_name(path.name + ".partial"), stack
        with translated_errors(path.absolute().parent):
            if self.partial.exists():
                self._check_same(run)
            else:
                self._create(run, scale, reconstructions, overwrite=overwrite)
            super().__init__(self.partial, stack)

    def _create(
        self,
        run: dict[str, Any],
        scale: int,
        reconstructions: int,
        *,
        overwrite: bool,
    ) -> None:
        """An empty partial result, if there is room for all that it will hold."""
        stack = self.stack
        plane = stack.n_times * stack.height * stack.width
        fused = stack.n_components * stack.dtype.itemsize * scale**2
        # Decision, confidence, depth, consistency, and the raw maps.
        maps = 10 + 4 * (scale > 1) + 10 + 4 * reconstructions
        check_targets([self.path], overwrite=overwrite, nbytes=plane * (fused + maps))
        create_output(self.partial, stack, scale=scale, chunk=CHUNK)
        self._create_raw(reconstructions)
        self.notes.mkdir()
        self._run_file.write_text(_as_text(run), encoding="utf-8")

    @property
    def _run_file(self) -> Path:
        return self.partial / "run.json"

    def _check_same(self, run: dict[str, Any]) -> None:
        try:
            earlier = self._run_file.read_text(encoding="utf-8")
        except OSError:
            earlier = ""
        if earlier != _as_text(run):
            raise FocusFusionError(
                f"{str(self.partial)!r} is an unfinished result of another run (other "
                "stack, model or settings). Delete it, or choose another name."
            )

    def _create_raw(self, reconstructions: int) -> None:
        import zarr

        stack = self.stack
        kept = dict(zip(Maps._fields, ("u2", "f4", "f4"), strict=True))
        kept |= {f"picture-{i:04}": "f4" for i in range(reconstructions)}
        for name, dtype in kept.items():
            zarr.create_array(
                self.partial / "raw" / name,
                shape=(stack.n_times, stack.height, stack.width),
                chunks=(1, CHUNK, CHUNK),
                dtype=dtype,
            )

    def finish(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """Give the result its final name; its arrays, opened for reading there."""
        with self.access():
            return self._finish(provenance)

    def _finish(self, provenance: dict[str, Any]) -> dict[str, Any]:
        complete_output(self.partial, provenance)
        # From here on there is nothing to resume: a failure leaves a whole result
        # under its temporary name.
        self._run_file.unlink()
        shutil.rmtree(self.partial / "raw")
        shutil.rmtree(self.notes)
        put_in_place(self.partial, self.path, overwrite=self.overwrite)
        return open_output(self.path, self.stack)


Store = MemoryStore | OpenStore


def fingerprint(stack: FocusStack) -> str:
    """Hash of a few windows of a few slices, which identifies the stack."""
    digest = hashlib.sha256()
    side = 32
    for t in evenly_spread(stack.n_times, 3):
        for z in evenly_spread(stack.n_slices, 5):
            # Along the diagonal: the corners of an image are often black.
            for y, x in zip(
                evenly_spread(max(stack.height - side, 1), 5),
                evenly_spread(max(stack.width - side, 1), 5),
                strict=False,
            ):
                rows, columns = slice(y, y + side), slice(x, x + side)
                digest.update(stack.read(t, slice(z, z + 1), rows, columns).tobytes())
    return digest.hexdigest()


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
    """
    places = {"T": t, "Y": region.y, "X": region.x}
    key = tuple(places[axis] for axis in stack.map_axes)
    outputs["decision"][key] = maps.labels
    outputs["confidence"][key] = maps.confidence
    outputs["depth"][key] = maps.depth * np.float32(stack.pixel_size("Z"))
    if consistency is not None:
        outputs["consistency"][key] = consistency
    write_block(outputs["fused"], stack, t, region, fused)
