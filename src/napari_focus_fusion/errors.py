"""Errors whose text is written for users of microscopes, not for programmers."""

from __future__ import annotations


class FocusFusionError(ValueError):
    """Something about the input or the request is wrong; the text says what to do.

    Examples
    --------
    >>> import napari_focus_fusion as ff
    >>> ff.load_model("sefs")
    Traceback (most recent call last):
        ...
    napari_focus_fusion.errors.FocusFusionError: There is no model 'sefs'. ...
    """


class Cancelled(Exception):
    """The caller asked the run to stop; no file that looks complete is left.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_focus_fusion as ff
    >>> ff.fuse(np.zeros((2, 32, 32), np.uint8), "sml", should_stop=lambda: True)
    Traceback (most recent call last):
        ...
    napari_focus_fusion.errors.Cancelled
    """


def in_one_line(error: BaseException) -> str:
    """The text of an error without line breaks; that of a bug behind its type."""
    text = " ".join(str(error).split())
    known = isinstance(error, FocusFusionError)
    return text if known else f"{type(error).__name__}: {text}"
