"""Pixel sizes, wherever the program that wrote a file left them."""

from __future__ import annotations

import json
import os
import struct

import numpy as np
import pytest
import tifffile
import zarr

import napari_focus_fusion as ff
from napari_focus_fusion.opening import as_stack

ALL = slice(None)
PIXELS = np.random.default_rng(0).integers(0, 2**16, (6, 32, 48), np.uint16)
PLAIN = {"metadata": None, "photometric": "minisblack"}


def sizes(path, **given) -> tuple[dict, dict]:
    stack = as_stack(path, **given)
    assert stack.axes == "ZYX" and stack.n_slices == len(PIXELS)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS)
    return dict(stack.scale), dict(stack.units)


def write_lsm(path, voxel: tuple[float, float, float]) -> None:
    """Zeiss LSM: each slice followed by a thumbnail; voxel size in metres, XYZ."""
    names = ("X", "Y", "Z", "Channels", "Time")
    head = [("MagicNumber", "<u4"), ("StructureSize", "<i4")]
    head += [(f"Dimension{name}", "<i4") for name in names]
    head += [("DataType", "<i4"), ("ThumbnailX", "<i4"), ("ThumbnailY", "<i4")]
    head += [(f"VoxelSize{axis}", "<f8") for axis in "XYZ"]
    info = np.zeros(1, np.dtype([*head, ("rest", "V440")]))
    info["MagicNumber"], info["StructureSize"] = 67127628, info.dtype.itemsize
    for name, n in zip(names, (*PIXELS.shape[::-1], 1, 1), strict=True):
        info[f"Dimension{name}"] = n
    info["DataType"] = 2
    for axis, size in zip("XYZ", voxel, strict=True):
        info[f"VoxelSize{axis}"] = size
    raw = info.tobytes()
    with tifffile.TiffWriter(path) as writer:
        for z, plane in enumerate(PIXELS):
            tag = [(34412, 1, len(raw), raw, True)] if z == 0 else []
            writer.write(plane, software=False, extratags=tag, **PLAIN)
            small = (plane[::4, ::4] >> 8).astype(np.uint8)
            writer.write(small, software=False, subfiletype=1, **PLAIN)


def write_stk(path, distances, calibration: float | None, *, uic1: bool) -> None:
    """MetaMorph STK: one listed plane, the others after it; tags UIC2 and UIC1."""
    n, height, width = PIXELS.shape
    uic2_at = 8 + 2 + 12 * 11 + 4
    uic2 = b"".join(
        struct.pack("<IIIIII", round(1000 * d), 1000, 2450000, 5, 2450000, 5)
        for d in distances
    )
    # The calibration is a fraction, its unit text, where their offsets say.
    ratio_at = uic2_at + len(uic2)
    ratio = struct.pack("<II", round(1000 * (calibration or 0)), 1000)
    unit_at = ratio_at + len(ratio)
    unit = struct.pack("<I", 3) + b"um\0"
    pairs = [(3, int(calibration is not None)), (4, ratio_at), (5, ratio_at)]
    uic1_at = unit_at + len(unit)
    values = b"".join(struct.pack("<II", *pair) for pair in [*pairs, (6, unit_at)])
    data_at = uic1_at + len(values)
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1)),
        *((262, 3, 1, 1), (273, 4, 1, data_at), (277, 3, 1, 1), (278, 4, 1, height)),
        (279, 4, 1, height * width * 2),
        (33628 if uic1 else 33000, 4, 4, uic1_at),
        (33629, 5, n, uic2_at),
    ]
    path.write_bytes(
        struct.pack("<2sHIH", b"II", 42, 8, len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + struct.pack("<I", 0)
        + (uic2 + ratio + unit + values + PIXELS.astype("<u2").tobytes())
    )


def test_lsm_is_its_slices_with_voxel_size_in_micrometres(tmp_path) -> None:
    path = tmp_path / "cells.lsm"
    write_lsm(path, (0.2e-6, 0.3e-6, 1.5e-6))
    assert ff.series_in(path) == ["0"]
    scale, units = sizes(path)
    assert scale == {"Z": 1.5, "Y": 0.3, "X": 0.2}
    assert set(units.values()) == {"micrometer"}


@pytest.mark.parametrize(
    ("distances", "step"),
    [
        ([0.5] * 6, 0.5),  # from slice to slice
        ([0, 0.5, 0.5, 0.5, 0.5, 0.5], 0.5),
        ([0, 0.5, 1, 1.5, 2, 2.5], 0.5),  # from the first one
        ([0, 0.1, 0.7, 0.9, 1, 3], None),  # no step at all
    ],
)
@pytest.mark.parametrize("uic1", [True, False])
def test_stk_has_all_its_planes_and_their_distance(tmp_path, uic1, distances, step):
    path = tmp_path / "cells.stk"
    write_stk(path, distances, 0.25, uic1=uic1)
    scale, units = sizes(path)
    assert scale.get("Z") == step
    if uic1:
        assert (scale["Y"], scale["X"], units["X"]) == (0.25, 0.25, "micrometer")


@pytest.mark.parametrize("uic1", [True, False])
@pytest.mark.parametrize("cut", [0, 2, 4])
def test_a_stk_whose_list_is_at_its_end(tmp_path, uic1, cut) -> None:
    """With and without the last bytes, where the place of a next plane would be."""
    path = tmp_path / "end.stk"
    n, height, width = PIXELS.shape
    uic2_at = 8 + PIXELS.nbytes
    uic2 = b"".join(struct.pack("<6I", 2 * z, 4, 0, 0, 0, 0) for z in range(n))
    uic1_at = uic2_at + len(uic2)
    pairs = struct.pack("<IIII", 0, 1, 3, 0)  # auto scale; no calibration
    tags = [
        *((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1)),
        *((262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height)),
        (279, 4, 1, height * width * 2),
        *([(33628, 4, 2, uic1_at)] if uic1 else []),
        (33629, 5, n, uic2_at),
    ]
    entry = struct.pack("<H", len(tags))
    entry += b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, uic1_at + len(pairs))
    whole = head + PIXELS.astype("<u2").tobytes() + uic2 + pairs + entry + bytes(4)
    path.write_bytes(whole[: len(whole) - cut])
    scale, _ = sizes(path)
    assert scale["Z"] == 0.5


@pytest.mark.parametrize("uic1", [True, False])
def test_a_stk_that_was_cut_off_is_opened_as_far_as_it_is_whole(tmp_path, uic1) -> None:
    path = tmp_path / "cut.stk"
    write_stk(path, [0.5] * 6, None, uic1=uic1)
    os.truncate(path, path.stat().st_size - PIXELS[0].nbytes - 1)
    stack = as_stack(path)
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], PIXELS[:4])
    assert "slices 4, 5" in stack.notes[-1]
    assert "2 of 6 planes are missing" in stack.notes[-1]


def test_fluoview_states_name_size_and_unit_of_each_dimension(tmp_path) -> None:
    header = np.zeros(1, tifffile.TIFF.MM_HEADER)
    for i, row in enumerate(
        [
            (b"X", 48, 0, 0.3, b"um"),
            (b"Y", 32, 0, 0.3, b"um"),
            (b"Z", 6, 0, -1.5, b"um"),
        ]
    ):
        header["Dimensions"][0, i] = row
    tag = header.astype(np.dtype(tifffile.TIFF.MM_HEADER)).tobytes()
    stamp = np.zeros(8).tobytes()
    with tifffile.TiffWriter(tmp_path / "fv.tif") as file:
        for plane in PIXELS:
            tags = [(34361, 1, len(tag), tag, True), (34362, 1, 64, stamp, True)]
            file.write(plane, metadata=None, contiguous=False, extratags=tags)
    scale, units = sizes(tmp_path / "fv.tif")
    assert scale == {"Z": 1.5, "Y": 0.3, "X": 0.3}
    assert set(units.values()) == {"micrometer"}


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((50000, 40000), "CENTIMETER", {"Y": 0.25, "X": 0.2}),
        ((127000, 127000), "INCH", {"Y": 0.2, "X": 0.2}),
        ((1016, 1016), "INCH", {"Y": 25, "X": 25}),  # a macro lens
        ((72, 72), "INCH", {}),
        ((300, 300), "INCH", {}),
        ((118.11, 118.11), "CENTIMETER", {}),  # 300 dpi
        ((37.795, 37.795), "CENTIMETER", {}),  # 96 dpi
        ((50000, 40000), "NONE", {}),
    ],
)
def test_resolution_tags(tmp_path, resolution, unit, expected) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, resolution=resolution, resolutionunit=unit, **PLAIN)
    scale, units = sizes(path)
    assert scale == pytest.approx(expected)
    assert set(units.values()) <= {"micrometer"}


def test_metaxpress_states_sizes_in_the_description(tmp_path) -> None:
    path = tmp_path / "s.tif"
    props = {
        "spatial-calibration-state": ("bool", "on"),
        "spatial-calibration-x": ("float", "0.65"),
        "spatial-calibration-y": ("float", "0.5"),
        "spatial-calibration-units": ("string", "um"),
    }
    xml = "".join(
        f'<prop id="{name}" type="{kind}" value="{value}"/>'
        for name, (kind, value) in props.items()
    )
    text = f"<MetaData><PlaneInfo>{xml}</PlaneInfo></MetaData>"
    program = {"software": "MetaSeries"}
    tifffile.imwrite(path, PIXELS, description=text, **program, **PLAIN)
    assert sizes(path)[0] == {"Y": 0.5, "X": 0.65}


@pytest.mark.parametrize("ending", ["}", ""])
def test_micro_manager_keeps_sizes_beside_its_files(tmp_path, ending) -> None:
    """Also where the acquisition was stopped, and the last bracket is missing."""
    for z, plane in enumerate(PIXELS):
        tifffile.imwrite(tmp_path / f"img_000000000_BF_{z:03d}.tif", plane, **PLAIN)
    summary = {"Summary": {"PixelSize_um": 0.16, "z-step_um": -2.5, "Slices": 6}}
    summary["FrameKey-0-0-0"] = {"PixelSizeUm": 0.16}
    text = json.dumps(summary)[:-1] + ending
    (tmp_path / "metadata.txt").write_text(text)
    assert sizes(tmp_path)[0] == {"Z": 2.5, "Y": 0.16, "X": 0.16}


def test_an_uncalibrated_micro_manager_file_is_noted(tmp_path) -> None:
    path = tmp_path / "img_000.tif"
    tag = json.dumps({"PixelSizeUm": 0.0, "Slice": 0}).encode()
    extra = [(51123, 2, len(tag) + 1, tag, True)]
    tifffile.imwrite(path, PIXELS, extratags=extra, **PLAIN)
    assert sizes(path)[0] == {}
    notes = as_stack(path).notes
    assert [note.split(" is ")[0] for note in notes] == [
        "The pixel size along Y",
        "The pixel size along X",
    ]


def test_wrong_sizes_are_dropped_with_a_note_until_they_are_given(tmp_path) -> None:
    path = tmp_path / "a.ome.tif"
    wrong = {"axes": "ZYX", "PhysicalSizeZ": -0.5, "PhysicalSizeY": 0.0}
    tifffile.imwrite(path, PIXELS, metadata={**wrong, "PhysicalSizeX": 0.2})
    assert sizes(path)[0] == {"X": 0.2}
    z, y = ff.fuse(path, "sml").notes[:2]
    assert "along Z is stated as -0.5" in z and "--pixel-size Z" in z
    assert "along Y is stated as 0.0" in y
    stack = as_stack(path, scale={"Z": 0.5})
    assert stack.notes == (y,)
    assert as_stack(path, scale={"Z": 0.5, "y": 0.2}).notes == ()


def test_a_better_statement_takes_the_place_of_a_wrong_one(tmp_path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        PIXELS,
        metadata={"axes": "ZYX", "PhysicalSizeX": 0.0},
        resolution=(50000, 40000),
        resolutionunit="CENTIMETER",
    )
    assert sizes(path)[0] == {"Y": 0.25, "X": 0.2}
    assert as_stack(path).notes == ()


def zarr_of(path, data, multiscale: dict, **attributes):
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", data=data)
    group.attrs["multiscales"] = [{"datasets": [{"path": "0"}], **multiscale}]
    group.attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("axes", "scale", "noted"),
    [
        ("zyx", [2, -0.3, 0.3], "along Y is stated as -0.3"),
        ("zyx", [0, 0.3, 0.3], "along Z is stated as 0.0"),
        ("czyx", [0, 1, 0.3, 0.3], ""),  # channels have no size
        ("czyx", [1, 0.16, 0.16], "for 4 axes"),
        ("zyx", ["a", 1, 1], "for 3 axes"),
        ("zyx", [float("nan"), 1, 1], "along Z"),
    ],
)
def test_a_zarr_with_wrong_sizes_opens_and_they_can_be_given(
    tmp_path, axes, scale, noted
) -> None:
    data = PIXELS[None] if "c" in axes else PIXELS
    transform = {"type": "scale", "scale": scale}
    datasets = [{"path": "0", "coordinateTransformations": [transform]}]
    names = [{"name": name} for name in axes]
    path = zarr_of(tmp_path / "a.zarr", data, {"axes": names, "datasets": datasets})
    notes = as_stack(path).notes
    assert len(notes) == bool(noted) and noted in "".join(notes)
    given = {"Z": 1.0, "Y": 0.3, "X": 0.3}
    stack = as_stack(path, scale=given)
    assert {a: stack.pixel_size(a) for a in "ZYX"} == given
    assert not stack.notes


def test_a_zarr_of_too_few_sizes_has_none(tmp_path) -> None:
    transform = {"type": "scale", "scale": [0.5, 0.1]}
    datasets = [{"path": "0", "coordinateTransformations": [transform]}]
    names = [{"name": name, "unit": "micrometer"} for name in "zyx"]
    path = zarr_of(tmp_path / "a.zarr", PIXELS, {"axes": names, "datasets": datasets})
    assert dict(as_stack(path).scale) == {}  # not 1 micrometre


def test_zarr_of_early_versions_has_five_axes_always(tmp_path) -> None:
    """3 time points and 2 channels are no slices, although nothing says so."""
    data = np.stack([[PIXELS, PIXELS // 2]] * 3)
    for version in ("0.1", "0.2"):
        path = zarr_of(tmp_path / f"{version}.zarr", data, {"version": version})
        stack = as_stack(path)
        assert (stack.axes, stack.n_times, stack.n_slices) == ("TCZYX", 3, 6)
    path = zarr_of(tmp_path / "3.zarr", data[0], {"axes": ["c", "z", "y", "x"]})
    assert as_stack(path).axes == "CZYX"


def test_zarr_with_coordinate_systems(tmp_path) -> None:
    """Version 0.6: axes in coordinate systems, transforms in sequences."""
    systems = [{"name": "world", "axes": [{"name": n, "unit": "um"} for n in "zyx"]}]
    steps = [
        {"type": "scale", "scale": [2, 0.5, 0.25]},
        {"type": "translation", "translation": [10, 0, 0]},
    ]
    transform = {"type": "sequence", "transformations": steps}
    datasets = [{"path": "0", "coordinateTransformations": [transform]}]
    multiscale = {"coordinateSystems": systems, "datasets": datasets}
    stack = as_stack(zarr_of(tmp_path / "a.zarr", PIXELS, multiscale))
    assert (stack.axes, stack.unit("Z")) == ("ZYX", "micrometer")
    assert dict(stack.scale) == {"Z": 2, "Y": 0.5, "X": 0.25}
    assert stack.display["translate"] == (10, 0, 0)
