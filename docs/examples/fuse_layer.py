"""Fuse a layer as the widget does, in one call that returns layers."""

from napari.layers import Image, Layer

from napari_focus_fusion.plugin.adapters.layers import fuse_layer
from napari_focus_fusion.plugin.adapters.samples import fluorescence_sample

# No viewer is needed; with one, take viewer.layers["Nuclei"].
pixels, attributes, _ = fluorescence_sample()[0]
layer = Image(pixels[::2, :192, :192], **attributes)

for data, attributes, kind in fuse_layer(layer, model="sml", outputs=["fused"]):
    fused = Layer.create(data, attributes, kind)  # viewer.add_layer(fused)
    print(fused.name, fused.data.shape, fused.scale, fused.units)
