"""What the core promises its users, one group of tests a promise."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_focus_fusion import (
    Cancelled,
    FocusFusionError,
    as_stack,
    fuse,
    load_model,
)
from napari_focus_fusion.engine import monitor, plan, store
from small_models import (
    Watched,
    as_dtype,
    energy_pairs,
    energy_reconstructor,
    energy_sets,
    random_sesf,
    relief,
    same_result,
    watched,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS: dict[str, Callable[[], Any]] = {
    "sml": lambda: load_model("sml"),
    "sesf": random_sesf,
    "pairs": energy_pairs,
    "sets": energy_sets,
    "reconstructor": energy_reconstructor,
}


def small() -> np.ndarray:
    return relief(100, 120, 5).stack


def many_regions(monkeypatch: pytest.MonkeyPatch, side: int = 64) -> None:
    """A budget of 16 MB for regions of a few thousand pixels, chunks of 64 x 64."""
    monkeypatch.setattr(plan, "BYTES_A_PIXEL", (16 << 20) // side**2 - 100)
    monkeypatch.setattr(plan, "CHUNK", side)
    monkeypatch.setattr(store, "CHUNK", side)
    # However slow the machine, a run asks as often whether to stop.
    monkeypatch.setattr(monitor, "PATIENCE", np.inf)


# 1. Tiles are invisible.


def invisible(a: Any, b: Any) -> None:
    """The promise, word for word."""
    agreed = np.asarray(a.decision) == np.asarray(b.decision)
    assert agreed.mean() >= 0.9999
    first, second = (np.asarray(r.fused)[agreed].astype(np.float64) for r in (a, b))
    unit = 1 if a.fused.dtype.kind in "iu" else 1e-5 * np.ptp(np.asarray(a.fused))
    assert np.abs(first - second).max() <= unit
    both = [np.asarray(r.confidence) for r in (a, b)]
    np.testing.assert_allclose(*both, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_result_does_not_depend_on_the_size_of_tiles(name: str) -> None:
    stack = relief(140, 262, 3).stack[: 2 if name == "sesf" else 3]
    model = MODELS[name]()
    whole = fuse(stack, model, tile=4096)
    for tile in (128, 256, 777):
        invisible(fuse(stack, model, tile=tile), whole)
    for tile in (16, 100) if name != "sesf" else (50,):
        invisible(
            fuse(stack[:, :70, :80], model, tile=tile), fuse(stack[:, :70, :80], model)
        )


@pytest.mark.parametrize("name", MODELS)
def test_the_result_does_not_depend_on_the_working_memory(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stack, model = small(), MODELS[name]()
    whole = fuse(stack, model)
    many_regions(monkeypatch, 96 if name == "sesf" else 64)
    if name != "sesf":
        for memory in (16 << 20, 40 << 20):
            invisible(fuse(stack, model, memory=memory), whole)
    chunked = zarr.create_array(tmp_path / "in.zarr", data=stack, chunks=(2, 48, 40))
    invisible(fuse(chunked, model, axes="ZYX", memory=16 << 20), whole)
    out = tmp_path / "out.ome.zarr"
    invisible(fuse(chunked, model, axes="ZYX", memory=16 << 20, out=out), whole)


@pytest.mark.parametrize("blend", ["feather", "select"])
def test_with_plain_arithmetic_tiles_do_not_even_change_a_bit(
    blend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = as_dtype(small(), "float32")
    options: dict[str, Any] = {"blend": blend, "surface": 0}
    whole = fuse(stack, "sml", **options)
    many_regions(monkeypatch)
    same_result(fuse(stack, "sml", tile=33, memory=16 << 20, **options), whole)


# 2. Memory is bounded by the tile: see also test_memory.py.


class Requests(Watched):
    """Notes how much is asked for at once."""

    most = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        found = super().__getitem__(key)
        self.most = max(self.most, found.size)
        return found


@pytest.mark.parametrize("surface", [0, 1])
@pytest.mark.parametrize("name", ["sml", "pairs"])
def test_no_more_is_read_at_once_for_more_slices_or_a_larger_plane(
    name: str, surface: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_regions(monkeypatch)
    # The surface is looked for in slices with much around them.
    fewest, height = (3, 800) if surface else (2, 320)
    most = []
    for slices, rows in ((fewest, height), (6, height), (fewest, height + 128)):
        shape = (slices, rows, 64)
        pixels = np.random.default_rng(0).integers(0, 99, shape, dtype=np.uint8)
        requests = Requests(pixels)
        fuse(requests, MODELS[name](), axes="ZYX", memory=16 << 20, surface=surface)
        most.append(requests.most)
    assert most[0] == most[1] == most[2]


# 3. Cost is linear in pixels x slices.


@pytest.mark.parametrize(
    ("name", "surface"), [("sml", 0), ("pairs", 0), ("sets", 0), ("sml", 1)]
)
def test_twice_the_pixels_or_slices_are_twice_the_work(
    name: str, surface: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_regions(monkeypatch)
    slices, height = (3, 768) if surface else (2, 320)
    work = []
    for more, larger in ((1, 1), (2, 1), (1, 2)):
        shape = (slices * more, height * larger, 64)
        pixels = np.random.default_rng(0).integers(0, 99, shape, dtype=np.uint8)
        source, (model, seen) = Watched(pixels), watched(MODELS[name]())
        fuse(source, model, axes="ZYX", tile=64, memory=16 << 20, surface=surface)
        work.append(np.array([source.read.sum(), sum(seen)]))
    once, more_slices, larger_plane = work
    assert (once > 0).all()
    assert (more_slices <= 2 * once).all()
    # At the border of the image there is less to read around a region.
    assert (larger_plane <= 2.2 * once).all()


@pytest.mark.parametrize("surface", [0, 1])
@pytest.mark.parametrize("name", ["sml", "sesf", "pairs"])
def test_each_pixel_is_read_a_fixed_number_of_times(name: str, surface: int) -> None:
    """Once to score (pair maskers: twice) and twice to fuse; and a small sample.

    Once more to find the surface, and once to see whether slices drift.
    """
    pixels = Watched(relief(150, 290, 3).stack)
    fuse(pixels, MODELS[name](), axes="ZYX", surface=surface)
    assert (pixels.read >= 3 + surface).all()
    # The first and last rows once more, to see whether slices fill the plane.
    most = {"sml": 4, "sesf": 4, "pairs": 5}[name] + surface
    if name == "sesf" or surface:
        most += 1
    assert pixels.read[:, 1:-1].max() <= most


# 4. Order does not matter pixel by pixel; a surface has an order, but no direction.

ORDERS = {"reversed": [4, 3, 2, 1, 0], "shuffled": [2, 4, 0, 3, 1]}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize(
    ("name", "dtype", "blend"),
    [
        ("sml", "uint8", "feather"),
        ("sml", "uint16", "feather"),
        ("sml", "uint16", "select"),
        ("sml", "float32", "feather"),
        ("sml", "float64", "feather"),
        ("sesf", "float32", "feather"),
    ],
)
def test_slice_scorers_do_not_depend_on_the_order(
    name: str, dtype: str, order: list[int], blend: Any
) -> None:
    stack = as_dtype(small(), dtype)
    model = MODELS[name]()
    result, other = (
        fuse(stack, model, blend=blend, surface=0),
        fuse(stack[order], model, blend=blend, surface=0),
    )
    if order == ORDERS["reversed"] or blend == "select":
        # Doubles are averaged as doubles: the last bit depends on the order of a sum.
        rounding = 1e-15 if dtype == "float64" else 0
        np.testing.assert_allclose(other.fused, result.fused, rtol=rounding)
    else:  # the noise is measured between one slice and the next
        least = np.minimum(other.fused, result.fused).astype(float)
        error = np.maximum(other.fused, result.fused) - least
        assert np.sqrt((error**2).mean()) < 0.002 * np.ptp(stack.astype(float))
    # Of two slices with the very same score the first is taken; 8-bit data have such.
    differ = np.asarray(order)[other.decision] != result.decision
    assert differ.sum() <= (2 if dtype == "uint8" else 0)
    np.testing.assert_array_equal(other.confidence, result.confidence)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("name", ["pairs", "sets"])
def test_maskers_depend_on_the_order_up_to_rounding(
    name: str, order: list[int]
) -> None:
    stack = small()
    result, other = (fuse(s, MODELS[name](), surface=0) for s in (stack, stack[order]))
    agreed = np.asarray(order)[other.decision] == result.decision
    assert agreed.mean() > 0.999
    error = other.fused[agreed].astype(int) - result.fused[agreed].astype(int)
    if order == ORDERS["reversed"]:
        assert (np.abs(error) > 1).mean() < 1e-3
    else:  # the noise is measured between one slice and the next
        assert np.sqrt((error**2.0).mean()) < 0.002 * np.ptp(stack.astype(float))


@pytest.mark.parametrize("name", ["sml", "sesf"])
def test_a_reversed_stack_gives_the_reverse_by_default(name: str) -> None:
    stack, model = small(), MODELS[name]()
    result, other = fuse(stack, model), fuse(stack[::-1], model)
    assert len(np.unique(result.decision)) > 3
    last = len(stack) - 1
    agreed = last - other.decision.astype(int) == result.decision
    assert agreed.mean() >= 0.9999
    depths = (last - np.asarray(other.depth))[agreed], result.depth[agreed]
    np.testing.assert_allclose(*depths, rtol=0, atol=1e-3)
    np.testing.assert_allclose(other.confidence, result.confidence, atol=1e-4)
    error = other.fused[agreed].astype(int) - result.fused[agreed].astype(int)
    assert (np.abs(error) > 1).mean() < 1e-3


# 5. Data come back in their own type (see also test_fusion.py and test_result.py).


@pytest.mark.parametrize("name", MODELS)
def test_select_gives_observed_values_only(name: str) -> None:
    for dtype in ("uint8", "uint16", "float64"):
        stack = as_dtype(small(), dtype)
        result = fuse(stack, MODELS[name](), blend="select")
        observed = np.take_along_axis(stack, result.decision[None], 0)[0]
        np.testing.assert_array_equal(result.fused, observed)
        assert result.fused.dtype == stack.dtype


def test_pixel_sizes_units_and_place_are_kept() -> None:
    source = as_stack(
        small(),
        axes="ZYX",
        name="pollen",
        scale={"Z": 2, "Y": 0.3, "X": 0.2},
        units="micrometer",
        display={"translate": (7, 30, 40), "colormap": "magenta"},
    )
    for data, attributes, kind in fuse(source, "sml").layers():
        assert kind == "image"
        assert data.shape[-2:] == (100, 120)
        assert attributes["name"].startswith("pollen")
        assert attributes["scale"][-2:] == (0.3, 0.2)
        assert attributes["translate"][-2:] == (30, 40)
        assert {str(unit) for unit in attributes["units"]} == {"micrometer"}


# 6. Same input, same answer.


@pytest.mark.parametrize("name", MODELS)
def test_a_run_can_be_repeated(name: str) -> None:
    first, second = (fuse(small(), MODELS[name]()) for _ in range(2))
    same_result(first, second)
    assert first.provenance == second.provenance


def test_where_a_result_came_from_travels_with_it(tmp_path: Path) -> None:
    model = random_sesf()
    result = fuse(as_stack(small(), axes="ZYX"), model, out=tmp_path / "a.ome.zarr")
    expected = result.provenance
    assert expected["model"] == "sesf"
    assert len(expected["weights_sha256"]) == 64
    for _, attributes, _ in result.layers():
        found = attributes["metadata"]["napari_focus_fusion"]
        assert expected.items() <= found.items()
    attributes = json.loads((tmp_path / "a.ome.zarr" / "zarr.json").read_text())
    found = attributes["attributes"]["napari_focus_fusion"]["provenance"]
    assert found == expected


# 7. The core needs no screen: see test_import.py, and the killed run below.


# 8. Nothing is lost.


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


class StopAfter:
    """Returns True after a number of calls."""

    def __init__(self, limit: float = np.inf) -> None:
        self.limit, self.asked = limit, 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > self.limit


def test_a_cancelled_run_leaves_nothing_that_looks_complete_and_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    many_regions(monkeypatch)
    source = tmp_path / "in"
    zarr.create_array(source / "a.zarr", data=small(), chunks=(1, 48, 40))
    before = digest_of(source)
    pixels = {"stack": source / "a.zarr", "axes": "ZYX"}
    model, seen = watched(load_model("sml"))
    everything = StopAfter()
    options = {"out": tmp_path / "a.ome.zarr", "memory": 16 << 20, **pixels}
    expected = fuse(model=model, should_stop=everything, **options)
    effort_of_all, polls = sum(seen), everything.asked
    for limit in np.linspace(0, polls - 1, 3).astype(int):
        folder = tmp_path / f"stopped after {limit}"
        folder.mkdir()
        options["out"] = folder / "a.ome.zarr"
        seen.clear()
        with pytest.raises(Cancelled):
            fuse(model=model, should_stop=StopAfter(limit), **options)
        assert names_in(folder) == ["a.ome.zarr.partial"]
        spent = sum(seen)
        result = fuse(model=model, **options)
        assert names_in(folder) == ["a.ome.zarr"]
        same_result(result, expected)
        # What had been scored was not scored again, but for the region at hand.
        assert spent <= sum(seen) <= 1.6 * effort_of_all
        if limit == polls - 1:
            assert sum(seen) == spent == effort_of_all
    assert digest_of(source) == before


@pytest.mark.parametrize("surface", [0, 1])
def test_a_run_goes_on_with_more_memory_than_it_began_with(
    surface: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    many_regions(monkeypatch)
    options: dict[str, Any] = {"model": "sml", "surface": surface}
    expected = fuse(small(), **options)
    out = tmp_path / "a.ome.zarr"
    options["out"] = out
    with pytest.raises(Cancelled):
        fuse(small(), memory=16 << 20, should_stop=StopAfter(25), **options)
    assert list((tmp_path / "a.ome.zarr.partial" / "finished_chunks").iterdir())
    found = fuse(small(), memory=60 << 20, **options)
    # Regions that see more look for the surface in another order of sums.
    invisible(found, expected) if surface else same_result(found, expected)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    folders = [str(here), str(Path(store.__file__).parents[2])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_a_killed_run_leaves_nothing_that_looks_complete_and_goes_on_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = """
import os, signal, sys
from napari_focus_fusion import fuse
from napari_focus_fusion.engine import plan, store
from small_models import relief
plan.CHUNK = store.CHUNK = 64
asked = 0
def killed():
    global asked
    asked += 1
    if asked > int(sys.argv[2]):
        assert not {"napari", "qtpy", "PyQt6", "magicgui"} & set(sys.modules)
        os.kill(os.getpid(), signal.SIGKILL)
    return False
fuse(relief(100, 120, 5).stack, "sml", out=sys.argv[1], should_stop=killed)
"""
    many_regions(monkeypatch)
    counter = StopAfter()
    expected = fuse(
        small(), "sml", out=tmp_path / "whole.ome.zarr", should_stop=counter
    )
    out = tmp_path / "a.ome.zarr"
    done = run_python(code, str(out), str(counter.asked * 3 // 5))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert names_in(tmp_path) == ["a.ome.zarr.partial", "whole.ome.zarr"]
    with pytest.raises(FocusFusionError, match="unfinished result of another run"):
        fuse(small()[::-1], "sml", out=out)
    same_result(fuse(small(), "sml", out=out), expected)
    assert names_in(tmp_path) == ["a.ome.zarr", "whole.ome.zarr"]


@pytest.mark.parametrize(
    "other",
    [
        {"blend": "select"},
        {"smoothness": 0.5},
        {"verify": False},
        {"model": "pairs"},
        {"model": "sesf"},
        {"stack": "shifted"},
        {"stack": "dtype"},
        {"stack": "pixel size"},
    ],
    ids=lambda other: "-".join(map(str, *other.items())),
)
def test_a_partial_result_is_not_mixed_with_another_run(
    other: dict[str, Any], tmp_path: Path
) -> None:
    stack, out = small(), tmp_path / "a.ome.zarr"
    first: dict[str, Any] = {"stack": stack, "model": random_sesf(1)}
    with pytest.raises(Cancelled):
        fuse(**first, out=out, should_stop=lambda: True)
    stacks = {
        "shifted": np.roll(stack, 1, 1),
        "dtype": as_dtype(stack, "int16"),
        "pixel size": as_stack(stack, axes="ZYX", scale={"Z": 2}),
    }
    if "stack" in other:
        other = {"stack": stacks[other["stack"]]}
    if "model" in other:
        other = {"model": MODELS[other["model"]]()}
    with pytest.raises(FocusFusionError, match="another run"):
        fuse(**(first | other), out=out)
    assert names_in(tmp_path) == ["a.ome.zarr.partial"]


def test_results_are_not_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "a.ome.zarr"
    first = fuse(small(), "sml", out=out, blend="select")
    fused, before = np.asarray(first.fused[...]), digest_of(out)
    with pytest.raises(FocusFusionError, match="exists already"):
        fuse(small(), "sml", out=out)
    with pytest.raises(Cancelled):
        fuse(small(), "sml", out=out, overwrite=True, should_stop=lambda: True)
    assert digest_of(out) == before
    second = fuse(small(), "sml", out=out, overwrite=True)
    assert (np.asarray(second.fused[...]) != fused).any()
    assert names_in(tmp_path) == ["a.ome.zarr"]


def test_inputs_are_not_touched(tmp_path: Path) -> None:
    stack = small().copy()
    stack.flags.writeable = False
    fuse(stack, "sml")
    fuse(stack[None], random_sesf(), axes="CZYX", blend="select")
    np.testing.assert_array_equal(stack, small())


# 9. Errors are written for biologists.


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ([], ["empty", "at least one"]),
        (np.zeros((0, 30, 30), np.uint8), ["no slices", "'pollen'"]),
        ([np.zeros((30, 30)), np.zeros((30, 31))], ["30 x 31", "30 x 30", "slice 1"]),
        (np.zeros((3, 30, 30), complex), ["Complex", "magnitude"]),
        (np.zeros((3, 30, 30), object), ["object", "one array of numbers"]),
        (np.zeros((3, 30, 30), bool), ["mask", "Choose the image"]),
        (np.zeros((3, 4, 30, 30)), ["does not say which axis", "axes="]),
        (np.full((3, 30, 30), np.inf), ["NaN", "slice 0, row 0", "'pollen'"]),
        ("gone.tif", ["gone.tif"]),
        (None, ["NoneType", "Pass an array"]),
    ],
)
def test_errors_are_in_plain_words(stack: Any, words: list[str]) -> None:
    with pytest.raises(FocusFusionError) as caught:
        fuse(as_stack(stack, name="pollen"), "sml")
    for word in words:
        assert word in str(caught.value)
