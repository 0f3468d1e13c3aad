"""Arrays as focus stacks: their axes, and slices or stacks joined to one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.axes import check_axes, guess_axes
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.lazy import SliceList, reordered
from napari_focus_fusion.placement import displayed_axes
from napari_focus_fusion.stack import FocusStack, check_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence


def stack_from_array(
    data: Any,
    *,
    axes: str | None = None,
    hint: str | None = None,
    name: str = "stack",
    **fields: Any,
) -> FocusStack:
    """Make a FocusStack of one array; `hint` are axes from metadata, `axes` wins."""
    if not is_array(data):
        data = np.asarray(data)
    try:
        np.dtype(data.dtype)
    except TypeError:  # a tensor of another library
        data = np.asarray(data)
    if any(n != n for n in data.shape):
        raise FocusFusionError(
            f"{name!r} is a dask array that does not know its own size. Call its "
            "compute_chunk_sizes() first."
        )
    if isinstance(data, np.ma.MaskedArray) and not np.ma.is_masked(data):
        data = data.data
    shape = tuple(data.shape)
    check_dtype(np.dtype(data.dtype), name)
    letters = axes if axes is not None else hint
    letters = (
        guess_axes(shape, np.dtype(data.dtype), name) if letters is None else letters
    )
    letters = letters.upper()
    check_axes(letters, shape, name)
    ordered = "".join(a for a in letters if a not in "YXS") + "YX"
    ordered += "S" if "S" in letters else ""
    if ordered != letters:
        shown = letters.replace("S", "")
        if shown != ordered.replace("S", ""):
            fields["display"] = {"axes": shown, **fields.get("display", {})}
        data = reordered(data, tuple(letters.index(axis) for axis in ordered))
    return FocusStack(data, ordered, name=name, **fields)


def with_axes(stack: FocusStack, axes: str | None) -> FocusStack:
    """The same pixels with other axes, one letter a dimension; None: as they are."""
    if axes is None or axes.upper() == stack.axes:
        return stack
    return stack_from_array(
        stack.data,
        axes=axes,
        name=stack.name,
        scale=stack.scale,
        units=stack.units,
        channel_names=stack.channel_names if "C" in axes.upper() else (),
        source=stack.source,
        display={k: v for k, v in stack.display.items() if k != "axes"},
        notes=stack.notes,
        files=stack.files,
    )


def axes_as_given(stack: FocusStack) -> str:
    """The axes of a stack in the order that its source has them."""
    order = getattr(stack.data, "order", None)
    if order is not None and len(order) == len(stack.axes):
        letters = dict(zip(order, stack.axes, strict=True))
        return "".join(letters[i] for i in range(len(order)))
    return displayed_axes(stack) + ("S" if "S" in stack.axes else "")


def stack_of_slices(
    slices: Sequence[FocusStack], *, axes: str | None, name: str, source: str
) -> FocusStack:
    """Join single slices along Z, in the order given, reading nothing.

    Raises
    ------
    FocusFusionError
        Naming the slice that differs in size, type or colour from the others.
    """
    return joined(slices, "Z", (len(slices),), axes=axes, name=name, source=source)


def joined(
    slices: Sequence[FocusStack],
    lead: str,
    shape: tuple[int, ...],
    *,
    axes: str | None = None,
    **fields: Any,
) -> FocusStack:
    """Join slices, or whole stacks, along the axes `lead`, the last varying fastest.

    Parameters
    ----------
    slices
        Single slices where `lead` has Z, else single slices or stacks.
    lead
        Out of ``TCZ``.
    shape
        How many there are along each.
    axes
        As in ``as_stack``.
    **fields
        Of the FocusStack, instead of the first one's.

    Raises
    ------
    FocusFusionError
        Naming the one that differs from the others, or the axis that is there twice.
    """
    first = slices[0]
    stacks = "Z" not in lead and first.n_slices > 1
    own = first.axes if stacks else first.fused_axes
    _check_alike(slices, stacks=stacks)
    twice = sorted(set(lead) & set(own))
    if twice and axes is None:
        raise FocusFusionError(
            f"The names of the files tell {len(slices)} files along the axes {lead} "
            f"apart, and each file has the axes {first.axes} itself: {twice[0]} is "
            "there twice. Say what the axes are, first those of the names, for example "
            f"axes={'TCZ'[-len(lead) :] + first.fused_axes!r}."
        )
    data = SliceList(
        [one.data for one in slices], [one.axes for one in slices], shape, stacks=stacks
    )
    display = {k: v for k, v in first.display.items() if k != "axes" or not stacks}
    notes = (note for one in slices for note in one.notes)
    return stack_from_array(
        data,
        axes=axes,
        hint=lead + own,
        units=first.units,
        display=display,
        **{
            "scale": first.scale,
            "channel_names": first.channel_names,
            **fields,
            "notes": tuple(dict.fromkeys((*notes, *fields.get("notes", ())))),
        },
    )


def _check_alike(slices: Sequence[FocusStack], *, stacks: bool) -> None:
    """Raise where a slice, or stack, differs from most of the others, naming it."""
    for one in [] if stacks else slices:
        if one.n_slices > 1:
            raise FocusFusionError(
                f"{one.name!r} holds {one.n_slices} slices itself (axes {one.axes}, "
                f"shape {tuple(one.data.shape)}), but each item of a list must be one "
                "slice. Open a file that is a whole stack on its own, or say with the "
                "axes that each is a time point or channel, like "
                f"axes={'T' + one.axes!r}."
            )
    for what, value in (
        ("pixels (rows x columns)", _yx),
        ("slices", lambda one: one.n_slices),
        ("channels", lambda one: one.n_channels),
        ("colour samples", lambda one: one.n_samples),
        ("time points", lambda one: one.n_times),
        ("type", lambda one: one.dtype),
        ("axes", lambda one: one.fused_axes),
    ):
        values = [value(one) for one in slices]
        usual, _ = Counter(values).most_common(1)[0]
        for one, here in zip(slices, values, strict=True):
            if here != usual:
                raise FocusFusionError(
                    f"{one.name!r} does not fit the rest of the stack: {what} "
                    f"{here}, but {slices[values.index(usual)].name!r} has {usual}. "
                    "All slices must agree; take the odd one out or convert it."
                )


def is_array(source: Any) -> bool:
    """Whether something can be read as an array."""
    return all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__"))


def _yx(stack: FocusStack) -> str:
    return f"{stack.height} x {stack.width}"
