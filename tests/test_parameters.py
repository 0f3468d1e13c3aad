"""Wrong values of every parameter of every public function: results, or words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import napari_focus_fusion as ff
from napari_focus_fusion import metrics, retouch
from napari_focus_fusion.models import registry
from napari_focus_fusion.parameters import (
    callback,
    file_path,
    memory_bytes,
    one_of,
    real_number,
    shown,
    whole_number,
    yes_or_no,
)
from napari_focus_fusion.report import load_result, report
from napari_focus_fusion.tiling import Rectangle
from napari_focus_fusion.training.train import train

if TYPE_CHECKING:
    from collections.abc import Callable

SLICES = np.random.default_rng(0).integers(0, 255, (3, 32, 40)).astype(np.uint8)
STACK = ff.as_stack(SLICES)
MAP = np.zeros((32, 40), np.uint16)
MASK = MAP == 0


class Odd:
    """Even its name cannot be told."""

    def __repr__(self) -> str:
        raise RuntimeError


def values() -> list[Any]:
    """Values of all kinds, made anew, since some can be used once only."""
    numbers = [-1, 0, 1, 1.5, 256.0, np.nan, np.inf, 10**30, 1j]
    texts = ["", "no", "64MB", "ZYX", "\0", "~nobody/x", "x" * 5000, b"x"]
    collections = [[], [1], {}, {"a": 1}, (), set(), range(3), iter([1]), [[1, 2], [3]]]
    arrays = [
        *(np.array([]), np.array([1.0, np.nan]), np.zeros((2, 2)), np.array("a")),
        *(np.zeros((2, 0, 3)), np.array([object()]), np.float32(2), np.int64(2)),
    ]
    others = [None, True, False, object(), Odd(), lambda: None, lambda _: None, Odd]
    others += [Path("nowhere"), np.datetime64("2020"), STACK, Rectangle(0, 0, 0, 0)]
    return [*numbers, *texts, *collections, *arrays, *others]


def compared(measure: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    return measure, {"fused": SLICES[0], "sources": SLICES}


def of_truth(measure: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    return measure, {"fused": SLICES[0], "truth": SLICES[1], "data_range": None}


#: Every public function that takes values of users, and parameters that it accepts.
FUNCTIONS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "fuse": (
        ff.fuse,
        {
            **{"stack": SLICES, "model": "sml", "axes": "ZYX", "reference": None},
            **{"scale": 1, "decision": None, "joint": True, "blend": "feather"},
            **{"align": None, "align_to": None, "brightness": "keep"},
            **{"smoothness": 1.0, "surface": 0.0, "background": "nearest"},
            **{"prefer": "sharpest", "strength": 1.0, "precision": "float32"},
            **{"verify": True, "tile": None, "series": None},
            **{"device": "cpu", "memory": None, "out": None, "overwrite": False},
            **{"client": None, "progress": None, "should_stop": None},
        },
    ),
    "as_stack": (
        ff.as_stack,
        {
            **{"source": SLICES, "axes": None, "scale": None, "units": None},
            **{"name": None, "channel_names": None, "display": None, "series": None},
        },
    ),
    "series_in": (ff.series_in, {"path": "saved.tif"}),
    "register": (
        ff.register,
        {
            **{"stack": SLICES, "kind": "translation", "axes": "ZYX", "series": None},
            **{"reference": None, "align_to": None, "progress": None},
            **{"should_stop": None},
        },
    ),
    "load_registration": (ff.load_registration, {"path": "saved.json"}),
    "Registration": (
        ff.Registration,
        {
            **{"kind": "affine", "reference_slice": 0, "shape": (32, 40)},
            **{"transforms": (((((1, 0, 0), (0, 1, 0))),),), "notes": ()},
        },
    ),
    "FocusStack": (
        ff.FocusStack,
        {
            **{"data": SLICES, "axes": "ZYX", "scale": {}, "units": {}},
            **{"name": "stack", "channel_names": (), "source": "", "display": {}},
        },
    ),
    "FusionResult": (
        ff.fuse(SLICES, "sml").save,
        {"path": "saved.tif", "overwrite": True},
    ),
    "project": (
        ff.project,
        {
            **{"stack": SLICES, "surface": MAP, "slices": 1, "offset": 0.0},
            **{"method": "mean", "channel": None, "memory": None, "out": None},
            **{"overwrite": False, "progress": None, "should_stop": None},
        },
    ),
    "height_map": (
        ff.height_map,
        {"surface": MAP, "stack": STACK, "confidence": None, "smoothing": 2.0},
    ),
    "models": (ff.models, {"folder": None}),
    "load_model": (ff.load_model, {"model": "sml", "folder": None}),
    "export_model": (
        ff.export_model,
        {
            **{"model": "sml", "out": "model.zip", "stack": None, "authors": []},
            **{"folder": None, "overwrite": False},
        },
    ),
    "models_folder": (registry.models_folder, {"folder": None}),
    "finetune": (
        ff.finetune,
        {
            **{"model": "sesf", "stacks": SLICES, "name": None, "out": None},
            **{"folder": None, "axes": None, "reference": None, "regions": None},
            **{"steps": 1, "minutes": None, "lr": None, "patch": 48, "holdout": 0.2},
            **{"seed": 0, "device": "cpu", "on_step": None, "on_validation": None},
            **{"progress": None, "should_stop": lambda: True},
        },
    ),
    "train": (
        train,
        {
            **{"name": "sml", "out": "w.safetensors", "pictures": None, "steps": 1},
            **{"seed": 0, "scale": None, "device": "cpu", "overwrite": False},
            **{"on_step": None, "on_scene": None, "should_stop": None},
        },
    ),
    "evaluate": (
        ff.evaluate,
        {
            **{"fused": SLICES[0], "sources": SLICES, "truth": None, "depth": None},
            **{"true_depth": None, "data_range": None, "measures": ["Q_S"]},
        },
    ),
    "report": (
        report,
        {
            **{"stack": STACK, "result": {"fused": SLICES[0]}, "t": 0},
            **{"measures": ["Q_S"], "progress": None, "should_stop": None},
        },
    ),
    "load_result": (load_result, {"path": "saved.tif", "stack": STACK}),
    "q_mi": compared(metrics.q_mi),
    "q_ncie": compared(metrics.q_ncie),
    "q_g": compared(metrics.q_g),
    "q_p": compared(metrics.q_p),
    "q_s": compared(metrics.q_s),
    "q_y": compared(metrics.q_y),
    "q_cb": compared(metrics.q_cb),
    "viff": compared(metrics.viff),
    "q_abf": compared(metrics.q_abf),
    "sharpness": (metrics.sharpness, {"image": SLICES[0], "data_range": None}),
    "psnr": of_truth(metrics.psnr),
    "ssim": of_truth(metrics.ssim),
    "depth_errors": (metrics.depth_errors, {"depth": MAP, "true_depth": MAP}),
    "prepare": (metrics.prepare, {"sources": SLICES, "data_range": None}),
    "as_sources": (metrics.as_sources, {"sources": SLICES, "data_range": None}),
    "phase_features": (metrics.phase_features, {"plane": SLICES[0]}),
    "take_slice": (
        retouch.take_slice,
        {"decision": MAP, "mask": MASK, "z": 0, "t": 0},
    ),
    "recompose": (
        retouch.recompose,
        {
            **{"stack": STACK, "decision": MAP, "fused": SLICES[0].copy()},
            **{"area": Rectangle(2, 9, 3, 9), "t": 0, "reference": None},
            **{"blend": "feather", "black_and_white": None, "should_stop": None},
        },
    ),
    "intensities": (retouch.intensities, {"stack": STACK, "t": 0, "reference": None}),
    "as_fused": (retouch.as_fused, {"stack": STACK, "provenance": {}}),
    "as_decision": (retouch.as_decision, {"values": MAP, "stack": STACK, "first": 0}),
    "save_decision": (
        retouch.save_decision,
        {"path": "map.tif", "decision": MAP, "stack": STACK, "overwrite": True},
    ),
    "load_decision": (
        retouch.load_decision,
        {"path": "map.tif", "stack": STACK, "first": None},
    ),
    "bounds": (retouch.bounds, {"mask": MASK}),
}
#: Public functions for the authors of models and widgets, which take no values of
#: users, or only layers of napari.
OTHERS = {
    *("load_surface", "installed_models", "trainable_models", "our_models"),
    *("weights_folder", "new_model", "save_weights", "hash_of", "hash_of_tensors"),
    *("check_weights", "displayed_axes", "fuse_layer", "fuse_to_layers"),
    *("stack_from_layer", "stack_from_layers", "guess_axes", "retouch_layers"),
    *("fuse_by_map", "decision_of", "report_layers", "finetune_layers"),
    *("compare_layers", "brightfield_sample", "fluorescence_sample"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_wrong_value_gives_words_or_a_result(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    retouch.save_decision("map.tif", MAP, STACK)
    function, accepted = FUNCTIONS[name]
    for parameter in accepted:
        for value in values():
            try:
                function(**{**accepted, parameter: value})
            except ff.FocusFusionError as error:
                assert str(error)
            except ff.Cancelled:
                pass
            except Exception as error:
                pytest.fail(f"{name}({parameter}={shown(value)}): {error!r}")


def test_every_public_function_is_tried() -> None:
    page = Path(__file__).parents[1] / "docs" / "api.md"
    text = page.read_text(encoding="utf-8")
    public = set(re.findall(r"autofunction:: (?:[\w.]+\.)?(\w+)", text))
    classes = {"FocusStack", "FusionResult", "Registration"}
    assert public == (FUNCTIONS.keys() | OTHERS) - classes


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"verify": "no"}, "verify='no' must be True or False"),
        ({"overwrite": 1}, "overwrite=1 must be True or False"),
        ({"reference": 0.5}, "reference=0.5 is no channel"),
        ({"reference": True}, "reference=True is no channel"),
        ({"tile": 256.5}, "tile=256.5 is no whole number"),
        ({"tile": "256"}, "tile='256' is no whole number"),
        ({"scale": True}, "scale=True is no whole number"),
        ({"smoothness": float("nan")}, "smoothness=nan is no finite number"),
        ({"surface": "1"}, "surface='1' is no finite number"),
        ({"background": "black"}, "background='black' is unknown; use"),
        ({"background": "mean", "blend": "select"}, "takes every pixel from one slice"),
        ({"strength": 2}, "strength=2"),
        ({"memory": "much"}, "memory='much' is no amount of memory"),
        ({"memory": "1MB"}, "too few"),
        ({"device": 0}, "device=0 is no text"),
        ({"progress": print, "should_stop": 3}, "should_stop=3 cannot be called"),
        ({"progress": lambda: None}, "cannot be called with a Progress"),
        ({"should_stop": lambda answer: answer}, "cannot be called with nothing"),
        ({"client": "tcp://here:8786", "out": "o.zarr"}, "no dask.distributed.Client"),
    ],
)
def test_a_wrong_value_is_named_before_anything_is_opened(
    parameters: dict[str, Any], words: str, tmp_path: Path
) -> None:
    if "out" in parameters:
        parameters = parameters | {"out": tmp_path / parameters["out"]}
    stack = SLICES if "client" in parameters else tmp_path / "not there"
    with pytest.raises(ff.FocusFusionError, match=re.escape(words)):
        ff.fuse(stack, "sml", **parameters)
    assert not list(tmp_path.iterdir())


def test_other_spellings_of_a_right_value() -> None:
    expected = ff.fuse(SLICES, "sesf", tile=64, memory=64 << 20, reference=0)
    found = ff.fuse(SLICES, "sesf", tile=64.0, memory="64MB", reference=np.int64(0))
    np.testing.assert_array_equal(found.fused, expected.fused)
    assert found.provenance["parameters"] == expected.provenance["parameters"]


def test_numbers_and_their_ranges() -> None:
    assert whole_number("n", 3.0) == 3 and isinstance(whole_number("n", 3.0), int)
    assert whole_number("n", np.uint8(3), least=3, most=3) == 3
    with pytest.raises(ff.FocusFusionError, match="n=2 must lie between 3 and 4"):
        whole_number("n", 2, least=3, most=4)
    with pytest.raises(ff.FocusFusionError, match="n=5 must be at most 4"):
        whole_number("n", 5, most=4)
    with pytest.raises(ff.FocusFusionError, match=r"n=0\.0 must be above 0"):
        real_number("n", 0.0, above=0)
    assert real_number("n", np.float16(0.5)) == 0.5


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 << 30), ("512 MB", 512 << 20), ("1.5k", 1536), ("100", 100), (1e8, 1e8)],
)
def test_amounts_of_memory(text: Any, size: int) -> None:
    assert memory_bytes("memory", text) == size


@pytest.mark.parametrize("text", ["", "GB", "1.2.3GB", "-1GB", "2PB", -5, "1e9x"])
def test_no_amount_of_memory(text: Any) -> None:
    with pytest.raises(ff.FocusFusionError, match="memory"):
        memory_bytes("memory", text)


def test_words_flags_paths_and_callbacks() -> None:
    assert yes_or_no("flag", np.True_) is True
    with pytest.raises(ff.FocusFusionError, match="use 'a', 'b' or 'c'"):
        one_of("word", "d", ("a", "b", "c"))
    assert file_path("out", "~") == Path.home()
    with pytest.raises(ff.FocusFusionError, match="out=4 is no path"):
        file_path("out", 4)
    callback("progress", None, "x")
    callback("progress", print, "x", "y")
    assert shown(Odd()) == "Odd"
    assert len(shown("x" * 999)) == 60
