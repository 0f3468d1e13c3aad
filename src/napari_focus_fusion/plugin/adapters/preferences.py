"""The plugin's section of napari's preferences."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from napari_focus_fusion.models import fine_tuned

PLUGIN = "napari-focus-fusion"
SECTION = "fusion"


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


def models_folder() -> Path:
    """The folder of fine-tuned models, from the environment or the preferences.

    The environment variable takes precedence over the preferences; where neither is
    set, it is the usual one of the platform.
    """
    if not os.environ.get(fine_tuned.FOLDER_VARIABLE):
        chosen = getattr(preferences(), "models_folder", "")
        if chosen:
            return Path(chosen).expanduser()
    return fine_tuned.models_folder()
