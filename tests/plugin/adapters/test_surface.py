"""The textured surface: coordinates, mesh and texture."""

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
def test_vertices_lie_at_the_sharpest_slices(slices, place):
    """In the coordinates of the source."""
    source = Image(slices, **place)
    depth, made = surface_of(source)
    vertices, triangles, _ = made.data
    z = depth / abs(source.scale[0])
    places = np.stack([z, *np.indices(depth.shape)], -1).reshape(-1, 3)
    np.testing.assert_allclose(vertices, places, rtol=1e-5)
    for i in (0, 777, len(vertices) - 1):
        np.testing.assert_allclose(
            made.data_to_world(vertices[i]), source.data_to_world(places[i]), rtol=1e-5
        )
    assert triangles.max() == len(vertices) - 1
    # The triangles cover the plane exactly once.
    a, b, c = (vertices[triangles[:, i]][:, 1:].astype(float) for i in range(3))
    ab, ac = b - a, c - a
    areas = (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]) / 2
    assert np.all(areas > 0) or np.all(areas < 0)
    assert abs(areas.sum()) == (depth.shape[0] - 1) * (depth.shape[1] - 1)


def test_a_large_image_has_a_coarser_mesh(slices, monkeypatch):
    monkeypatch.setattr(surface, "MAX_VERTICES", 2000)
    monkeypatch.setattr(surface, "MAX_TEXELS", 5000)
    source = Image(slices)
    _, made = surface_of(source)
    vertices = made.data[0]
    assert 1000 < len(vertices) < 2200
    # It covers the image up to its border.
    np.testing.assert_array_equal(made.extent.world[:, 1:], source.extent.world[:, 1:])
    assert made.texture.size <= 3 * 5000


def texture_at(made, vertex):
    """Colour of the texture at a vertex, as OpenGL defines it: v goes upwards."""
    u, v = made.texcoords[vertex]
    rows, columns = made.texture.shape[:2]
    return made.texture[int((1 - v) * rows), int(u * columns)]


def test_its_texture_is_the_fused_image(slices):
    grey = (slices // 256).astype(np.uint8)
    colour = np.stack([grey, grey // 2, 255 - grey], -1)
    fused, made = fuse_layer(
        Image(colour, rgb=True), model="sml", outputs=("fused", "surface")
    )
    made = Layer.create(*made)
    for vertex, place in enumerate(made.data[0][:, 1:].astype(int)):
        if vertex % 101 == 0:
            np.testing.assert_array_equal(
                texture_at(made, vertex), fused[0][tuple(place)]
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
    for vertex in range(0, len(made.data[0]), 97):
        y, x = made.data[0][vertex, 1:].astype(int)
        expected = 255 * np.array([magenta[y, x], green[y, x], magenta[y, x]])
        np.testing.assert_allclose(texture_at(made, vertex), expected, atol=2)


def test_time_points_follow_each_other(slices):
    movie = np.stack([slices, slices[::-1]])
    source = Image(movie, axis_labels=("t", "z", "y", "x"), scale=(9, 2, 1, 1))
    (made,) = fuse_layer(source, model="sml", outputs=("surface",))
    made = Layer.create(*made)
    vertices, triangles, _ = made.data
    assert set(vertices[:, 0]) == {0, 1}
    # No triangle goes from one time point to the other.
    assert np.ptp(vertices[triangles][:, :, 0], axis=1).max() == 0
    half = len(vertices) // 2
    np.testing.assert_allclose(vertices[:half, 1] + vertices[half:, 1], 4, atol=1e-3)
    assert made.texture.shape == (180, 120, 3)
    np.testing.assert_array_equal(made.texture[:90], made.texture[90:])


def test_from_above_it_is_displayed_as_the_fused_image(make_napari_viewer, slices):
    """On the screen, so that the orientation of the texture is checked."""
    viewer = make_napari_viewer(show=True)
    source = Image(slices, contrast_limits=(0, 65535))
    data, made = fuse_layer(source, model="sml", outputs=("fused", "surface"))
    fused = viewer.add_layer(Layer.create(*data))
    textured = viewer.add_layer(Layer.create(*made))
    viewer.dims.ndisplay = 3
    screenshots = []
    for shown in (fused, textured):
        for layer in (fused, textured):
            layer.visible = layer is shown
        screenshot = viewer.screenshot(canvas_only=True, flash=False)
        screenshots.append(screenshot[..., :3].mean(-1))
    flat, textured = screenshots
    inside = flat > 30
    assert inside.mean() > 0.1
    assert np.corrcoef(flat[inside], textured[inside])[0, 1] > 0.8
    assert np.corrcoef(flat[inside], textured[::-1][inside])[0, 1] < 0.5
