"""What tiles, regions, progress and files cost above a plain loop over the slices.

    python -m studies.overhead [MODEL ...]

The loop reads whole planes of the same OME-TIFF, scores each with one call of the
model, adds scores up over windows, and keeps the best, confidence and depth: what the
engine does with ``surface=0``, ``blend="select"`` and ``verify=False``, without tiles,
checks and notes. CPU seconds, the least of three.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch

import napari_focus_fusion as ff
from napari_focus_fusion.decision import RunningDecision, aggregate, aggregate_halo
from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.models.base import SliceScorer
from napari_focus_fusion.simulation.scenes import make_scene

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE, SLICES, REPEATS = 1024, 8, 3


def plain_loop(model: SliceScorer, path: Path) -> np.ndarray:
    """The decision of a stack by whole planes."""
    assert model.spec is not None
    halo, inner = model.spec.halo, aggregate_halo(model.window)
    running = RunningDecision((SIDE, SIDE), torch.device("cpu"))
    everywhere = slice(None)
    selected = np.zeros((SIDE, SIDE), np.uint16)
    context = None
    with tifffile.TiffFile(path) as file, torch.inference_mode():
        few = [page.asarray()[::4, ::4].astype(np.float32) for page in file.pages]
        black, white = black_and_white(few)
        if model.needs_sample:
            parts = [torch.from_numpy((p - black) / (white - black)) for p in few]
            context = model.context([part[None, None] for part in parts])
        for z, page in enumerate(file.pages):
            plane = page.asarray()
            normalised = (plane.astype(np.float32) - black) / (white - black)
            padded = np.pad(normalised, halo + inner, mode="symmetric")
            score = model.score(torch.from_numpy(padded)[None, None], context)[0]
            summed = aggregate(score[halo:-halo, halo:-halo], model.window, 1.0)
            better = summed > running.best
            running.update(z, summed, everywhere, everywhere)
            np.copyto(selected, plane, where=better.numpy())
        return running.maps().labels


def seconds_of(work: Callable[[], Any]) -> float:
    """CPU seconds, the least of some repeats."""
    found = []
    for _ in range(REPEATS):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return min(found)


def main() -> None:
    """Print one line a model."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stack.ome.tif"
        stack = make_scene(7, shape=(SIDE, SIDE), slices=SLICES).stack
        tifffile.imwrite(path, stack, metadata={"axes": "ZYX"})
        for name in sys.argv[1:] or ["sml", "sesf", "residual"]:
            model = ff.load_model(name)
            assert isinstance(model, SliceScorer)
            fused = partial(
                ff.fuse,
                path,
                model,
                surface=0,
                blend="select",
                verify=False,
                device="cpu",
            )
            alike = (plain_loop(model, path) == fused().decision).mean()
            loop = seconds_of(partial(plain_loop, model, path))
            ours = seconds_of(fused)
            print(
                f"{name}: loop {loop:.2f} s, fuse {ours:.2f} s, "
                f"{100 * (ours / loop - 1):+.0f} %; same slice at {alike:.2%}"
            )


if __name__ == "__main__":
    main()
