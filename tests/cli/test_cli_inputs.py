"""Which files make which stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tifffile
from command_line import focus_stack
from PIL import Image

from napari_focus_fusion.jobs import find_jobs

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_of_pictures_is_one_stack_in_natural_order(pictures: Path) -> None:
    jobs, failures = find_jobs([str(pictures)])
    assert not failures
    (job,) = jobs
    assert job.name == "plate A"
    assert [path.stem for path in job.files] == [f"z{z}" for z in range(1, 12)]


def test_a_quoted_glob_and_the_files_it_stands_for_are_the_same(pictures: Path) -> None:
    as_the_shell_does = sorted(map(str, pictures.glob("*.png")))
    assert find_jobs([str(pictures / "*.png")]) == find_jobs(as_the_shell_does)


def test_stack_files_are_fused_one_by_one(tmp_path: Path, stack_file: Path) -> None:
    other = tmp_path / "sample2.tif"
    tifffile.imwrite(other, focus_stack(seed=1), metadata={"axes": "ZYX"}, imagej=True)
    jobs, failures = find_jobs([str(tmp_path / "*.tif")])
    assert not failures
    assert {job.name: job.source for job in jobs} == {
        "sample": stack_file,
        "sample2": other,
    }


def test_planes_in_tiffs_are_slices(tmp_path: Path) -> None:
    for z, plane in enumerate(focus_stack()):
        tifffile.imwrite(tmp_path / f"{z}.tif", plane)
    jobs, _ = find_jobs([str(tmp_path)])
    assert [len(job.files) for job in jobs] == [3]


def test_pictures_of_several_folders_are_several_stacks(tmp_path: Path) -> None:
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        for z, plane in enumerate(focus_stack()):
            Image.fromarray(plane).save(tmp_path / name / f"{z}.png")
    for pattern in ("*", "*/*.png"):
        jobs, _ = find_jobs([str(tmp_path / pattern)])
        assert [(job.name, len(job.files)) for job in jobs] == [
            ("left", 3),
            ("right", 3),
        ]
    (job,), _ = find_jobs([str(tmp_path / "*/*.png")], as_one_stack=True)
    assert len(job.files) == 6


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    jobs, failures = find_jobs([str(tmp_path / "none*.tif"), str(tmp_path)])
    assert not jobs
    assert [text for text, _ in failures] == [
        str(tmp_path / "none*.tif"),
        str(tmp_path),
    ]
