"""Fine-tune a model on a stack; in practice with more steps than here."""

import sys
from pathlib import Path

import napari_focus_fusion as ff
from napari_focus_fusion.plugin.adapters.samples import fluorescence_sample

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
folder.mkdir(exist_ok=True)
pixels, attributes, _ = fluorescence_sample()[1]

result = ff.finetune(
    "sesf",
    pixels[:, :192, :192],
    axes="ZYX",
    out=folder / "tubules.safetensors",
    steps=4,  # 300 take minutes
    patch=48,
    device="cpu",
)
# A model that is not better on the validation part is not kept.
print(result.verdict)
model = result.path if result.better else "sesf"
print(ff.fuse(pixels[:, :160, :160], model, axes="ZYX").fused.shape)
