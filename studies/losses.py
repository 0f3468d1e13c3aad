"""What the truth of scenes adds to the papers' own losses.

``python -m studies.losses --pictures FOLDER -o FOLDER`` trains
each self-supervised network twice, alike and shorter than the shipped weights: on its
paper's loss alone, and on the loss of the shipped weights. It writes ``losses.md``,
with scores on scenes held back. Runs that are in the folder already are not made again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion.models.registry import new_model, our_models
from napari_focus_fusion.training.data import make_pool, read_pictures
from napari_focus_fusion.training.fit import fit
from napari_focus_fusion.training.objectives import dual_path, mscnn, residual, sesf
from napari_focus_fusion.training.scores import score_on_scenes
from napari_focus_fusion.training.train import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from napari_focus_fusion.models.mscnn import MSCNN
    from napari_focus_fusion.models.residual import Residual
    from napari_focus_fusion.simulation.scenes import SceneSpec
    from napari_focus_fusion.training.data import Batch, Pool
    from napari_focus_fusion.training.fit import Objective

STEPS = 600
UNTRAINED, PAPER, SHIPPED = "none", "the paper's", "as shipped"


def finer_alone(network: Residual, batch: Batch) -> dict[str, Tensor]:
    """Super-resolution as pretext, and no ranking of slices."""
    return {"loss": residual.objective(network, batch)["resolution"]}


def like_the_sources(network: MSCNN, batch: Batch) -> dict[str, Tensor]:
    """Like the sharpest slice, window by window, with the noise that it has."""
    return mscnn.unsupervised(network, batch.noisy)


PAPERS: dict[str, Objective] = {
    "sesf": partial(sesf.objective, ranking=0.0),
    "residual": finer_alone,
    "dual-path": partial(dual_path.objective, truth=0.0),
    "mscnn": like_the_sources,
}


def trained_on(
    name: str, loss: str, pool: Pool, steps: int, seed: int
) -> torch.nn.Module:
    """A network after some steps of a loss, one of the three above."""
    torch.manual_seed(seed)
    network = new_model(our_models()[name])
    if loss == UNTRAINED:
        return network
    recipe = RECIPES[name]
    falling = count(0, -1)
    fit(
        network.requires_grad_(True),
        PAPERS[name] if loss == PAPER else recipe.objective,
        lambda step: pool.draw(step, stacks=recipe.stacks, crop=recipe.crop, seed=seed),
        lambda _: next(falling),  # whatever is validated, the last step is the best
        replace(recipe.schedule, steps=steps, validate_every=steps),
    )
    return network


def as_markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The table, models and losses in their order."""
    lines = [
        "| model | loss | steps | PSNR, dB | depth error, slices | off by > 1 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    losses = (UNTRAINED, PAPER, SHIPPED)
    places = [(name, loss) for name in PAPERS for loss in losses]
    for row in sorted(rows, key=lambda row: places.index((row["model"], row["loss"]))):
        lines.append(
            f"| {row['model']} | {row['loss']} | {row['steps']} | {row['psnr']:.2f} | "
            f"{row['depth_error']:.3f} | {100 * row['off_by_more_than_one']:.1f} % |"
        )
    return "\n".join(lines) + "\n"


def compare(
    name: str,
    loss: str,
    pool: Pool,
    *,
    steps: int = STEPS,
    seed: int = 0,
    scenes: Iterable[SceneSpec] | None = None,
) -> dict[str, Any]:
    """A row of the table: what a network scores after some steps of a loss."""
    network: Any = trained_on(name, loss, pool, steps, seed)
    row = {"model": name, "loss": loss, "steps": 0 if loss == UNTRAINED else steps}
    return row | score_on_scenes({name: network.eval()}, scenes)[name]


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="by default all")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "losses.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    textures = read_pictures(given.pictures) if given.pictures else None
    for name in given.models or PAPERS:
        recipe = RECIPES[name]
        missing = [
            loss
            for loss in (UNTRAINED, PAPER, SHIPPED)
            if (name, loss, 0 if loss == UNTRAINED else given.steps)
            not in [(row["model"], row["loss"], row["steps"]) for row in rows]
        ]
        if not missing:
            continue
        pool = make_pool(
            range(recipe.scenes),
            recipe.slices,
            recipe.side,
            modalities=recipe.modalities,
            pictures=textures,
        )
        for loss in missing:
            rows.append(compare(name, loss, pool, steps=given.steps))
            path.write_text(json.dumps(rows, indent=1) + "\n")
    table = as_markdown(rows)
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
