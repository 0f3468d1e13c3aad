"""The real program on real small files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main
from napari_focus_fusion.opening import find_jobs

PROGRAM = [sys.executable, "-m", "napari_focus_fusion"]
FAST = ["--model", "sml", "--device", "cpu"]


def focus_stack(n_slices: int = 3, seed: int = 0) -> np.ndarray:
    """A texture cut into upright strips, the n-th sharp in slice n only: uint8, ZYX."""
    texture = np.random.default_rng(seed).uniform(20, 235, (48, 20 * n_slices))
    strip = np.arange(texture.shape[1]) // 20
    blurred = ndimage.gaussian_filter(texture, 3)
    slices = [np.where(strip == z, texture, blurred) for z in range(n_slices)]
    return np.round(slices).astype(np.uint8)


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    path = tmp_path / "sample.ome.tif"
    tifffile.imwrite(path, focus_stack(), metadata={"axes": "ZYX"}, ome=True)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of PNG slices whose names sort wrongly as text."""
    folder = tmp_path / "plate A"
    folder.mkdir()
    for z, plane in enumerate(focus_stack(11), start=1):
        Image.fromarray(plane).save(folder / f"z{z}.png")
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def read_until(terminal: int, words: bytes | None) -> bytes:
    """What a program prints on a terminal until it says these words, or ends."""
    seen = b""
    while words is None or words not in seen:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # Linux's way of saying that the other end has closed
            break
        if not chunk:
            break
        seen += chunk
    return seen


def report_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    report = json.loads(capsys.readouterr().out)
    assert isinstance(report, dict)
    return report


# Which files make which stack ---------------------------------------------------------


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


# fuse ---------------------------------------------------------------------------------


def test_fuse_writes_what_the_api_computes(stack_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused.ome.tif"
    done = run("fuse", stack_file, "-o", out, *FAST, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert (report["fused"], report["failed"]) == (1, 0)
    (row,) = report["results"]
    assert str(out) in row["outputs"]
    assert all(Path(path).exists() for path in row["outputs"])
    expected = ff.fuse(stack_file, "sml", device="cpu").fused
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    assert row["shape"] == list(expected.shape)


def test_options_reach_the_run(tmp_path: Path, stack_file: Path, capsys: Any) -> None:
    options = "--blend select --tile 32 --memory 1GB --reference mean --axes ZYX"
    command = ["fuse", str(stack_file), "-o", str(tmp_path / "out.tif"), "--json"]
    assert main([*command, *FAST, *options.split()]) == 0
    provenance = report_of(capsys)["results"][0]["provenance"]
    assert provenance["model"] == "sml"
    assert provenance["parameters"]["blend"] == "select"


def test_many_inputs_one_of_them_bad(
    tmp_path: Path, stack_file: Path, capsys: Any
) -> None:
    bad = tmp_path / "broken.tif"
    bad.write_bytes(b"not a TIFF at all")
    other = tmp_path / "zebra.tif"
    tifffile.imwrite(other, focus_stack(seed=1), metadata={"axes": "ZYX"}, imagej=True)
    out = tmp_path / "results"
    code = main(["fuse", str(tmp_path / "*.tif"), "-o", str(out), *FAST])
    assert code == 1
    printed = capsys.readouterr()
    assert (out / "sample_fused.ome.tif").exists()
    assert (out / "zebra_fused.ome.tif").exists()
    assert printed.out.splitlines()[-1].startswith("2 stacks fused in")
    assert printed.out.splitlines()[-1].endswith("1 failed")
    (line,) = printed.err.splitlines()
    assert "broken" in line
    assert "Traceback" not in line


def test_pictures_are_fused_to_a_pattern(
    pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    out = str(tmp_path / "{stem}.ome.zarr")
    assert main(["fuse", str(pictures), "-o", out, *FAST, "--json"]) == 0
    (row,) = report_of(capsys)["results"]
    assert row["slices"] == 11
    fused = ff.as_stack(tmp_path / "plate A.ome.zarr")
    assert (fused.height, fused.width) == (48, 220)


@pytest.mark.parametrize("name", ["fused.tif", "fused_depth.ome.tif"])
def test_nothing_is_overwritten_unasked(
    name: str, stack_file: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "fused.tif"
    (tmp_path / name).write_bytes(b"precious")
    command = ["fuse", str(stack_file), "-o", str(out), *FAST]
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"precious"
    assert out.exists() == (name == out.name)
    assert main([*command, "--overwrite"]) == 0
    assert tifffile.imread(out).shape == (48, 60)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "out.tif"], "2 stacks cannot all go to out.tif"),
        (["-o", "out.png"], "use .ome.tif or .ome.zarr"),
        (["-o", "{stem}.png"], "use .ome.tif or .ome.zarr"),
        (["-o", "out", "--model", "nonsense"], "nonsense"),
    ],
)
def test_commands_that_make_no_sense(
    arguments: list[str], words: str, tmp_path: Path, stack_file: Path, capsys: Any
) -> None:
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, focus_stack(), metadata={"axes": "ZYX"}, imagej=True)
    assert main(["fuse", str(stack_file), str(other), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_two_stacks_of_one_name_do_not_share_a_file(
    tmp_path: Path, capsys: Any
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "stack.tif"
        tifffile.imwrite(path, focus_stack(), metadata={"axes": "ZYX"}, imagej=True)
    code = main(["fuse", str(tmp_path / "*/*.tif"), "-o", str(tmp_path / "out")])
    assert code == 2
    assert "would both be written to" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2 bananas", "", "GB"])
def test_memory_that_is_no_amount(text: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fuse", "a.tif", "-o", "b.tif", "--memory", text])
    assert stopped.value.code == 2
    assert "no amount of memory" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    bad = tmp_path / "broken.tif"
    bad.write_bytes(b"not a TIFF at all")
    done = run("fuse", bad, "-o", tmp_path / "out", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_interrupting_stops_cleanly(tmp_path: Path) -> None:
    """On a terminal: Ctrl-C while the bar moves; nothing unfinished is left."""
    pty, termios = map(pytest.importorskip, ("pty", "termios"))
    path = tmp_path / "long.tif"
    rng = np.random.default_rng(0)
    slices = rng.integers(0, 255, (64, 1024, 1024), np.uint8)
    tifffile.imwrite(path, slices, metadata={"axes": "ZYX"}, imagej=True)
    out = tmp_path / "out"
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal: {error}")
    termios.tcsetwinsize(theirs, (24, 100))  # no bar fits a terminal without a size
    with subprocess.Popen(
        [*PROGRAM, "fuse", path, "-o", out, *FAST, "--tile", "64"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        seen = read_until(ours, b"%|")
        process.send_signal(signal.SIGINT)
        seen += read_until(ours, None)
        stdout = process.communicate()[0]
    os.close(ours)
    assert process.returncode == 130, seen.decode()
    assert b"interrupted" in seen
    assert b"Traceback" not in seen
    assert stdout.startswith("0 stacks fused")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["long.tif"]


def test_an_interrupted_zarr_is_finished_by_the_same_command(
    tmp_path: Path, stack_file: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Ctrl-C in the middle, as the operating system delivers it, then once more."""
    out = tmp_path / "fused.ome.zarr"
    command = ["fuse", str(stack_file), "-o", str(out), *FAST]
    from napari_focus_fusion import cli

    class InterruptingBar(cli._Bar):
        def __call__(self, progress: ff.Progress) -> None:
            super().__call__(progress)
            if progress.stage.startswith("Fusing"):
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(cli, "_Bar", InterruptingBar)
        assert main(command) == 130
    assert not out.exists()
    assert "the same command goes on from there" in capsys.readouterr().err
    assert main(command) == 0
    expected = ff.fuse(stack_file, "sml", device="cpu").fused
    fused = ff.as_stack(out).read(0, [0], slice(None), slice(None))[0, 0]
    np.testing.assert_array_equal(fused, expected)


# The other commands -------------------------------------------------------------------


def test_models_as_text_and_as_json(capsys: Any) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    specs = report_of(capsys)
    assert set(specs) == set(ff.models())
    for name, spec in specs.items():
        assert name in text
        assert spec["title"] in text


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "napari_focus_fusion", "models"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_demo_shows_that_fusing_helps(tmp_path: Path, capsys: Any) -> None:
    command = ["demo", "-o", str(tmp_path / "demo"), *FAST]
    assert main([*command, "--json"]) == 0
    report = report_of(capsys)
    assert report["psnr_fused"] > report["psnr_best_slice"] + 1
    for path in map(Path, report["outputs"]):
        assert path.parent == tmp_path / "demo"
        assert path.stat().st_size > 1000
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_evaluate_prints_what_the_api_measures(tmp_path: Path, capsys: Any) -> None:
    slices = focus_stack()
    for z, plane in enumerate(slices):
        Image.fromarray(plane).save(tmp_path / f"{z}.png")
    fused, truth = slices[1], slices.max(axis=0)
    Image.fromarray(fused).save(tmp_path / "fused.png")
    tifffile.imwrite(tmp_path / "truth.tif", truth)
    files = [str(tmp_path / name) for name in ("fused.png", "0.png", "1.png", "2.png")]
    options = ["--truth", str(tmp_path / "truth.tif"), "--measures", "Q_G,PSNR"]
    assert main(["evaluate", *files, *options, "--json"]) == 0
    expected = ff.evaluate(fused, slices, truth, measures=["Q_G", "PSNR"])
    assert report_of(capsys)["results"] == [expected]
    assert main(["evaluate", *files, *options]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(printed["PSNR"]) == pytest.approx(expected["PSNR"], abs=1e-4)


def test_evaluate_measures_each_channel(tmp_path: Path, capsys: Any) -> None:
    slices = np.stack([focus_stack(), focus_stack(seed=1)])
    tifffile.imwrite(
        tmp_path / "stack.ome.tif", slices, metadata={"axes": "CZYX"}, ome=True
    )
    fused = slices[:, 1]
    tifffile.imwrite(
        tmp_path / "fused.ome.tif", fused, metadata={"axes": "CYX"}, ome=True
    )
    files = [str(tmp_path / name) for name in ("fused.ome.tif", "stack.ome.tif")]
    assert main(["evaluate", *files, "--measures", "Q_AB/F", "--json"]) == 0
    assert report_of(capsys)["results"] == [
        ff.evaluate(image, stack, measures=["Q_AB/F"])
        for image, stack in zip(fused, slices, strict=True)
    ]


def test_train_says_what_is_missing(tmp_path: Path, capsys: Any) -> None:
    assert main(["train", "nonsense"]) == 2
    assert "'nonsense' cannot be trained; there is: sesf" in capsys.readouterr().err
    out = tmp_path / "sesf.safetensors"
    command = ["train", "sesf", "-o", str(out)]
    assert main([*command, "--pictures", str(tmp_path / "absent")]) == 1
    assert "There is no folder" in capsys.readouterr().err
    assert not out.exists()
    out.write_bytes(b"precious")
    assert main(command) == 1
    assert out.read_bytes() == b"precious"


def test_the_version_is_printed() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.strip()) == (0, ff.__version__)


def test_no_command_is_an_error(capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "COMMAND" in capsys.readouterr().err
