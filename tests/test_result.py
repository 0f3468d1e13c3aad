from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from napari import layers as napari_layers

from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.stack import FocusStack
from small_results import PIXEL, SIZES, UNITS, corners, result_for


def turned(n: int, i: int, j: int, degrees: float) -> np.ndarray:
    matrix = np.eye(n)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix[[i, i, j, j], [i, j, i, j]] = [c, -s, s, c]
    return matrix


def transform_of(kind: str, axes: str) -> dict:
    n, y, x = len(axes), axes.index("Y"), axes.index("X")
    shift = {"translate": np.arange(n) * 3.0 + 7}
    affine = np.eye(n + 1)
    affine[:n, :n] = 1.5 * turned(n, y, x, 10)
    affine[:n, n] = np.arange(n) - 2
    return {
        "none": {},
        "moved": shift,
        "turned": {**shift, "rotate": turned(n, y, x, 30)},
        "tilted": {**shift, "rotate": turned(n, axes.index("Z"), y, 20)},
        "sheared": {**shift, "shear": np.linspace(0.1, 0.3, n * (n - 1) // 2)},
        "affine": {**shift, "rotate": turned(n, y, x, 30), "affine": affine},
        "flipped": {**shift, "scale": [PIXEL[a] * (-1) ** (a == "Y") for a in axes]},
    }[kind]


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize(
    "kind", ["none", "moved", "turned", "tilted", "sheared", "affine", "flipped"]
)
@pytest.mark.parametrize("axes", ["ZYX", "ZYXS", "TZYX", "TCZYX", "ZCYX", "YXZ"])
@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_results_lie_exactly_on_their_source(axes: str, kind: str, scale: int) -> None:
    shown = axes.replace("S", "")
    result = result_for(axes, scale, display={})
    state = {"scale": [PIXEL[a] for a in shown], **transform_of(kind, shown)}
    labels = [f"dim {axis}" for axis in shown]
    source = napari_layers.Image(
        np.zeros([SIZES[a] for a in axes], np.uint8),
        rgb="S" in axes,
        units=[UNITS.get(a, "pixel") for a in shown],
        axis_labels=labels,
        **state,
    )
    display = {
        **result.stack.display,
        "scale": source.scale,
        "translate": source.translate,
        "rotate": source.rotate,
        "shear": source.shear,
        "affine": source.affine.affine_matrix,
        "axis_labels": source.axis_labels,
    }
    result = replace(result, stack=replace(result.stack, display=display))

    for data, attributes, layer_type in result.layers():
        assert layer_type == "image"
        layer = napari_layers.Image(data, **attributes)
        lost = source.ndim - layer.ndim  # axes that napari supplies in front
        want, got = corners(source)[:, lost:], corners(layer)
        # The same box: corner for corner, those along a lost axis coincide.
        np.testing.assert_allclose(np.unique(want.round(9), axis=0).shape, got.shape)
        apart = np.abs(want[:, None] - got[None]).max(-1)
        assert apart.min(0).max() < 1e-9
        assert apart.min(1).max() < 1e-9
        assert layer.units == source.units[lost:]
        assert layer.axis_labels == source.axis_labels[lost:]
        assert layer.rgb == ("S" in axes and attributes["name"].startswith("cells f"))
        if lost:
            assert set(shown[:lost]) <= {"Z", "C"}


@pytest.mark.parametrize(
    ("axes", "kept"),
    [
        ("ZYX", "YX"),
        ("CZYX", "YX"),
        ("ZCYX", "YX"),
        ("TZYX", "TZYX"),
        ("ZTYX", "TYX"),
        ("TCZYX", "TCZYX"),
        ("CTZYX", "TZYX"),
        ("YXZ", "YXZ"),
        ("YX", "YX"),
    ],
)
def test_only_leading_axes_are_left_to_napari(axes: str, kept: str) -> None:
    for data, attributes, _ in result_for(axes).layers():
        assert attributes["axis_labels"] == tuple(kept.lower())
        assert data.shape == tuple(1 if a in "ZC" else SIZES[a] for a in kept)


def test_the_fused_plane_shows_at_every_z_and_time() -> None:
    from napari.components import ViewerModel

    result = result_for("TZYX")
    viewer = ViewerModel()
    viewer.add_image(
        np.zeros((2, 5, 30, 35)),
        scale=[60, 0.5, 0.1, 0.2],
        units=["second", *["micrometer"] * 3],
        axis_labels=list("tzyx"),
    )
    fused = viewer.add_layer(napari_layers.Layer.create(*result.layers()[0]))
    assert viewer.dims.nsteps[:2] == (2, 5)
    for t, z in itertools.product(range(2), range(5)):
        viewer.dims.current_step = (t, z, 0, 0)
        np.testing.assert_array_equal(fused._slice.image.raw, result.fused[t])


def test_layers_show_what_they_hold() -> None:
    result = result_for("ZYX")
    fused, decision, confidence, depth = (data for data, _, _ in result.layers())
    assert fused is result.fused
    np.testing.assert_array_equal(decision, result.decision)
    np.testing.assert_array_equal(confidence, result.confidence)
    np.testing.assert_array_equal(depth, result.depth)
    by_output = {
        a["metadata"]["napari_focus_fusion"]["output"]: a for _, a, _ in result.layers()
    }
    assert list(by_output) == ["fused", "decision", "confidence", "depth"]
    assert by_output["fused"]["name"] == "cells fused [sesf]"
    assert by_output["decision"]["contrast_limits"] == (0, 4)
    assert by_output["depth"]["contrast_limits"] == (0, 2)
    assert by_output["depth"]["metadata"]["napari_focus_fusion"]["model"] == "sesf"


def test_channels_become_layers_with_their_names_and_colours() -> None:
    display = {
        "colormap": ["red", "#00ff00", "gray"],
        "contrast_limits": [(0, 10), (5, 20), (1, 2)],
        "gamma": 0.7,
    }
    names = ["DAPI", "GFP", "BF"]
    result = result_for("TCZYX", display=display, channel_names=names)
    layers = result.layers()[:3]
    for channel, (data, attributes, _) in enumerate(layers):
        np.testing.assert_array_equal(data[:, 0, 0], result.fused[:, channel])
        assert attributes["name"] == f"cells {names[channel]} fused [sesf]"
        assert attributes["colormap"] == display["colormap"][channel]
        assert attributes["contrast_limits"] == display["contrast_limits"][channel]
        assert attributes["gamma"] == 0.7
        assert attributes["blending"] == "additive"
    plain = result_for("CZYX").layers()
    assert [a["colormap"] for _, a, _ in plain[:3]] == ["cyan", "magenta", "yellow"]
    assert plain[1][1]["contrast_limits"] == (
        plain[1][0].min(),
        plain[1][0].max(),
    )


def test_layers_import_no_napari() -> None:
    code = """
import sys
import numpy as np
from napari_focus_fusion.lazy import LazyArray
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.stack import FocusStack
from napari_focus_fusion.opening import as_stack
plane = np.zeros((20, 20), np.float32)
stack = as_stack(np.zeros((3, 20, 20), np.uint8))
result = FusionResult(plane, plane, plane, plane, stack, {})
assert len(result.layers()) == 4
print(sorted({"napari", "qtpy", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            result_for("ZYX"),
            "<FusionResult 'cells': fused 30 x 35 uint16 of 5 slices, by sesf>",
        ),
        (
            result_for("ZYXS", 2),
            "<FusionResult 'cells': fused 60 x 70 uint8 RGB of 5 slices, by sesf>",
        ),
        (
            replace(
                result_for("TCZYX", sizes={"Z": 1}), provenance={"notes": ["a", "b"]}
            ),
            "<FusionResult 'cells': fused 30 x 35 uint16 in 3 channels of 1 slice at "
            "2 time points; 2 notes>",
        ),
    ],
)
def test_a_result_is_summed_up(result: FusionResult, text: str) -> None:
    assert repr(result) == text


def test_a_summary_reads_no_pixels() -> None:
    class Unread(LazyArray):
        def _region(self, spans: tuple[slice, ...]) -> np.ndarray:
            raise AssertionError("read")

    plane = Unread((30, 35), "uint16", None)
    stack = FocusStack(Unread((5, 30, 35), "uint16", None), "ZYX", name="far")
    result = FusionResult(plane, plane, plane, plane, stack, {"notes": ["blurred"]})
    assert repr(result) == (
        "<FusionResult 'far': fused 30 x 35 uint16 of 5 slices; 1 note>"
    )
    assert result.notes == ["blurred"]
    assert replace(result, provenance={}).notes == []
