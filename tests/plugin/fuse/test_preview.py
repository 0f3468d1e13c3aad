"""The preview, in real windows: what is in view, where it lies, and when it goes."""

from __future__ import annotations

from threading import Event

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image, Layer
from scipy.ndimage import affine_transform, gaussian_filter

from napari_focus_fusion import FocusFusionError, fuse
from napari_focus_fusion.metadata import METADATA_KEY
from napari_focus_fusion.plugin.adapters.preview import (
    View,
    camera_of,
    index_on_screen,
    preview_job,
    view_of,
)
from napari_focus_fusion.plugin.fuse.preview import Preview
from napari_focus_fusion.registration.registration import Registration

PLAIN = {"model": "sml", "device": "cpu", "blend": "select"}
PLENTY = 1e9


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def shown(viewer, slices, qtbot):
    """A stack on the screen, and a preview of it that follows."""
    layer = viewer.add_image(slices, name="leaves", scale=(2, 0.5, 0.5))
    asked = {"layers": (layer,), "axes": "ZYX", **PLAIN}
    preview = Preview(viewer, lambda: asked)
    yield viewer, layer, preview, asked
    preview.stop()
    qtbot.waitUntil(lambda: preview._worker is None, timeout=30_000)


def test_what_is_in_view(viewer, slices, qtbot):
    layer = viewer.add_image(np.tile(slices, (1, 4, 4)))
    camera_of(viewer).zoom = 2
    camera_of(viewer).center = (0, 100, 100)
    view = view_of((layer,), "ZYX", viewer, PLENTY)
    y0, y1, step = view.y
    assert step == 1 and (view.level, view.time, view.channel) == (0, 0, 0)
    # The middle of the view is the middle of the canvas.
    assert y0 == 0 or abs((y0 + y1) / 2 - 100) < 3
    assert y1 - y0 < 360
    # With a tenth of the work every pixel stands for more, and none is left out.
    coarse = view_of((layer,), "ZYX", viewer, (y1 - y0) ** 2 * 5 / 10)
    assert coarse.y[:2] == view.y[:2] and coarse.y[2] > 1
    # Far away there is more of it, and no more pixels than the screen has.
    camera_of(viewer).zoom = 0.4
    far = view_of((layer,), "ZYX", viewer, PLENTY)
    assert far.y == (0, 360, 2)


def test_nothing_is_in_view(viewer, slices, qtbot):
    layer = viewer.add_image(slices, name="leaves")
    camera_of(viewer).center = (0, 5000, 5000)
    with pytest.raises(FocusFusionError, match="Nothing of 'leaves' is in view"):
        view_of((layer,), "ZYX", viewer, PLENTY)
    viewer.dims.ndisplay = 3
    with pytest.raises(FocusFusionError, match="back from 3-D"):
        view_of((layer,), "ZYX", viewer, PLENTY)
    viewer.dims.ndisplay = 2
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(FocusFusionError, match="roll the axes"):
        view_of((layer,), "ZYX", viewer, PLENTY)


def test_a_pyramid_gives_the_level_that_is_fine_enough(viewer, slices, qtbot):
    large = np.tile(slices, (1, 8, 8))
    layer = viewer.add_image([large, large[:, ::2, ::2], large[:, ::4, ::4]])
    camera_of(viewer).zoom = 4
    near = view_of((layer,), "ZYX", viewer, PLENTY)
    assert near.level == 0 and near.y[2] == 1 and near.y[1] - near.y[0] < 720
    camera_of(viewer).zoom = 0.2
    far = view_of((layer,), "ZYX", viewer, PLENTY)
    assert far.level == 2 and far.y == (0, 180, 1) and far.x == (0, 240, 1)


def test_lazy_data_are_not_read_whole(viewer, qtbot, monkeypatch):
    monkeypatch.setattr(
        "napari_focus_fusion.plugin.adapters.preview.MAX_PIXELS_READ", 40_000
    )
    data = da.zeros((4, 400, 800), chunks=(1, 400, 800), dtype="u1")
    layer = viewer.add_image(data, contrast_limits=(0, 1))
    view = view_of((layer,), "ZYX", viewer, PLENTY)
    (y0, y1, _), (x0, x1, _) = view.y, view.x
    assert (y1 - y0) * (x1 - x0) * 4 <= 41_000
    assert abs(y0 + y1 - 400) < 20 and abs(x0 + x1 - 800) < 20


def test_what_is_on_screen_of_the_other_axes(viewer, slices):
    data = np.zeros((3, 2, *slices.shape), np.uint16)
    layer = viewer.add_image(data, scale=(10, 1, 2, 1, 1))
    viewer.dims.set_current_step(0, 2)
    viewer.dims.set_current_step(1, 1)
    index = index_on_screen(layer, "TCZYX", viewer)
    assert (index["T"], index["C"]) == (2, 1)


@pytest.mark.parametrize(
    "place", [{"scale": (2, 0.5, 0.25), "translate": (5, -3, 7), "rotate": 20}, {}]
)
def test_a_preview_is_the_fusion_of_its_field(slices, place):
    source = Image(slices, name="leaves", **place)
    view = View((20, 80, 1), (30, 110, 1))
    job = preview_job((source,), "ZYX", view, **PLAIN)
    data, attributes, kind = job(lambda progress: None, lambda: False)
    expected = fuse(slices[:, 20:80, 30:110], **PLAIN).fused
    np.testing.assert_array_equal(data, expected)
    layer = Layer.create(data, attributes, kind)
    np.testing.assert_allclose(
        layer.data_to_world((7, 9)), source.data_to_world((2, 27, 39))[1:]
    )
    assert layer.metadata[METADATA_KEY]["output"] == "preview"


def test_a_preview_shows_the_channel_and_time_on_screen(slices):
    channels = np.stack([slices, slices // 2])
    movie = Image(np.stack([channels, channels[..., ::-1]]))
    view = View((0, 90, 1), (0, 120, 1), time=1, channel=1)
    job = preview_job((movie,), "TCZYX", view, **PLAIN, reference=0)
    data, _, _ = job(lambda progress: None, lambda: False)
    expected = fuse(channels[..., ::-1], axes="CZYX", reference=0, **PLAIN)
    np.testing.assert_array_equal(np.squeeze(data), expected.fused[1])


def test_the_preview_uses_the_reference_layer(slices):
    dull = Image(slices[::-1].copy(), name="dull")
    view = View((0, 90, 1), (0, 120, 1))
    job = preview_job((dull,), "ZYX", view, reference_layer=Image(slices), **PLAIN)
    data, _, _ = job(lambda progress: None, lambda: False)
    decision = fuse(slices, **PLAIN).decision
    np.testing.assert_array_equal(
        data, np.take_along_axis(slices[::-1], decision[None].astype(int), 0)[0]
    )


@pytest.mark.parametrize(("step", "levels"), [(1, 1), (2, 1), (1, 2)])
def test_a_saved_registration_holds_in_the_pixels_of_the_view(tmp_path, step, levels):
    """Slices that show one scene, the first and last moved, turned and enlarged."""
    noise = np.random.default_rng(0).normal(size=(128, 128))
    scene = gaussian_filter(noise, 4)
    scene = 100 + 100 * scene / np.abs(scene).max()
    linear = np.array([[1.04, 0.03], [-0.03, 0.97]])
    moves = [np.column_stack([linear, [5, -4]]), np.eye(2, 3), np.eye(2, 3)]
    moves[2][:, 2] = -3, 6
    inverse = np.linalg.inv(linear)
    moved = affine_transform(scene, inverse, inverse @ [-5, 4], mode="nearest")
    slices = np.stack([moved, scene, np.roll(scene, (-3, 6), (0, 1))]).astype("f4")
    known = Registration("affine", 1, (128, 128), (tuple(m.tolist() for m in moves),))
    path = str(known.save(tmp_path / "known.json"))

    pyramid = [slices, slices[:, ::2, ::2]][:levels]
    layer = Image(pyramid if levels > 1 else slices, multiscale=levels > 1)
    side = 128 // levels
    rows, columns = (side // 4, side * 3 // 4, step), (side // 4, side * 5 // 8, step)
    view = View(rows, columns, level=levels - 1)
    options = {**PLAIN, "blend": "feather"}  # the mean of slices that are alike
    job = preview_job((layer,), "ZYX", view, align=path, **options)
    seen, _, _ = job(lambda progress: None, lambda: False)
    wanted = scene[::levels, ::levels][slice(*rows), slice(*columns)]
    inner = (slice(2, -2), slice(2, -2))
    assert np.abs(seen - wanted)[inner].max() < 3
    plain, _, _ = preview_job((layer,), "ZYX", view, **options)(
        lambda progress: None, lambda: False
    )
    assert np.abs(plain - wanted)[inner].max() > 10


def test_it_follows_the_camera_and_the_settings(shown, qtbot):
    viewer, layer, preview, asked = shown
    viewer.layers.selection.active = layer
    with qtbot.waitSignal(preview.shown, timeout=30_000):
        preview.start()
    first = preview.layer
    assert first.name == "Preview" and viewer.layers[-1] is first
    assert viewer.layers.selection.active is layer  # it does not push itself forward
    np.testing.assert_allclose(first.extent.world, layer.extent.world[:, 1:])
    with qtbot.waitSignal(preview.shown, timeout=30_000):
        camera_of(viewer).center = (0, 10, 20)
        camera_of(viewer).zoom *= 6
    assert preview.layer is first
    (y0, x0), (y1, x1) = first.extent.world
    assert y0 < 10 < y1 and x0 < 20 < x1 and x1 - x0 < 40
    with qtbot.waitSignal(preview.shown, timeout=30_000):
        asked["smoothness"] = 5
        preview.request()
    assert first.metadata[METADATA_KEY]["parameters"]["smoothness"] == 5
    # Nothing has changed: nothing is done.
    pixels = first.data
    preview.request()
    viewer.dims.set_current_step(0, 3)
    qtbot.wait(500)
    assert first.data is pixels and preview._worker is None
    preview.stop()
    assert [layer.name for layer in viewer.layers] == ["leaves"]


def test_deleting_the_layer_turns_it_off(shown, qtbot):
    viewer, _, preview, _ = shown
    with qtbot.waitSignal(preview.shown, timeout=30_000):
        preview.start()
    viewer.layers.remove("Preview")
    assert not preview.on
    preview.request()
    qtbot.wait(400)
    assert len(viewer.layers) == 1


def test_a_stale_run_is_cancelled(shown, slices, qtbot):
    viewer, _, preview, asked = shown
    reached, opened = Event(), Event()

    def read(block_info):
        reached.set()
        opened.wait(60)
        return slices[block_info[None]["chunk-location"][0]][None]

    gated = da.map_blocks(
        read,
        chunks=((1,) * 5, (90,), (120,)),
        dtype=slices.dtype,
        meta=np.empty((0, 0, 0), slices.dtype),
    )
    slow = viewer.add_image(gated, contrast_limits=(0, 9), visible=False, name="slow")
    good = asked["layers"]
    asked["layers"] = (slow,)
    preview.start()
    qtbot.waitUntil(reached.is_set, timeout=30_000)
    stale = preview._worker
    asked["layers"] = good
    preview.request()
    qtbot.waitUntil(lambda: stale.abort_requested, timeout=30_000)
    with qtbot.waitSignal(preview.shown, timeout=30_000):
        opened.set()
    source = preview.layer.metadata[METADATA_KEY]["source"]
    assert source == "layer 'leaves'"
    assert [layer.name for layer in viewer.layers].count("Preview") == 1


def test_what_cannot_be_previewed_is_said(shown, qtbot):
    viewer, layer, preview, _ = shown
    layer.data = np.full(layer.data.shape, np.inf, np.float32)
    with qtbot.waitSignal(
        preview.status_changed,
        timeout=30_000,
        check_params_cb=lambda text: "infinite" in text,
    ):
        preview.start()
    assert preview.layer is None and len(viewer.layers) == 1
    with qtbot.waitSignal(
        preview.status_changed,
        timeout=30_000,
        check_params_cb=lambda text: "3-D" in text,
    ):
        viewer.dims.ndisplay = 3
    # Back in 2-D that is not said any more.
    layer.data = np.zeros(layer.data.shape, np.float32)
    with qtbot.waitSignal(preview.shown, timeout=30_000):
        viewer.dims.ndisplay = 2
    with qtbot.waitSignal(
        preview.status_changed,
        timeout=30_000,
        check_params_cb=lambda text: "3-D" in text,
    ):
        viewer.dims.ndisplay = 3
    with qtbot.waitSignal(preview.shown, timeout=30_000):
        viewer.dims.ndisplay = 2
