"""Models as packages of bioimage.io, for other programs and for other machines."""

from napari_focus_fusion.export.package import export_model

__all__ = ["export_model"]
