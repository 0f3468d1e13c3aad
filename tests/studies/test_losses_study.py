"""What truth adds: each network learns something else from each loss."""

from __future__ import annotations

import pytest
import torch

from napari_focus_fusion.simulation.scenes import SceneSpec
from napari_focus_fusion.training.data import make_pool
from studies.losses import (
    PAPER,
    PAPERS,
    SHIPPED,
    UNTRAINED,
    as_markdown,
    compare,
    trained_on,
)


@pytest.fixture(scope="module")
def pool():
    return make_pool(range(2), 4, 96)


@pytest.mark.parametrize("name", PAPERS)
def test_each_loss_teaches_something_else(name, pool):
    def weights(loss):
        network = trained_on(name, loss, pool, 2, 0)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    untrained, paper, shipped = map(weights, (UNTRAINED, PAPER, SHIPPED))
    assert not torch.equal(untrained, paper)
    assert not torch.equal(untrained, shipped)
    assert not torch.equal(paper, shipped)


def test_a_row_holds_scores_on_scenes(pool):
    options = {"shape": (48, 48), "slices": 3, "electrons": None}
    spec = SceneSpec("small", 1_000_000, tuple(sorted(options.items())))
    options = {"steps": 2, "scenes": [spec]}
    rows = [compare("mscnn", loss, pool, **options) for loss in (PAPER, UNTRAINED)]
    lines = as_markdown(rows).splitlines()[2:]
    assert [line.split("|")[2].strip() for line in lines] == [UNTRAINED, PAPER]
    assert rows[0]["psnr"] != rows[1]["psnr"] and min(r["psnr"] for r in rows) > 10
