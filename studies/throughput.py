"""How fast models fuse here, and what share of the machine's arithmetic they reach.

``python -m studies.throughput [MODEL ...]``
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.models.registry import load_model


def convolution_rate(seconds: float = 2.0) -> float:
    """Operations a second of a 3x3 convolution, 64 to 64 channels, float32.

    Channels last, 512 x 512 pixels, the best of the repetitions that fit into
    ``seconds``; a multiply-add is two operations.
    """
    layout = torch.channels_last
    planes = torch.rand(1, 64, 512, 512).contiguous(memory_format=layout)
    kernel = torch.rand(64, 64, 3, 3).contiguous(memory_format=layout)
    operations = 2 * kernel.numel() * 512 * 512
    best, end = float("inf"), time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < end:
            began = time.process_time()
            F.conv2d(planes, kernel, padding=1)
            best = min(best, time.process_time() - began)
    return operations / best


def surface(side: int, slices: int) -> np.ndarray:
    """(slices, side, side) uint16: one texture, more and more out of focus."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 60_000, (side, side)).astype(np.float32)
    middle = slices // 2
    planes = np.empty((slices, side, side), np.uint16)
    for z in range(slices):
        blurred = gaussian_filter(texture, 0.5 + 0.5 * abs(z - middle))
        planes[z] = np.clip(blurred + rng.normal(0, 100, blurred.shape), 0, 65_535)
    return planes


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["sml", "sesf"])
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--blend", default="feather")
    parser.add_argument("--scale", type=int, default=1, help="of those that enlarge")
    given = parser.parse_args()
    stack = surface(given.side, given.slices)
    work = stack.size / 1e6
    rate = convolution_rate()
    print(f"3x3 convolution: {rate / 1e9:.0f} Gop/s; {torch.get_num_threads()} threads")
    for name in given.models:
        model = load_model(name)
        fuse(stack[:, :64, :64], model, device="cpu")  # what is only done once
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        fuse(stack, model, device="cpu", blend=given.blend, scale=given.scale)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert model.spec is not None
        share = 2 * model.spec.cost * stack.size / cpu / rate
        print(
            f"{name}: {work / wall:.2f} megapixels x slices a second, "
            f"{cpu / work:.3f} CPU s each, {share:.0%} of the convolution rate, "
            f"{(peak - before) / 1024:.0f} MB more memory"
        )


if __name__ == "__main__":
    main()
