"""Drive the widget "Retouch focus fusion": begin, paint, take an area, undo, save."""

import sys
from pathlib import Path

import napari
import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QEventLoop

from napari_focus_fusion.plugin.adapters.layers import fuse_layer
from napari_focus_fusion.plugin.adapters.samples import brightfield_sample

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
viewer = napari.Viewer()
[(pixels, attributes, _)] = brightfield_sample()
stack = viewer.add_image(pixels[::2, :192, :256], **attributes)
for data in fuse_layer(stack, model="sml"):
    viewer.add_layer(Layer.create(*data))

dock, widget = viewer.window.add_plugin_dock_widget(
    "napari-focus-fusion", "Retouch focus fusion"
)


def wait(signal):
    """Wait for a signal while the window processes events."""
    waiting = QEventLoop()
    signal.connect(waiting.quit)
    waiting.exec()
    signal.disconnect(waiting.quit)


widget.layer.value = stack
widget.map.value = viewer.layers["Pollen decision [sml]"]
widget.start()
wait(widget.ended)

# Label 1 is slice 0, label 4 is slice 3.
widget.labels.brush_size = 40
widget.labels.paint((100, 120), 4)
while not widget.caught_up:
    wait(widget.followed)

# An area from the slice on screen; then as it was before.
viewer.dims.set_current_step(0, 5)
mask = np.zeros(widget.labels.data.shape, bool)
mask[20:60, 20:60] = True
widget.take_area(mask)
widget.undo()
while not widget.caught_up:
    wait(widget.followed)

print("slice of pixel (100, 120):", widget.decision()[100, 120])
print(widget.save_map(folder / "edited.ome.tif", overwrite=True))
viewer.close()  # or, to go on by hand: napari.run()
