"""Where a result is stored: in memory, or on disk when it is large."""

from __future__ import annotations

from typing import Any

import psutil
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_focus_fusion.progress import byte_text

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
