"""What each part of affinity-sr is worth: ablations of the paper's tables II and IV.

``python -m studies.ablations --pictures FOLDER -o FOLDER`` trains the network without
one part at a time, all alike and shorter than the shipped weights, and writes
``ablations.md``. Table III, fusing and enlarging together or one after the
other, needs no training: ``affinity-sr:two-step`` of ``napari-focus-fusion benchmark``.
Runs that are in the folder already are not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion.models.affinity_sr import LIGHT, AffinitySR
from napari_focus_fusion.training.data import Batch, Pool, make_pool, read_pictures
from napari_focus_fusion.training.fit import fit
from napari_focus_fusion.training.objectives.affinity_sr import RECIPE
from napari_focus_fusion.training.train import VALIDATION_SEEDS, validation_batches
from studies.rows import markdown_table, run_missing, write_table

if TYPE_CHECKING:
    from napari_focus_fusion.training.recipe import Recipe

FOCUS, FINER = RECIPE, RECIPE.next_stages[0]


@dataclass(frozen=True)
class Variant:
    """A network that lacks something.

    Attributes
    ----------
    title
        What the table calls it.
    stage
        The stage of training that is compared: `FOCUS` or `FINER`.
    changes
        Of :data:`LIGHT`.
    """

    title: str
    stage: Recipe
    changes: dict[str, Any] = field(default_factory=dict)


VARIANTS = (
    Variant("FAPN, whole", FOCUS),
    Variant("without affinity (AEM)", FOCUS, {"affinity": False}),
    Variant("without attention (SAM, CAM)", FOCUS, {"attention": ()}),
    Variant("SAM alone", FOCUS, {"attention": ("spatial",)}),
    Variant("CAM alone", FOCUS, {"attention": ("channel",)}),
    Variant("CAM before SAM", FOCUS, {"attention": ("channel", "spatial")}),
    Variant("without refinement", FOCUS, {"refine": 0}),
    Variant("SRN, whole", FINER),
    Variant("without the gradient branch", FINER, {"gradient": False}),
    Variant("without shallow-deep attention", FINER, {"shallow_deep": False}),
)


def ablate(
    variant: Variant, pool: Pool, validation: list[Batch], steps: int, seed: int
) -> dict[str, Any]:
    """Train a variant; its error on the validation part, before and after."""
    torch.manual_seed(seed)
    network = AffinitySR(replace(LIGHT, **variant.changes))
    stage = variant.stage
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(stage.trainable_prefix))
    fitted = fit(
        network,
        stage.training_loss,
        lambda step: pool.draw(step, stacks=stage.stacks, crop=stage.crop, seed=seed),
        lambda model: stage.validate(model, validation),
        replace(stage.schedule, steps=steps, validate_every=steps),
    )
    weights = [p.numel() for p in network.parameters() if p.requires_grad]
    return {
        "title": variant.title,
        "steps": steps,
        "seed": seed,
        "parameters": sum(weights),
        "untrained": round(fitted.history[0]["validation"], 4),
        "trained": round(fitted.history[-1]["validation"], 4),
    }


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table, variants in their order."""
    order = [variant.title for variant in VARIANTS]
    cells = (
        (
            row["title"],
            str(row["parameters"]),
            str(row["steps"]),
            f"{row['untrained']:.4f}",
            f"{row['trained']:.4f}",
        )
        for row in sorted(rows, key=lambda row: order.index(row["title"]))
    )
    names = ("variant", "parameters", "steps", "error untrained", "error")
    return markdown_table(names, cells)


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--scenes", type=int, default=FOCUS.scenes)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    textures = read_pictures(given.pictures) if given.pictures else None
    size = (FOCUS.slices, FOCUS.side)

    @cache
    def scenes() -> tuple[Pool, list[Batch]]:
        pool = make_pool(range(given.scenes), *size, pictures=textures)
        return pool, validation_batches(make_pool(VALIDATION_SEEDS, *size), FOCUS)

    def run(variant: Variant) -> dict[str, Any]:
        return ablate(variant, *scenes(), given.steps, given.seed)

    path = given.out / "ablations.json"
    known_by = {"steps": given.steps, "seed": given.seed}
    rows = run_missing(
        path, (({"title": v.title, **known_by}, partial(run, v)) for v in VARIANTS)
    )
    write_table(path, as_markdown(rows))


if __name__ == "__main__":
    main()
