"""Checks of the values of parameters, in the words of the caller: one place for all."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.errors import FocusFusionError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The least working memory, in bytes.
LEAST_MEMORY = 16 << 20
#: Longer values are cut in messages.
_SHOWN = 60
_MEMORY = re.compile(r"(\d+\.?\d*|\.\d+)\s*([kmgt]?)i?b?", re.IGNORECASE)

#: Of height maps, unless another is asked for: standard deviation of the window in
#: pixels.
SMOOTHING = 8.0


def shown(value: Any) -> str:
    """A value as a message shows it: short, and of an array only what it is."""
    if isinstance(getattr(value, "shape", None), tuple) and value.shape:
        return f"{type(value).__name__} of shape {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a value of whatever class
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def whole_number(
    name: str, value: Any, *, least: float = -math.inf, most: float = math.inf
) -> int:
    """A whole number, also one that is written with a decimal point.

    Raises
    ------
    FocusFusionError
        If it is none, or out of range.
    """
    number = _real(value)
    if number is None or not math.isfinite(number) or number != int(number):
        raise FocusFusionError(f"{name}={shown(value)} is no whole number.")
    _check_range(name, number, least, most)
    return int(number)


def real_number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> float:
    """A finite number.

    Raises
    ------
    FocusFusionError
        If it is none, or out of range.
    """
    number = _real(value)
    if number is None or not math.isfinite(number):
        raise FocusFusionError(f"{name}={shown(value)} is no finite number.")
    _check_range(name, number, least, most)
    if not number > above:
        raise FocusFusionError(f"{name}={shown(value)} must be above {above:g}.")
    return float(number)


def _real(value: Any) -> float | int | None:
    value = _plain(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None


def _plain(value: Any) -> Any:
    """A number of Python's for one of NumPy's, which loads too slowly to ask it."""
    single = getattr(value, "shape", None) == () and hasattr(value, "item")
    return value.item() if single else value


def _check_range(name: str, number: float, least: float, most: float) -> None:
    if least <= number <= most:
        return
    if most == math.inf:
        raise FocusFusionError(f"{name}={number} must be at least {least}.")
    if least == -math.inf:
        raise FocusFusionError(f"{name}={number} must be at most {most}.")
    raise FocusFusionError(f"{name}={number} must lie between {least} and {most}.")


def yes_or_no(name: str, value: Any) -> bool:
    """True or False, and nothing that only counts as one of them.

    Raises
    ------
    FocusFusionError
        If it is neither.
    """
    flag = _plain(value)
    if not isinstance(flag, bool):
        raise FocusFusionError(f"{name}={shown(value)} must be True or False.")
    return flag


def one_of(name: str, value: Any, known: Sequence[str]) -> str:
    """One of some words.

    Raises
    ------
    FocusFusionError
        If it is none of them.
    """
    if not isinstance(value, str) or value not in known:
        *words, last = (repr(word) for word in known)
        choice = f"{', '.join(words)} or {last}" if words else last
        raise FocusFusionError(f"{name}={shown(value)} is unknown; use {choice}.")
    return value


def text_of(name: str, value: Any) -> str:
    """Text that is not empty.

    Raises
    ------
    FocusFusionError
        If it is none.
    """
    if not isinstance(value, str) or not value:
        raise FocusFusionError(f"{name}={shown(value)} is no text.")
    return value


def several(name: str, value: Any) -> list[Any]:
    """The items of a list, a tuple or an array; text is none.

    Raises
    ------
    FocusFusionError
        If it is no collection.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise FocusFusionError(f"{name}={shown(value)} is no list.")
    try:
        return list(value)
    except TypeError as error:  # an array without axes
        raise FocusFusionError(f"{name}={shown(value)} is no list.") from error


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """A dictionary.

    Raises
    ------
    FocusFusionError
        If it is none.
    """
    if not isinstance(value, Mapping):
        raise FocusFusionError(f"{name}={shown(value)} is no dictionary.")
    return value


def file_path(name: str, value: Any) -> Path:
    """The path of a file or folder, ``~`` spelled out; it need not exist.

    Raises
    ------
    FocusFusionError
        If it is no path.
    """
    given = value if isinstance(value, str | os.PathLike) else ""
    path = os.fspath(given)
    if not isinstance(path, str) or not path or "\0" in path:
        raise FocusFusionError(f"{name}={shown(value)} is no path of a file.")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # ~somebody
        raise FocusFusionError(f"{name}={shown(value)}: {error}.") from error


def memory_bytes(name: str, value: Any) -> int:
    """Bytes of memory, from a number or from text like ``"2GB"`` and ``"512 MB"``.

    Raises
    ------
    FocusFusionError
        If it is no amount of memory.

    Examples
    --------
    >>> memory_bytes("memory", "64MB")
    67108864
    """
    if isinstance(value, str):
        match = _MEMORY.fullmatch(value.strip())
        if match is None:
            raise FocusFusionError(
                f"{name}={shown(value)} is no amount of memory, like '2GB' or a "
                "number of bytes."
            )
        exponent = " kmgt".index(match[2].lower() or " ")
        return int(float(match[1]) * 1024**exponent)
    return whole_number(name, value, least=0)


def callback(name: str, value: Any, *arguments: str) -> None:
    """Raise unless something is None or can be called with so many arguments.

    Parameters
    ----------
    name
        Of the parameter.
    value
        What is to be called.
    arguments
        What it is called with, in words.

    Raises
    ------
    FocusFusionError
        If it cannot be called so: now, and not in the middle of a run.
    """
    if value is None:
        return
    if not callable(value):
        raise FocusFusionError(f"{name}={shown(value)} cannot be called.")
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some functions in C do not say
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        given = ", ".join(arguments) or "nothing"
        raise FocusFusionError(
            f"{name}={shown(value)} cannot be called with {given}: {error}."
        ) from error


def checked_channel(name: str, value: Any) -> int | str | None:
    """A channel's number or name, or None.

    Raises
    ------
    FocusFusionError
        If it is none of these.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return text_of(name, value)
    try:
        return whole_number(name, value, least=0)
    except FocusFusionError as error:
        raise FocusFusionError(
            f"{name}={shown(value)} is no channel: give its number from 0, its name, "
            "'mean', or 'luminance' of RGB."
        ) from error
