"""What is read looks as a viewer shows it; the viewer is Pillow."""

from __future__ import annotations

import pickle

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

import napari_focus_fusion as ff
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.read.photometry import Turned

ALL = slice(None)
GREY = np.random.default_rng(0).integers(0, 256, (4, 24, 40), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (4, 24, 40, 3), np.uint8)
DEEP = np.random.default_rng(2).integers(0, 2**16, (4, 24, 40), np.uint16)
SLICES = {"photometric": "minisblack", "metadata": None}


#: How Pillow shows each orientation; of grey TIFFs it forgets it now and then.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def seen(path, z: int) -> np.ndarray:
    """A slice as Pillow shows it, RGB."""
    with Image.open(path) as image:
        image.seek(z)
        return np.asarray(image.convert("RGB"))


def read(path) -> np.ndarray:
    """All slices of a file as (z, y, x) or (z, y, x, samples), through a copy."""
    stack = pickle.loads(pickle.dumps(as_stack(path)))
    pixels = stack.read(0, ALL, ALL, ALL)
    part = stack.read(0, slice(1, 3), slice(3, 20), slice(5, 9))
    np.testing.assert_array_equal(part, pixels[:, 1:3, 3:20, 5:9])
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("storage", [{}, {"compression": "zlib", "tile": (16, 16)}])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "RGB"])
def test_tiff_orientation(tmp_path, orientation, storage, pixels) -> None:
    path = tmp_path / "a.tif"
    kind = "rgb" if pixels.ndim == 4 else "minisblack"
    with tifffile.TiffWriter(path) as writer:
        for plane in pixels:
            tag = [(274, 3, 1, orientation, True)]
            options = {"photometric": kind, "metadata": None, "contiguous": False}
            writer.write(plane, extratags=tag, **options, **storage)
    found = read(path)
    for z in range(4):
        image = Image.fromarray(pixels[z])
        shown = image.transpose(TURNS[orientation]) if orientation > 1 else image
        np.testing.assert_array_equal(found[z], np.asarray(shown))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_array_is_read_by_region(orientation) -> None:
    """Every region, also at a step, is that of the whole turned array."""
    turned = Turned(DEEP, 1, orientation)
    whole = np.asarray(turned)
    for y, x in ((slice(3, 17), slice(1, 20, 3)), (slice(5, 6), slice(4, 4))):
        np.testing.assert_array_equal(turned[1:3, y, x], whole[1:3, y, x])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation(tmp_path, orientation, suffix) -> None:
    from PIL import ImageOps

    image, exif = Image.fromarray(COLOUR[0]), Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{suffix}"
    image.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = as_stack(path).read(0, ALL, ALL, ALL)[:, 0]
    np.testing.assert_array_equal(np.moveaxis(found, 0, -1), shown)


def test_deep_png_is_turned_too(tmp_path) -> None:
    deep = np.dstack([DEEP[0], DEEP[1], DEEP[2]])
    stored, exif = imagecodecs.png_encode(deep), Image.Exif()
    exif[274] = 6
    body = exif.tobytes()[6:]
    length = len(body).to_bytes(4, "big")
    check = imagecodecs.zlib_crc32(b"eXIf" + body).to_bytes(4, "big")
    path = tmp_path / "deep.png"  # before the last chunk, IEND, of 12 bytes
    path.write_bytes(stored[:-12] + length + b"eXIf" + body + check + stored[-12:])
    found = np.moveaxis(as_stack(path).read(0, ALL, ALL, ALL)[:, 0], 0, -1)
    np.testing.assert_array_equal(found, np.rot90(deep, -1))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero(tmp_path, compression) -> None:
    path = tmp_path / "inverted.tif"
    tifffile.imwrite(path, GREY, photometric="miniswhite", compression=compression)
    found = read(path)
    for z in range(4):
        np.testing.assert_array_equal(np.dstack([found[z]] * 3), seen(path, z))
    result = ff.fuse(path, "sml")
    assert "MinIsWhite" in result.notes[0]
    tifffile.imwrite(path, DEEP, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read(path), 65535 - DEEP)


def test_a_palette_of_a_picture_gives_its_colours(tmp_path) -> None:
    path = tmp_path / "p.tif"
    palette = Image.fromarray(COLOUR.reshape(-1, 40, 3)).quantize(64)
    slices = [Image.fromarray(x).quantize(palette=palette, dither=0) for x in COLOUR]
    slices[0].save(path, save_all=True, append_images=slices[1:])
    found = read(path)
    assert found.dtype == np.uint8
    for z in range(4):
        np.testing.assert_array_equal(found[z], seen(path, z))


def look_up_table(colour: tuple[float, float, float]) -> np.ndarray:
    return np.outer(colour, np.arange(256) * 257).astype(np.uint16)


def test_a_look_up_table_leaves_the_intensities(tmp_path) -> None:
    """Grey, green and false colours are how intensities are shown, not colours."""
    path = tmp_path / "lut.tif"
    for table, colour, noted in (
        (look_up_table((1, 1, 1)), None, False),
        (look_up_table((0, 1, 0)), "#00ff00", False),
        (np.sort(np.random.default_rng(3).integers(0, 2**16, (3, 256))), None, True),
    ):
        options = {"photometric": "palette", "metadata": None}
        tifffile.imwrite(path, GREY, colormap=table.astype(np.uint16), **options)
        stack = as_stack(path)
        np.testing.assert_array_equal(read(path), GREY)
        assert stack.display.get("colormap") == colour
        assert bool(stack.notes) == noted
        fused = tmp_path / "fused.ome.tif"
        ff.fuse(path, "sml").save(fused, overwrite=True)
        kept = as_stack(fused).display.get("colormap")
        assert kept == (colour and [colour])
    tifffile.imwrite(path, GREY, colormap=look_up_table((1, 1, 1))[:, ::-1], **options)
    np.testing.assert_array_equal(read(path), 255 - GREY)


def test_cmyk_is_shown_as_rgb(tmp_path) -> None:
    path = tmp_path / "cmyk.tif"
    ink = np.concatenate([COLOUR, GREY[..., None]], -1)
    tifffile.imwrite(path, ink, photometric="separated", metadata=None)
    found = read(path)
    for z in range(4):
        np.testing.assert_allclose(found[z].astype(int), seen(path, z), atol=1)


def test_grey_with_alpha_is_rgba(tmp_path) -> None:
    path = tmp_path / "la.tif"
    both = np.stack([GREY, GREY[::-1]], -1)
    tifffile.imwrite(path, both, extrasamples=["unassalpha"], **SLICES)
    want = np.stack([GREY, GREY, GREY, GREY[::-1]], -1)
    np.testing.assert_array_equal(read(path), want)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_several_grey_samples_are_channels_and_no_colour(tmp_path, count) -> None:
    path = tmp_path / "samples.tif"
    data = np.moveaxis(np.stack([DEEP] * count), 0, -1)
    kind = {"planarconfig": "contig", "extrasamples": [0] * (count - 1)}
    tifffile.imwrite(path, data, **kind, **SLICES)
    stack = as_stack(path)
    assert (stack.n_channels, stack.n_samples, stack.n_slices) == (count, 1, 4)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[1], DEEP)


def test_kinds_that_are_not_read_say_what_to_do(tmp_path) -> None:
    path = tmp_path / "lab.tif"
    Image.fromarray(COLOUR[0]).convert("LAB").save(path)
    with pytest.raises(ff.FocusFusionError, match=r"lab\.tif.*CIE.*Save it as"):
        as_stack(path)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_files_of_several_images_are_stacks(tmp_path, suffix, kind) -> None:
    path = tmp_path / f"a.{suffix}"
    images = [Image.fromarray(x) for x in (GREY if kind == "grey" else COLOUR)]
    if suffix == "gif" and kind == "colour":
        images = [image.quantize(200) for image in images]
    options = {"lossless": True} if suffix == "webp" else {}
    images[0].save(path, save_all=True, append_images=images[1:], **options)
    assert as_stack(path).n_slices == 4
    found = read(path)
    for z in range(4):
        shown = found[z] if found.ndim == 4 else np.dstack([found[z]] * 3)
        # Of WebP with several images Pillow makes RGBA.
        np.testing.assert_array_equal(shown[..., :3], seen(path, z))


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
def test_jpeg_2000_keeps_its_bits(tmp_path, suffix, samples) -> None:
    path = tmp_path / f"a.{suffix}"
    for dtype in (np.uint8, np.uint16):
        pixels = np.dstack([DEEP[i] for i in range(samples)]).astype(dtype).squeeze()
        codec = {"jp2": "jp2", "j2k": "j2k"}[suffix]
        path.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat=codec))
        want = pixels[..., [0, 0, 0, 1]] if samples == 2 else pixels
        stack = as_stack(path)
        assert stack.dtype == dtype
        found = stack.read(0, ALL, ALL, ALL)[:, 0]
        np.testing.assert_array_equal(found, np.moveaxis(np.atleast_3d(want), -1, 0))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ff.FocusFusionError, match=r"a\.j"):
        as_stack(path).read(0, ALL, ALL, ALL)
