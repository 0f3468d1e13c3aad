"""What is checked and measured on a device; :mod:`.cuda` is the command that does."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from napari_focus_fusion.benchmark.device_report import Row
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.models.registry import (
    SURFACE,
    load_model,
    load_surface,
    models,
    trainable_models,
)
from napari_focus_fusion.simulation.scenes import make_scene
from napari_focus_fusion.training.data import make_pool
from napari_focus_fusion.training.finetune import finetune
from napari_focus_fusion.training.fit import Schedule, fit
from napari_focus_fusion.training.recipe import recipe_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_focus_fusion.models.spec import ModelSpec
    from napari_focus_fusion.result import FusionResult

    #: What a row is about, and what makes it.
    Check = tuple[str, Callable[[], Row | dict[str, Any]]]

#: Share of the pixels whose decision must be that of the CPU, and the largest mean
#: difference of the fused images, as a share of their range.
SAME_DECISION, SAME_IMAGE = 0.999, 1e-3
#: As the first, between two runs on one device whose tiles differ.
SAME_TILES = 0.9999
#: As the first, between networks in bfloat16 and in float32.
SAME_HALF = 0.99
#: How far a loss may be from the CPU's: cards train in mixed precision.
SAME_LOSS, LEAST_LOSS = 0.05, 1e-3
#: Megabytes that a filled card has left.
LEFT_FREE = (700, 150, 20)
#: Precision of the convolutions whose rate is measured.
PRECISIONS = ("float32", "tf32", "bfloat16")
#: Models whose convolutions are tried in bfloat16.
HALF_MODELS = ("sesf", "residual", "dual-path", "mscnn")
#: Seconds that a process may take whose device is lost.
LOST_SECONDS = 60


@dataclass(frozen=True)
class Setup:
    """What the checks of a run share.

    Attributes
    ----------
    device
        What is checked.
    quick
        Whether everything is small.
    scratch
        A folder for files.
    """

    device: torch.device
    quick: bool
    scratch: Path

    @property
    def name(self) -> str:
        """The device as :func:`fuse` takes it."""
        return str(self.device)

    @cached_property
    def scene(self) -> np.ndarray:
        """A few slices (Z, Y, X), uint16, of objects in front of one another."""
        side, slices = (56, 3) if self.quick else (192, 5)
        return _slices(side, slices)

    @cached_property
    def rates(self) -> dict[str, float]:
        """Multiply-adds a second by precision, and ``"copy"`` in bytes a second."""
        return {}

    def slices(self, count: int) -> np.ndarray:
        """Many pixels (Z, Y, X) of so many slices: a small scene, repeated."""
        side = 64 if self.quick else 256
        whole = side if self.quick else 2048 if count <= 8 else 1024
        times = -(-whole // side)
        return np.tile(_slices(side, count), (1, times, times))[:, :whole, :whole]


@dataclass(frozen=True, slots=True)
class Subject:
    """Some checks on one subject.

    Attributes
    ----------
    title
        For the report.
    share
        How much of the time they may take.
    rows
        Gives the checks; what takes time is done in them.
    """

    title: str
    share: float
    rows: Callable[[Setup], Iterator[Check]]


# Against the CPU


def against_cpu(setup: Setup) -> Iterator[Check]:
    """Every model and the kinds of stacks: the decision of the CPU, and equal runs."""
    for name, spec in models().items():
        yield from _compared(name, setup, lambda: setup.scene, model=name)
        scales = spec.upscale[1:2] if setup.quick else spec.upscale[1:]
        for scale in scales:
            what = f"{name}, {scale} times finer"
            yield from _compared(what, setup, lambda: setup.scene, name, scale=scale)
    stacks: tuple[tuple[str, Callable[[], np.ndarray], dict[str, Any]], ...] = (
        ("two slices", lambda: setup.scene[:2], {}),
        ("absent pixels", partial(_with_gaps, setup), {"background": "mean"}),
        ("colour", partial(_coloured, setup), {"axes": "ZYXS"}),
        ("selected pixels", lambda: setup.scene, {"blend": "select"}),
    )
    for what, stack, options in stacks:
        yield from _compared(what, setup, stack, "sml", **options)
    for name in HALF_MODELS:
        yield f"{name}: bfloat16 decides as float32", partial(_halved, setup, name)


def _halved(setup: Setup, model: str) -> Row:
    """A network in bfloat16 beside itself in float32."""
    half, full = (
        fuse(setup.scene, model, device=setup.name, precision=precision)
        for precision in ("bfloat16", "float32")
    )
    return agreement(half, full, SAME_HALF)


def _compared(
    what: str,
    setup: Setup,
    stack: Callable[[], np.ndarray],
    model: str,
    **options: Any,
) -> Iterator[Check]:
    """A run on the device beside one on the CPU, and beside one more on the device."""
    runs: list[FusionResult] = []

    def as_on_cpu() -> Row:
        for device in (setup.name, "cpu"):
            runs.append(fuse(stack(), model, device=device, **options))
        return agreement(runs[0], runs[1], SAME_DECISION)

    def again() -> Row:
        if len(runs) < 2:
            return Row("", skipped="the first run did not end")
        # Where the CPU is the device it has run twice.
        second = runs[1]
        if setup.device.type != "cpu":
            second = fuse(stack(), model, device=setup.name, **options)
        return equality(runs[0], second)

    yield f"{what}: as on the CPU", as_on_cpu
    yield f"{what}: two runs are equal", again


def agreement(found: FusionResult, wanted: FusionResult, least: float) -> Row:
    """Whether two runs decide alike on that share of the pixels, and fuse alike."""
    same = np.asarray(found.decision) == np.asarray(wanted.decision)
    image, other = (np.asarray(one.fused).astype(np.float64) for one in (found, wanted))
    span = np.nanmax(other) - np.nanmin(other)
    difference = np.abs(image - other) / max(span, 1e-12)
    known = np.isfinite(other)
    alike = bool((np.isfinite(image) == known).all())
    share, mean = float(same.mean()), float(difference[known].mean())
    figures: dict[str, Any] = {
        "same decision": share,
        "mean difference": mean,
        "largest difference": float(difference[known].max()),
    }
    if found.notes != wanted.notes:
        figures["notes"] = "; ".join(set(found.notes) - set(wanted.notes))
    passed = alike and share >= least and mean <= SAME_IMAGE
    return Row("", passed, figures)


def equality(one: FusionResult, other: FusionResult) -> Row:
    """Whether two results hold the same bytes."""
    names = ("fused", "decision", "confidence", "depth")
    differ = [
        name
        for name in names
        if np.asarray(getattr(one, name)).tobytes()
        != np.asarray(getattr(other, name)).tobytes()
    ]
    return Row("", not differ, {"differ": ", ".join(differ) or "nothing"})


def _slices(side: int, count: int) -> np.ndarray:
    scene = make_scene(
        3,
        shape=(side, side),
        slices=count,
        content="leaves",
        surface="layers",
        electrons=20_000,
    )
    return np.asarray(scene.stack)


def _with_gaps(setup: Setup) -> np.ndarray:
    """The scene as float32; a corner is absent in one slice, a few pixels in all."""
    stack = setup.scene.astype(np.float32) / 65535
    stack[0, :20, :20] = np.nan
    stack[:, 40:43, 40:43] = np.nan
    return stack


def _coloured(setup: Setup) -> np.ndarray:
    """The scene as 8-bit RGB (Z, Y, X, 3)."""
    grey = (setup.scene >> 8).astype(np.uint8)
    return np.stack([grey, 255 - grey, grey // 2], -1)


# Little memory


def with_little_memory(setup: Setup) -> Iterator[Check]:
    """Results while the card has little memory left, planned for that or not."""
    if setup.device.type != "cuda":
        why = "only a graphics card can be filled without harm to other programs"
        yield "a filled card", lambda: Row("", skipped=why)
        return
    for name in ("sml", "mscnn", "affinity-sr"):
        wanted: list[FusionResult] = []
        for left in LEFT_FREE:
            for memory in (None, "8GB"):
                words = "" if memory is None else f", memory={memory!r}"
                run = partial(_on_filled_card, setup, name, left, memory, wanted)
                yield f"{name}, {left} MB left{words}", run


def _on_filled_card(
    setup: Setup,
    name: str,
    left: int,
    memory: str | None,
    wanted: list[FusionResult],
) -> Row:
    """The same with all but some of the card's memory taken."""
    stack = setup.slices(4)[:, :512, :512]
    if not wanted:
        wanted.append(fuse(stack, name, device=setup.name))
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(setup.device)[0]
    taken = torch.empty(
        max(free - left * 1_000_000, 0), dtype=torch.uint8, device=setup.device
    )
    try:
        now = torch.cuda.mem_get_info(setup.device)[0]
        found = fuse(stack, name, device=setup.name, memory=memory)
    finally:
        del taken
        torch.cuda.empty_cache()
    row = agreement(found, wanted[0], SAME_TILES)
    return Row("", row.passed, {"left, MB": round(now / 1e6, 1), **row.figures})


# A lost device


def when_lost(setup: Setup) -> Iterator[Check]:
    """Runs whose device stops working, before and while they compute, in words."""
    for moment in ("before", "during"):
        yield f"a device lost {moment} a run", partial(_lost, setup, moment)


def _lost(setup: Setup, moment: str) -> Row:
    if setup.device.type != "cuda":
        return Row("", skipped="only a graphics card can be lost")
    # A process of its own: after an illegal access none can use the card any more.
    command = [sys.executable, "-m", "napari_focus_fusion.benchmark.lost_device"]
    ended = subprocess.run(
        [*command, setup.name, moment],
        capture_output=True,
        text=True,
        timeout=LOST_SECONDS,
        check=False,
    )
    lines = ended.stdout.strip().splitlines()
    try:
        outcome = json.loads(lines[-1])
    except (IndexError, ValueError):
        last = ended.stderr.strip().splitlines()[-6:]
        return Row("", False, {"exit status": ended.returncode, "said": last})
    return Row("", outcome["in words"], outcome)


# Training


def training(setup: Setup) -> Iterator[Check]:
    """A step of each recipe, and a short fine-tuning: finite, and near the CPU's."""
    for name, spec in trainable_models().items():
        yield f"{name}: a step of training", partial(_one_step, setup, spec)
    yield "sesf: fine-tuning", partial(_fine_tuning, setup)


def _one_step(setup: Setup, spec: ModelSpec) -> Row:
    """The losses of one batch: before a step, and after it."""
    recipe = recipe_of(spec)
    slices = 3 if setup.quick else min(recipe.slices, 6)
    pool = make_pool([0], slices, recipe.crop, modalities=("grey",))
    stacks = 1 if setup.quick else recipe.stacks
    batch = pool.draw(0, stacks=stacks, crop=recipe.crop, seed=0)
    only: dict[str, Any] = {"scales": (2,)} if recipe.by_scale else {}

    def losses(device: torch.device) -> list[float]:
        network: Any = (
            load_surface() if spec.name == SURFACE.name else load_model(spec.name)
        )
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith(recipe.trainable_prefix))
        fitted = fit(
            network,
            partial(recipe.training_loss, **only),
            lambda step: batch.to(device),
            lambda network: 0.0,
            Schedule(steps=1 if setup.quick else 2, learning_rate=1e-4),
            device=device,
        )
        return [row["loss"] for row in fitted.history if "loss" in row]

    found = losses(setup.device)
    # The CPU has nothing beside it that it could be held against.
    if setup.device.type == "cpu":
        return near_losses(found, found)
    return near_losses(found, losses(torch.device("cpu")))


def _fine_tuning(setup: Setup) -> Row:
    scene = _slices(160, 4)
    steps = 2 if setup.quick else 4
    losses = []
    for device in dict.fromkeys((setup.name, "cpu")):
        with warnings.catch_warnings():
            # So few steps need not make it better.
            warnings.simplefilter("ignore", RuntimeWarning)
            tuned = finetune(
                "sesf", scene, axes="ZYX", steps=steps, patch=48, device=device
            )
        losses.append([row["loss"] for row in tuned.history if "loss" in row])
    return near_losses(losses[0], losses[-1])


def near_losses(found: list[float], wanted: list[float]) -> Row:
    """Whether losses are numbers, and near those of the CPU."""
    near = len(found) == len(wanted) > 0 and all(
        math.isfinite(a) and abs(a - b) <= SAME_LOSS * abs(b) + LEAST_LOSS
        for a, b in zip(found, wanted, strict=True)
    )
    return Row("", near, {"losses": found, "on the CPU": wanted})


# Speed


def rates(setup: Setup) -> Iterator[Check]:
    """What the device can do: convolutions of 3 x 3, and copies to it."""
    for precision in PRECISIONS:
        yield f"3 x 3 convolution, {precision}", partial(_convolve, setup, precision)
    yield "copies from the host", partial(_copy, setup)


def _convolve(setup: Setup, precision: str) -> Row | dict[str, Any]:
    if precision == "tf32" and setup.device.type != "cuda":
        return Row("", skipped="only graphics cards have tf32")
    width, batch, side = (16, 1, 128) if setup.quick else (64, 8, 512)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    image = torch.rand(batch, width, side, side, device=setup.device, dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    kernel = torch.rand(width, width, 3, 3, device=setup.device, dtype=dtype)
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=True, allow_tf32=precision == "tf32"
    ):
        seconds = _seconds(setup, lambda: F.conv2d(image, kernel, padding=1))
    rate = image.numel() * width * 9 / seconds
    setup.rates[precision] = rate
    return {"10^12 multiply-adds a second": rate / 1e12}


def _copy(setup: Setup) -> dict[str, Any]:
    values = torch.rand(1 << (20 if setup.quick else 26))
    pinned = setup.device.type == "cuda"
    if pinned:
        values = values.pin_memory()
    there = torch.empty_like(values, device=setup.device)
    seconds = _seconds(setup, lambda: there.copy_(values, non_blocking=True))
    setup.rates["copy"] = values.numel() * 4 / seconds
    return {"GB a second": setup.rates["copy"] / 1e9, "pinned": pinned}


def _seconds(setup: Setup, run: Callable[[], Any]) -> float:
    """Seconds of one of several calls, after some that are not timed."""
    count = 3 if setup.quick else 20
    for _ in range(2):
        run()
    _synchronise(setup)
    began = time.perf_counter()
    for _ in range(count):
        run()
    _synchronise(setup)
    return (time.perf_counter() - began) / count


def _synchronise(setup: Setup) -> None:
    if setup.device.type == "cuda":
        torch.cuda.synchronize(setup.device)


def throughput(setup: Setup) -> Iterator[Check]:
    """Pixels x slices a second, from memory and from a Zarr; and of each model."""
    for count in (8,) if setup.quick else (8, 32):
        for source in ("memory", "Zarr"):
            for blend in ("feather", "select"):
                what = f"sml, {count} slices, {source}, {blend}"
                yield what, partial(_throughput, setup, "sml", count, source, blend)
    for name in models():
        if name != "sml" and not setup.quick:
            what = f"{name}, 8 slices, memory, feather"
            yield what, partial(_throughput, setup, name, 8, "memory", "feather")
    for name in () if setup.quick else HALF_MODELS:
        what = f"{name} in bfloat16, 8 slices, memory, feather"
        half = partial(_throughput, setup, name, 8, "memory", "feather", "bfloat16")
        yield what, half


def _throughput(
    setup: Setup,
    name: str,
    count: int,
    source: str,
    blend: Any,
    precision: Any = "float32",
) -> dict[str, Any]:
    stack: Any = setup.slices(count)
    if name != "sml":
        stack = np.ascontiguousarray(stack[:, :1024, :1024])
    pixels = stack.size
    options = {"device": setup.name, "blend": blend, "precision": precision}
    if not setup.quick:
        fuse(stack[:, :64, :64], name, **options)
    if source == "Zarr":
        stack = _as_zarr(setup, stack)
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(setup.device)
    began = time.perf_counter()
    fuse(stack, name, axes="ZYX", **options)
    seconds = time.perf_counter() - began
    figures: dict[str, Any] = {"10^6 pixels x slices a second": pixels / seconds / 1e6}
    if setup.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(setup.device)
        figures["peak, MB"] = round(peak / 1e6, 1)
    spec = models()[name]
    if "float32" in setup.rates:
        share = spec.cost * pixels / seconds / setup.rates["float32"]
        figures["share of the float32 rate"] = share
    if "copy" in setup.rates:
        figures["share of the copy rate"] = 4 * pixels / seconds / setup.rates["copy"]
    return figures


def _as_zarr(setup: Setup, stack: np.ndarray) -> Any:
    """A stack on disk, in chunks of one slice and at most 512 x 512 pixels."""
    import zarr

    path = setup.scratch / f"{len(stack)}-{stack.shape[1]}.zarr"
    if not path.exists():
        side = min(512, stack.shape[1])
        zarr.create_array(str(path), data=stack, chunks=(1, side, side))
    return zarr.open_array(str(path), mode="r")


SECTIONS = (
    Subject("Every model, against the CPU", 0.4, against_cpu),
    Subject("Little memory left", 0.2, with_little_memory),
    Subject("A lost device", 0.2, when_lost),
    Subject("Training", 0.25, training),
    Subject("Rates of the device", 0.1, rates),
    Subject("Throughput", 0.4, throughput),
)
