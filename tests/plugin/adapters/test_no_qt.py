"""What adapts napari's layers needs no window, and none of what draws one."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from napari_focus_fusion.plugin import adapters

MODULES = [
    f"{adapters.__name__}.{one.name}" for one in pkgutil.iter_modules(adapters.__path__)
]


def test_no_adapter_imports_qt():
    """All of them in a fresh interpreter, one after the other."""
    assert {"layers", "maps", "jobs", "preview"} <= {
        m.rpartition(".")[2] for m in MODULES
    }
    code = f"""
import importlib, sys
qt = {{"qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "superqt"}}
for name in {MODULES!r}:
    importlib.import_module(name)
    found = qt & {{module.partition(".")[0] for module in sys.modules}}
    if found:
        sys.exit(f"{{name}} imports {{sorted(found)}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
