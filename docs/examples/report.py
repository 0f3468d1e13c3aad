"""Judge a fusion: measures, where the slices were used, was the stack long enough."""

import sys
from pathlib import Path

import napari_focus_fusion as ff
from napari_focus_fusion.plugin.adapters.samples import brightfield_sample
from napari_focus_fusion.report import report

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
[(pixels, attributes, _)] = brightfield_sample()

# The stack ends within the pollen, which the report notes.
stack = ff.as_stack(pixels[6:, :192, :256], axes="ZYXS", name="pollen")
found = report(stack, ff.fuse(stack, "sml", device="cpu"), measures=["Q_G", "Q_AB/F"])
print(found.text())
print(found.save_csv(folder / "quality.csv", overwrite=True))
print(found.save_png(folder / "quality.png", overwrite=True))
