"""Transparent scenes in which pixels are sharp at two depths, with both as truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_focus_fusion.parameters import one_of
from napari_focus_fusion.simulation.drawing import (
    draw_objects,
    make_atlas,
    plane,
    smooth_field,
    texture,
)
from napari_focus_fusion.simulation.optics import Piece, composite_layers, render_slices
from napari_focus_fusion.simulation.scenes import (
    Scene,
    brightfield_image,
    depth_edges,
    detailed,
    expose_scene,
    make_optics,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KINDS = ("hairs", "films")
#: Absorbance of the ground, and of what lies in front of it.
GROUND, FRONT = 0.5, 0.9
#: A pixel shows what absorbs so much there.
LEAST_MATTER = 0.25
#: Where the two lie, as shares of the stack.
DEPTHS = 0.2, 0.8


@dataclass(frozen=True)
class TwoDepths:
    """A scene of transmitted light whose front is nearer to the first slice.

    Attributes
    ----------
    scene
        Its depth is that of the front where there is one.
    front, back
        float32 (Y, X), in slices: the depth of what is in front, and of the ground
        behind, which shows everywhere.
    both
        bool (Y, X): where both are seen.
    """

    scene: Scene
    front: NDArray[np.float32]
    back: NDArray[np.float32]
    both: NDArray[np.bool_]


def make_two_depths(
    seed: int,
    kind: str = "hairs",
    *,
    shape: tuple[int, int] = (256, 256),
    slices: int = 12,
    blur_per_slice: float = 1.0,
    electrons: float | None = 4000.0,
) -> TwoDepths:
    """Draw texture behind transparent hairs, or behind a textured film.

    Parameters
    ----------
    seed
        Not negative.
    kind
        ``"hairs"``: fibres of 1 to 4 pixels that cover part of it; ``"films"``: a
        texture in front of all of it.
    shape, slices, blur_per_slice, electrons
        As :func:`~napari_focus_fusion.simulation.scenes.make_scene` takes them.
    """
    one_of("kind", kind, KINDS)
    rng, camera = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    options: dict[str, Any] = {
        "slices": slices,
        "psf": "disk",
        "blur_per_slice": blur_per_slice,
        "focus_blur": 0.5,
        "max_blur": 16.0,
    }
    optics, inner = make_optics(shape, options)
    canvas = optics.canvas
    atlas = make_atlas(rng, canvas)
    near, far = (share * (slices - 1) for share in DEPTHS)
    ground = np.float32(far) + plane(rng, canvas, 0.1 * slices)
    front = np.float32(near) + plane(rng, canvas, 0.1 * slices)
    everywhere = (slice(0, canvas[0]), slice(0, canvas[1]))
    behind = GROUND * texture(rng, canvas, "speckle")
    pieces = [Piece(0, everywhere, behind, ground)]
    matter = np.zeros(canvas, np.float32)
    if kind == "films":
        # Some of it thin, so that it stands out less than the ground there.
        amount = 0.2 + 0.8 * smooth_field(rng, canvas, min(canvas) / 8)
        matter += FRONT * amount * texture(rng, canvas, "granular")
    else:
        for sprite in draw_objects(rng, canvas, "fibres", atlas, 0.5):
            amount = FRONT * rng.uniform(0.5, 1) * sprite.coverage
            np.maximum(matter[sprite.box], amount, out=matter[sprite.box])
    pieces.append(Piece(0, everywhere, matter, front))
    if kind == "films":
        both = detailed(np.exp(-matter)) & detailed(np.exp(-behind))
    else:
        both = matter > LEAST_MATTER
    seen = np.where(both, front, ground)
    rendered = render_slices(composite_layers(pieces, 2, optics), optics)
    image = brightfield_image(rendered, np.ones((1, 1), np.float32), 0.0)
    scene = expose_scene(
        image[:, :, *inner],
        seen[inner],
        depth_edges(seen)[inner],
        camera,
        rgb=False,
        dtype=np.uint16,
        scale={"Z": 1.0, "Y": 1.0, "X": 1.0},
        channel_names=(),
        seed=seed,
        parameters={
            **options,
            "kind": kind,
            "exposure": 0.9,
            "electrons": electrons,
            "read_noise": 2.0,
            "offset": 0.01,
        },
    )
    return TwoDepths(scene, seen[inner], ground[inner], both[inner])
