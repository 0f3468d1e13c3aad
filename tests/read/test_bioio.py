"""Files of microscope makers, through BioIO."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

import napari_focus_fusion as ff
from napari_focus_fusion.jobs import find_jobs
from napari_focus_fusion.opening import as_stack

ALL = slice(None)
CZI = "files/xyz__multiple_images.czi"


@pytest.fixture
def czi(data_folder):
    pytest.importorskip("bioio_czi", reason="BioIO's reader of CZI is not installed")
    path = data_folder / CZI
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def test_the_images_of_a_real_czi(czi) -> None:
    names = ff.series_in(czi)
    assert names == ["xyz__multiple_images-0", "xyz__multiple_images-1"]
    with pytest.raises(ff.FocusFusionError, match=r"holds 2 images.*series="):
        as_stack(czi)
    from pylibCZIrw.czi import open_czi

    for series, name in enumerate(names):
        stack = as_stack(czi, series=name)
        assert (stack.axes, stack.n_slices, stack.dtype) == ("ZYX", 2, np.uint16)
        assert stack.pixel_size("Z") == pytest.approx(0.3)
        assert stack.pixel_size("X") == pytest.approx(0.19564437607)
        assert set(stack.units.values()) == {"micrometer"}
        assert stack.channel_names == ("ChA",)
        pixels = stack.read(0, ALL, ALL, ALL)[0]
        with open_czi(str(czi)) as file:  # the maker's own library
            for z in range(2):
                want = file.read(plane={"Z": z, "C": 0, "T": 0}, scene=series)
                np.testing.assert_array_equal(pixels[z], want[..., 0])


def test_a_real_czi_is_fused_image_by_image(czi, tmp_path) -> None:
    result = ff.fuse(czi, "sml", series=1, out=tmp_path / "one.ome.zarr")
    assert result.stack.name == "xyz__multiple_images-1"
    again = ff.as_stack(tmp_path / "one.ome.zarr")
    assert again.pixel_size("Y") == pytest.approx(0.19564437607)
    jobs, failures = find_jobs([str(czi)], series="all")
    assert [job.series for job in jobs] == ff.series_in(czi) and not failures


def test_a_czi_with_channels_and_time_that_we_write(tmp_path) -> None:
    czi = pytest.importorskip("pylibCZIrw.czi", reason="pylibCZIrw is not installed")
    pytest.importorskip("bioio_czi")
    path = tmp_path / "cells.czi"
    pixels = np.random.default_rng(0).integers(0, 2**16, (3, 2, 4, 32, 48), np.uint16)
    with czi.create_czi(str(path)) as file:
        for t, c, z in np.ndindex(3, 2, 4):
            plane = {"T": t, "C": c, "Z": z}
            file.write(pixels[t, c, z][..., None], plane=plane)
        sizes = {"scale_x": 0.2e-6, "scale_y": 0.3e-6, "scale_z": 1.5e-6}
        file.write_metadata("cells", channel_names={0: "DAPI", 1: "GFP"}, **sizes)
    stack = as_stack(path)
    assert stack.axes == "TCZYX" and stack.channel_names == ("DAPI", "GFP")
    assert {a: round(stack.pixel_size(a), 9) for a in "ZYX"} == {
        "Z": 1.5,
        "Y": 0.3,
        "X": 0.2,
    }
    for t in range(3):
        np.testing.assert_array_equal(stack.read(t, ALL, ALL, ALL), pixels[t])
    assert stack.chunk_yx == (32, 48)


def write_lif(path, images: dict[str, np.ndarray]) -> None:
    """A file of Leica's layout: a header in XML, then the pixels of each image."""
    elements, blocks, step_um = "", b"", (0.5, 0.2, 0.2)
    for number, (name, pixels) in enumerate(images.items()):
        c, z, y, x = pixels.shape
        size = pixels.dtype.itemsize
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="{8 * size}" '
            'Min="0" Max="65535" Unit="" LUTName="Green" NameOfMeasuredQuantity="" '
            f'IsLUTInverted="0" BitInc="0" BytesInc="{i * z * y * x * size}"/>'
            for i in range(c)
        )
        strides = {1: (x, size), 2: (y, x * size), 3: (z, y * x * size)}
        dimensions = "".join(
            f'<DimensionDescription DimID="{axis}" NumberOfElements="{n}" Origin="0" '
            f'Length="{(n - 1) * step_um[3 - axis] * 1e-6:.6e}" Unit="m" BitInc="0" '
            f'BytesInc="{stride}"/>'
            for axis, (n, stride) in strides.items()
        )
        elements += (
            f'<Element Name="{name}"><Memory Size="{pixels.nbytes}" '
            f'MemoryBlockID="MemBlock_{number}"/><Data><Image><ImageDescription>'
            f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions>"
            "</ImageDescription></Image></Data></Element>"
        )
        label = f"MemBlock_{number}".encode("utf-16-le")
        blocks += struct.pack(
            "<IIBQBI", 0x70, 14 + len(label), 0x2A, pixels.nbytes, 0x2A, len(label) // 2
        )
        blocks += label + pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="day"><Children>'
        f"{elements}</Children></Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    head = struct.pack("<IIBI", 0x70, len(xml) + 5, 0x2A, len(xml) // 2)
    path.write_bytes(head + xml + blocks)


def test_the_images_of_a_lif_that_we_write(tmp_path) -> None:
    pytest.importorskip("bioio_lif", reason="BioIO's reader of LIF is not installed")
    path = tmp_path / "day.lif"
    pixels = np.random.default_rng(0).integers(0, 4000, (2, 4, 24, 32), np.uint16)
    write_lif(path, {"left": pixels, "right": pixels[:1, ::-1]})
    names = ff.series_in(path)
    assert [name.split("/")[-1] for name in names] == ["left", "right"]
    left, right = (as_stack(path, series=name) for name in names)
    assert (left.axes, right.axes) == ("CZYX", "ZYX")
    for stack, want in ((left, pixels), (right, pixels[0, ::-1])):
        np.testing.assert_array_equal(np.asarray(stack.data), want)
        assert stack.pixel_size("Z") == pytest.approx(0.5)
        assert stack.pixel_size("X") == pytest.approx(0.2)
        assert set(stack.units.values()) == {"micrometer"}


def test_a_real_nd2() -> None:
    """The file that the package pims-nd2 ships; its own library need not load."""
    pytest.importorskip("bioio_nd2", reason="BioIO's reader of ND2 is not installed")
    package = importlib.util.find_spec("pims_nd2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("pims-nd2, which has an ND2 file, is not installed")
    path = Path(package.submodule_search_locations[0], "cluster.nd2")
    stack = as_stack(path)
    assert (stack.axes, stack.dtype) == ("TCZYX", np.uint16)
    assert (stack.n_times, stack.n_channels, stack.n_slices) == (3, 2, 10)
    assert stack.channel_names == ("5-FAM/pH 9.0", "FM 4-64/2% CHAPS")
    assert stack.pixel_size("Z") == pytest.approx(0.5)
    assert stack.pixel_size("X") == pytest.approx(0.167808983)
    assert {stack.unit(axis) for axis in "ZYX"} == {"micrometer"}
    import nd2

    want = nd2.imread(path)  # T, Z, C, Y, X
    for t in range(3):
        pixels = stack.read(t, ALL, ALL, ALL)
        np.testing.assert_array_equal(pixels, np.moveaxis(want[t], 1, 0))
    (job,), failures = find_jobs([str(path)])
    assert job.open().data.shape == stack.data.shape and not failures
    fused = ff.fuse(path, "sml", axes="TCZYX").fused
    assert fused.shape == (3, 2, *want.shape[-2:])
    # Every pixel comes from a slice, or from between two of them.
    assert (fused <= want.max(1)).all() and (fused >= want.min(1)).all()


@pytest.mark.parametrize("kind", ["czi", "lif", "nd2"])
def test_a_broken_file_is_named(kind: str, tmp_path) -> None:
    pytest.importorskip(f"bioio_{kind}")
    path = tmp_path / f"broken.{kind}"
    path.write_bytes(b"ZISRAWFILE" + bytes(500))
    with pytest.raises(ff.FocusFusionError, match=rf"broken\.{kind}.*Copy it again"):
        as_stack(path)


def test_without_bioio_it_is_said_what_to_install(tmp_path, monkeypatch) -> None:
    path = tmp_path / "cells.nd2"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(ff.FocusFusionError, match=r"\.nd2 are not read.*\[bioio\]"):
        as_stack(path)
    (job,), _ = find_jobs([str(tmp_path)])  # found in a folder, and named
    assert job.name == "cells"


def test_without_its_reader_it_is_said_what_to_install(tmp_path) -> None:
    pytest.importorskip("bioio")
    path = tmp_path / "cells.oib"
    path.write_bytes(b"no such file")
    with pytest.raises(ff.FocusFusionError, match="bioio-bioformats"):
        as_stack(path)
