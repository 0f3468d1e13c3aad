"""What the ground truth of scenes adds to the papers' own losses.

``python -m studies.losses --pictures FOLDER -o FOLDER`` trains each self-supervised
network twice, alike and shorter than the shipped weights: on its paper's loss alone,
and on the loss of the shipped weights. It writes ``losses.md``, with scores on the
benchmark scenes. Runs that are in the folder already are not made again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_focus_fusion.models.registry import new_model, our_models
from napari_focus_fusion.training.data import Pool, make_pool, read_pictures
from napari_focus_fusion.training.fit import fit
from napari_focus_fusion.training.objectives import dual_path, mscnn, residual, sesf
from napari_focus_fusion.training.recipe import recipe_of
from napari_focus_fusion.training.scores import score_on_scenes
from studies.rows import markdown_table, run_missing, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from napari_focus_fusion.models.mscnn import MSCNN
    from napari_focus_fusion.models.residual import Residual
    from napari_focus_fusion.simulation.scenes import SceneSpec
    from napari_focus_fusion.training.data import Batch
    from napari_focus_fusion.training.fit import TrainingLoss

STEPS = 600
LOSSES = UNTRAINED, PAPER, SHIPPED = "none", "the paper's", "as shipped"


def super_resolution_alone(network: Residual, batch: Batch) -> dict[str, Tensor]:
    """The super-resolution loss, without the ranking loss."""
    return {"loss": residual.training_loss(network, batch)["resolution"]}


def similarity_to_sources(network: MSCNN, batch: Batch) -> dict[str, Tensor]:
    """Similarity to the sharpest slice, window by window, with its noise."""
    return mscnn.unsupervised(network, batch.noisy)


PAPERS: dict[str, TrainingLoss] = {
    "sesf": partial(sesf.training_loss, ranking=0.0),
    "residual": super_resolution_alone,
    "dual-path": partial(dual_path.training_loss, truth=0.0),
    "mscnn": similarity_to_sources,
}


def trained_on(
    name: str, loss: str, pool: Pool, steps: int, seed: int
) -> torch.nn.Module:
    """A network after some steps of a loss, one of the three above."""
    torch.manual_seed(seed)
    network = new_model(our_models()[name])
    if loss == UNTRAINED:
        return network
    recipe = recipe_of(our_models()[name])
    falling = count(0, -1)
    fit(
        network.requires_grad_(True),
        PAPERS[name] if loss == PAPER else recipe.training_loss,
        lambda step: pool.draw(step, stacks=recipe.stacks, crop=recipe.crop, seed=seed),
        lambda _: next(falling),  # whatever is validated, the last step is the best
        replace(recipe.schedule, steps=steps, validate_every=steps),
    )
    return network


def as_markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The table, models and losses in their order."""
    order = [(name, loss) for name in PAPERS for loss in LOSSES]
    cells = (
        (
            row["model"],
            row["loss"],
            str(row["steps"]),
            f"{row['psnr']:.2f}",
            f"{row['depth_error']:.3f}",
            f"{100 * row['off_by_more_than_one']:.1f} %",
        )
        for row in sorted(
            rows, key=lambda row: order.index((row["model"], row["loss"]))
        )
    )
    names = ("model", "loss", "steps", "PSNR, dB", "depth error, slices", "off by > 1")
    return markdown_table(names, cells)


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
    row = {"model": name, "loss": loss, "steps": _steps_of(loss, steps)}
    return row | score_on_scenes({name: network.eval()}, scenes)[name]


def _steps_of(loss: str, steps: int) -> int:
    return 0 if loss == UNTRAINED else steps


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="by default all")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    textures = read_pictures(given.pictures) if given.pictures else None

    @lru_cache(maxsize=1)
    def pool_of(name: str) -> Pool:
        recipe = recipe_of(our_models()[name])
        return make_pool(
            range(recipe.scenes),
            recipe.slices,
            recipe.side,
            modalities=recipe.modalities,
            pictures=textures,
        )

    def run(name: str, loss: str) -> dict[str, Any]:
        return compare(name, loss, pool_of(name), steps=given.steps)

    def known_by(name: str, loss: str) -> dict[str, Any]:
        return {"model": name, "loss": loss, "steps": _steps_of(loss, given.steps)}

    path = given.out / "losses.json"
    names = given.models or PAPERS
    rows = run_missing(
        path,
        ((known_by(n, loss), partial(run, n, loss)) for n in names for loss in LOSSES),
    )
    write_table(path, as_markdown(rows))


if __name__ == "__main__":
    main()
