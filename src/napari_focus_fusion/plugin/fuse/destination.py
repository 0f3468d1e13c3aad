"""Where a result is stored: in memory, or on disk when it is large."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_focus_fusion.plugin.common.texts import byte_text

if TYPE_CHECKING:
    from napari_focus_fusion.stack import FocusStack

#: A result that would take more than this share of the free memory is large.
LARGE = 0.25


def is_large(size: int) -> bool:
    """Whether so many bytes are too much to keep in memory without asking."""
    return size > LARGE * psutil.virtual_memory().available


def ask_where(parent: QWidget, name: str, size: int) -> str:
    """Ask where to store a large result.

    Parameters
    ----------
    parent
        The window that opens the dialog.
    name
        Name of the stack.
    size
        Bytes of its result.

    Returns
    -------
    str
        ``"zarr"``, ``"memory"``, or ``""`` if it was cancelled.
    """
    free = psutil.virtual_memory().available
    box = QMessageBox(parent)
    box.setWindowTitle("Large result")
    box.setText(
        f"The result of {name!r} takes {byte_text(size)}, and {byte_text(free)} of "
        "memory are free."
    )
    box.setInformativeText(
        "Written to an OME-Zarr, it is shown from disk and takes hardly any memory."
    )
    written: Any = box.addButton(
        "Write to OME-Zarr …", QMessageBox.ButtonRole.AcceptRole
    )
    in_memory: Any = box.addButton(
        "Keep in memory", QMessageBox.ButtonRole.DestructiveRole
    )
    box.addButton(QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(written)
    box.exec()
    clicked: Any = box.clickedButton()
    return {written: "zarr", in_memory: "memory"}.get(clicked, "")


def ask_path(parent: QWidget, name: str) -> str:
    """Ask for the name of a new OME-Zarr; empty if it was cancelled."""
    usual = "".join(c if c.isalnum() or c in "-_ " else "_" for c in name)
    path, _ = QFileDialog.getSaveFileName(
        parent, "Write the result to", f"{usual}_fused.ome.zarr", "OME-Zarr (*.zarr)"
    )
    if path and not path.endswith(".zarr"):
        path += ".ome.zarr"
    return path


def result_bytes(stack: FocusStack, scale: int = 1) -> int:
    """Bytes of the fused image and all maps of a stack."""
    plane = stack.n_times * stack.height * stack.width
    fused = stack.n_components * stack.dtype.itemsize * scale**2
    maps = 2 + 4 + 4 + (4 if scale > 1 else 0)
    return plane * (fused + maps)
