"""Whether fine-tuning helps: by ground truth, on stacks unlike any trained on.

``python -m studies.finetuning [MODEL ...] -o FOLDER``

Each microscope shows scenes of its own: unstained cells, hardly any light, hardly any
contrast. A model is tuned on one of them, without its ground truth, and then fuses
others. Runs that are in the folder already are not made again.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from napari_focus_fusion.models.registry import load_model, models
from napari_focus_fusion.simulation.optics import expose
from napari_focus_fusion.simulation.scenes import Scene, make_scene
from napari_focus_fusion.training.finetune import finetune
from napari_focus_fusion.training.scores import score_scene
from studies.rows import markdown_table, run_missing, write_table

#: Seeds of the scene that is tuned on, and of those that are scored.
TUNING_SEED, SCORING_SEEDS = 940_000, (940_001, 940_002, 940_003)
#: Where the contrast over 15 pixels is less than this share of the noise the depth
#: counts as unknown.
LEAST_CONTRAST = 0.3


@dataclass(frozen=True)
class Microscope:
    """A microscope and its specimens.

    Attributes
    ----------
    title
        What the table calls it.
    options
        Of :func:`make_scene`.
    stain
        Power that transmitted light is taken to: a fifth means a fifth as much stain.
    contrast
        Of the image, about a mean of a half.
    electrons, read_noise
        Of the camera: electrons at white, and their standard deviation without light.
    """

    title: str
    options: dict[str, Any] = field(default_factory=dict)
    stain: float = 1.0
    contrast: float = 1.0
    electrons: float = 3000.0
    read_noise: float = 3.0

    def scene(self, seed: int, side: int = 320, slices: int = 8) -> Scene:
        """The scene of a seed, grey and of 16 bits."""
        drawn = make_scene(
            seed,
            shape=(side, side),
            slices=slices,
            electrons=None,
            dtype=np.float32,
            surface="relief",
            psf="gaussian",
            offset=0.0,
            exposure=0.8,
            vignetting=0.1,
            shading=0.05,
            **self.options,
        )
        ideal, truth = (
            0.5 + self.contrast * (np.clip(image, 0, None) ** self.stain - 0.5)
            for image in (drawn.stack, drawn.truth)
        )
        camera = {"electrons": self.electrons, "read_noise": self.read_noise}
        # Another stream than those of the scene.
        rng = np.random.default_rng([seed, 3])
        mean = ndimage.uniform_filter(truth, 15)
        variance = ndimage.uniform_filter(truth * truth, 15) - mean * mean
        noise = (mean * self.electrons + self.read_noise**2) / self.electrons**2
        return replace(
            drawn,
            stack=expose(ideal, rng, dtype=np.uint16, **camera),
            truth=np.float32(65_535) * truth.astype(np.float32),
            textured=variance > LEAST_CONTRAST**2 * noise,
        )


MICROSCOPES = {
    "phase": Microscope(
        "unstained cells in transmitted light",
        {
            "modality": "brightfield",
            "content": "cells",
            "refraction": 3.0,
            "blur_per_slice": 1.5,
            "focus_blur": 0.5,
        },
        stain=0.25,
    ),
    "dark": Microscope(
        "50 electrons at white",
        {"content": "leaves", "blur_per_slice": 1.0, "focus_blur": 0.5},
        electrons=50.0,
        read_noise=6.0,
    ),
    "faint": Microscope(
        "a fifth of the contrast, little that is fine",
        {"content": "cells", "blur_per_slice": 1.2, "focus_blur": 1.5},
        contrast=0.2,
    ),
}


def evaluate_tuning(
    name: str, microscope: str, steps: int, **options: Any
) -> dict[str, Any]:
    """Tune a model on one scene of a microscope and score it on others.

    Returns
    -------
    dict
        ``before`` and ``after``: means of :func:`score_scene`; ``validation``: what
        tuning itself measured of both; and what was run.
    """
    scene_of = MICROSCOPES[microscope].scene
    parent = load_model(name)
    example = scene_of(TUNING_SEED)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The tuned model is NOT better")
        result = finetune(
            parent, example.stack, axes=example.axes, steps=steps, **options
        )
    seconds = time.perf_counter() - began
    scenes = [scene_of(seed) for seed in SCORING_SEEDS]
    before, after, plain = (
        _means([score_scene(scene, model) for scene in scenes])
        for model in (parent, result.model, load_model("sml"))
    )
    return {
        "model": name,
        "sha256": parent.weights_hash,
        "microscope": microscope,
        "steps": steps,
        "options": options,
        "better": result.better,
        "best_step": result.best_step,
        "validation": {"before": result.before, "after": result.after},
        "before": before,
        "after": after,
        "sml": plain,
        "seconds": round(seconds),
        "device": result.card["device"],
    }


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {
        name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]
    }


#: Scores that the table shows, with so many digits, and its columns.
SCORES = (("depth_error", 3), ("off_by_more_than_one", 3), ("psnr", 2))
COLUMNS = (
    "model",
    "stack",
    "depth error, slices",
    "off by > 1",
    "PSNR, dB",
    "validation error",
    "kept",
    "minutes",
)


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table of some runs."""
    table = []
    seen: set[str] = set()
    for row in rows:
        title = MICROSCOPES[row["microscope"]].title
        if title not in seen:
            seen.add(title)
            plain = row["sml"]
            cells = [f"{plain[name]:.{digits}f}" for name, digits in SCORES]
            table.append(["sml", title, *cells, "–", "–", "–"])
        before, after, validation = row["before"], row["after"], row["validation"]
        cells = [
            f"{before[name]:.{digits}f} → {after[name]:.{digits}f}"
            for name, digits in SCORES
        ]
        cells.append(
            f"{validation['before']['error']:.3f} → {validation['after']['error']:.3f}"
        )
        cells.append(f"step {row['best_step']}" if row["better"] else "parent")
        cells.append(f"{row['seconds'] / 60:.0f}")
        table.append([row["model"], title, *cells])
    return markdown_table(COLUMNS, table)


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    tunable = [spec.name for spec in models().values() if spec.self_supervised]
    parser.add_argument("models", nargs="*", default=tunable)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--microscopes", nargs="+", default=list(MICROSCOPES))
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()

    def known_by(name: str, microscope: str) -> dict[str, Any]:
        weights = load_model(name).weights_hash
        run = {"microscope": microscope, "steps": given.steps}
        return {"model": name, "sha256": weights, **run}

    path = given.out / "fine-tuning.json"
    rows = run_missing(
        path,
        (
            (
                known_by(name, microscope),
                partial(evaluate_tuning, name, microscope, given.steps),
            )
            for microscope, name in product(given.microscopes, given.models)
        ),
    )
    order = list(MICROSCOPES)
    rows.sort(key=lambda row: order.index(row["microscope"]))
    write_table(path, as_markdown(rows))


if __name__ == "__main__":
    main()
