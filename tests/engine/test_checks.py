"""A network that contradicts the plain focus measure is noted."""

from __future__ import annotations

import numpy as np
import pytest
import torch  # noqa: TC002

from napari_focus_fusion.engine.checks import correlation_with_plain
from napari_focus_fusion.fusion import fuse
from napari_focus_fusion.models.registry import models
from napari_focus_fusion.models.sml import SumModifiedLaplacian
from napari_focus_fusion.simulation.scenes import make_scene


class Sharpest(SumModifiedLaplacian):
    """Right, but with statistics of a sample, as networks have."""

    needs_sample = True


class Blurriest(Sharpest):
    """Wrong everywhere."""

    def score(self, slices: torch.Tensor, context: object = None) -> torch.Tensor:
        return 1 / (1e-3 + super().score(slices))


@pytest.mark.parametrize(
    ("kind", "surface", "notes"),
    # Near a surface even the wrong model decides as the plain measure does.
    [(Sharpest, 0, 0), (Sharpest, 1, 0), (Blurriest, 0, 1)],
)
def test_only_a_model_that_contradicts_is_noted(
    kind: type, surface: float, notes: int
) -> None:
    scene = make_scene(5, shape=(200, 210), slices=5, surface="tilt", electrons=1e4)
    model = kind()
    model.spec = models()["sml"]
    found = fuse(scene.stack, model, surface=surface).provenance["notes"]
    assert len(found) == notes
    assert all("contradicts the plain focus measure" in note for note in found)


def test_no_note_where_nothing_is_confident() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 9, 40, 40)).astype(np.float32)
    assert correlation_with_plain(noise, [np.zeros((40, 40), np.uint16)] * 9) is None
