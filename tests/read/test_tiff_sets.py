"""Data sets that are spread over files, whole and not whole."""

from __future__ import annotations

import json
import pickle
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.jobs import find_jobs
from napari_focus_fusion.opening import as_stack, series_in
from small_ome_sets import image_xml, ome, planes, write_mmstack, write_set

if TYPE_CHECKING:
    from pathlib import Path

ALL = slice(None)
ONE = planes(1, 1, 3)
MANY = planes(2, 2, 3)


def pixels_of(stack) -> np.ndarray:
    return np.stack([stack.read(t, ALL, ALL, ALL) for t in range(stack.n_times)])


@pytest.mark.parametrize("kind", ["each", "master", "companion"])
def test_a_set_is_one_stack_whatever_names_it(kind: str, tmp_path: Path) -> None:
    files = write_set(tmp_path, MANY, kind=kind)
    sources = [files[0], files[7], tmp_path, f"{tmp_path}/*.ome.tif", files]
    if kind == "companion":
        sources.append(tmp_path / "p.companion.ome")
    for source in sources:
        stack = pickle.loads(pickle.dumps(as_stack(source)))
        np.testing.assert_array_equal(pixels_of(stack), MANY)
        assert stack.axes == "TCZYX"
        assert stack.pixel_size("Z") == 0.5
        assert stack.notes == ()
        assert len(stack.files) == 12
        assert {"file": str(files[7]), "T": 1, "C": 0, "Z": 1} in stack.files


@pytest.mark.parametrize("kind", ["each", "master", "companion"])
def test_a_set_is_one_job(kind: str, tmp_path: Path) -> None:
    files = write_set(tmp_path, MANY, kind=kind)
    for inputs in ([tmp_path], files, files[3:]):
        jobs, failures = find_jobs(list(map(str, inputs)))
        assert not failures
        (job,) = jobs
        np.testing.assert_array_equal(pixels_of(job.open()), MANY)


def test_two_sets_in_a_folder_are_two(tmp_path: Path) -> None:
    write_set(tmp_path, ONE, stem="p")
    other = tmp_path / "other.ome.tif"
    tifffile.imwrite(other, ONE[0, 0], metadata={"axes": "ZYX"})
    jobs, failures = find_jobs([str(tmp_path)])
    assert (len(jobs), failures) == (2, [])
    with pytest.raises(FocusFusionError, match=r"2 stacks.*other\.ome\.tif.*p_T0"):
        as_stack(tmp_path)


@pytest.mark.parametrize("kind", ["each", "master", "companion"])
def test_renamed_files_are_found_by_their_identifiers(
    kind: str, tmp_path: Path
) -> None:
    files = write_set(tmp_path, ONE, kind=kind)
    new = [file.rename(tmp_path / f"day 2 {file.name}") for file in files]
    for path in new:
        stack = as_stack(path)
        np.testing.assert_array_equal(pixels_of(stack)[0], ONE[0])
        assert stack.notes == ()


def test_a_renamed_file_alone_is_still_whole(tmp_path: Path) -> None:
    text = image_xml(ONE, ["old.ome.tif"] * 3).replace("0000001-", "0000000-")
    text = text.replace("0000002-", "0000000-")
    for index in (1, 2):  # all planes are in the one file
        here = f'FirstZ="{index}" IFD='
        text = text.replace(f'{here}"0"', f'{here}"{index}"')
    with tifffile.TiffWriter(tmp_path / "new.ome.tif") as file:
        for index, plane in enumerate(ONE[0, 0]):
            about = None if index else ome(text)
            file.write(plane, metadata=None, description=about, contiguous=False)
    np.testing.assert_array_equal(
        pixels_of(as_stack(tmp_path / "new.ome.tif"))[0], ONE[0]
    )


def test_what_is_whole_is_opened_and_what_is_missing_is_named(tmp_path: Path) -> None:
    files = write_set(tmp_path, MANY)
    files[-1].unlink()
    stack = as_stack(files[0])
    np.testing.assert_array_equal(pixels_of(stack), MANY[:1])
    assert "time point 1, counted from 0: 1 of 12 planes" in stack.notes[0]
    assert len(stack.files) == 6
    files[2].unlink()  # now neither time point has its last slice
    stack = as_stack(files[0])
    np.testing.assert_array_equal(pixels_of(stack), MANY[:, :, :2])
    assert "slice 2, counted from 0: 2 of 12 planes" in stack.notes[0]
    for file in files[:-2]:
        file.unlink(missing_ok=True)
    stack = as_stack(files[-2])  # alone, and whole itself
    np.testing.assert_array_equal(pixels_of(stack), MANY[1:, 1:, 1:2])
    assert stack.notes[0].endswith(
        "11 of 12 planes that the metadata list are missing."
    )


def test_a_stopped_recording_is_opened_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "stopped.ome.tif"
    flat = MANY.reshape(-1, 24, 32)
    with tifffile.TiffWriter(path) as file:
        for index, plane in enumerate(flat[:9]):
            text = ome(image_xml(MANY, None)) if index == 0 else None
            file.write(plane, metadata=None, description=text, contiguous=False)
    stack = as_stack(path)
    np.testing.assert_array_equal(pixels_of(stack), MANY[:1])
    assert "time point 1, counted from 0: 3 of 12 planes that the m" in stack.notes[0]


def test_metadata_in_a_file_that_is_gone(tmp_path: Path) -> None:
    files = write_set(tmp_path, ONE, kind="companion")
    (tmp_path / "p.companion.ome").unlink()
    with pytest.raises(FocusFusionError, match=r"p\.companion\.ome.*is missing"):
        as_stack(files[0])


def test_an_imagej_stack_that_lists_more_than_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cut.tif"
    flat = MANY[0].transpose(1, 0, 2, 3).reshape(-1, 24, 32)
    text = "ImageJ=1.54f\nimages=12\nchannels=2\nslices=6\nhyperstack=true\n"
    with tifffile.TiffWriter(path) as file:
        for index, plane in enumerate(flat[:5]):
            file.write(
                plane,
                metadata=None,
                description=None if index else text,
                contiguous=False,
            )
    stack = as_stack(path)
    assert stack.axes == "ZCYX"
    np.testing.assert_array_equal(pixels_of(stack)[0], MANY[0, :, :2])
    assert "slices 2, 3, 4, 5, counted from 0: 7 of 12" in stack.notes[0]


@pytest.mark.parametrize("layout", [{"rowsperstrip": 8}, {"tile": (16, 16)}])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_strip_or_tile_that_was_never_written_is_not_read_as_zero(
    layout: dict, compression: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "holes.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in ONE[0, 0]:
            file.write(
                plane,
                contiguous=False,
                metadata=None,
                compression=compression,
                **layout,
            )
    with tifffile.TiffFile(path, mode="r+b") as file:
        kind = "TileByteCounts" if "tile" in layout else "StripByteCounts"
        tag = file.pages[1].tags[kind]
        tag.overwrite([tag.value[0], 0, *tag.value[2:]])
    stack = as_stack(path)
    got = stack.read(0, [0], ALL, ALL)[0, 0]
    np.testing.assert_array_equal(got, ONE[0, 0, 0])
    with pytest.raises(FocusFusionError, match=r"1 of the \d strips.*plane 1 "):
        stack.read(0, [1], ALL, ALL)


def micromanager(folder: Path, pixels: np.ndarray) -> list[Path]:
    """Files of one plane each with their listing, as Micro-Manager 1.4 writes them."""
    folder.mkdir(parents=True)
    listing: dict[str, dict] = {"Summary": {"Slices": pixels.shape[2]}}
    files = []
    for t, c, z in np.ndindex(*pixels.shape[:3]):
        name = f"img_{t:09d}_{('Cy5', 'mine')[c]}_{z:03d}.tif"
        tifffile.imwrite(folder / name, pixels[t, c, z], metadata=None)
        listing[f"FrameKey-{t}-{c}-{z}"] = {"FileName": name}
        files.append(folder / name)
    (folder / "metadata.txt").write_text(json.dumps(listing))
    return files


def test_a_micromanager_set_is_opened_by_any_file_or_folder(tmp_path: Path) -> None:
    files = micromanager(tmp_path / "day" / "Pos0", MANY)
    for source in (files[0], files[7], tmp_path / "day" / "Pos0", tmp_path / "day"):
        stack = as_stack(source)
        assert stack.axes == "TCZYX"
        assert stack.channel_names == ("Cy5", "mine")
        np.testing.assert_array_equal(pixels_of(stack), MANY)
    for inputs in ([tmp_path / "day"], files, files[:1]):
        (job,), failures = find_jobs(list(map(str, inputs)))
        assert not failures
        np.testing.assert_array_equal(pixels_of(job.open()), MANY)


def test_positions_of_a_micromanager_set_are_stacks_of_their_own(
    tmp_path: Path,
) -> None:
    for name in ("Pos0", "Pos1"):
        micromanager(tmp_path / "day" / name, MANY)
    with pytest.raises(FocusFusionError, match="Pos0, Pos1"):
        as_stack(tmp_path / "day")
    jobs, _ = find_jobs([str(tmp_path / "day")])
    assert [job.name for job in jobs] == ["Pos0", "Pos1"]


def test_a_stopped_micromanager_set(tmp_path: Path) -> None:
    files = micromanager(tmp_path / "Pos0", MANY)
    for file in files[-2:]:
        file.unlink()
    stack = as_stack(files[0])
    np.testing.assert_array_equal(pixels_of(stack)[0], MANY[0])
    assert "time point 000000001" in stack.notes[0]


def test_a_micromanager_stack_in_two_files(tmp_path: Path) -> None:
    pixels = MANY[:, :1]  # (T, P, Z, Y, X)
    files = [tmp_path / "x_MMStack.tif", tmp_path / "x_MMStack_1.tif"]
    for t, file in enumerate(files):
        write_mmstack(file, pixels[t : t + 1], t=t, planned=2)
    for source in (*files, tmp_path):
        stack = as_stack(source)
        np.testing.assert_array_equal(pixels_of(stack)[:, 0], pixels[:, 0])
        assert [file["planes"] for file in stack.files] == [3, 3]
    jobs, failures = find_jobs([str(tmp_path)])
    assert (len(jobs), failures) == (1, [])
    files[1].unlink()
    stack = as_stack(files[0])
    np.testing.assert_array_equal(pixels_of(stack)[0, 0], pixels[0, 0])
    assert "1 of 2 frames" in stack.notes[0]


def test_a_micromanager_stack_that_was_stopped(tmp_path: Path) -> None:
    path = tmp_path / "x_MMStack.tif"
    write_mmstack(path, MANY[:, :1])
    whole = path.read_bytes()
    index, shorter = (struct.pack("<II", 3453623, count) for count in (6, 5))
    assert index in whole
    path.write_bytes(whole.replace(index, shorter))
    stack = as_stack(path)
    np.testing.assert_array_equal(pixels_of(stack)[0, 0], MANY[0, 0])
    assert "time point 1, counted from 0: 1 of 6 planes" in stack.notes[0]


def test_positions_of_a_micromanager_stack_are_images(tmp_path: Path) -> None:
    path = tmp_path / "x_MMStack.tif"
    write_mmstack(path, MANY[:1])
    with pytest.raises(FocusFusionError, match=r"2 images.*position 0.*position 1"):
        as_stack(path)
    assert series_in(path) == ["position 0", "position 1"]
    for position in range(2):
        stack = as_stack(path, series=position)
        assert stack.axes == "ZYX"
        np.testing.assert_array_equal(pixels_of(stack)[0, 0], MANY[0, position])
    jobs, _ = find_jobs([str(path)], series="all")
    assert [job.series for job in jobs] == ["position 0", "position 1"]
