"""One candidate on one data set, in a process of its own, to measure its memory.

``python -m napari_focus_fusion.benchmark.worker REQUEST.json`` fuses the stacks that
the request names, writes the results as ``.npy`` files and a line of JSON a stack to
standard output, with what it cost.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.images import slices_of, split_images
from napari_focus_fusion.errors import FocusFusionError, in_one_line
from napari_focus_fusion.opening import as_stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_focus_fusion.stack import FocusStack

    Arrays = dict[str, NDArray[Any]]
    Fuser = Callable[[FocusStack, int], Arrays]


def main() -> None:
    """Do what the request says."""
    # What other programs print on standard output goes to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        try:
            names = ("kind", "target", "seed", "device", "options")
            fuser, about = prepare(*(request[name] for name in names))
        except Exception as error:
            _answer(answers, error=in_one_line(error))
            return
        _answer(answers, **about)
        for job in request["jobs"]:
            try:
                cost = _fuse(fuser, job)
            except Exception as error:
                _answer(answers, error=in_one_line(error))
            else:
                _answer(answers, **cost, peak_mb=peak_memory() / 1e6)


def _answer(answers: Any, **values: Any) -> None:
    print(json.dumps(values), file=answers, flush=True)


def _fuse(fuser: Fuser, job: dict[str, Any]) -> dict[str, Any]:
    if "array" in job:
        source: Any = np.load(job["array"], mmap_mode="r")
    else:
        source = job["files"][0] if len(job["files"]) == 1 else job["files"]
    stack = as_stack(source, axes=job["axes"])
    wall, cpu = time.perf_counter(), _cpu_seconds()
    arrays = fuser(stack, job["enlarge"])
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": _cpu_seconds() - cpu}
    for name, array in arrays.items():
        np.save(f"{job['out']}-{name}.npy", array)
    return cost


def prepare(
    kind: str, target: str, seed: int, device: str, options: dict[str, Any]
) -> tuple[Fuser, dict[str, Any]]:
    """What fuses, ready to run, and what it is.

    Parameters
    ----------
    kind
        ``"model"``, ``"untrained"`` or ``"peer"``.
    target
        A name of the registry or a file of weights, or the name of a peer.
    seed
        What the weights of an untrained model are drawn from.
    device
        Where models run.
    options
        Other keywords of ``fuse``.

    Returns
    -------
    fuser
        From a stack and the wanted enlargement to ``fused``, images as `split_images`
        splits them (of the slices' size where the candidate cannot enlarge), and for
        models ``decision``, ``confidence`` and ``depth`` (in slices).
    about
        ``device`` and ``version``.
    """
    if kind == "peer":
        return _peer(target)
    return _model(kind, target, seed, options | {"device": device})


def _model(
    kind: str, target: str, seed: int, options: dict[str, Any]
) -> tuple[Fuser, dict[str, Any]]:
    import torch

    from napari_focus_fusion.fusion import fuse
    from napari_focus_fusion.models.registry import load_model, models, new_model

    torch.manual_seed(seed)
    trained = kind == "model"
    model = load_model(target) if trained else new_model(models()[target])
    spec = model.spec
    assert spec is not None
    if not trained and not any(True for _ in model.parameters()):
        raise FocusFusionError(f"{spec.title} has no weights to be left untrained.")
    # What is set up at a first run must not count for the first stack.
    noise = np.random.default_rng(0).random((2, 64, 64), np.float32)
    plain = {k: v for k, v in options.items() if k not in ("decision", "joint")}
    first = fuse(noise, model, **plain)

    def run(stack: FocusStack, enlarge: int) -> Arrays:
        scale = enlarge if enlarge in spec.upscale else 1
        result = fuse(stack, model, scale=scale, **(options if scale > 1 else plain))
        return {
            "fused": np.stack(split_images(result.fused, stack.fused_axes)),
            "decision": np.asarray(result.decision),
            "confidence": np.asarray(result.confidence),
            "depth": np.asarray(result.depth) / np.float32(stack.pixel_size("Z")),
        }

    weights = model.weights_hash[:12]
    version = f"weights {weights}" if weights else "no weights"
    return run, {
        "device": first.provenance["device"],
        "version": version if trained else f"seed {seed}",
    }


def _peer(name: str) -> tuple[Fuser, dict[str, Any]]:
    from napari_focus_fusion.benchmark.peers import PEERS

    peer = PEERS[name]

    def run(stack: FocusStack, enlarge: int) -> Arrays:
        # Channels and time points one by one: other programs take RGB at most.
        fused = [peer.fuse(list(slices)) for slices in slices_of(stack)]
        return {"fused": np.stack(fused)}

    return run, {"device": "cpu", "version": peer.state()}


# What it costs ------------------------------------------------------------------------


def _cpu_seconds() -> float:
    times = os.times()  # of its own, in hundredths of a second
    return time.process_time() + times.children_user + times.children_system


def peak_memory() -> int:
    """Most memory in bytes that this process, or one that it ran, has ever held.

    On Linux the kernel's high-water mark of this program: the maximum that getrusage
    gives starts at what the parent process held when it started this one.
    """
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            marks = [line.split()[1] for line in status if line.startswith("VmHWM")]
        own = int(marks[0]) * 1024
    except (OSError, IndexError):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(own, children)


if __name__ == "__main__":
    main()
