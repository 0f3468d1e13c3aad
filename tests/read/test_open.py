from __future__ import annotations

import pickle

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.read import natural_key, stem

ALL = slice(None)
REGION = (slice(1, 5), slice(3, 30), slice(5, 40))
GREY = np.random.default_rng(0).integers(0, 2**16, (12, 32, 48), np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 32, 48, 3), np.uint8)


@pytest.fixture
def image_folder(tmp_path):
    """Twelve PNG files whose names sort differently as text and as numbers."""
    folder = tmp_path / "beetle"
    folder.mkdir()
    for i, image in enumerate(COLOUR):
        Image.fromarray(image).save(folder / f"a{i}.png")
    return folder


def test_natural_order() -> None:
    names = ["a10", "a9b2", "a9b10", "B1", "a", "a1"]
    assert sorted(names, key=natural_key) == ["a", "a1", "a9b2", "a9b10", "a10", "B1"]


def test_stem() -> None:
    names = ["x/cells.ome.tif", "cells.OME.TIFF", "cells.ome.zarr", "cells.png"]
    assert {stem(name) for name in names} == {"cells"}
    assert stem("a.b.tif") == "a.b"


def test_folder_and_pattern_are_in_natural_order(image_folder) -> None:
    (image_folder / "notes.txt").write_text("not a picture")
    want = COLOUR.transpose(3, 0, 1, 2)
    for source in (image_folder, f"{image_folder}/a*.png"):
        stack = as_stack(source)
        np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL), want)
        assert (stack.axes, stack.name, stack.chunk_yx) == ("ZYXS", "beetle", (32, 48))


def test_a_list_keeps_the_order_given_and_reads_file_by_file(image_folder) -> None:
    paths = [image_folder / f"a{i}.png" for i in (5, 2, 7)]
    stack = pickle.loads(pickle.dumps(as_stack(paths)))
    paths[2].unlink()
    got = stack.read(0, [0, 1], *REGION[1:])
    want = COLOUR[[5, 2]].transpose(3, 0, 1, 2)[(ALL, ALL, *REGION[1:])]
    np.testing.assert_array_equal(got, want)
    with pytest.raises(FocusFusionError, match=r"a7\.png"):
        stack.read(0, [2], ALL, ALL)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["lytro-01-A.tif", "lytro-01-B.tif"], "lytro-01"),
        (["fly_000.tif", "fly_001.tif"], "fly"),
        (["1.tif", "2.tif"], "slices"),
    ],
)
def test_a_list_is_named_after_what_its_files_share(names, name, tmp_path) -> None:
    folder = tmp_path / "slices"
    folder.mkdir()
    for file in names:
        tifffile.imwrite(folder / file, GREY[0])
    assert as_stack([folder / file for file in names]).name == name


def test_tiff_slices_keep_their_metadata(tmp_path) -> None:
    paths = [tmp_path / f"s{i}.tif" for i in range(3)]
    for path, pixels in zip(paths, GREY, strict=False):
        metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
        tifffile.imwrite(path, pixels, ome=True, compression="zlib", metadata=metadata)
    stack = as_stack(paths, scale={"Z": 2}, units={"Z": "um"})
    assert dict(stack.scale) == {"Z": 2, "Y": 0.25, "X": 0.25}
    assert stack.unit("X") == stack.unit("Z") == "micrometer"
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], GREY[:3])


def test_many_compressed_files_do_not_stay_open(tmp_path) -> None:
    resource = pytest.importorskip("resource", reason="needs Unix")
    paths = [tmp_path / f"s{i}.tif" for i in range(60)]
    for path in paths:
        tifffile.imwrite(path, GREY[0], compression="zlib")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    stack = as_stack(paths)
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
    try:
        for z in range(60):
            stack.read(0, [z], ALL, ALL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_odd_file_is_named(image_folder) -> None:
    Image.fromarray(COLOUR[0][:30]).save(image_folder / "a3.png")
    with pytest.raises(FocusFusionError, match=r"a3\.png.*30 x 48.*a0\.png.*32 x 48"):
        as_stack(image_folder)
    Image.fromarray(COLOUR[0][..., 0]).save(image_folder / "a3.png")
    with pytest.raises(FocusFusionError, match=r"a3\.png.*colour samples 1"):
        as_stack(image_folder)
    deep = COLOUR[0].astype(np.uint16)
    (image_folder / "a3.png").write_bytes(imagecodecs.png_encode(deep))
    with pytest.raises(FocusFusionError, match=r"a3\.png.*uint16.*uint8"):
        as_stack(image_folder)
    tifffile.imwrite(image_folder / "a3.tif", COLOUR, photometric="rgb")
    with pytest.raises(FocusFusionError, match=r"a3\.tif.*12 slices itself"):
        as_stack([image_folder / "a0.png", image_folder / "a3.tif"])


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [
        ("L", (32, 48), "uint8"),
        ("I;16", (32, 48), "uint16"),
        ("RGB", (32, 48, 3), "uint8"),
        ("RGBA", (32, 48, 4), "uint8"),
        ("LA", (32, 48, 4), "uint8"),
        ("P", (32, 48, 3), "uint8"),
    ],
)
def test_kinds_of_png(mode: str, shape, dtype: str, tmp_path) -> None:
    path = tmp_path / "p.png"
    if mode == "I;16":
        Image.fromarray(GREY[0]).save(path)
        want = GREY[0]
    else:
        image = Image.fromarray(COLOUR[0]).convert(mode)
        image.save(path)
        wide = {"LA": "RGBA", "P": "RGB"}.get(mode, mode)
        want = np.asarray(image.convert(wide))
    stack = as_stack(path)
    assert (stack.data.shape, stack.dtype) == (shape, np.dtype(dtype))
    got = stack.read(0, ALL, ALL, ALL)[:, 0]
    np.testing.assert_array_equal(got, np.moveaxis(np.atleast_3d(want), -1, 0))


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_deep_png_keeps_its_sixteen_bits(samples: int, tmp_path) -> None:
    path = tmp_path / "deep.png"
    deep = np.dstack([GREY[i] for i in range(samples)])
    path.write_bytes(imagecodecs.png_encode(deep.squeeze()))
    got = as_stack(path).read(0, ALL, ALL, ALL)[:, 0]
    want = deep[..., [0, 0, 0, 1]] if samples == 2 else deep
    np.testing.assert_array_equal(got, np.moveaxis(want, -1, 0))


def test_jpeg_is_read_by_region(tmp_path) -> None:
    path = tmp_path / "p.jpg"
    Image.fromarray(COLOUR[0]).save(path)
    got = as_stack(path).read(0, [0], slice(4, 9), slice(3, 30))[:, 0]
    whole = np.asarray(Image.open(path))
    np.testing.assert_array_equal(got, np.moveaxis(whole[4:9, 3:30], -1, 0))


def test_one_bit_and_damaged_images(image_folder) -> None:
    Image.fromarray(COLOUR[0][..., 0] > 99).save(image_folder / "mask.png")
    with pytest.raises(FocusFusionError, match=r"mask\.png.*black-and-white"):
        as_stack(image_folder / "mask.png")
    whole = (image_folder / "a0.png").read_bytes()
    (image_folder / "a0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FocusFusionError, match=r"a0\.png.*damaged"):
        as_stack(image_folder / "a0.png").read(0, ALL, ALL, ALL)
    (image_folder / "a0.png").write_text("no picture")
    with pytest.raises(FocusFusionError, match=r"a0\.png"):
        as_stack(image_folder / "a0.png")


def test_paths_that_lead_nowhere(tmp_path) -> None:
    with pytest.raises(FocusFusionError, match="no file or folder"):
        as_stack(tmp_path / "gone.tif")
    with pytest.raises(FocusFusionError, match="no file or folder"):
        as_stack(f"{tmp_path}/*.tif")
    with pytest.raises(FocusFusionError, match="holds no pictures"):
        as_stack(tmp_path)
    (tmp_path / "cells.czi").write_text("")
    with pytest.raises(FocusFusionError, match=r"\.czi are not read here"):
        as_stack(tmp_path / "cells.czi")


@pytest.mark.parametrize(
    ("source", "slices"),
    [("keyboard32", 32), ("wbc10", 10), ("radiolarian/stack.tif", 3)],
)
def test_real_stacks(source: str, slices: int, data_folder) -> None:
    stack = as_stack(data_folder / source)
    assert (stack.axes, stack.n_slices, stack.dtype) == ("ZYXS", slices, np.uint8)
    files = sorted((data_folder / source).glob("*"))
    with Image.open(files[-1] if files else data_folder / source) as last:
        last.seek(0 if files else slices - 1)
        want = np.asarray(last)[REGION[1:]]
    got = stack.read(0, [slices - 1], *REGION[1:])[:, 0]
    np.testing.assert_array_equal(got, np.moveaxis(want, -1, 0))
