"""What is compared: models, other programs, and baselines without a method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_focus_fusion.benchmark.peers import PEERS
from napari_focus_fusion.errors import FocusFusionError, in_one_line
from napari_focus_fusion.models.registry import models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_focus_fusion.benchmark.data import Case

COPY = "copy of the first slice"
AVERAGE = "average of the slices"
ORACLE = "nearest slice of the true depth"

UNTRAINED = ":untrained"  # behind a model's name as it is asked for
TWO_STEPS = ":two-step"  # fused first, then enlarged by the model
SURFACE = ":surface="  # behind a model's name, and then the strength of the surface
UNTRAINED_SUFFIX = ", untrained"  # and in tables

Kind = str
"""``"model"``, ``"untrained"``, ``"peer"``, or ``"baseline"``."""


@dataclass(frozen=True)
class Candidate:
    """One model, program or baseline to compare.

    Attributes
    ----------
    name
        As tables call it.
    kind
        ``"model"``, ``"untrained"``, ``"peer"`` or ``"baseline"``.
    target
        The model's name or file, or the peer's name.
    options
        More keywords of :func:`fuse`.
    """

    name: str
    kind: Kind
    target: str
    options: dict[str, Any] = field(default_factory=dict)


def find_candidates(
    names: Sequence[str], *, untrained: bool = False
) -> list[Candidate]:
    """The candidates of these names, each model also untrained where that is wanted.

    Raises
    ------
    FocusFusionError
        If an untrained model or a peer cannot be had, two have one name, or the
        strength of a surface is not a number.
    """
    known = models()
    candidates = []
    for text in names:
        if SURFACE in text:
            candidates.append(_near_surface(*text.split(SURFACE, 1)))
            continue
        name, _, other = text.rpartition(":")
        if name in known and (text.endswith(TWO_STEPS) or other in known):
            candidates.append(_enlarger(name, other))
            continue
        name = text.removesuffix(UNTRAINED)
        if name != text:
            if name not in known:
                raise FocusFusionError(
                    f"{text!r}: there is no model {name!r} that could be left "
                    f"untrained. There are: {', '.join(known)}."
                )
            candidates.append(_untrained(name))
        elif name in PEERS and name not in known:
            peer = PEERS[name]
            if peer.version() is None:
                raise FocusFusionError(f"{peer.title} is not installed: {peer.install}")
            candidates.append(Candidate(peer.title, "peer", name))
        else:
            short = name if name in known else Path(name).stem
            candidates.append(Candidate(short, "model", name))
            if untrained and name in known and known[name].weights:
                candidates.append(_untrained(name))
    taken = [candidate.name for candidate in candidates]
    if len(set(taken)) < len(taken):
        raise FocusFusionError(f"Two models have one name: {', '.join(taken)}.")
    return candidates


def _near_surface(name: str, strength: str) -> Candidate:
    """A model with this strength of the surface, whatever the default is."""
    try:
        options = {"surface": float(strength)}
    except ValueError:
        raise FocusFusionError(
            f"{name}{SURFACE}{strength}: the strength of the surface is a number, like "
            f"{name}{SURFACE}1."
        ) from None
    (candidate,) = find_candidates([name])
    title = f"{candidate.name}, surface {strength}"
    return replace(candidate, name=title, options=options)


def _enlarger(name: str, how: str) -> Candidate:
    if f":{how}" == TWO_STEPS:
        return Candidate(f"{name}, two steps", "model", name, {"joint": False})
    return Candidate(f"{name}, decision of {how}", "model", name, {"decision": how})


def _untrained(name: str) -> Candidate:
    return Candidate(f"{name}{UNTRAINED_SUFFIX}", "untrained", name)


def find_peers() -> tuple[list[Candidate], dict[str, str]]:
    """The other programs that are installed, and how to install the missing ones."""
    found, missing = [], {}
    for peer in PEERS.values():
        try:
            installed = peer.version() is not None
        except Exception as error:  # a broken installation can raise anything
            missing[peer.title] = f"{in_one_line(error)}; {peer.install}"
            continue
        if installed:
            found.append(Candidate(peer.title, "peer", peer.name))
        else:
            missing[peer.title] = peer.install
    return found, missing


def baselines(cases: Sequence[Case]) -> list[Candidate]:
    """Results without any method; the oracle where all truths are known."""
    names = [COPY, AVERAGE]
    if all(case.truth for case in cases):
        names.append(ORACLE)
    return [Candidate(name, "baseline", name) for name in names]
