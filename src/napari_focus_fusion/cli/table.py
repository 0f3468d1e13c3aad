"""One table of what came of many stacks, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.cli.console import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_focus_fusion.stack import FocusStack

COLUMNS = (
    *("name", "status", "inputs", "series", "output", "axes", "shape", "dtype"),
    *("slices", "slices_used", "best_slice", "confident", "drift", "seconds"),
    *("notes", "error"),
)
SUFFIXES = (".csv", ".json")
#: A slice is used if more than this share of the pixels comes from it.
_LEAST_SHARE = 0.001


def check_table(path: Path, *, replace: bool, resume: bool) -> None:
    """Raise before any work if a table cannot be written there.

    Parameters
    ----------
    path
        Where it is to be.
    replace
        Whether another file may be replaced.
    resume
        Whether a table of ours may be.

    Raises
    ------
    UsageError
        Saying what to do.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot write the table {path}: use .csv or .json")
    if path.exists() and not replace and not (resume and _is_table(path)):
        raise UsageError(
            f"{path} exists already: choose another name for the table, or allow it "
            "to be replaced with --overwrite"
        )


def write_table(path: Path, reports: Sequence[dict[str, Any]]) -> None:
    """Write one row a stack, whole or not at all.

    Parameters
    ----------
    path
        ``.csv`` or ``.json``.
    reports
        What the command ``fuse`` reports of each stack.
    """
    from napari_focus_fusion.write.saving import written_whole

    rows = [_row(report) for report in reports]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".json":
        text = json.dumps({"columns": COLUMNS, "rows": rows}, indent=2, default=str)
    else:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: _cell(k, v) for k, v in row.items()} for row in rows])
        text = lines.getvalue()
    with written_whole([path], overwrite=True) as (partial,):
        # The mark is what spreadsheets know UTF-8 by.
        encoding = "utf-8" if path.suffix.lower() == ".json" else "utf-8-sig"
        partial.write_text(text, encoding=encoding, newline="")


def measures_of(stack: FocusStack, maps: dict[str, Any]) -> dict[str, Any]:
    """What a table says of a fused stack.

    Parameters
    ----------
    stack
        What was fused.
    maps
        By name the fused image, the maps of decision and confidence, and the
        provenance: what :func:`~napari_focus_fusion.report.load_result` gives.

    Returns
    -------
    dict
        Axes, shape and type of the fused image, slices that were used, share of the
        pixels that are confident, the drift in pixels from slice to slice (the largest
        over time; None: not known), and notes.
    """
    import numpy as np

    from napari_focus_fusion.decision import LOW_CONFIDENCE
    from napari_focus_fusion.result import FusionResult
    from napari_focus_fusion.write.blocks import regions

    result = FusionResult(**maps, depth=None, stack=stack)
    best = result.best_slice
    counts, confident = np.zeros(stack.n_slices, np.int64), 0
    for region in regions(stack.map_shape, 2048):
        labels = np.asarray(result.decision[region]).ravel()
        counts += np.bincount(labels, minlength=stack.n_slices)
        confidence = np.asarray(result.confidence[region])
        confident += int((confidence >= LOW_CONFIDENCE).sum())
    drift = [d for d in result.provenance.get("drift") or () if d is not None]
    return {
        "slices": stack.n_slices,
        "slices_used": int((counts > _LEAST_SHARE * counts.sum()).sum()),
        "best_slice": best if isinstance(best, int) else best.tolist(),
        "confident": round(confident / max(int(counts.sum()), 1), 4),
        "drift": max(drift, default=None),
        "axes": stack.fused_axes,
        "shape": list(result.fused.shape),
        "dtype": str(result.fused.dtype),
        "notes": result.notes,
    }


def _row(report: dict[str, Any]) -> dict[str, Any]:
    row = {column: report.get(column) for column in COLUMNS}
    row["output"] = next(iter(report.get("outputs", ())), None)
    if row["status"] is None:
        before = "fused before" if "fused_before" in report else "fused"
        row["status"] = before if report["ok"] else "failed"
    return row


def _cell(column: str, value: Any) -> Any:
    """A value as text of one cell."""
    if value is None:
        return ""
    if isinstance(value, list):
        return (" x " if column == "shape" else "; ").join(map(str, value))
    return value


def _is_table(path: Path) -> bool:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            return bool(json.loads(text)["columns"] == list(COLUMNS))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return text.startswith(",".join(COLUMNS) + "\n")
