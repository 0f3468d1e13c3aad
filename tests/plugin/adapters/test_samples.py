from __future__ import annotations

import subprocess
import sys

import numpy as np

MICROMETRES = ("micrometer",) * 3


def make_layers(sample):
    from napari.layers import Layer

    return [Layer.create(*layer) for layer in sample]


def test_brightfield_is_one_colour_layer_in_micrometres(brightfield):
    (layer,) = make_layers(brightfield)
    assert layer.rgb and layer.ndim == 3
    assert layer.data.shape == (12, 512, 640, 3) and layer.data.dtype == np.uint8
    np.testing.assert_allclose(layer.scale, (2, 0.25, 0.25))
    assert tuple(str(unit) for unit in layer.units) == MICROMETRES
    assert layer.axis_labels == ("z", "y", "x")
    # A bright field: the background, which is most of it, is nearly white.
    assert np.median(layer.data) > 200
    assert (layer.data == 255).mean() < 0.01


def test_fluorescence_is_two_channels_that_add_up(fluorescence):
    nuclei, microtubules = make_layers(fluorescence)
    assert (nuclei.name, microtubules.name) == ("Nuclei", "Microtubules")
    for layer in (nuclei, microtubules):
        assert layer.data.shape == (16, 512, 512) and layer.data.dtype == np.uint16
        assert layer.blending == "additive"
        np.testing.assert_allclose(layer.scale, (0.5, 0.16, 0.16))
        assert tuple(str(unit) for unit in layer.units) == MICROMETRES
        low, high = layer.contrast_limits
        shown = (layer.data > low) & (layer.data < high)
        assert shown.mean() > 0.9
        assert (layer.data == 65535).mean() < 0.001
    assert nuclei.colormap.name != microtubules.colormap.name


def test_the_samples_need_no_napari():
    code = (
        "import sys; from napari_focus_fusion.plugin.adapters import samples; "
        "samples.brightfield_sample; "
        "import napari_focus_fusion.simulation.samples; "
        "sys.exit(any(m in sys.modules for m in ('napari', 'qtpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
