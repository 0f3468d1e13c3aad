"""Families of scenes with exact ground truth, for tables: one row a scene.

A family is a kind of specimen under a kind of light, in stacks of 2 to 64 slices, from
no noise to 250 electrons at white. `FAMILIES` is the table. A family that another
module renders is one more row there: its function takes a seed and keywords and returns
a `Scene`. No training has seen any of them: their seeds lie above `TRAINING_SEEDS`, and
above those of the other benchmark scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.simulation.coherent import make_coherent_scene
from napari_focus_fusion.simulation.scenes import TRAINING_SEEDS, Scene, make_scene
from napari_focus_fusion.simulation.tissue import make_tissue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIRST_SEED = TRAINING_SEEDS.stop + 100_000

#: Side in pixels and blur in pixels a slice, by number of slices: about as much work in
#: each stack, and about as much blur from its first slice to its last.
SIDES = {2: 256, 5: 256, 10: 256, 16: 224, 32: 192, 64: 160}
BLURS = {2: 3.0, 5: 1.6, 10: 1.0, 16: 0.8, 32: 0.5, 64: 0.3}


@dataclass(frozen=True)
class FamilyScene:
    """One scene of a family.

    Attributes
    ----------
    name : str
        Unique in its family: slices, light, and what is special.
    seed : int
        What it is drawn from.
    render : callable
        From the seed and the options to the scene.
    options : dict
        Keywords of `render`.
    """

    name: str
    seed: int
    render: Callable[..., Scene]
    options: Mapping[str, Any]

    @property
    def slices(self) -> int:
        """Number of slices."""
        return int(self.options["slices"])

    def make(self) -> Scene:
        """Make the scene."""
        return self.render(self.seed, **self.options)


@dataclass(frozen=True)
class Family:
    """Scenes of one kind.

    Attributes
    ----------
    name : str
        As it is asked for.
    about : str
        What it shows, in a sentence or two.
    scenes : tuple of FamilyScene
        From few slices to many.
    quick : int
        Which of the scenes stands for all where time is short.
    """

    name: str
    about: str
    scenes: tuple[FamilyScene, ...]
    quick: int = 1


_RGB = {"rgb": True, "dtype": "uint8"}
_TWO = {"channels": 2}

Row = tuple[int, float | None, dict[str, Any]]


def _scenes(
    number: int,
    render: Callable[..., Scene],
    common: dict[str, Any],
    *rows: Row,
) -> tuple[FamilyScene, ...]:
    """Scenes of rows of slices, electrons and other options."""
    found = []
    for place, (slices, electrons, more) in enumerate(rows):
        options = {
            "shape": (SIDES[slices], SIDES[slices]),
            "slices": slices,
            "blur_per_slice": BLURS[slices],
            "electrons": electrons,
            **common,
            **more,
        }
        light = f"{electrons:.0f} electrons" if electrons else "clean"
        special = [_word(name, value) for name, value in more.items()]
        name = ", ".join(filter(None, [f"{slices} slices", *special, light]))
        seed = FIRST_SEED + 1000 * number + place
        found.append(FamilyScene(name, seed, render, options))
    return tuple(found)


def _word(option: str, value: Any) -> str:
    """What the name of a scene says of an option; empty for what needs no saying."""
    words = {"rgb": "RGB", "channels": "two channels", "section": "confocal"}
    if option == "kind":
        return "two channels" if value == "both" else ""
    if option in ("surface", "content"):
        return str(value)
    return words.get(option, "")


def _surface() -> tuple[FamilyScene, ...]:
    relief, steep, tilt = ({"surface": s} for s in ("relief", "steep", "tilt"))
    return _scenes(
        0,
        make_scene,
        {"content": "leaves"},
        (2, 1e4, relief),
        (5, None, relief),
        (10, 1e3, relief | _RGB),
        (10, 4e3, steep),
        (16, 1e3, tilt),
        (16, 1e3, steep),
        (32, 250.0, relief),
        (64, 1e3, tilt),
    )


def _layers() -> tuple[FamilyScene, ...]:
    leaves, fibres, beads = ({"content": c} for c in ("leaves", "fibres", "beads"))
    return _scenes(
        1,
        make_scene,
        {"surface": "layers"},
        (2, None, leaves),
        (5, 4e3, leaves | _RGB),
        (10, 1e3, leaves),
        (10, 4e3, beads),
        (16, None, fibres),
        (32, 250.0, leaves),
        (64, 4e3, leaves),
    )


def _steps() -> tuple[FamilyScene, ...]:
    return _scenes(
        2,
        make_scene,
        {"surface": "steps"},
        (2, 1e3, {}),
        (5, None, {}),
        (10, 250.0, _RGB),
        (16, 4e3, {}),
        (32, 1e3, {}),
        (64, None, {}),
    )


def _refractile() -> tuple[FamilyScene, ...]:
    tilt, layers = ({"surface": s} for s in ("tilt", "layers"))
    # Refraction grows with the defocus in slices, and blur with the same.
    bent = {5: 0.5, 10: 0.3, 16: 0.22, 32: 0.12}
    blur = {5: 0.9, 10: 0.6, 16: 0.45, 32: 0.25}

    def row(slices: int, electrons: float | None, more: dict[str, Any]) -> Row:
        refraction = {"refraction": bent[slices], "blur_per_slice": blur[slices]}
        return slices, electrons, more | refraction

    return _scenes(
        3,
        make_scene,
        {"modality": "brightfield", "content": "cells", "thick": True},
        row(5, None, tilt),
        row(5, 1e3, layers),
        row(10, 4e3, tilt | _RGB),
        row(10, 1e3, layers),
        row(16, None, tilt | _RGB),
        row(32, 1e3, tilt),
    )


def _membranes() -> tuple[FamilyScene, ...]:
    confocal = {"section": 1.0}
    return _scenes(
        4,
        make_tissue,
        {"kind": "membranes"},
        (5, None, {}),
        (10, 1e3, confocal),
        (16, 250.0, confocal),
        (16, 1e3, {}),
        (16, 1e3, confocal | {"kind": "both"}),
        (32, 1e3, {"section": 2.0}),
        (64, 1e3, {"section": 4.0}),
    )


def _nuclei() -> tuple[FamilyScene, ...]:
    return _scenes(
        5,
        make_tissue,
        {"kind": "nuclei"},
        (2, 1e3, {}),
        (5, 1e3, {}),
        (10, 250.0, {}),
        (16, None, {"section": 1.0}),
        (32, 1e3, {"section": 2.0}),
        (64, 250.0, {"section": 4.0}),
    )


def _filaments() -> tuple[FamilyScene, ...]:
    return _scenes(
        6,
        make_scene,
        {"modality": "fluorescence", "content": "fibres", "surface": "relief"},
        (2, 4e3, {}),
        (5, 1e3, {}),
        (10, 250.0, {}),
        (10, 4e3, _TWO),
        (16, 1e3, {}),
        (32, None, {}),
        (64, 1e3, {}),
    )


def _coherent(number: int, **common: Any) -> tuple[FamilyScene, ...]:
    smear, cells, grains, fibres = (
        {"specimen": s} for s in ("smear", "cells", "grains", "fibres")
    )
    # Defocus a slice in waves: about as much from the first slice to the last.
    waves = {5: 0.5, 10: 0.3, 16: 0.2, 32: 0.12}
    rows: tuple[Row, ...] = (
        (5, None, cells | {"surface": "relief", "span": (0.5, 3.5)}),
        (10, 4e3, smear | {"rgb": True}),
        (10, 1e3, grains | {"surface": "relief", "span": (1.5, 7.5)}),
        (16, None, smear | {"surface": "tilt"}),
        (16, 1e3, cells | {"surface": "layers"}),
        (32, 1e3, fibres),
    )
    found = []
    for place, (slices, electrons, more) in enumerate(rows):
        options = {"slices": slices, "electrons": electrons, **common, **more}
        options |= {"shape": (192, 192), "waves": waves[slices]}
        light = f"{electrons:.0f} electrons" if electrons else "clean"
        special = "RGB, " if "rgb" in more else ""
        name = f"{slices} slices, {more['specimen']}, {special}{light}"
        seed = FIRST_SEED + 1000 * number + place
        found.append(FamilyScene(name, seed, make_coherent_scene, options))
    return tuple(found)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "surface",
            "A surface without jumps in reflected light: gentle, steep, or one tilted "
            "plane.",
            _surface(),
            quick=3,
        ),
        Family(
            "layers",
            "Leaves, fibres or beads in front of one another in reflected light: depth "
            "jumps, and what is in front hides what is behind.",
            _layers(),
            quick=2,
        ),
        Family(
            "steps",
            "Terraces in reflected light: depth jumps, and nothing else does.",
            _steps(),
            quick=3,
        ),
        Family(
            "refractile",
            "Thick cells in brightfield whose rims look the sharper the further they "
            "are out of focus (transport of intensity).",
            _refractile(),
            quick=2,
        ),
        Family(
            "coherent",
            "Blood cells, cells, grains and fibres in brightfield as waves make "
            "it: partially coherent light that matter absorbs and bends.",
            _coherent(7),
            quick=1,
        ),
        Family(
            "oblique",
            "The same with a condenser off its axis and matter less dense than its "
            "surroundings, a kind that no training has seen.",
            _coherent(8, oblique=0.5, phase=-1.2),
            quick=1,
        ),
        Family(
            "membranes",
            "Outlines of the cells of an epithelium on a curved sheet, confocal and "
            "widefield, with walls that lean away below them and haze from elsewhere; "
            "one stack has nuclei in a second channel.",
            _membranes(),
            quick=1,
        ),
        Family(
            "nuclei",
            "Nuclei on a curved sheet, in the same haze.",
            _nuclei(),
            quick=4,
        ),
        Family(
            "filaments",
            "Crossing filaments on an uneven bed in widefield fluorescence; one stack "
            "has two channels.",
            _filaments(),
            quick=2,
        ),
    )
}
