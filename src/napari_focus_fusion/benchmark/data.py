"""The stacks that models are compared on.

A data set is a name in `DATA_SETS`, or any file or folder of the user's. The public
images are not part of this package: the environment variable FOCUS_FUSION_DATA names
the folder that they lie in.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.benchmark.images import bicubic, slices_of
from napari_focus_fusion.errors import FocusFusionError
from napari_focus_fusion.jobs import find_jobs
from napari_focus_fusion.metrics import SIX
from napari_focus_fusion.opening import as_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_focus_fusion.simulation.scenes import Scene, SceneSpec
    from napari_focus_fusion.stack import FocusStack

    Array = NDArray[Any]

DATA_VARIABLE = "FOCUS_FUSION_DATA"

#: Electrons at white up to which a scene is in the group "noisy".
NOISY = 1000.0
RE_EXPOSED = ("relief-clean", "layers-leaves", "brightfield-cells", "deep-relief")
EXPOSURES = (10_000.0, 1000.0, 250.0)
#: Slices, surface and content of the scenes that are binned to coarser pixels.
BINNED = (
    (2, "relief", "leaves"),
    (8, "relief", "cells"),
    (8, "steep", "leaves"),
    (8, "layers", "fibres"),
)


@dataclass(frozen=True)
class Truth:
    """The ground truth of a scene.

    Attributes
    ----------
    image : ndarray
        The all-in-focus image, with the axes of the stack without Z.
    depth : ndarray
        float32 (Y, X), in slices.
    edges, textured : ndarray
        bool (Y, X): the band round jumps of depth, and where focus can be measured.
    """

    image: Array
    depth: Array
    edges: Array
    textured: Array


@dataclass(frozen=True, eq=False)
class Case:
    """One stack of a data set.

    Attributes
    ----------
    name : str
        Unique in its data set.
    stack : FocusStack
        What is fused.
    sha256 : str
        Of the files as they are, or of the pixels of a made-up stack.
    files : tuple of Path
        Where the stack can be read again; empty where it is an array in memory.
    axes : str or None
        Given by the user of `files`; None for the axes in the files.
    groups : tuple of str
        What it is summed up with.
    enlarge : int
        The fused image is wanted this much larger than the slices.
    references : FocusStack or None
        What the fused image is measured against, where that is not `stack`.
    truth : Truth or None
        The ground truth, where it is known.
    """

    name: str
    stack: FocusStack
    sha256: str
    files: tuple[Path, ...] = ()
    axes: str | None = None
    groups: tuple[str, ...] = ()
    enlarge: int = 1
    references: FocusStack | None = None
    truth: Truth | None = None

    def measured_against(self) -> list[Array]:
        """Slices (N, Y, X) or (N, Y, X, 3), one array a time point and channel."""
        return slices_of(self.references or self.stack)

    def megapixel_slices(self) -> float:
        """How much there is to fuse, in millions of pixels."""
        stack = self.stack
        planes = stack.n_times * stack.n_slices
        return planes * stack.height * stack.width / 1e6


@dataclass(frozen=True)
class DataSet:
    """Stacks that are measured in one way.

    Attributes
    ----------
    name : str
        As it is asked for, and as tables and files are called.
    about : str
        What it is and against what fused images are measured, in a sentence or two.
    measures : tuple of str
        What is measured unless the user chooses.
    cases : callable
        Makes or opens the stacks, one after the other.
    """

    name: str
    about: str
    measures: tuple[str, ...]
    cases: Callable[[], Iterator[Case]]


def find_data_set(text: str) -> DataSet:
    """The data set of a name, or that of a user's file or folder.

    Raises
    ------
    FocusFusionError
        If it is neither.
    """
    if text in DATA_SETS:
        return DATA_SETS[text]
    path = Path(text).expanduser()
    if not path.exists():
        raise FocusFusionError(
            f"{text!r} is neither a data set ({', '.join(DATA_SETS)}) nor a file or "
            "folder."
        )
    return DataSet(
        path.resolve().name,
        "Fused images are measured against their own slices; the truth is not known.",
        ("Q_G", "Q_S", "Q_AB/F", "Q_CB", "sharpness"),
        lambda: _cases_in(path),
    )


# Files --------------------------------------------------------------------------------


def _cases_in(path: Path) -> Iterator[Case]:
    """Each stack file is a stack, and so are the images of a folder together."""
    inputs = [path]
    if path.is_dir() and path.suffix.lower() != ".zarr":
        inputs += sorted(
            inside
            for inside in path.iterdir()
            if inside.is_dir()
            and inside.suffix.lower() != ".zarr"
            and not inside.name.startswith(".")
        )
    # A folder without files of its own stands for the folders in it.
    found = [job for item in inputs for job in find_jobs([str(item)])[0]]
    jobs = list({job.files: job for job in found}.values())
    if not jobs:
        raise FocusFusionError(
            f"{str(path)!r} holds no stacks: put stack files or folders of slices "
            "into it."
        )
    taken: set[str] = set()
    for job in jobs:
        name, number = job.name, 2
        while name in taken:
            name, number = f"{job.name} ({number})", number + 1
        taken.add(name)
        yield _case_of_files(name, [Path(path) for path in job.files])


def _case_of_files(name: str, files: Sequence[Path]) -> Case:
    source = files[0] if len(files) == 1 else [str(path) for path in files]
    stack = as_stack(source)
    return Case(name, stack, hash_of_files(files), tuple(files))


def hash_of_files(files: Iterable[Path]) -> str:
    """SHA-256 of the contents of files and of folders (OME-Zarr), in this order."""
    digest = hashlib.sha256()
    for path in files:
        inside = sorted(item for item in path.rglob("*") if item.is_file())
        for file in inside if path.is_dir() else [path]:
            with file.open("rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()


def _public(folder: str) -> Iterator[Case]:
    """The series of a folder of ``NAME-A.jpg``, ``NAME-B.jpg``, ..., each a stack."""
    root = os.environ.get(DATA_VARIABLE, "")
    place = Path(root).expanduser() / folder
    files = sorted(place.glob("*.jpg")) if root else []
    if not files:
        where = f"there are none in {place}" if root else f"{DATA_VARIABLE} is not set"
        raise FocusFusionError(
            f"The data set needs the public pictures {folder}/NAME-A.jpg, "
            f"{folder}/NAME-B.jpg, ..., and {where}. Download the Lytro multi-focus "
            "dataset (Nejati, Samavi and Shirani, 2015, "
            "https://mansournejati.ece.iut.ac.ir/content/lytro-multi-focus-dataset), "
            f"put its pairs into a folder lytro and its series of three into a folder "
            f"lytro-triples, and set {DATA_VARIABLE} to the folder that holds both."
        )
    series: dict[str, list[Path]] = {}
    for path in files:
        series.setdefault(path.stem.rpartition("-")[0], []).append(path)
    for name, slices in series.items():
        yield _case_of_files(name, slices)


def _reduced_lytro(factor: int) -> Iterator[Case]:
    """The pairs reduced, to be measured against the pairs as they were."""
    for case in _public("lytro"):
        (sources,) = case.measured_against()
        height, width = (n - n % factor for n in sources.shape[1:3])
        sources = np.ascontiguousarray(sources[:, :height, :width])
        small = bicubic(
            sources.astype(np.float32) / 255, (height // factor, width // factor)
        )
        yield replace(
            case,
            stack=as_stack(small, axes="ZYXS", name=case.name),
            files=(),
            axes="ZYXS",
            enlarge=factor,
            references=as_stack(sources, axes="ZYXS", name=case.name),
        )


# Scenes -------------------------------------------------------------------------------


def _scene_specs() -> Iterator[tuple[SceneSpec, tuple[str, ...]]]:
    from napari_focus_fusion.simulation.scenes import benchmark_scenes

    for spec in benchmark_scenes():
        yield spec, _groups_of(dict(spec.options))


def _re_exposed_specs() -> Iterator[tuple[SceneSpec, tuple[str, ...]]]:
    """The same scenes and illumination under other exposures."""
    for spec, _ in _scene_specs():
        for electrons in EXPOSURES if spec.name in RE_EXPOSED else ():
            options = dict(spec.options) | {"electrons": electrons}
            name = f"{spec.name}-{electrons:.0f}"
            changed = replace(spec, name=name, options=tuple(sorted(options.items())))
            yield changed, (f"{electrons:.0f} electrons",)


def _light_specs() -> Iterator[tuple[SceneSpec, tuple[str, ...]]]:
    """Surfaces and layers in 2, 8 and 32 slices, without noise and at all exposures."""
    from napari_focus_fusion.simulation.scenes import TRAINING_SEEDS, SceneSpec

    seed = TRAINING_SEEDS.stop + 1000  # beyond those of `benchmark_scenes`
    for slices, side, blur in ((2, 256, 2.5), (8, 224, 1.2), (32, 160, 0.6)):
        for surface, content in (
            ("relief", "cells"),
            ("steep", "leaves"),
            ("layers", "leaves"),
        ):
            for electrons in (None, *EXPOSURES):
                light = f"{electrons:.0f} electrons" if electrons else "clean"
                options = {
                    "shape": (side, side),
                    "slices": slices,
                    "blur_per_slice": blur,
                    "surface": surface,
                    "content": content,
                    "electrons": electrons,
                }
                name = f"{surface}, {slices} slices, {light}"
                groups = (f"{slices} slices", light, surface, f"{slices}, {light}")
                yield SceneSpec(name, seed, tuple(sorted(options.items()))), groups
            seed += 1


def _refractile_specs() -> Iterator[tuple[SceneSpec, tuple[str, ...]]]:
    from napari_focus_fusion.simulation.scenes import refractile_scenes

    for spec in refractile_scenes():
        surface, slices, light = spec.name.split(", ")
        yield spec, (slices, light, surface)


def _binned_scenes(factor: int) -> Iterator[Case]:
    """Fine scenes imaged by a camera of coarser pixels, each the mean of several."""
    from napari_focus_fusion.simulation.optics import expose
    from napari_focus_fusion.simulation.scenes import TRAINING_SEEDS, make_scene

    seed = TRAINING_SEEDS.stop + 2000 + 10 * factor
    side = 112 * factor
    for number, (slices, surface, content) in enumerate(BINNED):
        scene = make_scene(
            seed + number,
            shape=(side, side),
            slices=slices,
            surface=surface,
            content=content,
            electrons=None,
            dtype=np.float32,
            # In fine pixels: about as far out of focus for every factor.
            blur_per_slice=0.6 * factor * 8 / slices,
            focus_blur=0.35 * factor,
        )
        coarse = _binned_planes(scene.stack, factor)
        truth = Truth(
            255 * scene.truth,
            _binned_planes(scene.depth, factor),
            _binned_planes(scene.edges, factor) > 0.5,
            _binned_planes(scene.textured, factor) > 0.5,
        )
        fine = np.rint(255 * scene.stack.clip(0, 1)).astype(np.uint8)
        for electrons in (None, 4000.0):
            light = f"{electrons:.0f} electrons" if electrons else "clean"
            name = f"{surface}, {content}, {slices} slices, {light}"
            rng = np.random.default_rng([seed + number, 5])
            stack = expose(coarse, rng, electrons=electrons, dtype=np.float32)
            yield Case(
                name,
                as_stack(stack, axes="ZYX", name=name),
                hashlib.sha256(stack.tobytes()).hexdigest(),
                axes="ZYX",
                groups=(light, f"{slices} slices"),
                enlarge=factor,
                references=as_stack(fine, axes="ZYX", name=name),
                truth=truth,
            )


def _binned_planes(planes: Array, factor: int) -> NDArray[np.float32]:
    """Means of squares of ``factor`` x ``factor`` pixels of (..., Y, X)."""
    *lead, height, width = planes.shape
    blocks = planes.reshape(*lead, height // factor, factor, width // factor, factor)
    return blocks.mean((-3, -1), dtype=np.float32)


def _groups_of(options: dict[str, Any]) -> tuple[str, ...]:
    modality = options.get("modality", "grey")
    groups = [f"{options.get('slices', 8)} slices"]
    if options.get("rgb"):
        groups.append("RGB")
    elif modality == "grey":
        groups.append("grey")
    if modality != "grey":
        groups.append(modality)
    if (options["electrons"] or np.inf) <= NOISY:
        groups.append("noisy")
    return tuple(groups)


def _scenes(
    specs: Callable[[], Iterator[tuple[SceneSpec, tuple[str, ...]]]],
) -> Iterator[Case]:
    for spec, groups in specs():
        yield case_of_scene(spec.name, spec.make(), groups)


def case_of_scene(name: str, scene: Scene, groups: tuple[str, ...] = ()) -> Case:
    """A scene as a stack of a data set."""
    return Case(
        name,
        as_stack(scene.stack, axes=scene.axes, name=name),
        hashlib.sha256(scene.stack.tobytes()).hexdigest(),
        axes=scene.axes,
        groups=groups,
        truth=Truth(scene.truth, scene.depth, scene.edges, scene.textured),
    )


# The table ----------------------------------------------------------------------------


_TRUTH_MEASURES = ("PSNR", "SSIM")
_NATIVE = "R, G and B measured apart and averaged, then averaged over the stacks."


def _reduced(factor: int) -> DataSet:
    return DataSet(
        f"lytro-x{factor}",
        f"The Lytro pairs cropped to a multiple of {factor}, reduced {factor} times by "
        "cubic interpolation without antialiasing, fused, enlarged again "
        "by aligned cubic interpolation (unless the model does so itself), clipped to "
        "8 bits and measured against the pairs at their full resolution. " + _NATIVE,
        SIX,
        lambda: _reduced_lytro(factor),
    )


def _binned(factor: int) -> DataSet:
    return DataSet(
        f"scenes-x{factor}",
        f"Scenes that no training has seen, as a camera sees them whose pixels add up "
        f"{factor} x {factor} of the truth's, without noise and with 4000 electrons at "
        "white; fused, enlarged by aligned cubic interpolation (unless the model does "
        "so itself), clipped to 8 bits and measured against the fine truth.",
        _TRUTH_MEASURES,
        lambda: _binned_scenes(factor),
    )


DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "scenes",
            "The made-up scenes that no training has seen, measured against their "
            "truth. The peak of PSNR and the range of SSIM are the range of the true "
            "image; depth errors are in slices, where the truth has texture.",
            _TRUTH_MEASURES,
            lambda: _scenes(_scene_specs),
        ),
        DataSet(
            "scenes-noise",
            "Four of the benchmark scenes exposed again with 10000, 1000 and 250 "
            "electrons at white. Measured like the scenes.",
            _TRUTH_MEASURES,
            lambda: _scenes(_re_exposed_specs),
        ),
        DataSet(
            "scenes-light",
            "A gentle surface, a steep one, and leaves in front of one another, grey, "
            "in 2, 8 and 32 slices, each without noise and with 10000, 1000 and 250 "
            "electrons at white; no training has seen them. Measured like the scenes.",
            _TRUTH_MEASURES,
            lambda: _scenes(_light_specs),
        ),
        DataSet(
            "scenes-refractile",
            "Thick cells in brightfield, in 5, 10 and 24 slices, without noise and "
            "with 1000 electrons at white: refraction draws rims round them that are "
            "the stronger the further out of focus they are. No training has seen "
            "these scenes. Measured like the others.",
            _TRUTH_MEASURES,
            lambda: _scenes(_refractile_specs),
        ),
        DataSet(
            "lytro",
            "The Lytro pairs (Nejati et al., 2015) as JPEG files, fused and "
            "measured against the same files. " + _NATIVE,
            (*SIX, "Q_AB/F"),
            lambda: _public("lytro"),
        ),
        _reduced(2),
        _reduced(3),
        _reduced(4),
        _binned(2),
        _binned(3),
        _binned(4),
        DataSet(
            "triples",
            "The Lytro series of three pictures, fused and measured like the pairs. "
            + _NATIVE,
            (*SIX, "Q_AB/F"),
            lambda: _public("lytro-triples"),
        ),
    )
}
