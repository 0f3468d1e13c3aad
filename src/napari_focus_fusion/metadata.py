"""Keys under which this package writes metadata into layers and files."""

from __future__ import annotations

#: Key of what this package writes: the output, its axes, and its provenance.
METADATA_KEY = "napari_focus_fusion"
#: Key in the metadata of a layer that was opened from files: notes on them, their axes,
#: and which of them became which slices.
SOURCE_KEY = "napari_focus_fusion_source"
