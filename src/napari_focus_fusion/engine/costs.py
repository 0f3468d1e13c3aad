"""What the steps of a run cost, so that progress and the time left are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_focus_fusion.engine.plan import RunPlan

#: Multiply-adds of a network that take as long as a pass of the plain focus measure
#: over a pixel, which is the unit of all costs.
BASE_COST = 2000
#: Finding the surface and weighing scores with it.
SURFACE_COST = 2.5
#: Making a pixel of a slice finer, a slice that is not used included.
FINER_COST = 60.0
#: Fusing.
BLEND_COSTS = {"feather": 2.0, "bands": 3.0, "select": 0.7}


def cost_of_scoring(plan: RunPlan) -> float:
    """Of a pixel of a slice, the surface included."""
    if plan.model is None or plan.model.spec is None:
        return 0.0
    scored = 1
    if plan.reconstructs:
        scored += sum(
            not plan.is_reference(weights) for weights in plan.channel_weights
        )
    cost = scored * (1 + plan.model.spec.cost / BASE_COST)
    return cost if plan.surface is None else cost + SURFACE_COST


def share_of_surface(plan: RunPlan) -> float:
    """Of the cost of scoring, what the surface takes."""
    if plan.surface is None or cost_of_scoring(plan) == 0:
        return 0.0
    return SURFACE_COST / cost_of_scoring(plan)


def cost_of_fusing(plan: RunPlan) -> float:
    """Of a pixel of a slice, that of making it finer included."""
    cost = BLEND_COSTS[plan.settings.blend]
    if plan.upscale is None:
        return cost
    finer = FINER_COST * len(plan.channel_weights)
    # In two steps only the fused image is made finer.
    return cost + (finer if plan.upscale.joint else finer / plan.stack.n_slices)


def share_of_finer(plan: RunPlan) -> float:
    """Of the cost of fusing, what making it finer takes."""
    return 1 - BLEND_COSTS[plan.settings.blend] / cost_of_fusing(plan)
