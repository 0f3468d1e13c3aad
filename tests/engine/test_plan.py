"""A run is planned once; what a time point needs is returned, and nothing changes."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
import torch

from napari_focus_fusion import Cancelled, FocusFusionError, as_stack, load_model
from napari_focus_fusion.engine.monitor import Monitor
from napari_focus_fusion.engine.plan import plan_run
from napari_focus_fusion.engine.prepare import Prepared, prepare
from napari_focus_fusion.engine.settings import FusionSettings
from napari_focus_fusion.engine.steps import steps_of
from napari_focus_fusion.engine.store import MemoryStore
from napari_focus_fusion.progress import Meter, Progress
from small_models import energy_reconstructor, finer_pairs, random_sesf, relief


def film() -> Any:
    scenes = [relief(72, 84, 4, seed=1_000_010 + t).stack for t in range(2)]
    return as_stack(np.stack(scenes), axes="TZYX")


def values_of(point: Prepared) -> list[Any]:
    reference = point.reference
    numbers = [reference.black, reference.white, point.t]
    return [*numbers, *(planes.tobytes() for planes in point.windows)]


def test_a_time_point_is_prepared_the_same_whatever_was_prepared_before() -> None:
    plan = plan_run(film(), random_sesf(), FusionSettings(device="cpu"))
    before = {field.name: getattr(plan, field.name) for field in fields(plan)}
    first = [prepare(plan, t, Monitor()) for t in (0, 1)]
    again = [prepare(plan, t, Monitor()) for t in (1, 0)]
    assert values_of(first[0]) == values_of(again[1])
    assert values_of(first[1]) == values_of(again[0])
    assert values_of(first[0]) != values_of(first[1])
    for name, value in before.items():
        assert getattr(plan, name) is value


def test_neither_settings_nor_plan_nor_what_is_prepared_can_be_changed() -> None:
    settings = FusionSettings(device="cpu")
    plan = plan_run(film(), load_model("sml"), settings)
    point = prepare(plan, 0, Monitor())
    for frozen, name in ((settings, "blend"), (plan, "tile"), (point, "t")):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, name, None)


def test_steps_of_a_region_give_the_same_in_another_process() -> None:
    """What a worker of a cluster gets is all that it needs."""
    stack = film()
    plan = plan_run(stack, random_sesf(), FusionSettings(device="cpu"))
    point = prepare(plan, 1, Monitor())
    found = []
    for each in (point, pickle.loads(pickle.dumps(point.without_sample()))):
        store = MemoryStore(stack)
        with torch.inference_mode():
            for step in steps_of(each.plan):
                for region in each.plan.regions:
                    step.run(each, store, region, Monitor())
        found.append(store.outputs)
    for name, here in found[0].items():
        np.testing.assert_array_equal(here, found[1][name])
        assert here[1].any() and not here[0].any()


@pytest.mark.parametrize("blend", ["feather", "select"])
@pytest.mark.parametrize("make", [random_sesf, energy_reconstructor])
def test_the_work_of_a_step_is_its_cost_times_pixels_and_slices(
    make: Any, blend: Any
) -> None:
    plan = plan_run(film(), make(), FusionSettings(device="cpu", blend=blend))
    store, point = MemoryStore(plan.stack, int(plan.reconstructs)), None
    voxels = 4 * 72 * 84
    for step in steps_of(plan):
        counted: list[float] = []
        meter = Meter(1, None)
        meter.add = counted.append  # type: ignore[method-assign]
        monitor = Monitor(meter)
        monitor.enter(step.title, 0, step.cost)
        point = point or prepare(plan, 0, monitor)
        with torch.inference_mode():
            for region in plan.regions:
                step.run(point, store, region, monitor)
        assert sum(counted) == pytest.approx(step.cost * voxels)


def test_a_monitor_keeps_a_note_once_and_stops_where_it_is_asked() -> None:
    reports: list[Progress] = []
    answers = iter([False, False, True])
    monitor = Monitor(Meter(10, reports.append), lambda: next(answers))
    monitor.enter("First", 2, cost=2)
    monitor.warn("careful")
    monitor.warn("careful")
    assert monitor.notes == ["careful"]
    monitor.advance(1)
    monitor.check_cancelled()
    with pytest.raises(Cancelled):
        monitor.advance(1)
    monitor.enter("Second", 6)
    assert [(r.stage, r.done) for r in reports] == [("First", 200), ("Second", 600)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"blend": "average"}, "use 'feather',"),
        ({"smoothness": 11}, "between 0 and 10"),
        ({"tile": 15}, "at least 16"),
    ],
)
def test_wrong_settings_are_found_before_there_is_a_stack(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(FocusFusionError, match=words):
        FusionSettings(**settings)


def test_which_models_score_and_reconstruct() -> None:
    stack = film()
    settings = FusionSettings(device="cpu", scale=2)
    finer = finer_pairs()
    plain = load_model("sml")
    decision = np.zeros(stack.map_shape, np.uint16)
    plan = plan_run(stack, finer, settings, decision=plain)
    assert plan.model is plain and plan.surface is not None
    assert plan.networks == (plain, finer, plan.surface)
    pixelwise = FusionSettings(device="cpu", scale=2, surface=0)
    alone = plan_run(stack, finer, pixelwise, decision=plain)
    assert alone.surface is None and alone.networks == (plain, finer)
    given = plan_run(stack, finer, settings, decision=decision)
    assert given.model is None and given.networks == (finer,)
    assert given.halo == 0 and not given.settings.verify
    reconstructor = energy_reconstructor()
    assert plan_run(stack, reconstructor, FusionSettings()).reconstructs
    observed = FusionSettings(blend="select")
    assert not plan_run(stack, reconstructor, observed).reconstructs


@pytest.mark.parametrize("name", ["sml", "sesf", "dual-path", "mscnn", "affinity-sr"])
@pytest.mark.parametrize("stored", [False, True])
def test_regions_are_cut_so_that_the_estimate_keeps_to_the_memory(
    name: str, stored: bool
) -> None:
    stack = as_stack(np.broadcast_to(np.uint16(1), (8, 2048, 2048)))
    model = load_model(name)
    taken = []
    for memory in (256 << 20, 1 << 30):
        settings = FusionSettings(device="cpu", memory=memory)
        plan = plan_run(stack, model, settings, stored=stored)
        # Chunks of a stored result are not divided.
        assert plan.working_memory <= (1.25 if stored else 1) * memory
        taken.append(plan.working_memory)
    assert taken[0] < taken[1]


def test_more_slices_take_smaller_parts_not_more_memory() -> None:
    model, estimates = load_model("dual-path"), []
    for slices in (8, 64):
        stack = as_stack(np.broadcast_to(np.uint16(1), (slices, 256, 256)))
        settings = FusionSettings(device="cpu", memory=1 << 30)
        estimates.append(plan_run(stack, model, settings).working_memory)
    assert estimates[1] <= 1.1 * estimates[0]
