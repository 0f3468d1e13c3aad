"""Which layers a stack is made of."""

from __future__ import annotations

import numpy as np
from napari.layers import Image

from napari_focus_fusion.plugin.adapters.layers import fuse_layer, source_of
from napari_focus_fusion.plugin.adapters.sources import slices_of, stack_of


def flat(names):
    return [Image(np.zeros((9, 9), np.uint8), name=name) for name in names]


def test_slices_are_found_by_whatever_names():
    names = ["z10", "z1", "a, b", "leaf's", 'the "first"', "1", "a", "z"]
    layers = flat(names)
    for chosen in (layers, layers[::-1], layers[:2], layers[1:5]):
        assert slices_of(layers, source_of(chosen)) == tuple(chosen)


def test_other_layers_are_not_taken_for_slices():
    layers = flat(["a", "b", "c"])
    source = source_of(layers)
    assert slices_of(layers[:2], source) == ()
    assert slices_of([*layers[:2], Image(np.zeros((2, 9, 9)), name="c")], source) == ()
    smaller = Image(np.zeros((8, 9), np.uint8), name="c")
    assert slices_of([*layers[:2], smaller], source) == ()
    assert slices_of(layers, "") == slices_of(layers, "layer 'a'") == ()


def test_axes_are_read_as_they_were_fused(slices):
    film = Image(np.stack([slices] * 3, 1), name="film")
    fused = fuse_layer(film, axes="ZTYX", model="sml", device="cpu")[0]
    result = Image(fused[0], **fused[1])
    assert stack_of(film) is None  # 5 slices and 3 channels, or the reverse?
    assert stack_of(film, result).axes == "ZTYX"
    assert stack_of([film, film]) is None
