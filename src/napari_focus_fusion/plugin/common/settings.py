"""Settings that the plugin stores from one session to the next.

Device, working memory and the folder of models are stored in napari's preferences,
where napari supports settings of plugins (0.9), under the headings of the manifest. The
last settings of a widget are stored in a JSON file beside napari's settings; where
napari stores none, nothing is stored.
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
    """Stored values of a widget; empty where there are none, or the file is damaged."""
    path = settings_file()
    found = _read(path).get(widget) if path else None
    return found if isinstance(found, dict) else {}


def remember(widget: str, values: dict[str, Any]) -> None:
    """Store the values of a widget; those of other widgets stay.

    Parameters
    ----------
    widget
        Name of the widget.
    values
        Values that JSON can represent.
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
    """Set fields to the stored values of a widget.

    Parameters
    ----------
    widget
        Name of the widget.
    fields
        By the name of the value. A field stays as it is if no value is stored for it,
        or an invalid one.
    """
    stored = recall(widget)
    for name, field in fields.items():
        if name in stored:
            with suppress(ValueError, TypeError):
                field.value = stored[name]


def remember_fields(widget: str, fields: Mapping[str, Field]) -> None:
    """Store the values of fields, as :func:`remember` does.

    Parameters
    ----------
    widget
        Name of the widget.
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
    """The file beside napari's settings; None where napari has none."""
    from napari.settings import get_settings

    path = get_settings().config_path
    return Path(path).parent / FILE if path else None
