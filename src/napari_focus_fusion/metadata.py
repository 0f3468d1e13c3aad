"""Key under which this package writes metadata into layers and files."""

from __future__ import annotations

#: Key of what this package writes: the output, its axes, and its provenance.
METADATA_KEY = "napari_focus_fusion"
