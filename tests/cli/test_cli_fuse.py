"""The command fuse on real small files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from command_line import FAST, PROGRAM, focus_stack, read_until, report_of, run
from PIL import Image

import napari_focus_fusion as ff
from napari_focus_fusion.cli import main
from napari_focus_fusion.cli.console import Bar
from napari_focus_fusion.read.own_results import provenance_in


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


def test_the_sharpness_of_another_stack_decides(
    tmp_path: Path, stack_file: Path, capsys: Any
) -> None:
    """The reference is sharp where the stack is not, and the other way round."""
    other = tmp_path / "reversed.tif"
    tifffile.imwrite(other, focus_stack()[::-1], metadata={"axes": "ZYX"}, imagej=True)
    out = tmp_path / "out.tif"
    command = ["fuse", str(stack_file), "-o", str(out), *FAST, "--blend", "select"]
    assert main([*command, "--reference-stack", str(other)]) == 0
    reference = ff.as_stack(other)
    expected = ff.fuse(
        stack_file, "sml", reference=reference, blend="select", device="cpu"
    )
    decision = ff.fuse(other, "sml", blend="select", device="cpu").decision
    np.testing.assert_array_equal(expected.decision, decision)
    np.testing.assert_array_equal(tifffile.imread(out), expected.fused)


def test_one_reference_decides(tmp_path: Path, stack_file: Path, capsys: Any) -> None:
    command = ["fuse", str(stack_file), "-o", str(tmp_path / "out.tif"), *FAST]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--reference", "0", "--reference-stack", str(stack_file)])
    assert stopped.value.code == 2
    assert "not allowed with argument --reference" in capsys.readouterr().err
    missing = tmp_path / "missing.tif"
    assert main([*command, "--reference-stack", str(missing)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(missing) in line
    assert not (tmp_path / "out.tif").exists()


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


@pytest.mark.parametrize("name", ["fused.jpg", "fused.JPEG", "fused.png"])
def test_a_picture_comes_out_with_its_metadata(
    name: str, tmp_path: Path, capsys: Any
) -> None:
    source, out = tmp_path / "a.ome.tif", tmp_path / name
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2}
    metadata: dict[str, Any] = {"axes": "ZYX", **sizes}
    tifffile.imwrite(source, focus_stack(), photometric="minisblack", metadata=metadata)
    assert main(["fuse", str(source), "-o", str(out), *FAST]) == 0
    expected = ff.fuse(source, "sml", device="cpu").fused.astype(int)
    with Image.open(out) as image:
        assert (image.format == "PNG") == (out.suffix == ".png")
        pixels = np.asarray(image).astype(int)
        # JPEG changes pixels a little; noise from pixel to pixel suffers most.
        most = 0 if image.format == "PNG" else 8
        assert np.abs(pixels - expected).max() <= most
    written = ff.as_stack(out)
    assert written.pixel_size("X") == pytest.approx(0.25)
    assert written.pixel_size("Y") == pytest.approx(0.5)
    assert provenance_in(str(out))["model"] == "sml"
    assert (tmp_path / "fused_depth.ome.tif").exists()


def test_a_picture_that_cannot_hold_the_result_is_refused(
    tmp_path: Path, capsys: Any
) -> None:
    source, out = tmp_path / "a.tif", tmp_path / "fused.jpg"
    deep = focus_stack().astype(np.uint16) * 100
    tifffile.imwrite(source, deep, metadata={"axes": "ZYX"}, imagej=True)
    assert main(["fuse", str(source), "-o", str(out), *FAST]) == 1
    assert "JPEG holds 8 bits" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


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
        (["-o", "out.bmp"], "use .ome.tif, .ome.zarr, .png or .jpg"),
        (["-o", "{stem}.gif"], "use .ome.tif, .ome.zarr"),
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
    command = ["fuse", str(tmp_path / "*/*.tif"), *FAST, "--json", "-o"]
    assert main([*command, str(tmp_path / "out")]) == 0
    names = [row["name"] for row in report_of(capsys)["results"]]
    assert names == ["a_stack", "b_stack"]
    assert (tmp_path / "out" / "b_stack_fused.ome.tif").exists()
    assert main([*command, str(tmp_path / "one.tif")]) == 2
    assert "cannot all go to" in capsys.readouterr().err


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

    class InterruptingBar(Bar):
        once = True

        def __call__(self, progress: ff.Progress) -> None:
            super().__call__(progress)
            if self.once and progress.stage.startswith("Fusing"):
                self.once = False
                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("napari_focus_fusion.cli.fusing.Bar", InterruptingBar)
        assert main(command) == 130
    assert not out.exists()
    assert "the same command goes on from there" in capsys.readouterr().err
    assert main(command) == 0
    expected = ff.fuse(stack_file, "sml", device="cpu").fused
    fused = ff.as_stack(out).read(0, [0], slice(None), slice(None))[0, 0]
    np.testing.assert_array_equal(fused, expected)


def test_no_result_replaces_a_stack_that_is_still_to_be_fused(
    tmp_path: Path, capsys: Any
) -> None:
    for seed, name in enumerate(("a.tif", "a_fused.ome.tif")):
        pixels = focus_stack(seed=seed)
        tifffile.imwrite(
            tmp_path / name, pixels, photometric="minisblack", metadata={"axes": "ZYX"}
        )
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    out = tmp_path / "{stem}_fused.ome.tif"
    command = ["fuse", str(tmp_path), "-o", str(out), *FAST, "--overwrite", "--json"]
    assert main(command) == 1
    first, second = report_of(capsys)["results"]
    assert not first["ok"] and "never overwritten" in first["error"]
    assert second["ok"]
    for name, content in before.items():
        assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("name", ["fused.ome.tif", "fused.ome.zarr"])
@pytest.mark.parametrize("change", ["nothing", "setting", "stack", "lost file"])
def test_resuming_leaves_only_what_would_come_out_again(
    name: str, change: str, tmp_path: Path, stack_file: Path, capsys: Any
) -> None:
    out, options = tmp_path / name, ["--resume"]
    command = ["fuse", str(stack_file), "-o", str(out), *FAST, "--json"]
    assert main(command) == 0
    capsys.readouterr()
    if change == "setting":
        options += ["--blend", "select"]
    if change == "stack":
        pixels = focus_stack()
        pixels[0, 0, 0] ^= 1
        tifffile.imwrite(stack_file, pixels, metadata={"axes": "ZYX"}, imagej=True)
    if change == "lost file" and out.is_file():
        (tmp_path / "fused_depth.ome.tif").unlink()
    assert main([*command, *options]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    again = change != "nothing" and not (change == "lost file" and out.is_dir())
    assert (report["fused"], report["fused_before"]) == (int(again), int(not again))
    words = {"setting": "the settings changed", "stack": "the stack changed"}
    assert words.get(change, "") in printed.err
    if again:
        provenance = report["results"][0]["provenance"]
        blend = "select" if change == "setting" else "feather"
        assert provenance["parameters"]["blend"] == blend
        assert all(Path(path).exists() for path in report["results"][0]["outputs"])


def test_what_no_slice_shows_is_written_beside_a_reconstruction(
    tmp_path: Path, stack_file: Path, capsys: Any
) -> None:
    out, beyond = tmp_path / "fused.ome.tif", tmp_path / "fused_beyond.ome.tif"
    command = ["fuse", str(stack_file), "-o", str(out), "--device", "cpu", "--json"]
    beyond.write_text("mine")
    # Said before the work: none of the other files is there.
    assert main([*command, "--model", "mscnn"]) == 1
    assert "fused_beyond.ome.tif' exists already" in capsys.readouterr().err
    assert not out.exists() and beyond.read_text() == "mine"
    beyond.unlink()
    assert main([*command, "--model", "mscnn"]) == 0
    (row,) = report_of(capsys)["results"]
    assert str(beyond) in row["outputs"]
    fused = tifffile.imread(out).astype(float)
    slices = focus_stack()
    expected = fused - fused.clip(slices.min(0), slices.max(0))
    np.testing.assert_array_equal(tifffile.imread(beyond), expected)
    assert expected.any()
    for change, again in (("nothing", 0), ("lost", 1), ("nothing", 0)):
        if change == "lost":
            beyond.unlink()
        assert main([*command, "--model", "mscnn", "--resume"]) == 0
        assert report_of(capsys)["fused"] == again
        assert beyond.exists()
    # Observed pixels have no such map, and are not missing one.
    other = tmp_path / "observed.ome.tif"
    command[3] = str(other)
    options = ["--model", "mscnn", "--strength", "0", "--resume"]
    for fused_now in (1, 0):
        assert main([*command, *options]) == 0
        assert report_of(capsys)["fused"] == fused_now
    assert not (tmp_path / "observed_beyond.ome.tif").exists()


def test_networks_run_in_half_precision(
    tmp_path: Path, stack_file: Path, capsys: Any
) -> None:
    out = tmp_path / "fused.ome.tif"
    command = ["fuse", str(stack_file), "-o", str(out), "--model", "sesf"]
    assert main([*command, "--device", "cpu", "--precision", "bfloat16"]) == 0
    expected = ff.fuse(stack_file, "sesf", device="cpu", precision="bfloat16").fused
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    with pytest.raises(SystemExit):
        main([*command, "--precision", "float16"])
    assert "float32" in capsys.readouterr().err


def test_resuming_does_not_replace_the_file_of_another_program(
    tmp_path: Path, stack_file: Path, capsys: Any
) -> None:
    out = tmp_path / "fused.ome.tif"
    tifffile.imwrite(out, np.zeros((4, 4), np.uint8))
    before = out.read_bytes()
    assert main(["fuse", str(stack_file), "-o", str(out), *FAST, "--resume"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_what_a_long_run_takes_is_said_once_and_without_a_terminal(
    capsys: Any,
) -> None:
    with Bar("specimen") as bar:
        for done, left in ((0, None), (1, 90.0), (2, 80.0)):
            bar(ff.Progress(done, 10, "Fusing", left, 340_000_000))
    text = capsys.readouterr().err
    assert text.count("specimen: about 340 MB of working memory and 90 s\n") == 1
