"""Folders, patterns and lists of files as stacks, and stacks that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_focus_fusion import FocusFusionError, as_stack, fuse
from napari_focus_fusion.jobs import find_jobs
from small_stacks import ramp

if TYPE_CHECKING:
    from collections.abc import Callable

RNG = np.random.default_rng(0)
GREY = RNG.integers(1, 2**16, (4, 40, 48), np.uint16)
SIX = np.concatenate([GREY, GREY[:2]])
ALL = slice(None)


def write_channels(folder: Path) -> None:
    for z, plane in enumerate(GREY):
        for name, pixels in (("DAPI", plane), ("GFP", plane[::-1])):
            path = folder / f"img_000000000_{name}_{z:03d}.tif"
            tifffile.imwrite(path, pixels, metadata=None)


# A stack that is not one --------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "axes"),
    [
        (lambda p: tifffile.imwrite(p, GREY, ome=True), "ZYX"),
        (lambda p: tifffile.imwrite(p, GREY, imagej=True), "ZYX"),
        (
            lambda p: tifffile.imwrite(
                p, GREY[:3], photometric="minisblack", planarconfig="separate"
            ),
            "ZYX",
        ),
        (
            lambda p: tifffile.imwrite(
                p,
                np.moveaxis(GREY[:3], 0, -1),
                photometric="minisblack",
                planarconfig="contig",
            ),
            "YXZ",
        ),
        (lambda p: tifffile.imwrite(p, SIX, metadata={"axes": "TYX"}), "ZYX"),
    ],
    ids=["ome", "imagej", "planes", "samples", "time"],
)
def test_slices_that_are_tagged_as_something_else(
    write: Callable[[str], None], axes: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "r.tif")
    write(path)
    with pytest.raises(FocusFusionError, match=f"of one slice each.*axes='{axes}'"):
        fuse(path, "sml")
    with pytest.raises(FocusFusionError, match=r"of one slice each.*axes='ZYX'"):
        fuse(as_stack(path), "sml")
    stack = as_stack(path, axes=axes)
    slices = SIX if stack.n_slices == 6 else GREY[: stack.n_slices]
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], slices)
    # slices of noise are a set, which has no surface
    result = fuse(path, "sml", axes=axes, surface=0)
    assert (result.fused.shape, result.notes) == ((40, 48), [])


def test_axes_without_slices_that_are_given_are_meant(tmp_path: Path) -> None:
    path = tmp_path / "r.tif"
    tifffile.imwrite(path, GREY, ome=True)
    result = fuse(path, "sml", axes="CYX")
    np.testing.assert_array_equal(result.fused, GREY)
    (note,) = result.notes
    assert "one slice" in note


def test_one_slice_is_noted() -> None:
    result = fuse(np.full((40, 48, 3), 9, np.uint8), "sml")
    assert "nothing to fuse" in result.notes[0]


def test_two_stacks_tagged_as_channels_are_not_joined(tmp_path: Path) -> None:
    for name in ("cellA", "cellB"):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", GREY)
    sources = (tmp_path, sorted(tmp_path.iterdir()))
    for source in sources:
        with pytest.raises(
            FocusFusionError, match=r"4 planes tagged as channels.*'ZYX'"
        ):
            as_stack(source)
        stack = as_stack(source, axes="ZCYX")
        assert (stack.n_slices, stack.n_channels) == (2, 4)
    jobs, failures = find_jobs([str(tmp_path)])
    assert [job.name for job in jobs] == ["cellA", "cellB"]
    jobs, failures = find_jobs([str(tmp_path)], axes="ZYX")
    assert not failures
    assert [job.open(axes="ZYX").n_slices for job in jobs] == [4, 4]
    # Names that say nothing together: each file is one of its own all the same.
    tifffile.imwrite(tmp_path / "1_2.ome.tif", GREY)
    tifffile.imwrite(tmp_path / "3_4.ome.tif", GREY)
    jobs, failures = find_jobs([str(one) for one in tmp_path.glob("*_*")])
    assert sorted(job.name for job in jobs) == ["1_2", "3_4"] and not failures


def test_slices_of_several_channels_that_say_so(tmp_path: Path) -> None:
    for z in range(3):
        tifffile.imwrite(tmp_path / f"cell_z{z}.ome.tif", GREY[:2])
    stack = as_stack(tmp_path)
    assert (stack.axes, stack.data.shape) == ("ZCYX", (3, 2, 40, 48))
    (job,), _ = find_jobs([str(tmp_path)])
    assert job.open().axes == "ZCYX"


def test_other_axes_in_a_file_are_no_slices(tmp_path: Path) -> None:
    path = tmp_path / "r.tif"
    tifffile.imwrite(path, SIX, metadata={"axes": "EYX"})  # wavelengths
    with pytest.raises(FocusFusionError, match="no axis E"):
        as_stack(path)
    assert as_stack(path, axes="ZYX").n_slices == 6
    tifffile.imwrite(path, SIX, metadata={"axes": "RYX"})  # positions
    with pytest.raises(FocusFusionError, match=r"6 images.*position 5"):
        as_stack(path)
    assert as_stack(path, series=2).n_slices == 1


# Folders ------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["c1", "c2", "c3", "c4"], ["t1", "t2", "t3", "t4"]])
def test_names_that_say_channels_or_times_are_asked_about(
    names: list[str], tmp_path: Path
) -> None:
    """They may be slices all the same, as in c1 to c9."""
    for name, plane in zip(names, GREY, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", plane, metadata=None)
    with pytest.raises(
        FocusFusionError, match=r"by the names of its files 4 \w+.*axes='ZYX'"
    ):
        fuse(tmp_path, "sml")
    assert fuse(tmp_path, "sml", axes="ZYX", surface=0).stack.n_slices == 4
    (job,), _ = find_jobs([str(tmp_path)], axes="ZYX")
    assert job.open("ZYX").n_slices == 4


def test_channels_in_the_names_are_channels(tmp_path: Path) -> None:
    write_channels(tmp_path)
    for source in (tmp_path, f"{tmp_path}/*.tif", sorted(tmp_path.iterdir())):
        stack = as_stack(source)
        assert (stack.axes, stack.channel_names) == ("CZYX", ("DAPI", "GFP"))
        want = np.stack([GREY, GREY[:, ::-1]])
        np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL), want)
        assert len(stack.files) == 8
        assert stack.files[5]["file"].endswith("img_000000000_GFP_001.tif")
        assert (stack.files[5]["C"], stack.files[5]["Z"]) == (1, 1)
    result = fuse(tmp_path, "sml")
    assert result.provenance["source_files"] == [dict(file) for file in stack.files]
    assert json.loads(json.dumps(result.provenance)) == result.provenance


def test_axes_of_a_list_that_are_given_win(tmp_path: Path) -> None:
    write_channels(tmp_path)
    assert as_stack(tmp_path, axes="ZYX").n_slices == 8
    assert as_stack(tmp_path, axes="CZYX").n_slices == 4
    jobs, _ = find_jobs([str(tmp_path)], as_one_stack=True)
    assert jobs[0].open().n_slices == 8


def test_numbers_that_do_not_say_what_they_are(tmp_path: Path) -> None:
    for t in range(2):
        for z, plane in enumerate(GREY):
            tifffile.imwrite(tmp_path / f"a_{t}_{z}.tif", plane, metadata=None)
    with pytest.raises(FocusFusionError, match=r"several numbers.*axes=\"TZYX\""):
        as_stack(tmp_path)
    assert as_stack(tmp_path, axes="TZYX").n_times == 2
    jobs, failures = find_jobs([str(tmp_path)])
    assert not jobs
    assert "several numbers" in failures[0][1]
    (job,), _ = find_jobs([str(tmp_path)], axes="TZYX")
    assert job.open(axes="TZYX").n_times == 2


def test_stacks_that_names_tell_apart(tmp_path: Path) -> None:
    for name in ("eye", "wing"):
        for z, plane in enumerate(GREY):
            tifffile.imwrite(tmp_path / f"{name}_{z:02d}.tif", plane, metadata=None)
    with pytest.raises(FocusFusionError, match=r"2 stacks.*eye_\*\.tif.*wing_\*\.tif"):
        as_stack(tmp_path)
    assert as_stack(f"{tmp_path}/eye_*.tif").n_slices == 4
    jobs, _ = find_jobs([str(tmp_path)])
    assert [(job.name, job.open().n_slices) for job in jobs] == [
        ("eye", 4),
        ("wing", 4),
    ]


def test_results_thumbnails_and_hidden_files_are_no_slices(tmp_path: Path) -> None:
    for z, plane in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"z{z}.tif", plane, metadata=None)
    shutil.copy(tmp_path / "z1.tif", tmp_path / "._z1.tif")
    Image.fromarray(GREY[0, ::8, ::8]).save(tmp_path / "z1_thumb.png")
    fuse(tmp_path, "sml").save(tmp_path / "z9.ome.tif")
    fuse(tmp_path, "sml").save(tmp_path / "z8.ome.zarr")
    stack = as_stack(tmp_path)
    assert stack.n_slices == 4
    assert (
        "results of a fusion: 'z9.ome.tif', 'z9_confidence.ome.tif'" in stack.notes[0]
    )
    for inputs in ([tmp_path], [tmp_path / "z*"], sorted(tmp_path.glob("z*"))):
        jobs, failures = find_jobs(list(map(str, inputs)))
        assert [len(job.files) for job in jobs] == [4]
        assert not failures
    (job,), _ = find_jobs([str(tmp_path / "z9.ome.tif")])  # asked for by name
    assert job.open().n_slices == 1


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_results_that_are_pictures_are_no_slices(suffix: str, tmp_path: Path) -> None:
    for z, plane in enumerate(GREY):
        pixels = (plane >> 8).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"z{z}{suffix}")
    result = fuse(tmp_path, "sml")
    result.save(tmp_path / f"z4{suffix}")
    result.save(tmp_path / f"result{suffix}")
    stack = as_stack(tmp_path)
    assert [Path(file["file"]).stem for file in stack.files] == ["z0", "z1", "z2", "z3"]
    assert f"results of a fusion: 'result{suffix}'" in stack.notes[0]
    (job,), failures = find_jobs([str(tmp_path)])
    assert (len(job.files), failures) == (4, [])


@pytest.mark.parametrize("odd", [0, 2])
def test_the_odd_file_is_named_wherever_it_is(odd: int, tmp_path: Path) -> None:
    for z, plane in enumerate(GREY):
        pixels = plane[:30] if z == odd else plane
        tifffile.imwrite(tmp_path / f"z{z}.tif", pixels, metadata=None)
    with pytest.raises(FocusFusionError, match=rf"'z{odd}.tif' does not fit.*30 x 48"):
        as_stack(tmp_path)


def test_the_odd_name_is_a_failure_of_its_folder(tmp_path: Path) -> None:
    for name in ("z0", "z1", "z2", "z3", "overview"):
        tifffile.imwrite(tmp_path / f"{name}.tif", GREY[0], metadata=None)
    with pytest.raises(FocusFusionError, match=r"'overview\.tif' is named unlike"):
        as_stack(tmp_path)
    jobs, failures = find_jobs([str(tmp_path)])
    assert not jobs
    assert failures[0][0] == str(tmp_path)
    assert as_stack(f"{tmp_path}/z?.tif").n_slices == 4


def test_distances_in_names_are_pixel_sizes(tmp_path: Path) -> None:
    for z, plane in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"z{0.5 * z - 1:.1f}um.tif", plane, metadata=None)
    stack = as_stack(tmp_path)
    assert (stack.pixel_size("Z"), stack.unit("Z")) == (0.5, "micrometer")
    np.testing.assert_array_equal(stack.read(0, ALL, ALL, ALL)[0], GREY)


def test_folders_with_brackets_blanks_and_umlauts(tmp_path: Path) -> None:
    folder = tmp_path / "Zelle ä [1], 2.5 µm"
    folder.mkdir()
    for z, plane in enumerate(GREY):
        tifffile.imwrite(folder / f"a ({z}), ü.tif", plane, metadata=None)
    assert as_stack(folder).n_slices == 4
    (job,), failures = find_jobs([str(folder)])
    assert (len(job.files), failures) == (4, [])


# Zarr ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [{"zarr_format": 2}, {"zarr_format": 3}, {"zarr_format": 3, "shards": (3, 60, 48)}],
    ids=["2", "3", "shards"],
)
def test_chunks_that_were_never_written_are_named(form: dict, tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=GREY.shape,
        dtype=GREY.dtype,
        chunks=(1, 20, 48),
        **form,
    )
    array[:2] = GREY[:2]
    array[2, :20] = GREY[2, :20]
    for source in (tmp_path / "a.zarr", array):
        (note,) = as_stack(source, axes="ZYX").notes
        assert "3 of 8 chunks" in note
        assert "whole planes of the slices 3 " in note
    first, absent = fuse(array, "sml", axes="ZYX").notes
    assert first == note and absent.startswith("960 pixels (50.0%) are absent")
    array[:] = GREY
    assert as_stack(array, axes="ZYX").notes == ()


def test_channels_of_a_labelled_array_are_no_slices() -> None:
    array = zarr.create_array(
        {}, data=ramp("CYX"), dimension_names=["channel", "y", "x"]
    )
    with pytest.raises(FocusFusionError, match="3 channels of one slice each"):
        fuse(array, "sml")


def write_stacks(
    folder: Path, names: str, shape: tuple[int, ...] = (4, 12, 16)
) -> None:
    for i, name in enumerate(names.split()):
        pixels = np.random.default_rng(i).integers(0, 99, shape).astype(np.uint8)
        metadata = {"axes": "ZYX", "unit": "um", "spacing": 2.0}
        tifffile.imwrite(folder / name, pixels, imagej=True, metadata=metadata)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("T10.tif T2.tif T0.tif", {"TZYX": [["T0.tif", "T2.tif", "T10.tif"]]}),
        ("x_DAPI.tif x_GFP.tif", {"CZYX": [["x_DAPI.tif", "x_GFP.tif"]]}),
        ("a_pos1.tif a_pos2.tif", {"ZYX": [["a_pos1.tif"], ["a_pos2.tif"]]}),
        ("1.tif 2.tif", {"ZYX": [["1.tif"], ["2.tif"]]}),
        (
            "p1_t1.tif p1_t2.tif p2_t1.tif p2_t2.tif",
            {"TZYX": [["p1_t1.tif", "p1_t2.tif"], ["p2_t1.tif", "p2_t2.tif"]]},
        ),
    ],
)
def test_stacks_in_several_files(
    names: str, found: dict[str, list[list[str]]], tmp_path: Path
) -> None:
    write_stacks(tmp_path, names)
    ((axes, groups),) = found.items()
    jobs, failures = find_jobs([str(tmp_path)])
    assert not failures
    assert [[Path(path).name for path in job.files] for job in jobs] == groups
    for job in jobs:
        stack = job.open()
        assert (stack.axes, stack.pixel_size("Z")) == (axes, 2)
        assert ("were joined as" in " ".join(stack.notes)) == (len(job.files) > 1)
    if len(jobs) == 1:
        first = as_stack(tmp_path / groups[0][1])
        whole = as_stack(tmp_path).read(int(axes == "TZYX"), ALL, ALL, ALL)
        np.testing.assert_array_equal(whole[int(axes == "CZYX")], first.data[...])
    else:  # the choice is asked for, with the groups named
        with pytest.raises(FocusFusionError, match="2 stacks") as refused:
            as_stack(tmp_path)
        assert groups[1][0][:2] in str(refused.value)
    # That they are whole stacks can be said, and that they are parts of one.
    assert len(find_jobs([str(tmp_path)], axes="ZYX")[0]) == len(names.split())
    if len(names.split()) < 4:
        joined = as_stack(tmp_path, axes="TZYX")
        assert (joined.axes, joined.n_times) == ("TZYX", len(names.split()))


def test_stacks_of_different_sizes_are_not_joined(tmp_path: Path) -> None:
    write_stacks(tmp_path, "t1.tif")
    write_stacks(tmp_path, "t2.tif", (5, 12, 16))
    assert len(find_jobs([str(tmp_path)])[0]) == 2
    with pytest.raises(FocusFusionError, match="slices 5"):
        as_stack(tmp_path, axes="TZYX")
