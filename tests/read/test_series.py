"""Files that hold several images: plates, wells, positions, series."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr

import napari_focus_fusion as ff
from napari_focus_fusion.jobs import find_jobs
from napari_focus_fusion.opening import as_stack

PIXELS = np.random.default_rng(0).integers(0, 2**16, (3, 5, 32, 48), np.uint16)
FIELDS = ("A/1/0", "A/1/1", "B/12/0")


def add_image(group, path: str, data, *, version: str = "0.4") -> None:
    image = group.create_group(path)
    image.create_array("0", data=data)
    multiscale = {
        "axes": [{"name": name, "type": "space"} for name in "zyx"],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [{"type": "scale", "scale": [2, 1, 1]}],
            }
        ],
    }
    if version == "0.4":
        image.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    else:
        image.attrs["ome"] = {"version": version, "multiscales": [multiscale]}


def write_plate(path, version: str = "0.4") -> None:
    """Two wells; the first has two fields."""
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    wells = [{"path": "A/1"}, {"path": "B/12"}]

    def describe(node, metadata) -> None:
        if version == "0.4":
            node.attrs.update(metadata)
        else:
            node.attrs["ome"] = {"version": version, **metadata}

    describe(group, {"plate": {"wells": wells}})
    for field, data in zip(FIELDS, PIXELS, strict=True):
        add_image(group, field, data, version=version)
    describe(group["A/1"], {"well": {"images": [{"path": "0"}, {"path": "1"}]}})
    describe(group["B/12"], {"well": {"images": [{"path": "0"}]}})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_fields_of_a_plate_by_name_number_and_path(tmp_path, version) -> None:
    path = tmp_path / "plate.ome.zarr"
    write_plate(path, version)
    assert ff.series_in(path) == list(FIELDS)
    assert ff.series_in(path / "A/1") == ["0", "1"]
    for stack in (
        as_stack(path, series="A/1/1"),
        as_stack(path, series=1),
        as_stack(path, series="1"),
        as_stack(path / "A/1", series="1"),
        as_stack(path / "A/1/1"),
        as_stack(zarr.open_group(path, mode="r"), series=1, name="plate_A_1_1"),
    ):
        np.testing.assert_array_equal(np.asarray(stack.data[...]), PIXELS[1])
        assert (stack.axes, stack.pixel_size("Z")) == ("ZYX", 2)
        assert stack.name == "plate_A_1_1"
    assert as_stack(path / "B/12").n_slices == 5  # a well of one field


def test_a_plate_says_what_it_holds(tmp_path) -> None:
    path = tmp_path / "plate.zarr"
    write_plate(path)
    with pytest.raises(ff.FocusFusionError, match=r"plate of 3 fields.*A/1/1.*series="):
        as_stack(path)
    with pytest.raises(ff.FocusFusionError, match=r"no image C/1/0.*A/1/0, A/1/1"):
        as_stack(path, series="C/1/0")
    with pytest.raises(ff.FocusFusionError, match="one image; it has no image 2"):
        as_stack(path / "A/1/0", series=2)


def test_what_is_missing_of_a_plate_is_named(tmp_path) -> None:
    path = tmp_path / "plate.zarr"
    write_plate(path)
    group = zarr.open_group(path)
    del group["B/12"]
    del group["A/1/1/0"]
    assert ff.series_in(path) == ["A/1/0", "A/1/1", "B/12"]
    with pytest.raises(ff.FocusFusionError, match=r"B/12' is listed.*not there"):
        as_stack(path, series="B/12")
    with pytest.raises(ff.FocusFusionError, match=r"A/1/1.*copied completely"):
        as_stack(path, series="A/1/1")


def test_series_of_bioformats2raw_are_in_the_order_listed(tmp_path) -> None:
    path = tmp_path / "raw.zarr"
    group = zarr.create_group(path, zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    for name, data in zip("012", PIXELS, strict=True):
        add_image(group, name, data)
    assert ff.series_in(path) == ["0", "1", "2"]
    group.create_group("OME").attrs["series"] = ["2", "0", "1"]
    assert ff.series_in(path) == ["2", "0", "1"]
    stack = as_stack(path, series="2")
    np.testing.assert_array_equal(np.asarray(stack.data[...]), PIXELS[2])
    assert stack.name == "raw_2"


def test_sizes_that_bioformats2raw_left_in_xml(tmp_path) -> None:
    path = tmp_path / "raw.zarr"
    group = zarr.create_group(path, zarr_format=2)
    for name, data in zip("01", PIXELS, strict=False):
        image = group.create_group(name)
        image.create_array("0", data=data[None, None])
        image.attrs["multiscales"] = [{"version": "0.2", "datasets": [{"path": "0"}]}]
    group.create_group("OME").attrs["series"] = ["1", "0"]
    xml = "".join(
        f'<Image><Pixels PhysicalSizeX="{size}" PhysicalSizeY="{size}" '
        'PhysicalSizeZ="500" PhysicalSizeZUnit="nm"/></Image>'
        for size in (0.1, 0.2)
    )
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    file = path / "OME" / "METADATA.ome.xml"
    file.write_text(f'<OME xmlns="{space}">{xml}</OME>')
    for opened in (as_stack(path, series="1"), as_stack(path / "1")):
        assert dict(opened.scale) == {"T": 1, "C": 1, "Z": 500, "Y": 0.1, "X": 0.1}
        assert (opened.unit("Z"), opened.unit("X")) == ("nanometer", "micrometer")
    assert as_stack(path, series="0").pixel_size("X") == 0.2
    file.write_text("no XML")
    assert as_stack(path, series="0").pixel_size("X") == 1


def write_positions(path) -> None:
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, data in zip(("left", "", "right side"), PIXELS, strict=True):
            metadata = {"axes": "ZYX", **({"Name": name} if name else {})}
            writer.write(data, metadata=metadata, photometric="minisblack")


def test_series_of_a_tiff_by_name_or_number(tmp_path) -> None:
    path = tmp_path / "day.ome.tif"
    write_positions(path)
    names = ff.series_in(path)
    assert names[0] == "left" and names[2] == "right side"
    result = ff.fuse(path, "sml", series="right side", blend="select")
    expected = ff.fuse(PIXELS[2], "sml", axes="ZYX", blend="select")
    np.testing.assert_array_equal(result.fused, expected.fused)
    assert result.stack.name == as_stack(path, series=2).name == "day_right_side"
    with pytest.raises(ff.FocusFusionError, match=r"no image middle.*left"):
        as_stack(path, series="middle")


def test_jobs_are_one_a_field_or_series(tmp_path) -> None:
    plate, day = tmp_path / "plate.zarr", tmp_path / "day.ome.tif"
    write_plate(plate)
    write_positions(day)
    jobs, failures = find_jobs([str(plate)])
    assert not failures
    assert [(job.name, job.series) for job in jobs] == [
        ("plate_A_1_0", "A/1/0"),
        ("plate_A_1_1", "A/1/1"),
        ("plate_B_12_0", "B/12/0"),
    ]
    (job,), _ = find_jobs([str(plate / "B/12/0")])
    assert (job.name, job.series) == ("plate_B_12_0", None)
    (job,), _ = find_jobs([str(plate)], series="B/12/0")
    assert job.series == "B/12/0"
    # Of another file all of them are fused only where that is said.
    (job,), _ = find_jobs([str(day)])
    assert (job.name, job.series) == ("day", None)
    jobs, _ = find_jobs([str(day), str(plate / "A/1/0")], series="all")
    assert len(jobs) == 4 and jobs[2].name == "day_right_side"
