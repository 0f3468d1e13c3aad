"""Take an area from another slice, and save the edited map; no napari needed."""

import sys
from pathlib import Path

import numpy as np

import napari_focus_fusion as ff
from napari_focus_fusion.plugin.adapters.samples import brightfield_sample
from napari_focus_fusion.retouch import recompose, save_decision, take_slice

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
[(pixels, attributes, _)] = brightfield_sample()
stack = ff.as_stack(pixels[::2, :192, :256], axes="ZYXS", name="pollen")

result = ff.fuse(stack, "sml", device="cpu")
decision, fused = result.decision, result.fused

mask = np.zeros(decision.shape, bool)
mask[60:120, 80:160] = True
area = take_slice(decision, mask, 3)
if area is not None:
    written = recompose(stack, decision, fused, area)  # a few milliseconds
    print("recomposed rows", written.y, "columns", written.x)
print(save_decision(folder / "edited.ome.tif", decision, stack, overwrite=True))

# The same map for other channels or time points:
again = ff.fuse(stack, decision=decision, device="cpu")
print("as fusing all of it by the map:", np.array_equal(again.fused, fused))
