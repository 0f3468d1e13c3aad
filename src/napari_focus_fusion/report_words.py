"""What a report finds, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.decision import LOW_CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack

#: The stack may be too short where its first or last slice holds more than this share
#: of the clear pixels, and more than half of its fair share.
LARGE_END_SHARE = 0.05
#: Slices with at most this share of the clear pixels count as hardly used.
NEGLIGIBLE_SHARE = 0.001
#: Numbers of a provenance that nobody reads.
FOR_PROGRAMS = ("transforms", "gains", "offsets")
#: With fewer clear pixels than this share the ends are not judged.
MIN_CLEAR_SHARE = 0.02


def find_clipped_ends(clear: NDArray[Any]) -> tuple[int, ...]:
    """First or last slice where it holds too large a share of the clear pixels."""
    slices = len(clear)
    if slices < 3 or not clear.sum():
        return ()
    share = clear / clear.sum()
    return tuple(
        z for z in (0, slices - 1) if share[z] > max(LARGE_END_SHARE, 0.5 / slices)
    )


def verdict(
    counts: NDArray[Any],
    clear: NDArray[Any],
    low: float | None,
    clipped_ends: tuple[int, ...],
    maps: Mapping[str, Any],
) -> Iterator[str]:
    """Findings from the counts of a decision map, in sentences.

    Parameters
    ----------
    counts, clear
        Pixels, and pixels whose confidence is not low, of each slice.
    low
        Share of the pixels whose confidence is low; None if it is not known.
    clipped_ends
        Slices that `find_clipped_ends` returned.
    maps
        What :func:`~napari_focus_fusion.report.report` took; its ``"provenance"`` has
        the notes of the run.
    """
    yield from maps.get("provenance", {}).get("notes", ())
    if low is not None:
        yield (
            f"{low:.0%} of the pixels have a low confidence (below {LOW_CONFIDENCE}): "
            "nothing sharp is seen there in any slice, or the same in all."
        )
    if maps.get("decision") is None:
        yield "Without a decision map nothing can be said about the slices."
        return
    last = len(clear) - 1
    kind = "clear pixels" if low is not None else "pixels, plain background included,"
    if len(clear) < 3:
        yield "With fewer than three slices nothing can be said about the stack's ends."
        return
    if clear.sum() < MIN_CLEAR_SHARE * counts.sum():
        yield "Too few pixels are clear to say whether the stack is long enough."
        return
    share = clear / clear.sum()
    for z in clipped_ends:
        end, beyond = ("first", "before") if z == 0 else ("last", "beyond")
        yield (
            f"{share[z]:.0%} of the {kind} are sharpest in the {end} slice ({z}): the "
            f"stack may be too short at this end. If the object goes on, take more "
            f"slices {beyond} it."
        )
    if not clipped_ends:
        yield (
            f"The first slice holds {share[0]:.1%} of the {kind} and the last one "
            f"{share[last]:.1%}: no sign that the stack is too short."
        )
    used = np.flatnonzero(share > NEGLIGIBLE_SHARE)
    for count, where in ((used[0], "first"), (last - used[-1], "last")):
        if count > 1:
            yield f"The {where} {count} slices are hardly used."


def stack_text(stack: FocusStack, t: int) -> str:
    """The size of a stack."""
    parts = [f"{stack.n_slices} slices", f"{stack.width} x {stack.height} pixels"]
    if stack.n_channels > 1:
        parts.append(f"{stack.n_channels} channels")
    parts.append("RGB" if "S" in stack.axes else str(stack.dtype))
    if stack.n_times > 1:
        parts.append(f"time point {t} of 0 to {stack.n_times - 1}")
    return ", ".join(parts)


def window_text(stack: FocusStack, y: slice, x: slice, factor: int) -> str:
    """Which pixels were measured, `factor` x `factor` of the image to each."""
    whole = (y.stop - y.start, x.stop - x.start) == (stack.height, stack.width)
    text = (
        "on the whole image"
        if whole
        else (
            f"on the {x.stop - x.start} x {y.stop - y.start} pixels with most detail "
            f"of nine windows (rows {y.start} to {y.stop - 1}, columns {x.start} to "
            f"{x.stop - 1})"
        )
    )
    return text + (f", {factor} x {factor} pixels averaged" if factor > 1 else "")


def channel_names(stack: FocusStack) -> tuple[str, ...]:
    """Names of the channels; empty for one."""
    if stack.n_channels == 1:
        return ()
    return stack.channel_names or tuple(f"channel {i}" for i in range(stack.n_channels))


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested provenance as names and texts, without what is only for programs."""
    for name, value in values.items():
        if name in FOR_PROGRAMS:
            continue
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name} ")
        else:
            yield f"{before}{name}".replace("_", " "), str(value)
