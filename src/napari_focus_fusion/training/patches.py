"""Patches of a user's stacks: a few windows are read once, patches are cut from them.

A stack may be far larger than memory and its chunks slow to read. So a bounded number
of windows is read before training, each once and with all of its slices; those without
detail are dropped. Some windows are for validation. All lie apart from each other, so
that no pixel for validation is used in training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import chain, cycle, product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_focus_fusion.engine.normalise import black_and_white, is_wide
from napari_focus_fusion.engine.prepare import with_first_range
from napari_focus_fusion.engine.reading import ABSENT, Reference, sample
from napari_focus_fusion.errors import Cancelled, FocusFusionError
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.parameters import several, shown
from napari_focus_fusion.tiling import Rectangle, evenly_spread
from napari_focus_fusion.training.rng import generator_of, random_integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_focus_fusion.stack import FocusStack

    #: For each stack its rectangles; None for all of it.
    Regions = Sequence[Sequence[Rectangle] | None]

#: Most windows that are read, and the bytes that they may take.
WINDOWS, WINDOW_BYTES = 64, 256 << 20
#: With fewer places than this, windows are no larger than a patch.
FEW_PLACES = 16
#: Gap between two windows, as a share of the patch.
GAP = 0.25
#: Windows lie in a few blocks of the plane, so that few chunks are read; a block is a
#: chunk, or of this side in pixels where that is smaller or larger.
BLOCKS, SMALLEST_BLOCK, LARGEST_BLOCK = 16, 512, 2048
#: Most time points of a stack that windows are taken from, evenly spread.
TIMES = 16
#: What is read at once, in bytes.
SLAB_BYTES = 64 << 20
#: A window with less detail than this share of the most detailed ones' is dropped.
LEAST_DETAIL = 0.1
#: Differences of focus below this, in units of the stack's range, are none.
NO_DETAIL = 1e-6
#: A window with more absent pixels than this share, in all slices together, is dropped.
MOST_ABSENT = 0.01


@dataclass(frozen=True, slots=True)
class Place:
    """Where a window lies: stack, time point, upper left corner in pixels."""

    stack: int
    t: int
    y: int
    x: int


@dataclass(frozen=True, slots=True)
class Window:
    """A crop of a stack, all slices of it.

    Attributes
    ----------
    place
        Where it lies.
    planes
        (N, side, side) float32, normalised as the engine does.
    energy
        (N,), the mean of the plain focus measure over each slice.
    absent
        Share of its pixels that are absent; they are filled from around them.
    """

    place: Place
    planes: Tensor
    energy: Tensor
    absent: float = 0.0

    @property
    def detail(self) -> float:
        """How far the sharpest slice stands out from the most blurred one."""
        return float(self.energy.max() - self.energy.min())


class Drawn(NamedTuple):
    """The slices (stacks, N, h, w) of a step, and the step."""

    slices: Tensor
    step: int


@dataclass(frozen=True, slots=True)
class Patches:
    """Windows in memory, and the patches that are drawn of them.

    Attributes
    ----------
    training, validation
        Windows; pixels of the one lie at least a gap from pixels of the other.
    patch
        Side of a patch in pixels, at most that of a window.
    seed
        Of everything drawn.
    """

    training: tuple[Window, ...]
    validation: tuple[Window, ...]
    patch: int
    seed: int

    def draw(self, step: int, *, stacks: int, slices: int) -> Drawn:
        """Patches of a step: the same step of the same seed gives the same.

        Parameters
        ----------
        step
            Of the training.
        stacks
            How many patches.
        slices
            Slices of each, fewer where a stack has fewer; they are evenly spaced, as
            wide apart as drawn at random, and the sharpest is among them.
        """
        generator = generator_of(step, self.seed)
        first = self.training[random_integer(len(self.training), generator)]
        slices = min(slices, len(first.planes))
        fitting = [w for w in self.training if len(w.planes) >= slices]
        patches = [self._patch(first, slices, generator)]
        for _ in range(stacks - 1):
            window = fitting[random_integer(len(fitting), generator)]
            patches.append(self._patch(window, slices, generator))
        return Drawn(torch.stack(patches), step)

    def _patch(self, window: Window, slices: int, generator: torch.Generator) -> Tensor:
        """One patch (slices, patch, patch), turned and mirrored at random."""
        chosen = slices_around_sharpest(window, slices, generator)
        room = window.planes.shape[-1] - self.patch + 1
        y, x = random_integer(room, generator), random_integer(room, generator)
        planes = window.planes[chosen, y : y + self.patch, x : x + self.patch]
        planes = torch.rot90(planes, random_integer(4, generator), (-2, -1))
        if random_integer(2, generator):
            planes = planes.flip(-1)
        if random_integer(2, generator):
            planes = planes.flip(0)
        return planes

    def digest(self) -> str:
        """SHA-256 of all data of the training, to tell one run from another."""
        digest = hashlib.sha256(f"{self.patch} {self.seed}".encode())
        for windows in (self.training, self.validation):
            for window in windows:
                digest.update(f" {window.place} {tuple(window.planes.shape)}".encode())
                digest.update(window.planes.numpy().tobytes())
        return digest.hexdigest()


def slices_around_sharpest(
    window: Window, count: int, generator: torch.Generator
) -> list[int]:
    """Evenly spaced slices of a window, at random, the sharpest among them."""
    length, sharpest = len(window.planes), int(window.energy.argmax())
    if count >= length:
        return list(range(length))
    widest = 1 + random_integer((length - 1) // max(count - 1, 1), generator)
    # Side by side they always find a place, wide apart not around every slice.
    for gap in (widest, 1):
        before = [
            n
            for n in range(count)
            if 0 <= sharpest - n * gap and sharpest + (count - 1 - n) * gap < length
        ]
        if before:
            break
    first = sharpest - gap * before[random_integer(len(before), generator)]
    return [first + n * gap for n in range(count)]


def read_patches(
    stacks: Sequence[FocusStack],
    *,
    patch: int,
    holdout: float,
    seed: int,
    reference: int | str | None = None,
    regions: Regions | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Patches:
    """Choose windows of some stacks at random, and read them.

    Parameters
    ----------
    stacks
        Each of two slices or more.
    patch
        Side of a patch in pixels.
    holdout
        Share of the windows that is for validation.
    seed
        Of what is chosen and drawn.
    reference
        Channel that the focus is measured on, as :func:`fuse` takes it.
    regions
        For each stack the rectangles that windows lie in; None: anywhere.
    should_stop
        Asked between two readings.

    Raises
    ------
    FocusFusionError
        If a plane is smaller than a patch, there is no room for windows to train on
        and to validate with, pixels are absent everywhere, or no slice is sharper than
        another.
    Cancelled
        If `should_stop` said so.
    """
    rng = np.random.default_rng(seed)
    inside = _inside(stacks, regions)
    for stack in stacks:
        if min(stack.height, stack.width) < patch:
            raise FocusFusionError(
                f"{stack.name!r} has {stack.height} x {stack.width} pixels, fewer than "
                f"a patch of {patch} x {patch}. Choose a smaller patch, or leave this "
                "stack out."
            )
    training, validation, side = _choose_places(stacks, inside, patch, holdout, rng)
    read = {
        window.place: window
        for number, stack in enumerate(stacks)
        for window in _read_stack(
            stack,
            [p for p in (*training, *validation) if p.stack == number],
            side,
            reference,
            should_stop or (lambda: False),
        )
    }
    read = {p: window for p, window in read.items() if window.absent <= MOST_ABSENT}
    if not read:
        raise FocusFusionError(
            f"{_names(stacks)}: everywhere pixels are absent (NaN or masked) in "
            "some slice, so nothing can be learnt. Choose regions that are complete, "
            "or leave such slices out."
        )
    details = [window.detail for window in read.values()]
    if max(details) < NO_DETAIL:
        raise FocusFusionError(
            f"{_names(stacks)}: no slice is sharper than another, so nothing can be "
            "learnt. Are all slices the same, or empty?"
        )
    least = LEAST_DETAIL * float(np.quantile(details, 0.9))
    kept, left = (
        tuple(read[p] for p in places if p in read and read[p].detail >= least)
        for places in (training, validation)
    )
    if not kept or not left:
        raise _no_window_left(stacks, patch)
    return Patches(kept, left, patch, seed)


def _inside(
    stacks: Sequence[FocusStack], regions: Regions | None
) -> list[list[Rectangle]]:
    """For each stack the rectangles that windows lie in, cut to the plane."""
    if regions is None:
        regions = [None] * len(stacks)
    regions = several("regions", regions)
    if len(regions) != len(stacks):
        raise FocusFusionError(
            f"There are {len(stacks)} stacks and regions for {len(regions)}; give one "
            "list of rectangles a stack, or None for all of it."
        )
    found = []
    for stack, rectangles in zip(stacks, regions, strict=True):
        if rectangles is None:
            rectangles = [Rectangle(0, stack.height, 0, stack.width)]
        rectangles = several("regions", rectangles)
        for rectangle in rectangles:
            if not isinstance(rectangle, Rectangle):
                raise FocusFusionError(
                    f"regions: {shown(rectangle)} is no Rectangle of rows and columns."
                )
        cut = [r.inside_plane(stack.height, stack.width) for r in rectangles]
        found.append([r for r in cut if r.height > 0 and r.width > 0])
        if not found[-1]:
            raise FocusFusionError(
                f"No region lies on {stack.name!r}, which has {stack.height} x "
                f"{stack.width} pixels."
            )
    return found


def _choose_places(
    stacks: Sequence[FocusStack],
    inside: Sequence[Sequence[Rectangle]],
    patch: int,
    holdout: float,
    rng: np.random.Generator,
) -> tuple[list[Place], list[Place], int]:
    """Places of windows for training and for validation, and the side of a window."""
    gap = round(patch * GAP)
    side = patch * 3 // 2
    if sum(len(_corners(regions, side, gap)) for regions in inside) < FEW_PLACES:
        side = patch
    largest = max(stack.n_slices for stack in stacks)
    most = min(WINDOWS, max(WINDOW_BYTES // (largest * side * side * 4), 4))
    each = max(most // len(stacks), 1)
    cells = [
        (number, y, x)
        for number, (stack, regions) in enumerate(zip(stacks, inside, strict=True))
        for y, x in _spread_over_blocks(
            _corners(regions, side, gap), _block(stack), each, rng
        )
    ]
    if len(cells) < 2:
        raise _no_window_left(stacks, patch)
    # By cells and not by windows: time points of one place are alike.
    order = rng.permutation(len(cells))
    count = min(max(round(holdout * len(cells)), 1), len(cells) - 1)
    times = [cycle(rng.permutation(evenly_spread(s.n_times, TIMES))) for s in stacks]
    places: tuple[list[Place], list[Place]] = ([], [])
    for rank, index in enumerate(order):
        number, y, x = cells[index]
        repeats = min(stacks[number].n_times, TIMES, max(most // len(cells), 1))
        for _ in range(repeats):
            t = int(next(times[number]))
            places[rank < count].append(Place(number, t, y, x))
    return *places, side


def _spread_over_blocks(
    corners: list[tuple[int, int]],
    block: tuple[int, int],
    count: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """At most ``count`` corners of windows that lie in a few blocks."""
    blocks: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in corners:
        blocks.setdefault((y // block[0], x // block[1]), []).append((y, x))
    chosen = [list(blocks.values())[i] for i in rng.permutation(len(blocks))[:BLOCKS]]
    corners = [corner for group in chosen for corner in group]
    return [corners[i] for i in rng.permutation(len(corners))[:count]]


def _corners(
    regions: Sequence[Rectangle], side: int, gap: int
) -> list[tuple[int, int]]:
    """Corners of windows that lie at least ``gap`` apart, evenly over regions."""

    def starts(low: int, high: int) -> list[int]:
        length = high - low
        count = (length + gap) // (side + gap)
        if count < 2:
            return [low + (length - side) // 2] if length >= side else []
        return [low + i * (length - side) // (count - 1) for i in range(count)]

    grids = [
        [(y, x) for y in starts(r.y0, r.y1) for x in starts(r.x0, r.x1)]
        for r in regions
    ]
    return grids[0] if len(grids) == 1 else _well_spaced(grids, side + gap)


def _well_spaced(
    grids: list[list[tuple[int, int]]], spacing: int
) -> list[tuple[int, int]]:
    """Corners at least ``spacing`` from all corners kept before them."""
    # Of those kept, no two lie in one cell.
    kept: dict[tuple[int, int], tuple[int, int]] = {}
    for y, x in chain.from_iterable(grids):
        row, column = y // spacing, x // spacing
        around = product(range(row - 1, row + 2), range(column - 1, column + 2))
        near = [kept[cell] for cell in around if cell in kept]
        if all(max(abs(y - b), abs(x - a)) >= spacing for b, a in near):
            kept[row, column] = (y, x)
    return list(kept.values())


def _read_stack(
    stack: FocusStack,
    places: list[Place],
    side: int,
    reference: int | str | None,
    should_stop: Callable[[], bool],
) -> Iterator[Window]:
    """Windows at some places of one stack, its time points one after the other."""
    weights = tuple(float(w) for w in stack.reference_weights(reference))
    for t in sorted({place.t for place in places}):
        raw = Reference(stack, t, weights)
        if is_wide(stack.dtype):
            raw = with_first_range(raw)
        found = []
        for one in sample(raw):
            found.append(one)
            if should_stop():
                raise Cancelled
        windows, present = zip(*found, strict=True)
        low, high = black_and_white(windows, present)
        span = raw.white - raw.black
        normal = replace(
            raw, black=raw.black + low * span, white=raw.black + high * span
        )
        for together in _neighbours(stack, [p for p in places if p.t == t]):
            yield from _read_together(normal, together, side, should_stop)


def _neighbours(stack: FocusStack, places: list[Place]) -> list[list[Place]]:
    """Places grouped by the block they lie in, to be read together."""
    if stack.chunk_yx is None:
        return [[place] for place in places]
    high, wide = _block(stack)
    groups: dict[tuple[int, int], list[Place]] = {}
    for place in places:
        groups.setdefault((place.y // high, place.x // wide), []).append(place)
    return list(groups.values())


def _read_together(
    reference: Reference,
    places: list[Place],
    side: int,
    should_stop: Callable[[], bool],
) -> Iterator[Window]:
    """Windows cut from the smallest region that holds them all, slab by slab."""
    stack, plain = reference.stack, SumModifiedLaplacian()
    top, left = min(p.y for p in places), min(p.x for p in places)
    rows = slice(top, max(p.y for p in places) + side)
    columns = slice(left, max(p.x for p in places) + side)
    found = [torch.empty(stack.n_slices, side, side) for _ in places]
    absent = [0] * len(places)
    slab = _slab(stack, (rows.stop - top) * (columns.stop - left))
    for z in range(0, stack.n_slices, slab):
        span = slice(z, min(z + slab, stack.n_slices))
        region = reference.read(span, rows, columns)
        for i, (planes, p) in enumerate(zip(found, places, strict=True)):
            y, x = p.y - top, p.x - left
            window = (slice(None), slice(y, y + side), slice(x, x + side))
            planes[span] = torch.from_numpy(region.values[window])
            if region.flags is not None:
                absent[i] += int((region.flags[window] == ABSENT).sum())
        if should_stop():
            raise Cancelled
    for planes, place, number in zip(found, places, absent, strict=True):
        energy = [plain.score(plane[None, None]).mean() for plane in planes]
        yield Window(place, planes, torch.stack(energy), number / planes.numel())


def _block(stack: FocusStack) -> tuple[int, int]:
    """Rows and columns of the blocks that windows are chosen and read by."""
    high, wide = stack.chunk_yx or (SMALLEST_BLOCK, SMALLEST_BLOCK)
    return (
        min(max(high, SMALLEST_BLOCK), LARGEST_BLOCK),
        min(max(wide, SMALLEST_BLOCK), LARGEST_BLOCK),
    )


def _slab(stack: FocusStack, pixels: int) -> int:
    """Slices to read at once: whole chunks, as many as memory allows."""
    most = max(SLAB_BYTES // (pixels * stack.n_components * stack.dtype.itemsize), 1)
    chunks = getattr(stack.data, "chunksize", getattr(stack.data, "chunks", None))
    if chunks is None:
        return most
    deep = int(chunks[stack.axes.index("Z")])
    return most // deep * deep or most


def _names(stacks: Sequence[FocusStack]) -> str:
    names = [repr(stack.name) for stack in stacks[:3]]
    return ", ".join(names) + (" and others" if len(stacks) > 3 else "")


def _no_window_left(stacks: Sequence[FocusStack], patch: int) -> FocusFusionError:
    return FocusFusionError(
        f"{_names(stacks)}: no part is left to hold back and judge by. Two windows of "
        f"{patch} x {patch} pixels with detail are needed, {round(patch * GAP)} "
        "pixels apart. Choose a smaller patch, or give more or larger stacks."
    )
