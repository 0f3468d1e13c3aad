"""Drive the widget "Fuse focus stack": set values, run, wait, read the results."""

import napari
from qtpy.QtCore import QEventLoop

from napari_focus_fusion.plugin.adapters.samples import fluorescence_sample

viewer = napari.Viewer()
for pixels, attributes, _ in fluorescence_sample():
    viewer.add_image(pixels[::2, :192, :192], **attributes)
nuclei = viewer.layers["Nuclei"]

dock, widget = viewer.window.add_plugin_dock_widget(
    "napari-focus-fusion", "Fuse focus stack"
)
widget.layer.value = nuclei
widget.model.value = "sml"
widget.outputs["depth"].setChecked(True)

# The window processes events while it waits.
waiting = QEventLoop()
widget.ended.connect(waiting.quit)
if widget.run() is None:
    raise SystemExit("What is chosen cannot be fused.")
waiting.exec()

fused = viewer.layers["Nuclei fused [sml]"]
print(fused.name, fused.data.shape, fused.data.dtype)
print([layer.name for layer in viewer.layers])
viewer.close()  # or, to go on by hand: napari.run()
