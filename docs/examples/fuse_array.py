"""Fuse an array, with no napari and no screen."""

import sys
from pathlib import Path

import napari_focus_fusion as ff
from napari_focus_fusion.plugin.adapters.samples import brightfield_sample

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)

# Any array will do, such as the data of a napari layer; this one is simulated.
[(pixels, attributes, _)] = brightfield_sample()
pixels = pixels[::2, :192, :256]

stack = ff.as_stack(
    pixels,
    axes="ZYXS",
    name="pollen",
    scale={"Z": 4, "Y": 0.25, "X": 0.25},
    units="micrometer",
)
result = ff.fuse(stack, "sml", device="cpu")
print(result.fused.shape, result.fused.dtype, "of", stack.n_slices, "slices")
print("heights from", result.depth.min(), "to", result.depth.max(), stack.unit("Z"))
for path in result.save(folder / "pollen.ome.tif", overwrite=True):
    print(path)
