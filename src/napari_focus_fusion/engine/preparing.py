"""What a run knows of a stack before it begins: its intensities, and its statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_focus_fusion.engine.normalise import black_and_white
from napari_focus_fusion.engine.reading import sample

if TYPE_CHECKING:
    from napari_focus_fusion.engine.reading import Reference
    from napari_focus_fusion.engine.work import Work
    from napari_focus_fusion.stack import FocusStack


def prepare(work: Work, t: int) -> list[np.ndarray]:
    """Normalisation and the models' statistics, from a sample of one time point.

    Gives back the sample, (windows, h, w) for each slice; empty where none is needed.
    """
    stack, model, upscale = work.reference.stack, work.model, work.upscale
    work.reference = replace(work.reference, t=t)
    # Integers of 8 and 16 bits know their range; of others only the pixels tell it.
    if stack.dtype in (np.uint8, np.int8, np.uint16, np.int16) and not (
        model.needs_sample or upscale or work.pictures
    ):
        work.reference = replace(work.reference, black=0.0, white=_white(stack))
        return []
    work.reference, windows = _normalised(work.reference)
    work.done(0)

    def on_own_scale(channel: Reference) -> Reference:
        if channel.weights == work.reference.weights:
            return work.reference
        return _normalised(replace(channel, t=t))[0]

    work.context = model.context([w.to(work.device) for w in windows])
    work.pictures = tuple(map(on_own_scale, work.pictures))
    if upscale is not None:
        context = work.context
        if upscale.resolver is not model:
            context = upscale.resolver.context([w.to(work.device) for w in windows])
        channels = tuple(map(on_own_scale, upscale.channels))
        work.upscale = replace(upscale, context=context, channels=channels)
    return [planes[:, 0].numpy() for planes in windows]


def _white(stack: FocusStack) -> float:
    return float(np.iinfo(stack.dtype).max) if stack.dtype.kind in "iu" else 1.0


def _normalised(reference: Reference) -> tuple[Reference, list[torch.Tensor]]:
    """A plane with the intensities of its sample, and that, (windows, 1, h, w) each."""
    # Integers are brought to 0..1 first, floats left alone: the sample is read once.
    white = _white(reference.stack)
    windows = list(sample(replace(reference, black=0.0, white=white)))
    low, high = black_and_white(windows)
    for planes in windows:
        planes -= np.float32(low)
        planes /= np.float32(high - low)
    return (
        replace(reference, black=low * white, white=high * white),
        [torch.from_numpy(planes)[:, None] for planes in windows],
    )
