"""Regions of a plane: the same wherever they are cut, and whatever memory there is."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_focus_fusion import Cancelled, load_model
from napari_focus_fusion.decision import Maps, aggregate
from napari_focus_fusion.engine.finishing import FINISH_HALO, finish_region
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import plan_run
from napari_focus_fusion.engine.prepare import Prepared
from napari_focus_fusion.engine.reading import Reference, sample
from napari_focus_fusion.engine.scoring import score_region
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.engine.surface import find_surface
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.opening import as_stack
from napari_focus_fusion.progress import Meter
from napari_focus_fusion.tiling import Tile, TilePlan
from small_models import (
    HALO,
    energy_pairs,
    energy_sets,
    random_sesf,
    relief,
    smooth_energy,
    too_large,
)

HIGH, WIDE = 90, 110
WHOLE = Tile(0, HIGH, 0, WIDE)
MODELS = {
    "sml": lambda: load_model("sml"),
    "sesf": random_sesf,
    "pairs": energy_pairs,
    "sets": energy_sets,
}


def point_with(model: Any, *, slab: int = 1, **settings: Any) -> Prepared:
    stack = as_stack(relief(HIGH, WIDE, 4).stack, axes="ZYX")
    reference = Reference(stack, 0, (1.0,), 0.0, 65535.0)
    context = None
    if model.needs_sample:
        windows = [torch.from_numpy(planes)[:, None] for planes, _ in sample(reference)]
        with torch.inference_mode():
            context = model.context(windows)
    asked = FusionSettings(**{"tile": 64, "device": "cpu"} | settings)
    plan = replace(plan_run(stack, model, asked), slab=slab)
    return Prepared(plan, 0, reference, context)


def score(point: Prepared, region: Any, monitor: Monitor | None = None) -> Maps:
    return score_region(point, region, monitor or Monitor())


def finish(
    point: Prepared,
    region: Any,
    raw: Maps,
    area: Any,
    monitor: Monitor | None = None,
) -> Any:
    return finish_region(point, region, raw, area, monitor or Monitor())[:2]


def same(a: Maps, b: Maps) -> None:
    for name, first, second in zip(Maps._fields, a, b, strict=True):
        np.testing.assert_array_equal(first, second, err_msg=name)


def agree(a: Maps, b: Maps) -> None:
    """Up to ties: convolutions may add up in another order for another tile."""
    agreed = a.labels == b.labels
    assert agreed.mean() >= 0.9999
    np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-5)
    np.testing.assert_allclose(a.depth[agreed], b.depth[agreed], atol=1e-3)


def crop_maps(maps: Maps, tile: Tile) -> Maps:
    return Maps(*(np.ascontiguousarray(a[tile.y, tile.x]) for a in maps))


def with_halo(tile: Tile) -> Tile:
    return Tile(
        max(tile.y0 - FINISH_HALO, 0),
        min(tile.y1 + FINISH_HALO, HIGH),
        max(tile.x0 - FINISH_HALO, 0),
        min(tile.x1 + FINISH_HALO, WIDE),
    )


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_same_however_the_plane_is_cut(name: str) -> None:
    model = MODELS[name]()
    whole = score(point_with(model), WHOLE)
    for core, tile, slab in (((45, 110), 777, 1), ((90, 55), 32, 3)):
        point = point_with(model, tile=tile, slab=slab)
        for region in TilePlan(HIGH, WIDE, core):
            found, expected = score(point, region), crop_maps(whole, region)
            same(found, expected) if name == "sml" else agree(found, expected)


@pytest.mark.parametrize("blend", ["feather", "select"])
def test_pixels_are_the_same_however_the_plane_is_cut(blend: Any) -> None:
    point = point_with(load_model("sml"), blend=blend)
    raw = score(point, WHOLE)
    fused, maps = finish(point, WHOLE, raw, WHOLE)
    for core in ((41, 110), (90, 37), (23, 31), (7, 5)):
        regions = list(TilePlan(HIGH, WIDE, core))
        for region in regions[:: max(len(regions) // 6, 1)]:
            area = with_halo(region)
            pixels, found = finish(point, region, crop_maps(raw, area), area)
            same(found, crop_maps(maps, region))
            np.testing.assert_array_equal(pixels, fused[:, region.y, region.x])


def test_verification_is_the_same_however_the_plane_is_cut() -> None:
    """The worst case: every pixel depends on its whole halo."""
    rng = np.random.default_rng(0)
    labels = ndimage.gaussian_filter(rng.normal(size=(HIGH, WIDE)), 2)
    confidence = ndimage.gaussian_filter(rng.normal(size=(HIGH, WIDE)), 5)
    raw = Maps(
        np.digitize(labels / labels.std(), [-0.7, 0, 0.7]).astype(np.uint16),
        np.clip(confidence / confidence.std(), 0.0, 1.0).astype(np.float32),
        rng.random((HIGH, WIDE), np.float32),
    )
    point = point_with(load_model("sml"), surface=0)
    fused, maps = finish(point, WHOLE, raw, WHOLE)
    assert (maps.labels != raw.labels).mean() > 0.2
    for region in TilePlan(HIGH, WIDE, (13, 11)):
        area = with_halo(region)
        pixels, found = finish(point, region, crop_maps(raw, area), area)
        same(found, crop_maps(maps, region))
        np.testing.assert_array_equal(pixels, fused[:, region.y, region.x])


def test_a_score_is_the_models_own_added_up_over_its_window() -> None:
    """The engine against the model on one mirrored plane, all at once."""
    point = point_with(load_model("sml"), smoothness=0.7, surface=0)
    halo = 120
    planes = point.reference.planes(
        slice(0, 4), slice(-halo, HIGH + halo), slice(-halo, WIDE + halo)
    )
    scores = SumModifiedLaplacian().score(torch.from_numpy(planes)[:, None])
    summed = torch.stack(
        [aggregate(score, SumModifiedLaplacian.window, 0.7) for score in scores]
    )
    border = (summed.shape[-2] - HIGH) // 2
    summed = summed[:, border : border + HIGH, border : border + WIDE]
    np.testing.assert_array_equal(score(point, WHOLE).labels, summed.argmax(0))


@pytest.mark.parametrize("strength", [0, 1])
def test_a_pair_masker_gets_the_best_of_the_other_slices(strength: int) -> None:
    """Near the surface; by a masker that records slices and rivals it is given."""
    point = point_with(energy_pairs(), tile=777, surface=strength)
    halo = 120
    planes = point.reference.planes(
        slice(0, 4), slice(-halo, HIGH + halo), slice(-halo, WIDE + halo)
    )
    plain = SumModifiedLaplacian()
    scores = plain.score(torch.from_numpy(planes)[:, None])
    summed = torch.stack(
        [aggregate(s, plain.window, point.plan.settings.smoothness) for s in scores]
    )
    border = (planes.shape[-2] - summed.shape[-2]) // 2
    surface = find_surface(point, WHOLE.grown(halo - border), Monitor())
    assert (surface is None) == (strength == 0)
    if surface is not None:
        summed *= torch.stack([surface.of_slice(z) for z in range(4)])
    calls = []

    class Recorder(type(point.plan.model)):  # type: ignore[misc]
        def mask(self, a: Any, b: Any, context: Any = None) -> Any:
            calls.append((a[:, 0], b[:, 0]))
            return super().mask(a, b, context)

    point.plan.model.__class__ = Recorder
    score(point, WHOLE)
    assert len(calls) == 4
    compared = 0
    for z, (slices, rivals) in enumerate(calls):
        mask_halo = (rivals.shape[-2] - HIGH) // 2
        window = slice(halo - mask_halo, -(halo - mask_halo))
        own = torch.from_numpy(planes[z])[window, window]
        torch.testing.assert_close(slices[0], own, rtol=0, atol=0)
        others = summed.clone()
        others[z] = -1
        # Where only one slice is near, and it is this one, any other is as good.
        told = others.amax(0) > 0
        told = torch.nn.functional.pad(told, [border] * 4)[window, window]
        best = torch.from_numpy(planes).gather(
            0,
            torch.nn.functional.pad(others.argmax(0), [border] * 4)[None],
        )[0][window, window]
        seen = slice(HALO, -HALO)
        told = told[seen, seen]
        assert surface is not None or told.all()
        compared += int(told.sum())
        torch.testing.assert_close(
            rivals[0][seen, seen][told], best[seen, seen][told], rtol=0, atol=0
        )
    assert compared > 3 * HIGH * WIDE


def test_running_out_of_memory_changes_nothing_but_the_size_of_what_is_tried() -> None:
    plenty = too_large(1 << 40)
    whole = score(point_with(plenty, tile=777, slab=4), WHOLE)
    most = max(plenty.sizes) // 9
    scarce = too_large(most)
    same(score(point_with(scarce, tile=777, slab=4), WHOLE), whole)
    failed = [size for size in scarce.sizes if size > most]
    # A size that failed once is not tried again.
    assert failed == sorted(set(failed), reverse=True)
    assert len(failed) < len(scarce.sizes) / 2


@pytest.mark.parametrize("make", [energy_pairs, energy_sets])
def test_maskers_get_by_with_less_memory_too(make: Any) -> None:
    model = make()
    whole = score(point_with(model, tile=777), WHOLE)
    sizes = []

    class Small(type(model)):  # type: ignore[misc]
        def _checked(self, batch: Any) -> None:
            sizes.append(batch.shape[-2] * batch.shape[-1])
            if sizes[-1] > 12_000:
                raise torch.OutOfMemoryError("CUDA out of memory (of a test)")

        def mask(self, a: Any, b: Any, context: Any = None) -> Any:
            self._checked(a)
            return super().mask(a, b, context)

        def masks(self, slices: Any, context: Any = None) -> Any:
            self._checked(slices)
            return super().masks(slices, context)

    model.__class__ = Small
    agree(score(point_with(model, tile=777), WHOLE), whole)
    assert min(sizes) <= 12_000 < max(sizes)


def test_without_memory_for_the_smallest_tile_it_says_so() -> None:
    with pytest.raises(MemoryError, match="Close other"):
        score(point_with(too_large(100)), WHOLE)


def test_other_errors_of_a_model_are_not_taken_for_a_lack_of_memory() -> None:
    model = too_large(1 << 40)

    def broken(slices: Any, context: Any = None) -> Any:
        raise RuntimeError("shapes do not fit")

    model.score = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        score(point_with(model), WHOLE)


@pytest.mark.parametrize("name", MODELS)
def test_work_is_counted_in_full_and_can_be_stopped_anywhere(name: str) -> None:
    model = MODELS[name]()
    counts: list[float] = []
    asked = 0

    def stop_at(limit: int) -> Any:
        nonlocal asked
        asked = 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > limit

        return should_stop

    def watched(limit: int) -> Monitor:
        """A monitor that notes what is counted, and stops after so many questions."""
        counts.clear()
        meter = Meter(1, None)
        meter.add = counts.append  # type: ignore[method-assign]
        return Monitor(meter, stop_at(limit))

    point = point_with(model)
    raw = score(point, WHOLE, watched(10**9))
    assert sum(counts) == pytest.approx(4 * HIGH * WIDE)
    polls = asked
    for limit in (0, polls // 2, polls - 1):
        with pytest.raises(Cancelled):
            score(point, WHOLE, watched(limit))
        assert asked == limit + 1
    for blend in ("feather", "select"):
        point = point_with(model, blend=blend)
        finish(point, WHOLE, raw, WHOLE, watched(10**9))
        assert sum(counts) == 4 * HIGH * WIDE
        with pytest.raises(Cancelled):
            finish(point, WHOLE, raw, WHOLE, watched(asked - 1))


def test_a_set_masker_of_energies_prefers_what_is_sharp() -> None:
    """The measure of the maskers of these tests weighs the sharp slice most."""
    scene = relief(HIGH, WIDE, 4)
    planes = torch.from_numpy(scene.stack.astype(np.float32) / 65535)[:, None]
    index = smooth_energy(planes).argmax(0).numpy()
    assert np.abs(index - scene.depth)[scene.textured].mean() < 0.6


#: What is freed goes back to the system at once: how much address space a run needs
#: anew then does not depend on what the one before it left in the heap.
ALLOCATOR = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": "0",
}
LIMITED = """
import resource, sys
import numpy as np
import psutil
from napari_focus_fusion import fuse

stack = np.random.default_rng(0).integers(0, 60000, (3, 900, 1000)).astype("u2")
keywords = {"blend": "select", "surface": 0, "device": "cpu", "memory": "2GB"}
whole = fuse(stack, "sml", **keywords)
assert not whole.notes, whole.notes
room = psutil.Process().memory_info().vms + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (room, room))
parts = fuse(stack, "sml", **keywords)
assert any("fused in parts" in note for note in parts.notes), parts.notes
np.testing.assert_array_equal(parts.decision, whole.decision)
np.testing.assert_array_equal(parts.fused, whole.fused)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to this limit")
def test_where_memory_ends_outside_of_a_model_regions_are_halved() -> None:
    """The limit is real: the process gets no more address space."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(48 << 20)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ALLOCATOR},
    )
    assert done.returncode == 0, done.stderr
