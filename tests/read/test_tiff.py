from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack

ALL = slice(None)
REGION = (slice(1, 5), slice(3, 50), slice(5, 60))
PIXELS = np.random.default_rng(0).integers(0, 2**16, (7, 2, 64, 80), np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 256, (7, 64, 80, 3), np.uint8)
OME = {
    "axes": "ZCYX",
    "PhysicalSizeX": 0.1,
    "PhysicalSizeXUnit": "µm",
    "PhysicalSizeY": 0.2,
    "PhysicalSizeYUnit": "µm",
    "PhysicalSizeZ": 500,
    "PhysicalSizeZUnit": "nm",
    "Channel": {"Name": ["DAPI", "GFP"]},
}
STORAGE = {
    "plain": {},
    "big-endian": {"byteorder": ">"},
    "bigtiff strips": {"bigtiff": True, "rowsperstrip": 5},
    "pages": {"compression": "zlib"},
    "predictor": {"compression": "zlib", "predictor": True},
    "tiles": {"compression": "lzw", "tile": (32, 16)},
}


@pytest.mark.parametrize("storage", STORAGE)
def test_ome_tiff(storage: str, tmp_path) -> None:
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, PIXELS, metadata=OME, **STORAGE[storage])

    stack = pickle.loads(pickle.dumps(as_stack(path)))

    want = PIXELS.transpose(1, 0, 2, 3)[(ALL, *REGION)]
    np.testing.assert_array_equal(stack.read(0, *REGION), want)
    assert (stack.axes, stack.name, stack.source) == ("ZCYX", "cells", str(path))
    assert dict(stack.scale) == {"Z": 500, "Y": 0.2, "X": 0.1}
    assert dict(stack.units) == {
        "Z": "nanometer",
        "Y": "micrometer",
        "X": "micrometer",
    }
    assert stack.channel_names == ("DAPI", "GFP")
    assert (
        stack.chunk_yx == {"tiles": (32, 16)}.get(storage, (64, 80))
        if "compression" in STORAGE[storage]
        else stack.chunk_yx is None
    )


def test_only_the_tiles_asked_for_are_decoded(tmp_path) -> None:
    path = tmp_path / "tiles.tif"
    tifffile.imwrite(path, PIXELS[:, 0], compression="zlib", tile=(32, 16))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[2].aspage()
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    with path.open("r+b") as file:
        for offset, count in places[1:]:
            file.seek(offset)
            file.write(b"\0" * count)
    stack = as_stack(path)
    got = stack.read(0, slice(2, 3), slice(0, 32), slice(0, 16))
    np.testing.assert_array_equal(got[0, 0], PIXELS[2, 0, :32, :16])
    with pytest.raises(FocusFusionError, match="damaged"):
        stack.read(0, slice(2, 3), slice(0, 33), slice(0, 16))


def test_a_file_larger_than_memory_is_read_by_region(tmp_path) -> None:
    path = tmp_path / "huge.tif"
    # Sparse on disk: 4 GB that take no room.
    tifffile.memmap(path, shape=(64, 8192, 4096), dtype="uint16", bigtiff=True).flush()
    code = f"""
import resource
from napari_focus_fusion.opening import as_stack
stack = as_stack({str(path)!r})
stack.read(0, slice(0, 1), slice(0, 9), slice(0, 9))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
for z in range(64):
    block = stack.read(0, slice(z, z + 1), slice(100, 1124), slice(50, 1074))
    assert block.shape == (1, 1, 1024, 1024)
    assert not block.any()
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("address space is measured on Linux only")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_imagej_hyperstack(tmp_path) -> None:
    path = tmp_path / "imagej.tif"
    metadata = {"axes": "TZCYX", "spacing": 0.5, "unit": "micron", "finterval": 3}
    hyper = np.stack([PIXELS, PIXELS[::-1]])
    tifffile.imwrite(path, hyper, imagej=True, resolution=(10, 5), metadata=metadata)
    stack = as_stack(path)
    assert stack.axes == "TZCYX"
    assert dict(stack.scale) == {"T": 3, "Z": 0.5, "Y": 0.2, "X": 0.1}
    assert stack.unit("X") == stack.unit("Z") == "micrometer"
    assert stack.unit("T") == "second"
    want = PIXELS[::-1].transpose(1, 0, 2, 3)[(ALL, *REGION)]
    np.testing.assert_array_equal(stack.read(1, *REGION), want)


def test_screen_resolution_is_no_pixel_size(tmp_path) -> None:
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, PIXELS[:, 0], resolution=(72, 72), metadata=None)
    stack = as_stack(path)
    assert (stack.axes, dict(stack.scale), stack.unit("X")) == ("ZYX", {}, "pixel")


def test_pages_written_one_by_one_are_slices(tmp_path) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in COLOUR:
            writer.write(plane, contiguous=False, metadata=None, photometric="rgb")
    stack = as_stack(path)
    assert stack.axes == "ZYXS"
    want = COLOUR.transpose(3, 0, 1, 2)[(ALL, *REGION)]
    np.testing.assert_array_equal(stack.read(0, *REGION), want)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planar_colour_is_colour(compression: str | None, tmp_path) -> None:
    path = tmp_path / "planar.tif"
    planar = np.moveaxis(COLOUR, -1, 1)
    kwargs = {"planarconfig": "separate", "compression": compression}
    tifffile.imwrite(path, planar, photometric="rgb", **kwargs)
    stack = as_stack(path)
    assert stack.axes == "ZYXS"
    want = COLOUR.transpose(3, 0, 1, 2)[(ALL, *REGION)]
    np.testing.assert_array_equal(stack.read(0, *REGION), want)


def test_several_files_of_one_ome_data_set(tmp_path) -> None:
    xml = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="80" SizeY="64"
 SizeZ="3" SizeC="1" SizeT="1" PhysicalSizeZ="2">
<Channel ID="Channel:0:0" Color="16711935" Name="a &amp; b"/>{}</Pixels>
</Image></OME>"""
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0"><UUID FileName="z{z}.ome.tif">'
        f"urn:uuid:0000000{z}-0000-0000-0000-000000000000</UUID></TiffData>"
        for z in range(3)
    )
    for z in range(3):
        text = xml.format(data).replace(
            "<OME ", f'<OME UUID="urn:uuid:0000000{z}-0000-0000-0000-000000000000" ', 1
        )
        tifffile.imwrite(
            tmp_path / f"z{z}.ome.tif",
            PIXELS[z, 0],
            description=text,
            metadata=None,
        )
    stack = pickle.loads(pickle.dumps(as_stack(tmp_path / "z0.ome.tif")))
    assert (stack.axes, dict(stack.scale)) == ("ZYX", {"Z": 2})
    assert stack.channel_names == ("a & b",)
    assert stack.display["colormap"] == ["#00ff00"]
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS[:3, 0])
    (tmp_path / "z2.ome.tif").unlink()
    stack = as_stack(tmp_path / "z0.ome.tif")
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS[:2, 0])
    assert "slice 2, counted from 0: 1 of 3 planes" in stack.notes[0]


def test_given_axes_override_the_files(tmp_path) -> None:
    path = tmp_path / "time.ome.tif"
    tifffile.imwrite(path, PIXELS[None, :, :1], metadata={"axes": "ZTCYX"})
    assert as_stack(path).axes == "TYX"
    assert as_stack(path, axes="ZYX").n_slices == 7
    with pytest.raises(FocusFusionError, match="2 letters for 3 axes"):
        as_stack(path, axes="YX")


def test_several_images_in_a_file(tmp_path) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(PIXELS[:, 0], metadata={"axes": "ZYX", "Name": "well A"})
        sizes = {"axes": "ZYX", "Name": "well B", "PhysicalSizeZ": 3.0}
        writer.write(PIXELS[:5, 1], metadata=sizes)
    with pytest.raises(FocusFusionError, match=r"well A.*well B.*series="):
        as_stack(path)
    second = as_stack(path, series=1)
    assert (second.n_slices, second.pixel_size("Z")) == (5, 3)
    np.testing.assert_array_equal(second.read(0, ALL, ALL, ALL)[0], PIXELS[:5, 1])
    with pytest.raises(FocusFusionError, match="no image 2"):
        as_stack(path, series=2)


def test_slices_of_mixed_sizes_in_a_file(tmp_path) -> None:
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as writer:
        for rows in (64, 64, 60):
            writer.write(PIXELS[0, 0, :rows], contiguous=False, metadata=None)
    with pytest.raises(FocusFusionError, match=r"\(60, 80\)"):
        as_stack(path)


def test_full_resolution_of_a_pyramid(tmp_path) -> None:
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        tiles = {"tile": (16, 16), "metadata": {"axes": "ZYX"}}
        writer.write(PIXELS[:, 0], subifds=1, **tiles)
        writer.write(PIXELS[:, 0, ::2, ::2], subfiletype=1, tile=(16, 16))
    stack = as_stack(path)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS[:, 0])


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"metadata": None},
        {"metadata": None, "bigtiff": True, "tile": (16, 16)},
        {"metadata": None, "compression": "zlib", "rowsperstrip": 5},
    ],
)
@pytest.mark.parametrize("kept", [0.999, 0.95, 0.5])
def test_of_a_file_that_was_cut_off_what_is_whole_is_opened(
    kind: dict, kept: float, tmp_path
) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, PIXELS[:, 0], **kind)
    os.truncate(path, int(path.stat().st_size * kept))
    stack = as_stack(path)
    count = stack.n_slices
    assert kept * len(PIXELS) - 2 <= count
    assert count < len(PIXELS) or kept > 0.99  # the end of the list of planes alone
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS[:count, 0])
    if count < len(PIXELS):
        assert "ends early" in " ".join(stack.notes) or "missing" in stack.notes[-1]


@pytest.mark.parametrize("kind", [{}, {"compression": "zlib"}, {"imagej": True}])
def test_a_file_of_which_nothing_is_whole(kind: dict, tmp_path) -> None:
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, PIXELS[:, 0], **kind)
    for kept in (0.1, 0.0001):
        os.truncate(path, int(path.stat().st_size * kept))
        with pytest.raises(FocusFusionError, match="cut"):
            as_stack(path)


def test_a_hyperstack_that_was_cut_off_keeps_whole_time_points(tmp_path) -> None:
    path = tmp_path / "cut.tif"
    pixels = np.stack([PIXELS[:3, 0], PIXELS[3:6, 0], PIXELS[:3, 1]])
    tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "TZYX"})
    os.truncate(path, int(path.stat().st_size * 0.8))
    stack = as_stack(path)
    assert (stack.axes, stack.n_times, stack.n_slices) == ("TZYX", 2, 3)
    np.testing.assert_array_equal(stack.read(1, ALL, ALL, ALL)[0], pixels[1])
    assert "time point 2" in stack.notes[-1]


def test_ome_metadata_that_were_cut_off_are_asked_for(tmp_path) -> None:
    path = tmp_path / "cut.ome.tif"
    tifffile.imwrite(path, PIXELS[:, 0], metadata={"axes": "ZYX"})
    os.truncate(path, int(path.stat().st_size * 0.6))
    with pytest.raises(FocusFusionError, match=r"metadata are lost.*axes='ZYX'"):
        as_stack(path)
    stack = as_stack(path, axes="ZYX")
    count = stack.n_slices
    assert 1 < count < len(PIXELS)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS[:count, 0])


def test_a_file_that_is_no_tiff(tmp_path) -> None:
    path = tmp_path / "letter.tif"
    path.write_text("Dear reader")
    with pytest.raises(FocusFusionError, match=r"letter\.tif.*not a TIFF"):
        as_stack(path)
    path.write_bytes(b"")
    with pytest.raises(FocusFusionError, match=r"letter\.tif.*not a TIFF"):
        as_stack(path)


def test_a_replaced_file_is_not_taken_for_the_old_one(tmp_path) -> None:
    path = tmp_path / "a.tif"
    for pixels in (PIXELS[:, 0], PIXELS[:, 1]):
        tifffile.imwrite(path, pixels, compression="zlib")
        np.testing.assert_array_equal(as_stack(path).read(0, ALL, ALL, ALL)[0], pixels)


def test_planes_as_narrow_as_slices_are_many_are_asked_about(tmp_path) -> None:
    """An array (Y, X, Z) saved as it is becomes many planes of a few columns."""
    path = tmp_path / "cells.tif"
    stored = np.moveaxis(COLOUR[..., 0], 0, -1)
    tifffile.imwrite(path, stored)

    with pytest.raises(FocusFusionError, match="does not say which axis is which"):
        as_stack(path)

    stack = as_stack(path, axes="YXZ")
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], COLOUR[..., 0])
    assert as_stack(path, axes="ZYX").n_slices == 64
