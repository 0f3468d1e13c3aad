"""Files that are damaged, or are not what they are taken for: said in words."""

from __future__ import annotations

import copy
import json
import resource
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
import zarr

from forks import run_code, run_forked
from napari_focus_fusion import FocusFusionError, as_stack, finetune, fuse
from napari_focus_fusion.report import load_result
from napari_focus_fusion.training.fit import Schedule, fit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRONG: tuple[Any, ...] = (None, 5, -1.5, "x", [], {}, [None], {"a": []}, True, [[]])
OME = {
    "version": "0.5",
    "multiscales": [
        {
            "name": "cells",
            "axes": [{"name": n, "type": "space", "unit": "um"} for n in "zyx"],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [1.0, 0.5, 0.5]},
                        {"type": "translation", "translation": [0.0, 0.0, 1.0]},
                    ],
                }
            ],
        }
    ],
    "omero": {
        "channels": [
            {"label": "DAPI", "color": "00FF00", "window": {"start": 0, "end": 9}}
        ]
    },
}


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in nested dictionaries and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def test_zarr_attributes_of_any_wrong_type(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w")
    group.create_array("0", data=np.zeros((3, 20, 24), np.uint8))
    for place in places(OME):
        for value in WRONG:
            ome = copy.deepcopy(OME)
            inner: Any = ome
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            group.attrs["ome"] = ome
            try:
                as_stack(tmp_path / "a.ome.zarr")
                as_stack(zarr.open_group(tmp_path / "a.ome.zarr", mode="r"))
            except FocusFusionError as error:
                assert str(error)


def test_zarr_headers_that_are_no_headers(tmp_path: Path) -> None:
    for text in ("", "{", "[]", "5", "{}", '{"zarr_format": 9}', "\0"):
        (tmp_path / "a.zarr").mkdir(exist_ok=True)
        (tmp_path / "a.zarr" / "zarr.json").write_text(text)
        with pytest.raises(FocusFusionError):
            as_stack(tmp_path / "a.zarr")


def test_tiff_bytes_that_were_flipped(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    pixels = np.zeros((4, 20, 24), np.uint8)
    tifffile.imwrite(path, pixels, metadata={"axes": "ZYX"}, ome=True)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    header = [i for i in range(len(whole)) if i < 900 or i > len(whole) - 500]
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.choice(header, 3):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            as_stack(path).read(0, slice(None), slice(None), slice(None))
        except FocusFusionError as error:
            assert str(error)


def test_reports_of_wrong_files(tmp_path: Path) -> None:
    stack = as_stack(np.zeros((3, 20, 24), np.uint8))
    (tmp_path / "text.zarr").write_text("no Zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w").create_group("a")
    result = fuse(stack, "sml")
    result.save(tmp_path / "cut.ome.zarr")
    (tmp_path / "cut.ome.zarr" / "confidence" / "0" / "zarr.json").write_text("{")
    (tmp_path / "text.tif").write_text("no TIFF")
    for name in ("text.zarr", "other.zarr", "cut.ome.zarr", "text.tif", "none.tif"):
        with pytest.raises(FocusFusionError):
            load_result(tmp_path / name, stack)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 no archive",
        {"schedule": 5},
        {"schedule": {"steps": 3}},
        [1, 2],
        "state",
    ],
    ids=["empty", "no archive", "number", "without state", "list", "text"],
)
def test_checkpoints_that_are_none(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.checkpoint"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(FocusFusionError, match=r"mine\.checkpoint is"):
        fit(
            torch.nn.Linear(2, 1),
            lambda network, batch: {"loss": network(batch).sum()},
            lambda step: torch.ones(1, 2),
            lambda network: 0.0,
            Schedule(steps=3),
            checkpoint=path,
        )


def test_a_checkpoint_of_another_network_or_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "mine.checkpoint"

    def train(inputs: int) -> None:
        fit(
            torch.nn.Linear(inputs, 1),
            lambda network, batch: {"loss": network(batch).sum()},
            lambda step: torch.ones(1, inputs),
            lambda network: 0.0,
            Schedule(steps=3),
            checkpoint=path,
        )

    train(2)
    with pytest.raises(FocusFusionError, match="no readable checkpoint"):
        train(3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FocusFusionError, match="no readable checkpoint"):
        train(2)


def test_a_card_or_weights_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FocusFusionError):
        fuse(np.zeros((2, 20, 24), np.uint8), tmp_path / "folder.safetensors")
    with pytest.raises(FocusFusionError, match="exists already"):
        finetune(
            "sesf",
            np.zeros((2, 64, 64), np.uint8),
            out=tmp_path / "folder.safetensors",
        )


def test_memory_that_ends_outside_of_a_model() -> None:
    code = """
import json, resource, sys
import dask.array as da
import napari_focus_fusion as ff

stack = da.zeros((2, 60_000, 60_000), chunks=(1, 1000, 1000), dtype="u1")
ff.load_model("sml")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), used + (4 << 30)))
try:
    ff.fuse(stack, "sml", axes="ZYX", device="cpu")
except ff.FocusFusionError as error:
    print(json.dumps(str(error)))
"""
    if not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux":
        pytest.skip("memory is limited as Linux does it")
    done = run_forked(run_code, code)
    assert "There is not enough memory to fuse 'stack'" in json.loads(done.stdout), (
        done.stderr
    )
