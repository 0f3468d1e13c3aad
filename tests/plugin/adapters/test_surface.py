"""The textured surface: where it lies, and what it wears."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Layer

from napari_focus_fusion.plugin.adapters import surface
from napari_focus_fusion.plugin.adapters.layers import fuse_layer

PLACES = {
    "scaled": {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7)},
    "turned": {"scale": (2, 0.5, 0.25), "translate": (5, -3, 7), "rotate": 30},
    "affine": {
        "affine": [[1, 0, 0, 4], [0, 0.9, -0.3, 8], [0, 0.2, 1.1, -6], [0, 0, 0, 1]]
    },
}


def surface_of(layer, **options):
    options = {"model": "sml", "outputs": ("depth", "surface"), **options}
    depth, made = fuse_layer(layer, **options)
    assert made[2] == "surface"
    return np.asarray(depth[0]), Layer.create(*made)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_corners_lie_in_the_source(slices, place):
    """Each where the source has the slice that is sharp there."""
    source = Image(slices, **place)
    depth, made = surface_of(source)
    corners, triangles, _ = made.data
    z = depth / abs(source.scale[0])
    places = np.stack([z, *np.indices(depth.shape)], -1).reshape(-1, 3)
    np.testing.assert_allclose(corners, places, rtol=1e-5)
    for i in (0, 777, len(corners) - 1):
        np.testing.assert_allclose(
            made.data_to_world(corners[i]), source.data_to_world(places[i]), rtol=1e-5
        )
    assert triangles.max() == len(corners) - 1
    # All of the plane is covered, once.
    a, b, c = (corners[triangles[:, i]][:, 1:].astype(float) for i in range(3))
    ab, ac = b - a, c - a
    areas = (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
    assert np.all(areas > 0) or np.all(areas < 0)
    assert abs(areas.sum()) == (depth.shape[0] - 1) * (depth.shape[1] - 1)


def test_a_large_image_has_a_coarser_mesh(slices, monkeypatch):
    monkeypatch.setattr(surface, "MOST_CORNERS", 2000)
    monkeypatch.setattr(surface, "MOST_TEXELS", 5000)
    source = Image(slices)
    _, made = surface_of(source)
    corners = made.data[0]
    assert 1000 < len(corners) < 2200
    # To the very edge all the same.
    np.testing.assert_array_equal(made.extent.world[:, 1:], source.extent.world[:, 1:])
    assert made.texture.size <= 3 * 5000


def looked_up(made, corner):
    """The colour of the texture at a corner, as OpenGL finds it: v goes upwards."""
    u, v = made.texcoords[corner]
    rows, columns = made.texture.shape[:2]
    return made.texture[int((1 - v) * rows), int(u * columns)]


def test_it_wears_the_fused_image(slices):
    grey = (slices // 256).astype(np.uint8)
    colour = np.stack([grey, grey // 2, 255 - grey], -1)
    fused, made = fuse_layer(
        Image(colour, rgb=True), model="sml", outputs=("fused", "surface")
    )
    made = Layer.create(*made)
    for corner, place in enumerate(made.data[0][:, 1:].astype(int)):
        if corner % 101 == 0:
            np.testing.assert_array_equal(
                looked_up(made, corner), fused[0][tuple(place)]
            )


def test_channels_are_mixed_as_they_are_shown(slices):
    both = np.stack([slices, slices // 4], 1)
    source = Image(both, axis_labels=("z", "c", "y", "x"), contrast_limits=(0, 65535))
    first, second, made = fuse_layer(
        source, model="sml", blend="select", outputs=("fused", "surface")
    )
    made = Layer.create(*made)
    assert made.ndim == 3 and made.axis_labels == ("z", "y", "x")
    magenta, green = (np.squeeze(layer[0]) / 65535 for layer in (first, second))
    for corner in range(0, len(made.data[0]), 97):
        y, x = made.data[0][corner, 1:].astype(int)
        expected = 255 * np.array([magenta[y, x], green[y, x], magenta[y, x]])
        np.testing.assert_allclose(looked_up(made, corner), expected, atol=2)


def test_time_points_follow_each_other(slices):
    movie = np.stack([slices, slices[::-1]])
    source = Image(movie, axis_labels=("t", "z", "y", "x"), scale=(9, 2, 1, 1))
    (made,) = fuse_layer(source, model="sml", outputs=("surface",))
    made = Layer.create(*made)
    corners, triangles, _ = made.data
    assert set(corners[:, 0]) == {0, 1}
    # No triangle goes from one time point to the other.
    assert np.ptp(corners[triangles][:, :, 0], axis=1).max() == 0
    half = len(corners) // 2
    np.testing.assert_allclose(corners[:half, 1] + corners[half:, 1], 4, atol=1e-3)
    assert made.texture.shape == (180, 120, 3)
    np.testing.assert_array_equal(made.texture[:90], made.texture[90:])


def test_seen_face_on_it_looks_like_the_fused_image(make_napari_viewer, slices):
    """On a screen, whichever way textures are turned there."""
    viewer = make_napari_viewer(show=True)
    source = Image(slices, contrast_limits=(0, 65535))
    data, made = fuse_layer(source, model="sml", outputs=("fused", "surface"))
    fused = viewer.add_layer(Layer.create(*data))
    worn = viewer.add_layer(Layer.create(*made))
    viewer.dims.ndisplay = 3
    pictures = []
    for shown in (fused, worn):
        for layer in (fused, worn):
            layer.visible = layer is shown
        picture = viewer.screenshot(canvas_only=True, flash=False)
        pictures.append(picture[..., :3].mean(-1))
    flat, worn = pictures
    inside = flat > 30
    assert inside.mean() > 0.1
    assert np.corrcoef(flat[inside], worn[inside])[0, 1] > 0.8
    assert np.corrcoef(flat[inside], worn[::-1][inside])[0, 1] < 0.5
