"""Slabs, heights, single and aligned slices, and registrations in the fuse widget."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, shift

from napari_focus_fusion import as_stack, fuse, project
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.registration.registration import load_registration

SIDE, COUNT, STEP = 96, 5, 2.0
OUTPUTS = ("projection", "height", "best slice", "aligned")


def drifting():
    """A tilted plane whose slices move by two rows each."""
    rng = np.random.default_rng(0)
    texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.2)
    plane = 100 + 40 * texture / texture.std()
    depth = np.broadcast_to(np.arange(SIDE) * COUNT / SIDE, plane.shape)
    blurred = [gaussian_filter(plane, 0.3 + 1.2 * d) for d in range(COUNT + 1)]
    slices = [
        np.choose(np.rint(abs(depth - z)).astype(int), blurred) for z in range(COUNT)
    ]
    moved = [
        shift(one, (STEP * (z - COUNT // 2), 0), order=3, mode="mirror")
        for z, one in enumerate(slices)
    ]
    return np.clip(moved, 0, 255).astype(np.uint8)


def ran(widget, qtbot):
    with qtbot.waitSignal(widget.ended, timeout=120_000):
        widget.run_button.click()


def by_output(viewer):
    return {
        layer.metadata[METADATA_KEY]["output"]: layer
        for layer in viewer.layers
        if METADATA_KEY in layer.metadata
    }


def test_all_of_the_surface_becomes_layers_in_register(window, qtbot, tmp_path):
    viewer, widget = window
    stack = drifting()
    viewer.add_image(stack, name="drifting", scale=(2, 1, 1), units="um")
    other = viewer.add_image(255 - stack, name="other", scale=(2, 1, 1), units="um")
    widget.layer.value = viewer.layers["drifting"]
    assert not widget.outputs["aligned"].isVisibleTo(widget)
    widget.align.value = "translation"
    for name in OUTPUTS:
        widget.outputs[name].value = True
    widget.slab_slices.value, widget.slab_offset.value = 2, 0.5
    widget.slab_method.value, widget.slab_stack.value = "max", other
    assert widget.slab_stack.isVisibleTo(widget)
    assert not widget.save_button.isEnabled()
    ran(widget, qtbot)
    found = by_output(viewer)
    record = found["fused"].metadata[METADATA_KEY]
    rows = np.array(record["registration"]["transforms"])[0, :, 0, 2]
    assert np.allclose(rows, STEP * (np.arange(COUNT) - 2), atol=0.2)

    source = as_stack(stack, axes="ZYX", scale={"Z": 2, "Y": 1, "X": 1}, units="um")
    result = fuse(source, "sml", align="translation", surface=1.0)
    inverted = as_stack(255 - stack, axes="ZYX", scale={"Z": 2, "Y": 1, "X": 1})
    slab = project(inverted, result, slices=2, offset=0.5, method="max").image
    np.testing.assert_array_equal(np.squeeze(found["projection"].data), slab)
    heights = np.squeeze(found["height map"].data)
    tilt = np.polyfit(np.arange(SIDE), heights.mean(0), 1)[0]
    assert abs(tilt - 2 * COUNT / SIDE) < 0.03  # micrometres
    inner = (slice(12, -12), slice(12, -12))
    aligned = np.asarray(found["aligned slices"].data).astype(float)
    assert aligned.shape == stack.shape
    assert found["aligned slices"].scale[0] == 2
    before, after = (
        np.abs(np.diff(gaussian_filter(a.astype(float), (0, 2, 2)), axis=0))
        for a in (stack, aligned)
    )
    assert after[:, *inner].mean() < 0.7 * before[:, *inner].mean()
    best = np.squeeze(found["best slice"].data)
    np.testing.assert_array_equal(best, aligned[int(result.best_slice)])

    assert widget.save_button.isEnabled()
    path = tmp_path / "drift.json"
    widget.save_registration(path)
    kept = load_registration(path)
    np.testing.assert_allclose(kept.matrices[0, :, 0, 2], rows)
    widget.load_registration(path)
    assert widget.align.value == str(path)
    widget.outputs["fused"].value = True
    ran(widget, qtbot)
    again = by_output(viewer)["fused"]
    np.testing.assert_array_equal(again.data, found["fused"].data)


def test_a_file_that_is_no_registration_says_so(window, tmp_path):
    from napari.utils.notifications import notification_manager

    _, widget = window
    path = tmp_path / "else.json"
    path.write_text("{}")
    before = widget.align.value
    widget.load_registration(path)
    assert widget.align.value == before
    assert "no saved registration" in notification_manager.records[-1].message


def test_the_preview_shows_the_slab_where_the_fused_image_is_not_wanted(window, qtbot):
    viewer, widget = window
    viewer.add_image(drifting(), name="drifting")
    widget.outputs["projection"].value = True
    with qtbot.waitSignal(widget.preview.shown, timeout=120_000):
        widget.preview_button.click()
    fused = np.array(widget.preview.layer.data)
    with qtbot.waitSignal(widget.preview.shown, timeout=120_000):
        widget.outputs["fused"].value = False
    one = np.array(widget.preview.layer.data)
    with qtbot.waitSignal(widget.preview.shown, timeout=120_000):
        widget.slab_slices.value = 5
    thick = np.array(widget.preview.layer.data)
    widget.preview.stop()
    # A thicker slab is less sharp.
    sharp, soft, best = (np.diff(a.astype(float)).std() for a in (one, thick, fused))
    assert soft < 0.8 * sharp and soft < best
