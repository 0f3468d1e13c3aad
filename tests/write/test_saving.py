from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import zarr

from forks import run_code, run_forked
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.opening import as_stack
from small_results import pixels_of, result_for

ALL = slice(None)


@pytest.mark.parametrize("name", ["r.ome.tif", "r.ome.zarr"])
def test_nothing_is_overwritten_unasked(name: str, tmp_path) -> None:
    path = tmp_path / name
    first, second = result_for("ZYX"), result_for("ZYX")
    second = replace(second, fused=second.fused + 1)
    first.save(path)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FocusFusionError, match="exists already"):
        second.save(path)
    np.testing.assert_array_equal(pixels_of(as_stack(path))[0, 0], first.fused)
    second.save(path, overwrite=True)
    np.testing.assert_array_equal(pixels_of(as_stack(path))[0, 0], second.fused)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_map_in_the_way_is_seen_before_anything_is_written(tmp_path) -> None:
    (tmp_path / "r_depth.ome.tif").write_text("mine")
    with pytest.raises(FocusFusionError, match=r"r_depth.*exists already"):
        result_for("ZYX").save(tmp_path / "r.ome.tif")
    assert os.listdir(tmp_path) == ["r_depth.ome.tif"]


def test_the_stack_itself_is_never_overwritten(tmp_path, monkeypatch) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.ones((5, 30, 35), np.uint16))
    monkeypatch.chdir(tmp_path)
    result = replace(result_for("ZYX"), stack=as_stack("stack.tif"))
    for target in (path, "stack.tif"):
        with pytest.raises(FocusFusionError, match="the stack itself"):
            result.save(target, overwrite=True)
    assert tifffile.imread(path).all()
    zarr.create_group("z.zarr").create_array("raw", data=np.ones((5, 30, 35), "u2"))
    os.symlink("z.zarr", "link.zarr")
    result = replace(result, stack=as_stack("z.zarr/raw"))
    for target in ("z.zarr", "link.zarr"):
        with pytest.raises(FocusFusionError, match="the stack itself"):
            result.save(target, overwrite=True)
    assert as_stack("z.zarr/raw").read(0, ALL, ALL, ALL).all()


def test_a_folder_is_never_replaced(tmp_path) -> None:
    for name in ("r.ome.zarr", "r.tif"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
        with pytest.raises(FocusFusionError, match="is a folder"):
            result_for("ZYX").save(tmp_path / name, overwrite=True)
        assert (tmp_path / name / "thesis.txt").exists()


def test_names_that_cannot_be_saved(tmp_path) -> None:
    result = result_for("ZYX")
    with pytest.raises(FocusFusionError, match=r"\.ome\.tif, \.ome\.zarr"):
        result.save(tmp_path / "r.bmp")
    with pytest.raises(FocusFusionError, match="does not exist"):
        result.save(tmp_path / "nowhere" / "r.tif")


@pytest.mark.parametrize("name", ["r.ome.tif", "r.ome.zarr"])
def test_a_failed_save_leaves_nothing(name: str, tmp_path) -> None:
    pytest.importorskip("resource", reason="limits of file size need Unix")
    code = f"""
import resource, signal
import numpy as np
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.result import FusionResult
from napari_focus_fusion.opening import as_stack
rng = np.random.default_rng(0)
stack = as_stack(np.zeros((2, 300, 300), np.uint16))
noise = rng.random((300, 300)).astype(np.float32)
result = FusionResult(stack.data[0], stack.data[0], noise, noise, stack, {{}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    result.save({str(tmp_path / name)!r})
except FocusFusionError as error:
    print(error)
"""
    done = run_forked(run_code, code)
    assert "Cannot save in" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_permission(tmp_path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FocusFusionError, match="no permission"):
        result_for("ZYX").save(tmp_path / "r.tif")


KILLED_SAVE = """
import os, signal, sys
from pathlib import Path
from small_results import result_for

path, kill_at = Path(sys.argv[1]), int(sys.argv[2])
done = 0

def watch(event, arguments):
    global done
    if event == "os.rename" and Path(str(arguments[0])).parent == path.parent:
        done += 1
        if done > kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

result = result_for("ZYX")
sys.addaudithook(watch)
result.save(path, overwrite=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL needs Unix")
@pytest.mark.parametrize("renames", [0, 1])
def test_after_a_kill_between_the_renames_saving_finishes(
    renames: int, tmp_path
) -> None:
    """Nothing lies under the name then; the next call puts it right first."""
    path = tmp_path / "r.ome.zarr"
    first, second = result_for("ZYX"), result_for("ZYX")
    second = replace(second, fused=second.fused + 1)
    first.save(path)
    done = run_forked(run_code, KILLED_SAVE, str(path), str(renames))
    assert done.returncode < 0
    left = [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert left
    assert path.exists() == (renames == 0)
    with pytest.raises(FocusFusionError, match="exists already"):
        second.save(path)
    np.testing.assert_array_equal(pixels_of(as_stack(path))[0, 0], first.fused)
    second.save(path, overwrite=True)
    np.testing.assert_array_equal(pixels_of(as_stack(path))[0, 0], second.fused)
    assert os.listdir(tmp_path) == ["r.ome.zarr"]
