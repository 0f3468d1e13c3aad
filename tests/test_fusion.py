"""Whole runs, on stacks small enough to be checked pixel by pixel."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage
from skimage.measure import label

from napari_focus_fusion import (
    Cancelled,
    FocusFusionError,
    Progress,
    as_stack,
    fuse,
    load_model,
    progress,
)
from napari_focus_fusion.composite import COMPOSITE_HALO
from napari_focus_fusion.decision import SMALLEST_REGION, aggregate_halo
from napari_focus_fusion.engine import monitor
from napari_focus_fusion.engine import plan as planning
from napari_focus_fusion.engine.store import CHUNK
from napari_focus_fusion.simulation.families import FAMILIES
from napari_focus_fusion.simulation.scenes import make_scene
from small_models import (
    Watched,
    as_dtype,
    energy_pairs,
    energy_reconstructor,
    energy_sets,
    finer_pairs,
    random_sesf,
    relief,
    same_result,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DTYPES = [
    "uint8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "float16",
    "float32",
    "float64",
]
MODELS: dict[str, Callable[[], Any]] = {
    "sml": lambda: "sml",
    "sesf": random_sesf,
    "pairs": energy_pairs,
    "sets": energy_sets,
    "reconstructor": energy_reconstructor,
}


def small() -> np.ndarray:
    return relief(72, 84, 5).stack


def psnr(fused: Any, truth: np.ndarray) -> float:
    squared = np.mean((np.asarray(fused, np.float64) - truth) ** 2)
    return float(10 * np.log10(np.ptp(truth) ** 2 / squared))


@pytest.mark.parametrize("name", MODELS)
def test_fusing_finds_the_surface_and_beats_every_slice(name: str) -> None:
    scene, model = relief(110, 140, 5), MODELS[name]()
    result = fuse(scene.stack, model)
    off = np.abs(result.depth - scene.depth)[scene.textured]
    assert off.mean() < 0.5
    best_slice = max(psnr(plane, scene.truth) for plane in scene.stack)
    selected = fuse(scene.stack, model, blend="select").fused
    assert psnr(selected, scene.truth) > best_slice + 4
    # Averaging what shows the same makes it better still; the reconstruction of these
    # tests averages what does not.
    if name != "reconstructor":
        assert psnr(result.fused, scene.truth) > psnr(selected, scene.truth) + 0.1


def test_the_border_of_an_image_is_no_edge() -> None:
    """A stack beside its mirror image: what was the border is fused as before."""
    stack = small()
    beside = np.concatenate([stack, stack[:, :, ::-1]], 2)
    width = stack.shape[2]
    near = [fuse(pixels, "sml").decision[:, :width] for pixels in (stack, beside)]
    # What the surface's network finds is mirrored, and not found in a mirror image.
    assert (near[0] == near[1]).mean() > 0.99
    alone, middle = (
        fuse(pixels, "sml", verify=False, surface=0) for pixels in (stack, beside)
    )
    same = alone.decision == middle.decision[:, :width]
    assert same.mean() > 0.999
    error = alone.fused.astype(int) - middle.fused[:, :width]
    # Where a decision differs, so do the averages around it.
    unaffected = ~ndimage.binary_dilation(
        ~same, np.ones((3, 3)), iterations=COMPOSITE_HALO
    )
    assert unaffected.mean() > 0.6
    # Its sample, and with it the scale of the comparison, is another, and rounds so.
    assert (np.abs(error[unaffected]) > 1).mean() < 0.005
    assert np.abs(error[unaffected]).max() < 200


def test_pixel_by_pixel_the_border_of_an_image_changes_nothing() -> None:
    stack = small()
    beside = np.concatenate([stack, stack[:, :, ::-1]], 2)
    alone, middle = (fuse(s, "sml", verify=False, surface=0) for s in (stack, beside))
    width = stack.shape[2]
    np.testing.assert_array_equal(alone.decision, middle.decision[:, :width])
    error = alone.fused.astype(int) - middle.fused[:, :width]
    assert (np.abs(error) > 1).mean() < 0.001


def test_equal_images_are_averaged_until_little_noise_is_left() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(20000, 40000, (80, 90))
    stack = (image + rng.normal(0, 1000, (16, 80, 90))).astype(np.uint16)
    error = fuse(stack, "sml").fused - image
    # A quarter is all that sixteen slices can do.
    assert error.std() < 0.27 * 1000


@pytest.mark.parametrize("name", ["pairs", "sets"])
def test_maskers_agree_with_the_plain_measure_where_it_is_easy(name: str) -> None:
    """Flat steps of full contrast, far from where two of them meet."""
    stack = easy_steps()
    plain, other = fuse(stack, "sml"), fuse(stack, MODELS[name]())
    inside = np.zeros(plain.decision.shape, bool)
    for z in range(4):
        inside[8:-8, z * 32 + 8 : z * 32 + 24] = True
    expected = np.broadcast_to(np.arange(128) // 32, plain.decision.shape)
    np.testing.assert_array_equal(plain.decision[inside], expected[inside])
    np.testing.assert_array_equal(other.decision[inside], expected[inside])
    np.testing.assert_array_equal(other.fused[inside], plain.fused[inside])


def easy_steps() -> np.ndarray:
    """Four slices, each sharp in one of four stripes of 32 columns, flat elsewhere."""
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 60000, (60, 128))
    stripe = np.arange(128) // 32
    return np.stack([np.where(stripe == z, sharp, 30000) for z in range(4)]).astype(
        np.uint16
    )


@pytest.mark.parametrize("blend", ["feather", "select"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_come_back_in_their_type_and_range(dtype: str, blend: Any) -> None:
    stack = as_dtype(small(), dtype)
    result = fuse(stack, "sml", blend=blend)
    assert result.fused.dtype == stack.dtype
    assert np.isfinite(result.fused).all()
    lowest, highest = stack.min(0), stack.max(0)
    if stack.dtype.kind == "f":  # averages are rounded, by a unit in the last place
        lowest = np.nextafter(lowest, stack.dtype.type(-1))
        highest = np.nextafter(highest, stack.dtype.type(2))
    assert (lowest <= result.fused).all()
    assert (result.fused <= highest).all()


@pytest.mark.parametrize("dtype", ["float64", "uint32", "int16"])
def test_the_type_of_the_pixels_does_not_matter(dtype: str) -> None:
    """The same stack in another type gives the same decision and fused image."""
    stack = small()
    first = fuse(stack, "sml")
    other = fuse(as_dtype(stack, dtype), "sml")
    assert (first.decision == other.decision).mean() > 0.999
    agreed = first.decision == other.decision
    expected = as_dtype(first.fused, dtype).astype(np.float64)
    span = np.ptp(as_dtype(np.array([0, 65535]), dtype).astype(np.float64))
    error = np.abs(other.fused.astype(np.float64) - expected)[agreed] / span
    assert np.quantile(error, 0.99) < 1e-4


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e9])
@pytest.mark.parametrize("name", ["sml", "sesf"])
def test_floats_may_have_any_unit(name: str, factor: float) -> None:
    stack = small() / 65535
    first, other = (fuse(s, MODELS[name]()) for s in (stack, stack * factor - factor))
    assert (first.decision == other.decision).mean() > 0.999
    error = np.abs(first.fused - (other.fused / factor + 1))
    assert np.quantile(error, 0.99) < 1e-5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("blend", ["feather", "select"])
def test_one_slice_passes_through(name: str, blend: Any) -> None:
    for dtype in ("uint8", "uint32", "float64"):
        stack = as_dtype(small()[:1], dtype)
        result = fuse(stack, MODELS[name](), blend=blend)
        rounding = 1e-7 if (name, dtype) == ("reconstructor", "float32") else 0
        np.testing.assert_allclose(result.fused, stack[0], rtol=0, atol=rounding)
        assert (result.decision == 0).all()
        assert (result.depth == 0).all()
    flat = fuse(stack[0], MODELS[name](), blend=blend)
    np.testing.assert_array_equal(flat.fused, stack[0])


@pytest.mark.parametrize("name", MODELS)
def test_two_slices(name: str) -> None:
    scene = make_scene(
        1_000_003, shape=(80, 96), slices=2, surface="steps", electrons=1e4
    )
    result = fuse(scene.stack, MODELS[name]())
    assert set(np.unique(result.decision)) == {0, 1}
    clear = scene.textured & ~scene.edges
    assert (np.abs(result.decision - scene.depth)[clear] > 0.75).mean() < 0.1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 1, 40), (3, 40, 1), (2, 1, 1)])
def test_tiny_stacks(name: str, shape: tuple[int, int, int]) -> None:
    stack = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    result = fuse(stack, MODELS[name](), axes="ZYX", blend="select")
    assert (
        np.take_along_axis(stack, result.decision[None], 0)[0] == result.fused
    ).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("blend", ["feather", "select"])
def test_identical_slices_give_that_slice(name: str, blend: Any) -> None:
    for dtype in ("uint16", "float32"):
        stack = np.repeat(as_dtype(small()[:1], dtype), 4, 0)
        result = fuse(stack, MODELS[name](), blend=blend)
        rounding = 1e-7 if (name, dtype) == ("reconstructor", "float32") else 0
        np.testing.assert_allclose(result.fused, stack[0], rtol=0, atol=rounding)
        assert result.confidence.max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_constant_stacks_have_no_confidence_and_keep_their_value(name: str) -> None:
    for value in (np.uint8(0), np.uint16(65535), np.float32(-3.5)):
        stack = np.full((3, 40, 50), value)
        result = fuse(stack, MODELS[name]())
        assert (result.fused == value).all()
        assert (result.confidence == 0).all()


def test_saturated_parts_stay_saturated_with_low_confidence() -> None:
    stack = small().copy()
    stack[:, :, 40:] = 65535
    result = fuse(stack, "sml", smoothness=0)
    assert (result.fused[:, 44:] == 65535).all()
    assert (result.confidence[:, 80:] < 0.05).all()


@pytest.mark.parametrize("blend", ["feather", "select"])
def test_colours_are_decided_together(blend: Any) -> None:
    scene = make_scene(1_000_004, shape=(64, 72), slices=4, rgb=True, dtype=np.uint8)
    result = fuse(scene.stack, "sml", axes="ZYXS", blend=blend)
    assert result.fused.shape == (64, 72, 3)
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    grey = fuse((scene.stack * weights).sum(-1, dtype=np.float32), "sml")
    assert (grey.decision == result.decision).mean() > 0.995
    if blend == "select":
        observed = np.take_along_axis(scene.stack, result.decision[None, ..., None], 0)
        np.testing.assert_array_equal(result.fused, observed[0])


def test_the_decision_of_the_reference_holds_for_all_channels() -> None:
    first, second = relief(72, 84, 5).stack, relief(72, 84, 5, seed=1_000_007).stack
    stack = np.stack([first, second])
    for reference, one in ((0, first), ("green", first), (1, second), ("red", second)):
        source = as_stack(stack, axes="CZYX", channel_names=("green", "red"))
        result = fuse(source, "sml", reference=reference, blend="select")
        alone = fuse(one, "sml", blend="select")
        np.testing.assert_array_equal(result.decision, alone.decision)
        for channel in (0, 1):
            observed = np.take_along_axis(stack[channel], alone.decision[None], 0)[0]
            np.testing.assert_array_equal(result.fused[channel], observed)
    mean = fuse(stack, "sml", axes="CZYX").decision
    of_mean = fuse(stack.mean(0, dtype=np.float32) / 65535, "sml").decision
    assert (mean == of_mean).mean() > 0.99


def test_a_reconstruction_leaves_the_colours_to_the_slices() -> None:
    grey = small()
    colours = np.array([1.0, 0.5, 0.25])
    stack = (grey[..., None] * colours).astype(np.uint16)
    result = fuse(stack, energy_reconstructor(), axes="ZYXS")
    alone = fuse(grey, energy_reconstructor())
    assert (result.decision == alone.decision).mean() > 0.99
    weights = np.array([0.299, 0.587, 0.114])
    luminance = (alone.fused[..., None] * colours) @ weights
    np.testing.assert_allclose(result.fused @ weights, luminance, atol=4)
    observed = fuse(stack, energy_reconstructor(), axes="ZYXS", blend="select").fused
    for a, b in ((0, 1), (1, 2)):
        difference = result.fused[..., a].astype(float) - result.fused[..., b]
        np.testing.assert_allclose(
            difference, observed[..., a].astype(float) - observed[..., b], atol=4000
        )
    assert result.provenance["reconstructed"]


def test_each_channel_is_reconstructed_from_itself() -> None:
    first = small()
    second = 60000 - first // 4 * 3
    # The surface is looked for in the reference itself, and the two differ in contrast:
    # pixel by pixel, they decide the same.
    for reference, surface in ((0, 1), (0, 0), (1, 0)):
        alone = fuse(first, energy_reconstructor(), surface=surface)
        decision = alone.decision if reference == 0 else None
        both = fuse(
            np.stack([first, second]),
            energy_reconstructor(),
            axes="CZYX",
            reference=reference,
            surface=surface,
        )
        np.testing.assert_allclose(both.fused[0], alone.fused, atol=1)
        # The other way round and of less contrast, on a scale of its own.
        mirrored = 60000 - 0.75 * alone.fused
        np.testing.assert_allclose(both.fused[1], mirrored, atol=6)
        if decision is not None:
            np.testing.assert_array_equal(both.decision, decision)


@pytest.mark.parametrize("name", ["sml", "sesf"])
def test_each_time_point_is_a_stack_of_its_own(name: str) -> None:
    scenes = [relief(72, 84, 5, seed=1_000_010 + t).stack for t in range(2)]
    stack = np.stack([np.stack([s, s[:, ::-1]], 1) for s in scenes])  # T Z C Y X
    model = MODELS[name]()
    result = fuse(stack, model, axes="TZCYX", reference=0)
    assert result.fused.shape == (2, 2, 72, 84)
    assert result.decision.shape == (2, 72, 84)
    for t in range(2):
        alone = fuse(stack[t], model, axes="ZCYX", reference=0)
        np.testing.assert_array_equal(result.fused[t], alone.fused)
        np.testing.assert_array_equal(result.decision[t], alone.decision)
        np.testing.assert_array_equal(result.confidence[t], alone.confidence)


def test_a_decision_map_can_be_given_edited_and_used_for_other_channels() -> None:
    stack = small()
    plain = fuse(stack, "sml", surface=0)
    again = fuse(stack, decision=plain.decision)
    np.testing.assert_array_equal(again.fused, plain.fused)
    own = fuse(stack, "sml")
    again = fuse(stack, decision=own.decision)
    # Looking for the surface takes a scale from a sample of the stack, which rounds
    # the comparison of slices otherwise.
    error = np.abs(again.fused.astype(int) - own.fused)
    assert (error > 1).mean() < 0.005
    assert error.max() < 200
    np.testing.assert_array_equal(again.decision, own.decision)
    assert (again.confidence == 1).all()
    assert again.provenance["model"] == "given decision map"
    edited = own.decision.copy()
    edited[20:40, 30:50] = 4
    painted = fuse(stack, decision=edited, blend="select")
    np.testing.assert_array_equal(painted.fused[20:40, 30:50], stack[4, 20:40, 30:50])
    film = np.stack([stack, stack[::-1]])
    result = fuse(film, decision=edited, blend="select", axes="TZYX")
    np.testing.assert_array_equal(result.fused[0], painted.fused)
    np.testing.assert_array_equal(result.fused[1, 20:40, 30:50], stack[0, 20:40, 30:50])
    each = np.stack([edited, 4 - edited])
    result = fuse(film, decision=each, blend="select", axes="TZYX")
    np.testing.assert_array_equal(result.fused[1], painted.fused)


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (np.full((72, 84), 0.5), "whole numbers"),
        (np.zeros((84, 72), np.uint16), "72 x 84"),
        (np.full((72, 84), 5), "slices 0 to 4"),
    ],
)
def test_a_wrong_decision_map_is_explained(decision: np.ndarray, words: str) -> None:
    with pytest.raises(FocusFusionError, match=words):
        fuse(small(), decision=decision)


def test_verification_can_be_turned_off() -> None:
    stack = relief().stack
    raw = fuse(stack, "sml", verify=False, smoothness=0, surface=0)
    verified = fuse(stack, "sml", smoothness=0, surface=0)
    np.testing.assert_array_equal(raw.confidence, verified.confidence)
    assert in_small_regions(verified.decision) < 0.3 * in_small_regions(raw.decision)


def in_small_regions(decision: Any) -> int:
    """Pixels in connected regions that verification takes for mistakes."""
    regions = label(decision.astype(int), connectivity=1, background=-1)
    sizes = np.bincount(regions.ravel())
    return int(sizes[sizes < SMALLEST_REGION].sum())


@pytest.mark.parametrize("kind", ["dask", "zarr", "planes"])
def test_stacks_of_any_kind_give_the_same(kind: str, tmp_path: Path) -> None:
    stack = small()
    expected = fuse(stack, "sml")
    source: Any = [*stack]
    if kind == "dask":
        source = da.from_array(stack, chunks=(2, 30, 50))
    if kind == "zarr":
        path = tmp_path / "a.zarr"
        source = zarr.create_array(path, data=stack, chunks=(1, 32, 40))
    found = fuse(source, "sml", axes="ZYX")
    np.testing.assert_array_equal(found.decision, expected.decision)
    np.testing.assert_allclose(found.fused, expected.fused, rtol=0, atol=1)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
    plain = fuse(source, "sml", axes="ZYX", surface=0)
    same_result(plain, fuse(stack, "sml", surface=0))


def test_out_of_memory_ends_in_the_same_result() -> None:
    stack = small()
    expected = fuse(stack, too_large(1 << 40))
    model = too_large(10_000)
    same_result(fuse(stack, model), expected)
    assert max(model.sizes) > 10_000


class Reports:
    """Every progress report, with the thread it came in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress, "INTERVAL", 0)
        self.all: list[Progress] = []
        self.threads: set[int] = set()

    def __call__(self, report: Progress) -> None:
        self.all.append(report)
        self.threads.add(threading.get_ident())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("blend", ["feather", "select"])
def test_progress_rises_to_its_end_in_the_callers_thread(
    name: str, blend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Reports(monkeypatch)
    monkeypatch.setattr(planning, "BYTES_A_PIXEL", 5000)
    stack = np.stack([small()[:3], small()[:3]])
    fuse(
        stack,
        MODELS[name](),
        axes="TZYX",
        blend=blend,
        memory=16 << 20,
        progress=reports,
    )
    done = [report.done for report in reports.all]
    assert done == sorted(done)
    assert done[-1] == reports.all[-1].total
    assert all(report.total == done[-1] for report in reports.all)
    # In small steps: no stage is left out of the count.
    assert max(np.diff([0, *done])) < 0.2 * done[-1]
    assert len({report.stage for report in reports.all}) >= 5
    assert reports.threads == {threading.get_ident()}


@pytest.mark.parametrize("surface", [0, 1])
def test_what_fails_while_reading_surfaces(surface: float) -> None:
    source = Watched(small(), fail_on_slice=3)
    with pytest.raises(
        FocusFusionError, match=r"slices \d+ to \d+.*the cable came loose"
    ):
        fuse(source, "sml", axes="ZYX", surface=surface)
    # Looking for the surface begins with a sample, which is read at once.
    if surface == 0:
        assert source.threads
        assert all(name.startswith("focus-fusion-reader") for name in source.threads)
    assert not [t for t in threading.enumerate() if t.name.startswith("focus-fusion")]


@pytest.mark.parametrize("name", ["sml", "sesf"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity_is_named_by_slice_row_and_column(name: str, value: float) -> None:
    stack = as_dtype(relief(260, 280, 3).stack, "float32")
    stack[2, 101, 67] = value
    with pytest.raises(FocusFusionError, match=r"slice 2, row 101, column 67"):
        fuse(as_stack(stack, axes="ZYX", name="pollen"), MODELS[name]())


def test_every_pixel_of_other_channels_is_checked_too() -> None:
    stack = np.stack([as_dtype(small(), "float32")] * 2)
    stack[1, 4, 60, 7] = np.inf
    with pytest.raises(FocusFusionError, match=r"slice 4, row 60, column 7"):
        fuse(stack, "sml", axes="CZYX", reference=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"blend": "average"}, "use 'feather',"),
        ({"scale": 2}, "offers scale 1"),
        ({"tile": 4}, "at least 16"),
        ({"smoothness": -1}, "between 0 and 10"),
        ({"memory": 1000}, "at least 16777216"),
        ({"device": "gpu"}, "Use 'auto', 'cpu', 'cuda'"),
        ({"device": "meta"}, "not supported"),
        ({"model": "sharp"}, "There are: sml"),
        ({"model": "gone.safetensors"}, "no file of weights"),
        ({"reference": 3}, "has no channel 3"),
        ({"reference": "luminance"}, "no luminance"),
        ({"axes": "CZYX"}, "4 letters for 3 axes"),
        ({"out": "a.tif"}, "leave out= away"),
        ({"out": "nowhere/a.ome.zarr"}, "does not exist"),
    ],
)
def test_wrong_parameters_are_explained_before_any_work(
    options: dict[str, Any], words: str
) -> None:
    source = Watched(small())
    with pytest.raises(FocusFusionError) as caught:
        fuse(source, **({"model": "sml", "axes": "ZYX"} | options))
    assert words in str(caught.value)
    assert source.read.sum() <= 25 * 32 * 32  # a few windows, for its fingerprint


def test_frames_are_not_taken_for_slices() -> None:
    stack = as_stack(small()[:, None], axes="TZYX")
    with pytest.raises(FocusFusionError, match="axes='ZYX'"):
        fuse(stack, "sml")


def test_the_result_says_how_it_was_made() -> None:
    model = random_sesf(1)
    source = as_stack(small(), axes="ZYX", name="pollen")
    result = fuse(source, model, smoothness=0.5)
    found = result.provenance
    assert found["model"] == "sesf"
    assert found["source_shape"] == [5, 72, 84]
    assert found["source_axes"] == "ZYX"
    assert found["parameters"]["smoothness"] == 0.5
    assert found["device"].startswith("cpu")
    assert json.loads(json.dumps(found)) == found
    again = fuse(source, model, smoothness=0.5).provenance
    assert again == found
    # Networks without a file are told apart by their weights.
    other = fuse(source, random_sesf(2), smoothness=0.5).provenance
    assert other["weights_sha256"] != found["weights_sha256"]
    assert other | {"weights_sha256": ""} == found | {"weights_sha256": ""}


def test_a_model_handed_over_in_training_mode_scores_as_in_evaluation() -> None:
    model = random_sesf()
    expected = fuse(small(), model)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    same_result(fuse(small(), model), expected)
    for name, value in model.state_dict().items():
        assert (value == before[name]).all()


def test_the_depth_is_a_height_in_the_unit_of_z() -> None:
    stack = as_stack(small(), axes="ZYX")
    indices = fuse(stack, "sml").depth
    scaled = replace(stack, scale={"Z": 2.5}, units={"Z": "micrometer"})
    np.testing.assert_allclose(fuse(scaled, "sml").depth, indices * 2.5, rtol=1e-6)


def test_stopping_at_once_gives_no_result() -> None:
    with pytest.raises(Cancelled):
        fuse(small(), "sml", should_stop=lambda: True)


def test_a_run_stops_in_the_middle_of_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of this model holds all slices, and can take a minute."""
    monkeypatch.setattr(monitor, "PATIENCE", 0.0)
    model = load_model("dual-path")
    reached: list[int] = []
    for number, stage in enumerate(model.stages):
        stage.logit.register_forward_hook(lambda *_, n=number: reached.append(n))
    with pytest.raises(Cancelled):
        fuse(small(), model, should_stop=lambda: bool(reached))
    assert reached == [0]


@pytest.mark.parametrize("memory", [16 << 20, 256 << 20])
@pytest.mark.parametrize("chunk", [None, (1, 64), (64, 64), (512, 512), "row", "plane"])
@pytest.mark.parametrize("shape", [(30, 90_000), (3000, 40_000), (7000, 5000)])
def test_regions_fit_the_memory_and_mostly_hold_what_they_read(
    shape: tuple[int, int], chunk: Any, memory: int
) -> None:
    high, wide = shape
    chunk = {"row": (1, wide), "plane": shape}.get(chunk, chunk)
    chunk = chunk and (min(chunk[0], high), min(chunk[1], wide))
    stack = SimpleNamespace(
        height=high,
        width=wide,
        chunk_yx=chunk,
        n_components=1,
        n_slices=4,
        dtype=np.dtype(np.uint16),
    )
    each = planning.bytes_a_pixel(stack, load_model("sml"), None, stack)  # type: ignore[arg-type]
    for stored in (False, True):
        plan = planning.plan_regions(
            stack,  # type: ignore[arg-type]
            memory // each,
            stored=stored,
            jobs=1,
        )
        most = max(memory // 120, CHUNK**2 if stored else 0)
        assert plan.window[0] * plan.window[1] <= most
        halo = aggregate_halo(5)
        read = sum((t.height + 2 * halo) * (t.width + 2 * halo) for t in plan)
        assert read <= 3 * (high + 2 * halo) * (wide + 2 * halo)


def dull(stack: np.ndarray) -> np.ndarray:
    """Slices that are all alike: none is sharper."""
    return np.stack([stack[0]] * len(stack)) + np.arange(len(stack))[:, None, None]


@pytest.mark.parametrize("name", ["sml", "sesf", "pairs", "sets", "reconstructor"])
@pytest.mark.parametrize("blend", ["feather", "select"])
def test_another_stack_as_reference_is_as_a_channel(name: str, blend: Any) -> None:
    """Pixels of one stack, sharpness of the other: as if they were two channels."""
    sharp = small()
    shown = dull(sharp).astype(np.uint16)
    model = MODELS[name]()
    other = as_stack(sharp, axes="ZYX", name="sharp")
    result = fuse(shown, model, axes="ZYX", reference=other, blend=blend)
    both = fuse(np.stack([shown, sharp]), model, axes="CZYX", reference=1, blend=blend)
    for found in ("decision", "confidence", "depth"):
        np.testing.assert_array_equal(getattr(result, found), getattr(both, found))
    np.testing.assert_array_equal(result.fused, both.fused[0])
    assert result.provenance["parameters"]["reference"] == "sharp"


def test_a_grey_stack_as_reference_of_colours_of_another_type(tmp_path: Path) -> None:
    grey = small()
    colours = np.stack([(grey >> 8).astype(np.uint8)] * 3, -1)
    film = np.stack([colours, colours[::-1]])
    other = as_stack(np.stack([grey, grey[::-1]]), axes="TZYX")
    result = fuse(film, "sml", axes="TZYXS", reference=other, blend="select")
    expected = fuse(grey, "sml")
    np.testing.assert_array_equal(result.decision[0], expected.decision)
    index = expected.decision[None, ..., None].astype(int)
    np.testing.assert_array_equal(
        result.fused[0], np.take_along_axis(colours, index, 0)[0]
    )
    out = tmp_path / "fused.ome.zarr"
    stored = fuse(film, "sml", axes="TZYXS", reference=other, blend="select", out=out)
    np.testing.assert_array_equal(np.asarray(stored.fused), result.fused)


def test_a_run_is_not_resumed_by_the_sharpness_of_yet_another_stack(
    tmp_path: Path,
) -> None:
    out, stack = tmp_path / "fused.ome.zarr", small()
    one, two = (as_stack(s, axes="ZYX", name="it") for s in (stack, stack[:, ::-1]))
    stops = iter([False] * 8 + [True] * 99)
    with pytest.raises(Cancelled):
        fuse(stack, "sml", reference=one, out=out, should_stop=lambda: next(stops))
    with pytest.raises(FocusFusionError, match="unfinished result of another run"):
        fuse(stack, "sml", reference=two, out=out)
    resumed = fuse(stack, "sml", reference=one, out=out)
    same_result(resumed, fuse(stack, "sml", reference=one))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (small()[:4], "its size is 4 slices of 72 x 84 pixels, not 5 slices"),
        (small()[:, :70], "its size is 5 slices of 70 x 84 pixels"),
    ],
)
def test_a_stack_of_another_size_cannot_be_the_reference(
    other: np.ndarray, words: str
) -> None:
    reference = as_stack(other, axes="ZYX", name="other")
    with pytest.raises(FocusFusionError, match="'other' cannot decide for") as caught:
        fuse(small(), "sml", reference=reference)
    assert words in str(caught.value)


def test_a_finer_image_by_the_sharpness_of_another_stack() -> None:
    stack = small()
    other = as_stack(stack // 2, axes="ZYX")
    result = fuse(stack, finer_pairs(), scale=2, reference=other)
    own = fuse(stack, finer_pairs(), scale=2)
    assert (result.decision == own.decision).mean() > 0.99
    same = (result.decision == own.decision).repeat(2, 0).repeat(2, 1)
    assert np.abs(result.fused.astype(int) - own.fused)[same].mean() < 30


def test_a_small_run_takes_one_thread_and_leaves_the_setting() -> None:
    before, seen = torch.get_num_threads(), []

    def look() -> bool:
        seen.append(torch.get_num_threads())
        return False

    torch.set_num_threads(2)
    try:
        result = fuse(small(), "sml", device="cpu", should_stop=look)
        with pytest.raises(Cancelled):
            fuse(small(), "sml", device="cpu", should_stop=lambda: True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
    assert result.provenance["device"] == "cpu (1 thread)"


def test_in_a_pair_small_differences_decide() -> None:
    """Texture between the depths of two slices is hardly sharper in one of them."""
    scene = FAMILIES["layers"].scenes[0].make()
    assert len(scene.stack) == 2
    fused = fuse(scene.stack, "sml", axes="ZYX", device="cpu").fused
    shown = scene.depth.round().clip(0, 1).astype(int)[None]
    nearest = np.take_along_axis(scene.stack, shown, 0)[0]
    error, least = (
        np.sqrt(np.mean((image - scene.truth) ** 2)) for image in (fused, nearest)
    )
    assert error < 1.05 * least
