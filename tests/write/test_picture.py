"""Results as PNG and JPEG."""

from __future__ import annotations

import json

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import napari_focus_fusion as ff

SIZES = {"Z": 1.5, "Y": 0.3, "X": 0.2}
TEXTURE = ndimage.gaussian_filter(np.random.default_rng(0).random((48, 60)), 1)
TEXTURE = (TEXTURE - TEXTURE.min()) / np.ptp(TEXTURE)


def result(dtype="uint8", samples: int | None = None, **given) -> ff.FusionResult:
    """Two slices, each sharp on one side."""
    most = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    sharp = (TEXTURE * most).astype(dtype)
    blurred = ndimage.gaussian_filter(TEXTURE, 4) * most
    left = np.arange(60) < 30
    stack = np.array([np.where(left, sharp, blurred), np.where(left, blurred, sharp)])
    stack, axes = stack.astype(dtype), "ZYX"
    if samples:
        stack, axes = np.stack([stack // (i + 1) for i in range(samples)], -1), "ZYXS"
    opened = ff.as_stack(stack, axes=axes, scale=SIZES, units="um")
    return ff.fuse(opened, "sml", device="cpu", **given)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("samples", [None, 3, 4])
def test_png_keeps_every_bit_the_pixel_size_and_the_provenance(
    tmp_path, dtype, samples
) -> None:
    fused, path = result(dtype, samples), tmp_path / "fused.png"
    written = fused.save(path)
    names = ["fused_decision.ome.tif", "fused_confidence.ome.tif"]
    assert [one.name for one in written[:3]] == ["fused.png", *names]
    found = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    np.testing.assert_array_equal(found, fused.fused)
    with Image.open(path) as image:
        image.load()
        about = json.loads(image.text["Description"])
        assert about["model"] == "sml" and about["output"] == "fused"
        assert image.text["Software"] == "napari-focus-fusion"
        # 5 000 000 pixels a metre along X
        assert image.info["dpi"] == pytest.approx((127000, 84666.7))
    again = ff.as_stack(path)
    assert again.scale["X"] == pytest.approx(0.2) and again.unit("X") == "micrometer"
    assert again.scale["Y"] == pytest.approx(0.3, rel=1e-5)
    np.testing.assert_array_equal(ff.as_stack(written[1]).data[...], fused.decision)


@pytest.mark.parametrize("samples", [None, 3])
def test_jpeg_looks_the_same_and_has_exif(tmp_path, samples) -> None:
    fused, path = result("uint8", samples), tmp_path / "fused.jpg"
    fused.save(path)
    with Image.open(path) as image:
        found, exif = np.asarray(image).astype(int), image.getexif()
    assert found.shape == fused.fused.shape
    assert np.abs(found - fused.fused).mean() < 3
    assert json.loads(exif[270])["model"] == "sml"
    assert exif[296] == 3
    again = ff.as_stack(path)
    assert again.scale["X"] == pytest.approx(0.2)
    assert again.scale["Y"] == pytest.approx(0.3)


def test_without_a_length_no_size_is_written(tmp_path) -> None:
    plain = ff.fuse(np.stack([TEXTURE * 255] * 2).astype("uint8"), "sml")
    for name in ("a.png", "a.jpg"):
        plain.save(tmp_path / name, overwrite=True)
        with Image.open(tmp_path / name) as image:
            assert "dpi" not in image.info or image.info["jfif_unit"] == 0
            assert 282 not in image.getexif()
        assert dict(ff.as_stack(tmp_path / name).scale) == {}


def test_what_does_not_fit_is_said_and_leaves_nothing(tmp_path) -> None:
    channels = ff.fuse(
        np.zeros((2, 3, 40, 50), np.uint8), "sml", axes="CZYX", device="cpu"
    )
    for one, name, words in (
        (channels, "a.png", "2 channels, and PNG holds one"),
        (result("uint16"), "a.jpg", "uint16, and JPEG holds 8 bits"),
        (result("float32"), "a.png", "float32, and PNG holds 8 or 16"),
        (result("uint8", 4), "a.jpeg", "alpha channel"),
    ):
        with pytest.raises(ff.FocusFusionError, match=words):
            one.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(tmp_path) -> None:
    fused, path = result("uint8"), tmp_path / "fused.png"
    fused.save(path)
    before = path.read_bytes()
    with pytest.raises(ff.FocusFusionError, match="exists already"):
        result("uint16").save(path)
    assert path.read_bytes() == before
    result("uint16").save(path, overwrite=True)
    assert path.read_bytes() != before
    assert len(list(tmp_path.iterdir())) == 4  # no temporaries
