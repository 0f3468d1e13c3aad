"""A run whose graphics card stops working: how it ends, as JSON.

``python -m napari_focus_fusion.benchmark.lost_device cuda:0 before|during``, in a
process of its own, since nothing in it can use the card afterwards.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import torch

from napari_focus_fusion.benchmark.device_report import last_lines
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.simulation.scenes import make_scene


def lose(device: str) -> None:
    """Make every later call on a card fail: an index that is not there."""
    place = torch.tensor([1 << 20], device=device)
    torch.zeros(4, device=device)[place]
    with contextlib.suppress(RuntimeError):
        torch.cuda.synchronize(device)


def outcome(device: str, moment: str) -> dict[str, Any]:
    """How a run ends whose device is lost before it or during it."""
    stack = make_scene(0, shape=(128, 128), slices=4).stack
    fuse(stack, "sml", device=device)
    if moment == "before":
        lose(device)
    calls: list[float] = []

    def progress(_: object) -> None:
        calls.append(0.0)
        if moment == "during" and len(calls) == 2:
            lose(device)

    try:
        fuse(stack, "sml", device=device, progress=progress)
    except FocusFusionError as error:
        return {"in words": True, "said": str(error)}
    except Exception as error:  # whatever a driver may raise: that is the question
        return {"in words": False, "said": list(last_lines(error))}
    return {"in words": False, "said": "the run ended as if nothing had happened"}


if __name__ == "__main__":
    print(json.dumps(outcome(sys.argv[1], sys.argv[2])))
