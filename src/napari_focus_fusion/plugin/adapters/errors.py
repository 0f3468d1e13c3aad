"""Messages for the user about what went wrong in a run."""

from __future__ import annotations

import logging

from napari_focus_fusion.errors import FocusFusionError

_log = logging.getLogger(__name__)


def explain(error: Exception, name: str, done: str = "fused") -> str:
    """Message about a failed run on a stack, with advice; bugs are logged.

    Parameters
    ----------
    error
        The exception that the run raised.
    name
        Name of the stack.
    done
        What failed, as a participle.

    Returns
    -------
    str
        One or more sentences for the user.
    """
    return explain_failure(
        error,
        f"{name!r} could not be {done}",
        no_memory=f"There is not enough memory to fuse {name!r}. Close other programs, "
        "choose the CPU as device, write the result to OME-Zarr instead of memory, or "
        "crop the stack.",
        lost_device="The graphics card stopped answering while "
        f"{name!r} was fused ({_first_line(error)}). Choose the CPU as device, or "
        "start napari again; if it comes back, update the card's driver.",
    )


def explain_failure(
    error: Exception, what: str, *, no_memory: str, lost_device: str
) -> str:
    """Message about a failure; bugs are logged.

    Parameters
    ----------
    error
        The exception.
    what
        A sentence about what failed, without its full stop.
    no_memory, lost_device
        Messages for the case that memory ran out, or that the graphics card failed.
    """
    from napari_focus_fusion.device import is_out_of_memory

    if isinstance(error, FocusFusionError):
        return str(error)
    if is_out_of_memory(error):
        return no_memory
    if is_lost_device(error):
        return lost_device
    _log.error("%s", what, exc_info=error)
    return (
        f"{what} because of an error that was not foreseen "
        f"({type(error).__name__}: {error}). If it comes back, please report it; the "
        "log says where it happened."
    )


def is_lost_device(error: Exception) -> bool:
    """Whether an error says that the graphics card failed, rather than the program."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "CUDA error" in text or "CUDNN_STATUS" in text or "MPS backend" in text
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
