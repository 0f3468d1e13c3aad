"""The README in an exported package: how to use the network, and how it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_focus_fusion._version import __version__
from napari_focus_fusion.engine.normalise import BLACK, WHITE

if TYPE_CHECKING:
    from napari_focus_fusion.export.part import Part

USE = {
    "scores": """\
Give all slices of a stack as one batch. For an all-in-focus image add the scores up
over {window} x {window} pixels, which the model leaves to what follows, and take
each pixel from the slice whose sum is largest. The scores of a stack's slices can
be compared with each other, not with those of another stack.""",
    "weights": """\
Give the whole stack; two slices or more. For an all-in-focus image take each pixel
from the slice whose weight is largest, or the mean of the slices by their weights.""",
    "encoder": """\
Give slices of one stack, as one batch or one after another, normalised together.
Pool what it returns over the slices: of `largest` the elementwise largest, of
`added` the sum. The decoder makes the fused image of the two and of the number of
slices.""",
    "decoder": """\
Give what the encoder returned, pooled over the slices: of `largest` the elementwise
largest, of `added` the sum; and the number of slices. It returns the fused image,
normalised as the slices were: multiply it by (white - black) and add black. Its
intensities are reconstructed, not observed.""",
}
NORMALISED = """\
The description normalises what is given: the quantiles {black:g} and {white:g} of
all slices together become 0 and 1. Programs that run the weights without it must do
so themselves. Slices that are normalised one by one cannot be compared. In
bioimageio.core make a prediction pipeline anew for each stack: one pipeline averages
the quantiles of all batches that it is given."""
FIXED = """\
The network needs statistics of the stack, which napari-focus-fusion takes from each
stack anew. Here they are fixed to those of {fixed}."""
LESS = """\
napari-focus-fusion adds to this network what no network of single tiles can have: a
surface that neighbouring pixels and slices agree on, the choice near it, depth
below a slice, and confidence. This package loads there as well: `fuse(stack,
model="FILE.zip")`."""


def documentation(part: Part, card: dict[str, Any]) -> str:
    """The text, in Markdown.

    Parameters
    ----------
    part
        The network.
    card
        What is known of its training; empty for nothing.
    """
    model = part.network.network
    spec = model.spec
    window = 2 * model.window + 1
    use = [USE[part.network.part].format(window=window)]
    if part.network.part != "decoder":
        use.append(NORMALISED.format(black=BLACK, white=WHITE))
    if part.fixed:
        use.append(FIXED.format(fixed=part.fixed))
    use.append(
        f"At each edge {part.halo} pixels of what it returns are not right; images are "
        f"at least {part.least} pixels high and wide, of any size above."
    )
    use.append(LESS)
    paper = f"{spec.paper}, https://doi.org/{spec.doi}." if spec.doi else ""
    blocks = [
        f"# {spec.title} ({part.name})",
        spec.summary,
        *(["## Paper", paper] if paper else []),
        "## Use",
        *use,
        "## Training",
        _training(card),
        "## Validation",
        *_validation(card),
        "## Where it comes from",
        f"Exported by napari-focus-fusion {__version__}. State dict, TorchScript and "
        "ONNX were compared on slices of another size than they were traced with. "
        "`network.py` is the network's source and needs PyTorch alone; the state dict "
        "holds the whole model, which may be more than this network uses. "
        "BSD-3-Clause.",
    ]
    return "\n\n".join(blocks) + "\n"


def _training(card: dict[str, Any]) -> str:
    if not card:
        return "Nothing is recorded of it."
    known = {
        "Data": card.get("data"),
        "Stacks": ", ".join(str(stack.get("name")) for stack in card.get("stacks", ())),
        "Tuned from": (card.get("parent") or {}).get("name"),
        "Command": card.get("command") and f"`{card['command']}`",
        "Seed": card.get("seed"),
        "Best step": card.get("best_step"),
        "PyTorch": card.get("torch"),
        "SHA-256 of the weights": card.get("sha256"),
    }
    return "\n".join(
        f"- {key}: {value}" for key, value in known.items() if value not in (None, "")
    )


def _validation(card: dict[str, Any]) -> list[str]:
    """Scores as a table, and what to compare with."""
    found = []
    rows = card.get("scores") or {}
    measures = list(next(iter(rows.values()), {}))
    if measures:
        head = ["", *(measure.replace("_", " ") for measure in measures)]
        table = [head, ["---"] * len(head)]
        table += [
            [name, *(str(row.get(measure, "")) for measure in measures)]
            for name, row in rows.items()
        ]
        found.append("Means over scenes with known truth that training did not use:")
        found.append("\n".join(f"| {' | '.join(line)} |" for line in table))
    found.append(
        "On stacks of your own compare the fused image with that of the plain focus "
        "measure (`sml`): `napari-focus-fusion benchmark --models sml,FILE.zip --data "
        "FOLDER`."
    )
    return found
