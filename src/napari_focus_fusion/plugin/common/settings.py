"""What the plugin remembers from one session to the next.

Device, working memory and the folder of models stand in napari's preferences, where
napari knows of such settings (0.9), under the headings of the manifest. What was last
chosen in a widget is kept in a small file of our own beside napari's settings; where
napari keeps none, nothing is remembered.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.plugin.adapters.preferences import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_focus_fusion.plugin.common.fields import Field

FILE = f"{PLUGIN}.json"

_log = logging.getLogger(__name__)


def recall(widget: str) -> dict[str, Any]:
    """What was remembered for a widget; empty where nothing was, or it is damaged."""
    path = settings_file()
    found = _read(path).get(widget) if path else None
    return found if isinstance(found, dict) else {}


def remember(widget: str, values: dict[str, Any]) -> None:
    """Keep the values of a widget, beside those of the others.

    Parameters
    ----------
    widget
        Which one.
    values
        What JSON can hold.
    """
    path = settings_file()
    if path is None:
        return
    text = json.dumps({**_read(path), widget: values}, indent=1)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:  # a full disk or a read-only home must not stop a fusion
        _log.warning("%s cannot be written: %s", path, error)


def recall_fields(widget: str, fields: Mapping[str, Field]) -> None:
    """Give fields the values that were remembered for a widget.

    Parameters
    ----------
    widget
        Which one.
    fields
        By the name of the value. One that nothing is remembered of, or cannot hold
        what is, stays as it is.
    """
    kept = recall(widget)
    for name, field in fields.items():
        if name in kept:
            with suppress(ValueError, TypeError):
                field.value = kept[name]


def remember_fields(widget: str, fields: Mapping[str, Field]) -> None:
    """Keep the values of fields, which JSON can hold, as :func:`remember` does.

    Parameters
    ----------
    widget
        Which one.
    fields
        By the name of the value.
    """
    remember(widget, {name: field.value for name, field in fields.items()})


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def settings_file() -> Path | None:
    """The file beside napari's settings; None where napari keeps none."""
    from napari.settings import get_settings

    path = get_settings().config_path
    return Path(path).parent / FILE if path else None
