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
