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
from pathlib import Path
from typing import Any

from napari_focus_fusion.models.fine_tuned import FOLDER_VARIABLE

PLUGIN = "napari-focus-fusion"
SECTION = "fusion"
FILE = f"{PLUGIN}.json"

_log = logging.getLogger(__name__)
# A folder that the environment names goes before the one in the preferences.
_GIVEN_FOLDER = os.environ.get(FOLDER_VARIABLE)


def on_activate(context: Any = None) -> None:
    """What npe2 calls before the first command of the plugin runs."""
    apply_models_folder()


def preferences() -> Any:
    """The plugin's section of napari's preferences; None where napari has none.

    Its attributes are ``device``, a name, ``memory``, in MB, 0 for automatic, and
    ``models_folder``, empty for the usual one. They can be set, which saves them.
    """
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # before napari 0.9
        return None
    try:
        return getattr(get_plugin_settings(PLUGIN), SECTION)
    except (KeyError, AttributeError, ValueError):  # the plugin is not registered
        return None


def apply_models_folder() -> None:
    """Make the folder of the preferences the one where fine-tuned models are."""
    if _GIVEN_FOLDER:
        return
    chosen = getattr(preferences(), "models_folder", "")
    if chosen:
        os.environ[FOLDER_VARIABLE] = chosen
    else:
        os.environ.pop(FOLDER_VARIABLE, None)


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
