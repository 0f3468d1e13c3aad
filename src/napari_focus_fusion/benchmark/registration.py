"""How well slices are aligned and levelled, on stacks whose disturbance is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_focus_fusion._version import __version__
from napari_focus_fusion.benchmark.peers import OPENFOCUS_ALIGNED
from napari_focus_fusion.benchmark.report import machine
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.simulation.drift import KINDS, disturb
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from napari_focus_fusion.result import FusionResult
    from napari_focus_fusion.simulation.drift import Disturbed

#: Rows, columns and slices of a stack, and what is cut off around it.
SHAPE, SLICES, ROOM = (224, 256), 6, 48
CONTENTS = ("texture", "leaves")
#: Seeds far above those of training.
FIRST_SEED = 7_100_000
#: Of the brightest pixel, for the noise.
ELECTRONS = 4000.0

_ABOUT = """\
Scenes with ground truth (224 x 256 pixels, 6 slices, noise of 4000 electrons) whose
slices were then disturbed: *translation*, steps of 1.5 pixels from slice to slice;
*breathing*, 0.5 to 3 % of scale; *rotation*, up to a degree over the stack; *moving
object*, a disc of 15 % of the plane that crosses it; *all* of these. The error is the
distance between where a slice shows a point and where the registration says, over the
whole plane and all slices, in pixels. PSNR is that of the fused image (`sml`
without the surface, in the
area that all slices show) against the noise-free truth; "undisturbed" is the same
stack, with as much noise, that never moved. OpenFocus fuses with StackMFF V3 after
`--align openfocus`; it crops the image, which is
compared with the truth as each of the slices would show it, and the best counts.
"""


@dataclass(frozen=True)
class Row:
    """One stack: errors in pixels before and after, and PSNR in dB."""

    kind: str
    content: str
    before: np.ndarray
    after: np.ndarray
    undisturbed: float
    unaligned: float
    aligned: float
    peer: float | None


def measure(
    log: Callable[[str], None],
    contents: Iterable[str] = CONTENTS,
    disturbances: Sequence[str] = (*KINDS, "flicker", "bleaching"),
) -> list[Row]:
    """Measure kinds of disturbance on a scene of each content."""
    rows = []
    for number, content in enumerate(contents):
        scene = make_scene(
            FIRST_SEED + number,
            shape=(SHAPE[0] + 2 * ROOM, SHAPE[1] + 2 * ROOM),
            slices=SLICES,
            content=content,
            electrons=None,
        )
        still = disturb(scene.stack, number, "still", room=ROOM, electrons=ELECTRONS)
        best = _fused(still.stack).fused
        for kind in disturbances:
            rows.append(_row(scene.stack, scene.truth, best, number, content, kind))
            log(f"{content}, {kind}: {np.median(rows[-1].after):.3f} px")
    return rows


def _fused(slices: np.ndarray, **options: Any) -> FusionResult:
    return fuse(slices, "sml", axes="ZYX", surface=0, device="cpu", **options)


def _row(
    stack: np.ndarray,
    truth: np.ndarray,
    best: np.ndarray,
    seed: int,
    content: str,
    kind: str,
) -> Row:
    moved = kind if kind in KINDS else "still"
    flicker, bleaching = 0.3 * (kind == "flicker"), 0.06 * (kind == "bleaching")
    found = disturb(
        stack,
        seed,
        moved,
        room=ROOM,
        electrons=ELECTRONS,
        flicker=flicker,
        bleaching=bleaching,
    )
    level = "keep" if kind in KINDS else "level"
    aligned = _fused(found.stack, align="similarity", brightness=level)
    plain = _fused(found.stack)
    assert aligned.registration is not None
    area = aligned.registration.valid_area
    gain = found.gains[SLICES // 2]
    sharp = truth[ROOM:-ROOM, ROOM:-ROOM]

    def psnr(image: np.ndarray, gain: float = 1.0) -> float:
        off = image[area.y, area.x] / gain - sharp[area.y, area.x]
        return _decibels(float(np.mean(off**2)), sharp)

    identity = np.tile(np.eye(2, 3), (SLICES, 1, 1))
    return Row(
        kind,
        content,
        _errors(identity, found.transforms),
        _errors(aligned.registration.matrices[0], found.transforms),
        psnr(best),
        psnr(plain.fused, gain),
        psnr(aligned.fused, gain),
        _peer_score(found, truth),
    )


def _peer_score(found: Disturbed, truth: np.ndarray) -> float | None:
    """PSNR of OpenFocus in whichever slice's frame it is best; None: not installed.

    It crops what not all slices show, on which sides it does not tell.
    """
    if OPENFOCUS_ALIGNED.version() is None:
        return None
    fused = OPENFOCUS_ALIGNED.fuse(list(found.stack)) / found.gains[-1]
    room = [n - m + 1 for n, m in zip(SHAPE, fused.shape, strict=True)]
    errors = []
    for transform in found.transforms:
        back = np.linalg.inv(transform[:, :2])
        shown = ndimage.affine_transform(
            truth, back, ROOM - back @ transform[:, 2], output_shape=SHAPE, order=5
        )
        for corner in np.ndindex(*room):
            window = tuple(
                slice(first, first + n)
                for first, n in zip(corner, fused.shape, strict=True)
            )
            errors.append(float(np.mean((fused - shown[window]) ** 2)))
    return _decibels(min(errors), truth[ROOM:-ROOM, ROOM:-ROOM])


def _decibels(squared_error: float, sharp: np.ndarray) -> float:
    """PSNR by the range of the whole truth."""
    return float(20 * np.log10(np.ptp(sharp)) - 10 * np.log10(squared_error))


def _errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(slices, points): distances in pixels on a grid over the plane."""
    y, x = np.mgrid[: SHAPE[0] - 1 : 9j, : SHAPE[1] - 1 : 9j].reshape(2, -1)
    points = np.stack([y, x, np.ones_like(y)], 1)
    off = points @ np.swapaxes(found - true, 1, 2)
    return np.hypot(off[..., 0], off[..., 1])


def write_page(rows: list[Row], path: Path, command: str) -> None:
    """Write the figures as Markdown."""
    head = (
        "disturbance",
        "error before, median",
        "after, median",
        "after, 95 %",
        "after, largest",
        "slices made worse",
        "undisturbed, dB",
        "not aligned",
        "aligned",
        OPENFOCUS_ALIGNED.title,
    )
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        before, after = (
            np.concatenate([getattr(row, name) for row in own])
            for name in ("before", "after")
        )
        worse = int((after.mean(1) > before.mean(1) + 0.05).sum())
        quality = (
            np.mean([getattr(row, name) for row in own])
            for name in ("undisturbed", "unaligned", "aligned")
        )
        cells = (
            kind,
            *(f"{value:.2f}" for value in (np.median(before), np.median(after))),
            *(f"{value:.2f}" for value in (np.percentile(after, 95), after.max())),
            f"{worse} of {len(after)}",
            *(f"{value:.2f}" for value in quality),
            "–" if own[0].peer is None else f"{np.mean([row.peer for row in own]):.2f}",
        )
        lines.append(" | ".join(cells))
    table = "\n".join(f"| {line} |" for line in lines)
    total = (
        "Slices are worse where their mean error grew by more than 0.05 pixels. "
        "Flicker is of gains from 0.7 to 1.3, bleaching of 6 % a slice; both with "
        '`brightness="level"`.'
    )
    if OPENFOCUS_ALIGNED.version() is None:
        total += f" {OPENFOCUS_ALIGNED.title}: not installed."
    else:
        total += f" OpenFocus is {OPENFOCUS_ALIGNED.version()}."
    made = f"napari-focus-fusion {__version__} on {machine()}."
    parts = ["# Benchmark: registration", made, f"```console\n{command}\n```"]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([*parts, _ABOUT.strip(), table, total])
    path.write_text(text + "\n", encoding="utf-8")
