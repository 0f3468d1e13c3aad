"""Where metadata of napari layers and of files say what is ours."""

from __future__ import annotations

#: Key of what this package writes: the output, its axes, and its provenance.
METADATA_KEY = "napari_focus_fusion"
